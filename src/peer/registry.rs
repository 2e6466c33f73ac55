//! Which documents are in memory.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use concord_protocol::DocumentId;

use super::{held::Held, locked};

/// The documents that somebody has a handle of.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<HashMap<DocumentId, Weak<Held>>>);

impl Registry {
    pub(super) fn find(&self, id: &DocumentId) -> Option<Arc<Held>> {
        locked(&self.0).get(id).and_then(Weak::upgrade)
    }

    /// The document, or what `make` gives, which is then the document. The second value says
    /// whether it was made.
    pub(super) fn find_or(
        &self,
        id: &DocumentId,
        make: impl FnOnce() -> Held,
    ) -> (Arc<Held>, bool) {
        let mut documents = locked(&self.0);
        if let Some(held) = documents.get(id).and_then(Weak::upgrade) {
            return (held, false);
        }
        let held = Arc::new(make());
        documents.insert(id.clone(), Arc::downgrade(&held));
        (held, true)
    }

    /// Forgets the document if nobody has a handle of it.
    pub(super) fn forget(&self, id: &DocumentId) {
        let mut documents = locked(&self.0);
        if documents.get(id).is_some_and(|held| held.strong_count() == 0) {
            documents.remove(id);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Held>> {
        locked(&self.0).values().filter_map(Weak::upgrade).collect()
    }
}
