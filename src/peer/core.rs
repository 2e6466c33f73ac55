//! What a peer does, without a socket, a disk, a thread or a clock: what programs, relays and
//! the disk say goes in, what is to be done comes out. The engine does it in a program, a
//! simulation does it in virtual time.
//!
//! As with the replica: any number of [`Core::take`], then [`Core::poll`] until `None`.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use concord_protocol::{ChangeHash, CloseCode, DocumentId, RefuseCode};
use tokio::sync::oneshot;

use super::{
    applier::Task, content::Incoming, event::DocumentEvent, held::Held, purge::Refusal,
    registry::Registry,
};
use crate::replica::{
    Config, ConnectionId, Counted, Effect, Event, Job, Leaving, LocalError, Now, Published,
    Replica, RowKey, RowWrite, StorageFailure, Ticket,
};

/// Milliseconds that closing waits for writes under way and for relays to say goodbye.
const CLOSE_MS: u64 = 5_000;

/// Told when a local change is on disk, or is not going to be.
pub(super) type LocalDone = oneshot::Sender<Result<(), LocalError>>;

/// What the core is told.
#[derive(Debug)]
pub(super) enum Command {
    /// For the replica.
    Event(Event),
    /// A change made here.
    Local(Arc<Held>, Bytes, LocalDone),
    /// The document with these heads is to go from the store.
    Purge(Arc<Held>, Vec<ChangeHash>, LocalDone),
    /// The document is wanted here. Read it from the store, again if it was open.
    Open(DocumentId),
    /// Nobody has a handle of it any more, perhaps.
    Shut(DocumentId),
    /// Answers [`Action::List`]: documents in order; none: there are no more.
    Listed(ConnectionId, Result<Vec<DocumentId>, StorageFailure>),
    /// End, and answer when all is on disk.
    Close(oneshot::Sender<()>),
}

/// What is to be done for the core.
#[derive(Debug)]
pub(super) enum Action {
    /// See [`Effect::Send`]. The connection may be gone.
    Send(ConnectionId, Bytes),
    /// See [`Effect::Close`]. The connection may be gone.
    Close(ConnectionId, CloseCode, String),
    /// See [`Effect::Load`].
    Load(Ticket, DocumentId),
    /// See [`Effect::Read`].
    Read(Ticket, DocumentId, Vec<RowKey>),
    /// See [`Effect::Write`].
    Write(Ticket, DocumentId, Vec<RowWrite>),
    /// See [`Effect::Work`].
    Work(Ticket, DocumentId, Job),
    /// See [`Effect::SetTimer`].
    SetTimer(u64),
    /// See [`Effect::Count`].
    Count(Counted),
    /// List a page of the stored documents, those after this one, for this connection.
    List(ConnectionId, Option<DocumentId>),
    /// Run this on the applier, after all that was given to it before.
    Apply(Task),
}

/// See the module.
pub(super) struct Core {
    replica: Replica,
    registry: Arc<Registry>,
    now: Now,
    actions: VecDeque<Action>,
    connections: BTreeSet<ConnectionId>,
    open: BTreeSet<DocumentId>,
    local: BTreeMap<Ticket, (Arc<Held>, LocalDone)>,
    /// Those of them that are documents which are to go.
    purging: BTreeSet<Ticket>,
    /// Documents that are gone, of which somebody still has a handle.
    purged: BTreeSet<DocumentId>,
    next_ticket: u64,
    /// Requests of the replica whose answers are still to come.
    under_way: usize,
    closing: Option<Closing>,
}

struct Closing {
    done: oneshot::Sender<()>,
    until_ms: u64,
}

impl Core {
    /// A core with nothing in memory. The documents of the registry tell it of themselves.
    pub(super) fn new(config: Config, registry: Arc<Registry>) -> Self {
        Self {
            replica: Replica::new(config),
            registry,
            now: Now::default(),
            actions: VecDeque::new(),
            connections: BTreeSet::new(),
            open: BTreeSet::new(),
            local: BTreeMap::new(),
            purging: BTreeSet::new(),
            purged: BTreeSet::new(),
            next_ticket: 0,
            under_way: 0,
            closing: None,
        }
    }

    /// Takes in one command.
    pub(super) fn take(&mut self, now: Now, command: Command) {
        self.now = now;
        match command {
            Command::Event(event) => self.event(event),
            Command::Local(held, change, done) => {
                let document = held.id.clone();
                let ticket = self.local_ticket(held, done);
                self.handle(Event::LocalChange(ticket, document, change));
            }
            Command::Purge(held, heads, done) => {
                let document = held.id.clone();
                let ticket = self.local_ticket(held, done);
                self.purging.insert(ticket);
                let leaving = Leaving::Nothing;
                self.handle(Event::Purge { ticket, document, heads, leaving });
            }
            Command::Open(document) => self.open(document),
            Command::Shut(document) => {
                self.registry.forget(&document);
                if self.registry.find(&document).is_none() {
                    self.purged.remove(&document);
                    if self.open.remove(&document) {
                        self.handle(Event::Shut(document));
                    }
                }
            }
            Command::Listed(connection, page) => self.listed(connection, page),
            Command::Close(done) => self.close(done),
        }
    }

    /// The next thing to do, in order.
    pub(super) fn poll(&mut self) -> Option<Action> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            let effect = self.replica.poll_effect()?;
            self.carry_out(effect);
        }
    }

    /// What is in memory.
    #[cfg(feature = "simulation")]
    pub(super) fn stats(&self) -> crate::replica::Stats {
        self.replica.stats()
    }

    /// When closing is over, whether or not all is done, in `mono_ms`.
    pub(super) fn closes_at(&self) -> Option<u64> {
        self.closing.as_ref().map(|closing| closing.until_ms)
    }

    /// Whether it was told to close, and has.
    pub(super) fn is_closed(&self, now: Now) -> bool {
        let idle = self.under_way == 0 && self.connections.is_empty();
        self.closes_at().is_some_and(|until_ms| idle || until_ms <= now.mono_ms)
    }

    /// Who is to be told that it has closed.
    pub(super) fn into_closer(self) -> Option<oneshot::Sender<()>> {
        self.closing.map(|closing| closing.done)
    }

    fn handle(&mut self, event: Event) {
        self.replica.handle(self.now, event);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected(id, info) => {
                self.connections.insert(id);
                self.handle(Event::Connected(id, info));
                for held in self.registry.all() {
                    if self.purged.contains(&held.id) {
                        continue;
                    }
                    held.ask_again();
                    self.handle(Event::SyncWith(id, held.id.clone()));
                }
                self.actions.push_back(Action::List(id, None));
                return;
            }
            Event::Disconnected(id) => _ = self.connections.remove(&id),
            Event::Loaded(..) | Event::Read(..) | Event::Stored(..) | Event::WorkDone(..) => {
                self.answered();
            }
            _ => {}
        }
        self.handle(event);
    }

    fn local_ticket(&mut self, held: Arc<Held>, done: LocalDone) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.local.insert(ticket, (held, done));
        ticket
    }

    fn answered(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    fn ask(&mut self, action: Action) {
        self.under_way += 1;
        self.actions.push_back(action);
    }

    fn open(&mut self, document: DocumentId) {
        if !self.open.insert(document.clone()) {
            self.handle(Event::Shut(document.clone()));
        }
        self.handle(Event::Open(document));
    }

    /// Tells a relay of a page of the stored documents, and asks for the next page.
    fn listed(&mut self, connection: ConnectionId, page: Result<Vec<DocumentId>, StorageFailure>) {
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "stored documents cannot be listed");
                return;
            }
        };
        let Some(last) = page.last().cloned() else {
            return;
        };
        if !self.connections.contains(&connection) {
            return;
        }
        for document in page {
            self.handle(Event::SyncWith(connection, document));
        }
        self.actions.push_back(Action::List(connection, Some(last)));
    }

    fn close(&mut self, done: oneshot::Sender<()>) {
        if self.closing.is_some() {
            return;
        }
        let until_ms = self.now.mono_ms.saturating_add(CLOSE_MS);
        self.closing = Some(Closing { done, until_ms });
        for connection in &self.connections {
            let goodbye = Action::Close(*connection, CloseCode::Normal, "closing".into());
            self.actions.push_back(goodbye);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(id, bytes) => self.actions.push_back(Action::Send(id, bytes)),
            Effect::Close(id, code, reason) => {
                self.actions.push_back(Action::Close(id, code, reason));
            }
            Effect::Load(ticket, document) => self.ask(Action::Load(ticket, document)),
            Effect::Read(ticket, document, rows) => self.ask(Action::Read(ticket, document, rows)),
            Effect::Write(ticket, document, writes) => {
                self.ask(Action::Write(ticket, document, writes));
            }
            Effect::Work(ticket, document, job) => self.ask(Action::Work(ticket, document, job)),
            Effect::SetTimer(at_ms) => self.actions.push_back(Action::SetTimer(at_ms)),
            Effect::Count(counted) => self.actions.push_back(Action::Count(counted)),
            Effect::LocalDone(ticket, result) => self.local_done(ticket, result),
            Effect::Publish(document, published) => self.publish(&document, published),
        }
    }

    fn local_done(&mut self, ticket: Ticket, result: Result<(), LocalError>) {
        let Some((held, done)) = self.local.remove(&ticket) else {
            return;
        };
        let is_purge = self.purging.remove(&ticket);
        match &result {
            Ok(()) if is_purge => {
                held.fail("it was purged from this store");
                self.purged.insert(held.id.clone());
                self.open.remove(&held.id);
                self.handle(Event::Shut(held.id.clone()));
            }
            Ok(()) | Err(LocalError::NotPurged(_)) => {}
            Err(LocalError::Storage(reason)) => {
                held.fail(&reason.to_string());
                held.tell(|| DocumentEvent::Failed { reason: reason.to_string() });
            }
            Err(LocalError::Refused { .. }) => {
                // The content holds a change that nothing else has: back to what is stored.
                held.reset();
                self.open(held.id.clone());
            }
        }
        // Whoever made the change may have stopped waiting; it is on disk all the same.
        let _ = done.send(result);
    }

    fn publish(&mut self, document: &DocumentId, published: Published) {
        let Some(held) = self.registry.find(document) else {
            return;
        };
        match published {
            Published::Opened(chunks) => {
                if held.name(chunks.into_iter().map(Incoming::from).collect()) {
                    self.actions.push_back(Action::Apply(Task::Load(held)));
                }
            }
            Published::Changes(changes) => {
                self.put_in(held, changes.into_iter().map(Incoming::Change));
            }
            Published::Snapshot(chunk) => self.put_in(held, [Incoming::Snapshot(chunk)]),
            Published::Durable(heads) => held.tell(|| DocumentEvent::Durable { heads }),
            Published::RelayHas { connection, ack } => held.relay_has(connection, ack.durable),
            Published::Unavailable => {
                if !self.connections.is_empty() {
                    held.unavailable();
                }
            }
            Published::Refused { hash, code, reason } => {
                if code == RefuseCode::Deleted {
                    held.refused(Refusal { code, reason: reason.clone() });
                }
                held.tell(|| DocumentEvent::Refused { hash, code, reason });
            }
            Published::Quarantined(reason) => {
                // What is stored is named anew, without the change that is withheld.
                held.revive();
                self.open(document.clone());
                held.tell(|| DocumentEvent::Withheld { reason });
            }
            Published::Damaged(reason) => {
                tracing::error!(%document, reason, "a part of a document is damaged");
                // What is shown may be more than is stored: back to what is left, which follows.
                held.reset();
                held.tell(|| DocumentEvent::Damaged { reason });
            }
            Published::Unreadable(reason) => {
                // It is tried again, and named when it can be read.
                held.give_up(&reason);
                held.tell(|| DocumentEvent::Failed { reason });
            }
            Published::Ephemeral { sender, data } => {
                held.tell(|| DocumentEvent::Ephemeral { sender, data });
            }
        }
    }

    fn put_in(&mut self, held: Arc<Held>, chunks: impl IntoIterator<Item = Incoming>) {
        if held.put_in(chunks) {
            self.actions.push_back(Action::Apply(Task::TakeIn(held)));
        }
    }
}
