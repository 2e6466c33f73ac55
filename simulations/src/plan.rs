//! What happens in a world that the world does not cause itself, as plain data.
//!
//! A plan is drawn from a seed ([`crate::swarm`]), written to a file, cut down to what a failure
//! needs ([`crate::shrink`]), and read back. Whatever else a world needs (how long a message
//! takes, how long a flush) is a hash of the seed and of the thing's own name, so that an action
//! left out leaves the fate of the rest as it was.

mod what;

use concord_protocol::DocumentId;
use serde::{Deserialize, Serialize};

pub use self::what::{Attack, Edit, Hex, Names, Tenure, What, Wrapping};

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
    /// can converge; the others dial one, or one after the other.
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
    /// production ones; a snapshot is a list of their names.
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
    /// Of the peers: milliseconds that edits rest before they are sent, ten times that at most.
    #[serde(default)]
    pub debounce_ms: u32,
    /// Of the relays: bytes of the largest change that they take; 0: whatever they take otherwise.
    #[serde(default)]
    pub narrow_bytes: u32,
    /// Which peers use any of several relays, one at a time, a bit each; the first never does.
    #[serde(default)]
    pub failover: u32,
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
