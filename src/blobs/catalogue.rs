//! What is on a shelf: of each attachment how long it is, where its pieces are, and since when nobody
//! needs it. In memory whole, about 150 bytes for each; every change is a row.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use bytes::Bytes;
use concord_protocol::BlobHash;
use serde::{Deserialize, Serialize};

use crate::record::{self, RecordError};

/// Under which name the pieces are kept; no two attachments have had the same, nor one twice.
pub(super) type Place = [u8; 16];

/// What is known of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// As documents name it: what the row is found by is not read back.
    hash: [u8; 32],
    /// Its bytes.
    pub(crate) length: u64,
    pub(super) place: Place,
    /// All of it is there, and was checked.
    pub(crate) is_whole: bool,
    /// Every piece that is there was checked when it came.
    pub(super) is_outlined: bool,
    /// A relay has it. On a relay, and of what came from one, always.
    pub(crate) is_sent: bool,
    /// Since when nothing is known to refer to it, in milliseconds since 1970; 0: something did at the
    /// last look. Of what is not whole, when somebody last wanted it.
    pub(crate) unused_since_ms: u64,
}

impl Entry {
    pub(super) fn coming(hash: BlobHash, length: u64, place: Place, now_ms: u64) -> Self {
        Self {
            hash: hash.0,
            length,
            place,
            is_whole: false,
            is_outlined: false,
            is_sent: true,
            unused_since_ms: now_ms,
        }
    }

    pub(super) fn hash(&self) -> BlobHash {
        BlobHash(self.hash)
    }

    pub(super) fn row(&self) -> Result<Bytes, RecordError> {
        record::encode(self).map(Bytes::from)
    }

    pub(super) fn recall(row: &[u8]) -> Result<Self, RecordError> {
        record::decode(row)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    entries: BTreeMap<BlobHash, Entry>,
    bytes: u64,
    /// Bytes that are taken in at the moment and have no name yet.
    reserved: u64,
}

impl Catalogue {
    pub(super) fn get(&self, hash: &BlobHash) -> Option<&Entry> {
        self.entries.get(hash)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn put(&mut self, entry: Entry) {
        self.bytes = self.bytes.saturating_add(entry.length);
        if let Some(before) = self.entries.insert(entry.hash(), entry) {
            self.bytes = self.bytes.saturating_sub(before.length);
        }
    }

    pub(super) fn remove(&mut self, hash: &BlobHash) -> Option<Entry> {
        let entry = self.entries.remove(hash)?;
        self.bytes = self.bytes.saturating_sub(entry.length);
        Some(entry)
    }

    /// Bytes of all, those that are still coming with all that they will have.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.saturating_add(self.reserved)
    }

    /// Whether there is room for so many more.
    pub(super) fn has_room(&self, more: u64, max: u64) -> bool {
        self.bytes().saturating_add(more) <= max
    }

    pub(super) fn reserve(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_add(bytes);
    }

    pub(super) fn release(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_once() {
        let mut catalogue = Catalogue::default();
        let entry = |n, length| Entry::coming(BlobHash([n; 32]), length, [n; 16], 5);
        catalogue.put(entry(1, 100));
        catalogue.put(entry(2, 50));
        catalogue.put(entry(1, 30));
        catalogue.reserve(7);
        assert_eq!(catalogue.bytes(), 87);
        assert!(catalogue.has_room(13, 100) && !catalogue.has_room(14, 100));
        assert!(!catalogue.has_room(u64::MAX, 100));
        catalogue.release(7);
        assert_eq!(catalogue.remove(&BlobHash([1; 32])).map(|entry| entry.length), Some(30));
        assert_eq!(catalogue.remove(&BlobHash([1; 32])), None);
        assert_eq!(catalogue.bytes(), 50);
    }

    #[test]
    fn an_entry_is_what_it_was_in_the_first_version() {
        let mut entry = Entry::coming(BlobHash([7; 32]), 0x0102, [9; 16], 0x0304);
        entry.is_whole = true;
        let mut expected = vec![1];
        expected.extend_from_slice(&[7; 32]);
        expected.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(&[9; 16]);
        expected.extend_from_slice(&[1, 0, 1]);
        expected.extend_from_slice(&[4, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(entry.row().unwrap(), expected);
        assert_eq!(Entry::recall(&expected), Ok(entry));
        assert!(Entry::recall(&expected[..20]).is_err());
    }
}
