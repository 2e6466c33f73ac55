//! A worker process, seen from inside: reads jobs on standard input, answers on standard output.
//!
//! It is this program itself, started by [`super::ProcessPool`] as `concord worker`. It holds no
//! secrets, opens no files but two of its own under `/proc`, and ends with its standard input.

use std::{
    io::{self, BufReader, Read, Write},
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
    WorkerLimits,
    frame::{self, Done, FrameError, Health, Reply, Request, Settings},
    materialise,
};
use crate::record;

/// The argument that makes this program a worker.
pub const SUBCOMMAND: &str = "worker";

/// Bytes read from standard input at once.
const READ_BYTES: usize = 64 * 1024;

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
            let mut output = io::stdout().lock();
            send(&mut output, (frame_bare(&Reply::Ready)?, Vec::new()))?;
            while let Some(request) = read_record::<Request>(&mut input)? {
                one(request, &mut input, &mut output, &limits)?;
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

fn one(
    request: Request,
    input: &mut impl Read,
    output: &mut impl Write,
    limits: &WorkerLimits,
) -> io::Result<()> {
    limit_cpu(request.cpu_s)?;
    let mut chunks = Vec::new();
    for length in request.lengths().map_err(io::Error::other)? {
        let mut chunk = vec![0; *length as usize];
        input.read_exact(&mut chunk)?;
        chunks.push(Bytes::from(chunk));
    }
    let job = request.into_job(chunks).map_err(io::Error::other)?;
    let mut noted = Ok(());
    let result = materialise::run_noting(&job, limits, || {
        noted = frame_bare(&Reply::BaseOpened)
            .and_then(|opened| send(&mut *output, (opened, Vec::new())));
    });
    noted?;
    drop(job);
    let health =
        Health { resident_bytes: resident_bytes(), panicked: PANICKED.load(Ordering::Relaxed) };
    let answer = match Done::encode(result, health) {
        Err(error @ FrameError::TooLarge(_)) => {
            let failed = crate::replica::JobError::OverLimit(error.to_string());
            Done::encode(Err(failed), health)
        }
        answer => answer,
    };
    send(output, answer.map_err(io::Error::other)?)
}

fn send(output: &mut impl Write, (head, chunks): frame::Encoded) -> io::Result<()> {
    output.write_all(&head)?;
    for chunk in chunks {
        output.write_all(&chunk)?;
    }
    output.flush()
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
