//! The task that owns the replica: events in, effects carried out. It never waits for a disk, a
//! socket or automerge; those answer with events.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, mpsc::Sender as TaskSender},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use concord_protocol::{CloseCode, DocumentId};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    applier::Task, chunks, content::Incoming, event::DocumentEvent, held::Held, registry::Registry,
    socket::Outgoing,
};
use crate::{
    replica::{
        ConnectionId, Effect, Event, LocalError, Now, PeerInfo, Published, Replica, StorageFailure,
        Ticket,
    },
    store::{DocumentKey, Store, StoreError, Tenant},
    worker::Materialiser,
};

/// Events taken in before what they cause is carried out: one batch is one round of sending.
const BATCH_MAX: usize = 256;
/// Messages of sockets that wait for the engine; beyond that, sockets are not read.
pub(super) const SOCKET_EVENTS_MAX: usize = 256;
/// Documents listed at once.
pub(super) const DOCUMENTS_PAGE: usize = 500;
/// Milliseconds that closing waits for writes under way and for relays to say goodbye.
const CLOSE_MS: u64 = 5_000;

/// Told when a local change is on disk, or is not going to be.
type LocalDone = oneshot::Sender<Result<(), LocalError>>;

/// What the engine is told.
pub(super) enum Command {
    /// For the replica.
    Event(Event),
    /// A relay answered.
    Connected(ConnectionId, PeerInfo, mpsc::UnboundedSender<Outgoing>),
    /// A change made here.
    Local(Arc<Held>, Bytes, LocalDone),
    /// The document is wanted here. Read it from the store, again if it was open.
    Open(DocumentId),
    /// Nobody has a handle of it any more, perhaps.
    Shut(DocumentId),
    /// End, and answer when all is on disk.
    Close(oneshot::Sender<()>),
}

pub(super) struct Engine {
    pub(super) replica: Replica,
    pub(super) store: Arc<dyn Store>,
    pub(super) materialiser: Arc<dyn Materialiser>,
    pub(super) registry: Arc<Registry>,
    pub(super) tasks: TaskSender<Task>,
    /// Where answers to effects go.
    pub(super) answers: mpsc::Sender<Command>,
    pub(super) started: Instant,
    pub(super) state: State,
}

#[derive(Default)]
pub(super) struct State {
    connections: HashMap<ConnectionId, mpsc::UnboundedSender<Outgoing>>,
    open: HashSet<DocumentId>,
    local: HashMap<Ticket, (Arc<Held>, LocalDone)>,
    next_ticket: u64,
    timer: Option<u64>,
    /// Effects whose answers are still to come.
    under_way: usize,
    closing: Option<(oneshot::Sender<()>, Instant)>,
}

impl Engine {
    /// Runs until it is told to close, or until nobody can tell it anything any more.
    pub(super) async fn run(
        mut self,
        mut local: mpsc::UnboundedReceiver<Command>,
        mut sockets: mpsc::Receiver<Command>,
    ) {
        while !self.is_done() {
            let deadline = self.deadline();
            tokio::select! {
                command = local.recv() => match command {
                    Some(command) => self.take(command),
                    None => self.close(None),
                },
                Some(command) = sockets.recv() => self.take(command),
                () = sleep_until(deadline), if self.state.timer.is_some() || self.state.closing.is_some() => {
                    self.timer_fired();
                }
            }
            for _ in 0..BATCH_MAX {
                let Ok(command) = local.try_recv().or_else(|_| sockets.try_recv()) else {
                    break;
                };
                self.take(command);
            }
            while let Some(effect) = self.replica.poll_effect() {
                self.carry_out(effect);
            }
        }
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the store did not close well");
        }
        if let Some((done, _)) = self.state.closing {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: millis(self.started.elapsed()), wall_ms: millis(wall) }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        self.replica.handle(now, event);
    }

    fn deadline(&self) -> Instant {
        let timer = self.state.timer.map(|ms| self.started + Duration::from_millis(ms));
        let closing = self.state.closing.as_ref().map(|(_, until)| *until);
        timer.into_iter().chain(closing).min().unwrap_or_else(Instant::now)
    }

    fn timer_fired(&mut self) {
        let now = self.now();
        if self.state.timer.is_some_and(|due_ms| due_ms <= now.mono_ms) {
            self.state.timer = None;
            self.replica.handle(now, Event::TimerFired);
        }
    }

    fn is_done(&self) -> bool {
        let idle = self.state.under_way == 0 && self.state.connections.is_empty();
        self.state.closing.as_ref().is_some_and(|(_, until)| idle || *until <= Instant::now())
    }

    fn close(&mut self, done: Option<oneshot::Sender<()>>) {
        if self.state.closing.is_some() {
            return;
        }
        let done = done.unwrap_or_else(|| oneshot::channel().0);
        self.state.closing = Some((done, Instant::now() + Duration::from_millis(CLOSE_MS)));
        for outgoing in self.state.connections.values() {
            // A connection that is gone needs no goodbye.
            let _ = outgoing.send(Outgoing::Close(CloseCode::Normal, "closing".into()));
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Event(event) => {
                match &event {
                    Event::Disconnected(id) => {
                        self.state.connections.remove(id);
                    }
                    Event::Loaded(..)
                    | Event::Read(..)
                    | Event::Stored(..)
                    | Event::WorkDone(..) => {
                        self.state.under_way = self.state.under_way.saturating_sub(1);
                    }
                    _ => {}
                }
                self.handle(event);
            }
            Command::Connected(id, info, outgoing) => {
                self.state.connections.insert(id, outgoing);
                self.handle(Event::Connected(id, info));
                for held in self.registry.all() {
                    held.ask_again();
                    self.handle(Event::SyncWith(id, held.id.clone()));
                }
                self.announce_stored(id);
            }
            Command::Local(held, change, done) => {
                self.state.next_ticket += 1;
                let ticket = Ticket(self.state.next_ticket);
                let document = held.id.clone();
                self.state.local.insert(ticket, (held, done));
                self.handle(Event::LocalChange(ticket, document, change));
            }
            Command::Open(document) => {
                if !self.state.open.insert(document.clone()) {
                    self.handle(Event::Shut(document.clone()));
                }
                self.handle(Event::Open(document));
            }
            Command::Shut(document) => {
                self.registry.forget(&document);
                if self.registry.find(&document).is_none() && self.state.open.remove(&document) {
                    self.handle(Event::Shut(document));
                }
            }
            Command::Close(done) => self.close(Some(done)),
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(id, bytes) => {
                if let Some(outgoing) = self.state.connections.get(&id) {
                    // A connection that is gone says so with an event of its own.
                    let _ = outgoing.send(Outgoing::Send(bytes));
                }
            }
            Effect::Close(id, code, reason) => {
                if let Some(outgoing) = self.state.connections.get(&id) {
                    let _ = outgoing.send(Outgoing::Close(code, reason));
                }
            }
            Effect::Load(ticket, document) => {
                let loading = self.store.load(key(document));
                self.answer(async move { Event::Loaded(ticket, loading.await.map_err(failure)) });
            }
            Effect::Read(ticket, document, rows) => {
                let reading = self.store.read(key(document), rows);
                self.answer(async move { Event::Read(ticket, reading.await.map_err(failure)) });
            }
            Effect::Write(ticket, document, writes) => {
                // The store takes its place in the order at the call, not at the first poll.
                let writing = self.store.write(key(document), writes);
                self.answer(async move { Event::Stored(ticket, writing.await.map_err(failure)) });
            }
            Effect::Work(ticket, document, job) => {
                let work = chunks::work(
                    Arc::clone(&self.store),
                    Arc::clone(&self.materialiser),
                    key(document),
                    job,
                );
                self.answer(async move { Event::WorkDone(ticket, work.await) });
            }
            Effect::SetTimer(at_ms) => self.state.timer = Some(at_ms),
            Effect::LocalDone(ticket, result) => self.local_done(ticket, result),
            Effect::Publish(document, published) => self.publish(&document, published),
            Effect::Count(counted) => tracing::trace!(?counted, "counted"),
        }
    }

    /// Carries something out beside the engine and takes its event in when it is done.
    fn answer(&mut self, work: impl Future<Output = Event> + Send + 'static) {
        self.state.under_way += 1;
        let answers = self.answers.clone();
        tokio::spawn(async move {
            // The engine that asked is gone only when the peer is closed.
            let _ = answers.send(Command::Event(work.await)).await;
        });
    }

    /// Tells a relay of every stored document, a page at a time, as fast as the engine takes it.
    fn announce_stored(&self, connection: ConnectionId) {
        let (store, answers) = (Arc::clone(&self.store), self.answers.clone());
        tokio::spawn(async move {
            let mut after = None;
            loop {
                let page = store.documents(Tenant::default(), after.take(), DOCUMENTS_PAGE).await;
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
                after = Some(last);
                for document in page {
                    let event = Event::SyncWith(connection, document);
                    if answers.send(Command::Event(event)).await.is_err() {
                        return;
                    }
                }
            }
        });
    }

    fn local_done(&mut self, ticket: Ticket, result: Result<(), LocalError>) {
        let Some((held, done)) = self.state.local.remove(&ticket) else {
            return;
        };
        match &result {
            Ok(()) => {}
            Err(LocalError::Storage(reason)) => {
                held.fail(&reason.to_string());
                held.tell(|| DocumentEvent::Failed { reason: reason.to_string() });
            }
            Err(LocalError::Refused { .. }) => {
                // The content holds a change that nothing else has: back to what is stored.
                held.reset();
                self.take(Command::Open(held.id.clone()));
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
            Published::Opened(sources) => {
                if !held.is_loading() {
                    return;
                }
                let (store, tasks) = (Arc::clone(&self.store), self.tasks.clone());
                let key = key(document.clone());
                tokio::spawn(async move {
                    match chunks::contents(&*store, &key, sources).await {
                        // The applier ends only after the last handle is gone.
                        Ok(chunks) => drop(tasks.send(Task::Load(held, chunks))),
                        // A compaction may have replaced what was named: it is named anew.
                        Err(reason) => held.broken(&reason),
                    }
                });
            }
            Published::Changes(changes) => {
                self.put_in(&held, changes.into_iter().map(Incoming::Change));
            }
            Published::Snapshot(chunk) => self.put_in(&held, [Incoming::Snapshot(chunk)]),
            Published::Durable(heads) => held.tell(|| DocumentEvent::Durable { heads }),
            Published::RelayHas { connection, ack } => held.relay_has(connection, ack.durable),
            Published::Unavailable => {
                if !self.state.connections.is_empty() {
                    held.unavailable();
                }
            }
            Published::Refused { hash, code, reason } => {
                held.tell(|| DocumentEvent::Refused { hash, code, reason });
            }
            Published::Quarantined(reason) => {
                held.fail(&reason);
                held.tell(|| DocumentEvent::Quarantined { reason });
            }
            Published::Damaged(reason) => {
                tracing::error!(%document, reason, "a part of a document is damaged");
                // What is shown may be more than is stored: back to what is left, which follows.
                held.reset();
                held.tell(|| DocumentEvent::Damaged { reason });
            }
            Published::Unreadable(reason) => {
                held.fail(&reason);
                held.tell(|| DocumentEvent::Failed { reason });
            }
            Published::Ephemeral { sender, data } => {
                held.tell(|| DocumentEvent::Ephemeral { sender, data });
            }
        }
    }

    fn put_in(&self, held: &Arc<Held>, chunks: impl IntoIterator<Item = Incoming>) {
        if held.put_in(chunks) {
            // The applier ends only after the last handle is gone.
            let _ = self.tasks.send(Task::TakeIn(Arc::clone(held)));
        }
    }
}

fn key(document: DocumentId) -> DocumentKey {
    DocumentKey { tenant: Tenant::default(), document }
}

fn failure(error: StoreError) -> StorageFailure {
    error.into()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
