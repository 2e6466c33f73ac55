//! Small jobs that wait for a worker together.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{WorkerJob, pool::Place};
use crate::replica::{JobError, JobOutput};

/// Bytes of a job that is done together with others.
const SMALL_BYTES_MAX: usize = 8 * 1024;
/// Jobs that are done together. It takes a worker some milliseconds.
const BATCH_JOBS_MAX: usize = 32;
/// Bytes of all of them: what a pipe holds.
const BATCH_BYTES_MAX: usize = 64 * 1024;
/// Jobs that wait before another process is started for them: it takes as long as they do.
const WAITING_MAX: usize = 2 * BATCH_JOBS_MAX;
/// Milliseconds that jobs wait for one batch before another process is started for them.
const WAITING_MS: u128 = 200;

/// A small job and who waits for it.
#[derive(Debug)]
pub(super) struct Queued {
    job: WorkerJob,
    bytes: usize,
    answer: oneshot::Sender<Result<JobOutput, JobError>>,
    place: Place,
}

impl Queued {
    pub(super) fn new(
        job: WorkerJob,
        place: Place,
    ) -> (Self, oneshot::Receiver<Result<JobOutput, JobError>>) {
        let (answer, answered) = oneshot::channel();
        (Self { bytes: bytes(&job), job, answer, place }, answered)
    }

    pub(super) fn job(&self) -> &WorkerJob {
        &self.job
    }

    pub(super) fn answer(self, answer: Result<JobOutput, JobError>) {
        // Its place is free before anybody hears of it.
        drop(self.place);
        // Nobody listens any more: then nobody needs it.
        let _ = self.answer.send(answer);
    }
}

/// The small jobs of a pool.
#[derive(Debug, Default)]
pub(super) struct Small {
    waiting: VecDeque<Queued>,
    /// How many tasks have them done.
    servers: usize,
    /// When a batch was taken last.
    taken: Option<Instant>,
}

impl Small {
    /// Takes a job. Says whether one more task is to have them done.
    pub(super) fn push(&mut self, queued: Queued, workers: usize) -> bool {
        self.waiting.push_back(queued);
        let is_slow = || {
            self.waiting.len() >= WAITING_MAX
                || self.taken.is_some_and(|taken| taken.elapsed().as_millis() >= WAITING_MS)
        };
        let starts = self.servers == 0 || (self.servers < workers && is_slow());
        self.servers += usize::from(starts);
        starts
    }

    /// What is to be done together next. With nothing, the task that asked is no longer counted.
    pub(super) fn take(&mut self) -> Vec<Queued> {
        let mut bytes = 0;
        let mut batch = Vec::new();
        while batch.len() < BATCH_JOBS_MAX
            && let Some(queued) = self
                .waiting
                .pop_front_if(|queued| batch.is_empty() || bytes + queued.bytes <= BATCH_BYTES_MAX)
        {
            if !queued.answer.is_closed() {
                bytes += queued.bytes;
                batch.push(queued);
            }
        }
        if batch.is_empty() {
            self.servers -= 1;
            self.waiting = VecDeque::new();
        }
        self.taken = Some(Instant::now());
        batch
    }

    /// A task ended in mid-work.
    pub(super) fn lost(&mut self) {
        self.servers -= 1;
    }
}

/// Whether a job takes less time than telling a process of it.
pub(super) fn is_small(job: &WorkerJob) -> bool {
    bytes(job) <= SMALL_BYTES_MAX
}

fn bytes(job: &WorkerJob) -> usize {
    let of = |chunks: &[Bytes]| chunks.iter().map(Bytes::len).sum::<usize>();
    match job {
        WorkerJob::Build { base, incoming, .. } | WorkerJob::Check { base, incoming } => {
            of(base) + of(incoming)
        }
        WorkerJob::Review { base, asked } => of(base) + asked.len(),
        WorkerJob::Extract { snapshot, hashes } => snapshot.len() + hashes.len() * 32,
    }
}
