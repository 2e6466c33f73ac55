//! The Automerge sync message, versions 1 (`0x42`) and 2 (`0x43`), read and written without
//! automerge: bounded, total, and without copying the changes.
//!
//! Source of the format: automerge 0.12, `rust/src/sync.rs` and `sync/bloom.rs`.

use bytes::Bytes;

use crate::{ChangeHash, Limits};

/// Which of the two forms a message has: they differ in how `changes` is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncVersion {
    /// Each element of `changes` is one change chunk.
    V1,
    /// The elements of `changes`, joined, are a run of chunks: a document, changes, or both.
    V2,
}

/// The flags section at the end. Its presence alone says that the sender reads version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncFlags {
    /// Forget what you think you sent me.
    pub reset: bool,
    /// The sender takes no changes.
    pub read_only: bool,
    /// The sender understands `reset`.
    pub supports_reset: bool,
}

/// What the sender holds: everything up to `last_sync`, and what the filter says beyond it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Have {
    /// Heads that both sides had at some time.
    pub last_sync: Vec<ChangeHash>,
    /// The changes after those.
    pub bloom: Bloom,
}

/// A Bloom filter over change hashes, with parameters that were checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bloom {
    entries: u32,
    bits_per_entry: u32,
    probes: u32,
    bits: Bytes,
}

/// One message of the sync protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncMessage {
    /// How to read `changes`.
    pub version: SyncVersion,
    /// The sender's heads, sorted.
    pub heads: Vec<ChangeHash>,
    /// Changes it asks for by name, sorted.
    pub need: Vec<ChangeHash>,
    /// What it holds. Empty: it asks for `need` only.
    pub have: Vec<Have>,
    /// Chunks, as [`SyncVersion`] says.
    pub changes: Vec<Bytes>,
    /// Absent from peers that only know version 1.
    pub flags: Option<SyncFlags>,
}

impl SyncMessage {
    /// Reads one message. Trailing bytes after the flags are ignored, as automerge does.
    ///
    /// # Errors
    /// [`SyncError`] when it is not a sync message or breaks a limit; nothing is allocated that
    /// the bytes do not pay for.
    pub fn decode(data: &Bytes, limits: &Limits) -> Result<Self, SyncError> {
        let _ = (data, limits);
        unimplemented!()
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        unimplemented!()
    }
}

impl Bloom {
    /// A filter of these hashes, with automerge's parameters (10 bits an entry, 7 probes).
    pub fn from_hashes<'a>(hashes: impl ExactSizeIterator<Item = &'a ChangeHash>) -> Self {
        let _ = hashes;
        unimplemented!()
    }

    /// Whether the hash is in it, with about one false yes in a hundred.
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        let _ = hash;
        unimplemented!()
    }

    /// Whether nothing was put in.
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
}

/// Why bytes are not an acceptable sync message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// It ended too early.
    #[error("the sync message is cut off")]
    Truncated,
}
