//! The index on disk: a row of nobody's for each document, which is its entry, or a mark that the
//! document says something else by now; and one that says whether all documents have one.

use bytes::Bytes;
use concord_protocol::DocumentId;
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use crate::{
    digest::digest,
    record,
    replica::{Kind, RowKey, RowWrite, StoredDocument},
};

/// The format of entries: rows of another are read anew from their documents.
const VERSION: u32 = 2;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Kept {
    Entry(Vec<u8>),
    Mark(String),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    version: u32,
    kept: Kept,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Root {
    version: u32,
    is_complete: bool,
}

const ROOT: RowKey = RowKey { kind: Kind::Meta, id: [0; 32], part: 0 };

fn key(document: &str) -> RowKey {
    let mut id = [0; 32];
    id[..16].copy_from_slice(&digest(["concord index row", document]));
    RowKey { kind: Kind::Change, id, part: 0 }
}

fn put(key: RowKey, record: &impl Serialize) -> Option<RowWrite> {
    // Entries are far below what a record may have.
    record::encode(record).ok().map(|bytes| RowWrite::Put(key, Bytes::from(bytes)))
}

/// The row of an entry, which takes the place of a mark.
pub(crate) fn entry(entry: &Entry) -> Option<RowWrite> {
    let kept = Kept::Entry(entry.as_bytes().to_vec());
    put(key(entry.id()), &Row { version: VERSION, kept })
}

/// A mark, which takes the place of an entry.
pub(crate) fn mark(document: &DocumentId) -> Option<RowWrite> {
    let kept = Kept::Mark(document.as_str().to_owned());
    put(key(document.as_str()), &Row { version: VERSION, kept })
}

/// Nothing is there of the document.
pub(crate) fn none(document: &DocumentId) -> RowWrite {
    RowWrite::Delete(key(document.as_str()))
}

/// All documents have a row.
pub(crate) fn complete() -> Option<RowWrite> {
    put(ROOT, &Root { version: VERSION, is_complete: true })
}

/// No rows at all.
pub(crate) fn nothing() -> Vec<RowWrite> {
    vec![RowWrite::Delete(ROOT), RowWrite::Clear]
}

/// What was kept.
#[derive(Debug, Default)]
pub(crate) struct Recalled {
    pub(crate) entries: Vec<Entry>,
    /// Documents that say something else.
    pub(crate) marked: Vec<DocumentId>,
    /// Whether that is all of them.
    pub(crate) is_complete: bool,
}

/// Reads all rows. Those that cannot be read are left out, and then it is not all.
pub(crate) fn recall(stored: StoredDocument) -> Recalled {
    let root = stored.meta.and_then(|bytes| record::decode::<Root>(&bytes).ok());
    let is_complete = root.is_some_and(|root| root.version == VERSION && root.is_complete);
    let mut recalled = Recalled {
        entries: Vec::with_capacity(stored.changes.len()),
        marked: Vec::new(),
        is_complete: is_complete && stored.corrupt.is_empty(),
    };
    for (id, bytes) in stored.changes {
        let row = record::decode::<Row>(&bytes).ok().filter(|row| row.version == VERSION);
        let known = match row.map(|row| row.kept) {
            Some(Kept::Entry(bytes)) => {
                let entry = Entry::parse(&bytes).filter(|entry| key(entry.id()).id == id.0);
                entry.map(|entry| recalled.entries.push(entry)).is_some()
            }
            Some(Kept::Mark(document)) => {
                let document = document.parse::<DocumentId>().ok();
                document.map(|document| recalled.marked.push(document)).is_some()
            }
            None => false,
        };
        recalled.is_complete &= known;
    }
    recalled
}

#[cfg(test)]
mod tests {
    use concord_protocol::ChangeHash;

    use super::*;
    use crate::peer::index::{cell::Cell, entry::Parts};

    fn sample(id: &DocumentId) -> Entry {
        Entry::new(&Parts {
            id,
            type_name: "task",
            key: Some("1"),
            reading: 1,
            heads: 2,
            changed: 3,
            is_deleted: false,
            conflicts: 0,
            cells: vec![Cell::Integer(4), Cell::Text { text: "x", cut: true }],
        })
    }

    fn stored(writes: Vec<RowWrite>) -> StoredDocument {
        let mut stored = StoredDocument::default();
        for write in writes {
            match write {
                RowWrite::Put(key, bytes) if key.kind == Kind::Meta => stored.meta = Some(bytes),
                RowWrite::Put(key, bytes) => {
                    let id = ChangeHash(key.id);
                    stored.changes.retain(|(known, _)| *known != id);
                    stored.changes.push((id, bytes));
                }
                RowWrite::Delete(key) => stored.changes.retain(|(known, _)| known.0 != key.id),
                RowWrite::Clear => stored.changes.clear(),
            }
        }
        stored
    }

    #[test]
    fn an_entry_and_a_mark_take_each_others_place() {
        let id = DocumentId::from_bytes(&[1; 16]);
        let (put, mark) = (entry(&sample(&id)).unwrap(), mark(&id).unwrap());
        let all = recall(stored(vec![complete().unwrap(), mark.clone(), put.clone()]));
        assert_eq!((all.entries, all.marked, all.is_complete), (vec![sample(&id)], vec![], true));
        let all = recall(stored(vec![put.clone(), mark]));
        assert_eq!((all.entries, all.marked, all.is_complete), (vec![], vec![id.clone()], false));
        let all = recall(stored(vec![complete().unwrap(), put, none(&id)]));
        assert!(all.entries.is_empty() && all.is_complete);
    }

    #[test]
    fn what_cannot_be_read_is_not_all() {
        let id = DocumentId::from_bytes(&[1; 16]);
        let whole = stored(vec![complete().unwrap(), entry(&sample(&id)).unwrap()]);
        let length = whole.changes[0].1.len();
        for at in 0..length {
            let mut damaged = whole.clone();
            let mut bytes = damaged.changes[0].1.to_vec();
            bytes.truncate(at);
            damaged.changes[0].1 = bytes.into();
            assert!(!recall(damaged).is_complete, "{at} bytes");
        }
        let mut corrupt = whole.clone();
        corrupt.corrupt.push(ROOT);
        assert!(!recall(corrupt).is_complete);
        let older = Row { version: VERSION + 1, kept: Kept::Mark(id.as_str().to_owned()) };
        let older = put(key(id.as_str()), &older).unwrap();
        let found = recall(stored(vec![complete().unwrap(), older]));
        assert!(found.marked.is_empty() && !found.is_complete);
        let elsewhere = match entry(&sample(&id)).unwrap() {
            RowWrite::Put(_, bytes) => RowWrite::Put(key("another"), bytes),
            other => other,
        };
        assert!(recall(stored(vec![elsewhere])).entries.is_empty(), "a row of another document");
    }
}
