//! What the store needs of an engine: ordered keys, atomic batches, and a flush that is one.

#![allow(unreachable_pub, reason = "simulations bring engines of their own")]

use std::{collections::BTreeMap, fmt, io, ops::ControlFlow};

use bytes::Bytes;

/// Changes that happen together or not at all: the value of each key, or its removal.
pub type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Is shown a key and its value, and says whether to go on.
pub type Visit<'v> = &'v mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// An engine that failed. After a failed write nobody knows what is on disk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not {what}: {reason}")]
pub struct BackendError {
    /// What was tried.
    pub what: &'static str,
    /// What came of it.
    pub reason: String,
}

impl BackendError {
    /// `what` was tried, and failed because of `reason`.
    pub fn new(what: &'static str, reason: impl fmt::Display) -> Self {
        Self { what, reason: format!("{reason}") }
    }
}

/// An engine. Keys are short, values at most 4 KiB and a header.
pub trait Backend: Send + Sync {
    /// Makes changes visible, all or none; a crash keeps a prefix of the batches.
    fn apply(&self, batch: Batch) -> Result<(), BackendError>;

    /// Returns when all that was applied is on disk, fsynced.
    fn flush(&self) -> Result<(), BackendError>;

    /// Bytes after which a batch is applied and [`Backend::settle`] is called, so that a large
    /// snapshot does not stand in memory twice.
    fn batch_bytes_max(&self) -> usize {
        1 << 20
    }

    /// Called between the batches of one flush: an engine that cannot bear much unsynced says so
    /// here.
    fn settle(&self) -> Result<(), BackendError> {
        Ok(())
    }

    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BackendError>;

    /// Visits keys at or after `from` that start with `prefix`, in order, until told to stop.
    fn scan(&self, from: &[u8], prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError>;

    /// Bytes that are free where it writes; `None` where there is no such bound.
    fn free_bytes(&self) -> io::Result<Option<u64>>;
}
