//! A relay in one thread over a store that rots on demand, with virtual time and any number of
//! documents. Writes are done when they are asked for and answered when the test says so.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use automerge::{ActorId, AutoCommit, ROOT, transaction::Transactable as _};
use bytes::Bytes;
use concord::{
    replica::{
        ChunkSource, Config, ConnectionId, Counted, Effect, Event, Job, JobError, Kind, LocalError,
        Now, PeerInfo, Published, Replica, RowKey, StorageFailure, StoredDocument, Ticket,
    },
    store::{self, DocumentKey, MemoryFaults, Store, StoreError, Tenant},
    worker::{WorkerJob, WorkerLimits, materialise},
};
use concord_protocol::{
    ChangeHash, DocumentId, Limits, Message, PeerMetadata, codec,
    sync::{Bloom, Have, SyncFlags, SyncMessage, SyncVersion},
};
use futures_util::FutureExt as _;

pub(crate) struct World {
    pub(crate) replica: Replica,
    pub(crate) now: Now,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) faults: MemoryFaults,
    answers: VecDeque<(Ticket, Result<(), StoreError>)>,
    jobs: VecDeque<(Ticket, DocumentId, Job)>,
    timer: Option<u64>,
    compact_changes: usize,
    pub(crate) closed: Vec<(ConnectionId, u16)>,
    pub(crate) counts: Vec<Counted>,
    pub(crate) sent: Vec<(ConnectionId, Message)>,
    pub(crate) published: Vec<(DocumentId, Published)>,
    pub(crate) done: Vec<(Ticket, Result<(), LocalError>)>,
    /// Reads and loads fail for now, and how many did.
    pub(crate) reads_fail: bool,
    pub(crate) failed_reads: usize,
    /// Jobs of these documents find no worker.
    pub(crate) no_worker: BTreeSet<DocumentId>,
    pub(crate) jobs_done: usize,
}

fn key(document: &DocumentId) -> DocumentKey {
    DocumentKey { tenant: Tenant::default(), document: document.clone() }
}

fn replica(compact_changes: usize) -> Replica {
    let storage_id = Some("relay-storage".parse().unwrap());
    let metadata =
        PeerMetadata { storage_id, is_ephemeral: Some(false), ..PeerMetadata::default() };
    let mut config = Config::new("relay".parse().unwrap(), metadata);
    config.compact_changes = compact_changes;
    config.check_ms = 500;
    Replica::new(config)
}

impl World {
    pub(crate) fn new(compact_changes: usize) -> Self {
        let (store, faults) = store::memory_with_faults("relay-storage".parse().unwrap());
        Self {
            replica: replica(compact_changes),
            now: Now { mono_ms: 1, wall_ms: 1_700_000_000_000 },
            store,
            faults,
            answers: VecDeque::new(),
            jobs: VecDeque::new(),
            timer: None,
            compact_changes,
            closed: Vec::new(),
            counts: Vec::new(),
            sent: Vec::new(),
            published: Vec::new(),
            done: Vec::new(),
            reads_fail: false,
            failed_reads: 0,
            no_worker: BTreeSet::new(),
            jobs_done: 0,
        }
    }

    /// The process ends and starts again on what is stored.
    pub(crate) fn restart(&mut self) {
        self.finish_all();
        self.replica = replica(self.compact_changes);
        self.timer = None;
        self.closed.clear();
        self.counts.clear();
        self.sent.clear();
        self.published.clear();
    }

    pub(crate) fn handle(&mut self, event: Event) {
        self.replica.handle(self.now, event);
        while let Some(effect) = self.replica.poll_effect() {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        if std::env::var_os("TRACE").is_some() {
            let t = format!("{effect:?}");
            eprintln!("{} {}", self.now.mono_ms, &t[..t.len().min(300)]);
        }
        match effect {
            Effect::Send(connection, frame) => {
                self.replica.handle(self.now, Event::Drained(connection, frame.len()));
                for message in codec::decode(&frame, &Limits::default()).unwrap() {
                    self.sent.push((connection, message));
                }
            }
            Effect::Close(connection, code, _) => {
                self.closed.push((connection, code.code()));
                self.replica.handle(self.now, Event::Disconnected(connection));
            }
            Effect::Load(ticket, document) => {
                let loaded = self.read_fault().map_or_else(
                    || Ok(self.store.load(key(&document)).now_or_never().unwrap().unwrap()),
                    Err,
                );
                self.replica.handle(self.now, Event::Loaded(ticket, loaded));
            }
            Effect::Read(ticket, document, rows) => {
                let read = self.read_fault().map_or_else(|| self.read(&document, rows), Err);
                self.replica.handle(self.now, Event::Read(ticket, read));
            }
            Effect::Write(ticket, document, writes) => {
                let written = self.store.write(key(&document), writes).now_or_never().unwrap();
                self.answers.push_back((ticket, written));
            }
            Effect::Work(ticket, document, job) => self.jobs.push_back((ticket, document, job)),
            Effect::SetTimer(at_ms) => self.timer = Some(at_ms),
            Effect::LocalDone(ticket, result) => self.done.push((ticket, result)),
            Effect::Publish(document, published) => self.published.push((document, published)),
            Effect::Count(counted) => self.counts.push(counted),
        }
    }

    fn read_fault(&mut self) -> Option<StorageFailure> {
        self.reads_fail.then(|| {
            self.failed_reads += 1;
            StorageFailure::Passing("the disk does not answer".into())
        })
    }

    fn read(
        &self,
        document: &DocumentId,
        rows: Vec<RowKey>,
    ) -> Result<Vec<Option<Bytes>>, StorageFailure> {
        let read = self.store.read(key(document), rows).now_or_never().unwrap();
        read.map_err(StorageFailure::from)
    }

    /// Everything written so far is on disk.
    pub(crate) fn finish_writes(&mut self) {
        for (ticket, written) in std::mem::take(&mut self.answers) {
            let result = written.map_err(StorageFailure::from);
            self.handle(Event::Stored(ticket, result));
        }
    }

    pub(crate) fn finish_jobs(&mut self) {
        for (ticket, document, job) in std::mem::take(&mut self.jobs) {
            self.jobs_done += 1;
            let result = if self.no_worker.contains(&document) {
                Err(JobError::Unavailable("all are busy".into()))
            } else {
                self.resolve(&document, job)
                    .and_then(|job| materialise::run(&job, &WorkerLimits::default()))
            };
            self.handle(Event::WorkDone(ticket, result));
        }
    }

    fn resolve(&self, document: &DocumentId, job: Job) -> Result<WorkerJob, JobError> {
        let all = |sources: Vec<ChunkSource>| -> Result<Vec<Bytes>, JobError> {
            let one = |source| match source {
                ChunkSource::Inline(bytes) => Ok(bytes),
                ChunkSource::Stored(row) => {
                    let gone = || StorageFailure::Damaged("no row".into());
                    let read = self.read(document, vec![row]);
                    read.and_then(|mut rows| rows.pop().flatten().ok_or_else(gone))
                        .map_err(JobError::Storage)
                }
            };
            sources.into_iter().map(one).collect()
        };
        Ok(match job {
            Job::Build { base, incoming, explode_max } => {
                WorkerJob::Build { base: all(base)?, incoming, explode_max }
            }
            Job::Extract { snapshot, hashes } => {
                WorkerJob::Extract { snapshot: all(vec![snapshot])?.remove(0), hashes }
            }
            Job::Check { base, incoming } => {
                WorkerJob::Check { base: all(base)?, incoming: all(incoming)? }
            }
        })
    }

    pub(crate) fn finish_all(&mut self) {
        for _ in 0..1_000 {
            if self.answers.is_empty() && self.jobs.is_empty() {
                return;
            }
            self.finish_writes();
            self.finish_jobs();
        }
        panic!("it goes on for ever");
    }

    pub(crate) fn pass_time(&mut self, ms: u64) {
        let end = self.now.mono_ms + ms;
        while let Some(at) = self.timer.filter(|at| *at <= end) {
            self.now.mono_ms = self.now.mono_ms.max(at);
            self.timer = None;
            self.handle(Event::TimerFired);
        }
        self.now.wall_ms += end - self.now.mono_ms;
        self.now.mono_ms = end;
    }

    /// Long enough that no document is in memory any more.
    pub(crate) fn rest(&mut self) {
        for _ in 0..4 {
            self.finish_all();
            self.pass_time(61_000);
        }
        assert_eq!(self.replica.stats().documents, 0);
    }

    /// As [`World::rest`], once this one is gone.
    pub(crate) fn rest_with(&mut self, last: ConnectionId) {
        self.handle(Event::Disconnected(last));
        self.rest();
    }

    pub(crate) fn join(&mut self, number: u64) -> ConnectionId {
        let connection = ConnectionId(number);
        let peer = format!("peer-{number}").parse().unwrap();
        let metadata = PeerMetadata::default();
        let info = PeerInfo { peer, metadata, concord: false, dialled: false };
        self.handle(Event::Connected(connection, info));
        connection
    }

    pub(crate) fn say(&mut self, from: ConnectionId, document: &DocumentId, said: &SyncMessage) {
        let (document, data) = (document.clone(), said.encode());
        let (sender, target) = ("x".parse().unwrap(), "relay".parse().unwrap());
        let message = Message::Sync { document, sender, target, data };
        self.handle(Event::Received(from, message));
    }

    pub(crate) fn ask(&mut self, from: ConnectionId, document: &DocumentId) {
        let (document, data) = (document.clone(), said(&[], vec![]).encode());
        let (sender, target) = ("x".parse().unwrap(), "relay".parse().unwrap());
        let message = Message::Request { document, sender, target, data };
        self.handle(Event::Received(from, message));
    }

    /// The sync messages of one document that went to a connection since last asked.
    pub(crate) fn taken(&mut self, to: ConnectionId, document: &DocumentId) -> Vec<SyncMessage> {
        let mut taken = Vec::new();
        self.sent.retain(|(connection, message)| match message {
            Message::Sync { document: of, data, .. } if *connection == to && of == document => {
                taken.push(SyncMessage::decode(data, &Limits::default()).unwrap());
                false
            }
            _ => true,
        });
        taken
    }

    pub(crate) fn stored(&self, document: &DocumentId) -> StoredDocument {
        self.store.load(key(document)).now_or_never().unwrap().unwrap()
    }

    /// The only snapshot that is stored, as its root says.
    pub(crate) fn snapshot(&self, document: &DocumentId) -> [u8; 32] {
        let stored = self.stored(document);
        assert_eq!(stored.roots.len(), 1);
        stored.roots[0].0
    }

    /// Flips a bit of a row that must be there.
    pub(crate) fn rot(&self, document: &DocumentId, kind: Kind, id: [u8; 32], part: u32) {
        assert!(self.faults.corrupt(&key(document), &RowKey { kind, id, part }));
    }

    /// Loses a row that must be there.
    pub(crate) fn lose(&self, document: &DocumentId, kind: Kind, id: [u8; 32], part: u32) {
        let row = RowKey { kind, id, part };
        assert!(self.faults.lose_piece(&key(document), &row, 0));
        for piece in 1..=1_000 {
            self.faults.lose_piece(&key(document), &row, piece);
        }
    }

    /// Whether a row can be read; `None` if it is not there.
    pub(crate) fn is_whole(
        &self,
        document: &DocumentId,
        kind: Kind,
        id: [u8; 32],
        part: u32,
    ) -> Option<bool> {
        match self.read(document, vec![RowKey { kind, id, part }]) {
            Ok(rows) => rows[0].as_ref().map(|_| true),
            Err(_) => Some(false),
        }
    }
}

/// A sync message as a client sends it.
pub(crate) fn said(heads: &[ChangeHash], changes: Vec<Bytes>) -> SyncMessage {
    SyncMessage {
        version: SyncVersion::V1,
        have: vec![Have { last_sync: vec![], bloom: Bloom::default() }],
        heads: heads.to_vec(),
        need: vec![],
        changes,
        flags: Some(SyncFlags { supports_reset: true, ..SyncFlags::default() }),
    }
}

/// A client's document, and its changes one after another.
pub(crate) struct Writer {
    pub(crate) doc: AutoCommit,
    pub(crate) changes: Vec<(ChangeHash, Bytes)>,
}

impl Writer {
    pub(crate) fn new(actor: u8, changes: usize) -> Self {
        let doc = AutoCommit::new().with_actor(ActorId::from([actor; 16]));
        let mut this = Self { doc, changes: Vec::new() };
        for _ in 0..changes {
            this.put();
        }
        this
    }

    /// Writes once more.
    pub(crate) fn put(&mut self) -> (ChangeHash, Bytes) {
        let value = i64::try_from(self.changes.len()).unwrap();
        self.doc.put(ROOT, "key", value).unwrap();
        self.doc.commit();
        let change = self.doc.get_last_local_change().unwrap();
        let change = (ChangeHash(change.hash().0), Bytes::copy_from_slice(change.raw_bytes()));
        self.changes.push(change.clone());
        change
    }

    pub(crate) fn head(&self) -> ChangeHash {
        self.changes.last().unwrap().0
    }

    /// Everything as one document chunk, as a client uploads it.
    pub(crate) fn upload(&mut self) -> SyncMessage {
        let mut message = said(&[self.head()], vec![Bytes::from(self.doc.save())]);
        message.version = SyncVersion::V2;
        message
    }
}

/// The heads of a document of these chunks.
pub(crate) fn heads_of(messages: &[SyncMessage]) -> Vec<ChangeHash> {
    let mut doc = AutoCommit::new();
    for run in messages.iter().flat_map(|message| &message.changes) {
        doc.load_incremental(run).unwrap();
    }
    doc.get_heads().iter().map(|head| ChangeHash(head.0)).collect()
}
