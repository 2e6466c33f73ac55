//! All documents in memory, by name and in the order in which they changed last: about 240
//! bytes each, as measured.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use concord_protocol::DocumentId;

use crate::digest::digest;

/// Documents that are passed over for one page, at most: so that nobody waits for the lock for
/// longer than some milliseconds, however rare what is asked for is.
const PASSED_MAX: usize = 50_000;

/// What is known of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its number: it is the highest when it is given, and another one is given when the document
    /// changes.
    pub(super) number: u64,
    /// A number for the heads that it then had on disk; 0 where that is not known.
    pub(super) heads: u64,
    pub(super) of: TypeId,
    pub(super) standing: Standing,
}

/// How it is with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Standing {
    /// There, as far as is known.
    #[default]
    Live,
    /// Deleted as an entity; what it says can be read.
    Deleted,
    /// Only a record of it is left.
    Purged,
}

/// A type; 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct TypeId(u16);

/// The 16 bytes of a document's id, which nearly all have, or a digest of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    bytes: [u8; 16],
    is_digest: bool,
}

impl Name {
    fn of(document: &DocumentId) -> Self {
        match <[u8; 16]>::try_from(document.to_bytes()) {
            // Another text of the same bytes would be another document.
            Ok(bytes) if DocumentId::from_bytes(&bytes) == *document => {
                Self { bytes, is_digest: false }
            }
            _ => Self {
                bytes: digest(["concord catalogue name", document.as_str()]),
                is_digest: true,
            },
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Table {
    documents: BTreeMap<Name, Entry>,
    order: BTreeMap<u64, Name>,
    /// Those whose names are digests.
    others: BTreeMap<Name, DocumentId>,
    types: Vec<Arc<str>>,
    by_name: BTreeMap<Arc<str>, TypeId>,
    /// Documents of each type that are not purged.
    counts: Vec<usize>,
}

/// A part of the documents, in order.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) documents: Vec<(DocumentId, Entry)>,
    /// All with a number up to this were looked at.
    pub(super) up_to: u64,
    /// There are more behind it, perhaps.
    pub(super) has_more: bool,
}

impl Default for Table {
    fn default() -> Self {
        let none: Arc<str> = "".into();
        Self {
            documents: BTreeMap::new(),
            order: BTreeMap::new(),
            others: BTreeMap::new(),
            types: vec![none.clone()],
            by_name: BTreeMap::from([(none, TypeId::default())]),
            counts: vec![0],
        }
    }
}

impl Table {
    pub(super) fn get(&self, document: &DocumentId) -> Option<&Entry> {
        self.documents.get(&Name::of(document))
    }

    /// Takes an entry in, in place of that of its document. Its number must be nobody else's.
    pub(super) fn put(&mut self, document: &DocumentId, entry: Entry) {
        let name = Name::of(document);
        let before = self.documents.insert(name, entry);
        match before {
            Some(before) => {
                self.order.remove(&before.number);
                self.count(before, |count| count.saturating_sub(1));
            }
            None if name.is_digest => {
                self.others.insert(name, document.clone());
            }
            None => {}
        }
        self.order.insert(entry.number, name);
        self.count(entry, |count| count + 1);
    }

    fn count(&mut self, entry: Entry, change: impl FnOnce(usize) -> usize) {
        if entry.standing != Standing::Purged
            && let Some(count) = self.counts.get_mut(usize::from(entry.of.0))
        {
            *count = change(*count);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.documents.len()
    }

    /// How many documents of a type, or of all, are not purged.
    pub(super) fn total(&self, of: Option<TypeId>) -> usize {
        match of {
            None => self.counts.iter().sum(),
            Some(of) => self.counts.get(usize::from(of.0)).copied().unwrap_or_default(),
        }
    }

    /// The types of which there is a document, with how many there are of each.
    pub(super) fn types(&self) -> impl Iterator<Item = (&str, usize)> {
        let types = self.types.iter().map(|name| &**name).zip(self.counts.iter().copied());
        types.filter(|(_, count)| *count > 0)
    }

    /// The number of a type, a new one if it has none.
    pub(super) fn type_id(&mut self, name: &str) -> TypeId {
        if let Some(known) = self.by_name.get(name) {
            return *known;
        }
        // Types are those of schemas of this relay: some hundred at most.
        let Ok(id) = u16::try_from(self.types.len()).map(TypeId) else {
            return TypeId::default();
        };
        let name: Arc<str> = name.into();
        self.types.push(name.clone());
        self.counts.push(0);
        self.by_name.insert(name, id);
        id
    }

    /// The number of a type, if there was ever a document of it.
    pub(super) fn known_type(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// The name of a type; nothing for none.
    pub(super) fn type_name(&self, of: TypeId) -> &str {
        self.types.get(usize::from(of.0)).map_or("", |name| name)
    }

    /// Documents of a type, or of all, whose numbers are above one, so many at most.
    pub(super) fn after(&self, number: u64, of: Option<TypeId>, limit: usize) -> Part {
        let mut part = Part { up_to: number, ..Part::default() };
        let mut rest = self.order.range((Excluded(number), Unbounded));
        let mut passed = 0;
        for (number, name) in &mut rest {
            part.up_to = *number;
            passed += 1;
            if let Some(entry) = self.documents.get(name)
                && of.is_none_or(|of| of == entry.of)
                && let Some(document) = self.document(*name)
            {
                part.documents.push((document, *entry));
            }
            if part.documents.len() >= limit || passed >= PASSED_MAX {
                break;
            }
        }
        part.has_more = rest.next().is_some();
        part
    }

    fn document(&self, name: Name) -> Option<DocumentId> {
        if name.is_digest {
            return self.others.get(&name).cloned();
        }
        Some(DocumentId::from_bytes(&name.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64, of: TypeId) -> Entry {
        Entry { number, heads: 7, of, standing: Standing::Live }
    }

    #[test]
    fn ids_of_any_length_are_kept_apart_and_given_back() {
        let mut table = Table::default();
        let task = table.type_id("task");
        let ids: Vec<DocumentId> = [&[1; 16][..], &[1; 15], &[1; 17], &[0; 16], &[9; 64]]
            .into_iter()
            .map(DocumentId::from_bytes)
            .collect();
        // Whose bytes are the digest of another's name.
        let twin = DocumentId::from_bytes(&digest(["concord catalogue name", ids[4].as_str()]));
        let ids: Vec<DocumentId> = ids.into_iter().chain([twin]).collect();
        for (number, id) in (1..).zip(&ids) {
            table.put(id, entry(number, task));
        }
        let part = table.after(0, None, 100);
        let listed: Vec<_> = part.documents.into_iter().map(|(id, _)| id).collect();
        assert_eq!(listed, ids);
        assert_eq!((part.up_to, part.has_more, table.len()), (6, false, 6));
    }

    #[test]
    fn a_page_goes_on_where_the_last_one_ended_and_types_are_told_apart() {
        let mut table = Table::default();
        let (task, note) = (table.type_id("task"), table.type_id("note"));
        let id = |n: u8| DocumentId::from_bytes(&[n; 16]);
        for n in 1..=9_u8 {
            table.put(&id(n), entry(u64::from(n), if n % 3 == 0 { note } else { task }));
        }
        let mut found = Vec::new();
        let mut after = 0;
        loop {
            let part = table.after(after, Some(task), 2);
            found.extend(part.documents.into_iter().map(|(id, _)| id));
            after = part.up_to;
            if !part.has_more {
                break;
            }
        }
        assert_eq!(found, [1, 2, 4, 5, 7, 8].map(id));
        assert_eq!(
            (table.total(Some(task)), table.total(Some(note)), table.total(None)),
            (6, 3, 9)
        );
        // What changes comes again, behind, and once.
        table.put(&id(1), entry(10, note));
        let gone = Entry { standing: Standing::Purged, ..entry(11, task) };
        table.put(&id(2), gone);
        let part = table.after(9, None, 100);
        assert_eq!(part.documents, [(id(1), entry(10, note)), (id(2), gone)]);
        assert_eq!(table.after(0, None, 100).documents.len(), 9);
        assert_eq!((table.total(Some(task)), table.total(Some(note))), (4, 4));
        assert_eq!(table.known_type("task"), Some(task));
        assert_eq!(table.known_type("other"), None);
        assert_eq!(table.types().collect::<Vec<_>>(), [("task", 4), ("note", 4)]);
    }
}
