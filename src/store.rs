//! Chunk storage: rows of bytes by tenant, document, kind and id; durable when a write returns.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use concord_protocol::{DocumentId, StorageId};

use crate::replica::{RowKey, RowWrite, StoredDocument};

/// Whose document. Accounts will bring more; without them everything is in `default`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(Arc<str>);

impl Default for Tenant {
    fn default() -> Self {
        Self("default".into())
    }
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A document of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentKey {
    /// Whose.
    pub tenant: Tenant,
    /// Which.
    pub document: DocumentId,
}

/// Why a store did not do what it was asked. (Variants to be widened by the stores.)
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A write may or may not be on disk; nothing is written any more. Restart to recover.
    #[error(
        "the store stopped after a failed write: {0}. Nothing after that was acknowledged; check the disk, then restart"
    )]
    Poisoned(String),
}

/// A future that owns all it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Storage for chunks. Knows rows, not Automerge.
///
/// Writes are taken in the order of the calls, each at the time of the call, not at the first
/// poll; the future completes when the write is on disk (fsynced). A crash keeps a prefix of the
/// writes, each row of it whole.
pub trait Store: Send + Sync + 'static {
    /// The id of this store, made when it was created.
    fn storage_id(&self) -> StorageId;

    /// Meta, index roots and changes of a document; an unknown document is empty.
    fn load(&self, key: DocumentKey) -> BoxFuture<Result<StoredDocument, StoreError>>;

    /// Rows in the order asked for. A row that fails its checksum is an error.
    fn read(
        &self,
        key: DocumentKey,
        rows: Vec<RowKey>,
    ) -> BoxFuture<Result<Vec<Option<Bytes>>, StoreError>>;

    /// Writes rows, in order.
    fn write(&self, key: DocumentKey, writes: Vec<RowWrite>) -> BoxFuture<Result<(), StoreError>>;

    /// Documents of a tenant in key order, after `after`, at most `limit`.
    fn documents(
        &self,
        tenant: Tenant,
        after: Option<DocumentId>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<DocumentId>, StoreError>>;

    /// Ends the writer after what it was given, and gives the directory free.
    fn close(&self) -> BoxFuture<Result<(), StoreError>>;
}
