//! Jobs on threads of this process.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use tokio::sync::oneshot;

use super::{BoxFuture, Materialiser, WorkerJob, WorkerLimits, kept::Kept, materialise};
use crate::replica::{JobError, JobOutput};

/// Does jobs on threads with large stacks, for programs that embed a peer and for tests.
///
/// A panic inside automerge becomes an error. What cannot be caught in a process is not: time and
/// memory are bounded only by the checks of sizes and counts that every chunk passes before.
/// Whoever takes documents from strangers uses [`super::ProcessPool`].
#[derive(Debug, Clone)]
pub struct InProcess {
    queue: SyncSender<Queued>,
}

#[derive(Debug)]
struct Queued {
    job: WorkerJob,
    answer: oneshot::Sender<Result<JobOutput, JobError>>,
}

impl InProcess {
    /// Starts [`WorkerLimits::workers`] threads. They end when this and its clones are gone.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(limits: WorkerLimits) -> io::Result<Self> {
        let (queue, jobs) = sync_channel(limits.queue_jobs);
        let jobs = Arc::new(Mutex::new(jobs));
        let limits = Arc::new(limits);
        let stack = usize::try_from(limits.stack_bytes).map_err(io::Error::other)?;
        for _ in 0..limits.workers.max(1) {
            let (jobs, limits) = (jobs.clone(), limits.clone());
            thread::Builder::new()
                .name("concord-materialiser".to_owned())
                .stack_size(stack)
                .spawn(move || work(&jobs, &limits))?;
        }
        Ok(Self { queue })
    }
}

fn work(jobs: &Mutex<Receiver<Queued>>, limits: &WorkerLimits) {
    let mut kept = Kept::default();
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Queued { job, answer }) = next else {
            return;
        };
        // Nobody listens any more: then nobody needs it.
        if !answer.is_closed() {
            let _ = answer.send(materialise::run_noting(&job, limits, &mut kept, || ()));
        }
    }
}

impl Materialiser for InProcess {
    fn run(&self, job: WorkerJob) -> BoxFuture<Result<JobOutput, JobError>> {
        let (answer, answered) = oneshot::channel();
        let sent = self.queue.try_send(Queued { job, answer });
        Box::pin(async move {
            let unavailable = |reason: &str| JobError::Unavailable(reason.to_owned());
            match sent {
                Ok(()) => {
                    answered.await.unwrap_or_else(|_| Err(unavailable("its threads have ended")))
                }
                Err(TrySendError::Full(_)) => Err(unavailable("too many jobs wait already")),
                Err(TrySendError::Disconnected(_)) => Err(unavailable("its threads have ended")),
            }
        })
    }
}
