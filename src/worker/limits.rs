//! What a job may cost.

use std::time::Duration;

use concord_protocol::{Limits, limits::DOCUMENT_BYTES_MAX};

const MIB: u64 = 1024 * 1024;

/// Address space of a worker process, in bytes. The 256 MiB stack counts in full, though only
/// what is touched of it is ever in memory.
pub const MEMORY_BYTES_MAX: u64 = 2048 * MIB;
/// Stack of the thread that calls automerge, in bytes: recursion in automerge follows the
/// nesting that a peer wrote, and a stack overflow cannot be caught.
pub const STACK_BYTES: u64 = 256 * MIB;
/// Milliseconds for what a peer sent, not counting the time that our own document needs.
pub const INCOMING_MS_MAX: u64 = 2_000;
/// Milliseconds more for each KiB that a peer sent. The 260,000 changes of the automerge-paper
/// trace are 126 KiB and took 8 s on a busy machine; what hangs automerge is of a few KiB at most.
pub const INCOMING_MS_PER_KIB: u64 = 75;
/// Milliseconds for our own document: a compaction of a million changes takes seconds.
pub const OWN_MS_MAX: u64 = 60_000;
/// Bytes that an idle worker may keep in memory; one that holds more is replaced.
pub const RESIDENT_BYTES_MAX: u64 = 64 * MIB;
/// Jobs that one process does before it is replaced: a bound on whatever leaks.
pub const JOBS_PER_PROCESS_MAX: u32 = 10_000;
/// Worker processes of a pool.
pub const WORKERS: usize = 2;
/// Jobs that wait for a worker.
pub const QUEUE_JOBS_MAX: usize = 1_024;
/// Milliseconds after which idle workers are stopped, all but one. A start takes some 10 ms.
pub const IDLE_MS: u64 = 5_000;
/// Milliseconds that a new process has to answer its first message, on a busy machine.
pub const START_MS_MAX: u64 = 10_000;

/// What a job may cost, and how many are done at once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerLimits {
    /// What a change of a peer must keep to, also one that comes inside a document.
    pub changes: Limits,
    /// See [`MEMORY_BYTES_MAX`]. Only processes are held to it.
    pub memory_bytes: u64,
    /// See [`STACK_BYTES`].
    pub stack_bytes: u64,
    /// See [`INCOMING_MS_MAX`]. Only processes are held to it.
    pub incoming_ms: u64,
    /// See [`INCOMING_MS_PER_KIB`]; never more than `own_ms` in all.
    pub incoming_ms_per_kib: u64,
    /// See [`OWN_MS_MAX`]. Only processes are held to it.
    pub own_ms: u64,
    /// See [`RESIDENT_BYTES_MAX`].
    pub resident_bytes: u64,
    /// See [`JOBS_PER_PROCESS_MAX`].
    pub jobs_per_process: u32,
    /// See [`WORKERS`]; at least one.
    pub workers: usize,
    /// See [`QUEUE_JOBS_MAX`].
    pub queue_jobs: usize,
    /// See [`IDLE_MS`].
    pub idle_ms: u64,
}

impl Default for WorkerLimits {
    fn default() -> Self {
        Self {
            changes: Limits::default(),
            memory_bytes: MEMORY_BYTES_MAX,
            stack_bytes: STACK_BYTES,
            incoming_ms: INCOMING_MS_MAX,
            incoming_ms_per_kib: INCOMING_MS_PER_KIB,
            own_ms: OWN_MS_MAX,
            resident_bytes: RESIDENT_BYTES_MAX,
            jobs_per_process: JOBS_PER_PROCESS_MAX,
            workers: WORKERS,
            queue_jobs: QUEUE_JOBS_MAX,
            idle_ms: IDLE_MS,
        }
    }
}

impl WorkerLimits {
    /// How long a job may take for this many bytes of a peer.
    pub(super) fn incoming_max(&self, bytes: usize) -> Duration {
        let more = (bytes as u64 / 1024).saturating_mul(self.incoming_ms_per_kib);
        let longest = self.own_ms.max(self.incoming_ms);
        Duration::from_millis(self.incoming_ms.saturating_add(more).min(longest))
    }

    /// What our own changes must keep to. They were let in once, perhaps under other limits, and
    /// must stay readable: only what no format can hold is refused.
    pub(super) fn own_changes(&self) -> Limits {
        let mut limits = self.changes.clone();
        limits.change_bytes = limits.change_bytes.max(DOCUMENT_BYTES_MAX);
        limits.change_inflated_bytes = limits.change_inflated_bytes.max(DOCUMENT_BYTES_MAX);
        limits.change_ops = limits.change_ops.max(concord_protocol::limits::COUNTER_MAX - 1);
        limits.change_ops_total = limits.change_ops.max(limits.change_ops_total);
        limits.change_deps = usize::MAX;
        limits.change_actors = usize::MAX;
        limits.change_columns = usize::MAX;
        limits.change_message_bytes = limits.change_message_bytes.max(DOCUMENT_BYTES_MAX);
        limits.document_bytes = limits.document_bytes.max(DOCUMENT_BYTES_MAX);
        limits
    }
}
