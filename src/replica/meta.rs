//! What is stored of a document beside its changes and its snapshot.

use serde::{Deserialize, Serialize};

use crate::record::{self, RecordError};

/// The record in a document's meta row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Changes that broke the document. They and what builds on them are kept, not served.
    pub(super) withheld: Vec<[u8; 32]>,
    /// Why, in words.
    pub(super) reason: String,
    /// Snapshots that cannot be read: the document goes on without them.
    pub(super) damaged: Vec<[u8; 32]>,
    /// It was deleted and purged: nothing else is left of it.
    pub(super) purged: Option<Purged>,
}

/// What is left of a document that was purged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Purged {
    /// When, in milliseconds since 1970.
    pub(super) when_ms: u64,
    /// The heads that it had: what is known to have been there.
    pub(super) heads: Vec<[u8; 32]>,
    /// Its rows are gone.
    pub(super) is_cleared: bool,
}

/// As [`Meta`] is written of documents that were not purged, and was before any were.
#[derive(Serialize, Deserialize)]
struct SecondMeta {
    withheld: Vec<[u8; 32]>,
    reason: String,
    damaged: Vec<[u8; 32]>,
}

/// As [`Meta`] was before documents went on without damaged snapshots.
#[derive(Deserialize)]
#[cfg_attr(any(test, feature = "simulation"), derive(Serialize))]
struct FirstMeta {
    withheld: Vec<[u8; 32]>,
    reason: String,
}

impl Meta {
    /// The record in these bytes; `None` if there is none.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let first = || {
            let FirstMeta { withheld, reason } = record::decode(bytes).ok()?;
            mark!(FirstMetaRead);
            Some(Self { withheld, reason, ..Self::default() })
        };
        let second = || {
            let SecondMeta { withheld, reason, damaged } = record::decode(bytes).ok()?;
            Some(Self { withheld, reason, damaged, purged: None })
        };
        record::decode(bytes).ok().or_else(second).or_else(first)
    }

    /// The record as bytes, in the oldest format that has room for it: earlier versions read what
    /// they can.
    pub(super) fn write(&self) -> Result<Vec<u8>, RecordError> {
        if self.purged.is_some() {
            return record::encode(self);
        }
        let Self { withheld, reason, damaged, purged: _ } = self.clone();
        record::encode(&SecondMeta { withheld, reason, damaged })
    }
}

/// A meta row as the first format had it: for worlds in which an earlier version wrote it. `None`
/// if it is none.
#[cfg(feature = "simulation")]
pub fn in_first_format(meta_row: &[u8]) -> Option<Vec<u8>> {
    let Meta { withheld, reason, damaged: _, purged: None } = Meta::read(meta_row)? else {
        return None;
    };
    record::encode(&FirstMeta { withheld, reason }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_all_formats_are_read() {
        let (withheld, reason) = (vec![[1; 32], [2; 32]], "why".to_owned());
        let first = FirstMeta { withheld: withheld.clone(), reason: reason.clone() };
        let mut meta = Meta { withheld, reason, ..Meta::default() };
        assert_eq!(Meta::read(&record::encode(&first).unwrap()), Some(meta.clone()));
        meta.damaged.push([3; 32]);
        assert_eq!(Meta::read(&meta.write().unwrap()), Some(meta.clone()));
        let purged = Purged { when_ms: 4, heads: vec![[5; 32]], is_cleared: true };
        meta.purged = Some(purged);
        assert_eq!(Meta::read(&meta.write().unwrap()), Some(meta));
        assert_eq!(Meta::read(b"\x01no record"), None);
    }

    #[test]
    fn rows_are_what_they_were_in_earlier_versions() {
        let none = [0; 8];
        let one = [1, 0, 0, 0, 0, 0, 0, 0];
        let meta = Meta { damaged: vec![[3; 32]], ..Meta::default() };
        let expected = [&[1][..], &none, &none, &one, &[3; 32]].concat();
        assert_eq!(meta.write().as_deref(), Ok(&expected[..]), "without a word of a purge");

        let purged = Purged { when_ms: 0x0102, heads: vec![[0xcd; 32]], is_cleared: false };
        let meta = Meta { purged: Some(purged), ..Meta::default() };
        let when = [2, 1, 0, 0, 0, 0, 0, 0];
        let expected =
            [&[1][..], &none, &none, &none, &[1], &when, &one, &[0xcd; 32], &[0]].concat();
        assert_eq!(meta.write().as_deref(), Ok(&expected[..]));
    }
}
