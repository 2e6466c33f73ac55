//! Shards: each owns one replica and the documents whose ids hash to it, and does what it asks.
//!
//! A shard never waits for a disk or a socket. What it sends goes into the queue of a connection,
//! whose bytes the replica counts; what it asks of the store and the workers runs in tasks of
//! their own and comes back as events.

use std::{collections::HashMap, sync::Arc, time::Instant};

use bytes::Bytes;
use concord_protocol::{ChangeHash, DocumentId};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::sleep_until,
};

use crate::{
    digest::heads_number,
    replica::{
        ConnectionId, Effect, Event, Kind, Leaving, LocalError, Open, PeerInfo, Published, Replica,
        RowKey, RowWrite, Stats, StorageFailure, Ticket,
    },
    store::{Store, StoreError},
    worker::Materialiser,
};

use super::{
    catalogue::{Catalogue, Marking},
    clock::Clock,
    hub::Health,
    metrics::Metrics,
    outgoing::{Outbox, Outgoing},
    review::Reviewer,
    work::{key, work},
};

/// Events that wait for a shard; whoever has one more waits too.
const INBOX: usize = 1_024;
/// Events that are handled together, so that what they cause is sent together.
const BATCH: usize = 256;

/// What a shard is told.
#[derive(Debug)]
pub(super) enum Inbound {
    /// A connection has joined; its queue.
    Connected(ConnectionId, PeerInfo, Outbox),
    /// Something happened.
    Event(Event),
    /// Say what is in a document.
    Read(DocumentId, oneshot::Sender<Read>),
    /// Take in a change that was made here, and say when it is on disk.
    Change(DocumentId, Bytes, oneshot::Sender<Result<(), LocalError>>),
    /// Leave a record of a document, if it has these heads, and say when nothing else is left.
    Purge(DocumentId, Vec<ChangeHash>, oneshot::Sender<Result<(), LocalError>>),
    /// Say what these connections have open.
    Open(Arc<[ConnectionId]>, oneshot::Sender<Vec<(ConnectionId, Open)>>),
    /// Say what is in memory.
    Stats(oneshot::Sender<Stats>),
    /// Say when no write is on its way any more.
    Settle(oneshot::Sender<()>),
    /// End.
    Stop,
}

/// Everything of a document that is served, as chunks to load in order; or why not.
pub(super) type Read = Result<Vec<Bytes>, String>;

/// The sending ends of all shards.
#[derive(Debug)]
pub(super) struct Shards {
    doors: Vec<Door>,
}

#[derive(Debug)]
struct Door {
    inbox: mpsc::Sender<Inbound>,
    completions: mpsc::UnboundedSender<Event>,
}

impl Shards {
    /// Which shard a document belongs to: FNV-1a, the same in every run.
    pub(super) fn of(&self, document: &DocumentId) -> usize {
        let hash = document.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        // The remainder is below the number of shards, which is a usize.
        usize::try_from(hash % self.doors.len().max(1) as u64).unwrap_or_default()
    }

    /// Tells one shard. Waits while it has much to do.
    pub(super) async fn tell(&self, shard: usize, inbound: Inbound) {
        if let Some(door) = self.doors.get(shard) {
            // A shard ends only after every connection.
            let _ = door.inbox.send(inbound).await;
        }
    }

    /// Tells every shard.
    pub(super) async fn tell_all(&self, mut inbound: impl FnMut() -> Inbound) {
        for door in &self.doors {
            let _ = door.inbox.send(inbound()).await;
        }
    }

    /// Tells a shard what left for the network. Never waits; is handled before whatever is told
    /// after it.
    pub(super) fn drained(&self, shard: u16, connection: ConnectionId, bytes: usize) {
        if let Some(door) = self.doors.get(usize::from(shard)) {
            let _ = door.completions.send(Event::Drained(connection, bytes));
        }
    }

    /// What is in a document; `None` at the end of the relay.
    pub(super) async fn read(&self, document: &DocumentId) -> Option<Read> {
        let (answer, read) = oneshot::channel();
        self.tell(self.of(document), Inbound::Read(document.clone(), answer)).await;
        read.await.ok()
    }

    /// Stores a change that was made here; `None` at the end of the relay.
    pub(super) async fn change(
        &self,
        document: &DocumentId,
        change: Bytes,
    ) -> Option<Result<(), LocalError>> {
        let (answer, stored) = oneshot::channel();
        self.tell(self.of(document), Inbound::Change(document.clone(), change, answer)).await;
        stored.await.ok()
    }

    /// Purges a document that has these heads; `None` at the end of the relay.
    pub(super) async fn purge(
        &self,
        document: &DocumentId,
        heads: Vec<ChangeHash>,
    ) -> Option<Result<(), LocalError>> {
        let (answer, purged) = oneshot::channel();
        self.tell(self.of(document), Inbound::Purge(document.clone(), heads, answer)).await;
        purged.await.ok()
    }

    /// What these connections have open, in all shards together.
    pub(super) async fn open_over(
        &self,
        connections: Arc<[ConnectionId]>,
    ) -> HashMap<ConnectionId, Open> {
        let mut sum: HashMap<ConnectionId, Open> = HashMap::new();
        let answers = self.ask(|answer| Inbound::Open(Arc::clone(&connections), answer)).await;
        for (connection, open) in answers.into_iter().flatten() {
            let all = sum.entry(connection).or_default();
            all.documents += open.documents;
            all.present += open.present;
        }
        sum
    }

    /// What all shards hold together.
    pub(super) async fn stats(&self) -> Stats {
        let mut sum = Stats::default();
        for stats in self.ask(Inbound::Stats).await {
            sum.documents += stats.documents;
            sum.connections = sum.connections.max(stats.connections);
            sum.chunk_bytes += stats.chunk_bytes;
            sum.queued_bytes += stats.queued_bytes;
            sum.orphans += stats.orphans;
            sum.jobs += stats.jobs;
        }
        sum
    }

    /// Waits until every write of every shard is on disk.
    pub(super) async fn settle(&self) {
        self.ask(Inbound::Settle).await;
    }

    async fn ask<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Inbound) -> Vec<T> {
        let mut answers = Vec::with_capacity(self.doors.len());
        for door in &self.doors {
            let (answer, asked) = oneshot::channel();
            if door.inbox.send(question(answer)).await.is_ok() {
                answers.push(asked);
            }
        }
        let mut out = Vec::with_capacity(answers.len());
        for answer in answers {
            out.extend(answer.await.ok());
        }
        out
    }
}

/// What shards do their work with.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) store: Arc<dyn Store>,
    pub(super) materialiser: Arc<dyn Materialiser>,
    pub(super) health: watch::Sender<Health>,
    /// Who is told of documents that changed, if anybody.
    pub(super) reviewer: Option<Arc<Reviewer>>,
    /// What is told of them too.
    pub(super) catalogue: Arc<Catalogue>,
}

/// Starts a task for each replica.
pub(super) fn start(
    replicas: impl Iterator<Item = Replica>,
    surroundings: &Surroundings,
) -> (Shards, Vec<tokio::task::JoinHandle<()>>) {
    let mut doors = Vec::new();
    let mut tasks = Vec::new();
    for (number, replica) in (0_u16..).zip(replicas) {
        let (inbox, inbox_end) = mpsc::channel(INBOX);
        let (completions, completions_end) = mpsc::unbounded_channel();
        let shard = Shard {
            number,
            replica,
            surroundings: surroundings.clone(),
            completions: completions.clone(),
            outboxes: HashMap::new(),
            timer: None,
            writes: 0,
            settling: Vec::new(),
            reading: HashMap::new(),
            local: HashMap::new(),
            next_local: 0,
            changing: HashMap::new(),
        };
        let alarm = Alarm(surroundings.health.clone());
        tasks.push(tokio::spawn(async move {
            let _alarm = alarm;
            shard.run(inbox_end, completions_end).await;
        }));
        doors.push(Door { inbox, completions });
    }
    (Shards { doors }, tasks)
}

/// Goes off when a shard panics: its documents would be dead, and nobody told.
struct Alarm(watch::Sender<Health>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let reason = "a replica panicked, which is a bug: its last words are above. \
                          What was acknowledged is on disk; restart, and report it";
            fail(&self.0, reason);
        }
    }
}

struct Shard {
    number: u16,
    replica: Replica,
    surroundings: Surroundings,
    completions: mpsc::UnboundedSender<Event>,
    outboxes: HashMap<ConnectionId, Outbox>,
    /// When the replica wants to be called, in `mono_ms`.
    timer: Option<u64>,
    /// Writes that are not on disk yet.
    writes: usize,
    settling: Vec<oneshot::Sender<()>>,
    /// Who waits for what is in a document.
    reading: HashMap<DocumentId, Vec<oneshot::Sender<Read>>>,
    /// Who waits for a change of theirs to be on disk, or for a document to be gone.
    local: HashMap<Ticket, oneshot::Sender<Result<(), LocalError>>>,
    next_local: u64,
    /// Documents that are different once a write is on disk, and whether nothing is left of them.
    changing: HashMap<Ticket, (DocumentId, bool)>,
}

impl Shard {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Inbound>,
        mut completions: mpsc::UnboundedReceiver<Event>,
    ) {
        let mut told = Vec::with_capacity(BATCH);
        let mut events = Vec::with_capacity(BATCH);
        loop {
            let clock = self.surroundings.clock;
            let timer = self.timer;
            let is_due = tokio::select! {
                count = inbox.recv_many(&mut told, BATCH) => if count == 0 { return } else { false },
                _ = completions.recv_many(&mut events, BATCH) => false,
                () = sleep_until(clock.instant(timer.unwrap_or(u64::MAX))), if timer.is_some() => true,
            };
            while told.len() < BATCH
                && let Ok(inbound) = inbox.try_recv()
            {
                told.push(inbound);
            }
            // After the inbox was looked at: what a connection drained before it was said to be
            // gone is handled before that.
            while events.len() < 4 * BATCH
                && let Ok(event) = completions.try_recv()
            {
                events.push(event);
            }
            let is_full = told.len() >= BATCH || events.len() >= 4 * BATCH;

            if is_due && timer.is_some_and(|at| at <= clock.mono_ms()) {
                self.timer = None;
                self.handle(Event::TimerFired);
            }
            for event in events.drain(..) {
                self.handle(event);
            }
            let mut is_over = false;
            for inbound in told.drain(..) {
                is_over |= self.take(inbound);
            }
            while let Some(effect) = self.replica.poll_effect() {
                self.perform(effect);
            }
            if self.writes == 0 {
                for settled in self.settling.drain(..) {
                    let _ = settled.send(());
                }
            }
            if is_over {
                return;
            }
            if is_full {
                // Let the connections send before the next batch.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes in what the shard was told; whether that is the end.
    fn take(&mut self, inbound: Inbound) -> bool {
        match inbound {
            Inbound::Connected(id, info, outbox) => {
                self.outboxes.insert(id, outbox);
                self.handle(Event::Connected(id, info));
            }
            Inbound::Event(event) => {
                if let Event::Disconnected(id) = &event {
                    self.outboxes.remove(id);
                }
                self.handle(event);
            }
            Inbound::Read(document, answer) => {
                self.reading.entry(document.clone()).or_default().push(answer);
                self.handle(Event::Open(document));
            }
            Inbound::Change(document, change, answer) => {
                let ticket = self.local_ticket(answer);
                self.handle(Event::LocalChange(ticket, document, change));
            }
            Inbound::Purge(document, heads, answer) => {
                let (ticket, leaving) = (self.local_ticket(answer), Leaving::Record);
                self.handle(Event::Purge { ticket, document, heads, leaving });
            }
            Inbound::Open(connections, answer) => {
                let open = |id: &ConnectionId| Some((*id, self.replica.open_over(*id)?));
                // Who asked may have gone.
                let _ = answer.send(connections.iter().filter_map(open).collect());
            }
            Inbound::Stats(answer) => _ = answer.send(self.replica.stats()),
            Inbound::Settle(answer) => self.settling.push(answer),
            Inbound::Stop => return true,
        }
        false
    }

    fn local_ticket(&mut self, answer: oneshot::Sender<Result<(), LocalError>>) -> Ticket {
        self.next_local += 1;
        let ticket = Ticket(self.next_local);
        self.local.insert(ticket, answer);
        ticket
    }

    fn handle(&mut self, event: Event) {
        let (mut changed, mut is_stored) = (None, false);
        if let Event::Stored(ticket, done) = &event {
            self.writes = self.writes.saturating_sub(1);
            changed = self.changing.remove(ticket);
            is_stored = done.is_ok();
        }
        self.replica.handle(self.surroundings.clock.now(), event);
        if let Some((document, is_purged)) = changed {
            if !is_stored {
                return self.surroundings.catalogue.not_written(&document);
            }
            let heads = self.replica.durable_heads(&document);
            let heads = heads.map(|heads| heads_number(heads.iter().map(|head| head.0)));
            let holds = |change: &ChangeHash| self.replica.holds(&document, change) == Some(true);
            self.surroundings.catalogue.written(&document, heads, is_purged, holds);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Send(to, bytes) => {
                if let Some(outbox) = self.outboxes.get(&to) {
                    // A connection that no longer listens is ending: `Disconnected` comes next.
                    let _ = outbox.send(Outgoing::Frame(self.number, bytes));
                }
            }
            Effect::Close(to, code, reason) => {
                if let Some(outbox) = self.outboxes.get(&to) {
                    let _ = outbox.send(Outgoing::Close(code, reason));
                }
            }
            Effect::Load(ticket, document) => {
                let loading = self.surroundings.store.load(key(document));
                self.complete("load", loading, move |done| Event::Loaded(ticket, done));
            }
            Effect::Read(ticket, document, rows) => {
                let reading = self.surroundings.store.read(key(document), rows);
                self.complete("read", reading, move |done| Event::Read(ticket, done));
            }
            Effect::Write(ticket, document, rows) => {
                self.writes += 1;
                let reviewer = self.surroundings.reviewer.clone();
                let reviewer = reviewer.filter(|_| rows.iter().any(changes_document));
                let changed = reviewer.map(|reviewer| (reviewer, document.clone()));
                let marking = match self.mark(ticket, &document, &rows) {
                    Ok(marking) => marking,
                    Err(error) => {
                        if !matches!(error, StoreError::Busy { .. } | StoreError::Full { .. }) {
                            fail(&self.surroundings.health, &error.to_string());
                        }
                        let refused = std::future::ready(Err::<(), _>(error));
                        self.complete("write", refused, move |done| Event::Stored(ticket, done));
                        return;
                    }
                };
                let catalogue = self.surroundings.catalogue.clone();
                let marked = document.clone();
                // The call, here and now, is what puts writes in order.
                let writing = self.surroundings.store.write(key(document), rows);
                let (start, around) = (Instant::now(), self.surroundings.clone());
                let writing = async move {
                    let mut done = writing.await;
                    if done.is_ok() {
                        done = catalogue.marked(&marked, marking).await;
                    }
                    match &done {
                        Ok(()) => {
                            around.metrics.flushed(start.elapsed());
                            if let Some((reviewer, document)) = changed {
                                reviewer.changed(&document);
                            }
                        }
                        // Refused before anything was written; the store goes on.
                        Err(StoreError::Busy { .. } | StoreError::Full { .. }) => {}
                        Err(error) => fail(&around.health, &error.to_string()),
                    }
                    done
                };
                self.complete("write", writing, move |done| Event::Stored(ticket, done));
            }
            Effect::Work(ticket, document, job) => {
                let (around, completions) = (self.surroundings.clone(), self.completions.clone());
                tokio::spawn(async move {
                    let done = work(around, document, job).await;
                    let _ = completions.send(Event::WorkDone(ticket, done));
                });
            }
            Effect::SetTimer(at) => self.timer = Some(at),
            Effect::Count(counted) => self.surroundings.metrics.count(counted),
            Effect::Publish(document, Published::Opened(chunks)) => {
                self.read(&document, &Ok(chunks));
            }
            Effect::Publish(document, Published::Unreadable(reason)) => {
                self.read(&document, &Err(reason));
            }
            Effect::LocalDone(ticket, done) => {
                if let Some(waiting) = self.local.remove(&ticket) {
                    // Nobody waits any more: it is stored all the same.
                    let _ = waiting.send(done);
                }
            }
            Effect::Publish(document, Published::Damaged(reason)) => {
                tracing::error!(%document, reason, "a part of a document is lost to this relay");
            }
            // No program of this process has documents of a relay open for longer.
            Effect::Publish(..) => {}
        }
    }

    /// Has the catalogue take note that a document is about to change, if it is.
    fn mark(
        &mut self,
        ticket: Ticket,
        document: &DocumentId,
        rows: &[RowWrite],
    ) -> Result<Marking, StoreError> {
        let is_purged = rows.iter().any(|row| matches!(row, RowWrite::Clear));
        if !is_purged && !rows.iter().any(changes_document) {
            return Ok(Marking::Done);
        }
        let marking = self.surroundings.catalogue.writing(document, rows)?;
        self.changing.insert(ticket, (document.clone(), is_purged));
        Ok(marking)
    }

    /// Answers those who wanted to know what is in a document; nothing more of it is wanted then.
    fn read(&mut self, document: &DocumentId, read: &Read) {
        for waiting in self.reading.remove(document).into_iter().flatten() {
            let _ = waiting.send(read.clone());
        }
        self.handle(Event::Shut(document.clone()));
    }

    fn complete<T: Send + 'static>(
        &self,
        kind: &'static str,
        doing: impl Future<Output = Result<T, StoreError>> + Send + 'static,
        event: impl FnOnce(Result<T, StorageFailure>) -> Event + Send + 'static,
    ) {
        let (metrics, completions) = (self.surroundings.metrics.clone(), self.completions.clone());
        tokio::spawn(async move {
            let done = doing.await.map_err(|error| {
                metrics.store_failed(kind);
                tracing::error!(kind, %error, "the store failed");
                StorageFailure::from(error)
            });
            let _ = completions.send(event(done));
        });
    }
}

/// Whether there is more in a document, or less, than before this was written.
fn changes_document(row: &RowWrite) -> bool {
    let written =
        |key: &RowKey| matches!(key.kind, Kind::Change | Kind::Snapshot | Kind::Quarantine);
    matches!(row, RowWrite::Put(key, _) if written(key))
}

/// Ends the relay: after a failed write nothing can be acknowledged any more.
fn fail(health: &watch::Sender<Health>, reason: &str) {
    health.send_if_modified(|health| {
        let is_first = !matches!(health, Health::Failed(_));
        if is_first {
            *health = Health::Failed(reason.to_owned());
        }
        is_first
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_has_the_same_shard_in_every_run() {
        let doors = (0..4)
            .map(|_| Door { inbox: mpsc::channel(1).0, completions: mpsc::unbounded_channel().0 })
            .collect();
        let shards = Shards { doors };
        let mut held = [0; 4];
        for n in 0_u32..400 {
            held[shards.of(&DocumentId::from_bytes(&n.to_be_bytes()))] += 1;
        }
        assert!(held.iter().all(|&n| n > 50), "documents are spread: {held:?}");
        let one = "2akvofn6L1o4RMUEMQi7qzwRjKWZ".parse().unwrap();
        assert_eq!(shards.of(&one), shards.of(&one));
    }

    #[tokio::test]
    async fn a_panic_in_a_shard_is_a_failure_of_the_relay() {
        let health = watch::Sender::new(Health::Ready);
        let alarm = Alarm(health.clone());
        let task = tokio::spawn(async move {
            let _alarm = alarm;
            panic!("on purpose");
        });
        assert!(task.await.is_err());
        assert!(matches!(&*health.borrow(), Health::Failed(_)));

        let health = watch::Sender::new(Health::Ready);
        drop(Alarm(health.clone()));
        assert_eq!(*health.borrow(), Health::Ready, "a runtime that ends drops tasks too");
    }
}
