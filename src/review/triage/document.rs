//! The review document: its name, and what it begins with.

use automerge::{
    ActorId, Automerge, AutomergeError, Change, ObjId, ObjType, ROOT, ReadDoc,
    transaction::{CommitOptions, Transactable as _},
};
use concord_protocol::DocumentId;

use crate::{digest::digest, entity::ROOT_KEY};

/// Tells these hashes from all others, and later shapes of the document from this one.
const DOMAIN: &str = "concord review 1";
/// What the document says that it is: no type of a schema can have such a name.
const TYPE: &str = "concord:review";
/// The operation that makes the map of notes: the second of the first change.
const NOTES_COUNTER: u64 = 2;

/// The review document of a tenant: the same for everybody, without asking anybody.
pub fn review_document_id(tenant: &str) -> DocumentId {
    DocumentId::from_random(digest([DOMAIN, tenant]))
}

/// Whether a document is a review document.
pub fn is_review_document(doc: &impl ReadDoc) -> bool {
    notes(doc).is_some()
}

/// Who makes the first change: everybody makes the same.
fn actor() -> ActorId {
    ActorId::from(digest([DOMAIN, "begin"]))
}

/// What the document begins with and lacks: one change, or none.
///
/// # Errors
/// Those of automerge.
pub fn lacking(doc: &Automerge) -> Result<Option<Change>, AutomergeError> {
    let mut first = Automerge::new().with_actor(actor());
    let mut tx = first.transaction();
    tx.put(ROOT, ROOT_KEY, TYPE)?;
    tx.put_object(ROOT, "notes", ObjType::Map)?;
    let (hash, _) = tx.commit_with(CommitOptions::default().with_time(0));
    let change = hash.and_then(|hash| first.get_change_by_hash(&hash));
    Ok(change.filter(|change| doc.get_change_meta_by_hash(&change.hash()).is_none()))
}

/// Gives a document what it begins with, if it lacks it.
///
/// # Errors
/// Those of automerge.
pub fn begin(doc: &mut Automerge) -> Result<Option<Change>, AutomergeError> {
    let lacking = lacking(doc)?;
    if let Some(change) = &lacking {
        doc.apply_changes([change.clone()])?;
    }
    Ok(lacking)
}

/// The map of notes, by its own name: it stays the same one whatever somebody writes over it.
pub(super) fn notes(doc: &impl ReadDoc) -> Option<ObjId> {
    // Where the actor is in this document is looked up if it is not the first.
    let notes = ObjId::Id(NOTES_COUNTER, actor(), 0);
    matches!(doc.object_type(&notes), Ok(ObjType::Map)).then_some(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "cb22a1de4dfddf25096afddc6689edf0e0aa11a58f136bfac4b1e4e0bd0cd2ad";

    #[test]
    fn it_is_the_same_for_everybody_for_ever() {
        assert_eq!(review_document_id("default").as_str(), "Q837yvbT2V2tT8adpXPBXLng524");
        let mut doc = Automerge::new();
        let first = begin(&mut doc).unwrap().unwrap();
        assert_eq!(first.hash().to_string(), FIRST);
        assert!(begin(&mut doc).unwrap().is_none());
        assert!(notes(&doc).is_some() && notes(&Automerge::new()).is_none());
    }

    #[test]
    fn what_is_written_over_the_notes_does_not_hide_them() {
        let mut doc = Automerge::new();
        begin(&mut doc).unwrap();
        for value in ["no map", "none at all"] {
            let mut tx = doc.transaction();
            tx.put(ROOT, "notes", value).unwrap();
            tx.commit();
        }
        let found = notes(&doc).unwrap();
        let mut tx = doc.transaction();
        tx.put(&found, "key", 1).unwrap();
        tx.commit();
        let loaded = Automerge::load(&doc.save()).unwrap();
        assert!(loaded.get(notes(&loaded).unwrap(), "key").unwrap().is_some());
    }
}
