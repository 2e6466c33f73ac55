//! What is stored of a document beside its changes and its snapshot.

use serde::{Deserialize, Serialize};

use crate::record;

/// The record in a document's meta row.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    /// Changes that broke the document. They and what builds on them are kept, not served.
    pub(super) withheld: Vec<[u8; 32]>,
    /// Why, in words.
    pub(super) reason: String,
    /// Snapshots that cannot be read: the document goes on without them.
    pub(super) damaged: Vec<[u8; 32]>,
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
            Some(Self { withheld, reason, damaged: Vec::new() })
        };
        record::decode(bytes).ok().or_else(first)
    }
}

/// A meta row as the first format had it: for worlds in which an earlier version wrote it. `None`
/// if it is none.
#[cfg(feature = "simulation")]
pub fn in_first_format(meta_row: &[u8]) -> Option<Vec<u8>> {
    let Meta { withheld, reason, damaged: _ } = Meta::read(meta_row)?;
    record::encode(&FirstMeta { withheld, reason }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_both_formats_are_read() {
        let (withheld, reason) = (vec![[1; 32], [2; 32]], "why".to_owned());
        let first = FirstMeta { withheld: withheld.clone(), reason: reason.clone() };
        let mut meta = Meta { withheld, reason, damaged: Vec::new() };
        assert_eq!(Meta::read(&record::encode(&first).unwrap()), Some(meta.clone()));
        meta.damaged.push([3; 32]);
        assert_eq!(Meta::read(&record::encode(&meta).unwrap()), Some(meta));
        assert_eq!(Meta::read(b"\x01no record"), None);
    }
}
