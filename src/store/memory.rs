//! Rows in memory, and the faults that tests need.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use concord_protocol::StorageId;

use super::{
    DocumentKey, Store,
    backend::{Backend, BackendError, Batch, Visit},
    embedded::Embedded,
    engine, key,
};
use crate::replica::RowKey;

type Rows = BTreeMap<Vec<u8>, Bytes>;

#[derive(Default)]
struct Inner {
    visible: Rows,
    /// What a crash keeps.
    durable: Rows,
    unflushed: Vec<Batch>,
    flushes: u64,
    fail_writes: bool,
    fail_flushes: bool,
    free_bytes: Option<u64>,
}

/// The rows. Clones share them.
#[derive(Clone, Default)]
pub(super) struct MemoryBackend(Arc<Mutex<Inner>>);

/// Makes a store in memory fail, forget and rot.
#[derive(Clone)]
pub struct MemoryFaults {
    backend: MemoryBackend,
    id: StorageId,
}

impl MemoryFaults {
    /// From now on writes fail (or no longer).
    pub fn fail_writes(&self, fail: bool) {
        self.backend.lock().fail_writes = fail;
    }

    /// From now on flushes fail (or no longer), after what they should flush is visible.
    pub fn fail_flushes(&self, fail: bool) {
        self.backend.lock().fail_flushes = fail;
    }

    /// From now on so many bytes are free on the disk that is not there.
    pub fn set_free_bytes(&self, free: Option<u64>) {
        self.backend.lock().free_bytes = free;
    }

    /// Flips one bit of the last byte of each piece of a row. Says whether there was one.
    pub fn corrupt(&self, document: &DocumentKey, row: &RowKey) -> bool {
        let prefix = key::row_prefix(&key::document_prefix(document), row);
        let mut found = false;
        let mut inner = self.backend.lock();
        for (_, value) in inner
            .visible
            .range_mut(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
        {
            let mut bytes = value.to_vec();
            if let Some(last) = bytes.last_mut() {
                *last ^= 1;
                found = true;
            }
            *value = bytes.into();
        }
        found
    }

    /// Removes one piece of a row, as an engine that lost it. Says whether it was there.
    pub fn lose_piece(&self, document: &DocumentKey, row: &RowKey, piece: u32) -> bool {
        let prefix = key::row_prefix(&key::document_prefix(document), row);
        self.backend.lock().visible.remove(&key::piece(&prefix, piece)).is_some()
    }

    /// How many flushes there were.
    pub fn flushes(&self) -> u64 {
        self.backend.lock().flushes
    }

    /// The store as it is after a power loss and a restart: with what was flushed.
    pub fn after_crash(&self) -> (Arc<dyn Store>, Self) {
        let durable = self.backend.lock().durable.clone();
        let inner = Inner { visible: durable.clone(), durable, ..Inner::default() };
        store_of(MemoryBackend(Arc::new(Mutex::new(inner))), self.id.clone())
    }
}

/// A new store in memory.
pub(super) fn store(id: StorageId) -> (Arc<dyn Store>, MemoryFaults) {
    store_of(MemoryBackend::default(), id)
}

fn store_of(backend: MemoryBackend, id: StorageId) -> (Arc<dyn Store>, MemoryFaults) {
    let faults = MemoryFaults { backend: backend.clone(), id: id.clone() };
    let store = Embedded::inline(Box::new(backend), id, &engine::Options::default());
    (Arc::new(store), faults)
}

impl MemoryBackend {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for MemoryBackend {
    fn apply(&self, batch: Batch) -> Result<(), BackendError> {
        let mut inner = self.lock();
        if inner.fail_writes {
            return Err(BackendError::new("write", "told to fail"));
        }
        merge(&mut inner.visible, batch.clone());
        inner.unflushed.push(batch);
        Ok(())
    }

    fn flush(&self) -> Result<(), BackendError> {
        let mut inner = self.lock();
        if inner.fail_flushes {
            return Err(BackendError::new("flush", "told to fail"));
        }
        inner.flushes += 1;
        for batch in std::mem::take(&mut inner.unflushed) {
            merge(&mut inner.durable, batch);
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, BackendError> {
        Ok(self.lock().visible.get(key).cloned())
    }

    fn scan(&self, from: &[u8], prefix: &[u8], visit: Visit<'_>) -> Result<(), BackendError> {
        let inner = self.lock();
        for (key, value) in inner.visible.range(from.to_vec()..) {
            if !key.starts_with(prefix) || visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<Option<u64>> {
        Ok(self.lock().free_bytes)
    }
}

fn merge(rows: &mut Rows, batch: Batch) {
    for (key, value) in batch {
        match value {
            Some(value) => rows.insert(key, value.into()),
            None => rows.remove(&key),
        };
    }
}
