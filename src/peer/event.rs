//! What those who watch a document are told.

use automerge::Change;
use bytes::Bytes;
use concord_protocol::{ActorId, ChangeHash, PeerId, RefuseCode};

/// Something happened to a document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DocumentEvent {
    /// Its content changed.
    Changed {
        /// The changes, in causal order.
        changes: Vec<ChangeInfo>,
        /// Whether this process made them.
        local: bool,
    },
    /// These heads are on our own disk.
    Durable {
        /// The heads.
        heads: Vec<ChangeHash>,
    },
    /// A relay has these heads on its disk.
    RelayHas {
        /// The heads.
        heads: Vec<ChangeHash>,
    },
    /// Somebody's passing message: presence, a cursor.
    Ephemeral {
        /// Who sent it.
        sender: PeerId,
        /// The application's bytes.
        data: Bytes,
    },
    /// The document cannot be opened any more; what is stored is kept.
    Quarantined {
        /// Why.
        reason: String,
    },
    /// A part of what was stored of the document is damaged. What is left is shown; the rest, and
    /// with it what was made here and nobody else has, is gone from here until somebody brings it.
    Damaged {
        /// What is damaged.
        reason: String,
    },
    /// A change of somebody breaks the document. It, and what builds on it, is left out from now
    /// on, and kept aside; the rest of the document goes on.
    Withheld {
        /// Which change, and how it breaks the document.
        reason: String,
    },
    /// A change made here was not accepted.
    Refused {
        /// Which.
        hash: ChangeHash,
        /// The kind of reason.
        code: RefuseCode,
        /// In words.
        reason: String,
    },
    /// A change that a relay had refused was taken out of the document, by somebody here who
    /// discarded it or made another in its place. What was made after it was written again.
    RolledBack {
        /// Which.
        hash: ChangeHash,
        /// Why it was refused.
        code: RefuseCode,
        /// In words.
        reason: String,
        /// How many later changes were written again.
        rewritten: usize,
        /// How many of their operations are gone with it, for they were about what it had made.
        lost: usize,
    },
    /// A write failed: changes may not be on disk and no more are taken.
    Failed {
        /// Why.
        reason: String,
    },
    /// The watcher was too slow and missed this many events: read the document anew.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// One change, as far as people care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeInfo {
    /// Its name.
    pub hash: ChangeHash,
    /// Its writer.
    pub actor: ActorId,
    /// When, seconds since 1970 by its writer's clock; 0 where the writer gave none.
    pub time: i64,
    /// What its writer said of it.
    pub message: Option<String>,
}

impl From<&Change> for ChangeInfo {
    fn from(change: &Change) -> Self {
        Self {
            hash: ChangeHash(change.hash().0),
            actor: ActorId::from(change.actor_id().to_bytes()),
            time: change.timestamp(),
            message: change.message().map(str::to_owned),
        }
    }
}
