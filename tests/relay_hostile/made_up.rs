//! What hostile ones make up: names and heads that nobody has, and messages that bring chunks.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use concord_protocol::{
    ChangeHash,
    sync::{SyncFlags, SyncMessage, SyncVersion},
};

/// A number that was not given before.
pub(crate) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A head that no change has.
pub(crate) fn made_up_head() -> ChangeHash {
    let mut hash = [3; 32];
    hash[..8].copy_from_slice(&number().to_le_bytes());
    ChangeHash(hash)
}

/// A sync message that brings these, as single changes or as one run.
pub(crate) fn carrying(version: SyncVersion, head: ChangeHash, changes: Vec<Bytes>) -> Bytes {
    let message = SyncMessage {
        version,
        heads: vec![head],
        need: vec![],
        have: vec![],
        changes,
        flags: Some(SyncFlags::default()),
    };
    message.encode()
}
