//! Peers and one relay in one thread: a network, disks and appliers that take as long as a seed
//! says, and a log of all that programs see.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use automerge::{Automerge, transaction::Transaction};
use bytes::Bytes;
use concord::{
    entity::Schema,
    peer::{
        ChangeError, DeadLetter, DocumentEvent, EditError, LetterError, LetterState,
        simulation::{
            Apply, Dialling, DocumentState, EditId, NotesRead, PeerAction, PeerInput,
            SimulatedPeer, TakenOut,
        },
    },
    replica::{
        Config, ConnectionId, Effect, Event, Job, Kind, Now, PeerInfo, Replica, RowKey, RowWrite,
        StorageFailure, Ticket,
    },
    worker::{WorkerLimits, materialise, resolve},
};
use concord_protocol::{
    ChangeHash, DocumentId, Feature, Features, Limits, Message, PeerMetadata, codec,
};

use crate::things::{Disk, Rng};

/// What takes time.
enum Op {
    Note(Option<DocumentId>, Vec<RowWrite>),
    Journal(Option<(DocumentId, Vec<RowWrite>)>, RowWrite),
    ReadNotes(Option<DocumentId>, u64),
    Notes(NotesRead),
    ListForOutbox(Option<DocumentId>),
    Load(Ticket, DocumentId),
    Read(Ticket, DocumentId, Vec<RowKey>),
    Write(Ticket, DocumentId, Vec<RowWrite>),
    Work(Ticket, DocumentId, Job),
    List(ConnectionId, Option<DocumentId>),
    /// What was read for it, which comes later than it was read.
    Listed(ConnectionId, Vec<DocumentId>),
    Apply(Apply),
    /// Bytes for this node, sent by that one.
    Deliver(usize, ConnectionId, Bytes),
    Timer(u64),
    Dial,
}

/// A peer and what is around it.
pub(crate) struct Home {
    pub(crate) peer: SimulatedPeer,
    pub(crate) dialling: Dialling,
    connection: Option<ConnectionId>,
    runs: u8,
}

/// How peers are set up.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) debounce: (Duration, Duration),
    pub(crate) schema: Option<Arc<Schema>>,
    /// Documents that a connection may have, for all; `None`: as many as there are.
    pub(crate) documents: Option<usize>,
}

impl Settings {
    fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        limits.documents_per_connection = self.documents.unwrap_or(limits.documents_per_connection);
        limits
    }
}

/// Where the relay is among the nodes; peer `n` is node `n + 1`.
const RELAY: usize = 0;

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now: Now,
    pub(crate) document: DocumentId,
    pub(crate) homes: Vec<Home>,
    /// All that programs saw, and when.
    pub(crate) log: Vec<String>,
    pub(crate) done: BTreeMap<(usize, EditId), Result<(), ChangeError>>,
    /// What came of changes that were discarded, in order.
    pub(crate) taken_out: Vec<(usize, ChangeHash, Result<TakenOut, LetterError>)>,
    /// By how much the clock of each peer is off, milliseconds.
    skew_ms: Vec<i64>,
    /// Milliseconds that reading the outbox takes, and then again until it is told what was read.
    pub(crate) notes_late_ms: u64,
    /// Rows that were read to make documents anew.
    pub(crate) fetched: usize,
    /// Messages of documents that were sent, and by which node.
    pub(crate) sent: Vec<(usize, Message)>,
    settings: Settings,
    relay: Replica,
    disks: Vec<Disk>,
    timers: Vec<Option<u64>>,
    ops: BTreeMap<(u64, u64), (usize, Op)>,
    next_op: u64,
    /// Until when the applier, the disk and the line of each node are taken.
    busy: BTreeMap<(usize, &'static str), u64>,
    next_connection: u64,
}

fn read(bytes: &Bytes) -> impl Iterator<Item = Message> {
    codec::decode(bytes, &Limits::default()).unwrap().into_iter()
}

fn config(name: &str, settings: &Settings) -> Config {
    let limits = settings.limits();
    // Snapshots, and reading back from them, are part of every run.
    Config {
        compact_changes: 40,
        remove_rows: 7,
        limits,
        ..Config::new(name.parse().unwrap(), metadata())
    }
}

fn metadata() -> PeerMetadata {
    let features = Features::NONE.with(Feature::Unsubscribe);
    PeerMetadata { is_ephemeral: Some(false), features, ..PeerMetadata::default() }
}

fn peer(home: usize, run: u8, settings: &Settings) -> SimulatedPeer {
    let mut seed = [run; 32];
    seed[0] = u8::try_from(home).unwrap();
    let config = config(&format!("peer-{home}-{run}"), settings);
    let Settings { debounce, schema, .. } = settings.clone();
    SimulatedPeer::with(config, seed, debounce, schema)
}

impl World {
    /// Peers that dial a relay as soon as time passes.
    pub(crate) fn new(peers: usize, seed: u64) -> Self {
        Self::with(peers, seed, Settings::default())
    }

    pub(crate) fn with(peers: usize, seed: u64, settings: Settings) -> Self {
        Self::of(config("relay", &settings), peers, seed, settings)
    }

    /// The same, with a relay that takes no change of more than so many bytes.
    pub(crate) fn narrow(peers: usize, seed: u64, change_bytes: usize) -> Self {
        let settings = Settings::default();
        let mut relay = config("relay", &settings);
        relay.limits.change_bytes = change_bytes;
        Self::of(relay, peers, seed, settings)
    }

    fn of(relay: Config, peers: usize, seed: u64, settings: Settings) -> Self {
        let mut world = Self {
            rng: Rng::new(seed),
            now: Now { mono_ms: 1_000, wall_ms: 1_700_000_000_000 },
            document: DocumentId::from_bytes(&[7; 16]),
            homes: Vec::new(),
            log: Vec::new(),
            done: BTreeMap::new(),
            taken_out: Vec::new(),
            skew_ms: vec![0; peers],
            notes_late_ms: 0,
            fetched: 0,
            sent: Vec::new(),
            settings,
            relay: Replica::new(relay),
            disks: (0..=peers).map(|_| Disk::default()).collect(),
            timers: vec![None; peers + 1],
            ops: BTreeMap::new(),
            next_op: 0,
            busy: BTreeMap::new(),
            next_connection: 0,
        };
        for home in 0..peers {
            world.homes.push(Home {
                peer: peer(home, 0, &world.settings),
                dialling: Dialling::new(),
                connection: None,
                runs: 1,
            });
            world.plan_dial(home);
        }
        world
    }

    /// Has the clock on a peer's wall be off by so much from now on.
    pub(crate) fn set_clock(&mut self, home: usize, skew_ms: i64) {
        self.skew_ms[home] = skew_ms;
    }

    /// What a peer takes for now.
    pub(crate) fn now_at(&self, home: usize) -> Now {
        let wall_ms = self.now.wall_ms.saturating_add_signed(self.skew_ms[home]);
        Now { wall_ms, ..self.now }
    }

    /// Whether a peer's writes fail from now on.
    pub(crate) fn break_disk(&mut self, home: usize, fails: bool) {
        self.disks[home + 1].fails = fails;
    }

    /// Ends a peer without warning: what is not on its disk is gone.
    pub(crate) fn crash(&mut self, home: usize) {
        self.cut(home, None);
        self.ops.retain(|_, (node, op)| *node != home + 1 || matches!(op, Op::Dial));
        self.timers[home + 1] = None;
        let run = self.homes[home].runs;
        self.homes[home].runs += 1;
        self.homes[home].peer = peer(home, run, &self.settings);
        self.note(home, "crashed");
    }

    /// Ends it without warning before it did anything, and starts it with a disk that reads slowly.
    pub(crate) fn start_slowly(&mut self, home: usize, notes_late_ms: u64) {
        self.notes_late_ms = notes_late_ms;
        self.crash(home);
        self.settle();
        self.notes_late_ms = 0;
    }

    /// A peer that gave up is started with the relay again.
    pub(crate) fn dial_anew(&mut self, home: usize) {
        self.homes[home].dialling = Dialling::new();
        self.plan_dial(home);
    }

    /// Breaks a peer's connection, with the relay's close code or without one.
    pub(crate) fn cut(&mut self, home: usize, code: Option<u16>) {
        let Some(connection) = self.homes[home].connection.take() else { return };
        self.ops.retain(|_, (_, op)| !matches!(op, Op::Deliver(_, of, _) if *of == connection));
        let now = self.now_at(home);
        self.homes[home].peer.handle(now, PeerInput::Disconnected(connection));
        self.relay.handle(self.now, Event::Disconnected(connection));
        let random = self.rng.next();
        self.homes[home].dialling.ended(self.now.mono_ms, code, None, random);
        self.note(home, &format!("cut {code:?}"));
        self.plan_dial(home);
        self.settle();
    }

    pub(crate) fn create(&mut self, home: usize) -> EditId {
        let now = self.now_at(home);
        let edit = self.homes[home].peer.create(now, self.document.clone()).unwrap();
        self.settle();
        edit
    }

    /// Opens a document that is nowhere, to write into: its first change is the next edit.
    pub(crate) fn begin(&mut self, home: usize) {
        let now = self.now_at(home);
        self.homes[home].peer.begin(now, self.document.clone());
        self.settle();
    }

    /// Whether changes of documents that are written from now on are never heard of again.
    pub(crate) fn lose_changes(&mut self, home: usize, loses: bool) {
        self.disks[home + 1].loses_changes = loses;
    }

    /// Whether the rows that say what is to be replaced cannot be written from now on.
    pub(crate) fn fail_journals(&mut self, home: usize, fails: bool) {
        self.disks[home + 1].fails_journals = fails;
    }

    pub(crate) fn open(&mut self, home: usize) {
        let now = self.now_at(home);
        self.homes[home].peer.open(now, self.document.clone());
        self.settle();
    }

    pub(crate) fn shut(&mut self, home: usize) {
        let now = self.now_at(home);
        self.homes[home].peer.close_document(now, &self.document);
        self.settle();
    }

    /// Begins to remove the document from a peer's disk.
    pub(crate) fn purge(&mut self, home: usize) -> EditId {
        let now = self.now_at(home);
        let purge = self.homes[home].peer.purge(now, &self.document).unwrap();
        self.settle();
        purge
    }

    /// Whether something of the document is on a peer's disk.
    pub(crate) fn is_stored(&self, home: usize) -> bool {
        self.disks[home + 1].list(None, usize::MAX).contains(&self.document)
    }

    pub(crate) fn edit(
        &mut self,
        home: usize,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<(), EditError>,
    ) -> Result<Option<(ChangeHash, EditId)>, ChangeError> {
        let now = self.now_at(home);
        let made = self.homes[home].peer.edit(now, &self.document, edit);
        self.note(home, &format!("edit {made:?}"));
        // Sometimes the core hears of it only after what comes next.
        if self.rng.below(2) == 0 {
            self.settle();
        }
        made
    }

    /// Begins to take out a change that the relay refused.
    pub(crate) fn discard(&mut self, home: usize, change: ChangeHash) -> Result<(), ChangeError> {
        let now = self.now_at(home);
        let begun = self.homes[home].peer.discard(now, &self.document, change);
        self.note(home, &format!("discards {change}: {begun:?}"));
        if self.rng.below(2) == 0 {
            self.settle();
        }
        begun
    }

    /// Has the relay asked once more for what it refused.
    pub(crate) fn retry(&mut self, home: usize) {
        self.note(home, "retries");
        let now = self.now_at(home);
        self.homes[home].peer.retry(now, self.document.clone());
        self.settle();
    }

    /// What the relay refused and is in the document.
    pub(crate) fn open_letters(&self, home: usize) -> Vec<DeadLetter> {
        let letters = self.homes[home].peer.dead_letters().into_iter();
        letters.filter(|letter| matches!(letter.state, LetterState::Open { .. })).collect()
    }

    pub(crate) fn save(&self, home: usize) -> Vec<u8> {
        self.homes[home].peer.read(&self.document, Automerge::save).unwrap()
    }

    /// The document without the order in which its changes came: the same for the same changes.
    pub(crate) fn content(&self, home: usize) -> Vec<u8> {
        let sorted = |doc: &Automerge| {
            let mut changes = doc.get_changes(&[]);
            changes.sort_by_key(automerge::Change::hash);
            let mut sorted = Automerge::new();
            sorted.apply_changes(changes).unwrap();
            assert_eq!(sorted.get_heads(), doc.get_heads());
            sorted.save()
        };
        self.homes[home].peer.read(&self.document, sorted).unwrap()
    }

    pub(crate) fn state(&self, home: usize) -> DocumentState {
        self.homes[home].peer.state(&self.document).unwrap()
    }

    pub(crate) fn confirmed(&self, home: usize) -> bool {
        self.homes[home].peer.confirmed(&self.document)
    }

    pub(crate) fn saw(&self, what: &str) -> bool {
        self.log.iter().any(|line| line.contains(what))
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, ms: u64) {
        let until = self.now.mono_ms + ms;
        self.settle();
        while let Some((&(at, number), _)) = self.ops.first_key_value()
            && at <= until
        {
            self.to(at);
            let (node, op) = self.ops.remove(&(at, number)).unwrap();
            self.carry_out(node, op);
            self.settle();
        }
        self.to(until);
    }

    fn to(&mut self, mono_ms: u64) {
        self.now.wall_ms += mono_ms - self.now.mono_ms;
        self.now.mono_ms = mono_ms;
    }

    fn note(&mut self, home: usize, what: &str) {
        self.log.push(format!("{} peer {home}: {what}", self.now.mono_ms));
    }

    /// In this many milliseconds at most, after all that the same machinery was given before.
    fn plan(&mut self, node: usize, machinery: &'static str, max_ms: u64, op: Op) {
        let at = self.now.mono_ms + 1 + self.rng.below(max_ms);
        let busy = self.busy.entry((node, machinery)).or_default();
        *busy = at.max(*busy);
        let at = *busy;
        self.plan_at(at, node, op);
    }

    fn plan_at(&mut self, at: u64, node: usize, op: Op) {
        self.next_op += 1;
        self.ops.insert((at, self.next_op), (node, op));
    }

    fn plan_dial(&mut self, home: usize) {
        if let Some(at) = self.homes[home].dialling.next_dial_ms() {
            self.plan_at(at.max(self.now.mono_ms), home + 1, Op::Dial);
        }
    }

    /// Everybody does what there is to do now.
    fn settle(&mut self) {
        while let Some(effect) = self.relay.poll_effect() {
            self.relay_asks(effect);
        }
        for home in 0..self.homes.len() {
            while let Some(action) = self.homes[home].peer.poll() {
                self.peer_asks(home, action);
            }
            while let Some((edit, done)) = self.homes[home].peer.poll_edit() {
                self.note(home, &format!("{edit:?} {done:?}"));
                self.done.insert((home, edit), done);
            }
            while let Some((change, done)) = self.homes[home].peer.poll_discard() {
                self.note(home, &format!("{change} is out: {done:?}"));
                self.taken_out.push((home, change, done));
            }
            for event in self.homes[home].peer.events(&self.document) {
                assert!(!matches!(event, DocumentEvent::Lagged { .. }));
                self.note(home, &format!("{event:?}"));
            }
        }
    }

    fn peer_asks(&mut self, home: usize, action: PeerAction) {
        let node = home + 1;
        match action {
            PeerAction::Send(connection, bytes) => {
                if self.homes[home].connection == Some(connection) {
                    self.sent.extend(read(&bytes).map(|message| (node, message)));
                    self.plan(RELAY, "line", 40, Op::Deliver(node, connection, bytes));
                }
            }
            PeerAction::Close(connection, code, reason) => {
                self.note(home, &format!("closes: {reason}"));
                if self.homes[home].connection == Some(connection) {
                    self.cut(home, Some(code.code()));
                }
            }
            PeerAction::Load(ticket, id) => self.plan(node, "disk", 10, Op::Load(ticket, id)),
            PeerAction::Read(ticket, id, rows) => {
                self.plan(node, "disk", 10, Op::Read(ticket, id, rows));
            }
            PeerAction::Write(ticket, id, writes) => {
                self.plan(node, "disk", 10, Op::Write(ticket, id, writes));
            }
            PeerAction::Work(ticket, id, job) => {
                self.plan(node, "worker", 50, Op::Work(ticket, id, job));
            }
            PeerAction::SetTimer(at) => self.set_timer(node, at),
            PeerAction::Count(_) => {}
            PeerAction::List(connection, after) => {
                self.plan(node, "disk", 10, Op::List(connection, after));
            }
            PeerAction::Note(document, writes) => {
                self.plan(node, "disk", 10, Op::Note(document, writes));
            }
            PeerAction::Journal(rows, journal) => {
                self.plan(node, "disk", 10, Op::Journal(rows, journal));
            }
            PeerAction::ReadNotes(after) if self.notes_late_ms > 0 => {
                let late_ms = self.notes_late_ms;
                self.plan_at(self.now.mono_ms + late_ms, node, Op::ReadNotes(after, late_ms));
            }
            PeerAction::ReadNotes(after) => self.plan(node, "disk", 10, Op::ReadNotes(after, 0)),
            PeerAction::ListForOutbox(after) => {
                self.plan(node, "disk", 10, Op::ListForOutbox(after));
            }
            PeerAction::Apply(apply) => self.plan(node, "applier", 30, Op::Apply(apply)),
        }
    }

    fn relay_asks(&mut self, effect: Effect) {
        match effect {
            Effect::Send(connection, bytes) => {
                let to = self.homes.iter().position(|home| home.connection == Some(connection));
                if let Some(home) = to {
                    self.sent.extend(read(&bytes).map(|message| (RELAY, message)));
                    self.plan(home + 1, "line", 40, Op::Deliver(RELAY, connection, bytes));
                }
            }
            Effect::Close(connection, code, _) => {
                let of = self.homes.iter().position(|home| home.connection == Some(connection));
                if let Some(home) = of {
                    self.cut(home, Some(code.code()));
                }
            }
            Effect::Load(ticket, id) => self.plan(RELAY, "disk", 10, Op::Load(ticket, id)),
            Effect::Read(ticket, id, rows) => {
                self.plan(RELAY, "disk", 10, Op::Read(ticket, id, rows));
            }
            Effect::Write(ticket, id, writes) => {
                self.plan(RELAY, "disk", 10, Op::Write(ticket, id, writes));
            }
            Effect::Work(ticket, id, job) => {
                self.plan(RELAY, "worker", 50, Op::Work(ticket, id, job));
            }
            Effect::SetTimer(at) => self.set_timer(RELAY, at),
            Effect::LocalDone(..) | Effect::Publish(..) | Effect::Count(_) => {}
        }
    }

    fn set_timer(&mut self, node: usize, at: u64) {
        self.timers[node] = Some(at);
        self.plan_at(at.max(self.now.mono_ms), node, Op::Timer(at));
    }

    fn carry_out(&mut self, node: usize, op: Op) {
        let input = match op {
            Op::Load(ticket, id) => PeerInput::Loaded(ticket, Ok(self.disks[node].load(&id))),
            Op::Read(ticket, id, rows) => {
                self.fetched += rows.iter().filter(|row| row.kind == Kind::Snapshot).count();
                PeerInput::Read(ticket, Ok(self.disks[node].read(&id, rows)))
            }
            Op::Write(..) if self.disks[node].loses_changes => return,
            Op::Write(ticket, id, writes) => {
                PeerInput::Stored(ticket, self.disks[node].write(&id, writes))
            }
            Op::Work(ticket, id, job) => {
                let rows = self.disks[node].read(&id, resolve::job_rows(&job));
                let job = resolve::worker_job(job, rows);
                let done = job.and_then(|job| materialise::run(&job, &WorkerLimits::default()));
                PeerInput::WorkDone(ticket, done)
            }
            Op::List(connection, after) => {
                let page = self.disks[node].list(after.as_ref(), 2);
                let at = self.now.mono_ms + self.rng.below(100);
                return self.plan_at(at, node, Op::Listed(connection, page));
            }
            Op::Listed(connection, page) => PeerInput::Listed(connection, Ok(page)),
            Op::Note(document, writes) => {
                self.disks[node].note(document.as_ref(), writes);
                PeerInput::Noted(document, Ok(()))
            }
            Op::Journal(rows, journal) => {
                let disk = &mut self.disks[node];
                if let (Some((document, rows)), false) = (rows, disk.fails_journals) {
                    disk.note(Some(&document), rows);
                }
                let is_begun = matches!(journal, RowWrite::Put(..));
                let failed = is_begun && disk.fails_journals;
                if !failed {
                    disk.note(None, vec![journal]);
                }
                let error = StorageFailure::Passing("no room".to_owned());
                PeerInput::Journalled(if failed { Err(error) } else { Ok(()) })
            }
            Op::ReadNotes(after, late_ms) => {
                let read = self.disks[node].notes(after.as_ref());
                if late_ms > 0 {
                    return self.plan_at(self.now.mono_ms + late_ms, node, Op::Notes(read));
                }
                PeerInput::Notes(Ok(read))
            }
            Op::Notes(read) => PeerInput::Notes(Ok(read)),
            Op::ListForOutbox(after) => {
                PeerInput::ListedForOutbox(Ok(self.disks[node].list(after.as_ref(), 2)))
            }
            Op::Apply(apply) => {
                let now = self.now_at(node - 1);
                return self.homes[node - 1].peer.apply(now, apply);
            }
            Op::Deliver(from, connection, bytes) => {
                self.tell(from, PeerInput::Drained(connection, bytes.len()));
                for message in read(&bytes) {
                    self.tell(node, PeerInput::Received(connection, message));
                }
                return;
            }
            Op::Timer(at) => {
                if self.timers[node].take_if(|due| *due == at).is_none() {
                    return;
                }
                PeerInput::TimerFired
            }
            Op::Dial => return self.connect(node - 1),
        };
        self.tell(node, input);
    }

    fn tell(&mut self, node: usize, input: PeerInput) {
        if node != RELAY {
            let now = self.now_at(node - 1);
            return self.homes[node - 1].peer.handle(now, input);
        }
        let event = match input {
            PeerInput::Received(connection, message) => Event::Received(connection, message),
            PeerInput::Drained(connection, bytes) => Event::Drained(connection, bytes),
            PeerInput::Loaded(ticket, loaded) => Event::Loaded(ticket, loaded),
            PeerInput::Read(ticket, read) => Event::Read(ticket, read),
            PeerInput::Stored(ticket, stored) => Event::Stored(ticket, stored),
            PeerInput::WorkDone(ticket, done) => Event::WorkDone(ticket, done),
            PeerInput::TimerFired => Event::TimerFired,
            other => panic!("the relay does not ask for {other:?}"),
        };
        self.relay.handle(self.now, event);
    }

    fn connect(&mut self, home: usize) {
        if self.homes[home].connection.is_some() {
            return;
        }
        self.next_connection += 1;
        let connection = ConnectionId(self.next_connection);
        let run = self.homes[home].runs - 1;
        let info = |name: &str, dialled| PeerInfo {
            peer: name.parse().unwrap(),
            metadata: metadata(),
            concord: true,
            dialled,
        };
        self.homes[home].connection = Some(connection);
        self.homes[home].dialling.connected(self.now.mono_ms);
        self.note(home, "online");
        let peer = info(&format!("peer-{home}-{run}"), false);
        self.relay.handle(self.now, Event::Connected(connection, peer));
        let input = PeerInput::Connected(connection, info("relay", true));
        let now = self.now_at(home);
        self.homes[home].peer.handle(now, input);
    }

    /// The end of the log, for messages of failing tests.
    pub(crate) fn tail(&self) -> &[String] {
        &self.log[self.log.len().saturating_sub(30)..]
    }
}
