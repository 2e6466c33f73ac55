//! When a relay may purge a document that was deleted.

use automerge::Automerge;
use serde::{Deserialize, Serialize};

use crate::entity::{EntityType, deleted_ms, is_deleted};

/// When a deleted entity is purged, and what was seen of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expires {
    /// In milliseconds since 1970.
    pub at_ms: i64,
    /// How long its type keeps what is deleted, in milliseconds.
    pub after_ms: i64,
    /// The heads of the document: what is purged is just this.
    pub heads: Vec<[u8; 32]>,
}

impl Expires {
    /// Of a document as an entity of this type: counted from when it was deleted, or from the latest
    /// time of a change in it if that is later, by the clocks of those who wrote: one clock that is
    /// far behind ends nothing early. `None` if it is not deleted, or its type keeps it.
    pub fn of(doc: &Automerge, of: &EntityType) -> Option<Self> {
        let after_ms = of.purge_deleted_after?.ms();
        if !is_deleted(doc) {
            return None;
        }
        let heads = doc.get_heads();
        let written = doc.get_changes_meta(&[]).into_iter().map(|change| change.timestamp);
        let written_ms = written.max().map(|s| s.saturating_mul(1_000));
        // A time of 0 is one that nobody wrote: where there is no other, it is kept.
        let since_ms = deleted_ms(doc).max(written_ms).filter(|ms| *ms > 0)?;
        let heads = heads.iter().map(|head| head.0).collect();
        Some(Self { at_ms: since_ms.saturating_add(after_ms), after_ms, heads })
    }
}

#[cfg(test)]
mod tests {
    use automerge::transaction::Transactable as _;
    use automerge::{AutoCommit, ROOT, ScalarValue, transaction::CommitOptions};

    use super::*;
    use crate::entity::{DELETED_KEY, Schema, delete};

    #[test]
    fn it_is_counted_from_the_deletion_or_the_last_change() {
        let schema = "[types.a]\npurge_deleted_after = \"1m\"\n[types.a.fields]\nx = \"string\"\n\
                      [types.b.fields]\nx = \"string\"\n";
        let schema = Schema::parse(schema).unwrap();
        let at = |doc: &mut AutoCommit, of: &str| {
            Expires::of(doc.document(), &schema.types[of]).map(|it| it.at_ms)
        };
        let commit = |doc: &mut AutoCommit, s: i64| {
            doc.commit_with(CommitOptions::default().with_time(s)).unwrap();
        };
        let mut doc = AutoCommit::new();
        doc.put(ROOT, "type", "a").unwrap();
        commit(&mut doc, 10);
        assert_eq!(at(&mut doc, "a"), None, "it is not deleted");
        delete(&mut doc, 20_500).unwrap();
        commit(&mut doc, 20);
        assert_eq!((at(&mut doc, "a"), at(&mut doc, "b")), (Some(80_500), None));
        doc.put(ROOT, "x", "more").unwrap();
        commit(&mut doc, 30);
        assert_eq!(at(&mut doc, "a"), Some(90_000));

        // One whose clock stands in 1970 brings nothing forward.
        doc.put(ROOT, DELETED_KEY, ScalarValue::Timestamp(5)).unwrap();
        commit(&mut doc, 1);
        assert_eq!(at(&mut doc, "a"), Some(90_000));

        // Other programs may say that it is deleted without a time, and changes may have none.
        let mut doc = AutoCommit::new();
        doc.put(ROOT, DELETED_KEY, true).unwrap();
        commit(&mut doc, 0);
        assert_eq!(at(&mut doc, "a"), None);
        doc.put(ROOT, DELETED_KEY, ScalarValue::Timestamp(1)).unwrap();
        commit(&mut doc, 0);
        assert_eq!(at(&mut doc, "a"), Some(60_001));
    }
}
