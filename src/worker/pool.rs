//! A warm pool of worker processes.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinHandle, time::MissedTickBehavior};

use super::{
    BoxFuture, Materialiser, WorkerJob, WorkerLimits,
    child::{Death, Ended, Worker},
    document,
    search::{Attempt, search},
    small::{Queued, Small, is_small},
};
use crate::replica::{JobError, JobOutput};

/// Why a pool could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// No process could be started.
    #[error("cannot start a worker process ({}): {error}. Check that it may be run, and the limits on processes and memory", program.display())]
    Start {
        /// What was to be run.
        program: PathBuf,
        /// Why it was not.
        error: io::Error,
    },
}

/// A pool at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// Process ids of the workers that have nothing to do.
    pub idle: Vec<u32>,
    /// Jobs that wait for a worker or are being done.
    pub jobs: usize,
    /// Processes started so far.
    pub started: usize,
}

/// Does jobs in processes of their own, under limits of time and memory.
///
/// Jobs are done in the order asked for. Long ones, with our own documents only, never take the
/// last worker, so that what a peer waits for does not wait for them. Small ones that wait for a
/// worker together go to it together: telling a process of a job takes as long as the job. Where
/// that goes wrong, each is done once more by itself, so that a fault stays with the job at fault.
/// One idle process is kept warm; others are started when needed, and stopped after
/// [`WorkerLimits::idle_ms`].
#[derive(Debug)]
pub struct ProcessPool {
    inner: Arc<Inner>,
    /// Stops workers that have been idle for long.
    keeper: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    limits: WorkerLimits,
    workers: Semaphore,
    /// Those of `workers` that long jobs may take.
    long: Semaphore,
    /// Small jobs that wait.
    small: Mutex<Small>,
    /// Most recently used last.
    idle: Mutex<Vec<Worker>>,
    jobs: AtomicUsize,
    started: AtomicUsize,
}

/// One among the jobs that a pool has accepted.
#[derive(Debug)]
pub(super) struct Place(Arc<Inner>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.jobs.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ProcessPool {
    /// Starts the first process of a pool of this program itself.
    ///
    /// # Errors
    /// [`PoolError`] if it cannot be started.
    pub async fn start(limits: WorkerLimits) -> Result<Self, PoolError> {
        // Names the running program even where its file was replaced by a later version, which
        // would speak another language.
        let this = PathBuf::from("/proc/self/exe");
        let program = if this.exists() {
            this
        } else {
            std::env::current_exe().map_err(|error| PoolError::Start { program: this, error })?
        };
        Self::start_program(program, limits).await
    }

    /// Starts the first process of a pool of `program`, which runs
    /// [`super::process::main`] when its first argument is [`super::process::SUBCOMMAND`].
    ///
    /// # Errors
    /// [`PoolError`] if it cannot be started.
    pub async fn start_program(program: PathBuf, limits: WorkerLimits) -> Result<Self, PoolError> {
        let workers = limits.workers.max(1);
        let inner = Arc::new(Inner {
            workers: Semaphore::new(workers),
            long: Semaphore::new(workers.saturating_sub(1).max(1)),
            small: Mutex::default(),
            idle: Mutex::default(),
            jobs: AtomicUsize::new(0),
            started: AtomicUsize::new(0),
            program,
            limits,
        });
        let first = inner
            .spawn()
            .await
            .map_err(|error| PoolError::Start { program: inner.program.clone(), error })?;
        inner.idle().push(first);
        Ok(Self { keeper: tokio::spawn(keep(Arc::downgrade(&inner))), inner })
    }

    /// The pool at this moment.
    pub fn status(&self) -> PoolStatus {
        PoolStatus {
            idle: self.inner.idle().iter().filter_map(Worker::pid).collect(),
            jobs: self.inner.jobs.load(Ordering::Relaxed),
            started: self.inner.started.load(Ordering::Relaxed),
        }
    }
}

impl Drop for ProcessPool {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Materialiser for ProcessPool {
    fn run(&self, job: WorkerJob) -> BoxFuture<Result<JobOutput, JobError>> {
        let inner = self.inner.clone();
        let before = inner.jobs.fetch_add(1, Ordering::Relaxed);
        let place = Place(inner);
        Box::pin(async move {
            let inner = &place.0;
            let most = inner.limits.queue_jobs.saturating_add(inner.limits.workers);
            if before >= most {
                return Err(JobError::Unavailable(format!(
                    "{before} jobs wait already; at most {most} may"
                )));
            }
            if !is_small(&job) {
                return inner.job(job).await;
            }
            let inner = inner.clone();
            let (queued, answered) = Queued::new(job, place);
            if inner.small().push(queued, inner.limits.workers) {
                tokio::spawn(serve_small(inner));
            }
            let ended = |_| Err(JobError::Unavailable("the pool is closed".to_owned()));
            answered.await.unwrap_or_else(ended)
        })
    }

    fn processes(&self) -> Option<PoolStatus> {
        Some(self.status())
    }
}

impl Inner {
    fn idle(&self) -> MutexGuard<'_, Vec<Worker>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn small(&self) -> MutexGuard<'_, Small> {
        self.small.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn spawn(&self) -> io::Result<Worker> {
        self.started.fetch_add(1, Ordering::Relaxed);
        Worker::start(&self.program, &self.limits).await
    }

    async fn job(&self, job: WorkerJob) -> Result<JobOutput, JobError> {
        let closed = |_| JobError::Unavailable("the pool is closed".to_owned());
        let _long =
            if is_long(&job) { Some(self.long.acquire().await.map_err(closed)?) } else { None };
        let _worker = self.workers.acquire().await.map_err(closed)?;
        self.alone(job).await
    }

    /// Does a job by itself, by whoever may use a worker.
    async fn alone(&self, job: WorkerJob) -> Result<JobOutput, JobError> {
        // Cheap: the chunks are shared.
        let again = job.clone();
        let Death { base_opened, reason, .. } = match self.attempt(job).await? {
            Ended::Answered(result) => return result,
            Ended::NotStarted(reason) => return Err(JobError::Unavailable(reason)),
            Ended::OverLimit(reason) | Ended::Died(Death { over_limit: true, reason, .. }) => {
                return Err(JobError::OverLimit(reason));
            }
            Ended::Died(death) => death,
        };
        match again {
            WorkerJob::Build { base, incoming, .. } if incoming.is_empty() => {
                // The changes after the last document chunk may hold one that breaks it.
                let documents = base.partition_point(|run| document::is_document(run));
                let (base, incoming) = base.split_at(documents);
                Err(search(base, incoming, reason, &self.limits, self).await)
            }
            WorkerJob::Build { base, .. } if base_opened || base.is_empty() => {
                Err(JobError::Incoming(reason))
            }
            WorkerJob::Build { .. } | WorkerJob::Extract { .. } | WorkerJob::Review { .. } => {
                Err(JobError::Base(reason))
            }
            WorkerJob::Check { base, incoming } => {
                Err(search(&base, &incoming, reason, &self.limits, self).await)
            }
        }
    }

    /// Does small jobs together. Gives back those that have no answer yet.
    async fn together(&self, batch: Vec<Queued>) -> Vec<Queued> {
        let worker = match self.take_idle() {
            Some(worker) => Ok(worker),
            None => self.spawn().await,
        };
        // Each by itself will say why.
        let Ok(mut worker) = worker else { return batch };
        let jobs = batch.iter().map(|queued| queued.job().clone()).collect();
        let answers = worker.run_all(jobs, &self.limits).await;
        self.put_back(worker).await;
        let mut left = batch.into_iter();
        for answer in answers {
            if let Some(queued) = left.next() {
                queued.answer(answer);
            }
        }
        left.collect()
    }

    /// Keeps a worker that may do more, or else has another ready.
    async fn put_back(&self, mut worker: Worker) {
        if worker.is_fit(&self.limits) {
            self.idle().push(worker);
        } else {
            drop(worker);
            self.warm().await;
        }
    }

    fn take_idle(&self) -> Option<Worker> {
        let mut idle = self.idle();
        loop {
            let mut worker = idle.pop()?;
            if worker.is_fit(&self.limits) {
                return Some(worker);
            }
        }
    }

    /// Has a process ready for the next job. Not ready is no error: the next job tries again.
    async fn warm(&self) {
        if self.idle().is_empty()
            && let Ok(worker) = self.spawn().await
        {
            self.idle().push(worker);
        }
    }
}

impl Attempt for Inner {
    /// Does a job in an idle process or a new one. A process that died may have been hurt by an
    /// earlier job; only one that is new is believed.
    async fn attempt(&self, job: WorkerJob) -> Result<Ended, JobError> {
        let unavailable =
            |error: io::Error| JobError::Unavailable(format!("cannot start a process: {error}"));
        let idle = self.take_idle();
        let (mut worker, spare) = match idle {
            Some(worker) => {
                let spare = worker.is_used().then(|| job.clone());
                (worker, spare)
            }
            None => (self.spawn().await.map_err(unavailable)?, None),
        };
        let mut ended = worker.run(job, &self.limits).await;
        if let (Ended::Died(_), Some(job)) = (&ended, spare) {
            worker = self.spawn().await.map_err(unavailable)?;
            ended = worker.run(job, &self.limits).await;
        }
        if matches!(ended, Ended::Answered(_)) {
            self.put_back(worker).await;
        } else {
            drop(worker);
            self.warm().await;
        }
        Ok(ended)
    }
}

/// A task that has small jobs done; should it panic, it is not counted any longer.
struct Serving<'a> {
    inner: &'a Inner,
    is_over: bool,
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.inner.small().lost();
        }
    }
}

/// Has small jobs done until none waits.
async fn serve_small(inner: Arc<Inner>) {
    let mut serving = Serving { inner: &inner, is_over: false };
    while let Ok(_worker) = inner.workers.acquire().await {
        let mut batch = inner.small().take();
        match batch.len() {
            0 => {
                serving.is_over = true;
                return;
            }
            1 => {
                for queued in batch {
                    let answer = inner.alone(queued.job().clone()).await;
                    queued.answer(answer);
                }
            }
            _ => {
                batch = inner.together(batch).await;
                for queued in batch {
                    let inner = inner.clone();
                    tokio::spawn(async move {
                        let answer = inner.job(queued.job().clone()).await;
                        queued.answer(answer);
                    });
                }
            }
        }
    }
}

/// Stops workers that have been idle for long, all but the one used last; that one is replaced by
/// a new one, so that a quiet pool holds no more than it did when it started.
async fn keep(pool: std::sync::Weak<Inner>) {
    let Some(idle) = pool.upgrade().map(|inner| Duration::from_millis(inner.limits.idle_ms.max(1)))
    else {
        return;
    };
    let mut ticks = tokio::time::interval(idle);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(inner) = pool.upgrade() else {
            return;
        };
        let is_stale = |worker: &Worker| worker.idle_since().elapsed() >= idle;
        let is_quiet = {
            let mut workers = inner.idle();
            let last = workers.pop();
            workers.retain(|worker| !is_stale(worker));
            let is_quiet = last.as_ref().is_some_and(|last| last.is_used() && is_stale(last));
            workers.extend(last.filter(|_| !is_quiet));
            is_quiet
        };
        if is_quiet {
            inner.warm().await;
        }
    }
}

/// Whether a job may take as long as our own documents need.
fn is_long(job: &WorkerJob) -> bool {
    match job {
        WorkerJob::Build { incoming, .. } => incoming.is_empty(),
        WorkerJob::Check { .. } | WorkerJob::Review { .. } => true,
        WorkerJob::Extract { .. } => false,
    }
}
