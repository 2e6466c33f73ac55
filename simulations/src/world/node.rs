//! A node: an engine, its store, and what waits between them.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use concord::{
    peer::simulation::{Apply, Dialling, Failover, TakenOut},
    replica::{Config, ConnectionId, Event, Job, Now, StoredDocument, Ticket},
    store::{
        Store, StoreError,
        simulation::{self, Committer},
    },
};
use concord_protocol::{
    ChangeHash, DocumentId, Feature, Features, Limits, PeerId, PeerMetadata, SessionId,
    SessionInfo, StorageId,
};

use super::{
    Happening, LinkId, MS, NodeId, World,
    author::Author,
    brain::{Brain, News},
    user::User,
};
use crate::{
    coverage::State,
    disk::Disk,
    ledger::Invariant,
    opaque::Hashes,
    plan::{Keep, Name, Plan, Profile},
    random::fate,
};

/// Milliseconds since 1970 at the start of every world.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// Who a process is to others.
pub(super) const fn session(session: SessionId) -> SessionInfo {
    SessionInfo { session, user: None, device: None }
}

/// Small, so that worlds come near them.
fn limits(plan: &Plan) -> Limits {
    let mut limits = Limits::default();
    limits.orphans = 200;
    // Several of the largest changes that users make.
    limits.orphan_bytes = 512 * 1024;
    limits.queue_bytes = plan.settings.queue_bytes as usize;
    limits
}

type Future<T> = concord::store::BoxFuture<T>;

/// Something that the engine asked for and that is not answered yet.
pub(super) enum Operation {
    Load(Ticket, Future<Result<StoredDocument, StoreError>>),
    Read(Ticket, Future<Result<Vec<Option<Bytes>>, StoreError>>),
    Job(Ticket, DocumentId, Job),
    /// Stored documents, for a relay that was just reached.
    ListAll(ConnectionId),
    /// Of the production peer.
    List(ConnectionId, Option<DocumentId>),
    /// Work for the applier, in order.
    Apply,
    /// Of the outbox: its rows, those of documents after this one.
    Notes(Option<DocumentId>),
    /// Of the outbox: documents after this one.
    ListForOutbox(Option<DocumentId>),
}

/// Whose answer a write has.
#[derive(Debug, Clone)]
pub(super) enum Writing {
    /// The engine's.
    Rows(Ticket),
    /// The outbox's.
    Note(Option<DocumentId>),
    /// The outbox's, of a change that is taken out of a document: two writes.
    Journal,
}

/// A process that runs.
pub(super) struct Process {
    pub(super) brain: Brain,
    pub(super) peer: PeerId,
    pub(super) store: Arc<dyn Store>,
    pub(super) committer: Committer,
    /// Writes given to the store, in order.
    pub(super) writes: VecDeque<(Writing, Future<Result<(), StoreError>>)>,
    pub(super) is_flushing: bool,
    pub(super) operations: BTreeMap<u64, Operation>,
    /// Those whose time has come but who wait for writes.
    pub(super) late: Vec<u64>,
    pub(super) next_operation: u64,
    pub(super) connections: BTreeMap<ConnectionId, (LinkId, usize)>,
    pub(super) next_connection: u64,
    pub(super) started_us: u64,
    pub(super) timer_ms: Option<u64>,
    pub(super) is_draining: bool,
    /// A write failed: what was shown and not written may be shown again.
    pub(super) has_failed: bool,
    /// What is on its disk by its own doing: changes by hash, with the write's fate known.
    pub(super) on_disk: Hashes,
    /// Rows of writes under way that carry changes.
    pub(super) carried: BTreeMap<Ticket, Vec<ChangeHash>>,
    pub(super) user: User,
    pub(super) author: Author,
    pub(super) applying: VecDeque<Apply>,
    /// The fences that its user was granted, by relay and document.
    pub(super) fences: BTreeMap<(u8, u8), u64>,
    /// Requests about leases.
    pub(super) asked: u32,
}

/// See the module.
pub(super) struct Node {
    pub(super) name: Name,
    pub(super) life: u32,
    pub(super) process: Option<Box<Process>>,
    pub(super) disk: Disk,
    pub(super) inbox: Vec<News>,
    pub(super) is_woken: bool,
    pub(super) paused_until_us: u64,
    pub(super) stalled_until_us: u64,
    pub(super) disk_hangs_until_us: u64,
    pub(super) disk_fault_until_us: u64,
    pub(super) away_until_us: u64,
    pub(super) skew_ms: i64,
    /// Its disk was damaged: what it promised may be gone.
    pub(super) is_rotten: bool,
    /// It came late and dials this relay and no other.
    pub(super) dials_only: Option<u8>,
    /// Its outbox is to be looked at once it knows what was in it.
    pub(super) is_outbox_due: bool,
    /// A change that is being taken out of a document, if its journal was written.
    pub(super) taking_out: Option<(u8, TakenOut)>,
    /// When its disk was not well last.
    pub(super) disk_was_ill_us: u64,
    /// Documents that its user wants open, whether the process runs or not.
    pub(super) wanted: Vec<bool>,
    /// When to dial which relay.
    pub(super) dialling: Vec<Dialling>,
    /// Of a process that may use any relay: which.
    pub(super) failover: Option<Failover>,
    /// When that is decided anew.
    pub(super) decides_at_ms: Option<u64>,
    /// The relay that it used last.
    pub(super) used: Option<u8>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Node {
    pub(super) fn new(name: Name, plan: &Plan) -> Self {
        let batch_bytes = usize::try_from(plan.settings.batch_bytes).unwrap_or(usize::MAX);
        Self {
            name,
            life: 0,
            process: None,
            disk: Disk::new(batch_bytes),
            inbox: Vec::new(),
            is_woken: false,
            paused_until_us: 0,
            stalled_until_us: 0,
            disk_hangs_until_us: 0,
            disk_fault_until_us: 0,
            away_until_us: 0,
            skew_ms: 0,
            is_rotten: false,
            is_outbox_due: false,
            dials_only: None,
            taking_out: None,
            disk_was_ill_us: 0,
            wanted: vec![false; usize::from(plan.documents)],
            dialling: (0..plan.relays).map(|_| Dialling::new()).collect(),
            failover: None,
            decides_at_ms: None,
            used: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn is_relay(&self) -> bool {
        matches!(self.name, Name::Relay(_))
    }

    pub(super) fn label(&self) -> String {
        match self.name {
            Name::Relay(number) => format!("relay {number}"),
            Name::Peer(number) => format!("peer {number}"),
        }
    }

    pub(super) fn now(&self, now_us: u64) -> Now {
        let started_us = self.process.as_ref().map_or(0, |process| process.started_us);
        Now {
            // The clock of a process starts with it, at anything.
            mono_ms: (now_us - started_us) / MS + 1,
            wall_ms: (EPOCH_MS + now_us / MS).saturating_add_signed(self.skew_ms),
        }
    }
}

impl World<'_> {
    /// A process starts on what its disk holds.
    pub(super) fn start(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        if node.is_up() {
            return;
        }
        node.life += 1;
        let life = node.life;
        let (kind, number) = match node.name {
            Name::Relay(number) => ("relay", number),
            Name::Peer(number) => ("peer", number),
        };
        // Hexadecimal digits and dashes are a name.
        #[allow(clippy::expect_used, reason = "see the line above")]
        let peer: PeerId = format!("{kind}-{number}-{life}").parse().expect("a name");
        #[allow(clippy::expect_used, reason = "as above")]
        let storage_id: StorageId = format!("store-{kind}-{number}").parse().expect("a name");
        let (store, committer) = simulation::open(Box::new(node.disk.clone()), storage_id.clone());
        let metadata = PeerMetadata {
            storage_id: Some(storage_id),
            is_ephemeral: Some(false),
            features: Features::NONE.with(Feature::Leases),
            session: peer.as_str().parse().ok().map(session),
            ..PeerMetadata::default()
        };
        let config = self.config(id, peer.clone(), metadata);
        let is_author = self.is_author(id);
        let brain = if is_author {
            let mut seed = [0; 32];
            seed[..8].copy_from_slice(&self.plan.seed.to_le_bytes());
            seed[8..16].copy_from_slice(&(id as u64).to_le_bytes());
            seed[16..20].copy_from_slice(&life.to_le_bytes());
            let after = Duration::from_millis(self.plan.settings.debounce_ms.into());
            Brain::peer(config, seed, (after, after * 10))
        } else {
            Brain::engine(config)
        };
        let node = &mut self.nodes[id];
        node.inbox.clear();
        node.is_outbox_due = is_author;
        node.process = Some(Box::new(Process {
            brain,
            peer,
            store,
            committer,
            writes: VecDeque::new(),
            is_flushing: false,
            operations: BTreeMap::new(),
            late: Vec::new(),
            next_operation: 0,
            connections: BTreeMap::new(),
            next_connection: 0,
            started_us: self.now_us,
            timer_ms: None,
            is_draining: false,
            has_failed: false,
            on_disk: Hashes::default(),
            carried: BTreeMap::new(),
            user: User::new(self.plan, id, life),
            author: Author::default(),
            applying: VecDeque::new(),
            fences: BTreeMap::new(),
            asked: 0,
        }));
        if self.nodes[id].is_relay() {
            self.number(id, life);
        }
        self.did(id, || format!("starts for the {life}. time"));
        if is_author && !self.finish_taking_out(id) {
            return;
        }
        if life > 1 {
            self.remember(id);
        }
        if !self.nodes[id].is_relay() {
            for document in 0..self.plan.documents {
                if self.nodes[id].wanted[usize::from(document)] {
                    self.open_document(id, document);
                }
            }
            if self.may_move(id) {
                self.begin_to_move(id);
                let wait = fate(self.plan.seed, 0xD1A1 + id as u64, u64::from(life)) % 100;
                return self.schedule(self.now_us + wait * MS, Happening::Decide(id, life));
            }
            for relay in 0..self.plan.relays {
                self.nodes[id].dialling[usize::from(relay)] = Dialling::new();
                if self.dials(id, relay) {
                    let wait = fate(self.plan.seed, 0xD1A1 + id as u64, u64::from(life)) % 100;
                    self.schedule(self.now_us + wait * MS, Happening::Dial(id, life, relay));
                }
            }
        }
    }

    /// A relay is told how often it was started, which it wrote down before.
    fn number(&mut self, id: NodeId, life: u32) {
        let now = self.nodes[id].now(self.now_us);
        if let Some(process) = &mut self.nodes[id].process {
            process.brain.handle(now, News::Event(Event::Numbered(life.into())));
        }
        self.ledger.tenures.started(id, self.now_us);
    }

    fn config(&self, id: NodeId, peer: PeerId, metadata: PeerMetadata) -> Config {
        let settings = &self.plan.settings;
        let mut config = Config::new(peer, metadata);
        config.compact_changes = settings.compact_changes as usize;
        config.remove_rows = config.compact_changes.div_ceil(4);
        config.idle_ms = u64::from(settings.idle_ms);
        config.check_ms = u64::from(settings.check_ms);
        config.strict = settings.strict && self.nodes[id].is_relay();
        config.limits = limits(self.plan);
        let narrow_bytes = settings.narrow_bytes as usize;
        if narrow_bytes > 0 && self.nodes[id].is_relay() && !self.is_wide {
            config.limits.change_bytes = narrow_bytes;
        }
        config
    }

    /// Whether a node is a peer with real documents.
    pub(super) fn is_author(&self, id: NodeId) -> bool {
        self.plan.profile == Profile::Automerge && !self.nodes[id].is_relay()
    }

    pub(super) fn limits(&self) -> Limits {
        limits(self.plan)
    }

    /// After a start: what was promised before must be there.
    fn remember(&mut self, id: NodeId) {
        let rotten = self.nodes[id].is_rotten;
        for document in 0..self.plan.documents {
            let disk = self.nodes[id].disk.clone();
            let found = match disk.look(|| self.stored(id, document)) {
                Ok(found) => found,
                Err(reason) if rotten => {
                    self.did(id, || format!("cannot read document {document}: {reason}"));
                    continue;
                }
                Err(reason) => {
                    let who = self.nodes[id].label();
                    let detail = format!("{who} cannot read document {document}: {reason}");
                    return self.broken(Invariant::Durability, detail);
                }
            };
            if !rotten {
                if let Some(row) = disk.look(|| self.half_row(id, document)) {
                    let who = self.nodes[id].label();
                    let detail = format!("{who} has half a row of document {document}: {row}");
                    self.broken(Invariant::Durability, detail);
                }
                let lost = self.ledger.names(id, document).find(|hash| !found.contains(hash));
                if let Some(lost) = lost.copied() {
                    let who = self.nodes[id].label();
                    let detail = format!(
                        "{who} had named {} of document {document}, and has lost it",
                        super::short(&lost)
                    );
                    self.broken(Invariant::Durability, detail);
                }
                if let Name::Peer(peer) = self.nodes[id].name {
                    let lost = self.ledger.promised(document).find(|hash| {
                        self.ledger.who(hash).is_some_and(|w| w.peer == peer)
                            && !found.contains(hash)
                    });
                    if let Some(lost) = lost {
                        let detail = format!(
                            "peer {peer} has lost {} of document {document}, whose call returned",
                            super::short(&lost)
                        );
                        self.broken(Invariant::Durability, detail);
                    }
                }
            }
            if let Some(process) = &mut self.nodes[id].process {
                process.on_disk.extend(found);
            }
        }
    }

    /// The process ends, in order or not.
    pub(super) fn end(&mut self, id: NodeId, keep: Keep) {
        let node = &mut self.nodes[id];
        let Some(process) = node.process.take() else {
            return;
        };
        node.inbox.clear();
        node.is_woken = false;
        node.stalled_until_us = 0;
        (node.failover, node.decides_at_ms, node.used) = (None, None, None);
        // What waits to be flushed may be on its way to the disk, and a part of it there.
        if !process.writes.is_empty() {
            self.coverage.met(State::CrashDuringWrites);
            if keep != Keep::Nothing {
                node.disk.fail_flushes(true);
                process.committer.commit(usize::MAX);
                node.disk.fail_flushes(false);
            }
        }
        drop(process);
        let node = &mut self.nodes[id];
        if node.disk.lose_power(keep) {
            self.coverage.met(State::CrashLeftPart);
        }
        if self.now_us < node.disk_fault_until_us {
            // The fault outlives the process, but a disk that failed is replaced or remounted.
            node.disk.heal();
            node.disk_fault_until_us = 0;
        }
        let is_taking_out = node.taking_out.is_some();
        if let Name::Peer(peer) = node.name {
            self.ledger.cut_short(peer);
        }
        if is_taking_out {
            self.met(State::CrashWhileTakingOut);
        }
    }
}
