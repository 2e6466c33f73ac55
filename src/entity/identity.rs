//! Which document an entity is: the same on every replica, without asking anybody.

use automerge::{AutomergeError, ROOT, ReadDoc, transaction::Transactable};
use concord_protocol::DocumentId;

use crate::digest::digest;

/// The key at the root of a document that says which key its entity has: the name of a document is
/// made of it, and does not give it back. No field is called so.
pub const KEY_KEY: &str = "concord:key";

/// Bytes of a key that is written into a document, and believed from one.
pub const KEY_BYTES_MAX: usize = 256;

/// Tells these hashes from all others, and later ways of naming from this one.
const DOMAIN: &str = "concord entity 1";

/// Whose everything is: there are no accounts.
pub(crate) const TENANT: &str = "default";

/// The document of an entity: whoever makes one with the same key, offline too, makes the same.
///
/// It is the SHA-256 of tenant, type and key, each with its length before it, cut to 16 bytes, of
/// which six bits are those of a UUID of version 4: automerge-repo 1.x opens nothing else. Two of
/// 10^12 entities are the same document with a probability of 10^-13.
pub fn document_id(tenant: &str, type_name: &str, key: &str) -> DocumentId {
    DocumentId::from_random(digest([DOMAIN, tenant, type_name, key]))
}

/// [`document_id`] where there is one tenant, as now there is.
pub fn entity_id(type_name: &str, key: &str) -> DocumentId {
    document_id(TENANT, type_name, key)
}

/// The key of the entity in a document, if the document says it and it is so: whatever somebody
/// writes there, no other key makes this name.
pub fn key_of(doc: &impl ReadDoc, type_name: &str, id: &DocumentId) -> Option<String> {
    let (value, _) = doc.get(ROOT, KEY_KEY).ok()??;
    let key = value.as_scalar()?.as_str().filter(|key| key.len() <= KEY_BYTES_MAX)?;
    (entity_id(type_name, key) == *id).then(|| key.to_owned())
}

/// Writes the key of the entity into its document, where it is not there and not too long.
///
/// # Errors
/// Those of the transaction.
pub fn note_key(tx: &mut impl Transactable, key: &str) -> Result<(), AutomergeError> {
    if key.len() > KEY_BYTES_MAX || tx.get(ROOT, KEY_KEY)?.is_some() {
        return Ok(());
    }
    tx.put(ROOT, KEY_KEY, key)
}

/// A key for an entity that has none of its own: a UUID of version 7, which sorts by time.
/// `random` must be new for each.
pub fn generated_key(now_ms: u64, random: [u8; 10]) -> String {
    uuid::Builder::from_unix_timestamp_millis(now_ms, &random).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_for_ever() {
        let id = document_id("acme", "task", "42");
        assert_eq!(id.as_str(), "2RNVQ45f8ErhHeN2uas7BVYXp29m");
        assert_eq!(id, document_id("acme", "task", "42"));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let ids = [
            document_id("a", "bc", "d"),
            document_id("ab", "c", "d"),
            document_id("a", "b", "cd"),
            document_id("", "abc", "d"),
            document_id("a", "bc", ""),
        ];
        let different: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
    }

    #[test]
    fn a_key_that_a_document_says_is_believed_only_where_it_is_so() {
        let mut doc = automerge::AutoCommit::new();
        let id = document_id(TENANT, "task", "42");
        assert_eq!(key_of(&doc, "task", &id), None);
        note_key(&mut doc, "42").unwrap();
        note_key(&mut doc, "43").unwrap();
        assert_eq!(key_of(&doc, "task", &id).as_deref(), Some("42"));
        assert_eq!(key_of(&doc, "note", &id), None, "of another type");
        doc.put(ROOT, KEY_KEY, "43").unwrap();
        assert_eq!(key_of(&doc, "task", &id), None, "it is another's");
        let mut other = automerge::AutoCommit::new();
        note_key(&mut other, &"k".repeat(KEY_BYTES_MAX + 1)).unwrap();
        assert!(other.get(ROOT, KEY_KEY).unwrap().is_none(), "too long");
    }

    #[test]
    fn keys_sort_by_time_and_are_uuids() {
        let one = generated_key(1_700_000_000_000, [0xff; 10]);
        let other = generated_key(1_700_000_000_001, [0; 10]);
        assert!(one < other);
        assert_eq!(one, "018bcfe5-6800-7fff-bfff-ffffffffffff");
    }
}
