//! The one place that knows fjall 3.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{
    backend::{Backend, BackendError, Batch, Visit},
    directory,
    engine::Options,
};

/// Rows are written to a table when they take this many bytes in memory. fjall's default is
/// 64 MiB; a relay on a small machine has better uses for that.
const MEMTABLE_BYTES: u64 = 8 << 20;

/// The least that fjall allows for its journal files, which it keeps until tables are written.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// fjall in a directory of its own.
pub(super) struct FjallBackend {
    rows: Keyspace,
    // After the keyspace: the last to go closes the files.
    db: Database,
    path: PathBuf,
    persist: PersistMode,
    after_fsync: Option<fn(&Path)>,
}

impl FjallBackend {
    /// Opens or makes it.
    pub(super) fn open(path: &Path, options: &Options) -> Result<Self, BackendError> {
        let failed = |error| BackendError::new("open fjall", error);
        let db = Database::builder(path)
            .cache_size(options.cache_bytes)
            .worker_threads(1)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .open()
            .map_err(failed)?;
        let rows = db
            .keyspace("rows", || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES))
            .map_err(failed)?;
        let (persist, after_fsync) = if options.unsafe_skip_fsync_for_tests {
            (PersistMode::Buffer, None)
        } else {
            (PersistMode::SyncAll, options.after_fsync_for_tests)
        };
        Ok(Self { rows, db, path: path.into(), persist, after_fsync })
    }
}

impl Backend for FjallBackend {
    fn apply(&self, batch: Batch) -> Result<(), BackendError> {
        let mut changes = self.db.batch();
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(&self.rows, key, value),
                None => changes.remove(&self.rows, key),
            }
        }
        changes.commit().map_err(|error| BackendError::new("write to fjall", error))
    }

    fn flush(&self) -> Result<(), BackendError> {
        self.db
            .persist(self.persist)
            .map_err(|error| BackendError::new("fsync fjall's journal", error))?;
        if let Some(after) = self.after_fsync {
            after(&self.path);
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        match self.rows.get(key) {
            Ok(value) => Ok(value.map(|value| Bytes::copy_from_slice(&value))),
            Err(error) => Err(BackendError::new("read from fjall", error)),
        }
    }

    fn scan(&self, from: &[u8], prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        for item in self.rows.range(from..) {
            let (key, value) =
                item.into_inner().map_err(|error| BackendError::new("read from fjall", error))?;
            if !key.starts_with(prefix) || visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        directory::free_bytes(&self.path).map(Some)
    }
}
