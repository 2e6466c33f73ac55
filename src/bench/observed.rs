//! A store that shows what it is given to whoever measures.

use std::sync::Arc;

use bytes::Bytes;
use concord_protocol::{DocumentId, StorageId};

use crate::{
    replica::{RowKey, RowWrite, StoredDocument},
    store::{BoxFuture, DocumentKey, Store, StoreError, StoreStats, Tenant},
};

/// Another store, each write of which is shown to a function at the time of its call.
pub(super) struct Observed<F> {
    inner: Arc<dyn Store>,
    see: F,
}

impl<F: Fn(&DocumentKey, &[RowWrite]) + Send + Sync + 'static> Observed<F> {
    pub(super) fn new(inner: Arc<dyn Store>, see: F) -> Self {
        Self { inner, see }
    }
}

impl<F: Fn(&DocumentKey, &[RowWrite]) + Send + Sync + 'static> Store for Observed<F> {
    fn storage_id(&self) -> StorageId {
        self.inner.storage_id()
    }

    fn load(&self, key: DocumentKey) -> BoxFuture<Result<StoredDocument, StoreError>> {
        self.inner.load(key)
    }

    fn read(
        &self,
        key: DocumentKey,
        rows: Vec<RowKey>,
    ) -> BoxFuture<Result<Vec<Option<Bytes>>, StoreError>> {
        self.inner.read(key, rows)
    }

    fn write(&self, key: DocumentKey, writes: Vec<RowWrite>) -> BoxFuture<Result<(), StoreError>> {
        (self.see)(&key, &writes);
        self.inner.write(key, writes)
    }

    fn hold(&self, is_held: bool) {
        self.inner.hold(is_held);
    }

    fn documents(
        &self,
        tenant: Tenant,
        after: Option<DocumentId>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<DocumentId>, StoreError>> {
        self.inner.documents(tenant, after, limit)
    }

    fn close(&self) -> BoxFuture<Result<(), StoreError>> {
        self.inner.close()
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }
}
