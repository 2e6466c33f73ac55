//! One worker process, seen from outside.

use std::{io, path::Path, process::Stdio, time::Duration};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout, timeout_at},
};

use super::{
    WorkerJob, WorkerLimits,
    frame::{self, Batch, Done, Encoded, FrameError, Health, Reply, Settings},
    limits::START_MS_MAX,
    materialise::shortened,
    process::SUBCOMMAND,
};
use crate::{
    record,
    replica::{JobError, JobOutput},
};

/// Bytes of a dead worker's last words that are read.
const LAST_WORDS_BYTES_MAX: u64 = 4096;
/// How long a process that closed its output has to end by itself.
const END_MAX: Duration = Duration::from_secs(1);
/// What came from outside has this many times longer than it took to load our own document: it
/// is applied to it, and all of it saved and loaded again.
const INCOMING_PER_BASE: u32 = 6;

/// How long a batch of small jobs may take: each of them takes some tenths of a millisecond.
const BATCH_MAX: Duration = Duration::from_millis(500);

/// A running worker process. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    ready: bool,
    jobs: u32,
    health: Health,
    /// A batch went wrong in it.
    is_spoilt: bool,
    idle_since: Instant,
}

/// How a job in a process ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// With an answer; the worker lives.
    Answered(Result<JobOutput, JobError>),
    /// The process ended or spoke nonsense.
    Died(Death),
    /// It took too long, or is too large to be asked.
    OverLimit(String),
    /// The process was never ready.
    NotStarted(String),
}

/// The end of a process in mid-job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Death {
    /// Whether what is ours had been loaded.
    pub(super) base_opened: bool,
    /// Whether it was for want of memory or processor time, which is nobody's fault.
    pub(super) over_limit: bool,
    /// What is known of it.
    pub(super) reason: String,
}

/// Why an exchange stopped.
enum Broken {
    Io,
    /// The time it had was over.
    Slow(Instant),
    Frame(FrameError),
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

impl From<FrameError> for Broken {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl Worker {
    /// Starts a process and tells it its limits, without waiting until it is up.
    pub(super) async fn start(program: &Path, limits: &WorkerLimits) -> io::Result<Self> {
        let mut child = Command::new(program)
            .arg(SUBCOMMAND)
            // What opens strangers' bytes inherits no secrets.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a process without the pipes asked for"));
        };
        let settings = frame::encode_bare(&Settings::of(limits)).map_err(io::Error::other)?;
        // A few dozen bytes: they fit the pipe of a process that does not read yet.
        input.write_all(&settings).await?;
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
            ready: false,
            jobs: 0,
            health: Health { resident_bytes: 0, panicked: false },
            is_spoilt: false,
            idle_since: Instant::now(),
        })
    }

    /// The process's id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Since when it has had nothing to do.
    pub(super) fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Whether it has done jobs before: only then can an earlier job be why it died.
    pub(super) fn is_used(&self) -> bool {
        self.jobs > 0
    }

    /// Whether it may do another job.
    pub(super) fn is_fit(&mut self, limits: &WorkerLimits) -> bool {
        self.jobs < limits.jobs_per_process
            && !self.health.panicked
            && !self.is_spoilt
            && self.health.resident_bytes <= limits.resident_bytes
            && matches!(self.child.try_wait(), Ok(None))
    }

    /// Does a job. Unless the end is [`Ended::Answered`], the worker is of no more use.
    pub(super) async fn run(&mut self, job: WorkerJob, limits: &WorkerLimits) -> Ended {
        let (start, mut base_opened) = (Instant::now(), false);
        let broken = match self.exchange(job, limits, &mut base_opened).await {
            Ok(result) => {
                self.jobs += 1;
                self.idle_since = Instant::now();
                return Ended::Answered(result);
            }
            Err(broken) => broken,
        };
        match broken {
            Broken::Slow(_) if !self.ready => Ended::NotStarted(format!(
                "a new worker process said nothing for {START_MS_MAX} ms"
            )),
            Broken::Slow(by) => Ended::OverLimit(format!(
                "not done after {} ms",
                by.saturating_duration_since(start).as_millis()
            )),
            Broken::Frame(error) if !self.ready => Ended::NotStarted(error.to_string()),
            Broken::Frame(error @ FrameError::TooLarge(_)) => Ended::OverLimit(error.to_string()),
            Broken::Frame(error) => Ended::Died(Death {
                base_opened,
                over_limit: false,
                reason: format!("the worker process answered nonsense: {error}"),
            }),
            Broken::Io if !self.ready => {
                Ended::NotStarted(self.post_mortem(base_opened).await.reason)
            }
            Broken::Io => Ended::Died(self.post_mortem(base_opened).await),
        }
    }

    async fn exchange(
        &mut self,
        job: WorkerJob,
        limits: &WorkerLimits,
        base_opened: &mut bool,
    ) -> Result<Result<JobOutput, JobError>, Broken> {
        self.until_ready().await?;
        let own = Duration::from_millis(limits.own_ms);
        let from_peer: &[Bytes] = match &job {
            WorkerJob::Build { incoming, .. } => incoming,
            WorkerJob::Check { .. } | WorkerJob::Extract { .. } | WorkerJob::Review { .. } => &[],
        };
        let incoming = limits.incoming_max(from_peer.iter().map(Bytes::len).sum());
        // With a base, what is a peer's gets its time once ours is loaded.
        let (allowed, then_incoming) = match &job {
            WorkerJob::Build { base, .. } if from_peer.is_empty() || !base.is_empty() => {
                (own, !from_peer.is_empty())
            }
            WorkerJob::Build { .. } => (incoming, false),
            WorkerJob::Check { .. } | WorkerJob::Extract { .. } | WorkerJob::Review { .. } => {
                (own, false)
            }
        };
        // Processor time is capped besides, for the case that nobody is left to watch the clock.
        let cpu_s = u32::try_from((own + incoming).as_secs()).unwrap_or(u32::MAX);
        let batch = Batch::encode(vec![job], cpu_s)?;
        let start = Instant::now();
        let mut by = start + allowed;
        self.send(batch, by).await?;
        let done = loop {
            match self.reply(by).await? {
                Reply::BaseOpened => {
                    *base_opened = true;
                    if then_incoming {
                        by = Instant::now() + incoming + start.elapsed() * INCOMING_PER_BASE;
                    }
                }
                Reply::Done(done) => break done,
                Reply::Ready => return Err(FrameError::Mismatch.into()),
            }
        };
        self.result(*done, by).await
    }

    /// Does small jobs, one after another. Gives answers in their order, as many as can be relied
    /// on: fewer than jobs when the process ended, took too long, or panicked in one of them. The
    /// worker is of no more use then, and the other jobs are to be done once more, each by itself:
    /// that tells which of them is at fault.
    pub(super) async fn run_all(
        &mut self,
        jobs: Vec<WorkerJob>,
        limits: &WorkerLimits,
    ) -> Vec<Result<JobOutput, JobError>> {
        let mut answers = Vec::with_capacity(jobs.len());
        self.is_spoilt = true;
        if self.exchange_all(jobs, limits, &mut answers).await.is_ok() {
            self.is_spoilt = false;
        }
        self.jobs = self.jobs.saturating_add(u32::try_from(answers.len()).unwrap_or(u32::MAX));
        self.idle_since = Instant::now();
        answers
    }

    async fn exchange_all(
        &mut self,
        jobs: Vec<WorkerJob>,
        limits: &WorkerLimits,
        answers: &mut Vec<Result<JobOutput, JobError>>,
    ) -> Result<(), Broken> {
        self.until_ready().await?;
        let count = jobs.len();
        let cpu_s = u32::try_from(Duration::from_millis(limits.own_ms).as_secs());
        let batch = Batch::encode(jobs, cpu_s.unwrap_or(u32::MAX))?;
        let by = Instant::now() + BATCH_MAX;
        self.send(batch, by).await?;
        while answers.len() < count {
            let Reply::Done(done) = self.reply(by).await? else {
                return Err(FrameError::Mismatch.into());
            };
            let answer = self.result(*done, by).await?;
            answers.push(answer);
            if self.health.panicked {
                break;
            }
        }
        Ok(())
    }

    async fn until_ready(&mut self) -> Result<(), Broken> {
        if !self.ready {
            let by = Instant::now() + Duration::from_millis(START_MS_MAX);
            match self.reply(by).await? {
                Reply::Ready => self.ready = true,
                Reply::BaseOpened | Reply::Done(_) => return Err(FrameError::Mismatch.into()),
            }
        }
        Ok(())
    }

    async fn send(&mut self, (head, chunks): Encoded, by: Instant) -> Result<(), Broken> {
        let sending = async {
            self.input.write_all(&head).await?;
            for chunk in &chunks {
                self.input.write_all(chunk).await?;
            }
            self.input.flush().await
        };
        Ok(timeout_at(by, sending).await.map_err(|_| Broken::Slow(by))??)
    }

    /// Reads the rest of an answer.
    async fn result(
        &mut self,
        done: Done,
        by: Instant,
    ) -> Result<Result<JobOutput, JobError>, Broken> {
        self.health = done.health;
        let mut chunks = Vec::new();
        for length in done.lengths()? {
            let mut chunk = vec![0; *length as usize];
            self.fill(&mut chunk, by).await?;
            chunks.push(Bytes::from(chunk));
        }
        Ok(done.into_result(chunks)?)
    }

    async fn reply(&mut self, by: Instant) -> Result<Reply, Broken> {
        let mut prefix = [0; 4];
        self.fill(&mut prefix, by).await?;
        let mut bytes = vec![0; frame::record_len(prefix)?];
        self.fill(&mut bytes, by).await?;
        Ok(record::decode(&bytes).map_err(FrameError::from)?)
    }

    async fn fill(&mut self, bytes: &mut [u8], by: Instant) -> Result<(), Broken> {
        timeout_at(by, self.output.read_exact(bytes)).await.map_err(|_| Broken::Slow(by))??;
        Ok(())
    }

    /// Why it ended: what it wrote last, and what the system says.
    async fn post_mortem(&mut self, base_opened: bool) -> Death {
        let status = match timeout(END_MAX, self.child.wait()).await {
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it closed its output and went on".to_owned(),
        };
        let mut words = Vec::new();
        if let Some(errors) = self.child.stderr.take() {
            let _ =
                timeout(END_MAX, errors.take(LAST_WORDS_BYTES_MAX).read_to_end(&mut words)).await;
        }
        let words = String::from_utf8_lossy(&words);
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
        let reason = format!("the worker process ended ({status}): {words}");
        // Rust's word for a failed allocation. SIGKILL comes from the kernel, out of memory;
        // SIGXCPU from the limit on processor time.
        let over_limit = words.contains("memory allocation of")
            || ["signal: 9 ", "signal: 24 "].iter().any(|signal| status.contains(signal));
        Death { base_opened, over_limit, reason: shortened(reason) }
    }
}
