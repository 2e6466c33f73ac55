//! Somebody who writes one key of a document over and over.

use automerge::{ActorId, AutoCommit, ROOT, transaction::Transactable as _};
use bytes::Bytes;
use concord_protocol::ChangeHash;

/// Changes of one actor, one after another: hash and bytes.
pub(crate) struct Writer(pub(crate) AutoCommit);

impl Writer {
    pub(crate) fn new(actor: u8) -> Self {
        Self(AutoCommit::new().with_actor(ActorId::from([actor; 16])))
    }

    pub(crate) fn put(&mut self, value: i64) -> (ChangeHash, Bytes) {
        self.0.put(ROOT, "key", value).unwrap();
        self.0.commit();
        let change = self.0.get_last_local_change().unwrap();
        (ChangeHash(change.hash().0), Bytes::copy_from_slice(change.raw_bytes()))
    }
}
