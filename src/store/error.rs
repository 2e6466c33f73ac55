//! Why a store did not do what it was asked.

use std::{fmt::Write as _, path::PathBuf};

use super::{DocumentKey, Engine};
use crate::replica::{Kind, RowKey, StorageFailure};

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Writes come faster than the disk takes them. This one was not taken: nothing of it is
    /// written; try again later.
    #[error(
        "{queued} bytes of writes wait for the disk and {limit} is the most that may; this write was not taken, try again later"
    )]
    Busy {
        /// Bytes that wait already.
        queued: usize,
        /// The most that may.
        limit: usize,
    },
    /// The store was closed before.
    #[error("the store is closed")]
    Closed,
    /// A row is not what was written. It stays where it is.
    #[error("{} of document {} is corrupt: {reason}. It is kept as it is; check the disk, and restore the row from a peer or a backup", name(row), document.document)]
    Corrupt {
        /// Of which document.
        document: DocumentKey,
        /// Which row.
        row: RowKey,
        /// What is wrong with it.
        reason: String,
    },
    /// Too little room on the disk. Nothing of this write was written, and the store goes on:
    /// make room, then try again.
    #[error(
        "{free} bytes are free where the store is and {reserve} must stay free; nothing was written. Make room, then try again"
    )]
    Full {
        /// Bytes that are free.
        free: u64,
        /// Bytes that must stay free.
        reserve: u64,
    },
    /// The operating system or the engine failed.
    #[error("could not {what} ({}): {reason}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What came of it.
        reason: String,
    },
    /// Another process has the directory.
    #[error("another process has the store in {}; stop it, or use another directory", directory.display())]
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// A later version of this program wrote it.
    #[error("the store in {} has format {found}, but this version reads up to {known}: use a newer concord", directory.display())]
    Newer {
        /// The directory.
        directory: PathBuf,
        /// What it has.
        found: u32,
        /// What we can read.
        known: u32,
    },
    /// A directory with something in it that is no store of ours.
    #[error("{} is not a concord store: {reason}. Use another directory", directory.display())]
    NotOurs {
        /// The directory.
        directory: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The store was made with the other engine.
    #[error("the store in {} was made with {found}, not {asked}: use --store {found}, or another directory", directory.display())]
    OtherEngine {
        /// The directory.
        directory: PathBuf,
        /// Which engine made it.
        found: Engine,
        /// Which was asked for.
        asked: Engine,
    },
    /// A write may or may not be on disk; nothing is written any more. Restart to recover.
    #[error(
        "the store stopped after a failed write: {0}. Nothing after that was acknowledged; check the disk, then restart"
    )]
    Poisoned(String),
    /// The directory says that there is a store, but its data is gone or is of another store.
    #[error("the data of the store in {} is gone: {reason}. Nothing is served, so that nobody takes it for empty; restore a backup, or use another directory", directory.display())]
    Vanished {
        /// The directory.
        directory: PathBuf,
        /// What is missing.
        reason: String,
    },
}

impl From<StoreError> for StorageFailure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { .. } => Self::Damaged(error.to_string()),
            _ => Self::Passing(error.to_string()),
        }
    }
}

/// A row in words: its kind and the start of its id.
pub(super) fn name(row: &RowKey) -> String {
    let mut name = match row.kind {
        Kind::Meta => return "the meta row".to_owned(),
        Kind::IndexRoot => "index root ".to_owned(),
        Kind::IndexPage => format!("index page {} of ", row.part),
        Kind::Snapshot => "snapshot ".to_owned(),
        Kind::Change => "change ".to_owned(),
        Kind::Quarantine => "quarantined row ".to_owned(),
    };
    for byte in &row.id[..8] {
        // Writing to a String does not fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}
