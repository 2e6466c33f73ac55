//! Writes that wait for the writer, in the order of the calls, bounded by their bytes.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::StoreError;
use crate::replica::RowWrite;

/// What a row costs in the queue besides its bytes.
const ROW_OVERHEAD_BYTES: usize = 128;

/// A group ends with the write that brings it to this many bytes, so that a large snapshot does
/// not hold back the answers of what came long before it.
const GROUP_BYTES: usize = 8 << 20;

/// The prefix of a document's keys.
pub(super) type Prefix = Arc<[u8]>;

/// One call of `write`, or, without rows, one that only waits for those before it.
pub(super) struct Job {
    pub(super) document: Prefix,
    pub(super) writes: Vec<RowWrite>,
    /// What it weighs in the queue.
    pub(super) bytes: usize,
    done: oneshot::Sender<Result<(), StoreError>>,
}

/// Answers a [`Job`].
pub(super) type Answer = oneshot::Receiver<Result<(), StoreError>>;

impl Job {
    fn new(document: Prefix, writes: Vec<RowWrite>) -> (Self, Answer) {
        let bytes = writes
            .iter()
            .map(|write| match write {
                RowWrite::Put(_, bytes) => bytes.len() + ROW_OVERHEAD_BYTES,
                RowWrite::Delete(_) | RowWrite::Clear => ROW_OVERHEAD_BYTES,
            })
            .sum();
        let (done, answer) = oneshot::channel();
        (Self { document, writes, bytes, done }, answer)
    }
}

#[derive(Default)]
enum State {
    #[default]
    Open,
    /// Ends after what it has.
    Closing,
    Poisoned(String),
}

#[derive(Default)]
struct Inner {
    state: State,
    jobs: Vec<Job>,
    bytes: usize,
    /// So many are giving more: what is there waits for that.
    holding: usize,
    /// Writes not yet answered, by document.
    pending: HashMap<Prefix, usize>,
    /// Documents whose rows may be visible without being on disk, after a failed write.
    suspect: HashSet<Prefix>,
}

/// See the module.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    bytes_max: usize,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), wake: Condvar::new(), bytes_max }
    }

    /// Takes a write. One that is larger than the queue is taken when nothing else waits.
    pub(super) fn push(
        &self,
        document: Prefix,
        writes: Vec<RowWrite>,
    ) -> Result<Answer, StoreError> {
        let (job, answer) = Job::new(document, writes);
        let mut inner = self.lock();
        match &inner.state {
            State::Open => {}
            State::Closing => return Err(StoreError::Closed),
            State::Poisoned(reason) => {
                mark!(WriteRefused);
                return Err(StoreError::Poisoned(reason.clone()));
            }
        }
        if inner.bytes > 0 && inner.bytes.saturating_add(job.bytes) > self.bytes_max {
            return Err(StoreError::Busy { queued: inner.bytes, limit: self.bytes_max });
        }
        inner.push(job);
        if inner.holding == 0 {
            self.wake.notify_all();
        }
        Ok(answer)
    }

    /// See [`Store::hold`](super::Store::hold).
    pub(super) fn hold(&self, is_held: bool) {
        let mut inner = self.lock();
        if is_held {
            inner.holding += 1;
            return;
        }
        inner.holding = inner.holding.saturating_sub(1);
        if inner.holding == 0 && !inner.jobs.is_empty() {
            self.wake.notify_all();
        }
    }

    /// Refuses a read of what may not be on disk.
    pub(super) fn check_read(&self, document: &Prefix) -> Result<(), StoreError> {
        let inner = self.lock();
        if inner.suspect.contains(document)
            && let State::Poisoned(reason) = &inner.state
        {
            mark!(ReadRefused);
            return Err(StoreError::Poisoned(reason.clone()));
        }
        Ok(())
    }

    /// What a read of a document must wait for. Only where there is a thread that calls
    /// [`Self::take`].
    pub(super) fn before_read(&self, document: &Prefix) -> Option<Answer> {
        let mut inner = self.lock();
        if !inner.pending.contains_key(document) {
            return None;
        }
        let (job, answer) = Job::new(document.clone(), Vec::new());
        inner.push(job);
        self.wake.notify_all();
        Some(answer)
    }

    /// Waits for work, then, `window` later, takes what there is, up to a group's size; `None` at
    /// the end.
    pub(super) fn take(&self, window: Duration) -> Option<Vec<Job>> {
        let mut inner = self.lock();
        // Whoever holds what there is lets it go at once, but may end before.
        while inner.jobs.is_empty() || inner.holding > 0 && matches!(inner.state, State::Open) {
            if !matches!(inner.state, State::Open) {
                return None;
            }
            inner = self.wake.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let until = Instant::now() + window;
        while matches!(inner.state, State::Open) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            inner = self.wake.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut bytes = 0;
        let group = inner.jobs.iter().take_while(|job| {
            let fits = bytes < GROUP_BYTES;
            bytes += job.bytes;
            fits
        });
        let count = group.count();
        Some(inner.jobs.drain(..count).collect())
    }

    /// Takes all there is without waiting.
    pub(super) fn take_now(&self) -> Vec<Job> {
        std::mem::take(&mut self.lock().jobs)
    }

    /// Takes at most so many writes without waiting, and what waits for them only.
    #[cfg(feature = "simulation")]
    pub(super) fn take_some(&self, writes_max: usize) -> Vec<Job> {
        let mut inner = self.lock();
        let mut writes = 0;
        let group = inner.jobs.iter().take_while(|job| {
            writes += usize::from(!job.writes.is_empty());
            writes <= writes_max
        });
        let count = group.count();
        inner.jobs.drain(..count).collect()
    }

    /// Answers jobs that were taken; they failed all alike, or not at all.
    pub(super) fn answer(&self, jobs: Vec<Job>, result: &Result<(), StoreError>) {
        let mut inner = self.lock();
        for job in &jobs {
            inner.forget(job);
        }
        drop(inner);
        respond(jobs, result);
    }

    /// After a failed write of `jobs`: refuses them, all that wait, and all to come.
    pub(super) fn poison(&self, mut jobs: Vec<Job>, reason: String) {
        let mut inner = self.lock();
        inner.suspect.extend(jobs.iter().map(|job| job.document.clone()));
        jobs.append(&mut inner.jobs);
        // Under the same lock: a read that came between would wait for a writer that is gone.
        for job in &jobs {
            inner.forget(job);
        }
        inner.state = State::Poisoned(reason.clone());
        drop(inner);
        respond(jobs, &Err(StoreError::Poisoned(reason)));
    }

    /// Takes nothing more; [`Self::take`] ends when it has given what is there.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        if matches!(inner.state, State::Open) {
            inner.state = State::Closing;
        }
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn push(&mut self, job: Job) {
        self.bytes += job.bytes;
        *self.pending.entry(job.document.clone()).or_default() += 1;
        self.jobs.push(job);
    }

    fn forget(&mut self, job: &Job) {
        self.bytes = self.bytes.saturating_sub(job.bytes);
        if let Some(count) = self.pending.get_mut(&job.document) {
            *count -= 1;
            if *count == 0 {
                self.pending.remove(&job.document);
            }
        }
    }
}

fn respond(jobs: Vec<Job>, result: &Result<(), StoreError>) {
    for job in jobs {
        // Who asked may have gone.
        let _ = job.done.send(result.clone());
    }
}
