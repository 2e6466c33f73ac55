//! The production peer in virtual time, for deterministic simulations. Only with the cargo
//! feature `simulation`, and of no promise between versions.
//!
//! A [`SimulatedPeer`] is what is behind a [`super::Peer`], without its sockets, disk, threads
//! and clock: whoever simulates plays those. Any number of calls, then [`SimulatedPeer::poll`]
//! until it gives `None`; every request is answered once. The same seed, the same calls and the
//! same times give the same run, byte for byte: times and names in changes come from the
//! arguments and the seed.
//!
//! A crash is dropping the peer, with its open requests, and making a new one, with another
//! seed: two runs of one peer never share a writer's name.
//!
//! [`Dialling`] says when a peer dials its relay, and [`Failover`] which of several it uses.

mod dialling;
mod exchange;
mod failover;
mod leases;
mod refusals;
mod seeded;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use automerge::{Automerge, transaction::Transaction};
use bytes::Bytes;
use concord_protocol::{ChangeHash, DocumentId};
use tokio::sync::{broadcast, mpsc, oneshot};

pub use self::{
    dialling::Dialling,
    exchange::{Apply, NotesRead, PeerAction, PeerInput},
    failover::{Failover, Order},
    refusals::TakenOut,
};
use self::{exchange::Asked, seeded::Seeded};
use super::{
    ChangeError, DocumentEvent, EditError, OutboxEntry,
    applier::Task,
    core::{Command, Core},
    edit::Pending,
    engine, heads,
    held::{Held, Phase},
    home::Home,
    locked,
    notes::Notes,
    registry::Registry,
    replacing::{self, Removing},
    schedule::Debounce,
    schema::Schemas,
};
use crate::{
    entity::Schema,
    replica::{Config, Now, Stats},
    review::{Choice, Conflict, Resolution, Unreadable},
    store::{Store, StoreError},
};

/// One change made here, on its way to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EditId(pub u64);

/// How far an open document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DocumentState {
    /// It is being read from the disk. Edits are refused until that is over; the production peer
    /// waits for it.
    Loading,
    /// Nothing is stored here; relays are asked.
    Absent,
    /// Nothing is stored here, and the relays that are connected do not have it.
    Unavailable,
    /// There.
    Ready,
    /// It cannot be read or changed any more.
    Failed(String),
}

/// See the module.
pub struct SimulatedPeer {
    core: Core,
    registry: Arc<Registry>,
    /// The documents have weak ones.
    _commands: mpsc::UnboundedSender<Command>,
    told: mpsc::UnboundedReceiver<Command>,
    surroundings: Arc<Seeded>,
    now: Now,
    documents: BTreeMap<DocumentId, Open>,
    edits: VecDeque<(EditId, Pending)>,
    next_edit: u64,
    /// Work for the applier that programs here asked for.
    tasks: VecDeque<Task>,
    removals: VecDeque<(ChangeHash, Removing)>,
    leases: leases::Handles,
    /// What a relay told of its schema.
    schema_row: Option<Bytes>,
}

/// Reads a page of the outbox's rows out of a store, as [`PeerAction::ReadNotes`] asks.
///
/// # Errors
/// As [`Store::read`].
pub async fn read_notes(
    store: &dyn Store,
    after: Option<DocumentId>,
) -> Result<NotesRead, StoreError> {
    let Notes { page, has_marker } = engine::read_notes(store, after).await?;
    Ok(NotesRead { page, has_marker })
}

/// Finishes what an earlier run began and [`PeerAction::Journal`] put down. To be done with a store
/// before a peer is made.
///
/// # Errors
/// As those of the store.
pub async fn finish(store: &dyn Store) -> Result<(), StoreError> {
    replacing::finish(store).await.map_err(|unfinished| unfinished.error)
}

struct Open {
    held: Arc<Held>,
    events: broadcast::Receiver<DocumentEvent>,
}

impl fmt::Debug for SimulatedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedPeer").field("now", &self.now).finish_non_exhaustive()
    }
}

impl SimulatedPeer {
    /// A peer with nothing in memory. The seed is of this run alone: it makes its writers' names.
    /// Sends what is edited at once, and has no schema.
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        Self::with(config, seed, (Duration::ZERO, Duration::ZERO), None)
    }

    /// As [`super::PeerBuilder::debounce`] and [`super::PeerBuilder::schema`] make it.
    pub fn with(
        config: Config,
        seed: [u8; 32],
        debounce: (Duration, Duration),
        schema: Option<Arc<Schema>>,
    ) -> Self {
        let (commands, told) = mpsc::unbounded_channel();
        let surroundings = Arc::new(Seeded::new(seed));
        let schemas = Arc::new(Schemas::new(schema));
        let home = Home::new(&commands, surroundings.clone()).with_schemas(Arc::clone(&schemas));
        let registry = Arc::new(Registry::new(home));
        let (after, at_most) = debounce;
        let debounce = Debounce::new(after, at_most);
        let mut core = Core::new(config, Arc::clone(&registry), schemas, Arc::default(), debounce);
        core.recall();
        Self {
            core,
            registry,
            _commands: commands,
            told,
            surroundings,
            now: Now::default(),
            documents: BTreeMap::new(),
            edits: VecDeque::new(),
            next_edit: 0,
            tasks: VecDeque::new(),
            removals: VecDeque::new(),
            leases: leases::Handles::default(),
            schema_row: None,
        }
    }

    /// As [`super::Peer::sync_now`].
    pub fn sync_now(&mut self, now: Now) {
        self.set(now);
        self.core.take(now, Command::SyncNow);
    }

    /// Takes in what happened around it.
    pub fn handle(&mut self, now: Now, input: PeerInput) {
        self.set(now);
        self.core.take(now, input.into());
    }

    /// The next thing to do, in order. What was done to documents since the last call (opened,
    /// changed, closed, applied) is taken in first, so that a simulation can have it come before
    /// or after what it gives to [`SimulatedPeer::handle`].
    pub fn poll(&mut self) -> Option<PeerAction> {
        loop {
            if let Some(task) = self.tasks.pop_front() {
                return Some(PeerAction::Apply(Apply(task)));
            }
            while let Ok(command) = self.told.try_recv() {
                self.core.take(self.now, command);
            }
            match self.core.poll().map(Asked::from) {
                Some(Asked::Outside(action)) => return Some(action),
                // Kept as on a disk that never fails, until the peer is dropped.
                Some(Asked::Recall) => {
                    let row = Ok(self.schema_row.clone());
                    self.core.take(self.now, Command::Recalled(row));
                }
                Some(Asked::Keep(row)) => {
                    self.schema_row = Some(row);
                    self.core.take(self.now, Command::Kept(Ok(())));
                }
                None if self.told.is_empty() => return None,
                None | Some(Asked::Nothing) => {}
            }
        }
    }

    /// Does the applier's work. Call it on a large stack where documents are nested deeply.
    pub fn apply(&mut self, now: Now, apply: Apply) {
        self.set(now);
        apply.0.run();
    }

    /// Makes a document of this name, opens it, and puts an empty change on its way to the disk.
    ///
    /// # Errors
    /// As [`super::Peer::create`].
    pub fn create(&mut self, now: Now, document: DocumentId) -> Result<EditId, ChangeError> {
        self.set(now);
        let held = self.registry.create(&document);
        let pending = self.hold(document, held).commit_empty(None)?;
        Ok(self.pending(pending))
    }

    /// Opens a document of which nothing is anywhere: its first change is the next edit.
    pub fn begin(&mut self, now: Now, document: DocumentId) {
        self.set(now);
        let held = self.registry.create(&document);
        self.hold(document, held);
    }

    /// Opens a document, as [`super::Peer::find`] does; [`SimulatedPeer::state`] says how far it
    /// is.
    pub fn open(&mut self, now: Now, document: DocumentId) {
        self.set(now);
        let held = self.registry.hold(&document);
        self.hold(document, held);
    }

    /// Lets go of a document. What of it is on its way goes on.
    pub fn close_document(&mut self, now: Now, document: &DocumentId) {
        self.set(now);
        self.documents.remove(document);
    }

    /// Changes an open document, as [`super::Document::change`] does before it waits for the
    /// disk: the change is in the content when this returns, and [`SimulatedPeer::poll_edit`]
    /// tells when it is on disk. `None` where the closure changed nothing.
    ///
    /// # Errors
    /// As [`super::Document::change`]; and [`ChangeError::Failed`] if the document is not open or
    /// not [`DocumentState::Ready`].
    pub fn edit(
        &mut self,
        now: Now,
        document: &DocumentId,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<(), EditError>,
    ) -> Result<Option<(ChangeHash, EditId)>, ChangeError> {
        self.set(now);
        let open = self.documents.get(document);
        let open = open.ok_or_else(|| ChangeError::Failed("it is not open".to_owned()))?;
        let (changed, pending) = open.held.edit(open.held.content()?, None, None, edit)?;
        let made = changed.change.zip(pending);
        Ok(made.map(|(hash, pending)| (hash, self.pending(pending))))
    }

    /// As [`super::Peer::purge`] once it is clear that the document is deleted, and that a relay has
    /// all of it. [`SimulatedPeer::poll_edit`] tells when it is gone.
    ///
    /// # Errors
    /// As [`SimulatedPeer::edit`].
    pub fn purge(&mut self, now: Now, document: &DocumentId) -> Result<EditId, ChangeError> {
        self.set(now);
        let open = self.documents.get(document);
        let held = &open.ok_or_else(|| ChangeError::Failed("it is not open".to_owned()))?.held;
        let heads = heads(held.content()?.doc());
        let (done, pending) = oneshot::channel();
        self.core.take(now, Command::Purge(Arc::clone(held), heads, done));
        Ok(self.pending(pending))
    }

    /// As [`super::Document::conflicts`]; `None` of a document that is not
    /// [`DocumentState::Ready`].
    pub fn conflicts(&self, document: &DocumentId) -> Option<Result<Vec<Conflict>, Unreadable>> {
        let held = &self.documents.get(document)?.held;
        let mut follower = locked(&held.follower);
        let news = follower.news(held.ready()?.doc());
        Some(follower.take_in(news).map(|()| follower.open(document)))
    }

    /// As [`super::Document::resolve`] of a conflict that [`SimulatedPeer::conflicts`] gave just
    /// now, before it waits for the disk.
    ///
    /// # Errors
    /// As [`SimulatedPeer::edit`]; [`ChangeError::Failed`] too where the decision is refused.
    pub fn resolve(
        &mut self,
        now: Now,
        document: &DocumentId,
        conflict: &Conflict,
        choice: &Choice,
    ) -> Result<(ChangeHash, EditId), ChangeError> {
        self.set(now);
        let open = self.documents.get(document);
        let held = &open.ok_or_else(|| ChangeError::Failed("it is not open".to_owned()))?.held;
        let doc = held.content()?.doc().clone();
        let resolution = Resolution::prepare(&doc, conflict, choice, None)
            .map_err(|refused| ChangeError::Failed(refused.to_string()))?;
        let message = resolution.message();
        let write = |tx: &mut Transaction<'_>| Ok(resolution.write(tx)?);
        let (changed, pending) =
            held.edit(held.content()?, Some(&heads(&doc)), Some(&message), write)?;
        let (hash, pending) = if let Some(made) = changed.change.zip(pending) {
            made
        } else {
            let pending = held.commit_empty(Some(&message))?;
            let hash = heads(held.content()?.doc()).first().copied();
            (hash.ok_or_else(|| ChangeError::Failed("it has no heads".to_owned()))?, pending)
        };
        Ok((hash, self.pending(pending)))
    }

    /// The first of the edits whose fate is known and was not told yet: it is on disk, or what
    /// [`super::Document::change`] would fail with.
    pub fn poll_edit(&mut self) -> Option<(EditId, Result<(), ChangeError>)> {
        for place in 0..self.edits.len() {
            let (edit, pending) = &mut self.edits[place];
            let edit = *edit;
            let done = match pending.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => continue,
                Err(oneshot::error::TryRecvError::Closed) => Err(ChangeError::Closed),
                Ok(done) => done.map_err(ChangeError::from),
            };
            self.edits.remove(place);
            return Some((edit, done));
        }
        None
    }

    /// Reads an open document, if it is [`DocumentState::Ready`].
    pub fn read<T>(&self, document: &DocumentId, look: impl FnOnce(&Automerge) -> T) -> Option<T> {
        let mut ready = self.documents.get(document)?.held.ready()?;
        Some(look(ready.doc()))
    }

    /// How far a document is; `None` if it is not open.
    pub fn state(&self, document: &DocumentId) -> Option<DocumentState> {
        let open = self.documents.get(document)?;
        Some(match &*open.held.phase().borrow() {
            Phase::Loading => DocumentState::Loading,
            Phase::Absent => DocumentState::Absent,
            Phase::Unavailable => DocumentState::Unavailable,
            Phase::Ready => DocumentState::Ready,
            Phase::Broken(reason) | Phase::Failed(reason) => DocumentState::Failed(reason.clone()),
        })
    }

    /// As [`super::Document::confirmed`]; of a document that is not open, `false`.
    pub fn confirmed(&self, document: &DocumentId) -> bool {
        self.documents.get(document).is_some_and(|open| open.held.confirmed())
    }

    /// What became of an open document since this was last asked, as
    /// [`super::Document::watch`] tells it.
    pub fn events(&mut self, document: &DocumentId) -> Vec<DocumentEvent> {
        let Some(open) = self.documents.get_mut(document) else {
            return Vec::new();
        };
        let mut events = Vec::new();
        loop {
            match open.events.try_recv() {
                Ok(event) => events.push(event),
                Err(broadcast::error::TryRecvError::Lagged(missed)) => {
                    events.push(DocumentEvent::Lagged { missed });
                }
                // The sender lives in the document that is held here.
                Err(
                    broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed,
                ) => return events,
            }
        }
    }

    /// As [`super::Peer::outbox`]; `None` before it is known what was in it at the start.
    pub fn outbox(&self) -> Option<Vec<OutboxEntry>> {
        self.core.outbox.is_complete().then(|| self.core.outbox.list())
    }

    /// What is in memory.
    pub fn stats(&self) -> Stats {
        self.core.stats()
    }

    fn set(&mut self, now: Now) {
        self.now = now;
        self.surroundings.set(now);
    }

    fn hold(&mut self, document: DocumentId, held: Arc<Held>) -> Arc<Held> {
        let open = self.documents.entry(document);
        let open = open.or_insert_with(|| Open { events: held.events(), held });
        Arc::clone(&open.held)
    }

    fn pending(&mut self, pending: Pending) -> EditId {
        self.next_edit += 1;
        let edit = EditId(self.next_edit);
        self.edits.push_back((edit, pending));
        edit
    }
}
