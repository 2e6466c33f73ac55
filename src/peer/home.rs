//! The peer as its documents see it: who is told of them, and what is different in every run (the
//! wall clock, and names that nobody had before). All of that comes from here, so that a
//! simulation can have the same run twice.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use automerge::{ActorId, Author, Automerge};
use tokio::sync::mpsc;

use super::{core::Command, indexing::Indexing, random_number, schema::Schemas};
use crate::entity::Schema;

/// Where a peer has the time and its names from.
pub(super) trait Surroundings: Send + Sync {
    /// Seconds since 1970, for people to read.
    fn seconds(&self) -> i64;

    /// Bytes for a name; never the same twice.
    fn name(&self) -> [u8; 16];
}

/// The system's clock and randomness.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct System;

impl Surroundings for System {
    fn seconds(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        i64::try_from(now).unwrap_or(i64::MAX)
    }

    fn name(&self) -> [u8; 16] {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&random_number().to_le_bytes());
        name[8..].copy_from_slice(&random_number().to_le_bytes());
        name
    }
}

/// See the module.
#[derive(Clone)]
pub(super) struct Home {
    commands: mpsc::WeakUnboundedSender<Command>,
    surroundings: Arc<dyn Surroundings>,
    author: Option<Author<'static>>,
    index: Arc<Indexing>,
    schemas: Option<Arc<Schemas>>,
}

impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Home").finish_non_exhaustive()
    }
}

impl Home {
    /// The commands go to a core; whoever holds the sender decides how long.
    pub(super) fn new(
        commands: &mpsc::UnboundedSender<Command>,
        surroundings: Arc<dyn Surroundings>,
    ) -> Self {
        let commands = commands.downgrade();
        Self { commands, surroundings, author: None, index: Arc::default(), schemas: None }
    }

    /// The same with an index, which hears of what documents say.
    pub(super) fn with_index(mut self, index: Arc<Indexing>) -> Self {
        self.index = index;
        self
    }

    /// The same with schemas, which say what of an edit is urgent.
    pub(super) fn with_schemas(mut self, schemas: Arc<Schemas>) -> Self {
        self.schemas = Some(schemas);
        self
    }

    /// The schema in force, if there is one.
    pub(super) fn schema(&self) -> Option<Arc<Schema>> {
        self.schemas.as_ref()?.in_force()
    }

    /// The index of entities, which may be none.
    pub(super) fn index(&self) -> &Indexing {
        &self.index
    }

    /// The same for somebody, who is then the author of all changes that are made here.
    pub(super) fn of(mut self, author: Option<Author<'static>>) -> Self {
        self.author = author;
        self
    }

    /// Makes the next change of a document one of the author's. An author goes with a writer's
    /// first change and holds for all of them, so this is another writer where need be: instances
    /// that were just loaded, or made of a snapshot, have lost theirs.
    pub(super) fn sign(&self, doc: &mut Automerge) {
        if self.author.is_some() && doc.get_author() != self.author.as_ref() {
            doc.set_author(self.author.clone()).set_actor(self.actor());
        }
    }

    /// Tells the core; whether there is one. Without one there is nothing to be told of.
    pub(super) fn tell(&self, command: Command) -> bool {
        self.commands.upgrade().is_some_and(|commands| commands.send(command).is_ok())
    }

    /// Whether nobody listens any more.
    pub(super) fn is_closed(&self) -> bool {
        self.commands.upgrade().is_none_or(|commands| commands.is_closed())
    }

    /// Seconds since 1970, for people to read.
    pub(super) fn seconds(&self) -> i64 {
        self.surroundings.seconds()
    }

    /// Bytes that nobody had before.
    pub(super) fn fresh(&self) -> [u8; 16] {
        self.surroundings.name()
    }

    /// The name of a writer that has written nothing yet.
    pub(super) fn actor(&self) -> ActorId {
        ActorId::from(self.surroundings.name())
    }

    /// An empty document for such a writer.
    pub(super) fn instance(&self) -> Automerge {
        Automerge::new().with_actor(self.actor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instance_has_a_writer_of_its_own() {
        let (commands, _core) = mpsc::unbounded_channel();
        let home = Home::new(&commands, Arc::new(System));
        let (one, two) = (home.instance(), home.instance());
        assert_ne!(one.get_actor(), two.get_actor());
        assert_eq!(one.get_actor().to_bytes().len(), 16);
    }

    #[test]
    fn a_document_is_signed_once() {
        let (commands, _core) = mpsc::unbounded_channel();
        let home = Home::new(&commands, Arc::new(System));
        let mut doc = home.instance();
        let unsigned = doc.get_actor().clone();
        home.sign(&mut doc);
        assert_eq!((doc.get_actor(), doc.get_author()), (&unsigned, None));
        let ann = Author::from(b"ann".to_vec());
        let home = home.of(Some(ann.clone()));
        home.sign(&mut doc);
        let signed = doc.get_actor().clone();
        assert!(signed != unsigned && doc.get_author() == Some(&ann));
        home.sign(&mut doc);
        assert_eq!(doc.get_actor(), &signed);
    }

    #[test]
    fn a_core_that_is_gone_is_told_nothing() {
        let (commands, core) = mpsc::unbounded_channel();
        let home = Home::new(&commands, Arc::new(System));
        let id = concord_protocol::DocumentId::from_bytes(&[1; 16]);
        assert!(home.tell(Command::Open(id.clone())) && !home.is_closed());
        drop(core);
        assert!(!home.tell(Command::Open(id.clone())) && home.is_closed());
        drop(commands);
        assert!(!home.tell(Command::Open(id)) && home.is_closed());
    }
}
