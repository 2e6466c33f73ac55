//! A source of chance and a disk, of one run each.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use concord::peer::simulation::NotesRead;
use concord::replica::{Kind, RowKey, RowWrite, StorageFailure, StoredDocument};
use concord_protocol::{ChangeHash, DocumentId};

/// `SplitMix64` (Steele, Lea, Flood 2014).
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The row of a document's place in the outbox.
const OUTBOX_ROW: RowKey = RowKey { kind: Kind::Meta, id: [0; 32], part: 0 };

/// The rows on one node's disk.
#[derive(Default)]
pub(crate) struct Disk {
    rows: BTreeMap<(DocumentId, RowKey), Bytes>,
    notes: BTreeMap<(Option<DocumentId>, RowKey), Bytes>,
    pub(crate) fails: bool,
    /// There is no room for the rows that say what is to be replaced.
    pub(crate) fails_journals: bool,
    /// Writes of documents do not come to it.
    pub(crate) loses_changes: bool,
}

impl Disk {
    /// Rows of the outbox.
    pub(crate) fn note(&mut self, document: Option<&DocumentId>, writes: Vec<RowWrite>) {
        for write in writes {
            match write {
                RowWrite::Put(row, bytes) => {
                    _ = self.notes.insert((document.cloned(), row), bytes);
                }
                RowWrite::Delete(row) => _ = self.notes.remove(&(document.cloned(), row)),
                RowWrite::Clear => panic!("nobody clears the outbox"),
            }
        }
    }

    pub(crate) fn notes(&self, after: Option<&DocumentId>) -> NotesRead {
        let rows = self.notes.iter().filter(|((_, row), _)| *row == OUTBOX_ROW);
        let rows = rows.filter_map(|((of, _), bytes)| Some((of.clone()?, bytes.clone())));
        let page = rows.filter(|(of, _)| after.is_none_or(|after| of > after)).take(2);
        let page = page.map(|(of, row)| (of, Some(row))).collect();
        NotesRead { page, has_marker: self.notes.contains_key(&(None, OUTBOX_ROW)) }
    }

    pub(crate) fn load(&self, document: &DocumentId) -> StoredDocument {
        let mut stored = StoredDocument::default();
        for ((_, row), bytes) in self.rows.iter().filter(|((of, _), _)| of == document) {
            match row.kind {
                Kind::Meta => stored.meta = Some(bytes.clone()),
                Kind::IndexRoot => stored.roots.push((row.id, bytes.clone())),
                Kind::Change => stored.changes.push((ChangeHash(row.id), bytes.clone())),
                _ => {}
            }
        }
        stored
    }

    pub(crate) fn read(&self, document: &DocumentId, rows: Vec<RowKey>) -> Vec<Option<Bytes>> {
        rows.into_iter().map(|row| self.rows.get(&(document.clone(), row)).cloned()).collect()
    }

    pub(crate) fn write(
        &mut self,
        document: &DocumentId,
        writes: Vec<RowWrite>,
    ) -> Result<(), StorageFailure> {
        if self.fails {
            return Err(StorageFailure::Passing("the disk is broken".to_owned()));
        }
        for write in writes {
            match write {
                RowWrite::Put(row, bytes) => self.rows.insert((document.clone(), row), bytes),
                RowWrite::Delete(row) => self.rows.remove(&(document.clone(), row)),
                RowWrite::Clear => {
                    self.rows.retain(|(of, row), _| of != document || row.kind == Kind::Meta);
                    None
                }
            };
        }
        Ok(())
    }

    pub(crate) fn list(&self, after: Option<&DocumentId>, limit: usize) -> Vec<DocumentId> {
        let all: BTreeSet<_> = self.rows.keys().map(|(document, _)| document.clone()).collect();
        all.into_iter().filter(|id| after.is_none_or(|after| id > after)).take(limit).collect()
    }
}
