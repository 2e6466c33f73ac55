//! The task that runs a peer's core: it hears what there is to hear and does what the core says.
//! It never waits for a disk, a socket or automerge; those answer with commands.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc::Sender as TaskSender},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use concord_protocol::{DocumentId, Feature, Message};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep_until},
};

use super::{
    applier::Task,
    blobs::Lines,
    core::{Action, Command, Core},
    notes::{self, Notes, OUTBOX_ROW},
    replacing::{self, Unfinished},
    socket::Outgoing,
};
use crate::{
    replica::{ConnectionId, Event, Kind, Now, PeerInfo, RowKey, RowWrite, StorageFailure},
    store::{DocumentKey, Store, StoreError, Tenant},
    worker::{Materialiser, resolve},
};

/// Commands taken in before what they cause is carried out: one batch is one round of sending.
const BATCH_MAX: usize = 256;
/// Messages of sockets that wait for the engine; beyond that, sockets are not read.
pub(super) const SOCKET_EVENTS_MAX: usize = 256;
/// Documents listed at once.
pub(super) const DOCUMENTS_PAGE: usize = 500;

/// Where the schema of a relay is kept, of what the store has for its owner.
const SCHEMA_ROW: RowKey = RowKey { kind: Kind::Meta, id: [0; 32], part: 0 };

/// What sockets and answers tell the engine.
pub(super) enum Told {
    /// For the core.
    Command(Command),
    /// A relay answered; where to put what is for it.
    Connected(ConnectionId, PeerInfo, mpsc::UnboundedSender<Outgoing>),
}

impl From<Event> for Told {
    fn from(event: Event) -> Self {
        Self::Command(Command::Event(event))
    }
}

pub(super) struct Engine {
    pub(super) core: Core,
    pub(super) store: Arc<dyn Store>,
    pub(super) materialiser: Arc<dyn Materialiser>,
    pub(super) tasks: TaskSender<Task>,
    /// Where answers to actions go.
    pub(super) answers: mpsc::Sender<Told>,
    pub(super) started: Instant,
    pub(super) state: State,
    /// Where relays can be asked for attachments.
    pub(super) lines: Arc<Lines>,
}

#[derive(Default)]
pub(super) struct State {
    connections: BTreeMap<ConnectionId, mpsc::UnboundedSender<Outgoing>>,
    timer: Option<u64>,
}

/// As long as it is there, the store waits for more to write: what says that an edit is on its way, and
/// that the index does not know it, is on disk with the flush of the edit.
struct Together(Arc<dyn Store>);

impl Together {
    fn new(store: &Arc<dyn Store>) -> Self {
        store.hold(true);
        Self(Arc::clone(store))
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        self.0.hold(false);
    }
}

impl Engine {
    /// Runs until it is told to close, or until nobody can tell it anything any more.
    pub(super) async fn run(
        mut self,
        mut local: mpsc::UnboundedReceiver<Command>,
        mut sockets: mpsc::Receiver<Told>,
    ) {
        let mut is_wanted = true;
        if let Err(Unfinished { document, error }) = replacing::finish(&*self.store).await {
            tracing::error!(%error, "what an earlier run began to write anew is not finished");
            self.core.unfinished = document;
        }
        if let Err(error) = notes::begin(&*self.store).await {
            tracing::warn!(%error, "an outbox is begun later");
        }
        self.core.recall();
        loop {
            let mut together = None;
            while let Some(action) = self.core.poll() {
                let is_edit = matches!(action, Action::Write(..));
                if let Action::Note(..) | Action::Mark(..) = action {
                    together.get_or_insert_with(|| Together::new(&self.store));
                }
                self.carry_out(action);
                if is_edit {
                    together = None;
                }
            }
            drop(together);
            if self.core.is_closed(self.now()) {
                break;
            }
            let deadline = self.deadline();
            tokio::select! {
                command = local.recv(), if is_wanted => {
                    is_wanted = command.is_some();
                    // Nobody to tell of the end, either.
                    let command = command.unwrap_or_else(|| Command::Close(oneshot::channel().0));
                    self.command_after(command, &mut sockets);
                }
                Some(told) = sockets.recv() => self.take(told),
                () = sleep_until(deadline.unwrap_or(self.started)), if deadline.is_some() => {
                    self.timer_fired();
                }
            }
            for _ in 0..BATCH_MAX {
                if let Ok(command) = local.try_recv() {
                    self.command_after(command, &mut sockets);
                } else if let Ok(told) = sockets.try_recv() {
                    self.take(told);
                } else {
                    break;
                }
            }
        }
        self.lines.close();
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the store did not close well");
        }
        if let Some(done) = self.core.into_closer() {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono_ms: millis(self.started.elapsed()), wall_ms: millis(wall) }
    }

    fn deadline(&self) -> Option<Instant> {
        let at_ms = self.state.timer.into_iter().chain(self.core.closes_at()).min();
        at_ms.map(|at_ms| self.started + Duration::from_millis(at_ms))
    }

    fn timer_fired(&mut self) {
        if self.state.timer.is_some_and(|due_ms| due_ms <= self.now().mono_ms) {
            self.state.timer = None;
            self.command(Command::Event(Event::TimerFired));
        }
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Command(command) => {
                if let Command::Event(Event::Disconnected(id)) = &command {
                    self.state.connections.remove(id);
                    self.lines.lost(*id);
                }
                if let Command::Event(Event::Received(id, Message::Blob(blob))) = command {
                    return self.lines.heard(id, blob);
                }
                self.command(command);
            }
            Told::Connected(id, info, outgoing) => {
                if info.concord && info.metadata.features.has(Feature::Blobs) {
                    self.lines.opened(id, &outgoing);
                }
                self.state.connections.insert(id, outgoing);
                self.command(Command::Event(Event::Connected(id, info)));
            }
        }
    }

    /// Who calls because the status says that a relay is there finds it there.
    fn command_after(&mut self, command: Command, sockets: &mut mpsc::Receiver<Told>) {
        if let Command::Call(..) | Command::CallOn(..) | Command::Lease(..) | Command::Listen(..) =
            command
        {
            for _ in 0..SOCKET_EVENTS_MAX {
                let Ok(told) = sockets.try_recv() else { break };
                self.take(told);
            }
        }
        self.command(command);
    }

    fn command(&mut self, command: Command) {
        let now = self.now();
        self.core.take(now, command);
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Send(id, bytes) => self.send(id, Outgoing::Send(bytes)),
            Action::Close(id, code, reason) => self.send(id, Outgoing::Close(code, reason)),
            Action::Renew(id) => self.send(id, Outgoing::Renew),
            Action::Load(ticket, document) => {
                let loading = self.store.load(key(document));
                self.event(async move {
                    Event::Loaded(ticket, loading.await.map_err(StorageFailure::from))
                });
            }
            Action::Read(ticket, document, rows) => {
                let reading = self.store.read(key(document), rows);
                self.event(async move {
                    Event::Read(ticket, reading.await.map_err(StorageFailure::from))
                });
            }
            Action::Write(ticket, document, writes) => {
                // The store takes its place in the order at the call, not at the first poll.
                let writing = self.store.write(key(document), writes);
                self.event(async move {
                    Event::Stored(ticket, writing.await.map_err(StorageFailure::from))
                });
            }
            Action::Work(ticket, document, job) => {
                let store = Arc::clone(&self.store);
                let materialiser = Arc::clone(&self.materialiser);
                self.event(async move {
                    let done = match resolve::resolve(&*store, key(document), job).await {
                        Ok(job) => materialiser.run(job).await,
                        Err(error) => Err(error),
                    };
                    Event::WorkDone(ticket, done)
                });
            }
            Action::SetTimer(at_ms) => self.state.timer = Some(at_ms),
            Action::Count(counted) => tracing::trace!(?counted, "counted"),
            Action::List(connection, after) => {
                let page = self.store.documents(Tenant::default(), after, DOCUMENTS_PAGE);
                self.answer(async move {
                    Command::Listed(connection, page.await.map_err(StorageFailure::from))
                });
            }
            Action::Say(id, bytes) => self.send(id, Outgoing::Say(bytes)),
            Action::Recall => {
                let reading = self.store.read(DocumentKey::schema(), vec![SCHEMA_ROW]);
                self.answer(async move {
                    let rows = reading.await.map_err(StorageFailure::from);
                    Command::Recalled(rows.map(|rows| rows.into_iter().next().flatten()))
                });
            }
            Action::Keep(row) => {
                let write = RowWrite::Put(SCHEMA_ROW, row);
                let writing = self.store.write(DocumentKey::schema(), vec![write]);
                self.answer(
                    async move { Command::Kept(writing.await.map_err(StorageFailure::from)) },
                );
            }
            Action::Note(document, writes) => {
                let writing = self.store.write(DocumentKey::outbox(document.clone()), writes);
                self.answer(async move {
                    Command::Noted(document, writing.await.map_err(StorageFailure::from))
                });
            }
            Action::Journal(rows, journal) => {
                let write = |document, rows| self.store.write(DocumentKey::outbox(document), rows);
                // Both take their places in the order here.
                let first = rows.map(|(document, rows)| write(Some(document), rows));
                let then = write(None, vec![journal]);
                self.answer(async move {
                    let first = match first {
                        Some(first) => first.await,
                        None => Ok(()),
                    };
                    Command::Journalled(then.await.and(first).map_err(StorageFailure::from))
                });
            }
            Action::ReadNotes(after) => {
                let store = Arc::clone(&self.store);
                self.answer(async move {
                    let notes = read_notes(&*store, after).await;
                    Command::Notes(notes.map_err(StorageFailure::from))
                });
            }
            Action::ListForOutbox(after) => {
                let page = self.store.documents(Tenant::default(), after, DOCUMENTS_PAGE);
                self.answer(
                    async move { Command::Unnoted(page.await.map_err(StorageFailure::from)) },
                );
            }
            Action::Mark(document, row) => {
                let writing = self.store.write(DocumentKey::index(), vec![row]);
                let home = self.core.home().clone();
                tokio::spawn(async move {
                    if writing.await.is_err() {
                        home.index().marks().not_kept(&document);
                    }
                });
            }
            // The applier ends only after the last handle is gone.
            Action::Apply(task) => _ = self.tasks.send(task),
        }
    }

    fn send(&self, id: ConnectionId, outgoing: Outgoing) {
        if let Some(connection) = self.state.connections.get(&id) {
            // A connection that is gone says so with an event of its own.
            let _ = connection.send(outgoing);
        }
    }

    fn event(&self, work: impl Future<Output = Event> + Send + 'static) {
        self.answer(async { Command::Event(work.await) });
    }

    /// Carries something out beside the engine and takes its answer in when it is done.
    fn answer(&self, work: impl Future<Output = Command> + Send + 'static) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            // The engine that asked is gone only when the peer is closed.
            let _ = answers.send(Told::Command(work.await)).await;
        });
    }
}

/// A page of the outbox's rows; the first says whether there is an outbox.
pub(super) async fn read_notes(
    store: &dyn Store,
    after: Option<DocumentId>,
) -> Result<Notes, StoreError> {
    let mut has_marker = false;
    if after.is_none() {
        let marker = store.read(DocumentKey::outbox(None), vec![OUTBOX_ROW]).await?;
        has_marker = marker.into_iter().flatten().next().is_some();
    }
    let documents = store.documents(Tenant::outbox(), after, DOCUMENTS_PAGE).await?;
    let mut page = Vec::with_capacity(documents.len());
    // All are asked for before the first is waited for: edits wait for the last.
    let reading = documents.into_iter().map(|document| {
        let key = DocumentKey::outbox(Some(document.clone()));
        (document, store.read(key, vec![OUTBOX_ROW]))
    });
    for (document, row) in reading.collect::<Vec<_>>() {
        page.push((document, row.await?.into_iter().next().flatten()));
    }
    Ok(Notes { page, has_marker })
}

fn key(document: DocumentId) -> DocumentKey {
    DocumentKey { tenant: Tenant::default(), document }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
