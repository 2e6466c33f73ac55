//! Reads, which may wait for the disk, away from the threads that must not wait.
//!
//! What comes together is done by one thread, one after another: a read that finds its page in
//! memory takes less time than waking a thread. Where reads are slow, more threads join in.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::spawn_blocking};

use super::StoreError;

/// Threads that read at once.
const THREADS_MAX: usize = 8;
/// A read that takes longer has waited for a disk.
const SLOW: Duration = Duration::from_millis(1);

type Work = Box<dyn FnOnce() + Send>;

/// See the module. Clones share the threads.
#[derive(Clone, Default)]
pub(super) struct Reads(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Work>,
    threads: usize,
}

impl Reads {
    /// Has a read done. Within a runtime only.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let work = move || {
            // Who asked may have gone.
            let _ = answer.send(read());
        };
        if self.push(Box::new(work)) {
            self.start();
        }
        answered.await.unwrap_or_else(|_| {
            let reason = "the engine panicked, or the program ends".to_owned();
            Err(StoreError::Io { what: "read", path: PathBuf::new(), reason })
        })
    }

    /// Says whether a thread is to be started.
    fn push(&self, work: Work) -> bool {
        let mut inner = self.lock();
        inner.waiting.push_back(work);
        let is_first = inner.threads == 0;
        inner.threads += usize::from(is_first);
        is_first
    }

    fn start(&self) {
        let this = self.clone();
        spawn_blocking(move || this.work());
    }

    fn work(&self) {
        while let Some(work) = self.next() {
            let start = Instant::now();
            // Whoever waits for it learns of a panic by hearing nothing.
            let _ = catch_unwind(AssertUnwindSafe(work));
            if start.elapsed() >= SLOW && self.wants_more() {
                self.start();
            }
        }
    }

    fn next(&self) -> Option<Work> {
        let mut inner = self.lock();
        let next = inner.waiting.pop_front();
        if next.is_none() {
            inner.threads -= 1;
            inner.waiting = VecDeque::new();
        }
        next
    }

    fn wants_more(&self) -> bool {
        let mut inner = self.lock();
        let wants = !inner.waiting.is_empty() && inner.threads < THREADS_MAX;
        inner.threads += usize::from(wants);
        wants
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here panics half way through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use super::*;

    #[tokio::test]
    async fn many_quick_reads_share_a_thread_and_all_are_answered() {
        let reads = Reads::default();
        let tasks: Vec<_> = (0..500)
            .map(|n| {
                let reads = reads.clone();
                tokio::spawn(async move { reads.run(move || Ok(n)).await })
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), Ok(n));
        }
    }

    #[tokio::test]
    async fn slow_reads_are_done_at_once_within_bounds() {
        let reads = Reads::default();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..60)
            .map(|_| {
                let (reads, now, most) = (reads.clone(), now.clone(), most.clone());
                let read = move || {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(5 * SLOW);
                    now.fetch_sub(1, Ordering::SeqCst);
                    Ok(())
                };
                tokio::spawn(async move { reads.run(read).await })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), Ok(()));
        }
        assert_eq!(most.load(Ordering::SeqCst), THREADS_MAX);
    }

    #[tokio::test]
    async fn a_panic_fails_one_read_and_no_other() {
        let reads = Reads::default();
        let failed = reads.run(|| -> Result<(), StoreError> { panic!("on purpose") }).await;
        assert!(matches!(failed, Err(StoreError::Io { what: "read", .. })));
        assert_eq!(reads.run(|| Ok(1)).await, Ok(1));
    }
}
