//! Chunk storage: rows of bytes by tenant, document, kind and id; durable when a write returns.

use std::{fmt, future::Future, path::Path, pin::Pin, sync::Arc};

use bytes::Bytes;
use concord_protocol::{DocumentId, StorageId};

use crate::replica::{RowKey, RowWrite, StoredDocument};

mod backend;
mod directory;
mod embedded;
mod engine;
mod error;
mod fjall;
mod key;
mod memory;
mod plan;
mod queue;
mod reads;
mod rows;
mod sled;
mod stats;
mod value;

pub use self::{
    directory::FORMAT,
    engine::{Engine, Options},
    error::StoreError,
    memory::MemoryFaults,
    stats::{CorruptRow, StoreStats},
};

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

impl Tenant {
    /// Nobody: what a program keeps for itself, which is no document and is not listed with them.
    /// No account has this name.
    fn nobody() -> Self {
        Self("\0".into())
    }

    /// As [`Tenant::nobody`]; under each document's name is what a peer keeps of its place in the
    /// outbox.
    pub(crate) fn outbox() -> Self {
        Self("\0outbox".into())
    }

    /// As [`Tenant::nobody`]; under the name of each attachment is what is known of it.
    pub(crate) fn blobs() -> Self {
        Self("\0blobs".into())
    }

    /// As [`Tenant::nobody`]; the pieces of attachments.
    pub(crate) fn pieces() -> Self {
        Self("\0pieces".into())
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

impl DocumentKey {
    /// Where a peer keeps what the outbox says of a document; without one, that there is an outbox.
    pub fn outbox(document: Option<DocumentId>) -> Self {
        match document {
            Some(document) => Self { tenant: Tenant::outbox(), document },
            None => Self { tenant: Tenant::nobody(), document: DocumentId::from_bytes(b"outbox") },
        }
    }

    /// Where a peer keeps the schema that a relay told of.
    pub(crate) fn schema() -> Self {
        Self { tenant: Tenant::nobody(), document: DocumentId::from_bytes(b"schema") }
    }

    /// Where a relay keeps how often it was started.
    pub(crate) fn starts() -> Self {
        Self { tenant: Tenant::nobody(), document: DocumentId::from_bytes(b"starts") }
    }

    /// Where a peer keeps which collections it has.
    pub(crate) fn collections() -> Self {
        Self { tenant: Tenant::nobody(), document: DocumentId::from_bytes(b"collections") }
    }

    /// Where a relay keeps its catalogue.
    pub(crate) fn catalogue() -> Self {
        Self { tenant: Tenant::nobody(), document: DocumentId::from_bytes(b"catalogue") }
    }

    /// Where a peer keeps the index of its entities.
    pub(crate) fn index() -> Self {
        Self { tenant: Tenant::nobody(), document: DocumentId::from_bytes(b"index") }
    }
}

/// A future that owns all it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Storage for chunks. Knows rows, not Automerge.
///
/// Writes are taken in the order of the calls, each at the time of the call, not at the first
/// poll; the future completes when the write is on disk (fsynced). A crash keeps a prefix of the
/// writes, each row of it whole. A `load` or `read` waits for the writes of the same document
/// that were called before it, so what it gives of them is on disk.
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

    /// Whether the writes that follow are to wait until somebody who held them lets them go, so that
    /// they are flushed together: only while more are given, which takes no time. Each call with
    /// `true` is followed by one with `false`. A store may take no notice of it.
    fn hold(&self, is_held: bool) {
        let _ = is_held;
    }

    /// Documents of a tenant in key order, after `after`, at most `limit`.
    fn documents(
        &self,
        tenant: Tenant,
        after: Option<DocumentId>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<DocumentId>, StoreError>>;

    /// Ends the writer after what it was given, and gives the directory free.
    fn close(&self) -> BoxFuture<Result<(), StoreError>>;

    /// What it did since it was opened, and which rows it found corrupt.
    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }
}

/// Opens the store in a directory, or makes one where there is none. Blocks: a large sled store
/// takes about a second.
///
/// # Errors
/// [`StoreError`] for a directory that another process has, that a newer version or another
/// engine wrote, that is not ours, or whose data vanished; and for anything the disk says.
pub fn open(
    directory: &Path,
    engine: Engine,
    options: &Options,
) -> Result<Arc<dyn Store>, StoreError> {
    engine::open(directory, engine, options)
}

/// A store that keeps its rows in memory and answers at once. Nothing outlives it.
///
/// # Errors
/// [`StoreError::Io`] if the system has no random bytes for its id.
pub fn memory() -> Result<Arc<dyn Store>, StoreError> {
    Ok(memory_with_faults(directory::new_storage_id(Path::new("memory"))?).0)
}

/// A store over an engine of somebody else's, whose writes happen when it is told: for
/// simulations, where the engine is a disk that fails on purpose.
#[cfg(feature = "simulation")]
pub mod simulation {
    use std::sync::Arc;

    use concord_protocol::StorageId;

    pub use super::backend::{Backend, BackendError, Batch, Visit};
    use super::{Options, Store, embedded::Embedded};

    /// What a store's writer thread does elsewhere.
    #[derive(Clone)]
    pub struct Committer(Arc<Embedded>);

    impl std::fmt::Debug for Committer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Committer").finish_non_exhaustive()
        }
    }

    impl Committer {
        /// Writes and flushes what waits, up to so many writes, as one group, and answers it.
        pub fn commit(&self, writes_max: usize) {
            self.0.commit_waiting(writes_max);
        }
    }

    /// Opens it. Reads are done in the call that polls them, outside of any runtime.
    pub fn open(backend: Box<dyn Backend>, id: StorageId) -> (Arc<dyn Store>, Committer) {
        let store = Arc::new(Embedded::stepped(backend, id, &Options::default()));
        (Arc::clone(&store) as Arc<dyn Store>, Committer(store))
    }
}

/// A store in memory that fails, forgets and rots on demand: for tests of what uses a store.
pub fn memory_with_faults(id: StorageId) -> (Arc<dyn Store>, MemoryFaults) {
    memory::store(id)
}
