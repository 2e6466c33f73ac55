//! What happens in a world that the world does not cause itself, as plain data.
//!
//! A plan is drawn from a seed ([`crate::swarm`]), written to a file, cut down to what a failure
//! needs ([`crate::shrink`]), and read back. Whatever else a world needs (how long a message
//! takes, how long a flush) is a hash of the seed and of the thing's own name, so that an action
//! left out leaves the fate of the rest as it was.

use concord_protocol::DocumentId;
use serde::{Deserialize, Serialize};

/// Everything that makes one world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Decides what the plan does not say.
    pub seed: u64,
    /// What documents are made of.
    pub profile: Profile,
    /// Relays.
    pub relays: u8,
    /// Peers with users. The first dials every relay and has every document open, so that all
    /// can converge; the others dial one.
    pub peers: u8,
    /// Documents.
    pub documents: u8,
    /// How things are made up.
    pub settings: Settings,
    /// What users do and what goes wrong, in any order.
    pub actions: Vec<Action>,
    /// When faults end, in milliseconds; all must converge after that.
    pub calm_ms: u64,
}

/// A plan that names what its world does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlan {
    /// There must be a relay, a peer and a document.
    #[error("there must be a relay, a peer and a document")]
    Empty,
    /// An action names a relay, a peer or a document that does not exist.
    #[error("action {0} names what is not there")]
    Stranger(usize),
    /// Relays do not speak to each other: if there are several, the first peer must have every
    /// document open, or they never have the same of it.
    #[error("several relays, and peer 0 does not keep document {0} open")]
    Hub(u8),
    /// A time is beyond [`Plan::TIME_MAX_MS`].
    #[error("a time of more than {} ms", Plan::TIME_MAX_MS)]
    Time,
}

impl Plan {
    /// Times are below this, about thirty years: sums of them never overflow.
    pub const TIME_MAX_MS: u64 = 1_000_000_000_000;

    /// Checks that a world can be made of it.
    ///
    /// # Errors
    ///
    /// If it has no relay, peer or document, if an action names one that does not exist, if
    /// nobody joins its relays, or if a time is absurd.
    pub fn validate(&self) -> Result<(), InvalidPlan> {
        if self.relays == 0 || self.peers == 0 || self.documents == 0 {
            return Err(InvalidPlan::Empty);
        }
        if self.calm_ms > Self::TIME_MAX_MS {
            return Err(InvalidPlan::Time);
        }
        for (number, action) in self.actions.iter().enumerate() {
            let named = action.what.names();
            let is_there = named.peer.is_none_or(|peer| peer < self.peers)
                && named.relay.is_none_or(|relay| relay < self.relays)
                && named.document.is_none_or(|document| document < self.documents);
            if !is_there {
                return Err(InvalidPlan::Stranger(number));
            }
            let lasts_ms = match action.what {
                What::Away { for_ms, .. } => for_ms,
                What::Clock { by_ms, .. } => by_ms.unsigned_abs(),
                _ => 0,
            };
            if action.at_ms.max(lasts_ms) > Self::TIME_MAX_MS {
                return Err(InvalidPlan::Time);
            }
        }
        let apart = (0..self.documents).find(|document| !self.is_joined(*document));
        apart.map_or(Ok(()), |document| Err(InvalidPlan::Hub(document)))
    }

    /// Whether a document comes to every relay.
    fn is_joined(&self, document: u8) -> bool {
        let is_there = |wanted: &What| {
            let mut actions = self.actions.iter().filter(|action| action.at_ms <= self.calm_ms);
            actions.any(|action| action.what == *wanted)
        };
        self.relays == 1
            || is_there(&What::Open { peer: 0, document })
                && !is_there(&What::Shut { peer: 0, document })
    }

    /// The id that a document of this number has in every world.
    pub fn document_id(document: u8) -> DocumentId {
        DocumentId::from_bytes(&[document.wrapping_add(1); 16])
    }
}

/// What documents are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Change chunks whose operations nobody looks at: fast. The replica and the store are the
    /// production ones; a snapshot is a list of changes.
    Opaque,
    /// Real Automerge documents, with the production peer and the production materialiser.
    Automerge,
}

/// How things are made up, drawn once a world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Of the replicas: changes after a snapshot that call for a new one.
    pub compact_changes: u32,
    /// Of the replicas: milliseconds until an idle document leaves memory.
    pub idle_ms: u32,
    /// Of the replicas: milliseconds until what was passed on is checked.
    pub check_ms: u32,
    /// Of the relays: check before passing on.
    pub strict: bool,
    /// Which peers negotiate `concord.v1`, a bit each.
    pub concord: u32,
    /// Microseconds of a message's way, about.
    pub latency_us: u32,
    /// Bytes that a link carries in a millisecond.
    pub bytes_per_ms: u32,
    /// Bytes on their way at most, each direction of a link.
    pub window_bytes: u32,
    /// Microseconds of a flush, about.
    pub flush_us: u32,
    /// Microseconds of a read, about.
    pub read_us: u32,
    /// Microseconds of a materialiser's job, about.
    pub job_us: u32,
    /// Microseconds between an event and its being handled: what comes meanwhile is handled
    /// with it.
    pub lag_us: u32,
    /// Bytes after which a store's batch is applied: small ones tear groups of rows.
    pub batch_bytes: u32,
    /// Jobs in a thousand that find no worker.
    pub job_failures: u16,
    /// Of the replicas: bytes queued for a connection at most.
    #[serde(default = "queue_bytes")]
    pub queue_bytes: u32,
    /// Of the stores: writes in a group at most.
    #[serde(default = "group_writes")]
    pub group_writes: u32,
    /// First lives of every node in which it is an earlier version, which writes meta rows in the
    /// first format.
    #[serde(default)]
    pub first_format_lives: u32,
}

/// Of plans that do not say.
const fn queue_bytes() -> u32 {
    2 * 1024 * 1024
}

/// Of plans that do not say.
const fn group_writes() -> u32 {
    u32::MAX
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// When, in milliseconds.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// A node of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// A relay.
    Relay(u8),
    /// A peer.
    Peer(u8),
}

/// Which ways of a link are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Both.
    Both,
    /// From the peer to the relay.
    Up,
    /// From the relay to the peer.
    Down,
}

impl Way {
    /// Whether what this side sends is meant; the peer is side 0.
    pub const fn includes(self, side: usize) -> bool {
        matches!((self, side), (Self::Both, _) | (Self::Up, 0) | (Self::Down, 1))
    }
}

/// What a crash leaves of writes that were not flushed: batches whole, and none behind one that is
/// lost. That is the contract of the store's backends, which the power-loss tests hold the real ones
/// to: fjall reads its journal up to the first batch that is not whole, and of sled no more than one
/// batch is unsynced at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// The first so many thousandths of the batches that were applied.
    Prefix(u16),
    /// All that was applied.
    Everything,
}

/// What is wrong with a disk for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFault {
    /// Flushes take until the end of the fault.
    Hang,
    /// Writes fail.
    FailWrites,
    /// Flushes fail; what they should have flushed is visible.
    FailFlushes,
    /// Reads fail.
    FailReads,
    /// No room.
    Full,
    /// Room for small writes only.
    Tight,
}

/// What a hostile peer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// Frames that are none.
    Garbage,
    /// Heads that nobody ever wrote, and asks for them.
    LyingHeads,
    /// What others sent, again.
    Replay,
    /// Changes whose dependencies never come.
    Orphans,
    /// Another change with an actor's sequence number.
    Equivocation,
    /// More than anybody needs.
    Flood,
    /// A frame of the hostile collection, damaged or not.
    Mutant,
    /// Its own presence, again and in another order.
    Echo,
    /// More changes than may wait for one that never comes.
    OrphanFlood,
    /// A document chunk that holds no document.
    Upload,
    /// Asks, in version 1, for all that came after an early change.
    Behind,
    /// Other changes with one actor's sequence number, without reading what is said to them.
    DeafLiar,
    /// A change that keeps every rule and that cannot be applied.
    Poison,
    /// A change that builds on such a one.
    OnPoison,
}

/// How bytes of a stranger come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wrapping {
    /// As a frame.
    Frame,
    /// As a sync message, in a frame that is well formed.
    Sync,
    /// As a chunk in a sync message that is well formed.
    Chunk,
}

/// Bytes, in hexadecimal digits where they are written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hex(pub bytes::Bytes);

impl From<Hex> for String {
    fn from(Hex(bytes): Hex) -> Self {
        use std::fmt::Write as _;
        bytes.iter().fold(Self::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl TryFrom<String> for Hex {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let wrong = "not pairs of hexadecimal digits";
        let byte = |pair: &[u8]| match pair {
            [_, _] => {
                std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
            }
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.map(|bytes| Self(bytes.into())).ok_or(wrong)
    }
}

/// What a user does to a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edit {
    /// Types so many characters, a change each.
    Type(u8),
    /// Deletes so many characters.
    Erase(u8),
    /// Writes a field of a map.
    Put,
    /// Removes a field.
    Remove,
    /// Writes a removed field again.
    Restore,
    /// Adds to a counter.
    Count,
    /// Inserts into a list.
    Insert,
    /// Removes from a list.
    Take,
    /// Writes a field that others write too: a conflict.
    Disagree,
    /// Puts in so many KiB at once.
    Paste(u8),
}

/// Something that happens to a world.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum What {
    /// A user writes.
    Edit {
        /// Which user.
        peer: u8,
        /// In which document.
        document: u8,
        /// What.
        edit: Edit,
    },
    /// A user opens a document.
    Open {
        /// Which user.
        peer: u8,
        /// Which document.
        document: u8,
    },
    /// A user closes a document.
    Shut {
        /// Which user.
        peer: u8,
        /// Which document.
        document: u8,
    },
    /// A user shows where they are.
    Broadcast {
        /// Which user.
        peer: u8,
        /// In which document.
        document: u8,
    },
    /// The connections between them end.
    Cut {
        /// The peer.
        peer: u8,
        /// The relay.
        relay: u8,
        /// Nobody is told: both find out by silence.
        silent: bool,
    },
    /// Nothing gets through for a while.
    Partition {
        /// The peer.
        peer: u8,
        /// The relay.
        relay: u8,
        /// Which way.
        way: Way,
        /// Milliseconds.
        for_ms: u32,
    },
    /// A node does not read its sockets for a while.
    Stall {
        /// Which.
        node: Name,
        /// Milliseconds.
        for_ms: u32,
    },
    /// A node does nothing for a while.
    Pause {
        /// Which.
        node: Name,
        /// Milliseconds.
        for_ms: u32,
    },
    /// A node loses its power.
    Crash {
        /// Which.
        node: Name,
        /// What its disk keeps.
        keep: Keep,
        /// Milliseconds until it starts again.
        down_ms: u32,
    },
    /// A relay is shut down in order and started again.
    Drain {
        /// Which.
        relay: u8,
        /// Milliseconds until it starts again.
        down_ms: u32,
    },
    /// A disk fails.
    Disk {
        /// Whose.
        node: Name,
        /// How.
        fault: DiskFault,
        /// Milliseconds.
        for_ms: u32,
    },
    /// One bit of one stored value flips.
    Rot {
        /// On whose disk.
        node: Name,
        /// Chooses the value.
        choice: u64,
    },
    /// A clock jumps.
    Clock {
        /// Whose.
        node: Name,
        /// Milliseconds, forward or back.
        by_ms: i64,
    },
    /// A stranger does harm.
    Attack {
        /// To which relay.
        relay: u8,
        /// To which document.
        document: u8,
        /// How.
        attack: Attack,
        /// Chooses the bytes.
        choice: u64,
    },
    /// A stranger sends these bytes.
    Bytes {
        /// To which relay.
        relay: u8,
        /// About which document.
        document: u8,
        /// As what.
        wrapping: Wrapping,
        /// Which.
        bytes: Hex,
    },
    /// A user is away: the peer loses its network for hours or days.
    Away {
        /// Which user.
        peer: u8,
        /// Milliseconds.
        for_ms: u64,
    },
}

/// What an action names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Names {
    /// A peer.
    pub peer: Option<u8>,
    /// A relay.
    pub relay: Option<u8>,
    /// A document.
    pub document: Option<u8>,
}

impl What {
    /// The nodes and the document that it names.
    pub fn names(&self) -> Names {
        let mut copy = self.clone();
        let (peer, relay, document) = copy.names_mut();
        Names { peer: peer.copied(), relay: relay.copied(), document: document.copied() }
    }

    /// The same, to give them other numbers: peer, relay, document.
    pub const fn names_mut(&mut self) -> (Option<&mut u8>, Option<&mut u8>, Option<&mut u8>) {
        match self {
            Self::Edit { peer, document, .. }
            | Self::Open { peer, document }
            | Self::Shut { peer, document }
            | Self::Broadcast { peer, document } => (Some(peer), None, Some(document)),
            Self::Cut { peer, relay, .. } | Self::Partition { peer, relay, .. } => {
                (Some(peer), Some(relay), None)
            }
            Self::Drain { relay, .. } => (None, Some(relay), None),
            Self::Attack { relay, document, .. } | Self::Bytes { relay, document, .. } => {
                (None, Some(relay), Some(document))
            }
            Self::Away { peer, .. } => (Some(peer), None, None),
            Self::Stall { node, .. }
            | Self::Pause { node, .. }
            | Self::Crash { node, .. }
            | Self::Disk { node, .. }
            | Self::Rot { node, .. }
            | Self::Clock { node, .. } => match node {
                Name::Peer(peer) => (Some(peer), None, None),
                Name::Relay(relay) => (None, Some(relay), None),
            },
        }
    }
}
