//! Which documents are in memory.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, Weak},
};

use concord_protocol::DocumentId;

use super::{core::Command, held::Held, home::Home, locked};

/// The documents that somebody has a handle of.
#[derive(Debug)]
pub(super) struct Registry {
    home: Home,
    documents: Mutex<BTreeMap<DocumentId, Weak<Held>>>,
}

impl Registry {
    /// Of a peer with this home, with nothing in memory.
    pub(super) fn new(home: Home) -> Self {
        Self { home, documents: Mutex::default() }
    }

    /// The peer as its documents see it.
    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// The document, if somebody has a handle of it.
    pub(super) fn find(&self, id: &DocumentId) -> Option<Arc<Held>> {
        locked(&self.documents).get(id).and_then(Weak::upgrade)
    }

    /// A handle of the document, whether or not there is anything in it yet.
    pub(super) fn hold(&self, id: &DocumentId) -> Arc<Held> {
        let (held, made) = self.find_or(id, || Held::new(id.clone(), self.home.clone()));
        if made {
            self.home.tell(Command::Open(id.clone()));
        }
        held
    }

    /// A handle of a document that did not exist before.
    pub(super) fn create(&self, id: &DocumentId) -> Arc<Held> {
        let (held, _) = self.find_or(id, || Held::created(id.clone(), self.home.clone()));
        self.home.tell(Command::Open(id.clone()));
        held
    }

    /// The document, or what `make` gives, which is then the document. The second value says
    /// whether it was made.
    fn find_or(&self, id: &DocumentId, make: impl FnOnce() -> Held) -> (Arc<Held>, bool) {
        let mut documents = locked(&self.documents);
        if let Some(held) = documents.get(id).and_then(Weak::upgrade) {
            return (held, false);
        }
        let held = Arc::new(make());
        documents.insert(id.clone(), Arc::downgrade(&held));
        (held, true)
    }

    /// Forgets the document if nobody has a handle of it.
    pub(super) fn forget(&self, id: &DocumentId) {
        let mut documents = locked(&self.documents);
        if documents.get(id).is_some_and(|held| held.strong_count() == 0) {
            documents.remove(id);
        }
    }

    /// Takes a document out, if nobody else has a handle of it: whoever opens it from now on gets
    /// another. Whether that is so.
    pub(super) fn release(&self, held: &Arc<Held>) -> bool {
        let mut documents = locked(&self.documents);
        let is_alone = Arc::strong_count(held) == 1;
        if is_alone {
            documents.remove(&held.id);
        }
        is_alone
    }

    /// All of them, in the order of their ids.
    pub(super) fn all(&self) -> Vec<Arc<Held>> {
        locked(&self.documents).values().filter_map(Weak::upgrade).collect()
    }
}
