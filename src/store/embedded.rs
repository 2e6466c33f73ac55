//! A store over an embedded engine: one writer, and flushes shared by all that wait for one.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytes::Bytes;
use concord_protocol::{DocumentId, StorageId};

use super::{
    BoxFuture, DocumentKey, Store, StoreError, Tenant,
    backend::{Backend, BackendError},
    directory::Directory,
    engine::{Options, panic_text},
    key,
    plan::Plan,
    queue::{Job, Prefix, Queue},
    reads::Reads,
    rows,
    stats::{CorruptRow, Recorder, StoreStats},
};
use crate::replica::{RowKey, RowWrite, StoredDocument};

/// A store over an engine.
///
/// A failed write or flush poisons it: what is on disk is not known, a second fsync may report
/// success for pages that were dropped, so nothing more is written or acknowledged until a
/// restart reads what is really there. Documents of the failed group are no longer served
/// either, because what is visible of them may not be on disk; others are.
pub(super) struct Embedded {
    shared: Arc<Shared>,
    storage_id: StorageId,
    /// None for a store that does its writes in the call.
    writer: Mutex<Option<JoinHandle<()>>>,
    reads: Reads,
    inline: bool,
}

struct Shared {
    /// None when it is closed. Held for reading as long as anyone is at the engine.
    open: RwLock<Option<Open>>,
    queue: Queue,
    /// Held by who writes in the call, so that calls do not overtake each other.
    order: Mutex<()>,
    recorder: Mutex<Recorder>,
    window: Duration,
    reserve_bytes: u64,
    path: PathBuf,
}

/// In this order: the engine closes before the lock goes.
struct Open {
    backend: Box<dyn Backend>,
    _directory: Option<Directory>,
}

impl Embedded {
    /// With a thread that writes.
    pub(super) fn threaded(
        backend: Box<dyn Backend>,
        directory: Option<Directory>,
        storage_id: StorageId,
        options: &Options,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::new(backend, directory, options));
        let writer = thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    while let Some(jobs) = shared.queue.take(shared.window) {
                        shared.commit(jobs);
                    }
                }
            })
            .map_err(|error| StoreError::Io {
                what: "start the store's writer",
                path: shared.path.clone(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            shared,
            storage_id,
            writer: Mutex::new(Some(writer)),
            reads: Reads::default(),
            inline: false,
        })
    }

    /// That writes and reads in the call: for engines that never wait.
    pub(super) fn inline(
        backend: Box<dyn Backend>,
        storage_id: StorageId,
        options: &Options,
    ) -> Self {
        let shared = Arc::new(Shared::new(backend, None, options));
        Self { shared, storage_id, writer: Mutex::new(None), reads: Reads::default(), inline: true }
    }

    /// That writes when [`Self::commit_waiting`] is called.
    #[cfg(feature = "simulation")]
    pub(super) fn stepped(
        backend: Box<dyn Backend>,
        storage_id: StorageId,
        options: &Options,
    ) -> Self {
        let shared = Arc::new(Shared::new(backend, None, options));
        let reads = Reads::default();
        Self { shared, storage_id, writer: Mutex::new(None), reads, inline: false }
    }

    /// What the writer does for one group, of at most so many writes.
    #[cfg(feature = "simulation")]
    pub(super) fn commit_waiting(&self, writes_max: usize) {
        let jobs = self.shared.queue.take_some(writes_max);
        if !jobs.is_empty() {
            self.shared.commit(jobs);
        }
    }

    /// Waits for the writes of a document that were called before, then reads.
    fn read_with<T: Send + 'static>(
        &self,
        key: DocumentKey,
        read: impl FnOnce(&Shared, &dyn Backend, DocumentKey, &[u8]) -> Result<T, StoreError>
        + Send
        + 'static,
    ) -> BoxFuture<Result<T, StoreError>> {
        let prefix = Prefix::from(key::document_prefix(&key));
        let inline = self.inline;
        let before = if inline { None } else { self.shared.queue.before_read(&prefix) };
        let (shared, reads) = (Arc::clone(&self.shared), self.reads.clone());
        Box::pin(async move {
            if let Some(answer) = before {
                answer.await.unwrap_or(Err(StoreError::Closed))?;
            }
            blocking(inline, &reads, move || {
                let _order = inline.then(|| shared.order());
                shared.queue.check_read(&prefix)?;
                shared.with(|backend| read(&shared, backend, key, &prefix))
            })
            .await
        })
    }

    fn join(writer: &mut Option<JoinHandle<()>>) {
        if let Some(writer) = writer.take()
            && writer.join().is_err()
        {
            tracing::error!("store: the writer panicked");
        }
    }

    fn writer(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Embedded {
    fn storage_id(&self) -> StorageId {
        self.storage_id.clone()
    }

    fn load(&self, key: DocumentKey) -> BoxFuture<Result<StoredDocument, StoreError>> {
        self.read_with(key, |shared, backend, key, prefix| {
            let (stored, damage) =
                rows::load(backend, prefix).map_err(|error| shared.io(&error))?;
            for (row, reason) in damage {
                shared.corrupt(&key, row, &reason);
            }
            Ok(stored)
        })
    }

    fn read(
        &self,
        key: DocumentKey,
        wanted: Vec<RowKey>,
    ) -> BoxFuture<Result<Vec<Option<Bytes>>, StoreError>> {
        self.read_with(key, move |shared, backend, key, prefix| {
            let read = |row: &RowKey| match rows::read(backend, prefix, row) {
                Ok(None) => Ok(None),
                Ok(Some(Ok(bytes))) => Ok(Some(bytes)),
                Ok(Some(Err(reason))) => Err(shared.corrupt(&key, *row, &reason)),
                Err(error) => Err(shared.io(&error)),
            };
            wanted.iter().map(read).collect()
        })
    }

    fn write(&self, key: DocumentKey, writes: Vec<RowWrite>) -> BoxFuture<Result<(), StoreError>> {
        let prefix = Prefix::from(key::document_prefix(&key));
        let order = self.inline.then(|| self.shared.order());
        let answer = self.shared.queue.push(prefix, writes);
        if self.inline {
            self.shared.commit(self.shared.queue.take_now());
        }
        drop(order);
        Box::pin(async move { answer?.await.unwrap_or(Err(StoreError::Closed)) })
    }

    fn hold(&self, is_held: bool) {
        self.shared.queue.hold(is_held);
    }

    fn documents(
        &self,
        tenant: Tenant,
        after: Option<DocumentId>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<DocumentId>, StoreError>> {
        let (shared, reads, inline) = (Arc::clone(&self.shared), self.reads.clone(), self.inline);
        let read = move || {
            let after = after.map(|document| {
                key::document_prefix(&DocumentKey { tenant: tenant.clone(), document })
            });
            shared.with(|backend| {
                rows::documents(backend, &tenant, after.as_deref(), limit)
                    .map_err(|error| shared.io(&error))
            })
        };
        Box::pin(async move { blocking(inline, &reads, read).await })
    }

    fn close(&self) -> BoxFuture<Result<(), StoreError>> {
        self.shared.queue.close();
        let mut writer = self.writer().take();
        let (shared, reads, inline) = (Arc::clone(&self.shared), self.reads.clone(), self.inline);
        let shut = move || {
            Self::join(&mut writer);
            shared.shut();
            Ok(())
        };
        Box::pin(async move { blocking(inline, &reads, shut).await })
    }

    fn stats(&self) -> StoreStats {
        self.shared.recorder().stats()
    }
}

impl Drop for Embedded {
    /// Waits for what was given to the writer, so that the directory is free afterwards.
    fn drop(&mut self) {
        self.shared.queue.close();
        Self::join(&mut self.writer());
        self.shared.shut();
    }
}

impl Shared {
    fn new(backend: Box<dyn Backend>, directory: Option<Directory>, options: &Options) -> Self {
        let path = directory.as_ref().map_or_else(|| PathBuf::from("memory"), Directory::data);
        Self {
            open: RwLock::new(Some(Open { backend, _directory: directory })),
            queue: Queue::new(options.queue_bytes_max),
            order: Mutex::default(),
            recorder: Mutex::default(),
            window: options.group_window,
            reserve_bytes: options.reserve_bytes,
            path,
        }
    }

    /// Writes a group and answers it.
    fn commit(&self, jobs: Vec<Job>) {
        // An engine that panicked is as one whose write failed.
        let done = catch_unwind(AssertUnwindSafe(|| {
            self.with(|backend| {
                if let Some(full) = self.full(backend, &jobs) {
                    return Ok(Err(full));
                }
                Ok(Ok(self.write_group(backend, &jobs)))
            })
        }));
        match done {
            Ok(Ok(Ok(Ok(())))) => self.queue.answer(jobs, &Ok(())),
            Ok(Ok(Ok(Err(error)))) => self.poison(jobs, error.to_string()),
            // Nothing was written.
            Ok(Ok(Err(full))) => self.queue.answer(jobs, &Err(full)),
            Ok(Err(closed)) => self.queue.answer(jobs, &Err(closed)),
            Err(panic) => self.poison(jobs, format!("it panicked: {}", panic_text(&*panic))),
        }
    }

    fn write_group(&self, backend: &dyn Backend, jobs: &[Job]) -> Result<(), BackendError> {
        let mut plan = Plan::new(backend);
        let mut writes = 0;
        for job in jobs {
            for write in &job.writes {
                plan.write(&job.document, write)?;
            }
            writes += u64::from(!job.writes.is_empty());
        }
        let mut flush = None;
        if plan.finish()? && !mutant!(SkipFlush) {
            let start = Instant::now();
            let flushed = backend.flush();
            if !mutant!(AckFailedFlush) {
                flushed?;
            }
            flush = Some(start.elapsed());
        }
        self.recorder().flushed(writes, plan.rows, plan.bytes, flush);
        Ok(())
    }

    fn full(&self, backend: &dyn Backend, jobs: &[Job]) -> Option<StoreError> {
        if jobs.iter().all(|job| job.writes.is_empty()) {
            return None;
        }
        let group = jobs.iter().map(|job| job.bytes as u64).sum::<u64>();
        match backend.free_bytes() {
            Ok(Some(free)) if free < self.reserve_bytes.saturating_add(group) => {
                Some(StoreError::Full { free, reserve: self.reserve_bytes })
            }
            Ok(_) => None,
            Err(error) => {
                // The write itself will tell.
                tracing::debug!(%error, "store: cannot see how much room the disk has");
                None
            }
        }
    }

    fn poison(&self, jobs: Vec<Job>, reason: String) {
        tracing::error!(
            reason,
            "store: a write failed; nothing is written any more, restart to recover"
        );
        self.queue.poison(jobs, reason);
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&dyn Backend) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        // A panic of the engine while it was read leaves nothing of ours half done.
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        work(&*open.as_ref().ok_or(StoreError::Closed)?.backend)
    }

    fn shut(&self) {
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        if catch_unwind(AssertUnwindSafe(|| drop(open))).is_err() {
            tracing::error!("store: the engine panicked while it was closed");
        }
    }

    fn order(&self) -> MutexGuard<'_, ()> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn corrupt(&self, document: &DocumentKey, row: RowKey, reason: &str) -> StoreError {
        let (document, reason) = (document.clone(), reason.to_owned());
        let found = CorruptRow { document: document.clone(), row, reason: reason.clone() };
        self.recorder().corrupt(found);
        StoreError::Corrupt { document, row, reason }
    }

    fn io(&self, error: &BackendError) -> StoreError {
        StoreError::Io { what: error.what, path: self.path.clone(), reason: error.reason.clone() }
    }
}

/// Does work that waits for the disk where it disturbs nobody.
async fn blocking<T: Send + 'static>(
    inline: bool,
    reads: &Reads,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    if inline || tokio::runtime::Handle::try_current().is_err() {
        return work();
    }
    reads.run(work).await
}

#[cfg(test)]
mod tests;
