//! What a store did, and what it found damaged.

use std::{collections::BTreeSet, time::Duration};

use super::{DocumentKey, error};
use crate::replica::RowKey;

/// Corrupt rows that are remembered by name. More are only counted: then the disk is gone.
const CORRUPT_NAMED_MAX: usize = 1_000;

/// A row that was found not to be what was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CorruptRow {
    /// Of which document.
    pub document: DocumentKey,
    /// Which row.
    pub row: RowKey,
    /// What is wrong with it.
    pub reason: String,
}

/// What a store did since it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreStats {
    /// Calls of `write` that are on disk.
    pub writes: u64,
    /// Rows written or removed by them.
    pub rows: u64,
    /// Bytes given to the engine for them, with keys.
    pub bytes: u64,
    /// Flushes; each serves a group of writes.
    pub flushes: u64,
    /// Time spent in flushes, all together.
    pub flush_time: Duration,
    /// The longest flush.
    pub flush_time_max: Duration,
    /// Reads of a corrupt row, repeated ones too.
    pub corrupt_reads: u64,
    /// The rows that were found corrupt, the first 1,000, in key order.
    pub corrupt: Vec<CorruptRow>,
}

/// Counts, and reports each corrupt row once.
#[derive(Default)]
pub(super) struct Recorder {
    stats: StoreStats,
    seen: BTreeSet<CorruptRow>,
}

impl Recorder {
    pub(super) fn flushed(&mut self, writes: u64, rows: u64, bytes: u64, flush: Option<Duration>) {
        self.stats.writes += writes;
        self.stats.rows += rows;
        self.stats.bytes += bytes;
        if let Some(time) = flush {
            self.stats.flushes += 1;
            self.stats.flush_time += time;
            self.stats.flush_time_max = self.stats.flush_time_max.max(time);
        }
    }

    pub(super) fn corrupt(&mut self, found: CorruptRow) {
        self.stats.corrupt_reads += 1;
        if self.seen.len() >= CORRUPT_NAMED_MAX || self.seen.contains(&found) {
            return;
        }
        tracing::warn!(
            tenant = ?found.document.tenant,
            document = %found.document.document,
            row = error::name(&found.row),
            reason = found.reason,
            "store: a row is corrupt; it is kept as it is and not served"
        );
        self.seen.insert(found);
    }

    pub(super) fn stats(&self) -> StoreStats {
        StoreStats { corrupt: self.seen.iter().cloned().collect(), ..self.stats.clone() }
    }
}
