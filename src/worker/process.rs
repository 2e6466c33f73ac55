//! A worker process, seen from inside: reads jobs on standard input, answers on standard output.
//!
//! It is this program itself, started by [`super::ProcessPool`] as `concord worker`. It holds no
//! secrets, opens no files but two of its own under `/proc`, and ends with its standard input.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    os::fd::AsFd as _,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use bytes::Bytes;
use rustix::{
    process::{Resource, Rlimit, setrlimit},
    time::{ClockId, clock_gettime},
};

use super::{
    WorkerJob, WorkerLimits,
    frame::{self, Batch, Done, FrameError, Health, Reply, Settings},
    kept::Kept,
    materialise,
};
use crate::record;

/// The argument that makes this program a worker.
pub const SUBCOMMAND: &str = "worker";

/// Bytes read from standard input at once.
const READ_BYTES: usize = 64 * 1024;
/// Bytes of answers of one batch that are written together.
const WRITE_BYTES: usize = 64 * 1024;

/// Whether anything in this process has panicked; said with each answer.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// The whole life of a worker process. Call it before any thread is started.
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        PANICKED.store(true, Ordering::Relaxed);
        let place = panic.to_string().replace('\n', " ");
        eprintln!("{place}");
        materialise::note_panic(place);
    }));
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("concord worker: {error}. It is started by concord itself, not by hand");
            ExitCode::from(2)
        }
    }
}

fn serve() -> io::Result<()> {
    let mut input = BufReader::with_capacity(READ_BYTES, io::stdin());
    let Some(settings) = read_record::<Settings>(&mut input)? else {
        return Ok(());
    };
    let limits = settings.limits();
    confine(&limits)?;
    // Jobs follow one another on one thread: a new one for each would cost as much as a job.
    let stack = usize::try_from(limits.stack_bytes).map_err(io::Error::other)?;
    let jobs =
        thread::Builder::new().name("jobs".to_owned()).stack_size(stack).spawn(move || {
            // Not `Stdout`, which looks for lines and writes each by itself.
            let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            output.write_all(&frame_bare(&Reply::Ready)?)?;
            let mut kept = Kept::default();
            while let Some(batch) = read_record::<Batch>(&mut input)? {
                work(batch, &mut input, &mut output, &limits, &mut kept)?;
            }
            Ok(())
        })?;
    jobs.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked outside of automerge")))
}

/// Limits that the operating system keeps.
fn confine(limits: &WorkerLimits) -> io::Result<()> {
    let exactly = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::As, exactly(limits.memory_bytes))?;
    setrlimit(Resource::Core, exactly(0))?;
    // If the machine runs out of memory, a worker is the right thing to end. Not everywhere
    // allowed or known.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

/// Ends this process once it has used so many more seconds, in case the pool is gone and the job
/// never ends.
fn limit_cpu(seconds: u32) -> io::Result<()> {
    let used = clock_gettime(ClockId::ProcessCPUTime).tv_sec;
    let until = u64::try_from(used).unwrap_or(0) + u64::from(seconds) + 1;
    let mut limit = rustix::process::getrlimit(Resource::Cpu);
    limit.current = Some(limit.maximum.map_or(until, |maximum| maximum.min(until)));
    Ok(setrlimit(Resource::Cpu, limit)?)
}

/// Does the jobs of a batch.
fn work(
    batch: Batch,
    input: &mut impl Read,
    output: &mut impl Write,
    limits: &WorkerLimits,
    kept: &mut Kept,
) -> io::Result<()> {
    limit_cpu(batch.cpu_s)?;
    batch.check().map_err(io::Error::other)?;
    // All of it is read before anything is said: whoever writes a batch does not read meanwhile.
    let mut jobs = Vec::with_capacity(batch.requests.len());
    for request in batch.requests {
        let mut chunks = Vec::new();
        for length in request.lengths() {
            let mut chunk = vec![0; *length as usize];
            input.read_exact(&mut chunk)?;
            chunks.push(Bytes::from(chunk));
        }
        jobs.push(request.into_job(chunks).map_err(io::Error::other)?);
    }
    let (is_alone, mut left) = (jobs.len() == 1, jobs.len());
    let mut said = Vec::new();
    for job in jobs {
        left -= 1;
        let tells = is_alone && has_base(&job);
        let mut noted = Ok(());
        let result = materialise::run_noting(&job, limits, kept, || {
            if tells {
                noted = frame_bare(&Reply::BaseOpened).and_then(|opened| output.write_all(&opened));
            }
        });
        noted?;
        drop(job);
        // Looked up once a batch: that takes as long as a small job's tenth part.
        let resident_bytes = if left == 0 { resident_bytes() } else { 0 };
        let health = Health { resident_bytes, panicked: PANICKED.load(Ordering::Relaxed) };
        let answer = match Done::encode(result, health) {
            Err(error @ FrameError::TooLarge(_)) => {
                let failed = crate::replica::JobError::OverLimit(error.to_string());
                Done::encode(Err(failed), health)
            }
            answer => answer,
        };
        let (head, chunks) = answer.map_err(io::Error::other)?;
        said.extend_from_slice(&head);
        if left == 0 || !chunks.is_empty() || said.len() >= WRITE_BYTES {
            output.write_all(&said)?;
            said.clear();
        }
        for chunk in chunks {
            output.write_all(&chunk)?;
        }
    }
    output.flush()
}

/// Whether the pool wants to know when what is ours is loaded.
fn has_base(job: &WorkerJob) -> bool {
    match job {
        WorkerJob::Build { base, .. } | WorkerJob::Check { base, .. } => !base.is_empty(),
        WorkerJob::Extract { .. } | WorkerJob::Review { .. } => false,
    }
}

fn frame_bare(reply: &Reply) -> io::Result<Vec<u8>> {
    frame::encode_bare(reply).map_err(io::Error::other)
}

/// The next record; `None` at the end of the input.
fn read_record<T: serde::de::DeserializeOwned>(input: &mut impl Read) -> io::Result<Option<T>> {
    let mut prefix = [0; 4];
    match input.read_exact(&mut prefix) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let mut bytes = vec![0; frame::record_len(prefix).map_err(io::Error::other)?];
    input.read_exact(&mut bytes)?;
    record::decode(&bytes).map(Some).map_err(io::Error::other)
}

/// Bytes of this process in memory; 0 where that cannot be read.
fn resident_bytes() -> u64 {
    std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split(' ').nth(1)?.parse::<u64>().ok())
        .map_or(0, |pages| pages.saturating_mul(rustix::param::page_size() as u64))
}
