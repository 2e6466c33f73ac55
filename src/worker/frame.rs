//! What goes between a pool and a worker process: a short record, then the chunks as they are.
//!
//! `length of the record (u32, little-endian) | record | chunk | chunk ...`, where the record
//! names the length of each chunk. Lengths are checked before anything is allocated.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{WorkerJob, WorkerLimits, materialise::shortened};
use crate::{
    record::{self, RECORD_BYTES_MAX, RecordError},
    replica::{
        JobError, JobOutput,
        index::{IndexRoot, SnapshotIndex},
    },
};
use concord_protocol::{ChangeHash, limits::DOCUMENT_BYTES_MAX};

/// Bytes of all chunks of one frame: a snapshot and as much again of changes to it.
pub(super) const CHUNK_BYTES_MAX: u64 = 2 * DOCUMENT_BYTES_MAX as u64;
/// Up to this size a frame is sent in one piece.
const ONE_PIECE_BYTES_MAX: usize = 64 * 1024;

/// A frame that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    /// See [`RecordError`].
    #[error(transparent)]
    Record(#[from] RecordError),
    /// More than a frame may hold.
    #[error("{0} bytes in one job; at most {CHUNK_BYTES_MAX} are taken")]
    TooLarge(u64),
    /// The answer is to another question.
    #[error("the answer does not fit the job")]
    Mismatch,
}

/// The first frame to a worker: what [`WorkerLimits`] means for one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Settings {
    memory_bytes: u64,
    stack_bytes: u64,
    change_bytes: u64,
    change_inflated_bytes: u64,
    change_ops: u64,
    change_ops_total: u64,
    change_deps: u64,
    change_actors: u64,
    change_columns: u64,
    change_message_bytes: u64,
    document_bytes: u64,
}

impl Settings {
    pub(super) fn of(limits: &WorkerLimits) -> Self {
        let changes = &limits.changes;
        Self {
            memory_bytes: limits.memory_bytes,
            stack_bytes: limits.stack_bytes,
            change_bytes: changes.change_bytes as u64,
            change_inflated_bytes: changes.change_inflated_bytes as u64,
            change_ops: changes.change_ops,
            change_ops_total: changes.change_ops_total,
            change_deps: changes.change_deps as u64,
            change_actors: changes.change_actors as u64,
            change_columns: changes.change_columns as u64,
            change_message_bytes: changes.change_message_bytes as u64,
            document_bytes: changes.document_bytes as u64,
        }
    }

    pub(super) fn limits(&self) -> WorkerLimits {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let mut limits = WorkerLimits {
            memory_bytes: self.memory_bytes,
            stack_bytes: self.stack_bytes,
            ..WorkerLimits::default()
        };
        limits.changes.change_bytes = size(self.change_bytes);
        limits.changes.change_inflated_bytes = size(self.change_inflated_bytes);
        limits.changes.change_ops = self.change_ops;
        limits.changes.change_ops_total = self.change_ops_total;
        limits.changes.change_deps = size(self.change_deps);
        limits.changes.change_actors = size(self.change_actors);
        limits.changes.change_columns = size(self.change_columns);
        limits.changes.change_message_bytes = size(self.change_message_bytes);
        limits.changes.document_bytes = size(self.document_bytes);
        limits
    }
}

/// To a worker: jobs to be done one after another, each answered in its turn. Their chunks
/// follow, job by job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Batch {
    pub(super) requests: Vec<Request>,
    /// Seconds of processor time after which the worker ends, should nobody be there to end it.
    pub(super) cpu_s: u32,
}

/// One job of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// What is to be done.
    task: Task,
    /// Lengths of all chunks, in bytes: of the base or snapshot, then what came in.
    lengths: Vec<u32>,
    /// How many of them are ours.
    base: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Task {
    /// With the most changes that are given one by one.
    Build(u32),
    Extract(Vec<[u8; 32]>),
    Check,
    Review,
}

/// From a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It has read its settings.
    Ready,
    /// What is ours is loaded. Only said of a job that is alone in its batch.
    BaseOpened,
    /// A job is done.
    Done(Box<Done>),
}

/// The end of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Done {
    answer: Answer,
    lengths: Vec<u32>,
    /// How the process is.
    pub(super) health: Health,
}

/// How a worker process is after a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Health {
    /// Bytes that it has in memory.
    pub(super) resident_bytes: u64,
    /// Whether anything in it panicked: what automerge left behind is then not trusted.
    pub(super) panicked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    /// Chunks: the snapshot, then the pages, whose numbers are here.
    Built(IndexRoot, Vec<u32>),
    Changes,
    Extracted,
    Checked,
    Reviewed,
    Incoming(String),
    Breaks([u8; 32], String),
    Base(String),
    OverLimit(String),
}

/// The record of a frame with its length before it, and the chunks that follow it. A small frame
/// has it all in the record's buffer.
pub(super) type Encoded = (Vec<u8>, Vec<Bytes>);

fn encode<T: Serialize>(record: &T, mut chunks: Vec<Bytes>) -> Result<Encoded, FrameError> {
    let record = record::encode(record)?;
    // Records are at most `RECORD_BYTES_MAX` and a version byte.
    let length = u32::try_from(record.len()).map_err(|_| FrameError::TooLarge(u64::MAX))?;
    let mut head = Vec::with_capacity(4 + record.len());
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&record);
    if head.len() + chunks.iter().map(Bytes::len).sum::<usize>() <= ONE_PIECE_BYTES_MAX {
        for chunk in chunks.drain(..) {
            head.extend_from_slice(&chunk);
        }
    }
    Ok((head, chunks))
}

/// A record without chunks.
pub(super) fn encode_bare<T: Serialize>(record: &T) -> Result<Vec<u8>, FrameError> {
    Ok(encode(record, Vec::new())?.0)
}

/// The length of the record to come.
pub(super) fn record_len(prefix: [u8; 4]) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(prefix);
    if u64::from(length) > RECORD_BYTES_MAX + 1 {
        return Err(FrameError::TooLarge(u64::from(length)));
    }
    Ok(length as usize)
}

fn lengths(chunks: &[Bytes]) -> Result<Vec<u32>, FrameError> {
    total(chunks.iter().map(|chunk| chunk.len() as u64))?;
    // Each is at most the sum, which was checked and fits.
    let length = |chunk: &Bytes| u32::try_from(chunk.len()).map_err(|_| FrameError::Mismatch);
    chunks.iter().map(length).collect()
}

fn total(lengths: impl Iterator<Item = u64>) -> Result<u64, FrameError> {
    let sum = lengths.fold(0_u64, u64::saturating_add);
    if sum > CHUNK_BYTES_MAX {
        return Err(FrameError::TooLarge(sum));
    }
    Ok(sum)
}

impl Batch {
    pub(super) fn encode(jobs: Vec<WorkerJob>, cpu_s: u32) -> Result<Encoded, FrameError> {
        let (mut requests, mut chunks) = (Vec::with_capacity(jobs.len()), Vec::new());
        for job in jobs {
            requests.push(Request::of(job, &mut chunks)?);
        }
        total(chunks.iter().map(|chunk| chunk.len() as u64))?;
        encode(&Self { requests, cpu_s }, chunks)
    }

    /// Checks that all chunks together are within the limit.
    pub(super) fn check(&self) -> Result<(), FrameError> {
        let lengths = self.requests.iter().flat_map(|request| &request.lengths);
        total(lengths.map(|length| u64::from(*length)))?;
        Ok(())
    }
}

impl Request {
    /// Takes a job apart; its chunks go to the others.
    fn of(job: WorkerJob, chunks: &mut Vec<Bytes>) -> Result<Self, FrameError> {
        let (task, mut base, incoming) = match job {
            WorkerJob::Build { base, incoming, explode_max } => {
                (Task::Build(explode_max), base, incoming)
            }
            WorkerJob::Check { base, incoming } => (Task::Check, base, incoming),
            WorkerJob::Review { base, asked } => (Task::Review, base, vec![asked]),
            WorkerJob::Extract { snapshot, hashes } => {
                let hashes = hashes.into_iter().map(|hash| hash.0).collect();
                (Task::Extract(hashes), vec![snapshot], Vec::new())
            }
        };
        let ours = u32::try_from(base.len()).map_err(|_| FrameError::TooLarge(u64::MAX))?;
        base.extend(incoming);
        let lengths = lengths(&base)?;
        chunks.append(&mut base);
        Ok(Self { task, lengths, base: ours })
    }

    /// The lengths of the chunks to read, which [`Batch::check`] has added up.
    pub(super) fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    /// The job, with the chunks that followed.
    pub(super) fn into_job(self, mut chunks: Vec<Bytes>) -> Result<WorkerJob, FrameError> {
        let base = self.base as usize;
        if base > chunks.len() {
            return Err(FrameError::Mismatch);
        }
        let mut incoming = chunks.split_off(base);
        Ok(match self.task {
            Task::Build(explode_max) => WorkerJob::Build { base: chunks, incoming, explode_max },
            Task::Check => WorkerJob::Check { base: chunks, incoming },
            Task::Review => WorkerJob::Review {
                base: chunks,
                asked: incoming.pop().ok_or(FrameError::Mismatch)?,
            },
            Task::Extract(hashes) => WorkerJob::Extract {
                snapshot: chunks.pop().ok_or(FrameError::Mismatch)?,
                hashes: hashes.into_iter().map(ChangeHash).collect(),
            },
        })
    }
}

impl Done {
    pub(super) fn encode(
        result: Result<JobOutput, JobError>,
        health: Health,
    ) -> Result<Encoded, FrameError> {
        let (answer, chunks) = match result {
            Ok(JobOutput::Built { snapshot, index }) => {
                let index = std::sync::Arc::unwrap_or_clone(index);
                let numbers = index.pages.iter().map(|(number, _)| *number).collect();
                let pages = index.pages.into_iter().map(|(_, page)| page.into());
                let chunks = std::iter::once(snapshot).chain(pages).collect();
                (Answer::Built(index.root, numbers), chunks)
            }
            Ok(JobOutput::Changes(chunks)) => (Answer::Changes, chunks),
            Ok(JobOutput::Extracted(chunks)) => (Answer::Extracted, chunks),
            Ok(JobOutput::Checked) => (Answer::Checked, Vec::new()),
            Ok(JobOutput::Reviewed(answer)) => (Answer::Reviewed, vec![answer]),
            Err(error) => (Answer::of(error), Vec::new()),
        };
        let done = Self { answer, lengths: lengths(&chunks)?, health };
        encode(&Reply::Done(Box::new(done)), chunks)
    }

    /// The lengths of the chunks to read, together within the limit.
    pub(super) fn lengths(&self) -> Result<&[u32], FrameError> {
        total(self.lengths.iter().map(|length| u64::from(*length)))?;
        Ok(&self.lengths)
    }

    /// What the job gave, with the chunks that followed.
    pub(super) fn into_result(
        self,
        chunks: Vec<Bytes>,
    ) -> Result<Result<JobOutput, JobError>, FrameError> {
        Ok(match self.answer {
            Answer::Built(root, numbers) => {
                let mut chunks = chunks.into_iter();
                let snapshot = chunks.next().ok_or(FrameError::Mismatch)?;
                if chunks.len() != numbers.len() {
                    return Err(FrameError::Mismatch);
                }
                let pages = numbers.into_iter().zip(chunks.map(Vec::from)).collect();
                let index = SnapshotIndex { root, pages }.into();
                Ok(JobOutput::Built { snapshot, index })
            }
            Answer::Changes => Ok(JobOutput::Changes(chunks)),
            Answer::Extracted => Ok(JobOutput::Extracted(chunks)),
            Answer::Checked => Ok(JobOutput::Checked),
            Answer::Reviewed => {
                let answer = chunks.into_iter().next().ok_or(FrameError::Mismatch)?;
                Ok(JobOutput::Reviewed(answer))
            }
            Answer::Incoming(reason) => Err(JobError::Incoming(reason)),
            Answer::Breaks(hash, reason) => {
                Err(JobError::Breaks { hash: ChangeHash(hash), reason })
            }
            Answer::Base(reason) => Err(JobError::Base(reason)),
            Answer::OverLimit(reason) => Err(JobError::OverLimit(reason)),
        })
    }
}

impl Answer {
    fn of(error: JobError) -> Self {
        match error {
            JobError::Incoming(reason) => Self::Incoming(shortened(reason)),
            JobError::Breaks { hash, reason } => Self::Breaks(hash.0, shortened(reason)),
            JobError::OverLimit(reason) => Self::OverLimit(shortened(reason)),
            // The others are not what a job ends with.
            JobError::Base(reason) | JobError::Unavailable(reason) => Self::Base(shortened(reason)),
            JobError::Storage(failure) => Self::Base(shortened(failure.to_string())),
        }
    }
}
