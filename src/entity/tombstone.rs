//! Entities that are deleted: a mark in the document, which stays, so that whoever was away learns
//! of it and it can be taken back.

use automerge::{AutomergeError, ROOT, ReadDoc, ScalarValue, Value, transaction::Transactable};

/// The key at the root of a document that says when it was deleted. No field is called so.
pub const DELETED_KEY: &str = "concord:deleted";

/// Whether the entity in a document is deleted.
pub fn is_deleted(doc: &impl ReadDoc) -> bool {
    let found = doc.get(ROOT, DELETED_KEY).ok().flatten();
    found.is_some_and(|(value, _)| !value.is_null())
}

/// When the entity in a document was deleted, in milliseconds since 1970, by the clock of whoever
/// did; the last time where several did. `None` if it is not deleted, or nobody says when.
pub fn deleted_ms(doc: &impl ReadDoc) -> Option<i64> {
    let found = doc.get_all(ROOT, DELETED_KEY).unwrap_or_default();
    let time = |(value, _): &(Value<'_>, _)| match value {
        Value::Scalar(scalar) => match &**scalar {
            ScalarValue::Timestamp(ms) => Some(*ms),
            _ => None,
        },
        Value::Object(_) => None,
    };
    if is_deleted(doc) { found.iter().filter_map(time).max() } else { None }
}

/// Deletes the entity in a document, at this time in milliseconds since 1970. What it says stays in
/// the document, and what others write meanwhile comes there. Once deleted, nothing is written.
///
/// # Errors
/// Those of the transaction.
pub fn delete(tx: &mut impl Transactable, now_ms: i64) -> Result<(), AutomergeError> {
    if is_deleted(tx) {
        return Ok(());
    }
    tx.put(ROOT, DELETED_KEY, ScalarValue::Timestamp(now_ms))
}

/// Takes that back.
///
/// # Errors
/// Those of the transaction.
pub fn restore(tx: &mut impl Transactable) -> Result<(), AutomergeError> {
    if !is_deleted(tx) {
        return Ok(());
    }
    tx.delete(ROOT, DELETED_KEY)
}

#[cfg(test)]
mod tests {
    use automerge::AutoCommit;

    use super::*;

    #[test]
    fn what_was_deleted_is_there_again() {
        let mut doc = AutoCommit::new();
        doc.put(ROOT, "title", "Trip").unwrap();
        assert!(!is_deleted(&doc));
        assert_eq!(deleted_ms(&doc), None);
        delete(&mut doc, 1_000).unwrap();
        delete(&mut doc, 2_000).unwrap();
        assert!(is_deleted(&doc));
        let (when, _) = doc.get(ROOT, DELETED_KEY).unwrap().unwrap();
        assert_eq!(when.as_scalar().and_then(ScalarValue::as_i64), Some(1_000));
        assert_eq!(deleted_ms(&doc), Some(1_000));
        let mut other = doc.fork();
        for (doc, ms) in [(&mut doc, 3_000), (&mut other, 2_000)] {
            doc.put(ROOT, DELETED_KEY, ScalarValue::Timestamp(ms)).unwrap();
        }
        doc.merge(&mut other).unwrap();
        assert_eq!(deleted_ms(&doc), Some(3_000), "the last of several");
        restore(&mut doc).unwrap();
        assert_eq!(deleted_ms(&doc), None);
        assert!(!is_deleted(&doc));
        assert!(doc.get(ROOT, "title").unwrap().is_some());
        doc.put(ROOT, DELETED_KEY, true).unwrap();
        assert_eq!((is_deleted(&doc), deleted_ms(&doc)), (true, None), "nobody says when");
    }
}
