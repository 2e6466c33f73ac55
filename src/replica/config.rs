//! What a replica is told when it starts.

use concord_protocol::{ChangeHash, Limits, PeerId, PeerMetadata};

/// Milliseconds without an event after which a document leaves memory.
pub const IDLE_MS: u64 = 60_000;
/// Changes after a snapshot that call for a new one: reading 500 small rows takes about as long
/// as reading the snapshot of a middling document.
pub const COMPACT_CHANGES: usize = 500;
/// Bytes of changes after a snapshot that call for a new one, unless the snapshot is larger.
pub const COMPACT_BYTES: usize = 256 * 1024;
/// Rows of changes that go at once when a snapshot covers them: some 20 ms of work for a store.
pub const REMOVE_ROWS: usize = 512;
/// Milliseconds without a change after which the changes since the last check are given to a
/// materialiser.
pub const CHECK_MS: u64 = 2_000;
/// Jobs of background compaction at once, a replica.
pub const JOBS_MAX: usize = 2;
/// Milliseconds that a reader may leave its queue full.
pub const STALLED_MS: u64 = 30_000;
/// Milliseconds that an asker waits while somebody is still sending the document.
pub const ARRIVAL_MS: u64 = 5_000;

/// Milliseconds after which somebody who shows nothing of themselves in a document is not there:
/// what clients of automerge-repo wait.
pub const PRESENT_MS: u64 = 45_000;

/// Milliseconds that a peer is asked to wait before it reconnects to a relay that goes down.
pub const GO_AWAY_RETRY_MS: u32 = 1_000;

/// Configuration of a [`super::Replica`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Our name in this run.
    pub us: PeerId,
    /// What we say of ourselves.
    pub metadata: PeerMetadata,
    /// Caps on what comes from outside.
    pub limits: Limits,
    /// See [`IDLE_MS`].
    pub idle_ms: u64,
    /// See [`COMPACT_CHANGES`].
    pub compact_changes: usize,
    /// See [`COMPACT_BYTES`].
    pub compact_bytes: usize,
    /// See [`REMOVE_ROWS`]; one at least.
    pub remove_rows: usize,
    /// See [`CHECK_MS`].
    pub check_ms: u64,
    /// See [`JOBS_MAX`].
    pub jobs: usize,
    /// See [`STALLED_MS`].
    pub stalled_ms: u64,
    /// See [`ARRIVAL_MS`].
    pub arrival_ms: u64,
    /// Materialise every change before it is stored and passed on.
    pub strict: bool,
    /// Changes that documents begin with whose type requires a lease: while a session holds it, no
    /// other may write.
    pub leased_types: Vec<ChangeHash>,
}

impl Config {
    /// The defaults, for a replica of this name.
    pub fn new(us: PeerId, metadata: PeerMetadata) -> Self {
        Self {
            us,
            metadata,
            limits: Limits::default(),
            idle_ms: IDLE_MS,
            compact_changes: COMPACT_CHANGES,
            compact_bytes: COMPACT_BYTES,
            remove_rows: REMOVE_ROWS,
            check_ms: CHECK_MS,
            jobs: JOBS_MAX,
            stalled_ms: STALLED_MS,
            arrival_ms: ARRIVAL_MS,
            strict: false,
            leased_types: Vec::new(),
        }
    }
}
