//! Entities that are deleted: a mark in the document, which stays, so that whoever was away learns
//! of it and it can be taken back.

use automerge::{AutomergeError, ROOT, ReadDoc, ScalarValue, transaction::Transactable};

/// The key at the root of a document that says when it was deleted. No field is called so.
pub const DELETED_KEY: &str = "concord:deleted";

/// Whether the entity in a document is deleted.
pub fn is_deleted(doc: &impl ReadDoc) -> bool {
    let found = doc.get(ROOT, DELETED_KEY).ok().flatten();
    found.is_some_and(|(value, _)| !value.is_null())
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
        delete(&mut doc, 1_000).unwrap();
        delete(&mut doc, 2_000).unwrap();
        assert!(is_deleted(&doc));
        let (when, _) = doc.get(ROOT, DELETED_KEY).unwrap().unwrap();
        assert_eq!(when.as_scalar().and_then(ScalarValue::as_i64), Some(1_000));
        restore(&mut doc).unwrap();
        assert!(!is_deleted(&doc));
        assert!(doc.get(ROOT, "title").unwrap().is_some());
    }
}
