//! A document's content: the automerge instance of it, and the only code here that gives it
//! bytes of others.
//!
//! Everything in this module runs on the applier's large stack (see [`super::applier`]), may
//! panic inside automerge, and then leaves an instance that must be dropped.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{ActorId, Automerge, Change, LoadOptions, ReadDoc as _};
use bytes::Bytes;

/// From this many changes on, a batch is read back in one pass instead of change by change: a
/// look-up costs about 30 µs, a pass about as much as a thousand.
const READ_BACK_SINGLY_MAX: usize = 256;

/// Bytes to take in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A change chunk.
    Change(Bytes),
    /// A document chunk.
    Snapshot(Bytes),
}

/// The type byte of a document chunk, after four of magic and four of checksum.
const DOCUMENT_CHUNK: u8 = 0;

impl From<Bytes> for Incoming {
    fn from(chunk: Bytes) -> Self {
        match chunk.get(8) {
            Some(&DOCUMENT_CHUNK) => Self::Snapshot(chunk),
            _ => Self::Change(chunk),
        }
    }
}

/// Why content could not be made of bytes. The instance is to be dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unusable(String);

/// A new instance of these chunks, under an actor id that nobody has used: one that was used
/// before a crash may have been used for changes that were lost.
pub(super) fn load(actor: ActorId, chunks: Vec<Incoming>) -> Result<Automerge, Unusable> {
    let mut doc = None;
    let mut rest = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        match chunk {
            Incoming::Snapshot(bytes) if doc.is_none() => {
                let loaded = caught(|| {
                    Automerge::load_with_options(&bytes, LoadOptions::new()).map_err(text)
                })?;
                doc = Some(loaded);
            }
            other => rest.push(other),
        }
    }
    let mut doc = doc.unwrap_or_default();
    take_in(&mut doc, rest)?;
    Ok(doc.with_actor(actor))
}

/// Takes in chunks, all changes among them at once; gives what was new.
pub(super) fn take_in(doc: &mut Automerge, chunks: Vec<Incoming>) -> Result<Vec<Change>, Unusable> {
    let before = doc.get_heads();
    let mut changes = Vec::with_capacity(chunks.len());
    let mut snapshots = false;
    for chunk in chunks {
        match chunk {
            Incoming::Snapshot(bytes) => {
                snapshots = true;
                caught(|| doc.load_incremental(&bytes).map_err(text))?;
            }
            Incoming::Change(bytes) => {
                let change = caught(|| Change::from_bytes(bytes.into()).map_err(text))?;
                if doc.get_change_meta_by_hash(&change.hash()).is_none() {
                    changes.push(change);
                }
            }
        }
    }
    if !changes.is_empty() {
        caught(|| doc.apply_changes(changes.iter().cloned()).map_err(text))?;
        verify(doc, &before, &changes)?;
    }
    if snapshots {
        return caught(|| Ok(doc.get_changes(&before)));
    }
    Ok(changes)
}

/// Every change of a document, in causal order, as chunks.
pub(super) fn all_changes(doc: &Automerge) -> Result<Vec<Bytes>, Unusable> {
    let changes = caught(|| Ok(doc.get_changes(&[])))?;
    Ok(changes.iter().map(|change| change.raw_bytes().to_vec().into()).collect())
}

/// Reads back what was applied: automerge accepts changes that it does not write as they were,
/// and such a document can be saved but not loaded (RELIABILITY 3.1).
fn verify(
    doc: &Automerge,
    before: &[automerge::ChangeHash],
    changes: &[Change],
) -> Result<(), Unusable> {
    let differs =
        |change: &Change| Unusable(format!("change {} is not read back as written", change.hash()));
    if changes.len() > READ_BACK_SINGLY_MAX {
        let read = caught(|| Ok(doc.get_changes(before)))?;
        let mut read: Vec<_> =
            read.iter().map(|change| (change.hash(), change.raw_bytes())).collect();
        read.sort_unstable();
        for change in changes {
            let same = read.binary_search(&(change.hash(), change.raw_bytes())).is_ok();
            if !same {
                return Err(differs(change));
            }
        }
        return Ok(());
    }
    for change in changes {
        let read = caught(|| Ok(doc.get_change_by_hash(&change.hash())))?;
        if read.is_none_or(|read| read.raw_bytes() != change.raw_bytes()) {
            return Err(differs(change));
        }
    }
    Ok(())
}

fn text(error: impl std::fmt::Display) -> Unusable {
    Unusable(error.to_string())
}

/// Runs automerge over bytes of others; a panic is an error like any other.
fn caught<T>(work: impl FnOnce() -> Result<T, Unusable>) -> Result<T, Unusable> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(Unusable(format!("automerge failed on it: {words}")))
    })
}

#[cfg(test)]
mod tests {
    use automerge::{ObjType, ROOT, transaction::Transactable as _};

    use super::*;

    fn written(changes: u8) -> (Automerge, Vec<Incoming>) {
        let mut doc = Automerge::new();
        let text = doc.transact(|tx| tx.put_object(ROOT, "text", ObjType::Text)).unwrap().result;
        for _ in 0..changes {
            doc.transact(|tx| tx.splice_text(&text, 0, 0, "a")).unwrap();
        }
        let chunks = doc
            .get_changes(&[])
            .iter()
            .map(|change| Incoming::Change(change.raw_bytes().to_vec().into()))
            .collect();
        (doc, chunks)
    }

    fn actor() -> ActorId {
        ActorId::from([1; 16])
    }

    #[test]
    fn changes_and_snapshots_make_the_same_document() {
        let (doc, chunks) = written(5);
        assert_eq!(load(actor(), chunks.clone()).unwrap().get_heads(), doc.get_heads());
        let snapshot = Incoming::Snapshot(doc.save().into());
        let mut both = vec![snapshot.clone()];
        both.extend(chunks);
        assert_eq!(load(actor(), both).unwrap().get_heads(), doc.get_heads());

        let mut empty = Automerge::new();
        assert_eq!(take_in(&mut empty, vec![snapshot.clone()]).unwrap().len(), 6);
        assert_eq!(take_in(&mut empty, vec![snapshot]).unwrap().len(), 0);
    }

    #[test]
    fn many_changes_are_read_back_in_one_pass() {
        let (doc, chunks) = written(250);
        let mut other = Automerge::new();
        let (first, second) = chunks.split_at(3);
        assert_eq!(take_in(&mut other, first.to_vec()).unwrap().len(), 3);
        assert_eq!(take_in(&mut other, second.to_vec()).unwrap().len(), 248);
        assert_eq!(take_in(&mut other, chunks).unwrap().len(), 0);
        assert_eq!(other.get_heads(), doc.get_heads());
    }

    #[test]
    fn a_batch_over_the_limit_is_verified() {
        let (doc, chunks) = written(255);
        assert!(chunks.len() >= READ_BACK_SINGLY_MAX);
        assert_eq!(load(actor(), chunks).unwrap().get_heads(), doc.get_heads());
    }

    #[test]
    fn broken_bytes_are_an_error() {
        assert!(load(actor(), vec![Incoming::Snapshot(Bytes::from_static(b"nothing"))]).is_err());
        assert!(
            load(actor(), vec![Incoming::Change(Bytes::from_static(b"\x85\x6f\x4a\x83"))]).is_err()
        );
    }
}
