//! A world of one relay and some Automerge clients, in one thread, with virtual time.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "test code: small numbers, and a panic is the report"
)]
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod writer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use automerge::{ActorId, AutoCommit, ChangeHash as AmHash, sync, sync::SyncDoc as _};
use bytes::Bytes;
use concord::{
    replica::{
        ChunkSource, Config, ConnectionId, Effect, Event, Job, JobError, Kind, Leaving, LocalError,
        Now, PeerInfo, Published, Replica, RowKey, RowWrite, StorageFailure, StoredDocument,
        Ticket,
    },
    worker::{WorkerJob, WorkerLimits, materialise},
};
use concord_protocol::{
    ChangeHash, DocumentId, Features, Limits, Message, PeerId, PeerMetadata, RefuseCode, StorageId,
    codec,
    sync::{Bloom, Have, SyncFlags, SyncMessage, SyncVersion},
};

/// Tickets from here on may be refused.
const PURGES: u64 = 1 << 32;

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[derive(Clone, Default)]
pub(crate) struct WorldOptions {
    pub(crate) compact_changes: usize,
    pub(crate) mixed_versions: bool,
    pub(crate) crashes: bool,
    pub(crate) strict: bool,
    /// The others are servers that we dial, and a program here has the document open. They keep
    /// what they believe of us over a cut connection, as those of JavaScript do, also that what
    /// was on its way has arrived; they answer when they get round to it, also a connection that
    /// has gone meanwhile.
    pub(crate) dials_forgetless: bool,
}

pub(crate) struct Client {
    pub(crate) doc: AutoCommit,
    state: sync::State,
    v1_only: bool,
    connection: Option<ConnectionId>,
    outbox: VecDeque<Bytes>,
    inbox: VecDeque<Bytes>,
    /// Heads that the relay named to it: they must survive everything.
    acknowledged: BTreeSet<ChangeHash>,
    pub(crate) unavailable: usize,
    pub(crate) errors: Vec<String>,
    /// It has heard from us over this connection: before that it does not speak.
    heard: bool,
    /// It has something to say, and has not got round to it.
    owes: bool,
    /// What it says it has, over the connection of this number.
    says_it_has: Option<(ConnectionId, Vec<ChangeHash>)>,
}

pub(crate) struct World {
    pub(crate) options: WorldOptions,
    pub(crate) relay: Replica,
    pub(crate) now: Now,
    pub(crate) clients: Vec<Client>,
    /// What the program here has of the document.
    pub(crate) ours: AutoCommit,
    local_changes: u64,
    pub(crate) document: DocumentId,
    disk: BTreeMap<RowKey, Bytes>,
    writes: VecDeque<(Ticket, Vec<RowWrite>)>,
    jobs: VecDeque<(Ticket, Job)>,
    /// Rows that were read so far.
    pub(crate) rows_read: usize,
    /// Jobs that were done so far.
    pub(crate) jobs_done: usize,
    timer: Option<u64>,
    next_connection: u64,
    pub(crate) messages: u64,
    pub(crate) closed: Vec<(ConnectionId, u16)>,
    pub(crate) counts: Vec<concord::replica::Counted>,
    /// What went to connections that belong to no client.
    pub(crate) sent: Vec<(ConnectionId, Message)>,
    /// Changes that the materialiser finds to break the document.
    pub(crate) breaks: BTreeSet<ChangeHash>,
    /// Document chunks that hold no document.
    pub(crate) nonsense: Vec<Bytes>,
    /// Whether writes fail.
    pub(crate) disk_fails: bool,
    /// Calls of the program here that were told of that.
    pub(crate) failed_calls: usize,
    /// What became of purges, and of changes of the program here by their numbers.
    pub(crate) purges: Vec<Result<(), LocalError>>,
    /// What the program here was told of its changes that were refused.
    pub(crate) refusals: Vec<(ChangeHash, RefuseCode)>,
    /// Bare connections read what is sent to them.
    pub(crate) draining: bool,
}

fn config(options: &WorldOptions) -> Config {
    let metadata = PeerMetadata {
        storage_id: Some("relay-storage".parse::<StorageId>().unwrap()),
        is_ephemeral: Some(false),
        ..PeerMetadata::default()
    };
    let mut config = Config::new("relay".parse().unwrap(), metadata);
    config.compact_changes = options.compact_changes;
    config.strict = options.strict;
    config.check_ms = 500;
    config
}

impl World {
    pub(crate) fn new(options: WorldOptions) -> Self {
        let opens = options.dials_forgetless;
        let mut world = Self {
            relay: Replica::new(config(&options)),
            options,
            now: Now { mono_ms: 1, wall_ms: 1_700_000_000_000 },
            clients: Vec::new(),
            ours: AutoCommit::new().with_actor(ActorId::from([0xEE; 16])),
            local_changes: 0,
            document: DocumentId::from_bytes(&[7; 16]),
            disk: BTreeMap::new(),
            writes: VecDeque::new(),
            jobs: VecDeque::new(),
            rows_read: 0,
            jobs_done: 0,
            timer: None,
            next_connection: 0,
            messages: 0,
            closed: Vec::new(),
            counts: Vec::new(),
            sent: Vec::new(),
            breaks: BTreeSet::new(),
            nonsense: Vec::new(),
            disk_fails: false,
            failed_calls: 0,
            purges: Vec::new(),
            refusals: Vec::new(),
            draining: true,
        };
        if opens {
            world.handle(Event::Open(world.document.clone()));
        }
        world
    }

    pub(crate) fn add_client(&mut self, doc: AutoCommit, v1_only: bool) {
        self.clients.push(Client {
            doc,
            state: sync::State::new(),
            v1_only,
            connection: None,
            outbox: VecDeque::new(),
            inbox: VecDeque::new(),
            acknowledged: BTreeSet::new(),
            unavailable: 0,
            errors: Vec::new(),
            heard: false,
            owes: false,
            says_it_has: None,
        });
    }

    fn peer(client: usize) -> PeerId {
        format!("client-{client}").parse().unwrap()
    }

    pub(crate) fn connect(&mut self, client: usize) {
        if self.clients[client].connection.is_some() {
            return;
        }
        self.next_connection += 1;
        let connection = ConnectionId(self.next_connection);
        let info = PeerInfo {
            peer: Self::peer(client),
            metadata: PeerMetadata::default(),
            concord: false,
            dialled: self.options.dials_forgetless,
        };
        let this = &mut self.clients[client];
        this.connection = Some(connection);
        if self.options.dials_forgetless {
            (this.heard, this.owes) = (false, false);
            self.handle(Event::Connected(connection, info));
            self.handle(Event::SyncWith(connection, self.document.clone()));
            return;
        }
        // As automerge-repo does on every join.
        this.state = sync::State::decode(&this.state.encode()).unwrap();
        self.handle(Event::Connected(connection, info));
        self.speak(client);
    }

    pub(crate) fn disconnect(&mut self, client: usize) {
        let this = &mut self.clients[client];
        this.inbox.clear();
        this.outbox.clear();
        if let Some(connection) = this.connection.take() {
            self.handle(Event::Disconnected(connection));
        }
    }

    /// The connection breaks: some of what was on its way arrives all the same, and the server
    /// answers it before it hears that nobody is there any more.
    pub(crate) fn cut(&mut self, client: usize, rng: &mut Rng) {
        if self.clients[client].connection.is_none() {
            return;
        }
        for up in [true, false] {
            let this = &self.clients[client];
            let waiting = if up { this.outbox.len() } else { this.inbox.len() };
            for _ in 0..rng.below(waiting as u64 + 1) {
                self.deliver(client, up);
            }
        }
        let was_online = self.clients[client].state.clone();
        self.disconnect(client);
        if self.clients[client].owes {
            self.clients[client].owes = false;
            self.speak(client);
        }
        // What it says into the void counts as said in most of them.
        if rng.below(4) == 0 {
            self.clients[client].state = was_online;
        }
    }

    /// A server is restarted with what is on its disk, which is all of the document.
    pub(crate) fn restart(&mut self, client: usize) {
        self.disconnect(client);
        self.clients[client].state = sync::State::new();
        self.clients[client].owes = false;
    }

    /// The program here makes a change.
    pub(crate) fn edit_here(&mut self, edit: impl FnOnce(&mut AutoCommit)) {
        let before = self.ours.get_heads();
        edit(&mut self.ours);
        let changes: Vec<Bytes> = self
            .ours
            .get_changes(&before)
            .iter()
            .map(|change| Bytes::copy_from_slice(change.raw_bytes()))
            .collect();
        for change in changes {
            self.local_changes += 1;
            let ticket = Ticket(self.local_changes);
            self.handle(Event::LocalChange(ticket, self.document.clone(), change));
        }
    }

    pub(crate) fn edit(&mut self, client: usize, edit: impl FnOnce(&mut AutoCommit)) {
        edit(&mut self.clients[client].doc);
        self.speak_soon(client);
    }

    /// The client says what it has to say, or will when it is its turn.
    fn speak_soon(&mut self, client: usize) {
        if self.options.dials_forgetless {
            let this = &mut self.clients[client];
            this.owes = this.heard && this.connection.is_some();
        } else {
            self.speak(client);
        }
    }

    /// The client says what it has to say.
    fn speak(&mut self, client: usize) {
        let document = self.document.clone();
        let this = &mut self.clients[client];
        // A server may not have heard yet that its connection is gone.
        if this.connection.is_none() && !self.options.dials_forgetless {
            return;
        }
        let empty = this.doc.get_heads().is_empty();
        let Some(mut message) = this.doc.sync().generate_sync_message(&mut this.state) else {
            return;
        };
        if this.v1_only {
            message.flags = None;
            assert_eq!(message.version, sync::MessageVersion::V1);
        }
        let (sender, target) = (Self::peer(client), "relay".parse().unwrap());
        let data = Bytes::from(message.encode());
        let message = if empty {
            Message::Request { document, sender, target, data }
        } else {
            Message::Sync { document, sender, target, data }
        };
        if this.connection.is_some() {
            this.outbox.push_back(codec::encode(&message));
        }
    }

    /// Delivers one message, somewhere, or has a server get round to what it has to say.
    pub(crate) fn deliver_one(&mut self, rng: &mut Rng) -> bool {
        let owing: Vec<usize> = (0..self.clients.len())
            .filter(|client| {
                self.clients[*client].owes && self.clients[*client].connection.is_some()
            })
            .collect();
        if !owing.is_empty() && rng.below(2) == 0 {
            let client = owing[rng.below(owing.len() as u64) as usize];
            self.clients[client].owes = false;
            self.speak(client);
            return true;
        }
        let busy: Vec<(usize, bool)> = self
            .clients
            .iter()
            .enumerate()
            .flat_map(|(i, c)| [(i, true, c.outbox.is_empty()), (i, false, c.inbox.is_empty())])
            .filter(|(_, _, empty)| !empty)
            .map(|(client, up, _)| (client, up))
            .collect();
        if busy.is_empty() {
            return !owing.is_empty();
        }
        let (client, up) = busy[rng.below(busy.len() as u64) as usize];
        self.deliver(client, up);
        true
    }

    fn deliver(&mut self, client: usize, up: bool) {
        self.messages += 1;
        if std::env::var_os("CONCORD_TRACE").is_some() {
            self.trace(client, up);
        }
        if up {
            let frame = self.clients[client].outbox.pop_front().unwrap();
            let connection = self.clients[client].connection.unwrap();
            for message in codec::decode(&frame, &Limits::default()).unwrap() {
                self.handle(Event::Received(connection, message));
            }
        } else {
            let frame = self.clients[client].inbox.pop_front().unwrap();
            self.receive(client, &frame);
        }
    }

    fn trace(&self, client: usize, up: bool) {
        let this = &self.clients[client];
        let frame = if up { &this.outbox[0] } else { &this.inbox[0] };
        for message in codec::decode(frame, &Limits::default()).unwrap() {
            let arrow = if up { "->" } else { "<-" };
            match message {
                Message::Sync { data, .. } | Message::Request { data, .. } => {
                    let m = concord_protocol::sync::SyncMessage::decode(&data, &Limits::default())
                        .unwrap();
                    let mut changes = Vec::new();
                    for run in &m.changes {
                        for chunk in
                            concord_protocol::guard::split(run, &Limits::default()).unwrap()
                        {
                            match concord_protocol::guard::check_change(
                                &chunk.bytes,
                                &Limits::default(),
                            ) {
                                Ok(header) => {
                                    changes.push(format!("{:?}<{:?}", header.hash, header.deps));
                                }
                                Err(_) => changes.push(format!("{:?}", chunk.kind)),
                            }
                        }
                    }
                    let have: Vec<String> = m
                        .have
                        .iter()
                        .map(|h| {
                            format!(
                                "{:?}+{}",
                                h.last_sync,
                                if h.bloom.is_empty() { "" } else { "bloom" }
                            )
                        })
                        .collect();
                    eprintln!(
                        "{} {client} {arrow} heads {:?} need {:?} have {have:?} changes {changes:?}",
                        self.now.mono_ms, m.heads, m.need
                    );
                }
                other => eprintln!("{} {client} {arrow} {other:?}", self.now.mono_ms),
            }
        }
    }

    fn receive(&mut self, client: usize, frame: &Bytes) {
        let connection = self.clients[client].connection.unwrap();
        self.handle(Event::Drained(connection, frame.len()));
        let this = &mut self.clients[client];
        match codec::decode(frame, &Limits::default()).unwrap().remove(0) {
            Message::Sync { data, .. } | Message::Request { data, .. } => {
                let mut message = sync::Message::decode(&data).unwrap();
                if this.v1_only {
                    // It does not know that section.
                    message.flags = None;
                    assert_eq!(message.version, sync::MessageVersion::V1, "it cannot read more");
                }
                let named = message.have.iter().map(|have| have.last_sync.len()).max();
                assert!(named.is_none_or(|named| named <= 16), "{named:?} heads in common");
                this.acknowledged.extend(message.heads.iter().map(|hash| ChangeHash(hash.0)));
                this.doc.sync().receive_sync_message(&mut this.state, message).unwrap();
                this.heard = true;
                self.speak_soon(client);
            }
            Message::DocUnavailable { .. } => this.unavailable += 1,
            Message::Error { message, .. } => this.errors.push(message),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub(crate) fn handle(&mut self, event: Event) {
        self.relay.handle(self.now, event);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.relay.poll_effect() {
            match effect {
                Effect::Send(connection, frame) => {
                    if let Some(client) =
                        self.clients.iter_mut().find(|client| client.connection == Some(connection))
                    {
                        client.inbox.push_back(frame);
                    } else {
                        if self.draining {
                            self.relay.handle(self.now, Event::Drained(connection, frame.len()));
                        }
                        for message in codec::decode(&frame, &Limits::default()).unwrap() {
                            self.sent.push((connection, message));
                        }
                    }
                }
                Effect::Close(connection, code, _) => self.closed.push((connection, code.code())),
                Effect::Load(ticket, _) => {
                    let stored = self.load();
                    self.relay.handle(self.now, Event::Loaded(ticket, Ok(stored)));
                }
                Effect::Read(ticket, _, keys) => {
                    let rows = keys.iter().map(|key| self.disk.get(key).cloned()).collect();
                    self.rows_read += keys.len();
                    self.relay.handle(self.now, Event::Read(ticket, Ok(rows)));
                }
                Effect::Write(ticket, _, writes) => self.writes.push_back((ticket, writes)),
                Effect::Work(ticket, _, job) => self.jobs.push_back((ticket, job)),
                Effect::SetTimer(at) => self.timer = Some(at),
                Effect::Count(counted) => self.counts.push(counted),
                Effect::LocalDone(ticket, done) if ticket.0 >= PURGES => self.purges.push(done),
                Effect::LocalDone(_, Err(_)) if self.disk_fails => self.failed_calls += 1,
                Effect::LocalDone(_, done) => done.unwrap(),
                Effect::Publish(_, published) => self.published(published),
            }
        }
    }

    /// The program here is told something.
    fn published(&mut self, published: Published) {
        match published {
            Published::Opened(chunks) | Published::Changes(chunks) => {
                for chunk in chunks {
                    self.ours.load_incremental(&chunk).unwrap();
                }
            }
            Published::Snapshot(chunk) => _ = self.ours.load_incremental(&chunk).unwrap(),
            Published::RelayHas { connection, ack } => {
                let said = Some((connection, ack.durable));
                let of = |client: &&mut Client| client.connection == Some(connection);
                if let Some(client) = self.clients.iter_mut().find(of) {
                    client.says_it_has = said;
                }
            }
            Published::Refused { hash, code, .. } => self.refusals.push((hash, code)),
            _ => {}
        }
    }

    fn load(&self) -> StoredDocument {
        let mut stored = StoredDocument::default();
        for (key, bytes) in &self.disk {
            match key.kind {
                Kind::Meta => stored.meta = Some(bytes.clone()),
                Kind::IndexRoot => stored.roots.push((key.id, bytes.clone())),
                Kind::Change => stored.changes.push((ChangeHash(key.id), bytes.clone())),
                _ => {}
            }
        }
        stored
    }

    fn apply(disk: &mut BTreeMap<RowKey, Bytes>, write: RowWrite) {
        match write {
            RowWrite::Put(key, bytes) => {
                disk.insert(key, bytes);
            }
            RowWrite::Delete(key) => {
                disk.remove(&key);
            }
            RowWrite::Clear => disk.retain(|key, _| key.kind == Kind::Meta),
        }
    }

    /// One flush of everything written so far.
    pub(crate) fn finish_writes(&mut self) {
        let writes = std::mem::take(&mut self.writes);
        let mut tickets = Vec::new();
        for (ticket, rows) in writes {
            for row in rows {
                Self::apply(&mut self.disk, row);
            }
            tickets.push(ticket);
        }
        for ticket in tickets {
            let failure = StorageFailure::Passing("no space".into());
            let result = if self.disk_fails { Err(failure) } else { Ok(()) };
            self.handle(Event::Stored(ticket, result));
        }
    }

    /// As [`World::finish_writes`], but there is no room for the first write, which is large.
    pub(crate) fn finish_writes_but_the_first(&mut self) {
        let (first, _) = self.writes.pop_front().unwrap();
        let behind = std::mem::take(&mut self.writes);
        let failure = StorageFailure::Passing("no space".into());
        self.disk_fails = true;
        self.handle(Event::Stored(first, Err(failure)));
        for (ticket, rows) in behind {
            for row in rows {
                Self::apply(&mut self.disk, row);
            }
            self.handle(Event::Stored(ticket, Ok(())));
        }
        self.disk_fails = false;
    }

    /// As [`World::finish_writes`], but word of the last write comes first.
    pub(crate) fn finish_writes_backwards(&mut self) {
        let writes = std::mem::take(&mut self.writes);
        for (_, rows) in &writes {
            for row in rows.clone() {
                Self::apply(&mut self.disk, row);
            }
        }
        for (ticket, _) in writes.into_iter().rev() {
            self.handle(Event::Stored(ticket, Ok(())));
        }
    }

    fn resolve(&self, source: ChunkSource) -> Option<Bytes> {
        match source {
            ChunkSource::Inline(bytes) => Some(bytes),
            ChunkSource::Stored(key) => self.disk.get(&key).cloned(),
        }
    }

    pub(crate) fn finish_jobs(&mut self) {
        for (ticket, job) in std::mem::take(&mut self.jobs) {
            self.jobs_done += 1;
            let all = |sources: Vec<ChunkSource>| {
                sources.into_iter().map(|source| self.resolve(source)).collect::<Option<Vec<_>>>()
            };
            let job = match job {
                Job::Build { base, incoming, explode_max } => {
                    all(base).map(|base| WorkerJob::Build { base, incoming, explode_max })
                }
                Job::Extract { snapshot, hashes } => {
                    self.resolve(snapshot).map(|snapshot| WorkerJob::Extract { snapshot, hashes })
                }
                Job::Check { base, incoming } => match (all(base), all(incoming)) {
                    (Some(base), Some(incoming)) => Some(WorkerJob::Check { base, incoming }),
                    _ => None,
                },
            };
            let broken = match &job {
                Some(WorkerJob::Check { incoming, .. }) => self.broken(incoming),
                Some(WorkerJob::Build { base, .. }) if self.broken(base).is_some() => {
                    let error = JobError::Base("it panicked".into());
                    self.handle(Event::WorkDone(ticket, Err(error)));
                    continue;
                }
                _ => None,
            };
            if let Some(hash) = broken {
                let error = JobError::Breaks { hash, reason: "it panicked".into() };
                self.handle(Event::WorkDone(ticket, Err(error)));
                continue;
            }
            let is_honest = match &job {
                Some(WorkerJob::Build { incoming, .. }) => {
                    !incoming.iter().any(|chunk| self.nonsense.contains(chunk))
                }
                _ => true,
            };
            let result = match job {
                Some(job) => materialise::run(&job, &WorkerLimits::default()),
                None => Err(JobError::Storage(StorageFailure::Damaged("a row is gone".into()))),
            };
            if let Err(error) = &result
                && is_honest
            {
                assert!(matches!(error, JobError::Storage(_)), "honest work failed: {error:?}");
            }
            self.handle(Event::WorkDone(ticket, result));
        }
    }

    fn broken(&self, chunks: &[Bytes]) -> Option<ChangeHash> {
        let limits = Limits::default();
        chunks.iter().find_map(|chunk| {
            let header = concord_protocol::guard::check_change(chunk, &limits).ok()?;
            self.breaks.contains(&header.hash).then_some(header.hash)
        })
    }

    /// A connection that no client speaks over.
    pub(crate) fn bare(&mut self, number: u64, metadata: PeerMetadata) -> ConnectionId {
        self.bare_of(number, metadata, false)
    }

    /// As [`World::bare`], with `concord.v1`.
    pub(crate) fn bare_concord(&mut self, number: u64) -> ConnectionId {
        self.bare_of(number, PeerMetadata::default(), true)
    }

    fn bare_of(&mut self, number: u64, metadata: PeerMetadata, concord: bool) -> ConnectionId {
        let peer = format!("bare-{number}").parse().unwrap();
        self.bare_as(number, PeerInfo { peer, metadata, concord, dialled: false })
    }

    /// A server that we dialled, which is told of the document.
    pub(crate) fn bare_server(&mut self, number: u64, concord: bool) -> ConnectionId {
        self.bare_server_of(number, PeerMetadata::default(), concord)
    }

    /// The same with `concord.v1`, and what it says that it can do.
    pub(crate) fn bare_server_with(&mut self, number: u64, features: Features) -> ConnectionId {
        self.bare_server_of(number, PeerMetadata { features, ..PeerMetadata::default() }, true)
    }

    fn bare_server_of(
        &mut self,
        number: u64,
        metadata: PeerMetadata,
        concord: bool,
    ) -> ConnectionId {
        let peer = format!("server-{number}").parse().unwrap();
        let server = self.bare_as(number, PeerInfo { peer, metadata, concord, dialled: true });
        self.handle(Event::SyncWith(server, self.document.clone()));
        server
    }

    fn bare_as(&mut self, number: u64, info: PeerInfo) -> ConnectionId {
        let connection = ConnectionId(1_000_000 + number);
        self.handle(Event::Connected(connection, info));
        connection
    }

    /// What was sent to a bare connection since last asked.
    pub(crate) fn taken(&mut self, connection: ConnectionId) -> Vec<Message> {
        let (mine, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.sent).into_iter().partition(|(to, _)| *to == connection);
        self.sent = rest;
        mine.into_iter().map(|(_, message)| message).collect()
    }

    /// Sends a sync message over a bare connection.
    pub(crate) fn say(
        &mut self,
        connection: ConnectionId,
        document: &DocumentId,
        message: &SyncMessage,
    ) {
        let (document, data) = (document.clone(), message.encode());
        let (sender, target) = ("x".parse().unwrap(), "relay".parse().unwrap());
        let message = Message::Sync { document, sender, target, data };
        self.handle(Event::Received(connection, message));
    }

    /// Asks for a document over a bare connection.
    pub(crate) fn ask(&mut self, connection: ConnectionId, document: &DocumentId) {
        let data = sync_message(vec![], vec![]).encode();
        let (sender, target) = ("x".parse().unwrap(), "relay".parse().unwrap());
        let message = Message::Request { document: document.clone(), sender, target, data };
        self.handle(Event::Received(connection, message));
    }

    pub(crate) fn finish_all(&mut self) {
        while !self.writes.is_empty() || !self.jobs.is_empty() {
            self.finish_writes();
            self.finish_jobs();
        }
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

    /// All of the document is to go.
    pub(crate) fn purge(&mut self, heads: &[ChangeHash], leaving: Leaving) {
        let (document, heads) = (self.document.clone(), heads.to_vec());
        self.handle(Event::Purge { ticket: Ticket(PURGES), document, heads, leaving });
    }

    /// The program here makes a change that may be refused.
    pub(crate) fn change_here(&mut self, change: Bytes) {
        let ticket = Ticket(PURGES);
        self.handle(Event::LocalChange(ticket, self.document.clone(), change));
    }

    /// The rows on disk.
    pub(crate) fn rows(&self) -> Vec<RowKey> {
        self.disk.keys().copied().collect()
    }

    /// The relay's machine loses power when these many rows of what was to be written are on disk;
    /// of what was to be cleared then, every other row is gone.
    pub(crate) fn crash_after(&mut self, rows: usize) {
        let waiting = std::mem::take(&mut self.writes).into_iter().flat_map(|(_, rows)| rows);
        let mut waiting = waiting.collect::<VecDeque<_>>();
        for row in waiting.drain(..rows.min(waiting.len())) {
            Self::apply(&mut self.disk, row);
        }
        if let Some(RowWrite::Clear) = waiting.front() {
            let mut number = 0;
            self.disk.retain(|key, _| {
                number += 1;
                key.kind == Kind::Meta || number % 2 == 0
            });
        }
        self.crash();
    }

    /// The relay's machine loses power: what was not flushed is gone, but for a prefix.
    pub(crate) fn crash(&mut self) {
        let mut kept = self.writes.len() / 2;
        for (_, rows) in std::mem::take(&mut self.writes) {
            let rows: Vec<RowWrite> = if kept == 0 {
                let half = rows.len() / 2;
                rows.into_iter().take(half).collect()
            } else {
                rows
            };
            for row in rows {
                Self::apply(&mut self.disk, row);
            }
            if kept == 0 {
                break;
            }
            kept -= 1;
        }
        self.jobs.clear();
        self.timer = None;
        self.relay = Replica::new(config(&self.options));
        for client in &mut self.clients {
            client.connection = None;
            client.inbox.clear();
            client.outbox.clear();
        }
    }

    /// The program here has everything, and every server has said that it has.
    fn all_is_confirmed(&mut self, heads: &[AmHash]) -> Result<(), String> {
        if self.ours.get_heads() != heads {
            return Err(format!("here are heads {:?}, not {heads:?}", self.ours.get_heads()));
        }
        let heads: BTreeSet<ChangeHash> = heads.iter().map(|head| ChangeHash(head.0)).collect();
        for (number, client) in self.clients.iter().enumerate() {
            let said = client.says_it_has.as_ref();
            let said = said.filter(|(connection, _)| Some(*connection) == client.connection);
            let said = said.map(|(_, said)| said.iter().copied().collect::<BTreeSet<_>>());
            if !heads.is_empty() && said.as_ref() != Some(&heads) {
                return Err(format!("server {number} says that it has {said:?}, not {heads:?}"));
            }
        }
        Ok(())
    }

    /// Connects everybody, lets everything end, and checks what must then be true.
    pub(crate) fn settle(&mut self) -> Result<(), String> {
        for client in 0..self.clients.len() {
            self.connect(client);
        }
        let mut rng = Rng::new(1);
        let mut quiet = 0;
        let mut rounds = 0;
        while quiet < 3 {
            rounds += 1;
            if rounds > 2_000 {
                return Err("never quiet".into());
            }
            let mut moved = self.deliver_one(&mut rng);
            moved |= !self.writes.is_empty() || !self.jobs.is_empty();
            self.finish_writes();
            self.finish_jobs();
            if moved {
                quiet = 0;
            } else {
                quiet += 1;
                self.pass_time(1_000);
            }
        }
        let mut oracle = AutoCommit::new();
        for client in &mut self.clients {
            oracle.merge(&mut client.doc).map_err(|error| error.to_string())?;
        }
        oracle.merge(&mut self.ours).map_err(|error| error.to_string())?;
        let heads = oracle.get_heads();
        if self.options.dials_forgetless {
            self.all_is_confirmed(&heads)?;
        }
        for (number, client) in self.clients.iter_mut().enumerate() {
            if !client.errors.is_empty() {
                return Err(format!("client {number} was refused: {:?}", client.errors));
            }
            if client.doc.get_heads() != heads {
                return Err(format!(
                    "client {number} has heads {:?}, not {heads:?}",
                    client.doc.get_heads()
                ));
            }
            if contents(&client.doc) != contents(&oracle) {
                return Err(format!("client {number} has other contents"));
            }
            for hash in &client.acknowledged {
                if oracle.get_change_by_hash(&AmHash(hash.0)).is_none() {
                    return Err(format!("acknowledged {hash:?} is gone"));
                }
            }
        }
        if !self.closed.is_empty() {
            return Err(format!("closed {:?}", self.closed));
        }
        // What is on disk is all of it.
        let mut stored = AutoCommit::new();
        for kind in [Kind::Snapshot, Kind::Change] {
            for (_, bytes) in self.disk.iter().filter(|(key, _)| key.kind == kind) {
                stored.load_incremental(bytes).map_err(|error| error.to_string())?;
            }
        }
        if stored.get_heads() != heads {
            return Err("the disk holds something else".into());
        }
        Ok(())
    }
}

/// A sync message as a client sends it.
pub(crate) fn sync_message(heads: Vec<ChangeHash>, changes: Vec<Bytes>) -> SyncMessage {
    SyncMessage {
        version: SyncVersion::V1,
        have: vec![Have { last_sync: vec![], bloom: Bloom::default() }],
        heads,
        need: vec![],
        changes,
        flags: Some(SyncFlags { supports_reset: true, ..SyncFlags::default() }),
    }
}

fn contents(doc: &AutoCommit) -> String {
    serde_json::to_string(&automerge::AutoSerde::from(doc)).unwrap()
}
