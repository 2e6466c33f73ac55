//! Materialisers: the only code that gives a document's bytes to automerge.
//!
//! [`materialise`] does a job. [`ProcessPool`] has it done in processes of this program, under
//! limits of time and memory: a stack overflow or a failed allocation inside automerge ends one
//! of them and nothing else. [`InProcess`] does jobs on threads, for programs that embed a peer.

mod child;
mod document;
mod frame;
mod in_process;
mod kept;
pub mod limits;
pub mod materialise;
mod pool;
pub(crate) mod prefix;
pub mod process;
pub mod resolve;
mod search;
mod small;

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use concord_protocol::ChangeHash;

pub use in_process::InProcess;
pub use limits::WorkerLimits;
pub use pool::{PoolError, PoolStatus, ProcessPool};

use crate::replica::{JobError, JobOutput};

/// A job with every chunk in place; see [`crate::replica::Job`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerJob {
    /// See [`crate::replica::Job::Build`].
    Build {
        /// What is ours.
        base: Vec<Bytes>,
        /// What a peer sent.
        incoming: Vec<Bytes>,
        /// See [`crate::replica::Job::Build`].
        explode_max: u32,
    },
    /// See [`crate::replica::Job::Extract`].
    Extract {
        /// The snapshot.
        snapshot: Bytes,
        /// Which changes.
        hashes: Vec<ChangeHash>,
    },
    /// See [`crate::replica::Job::Check`].
    Check {
        /// What is ours.
        base: Vec<Bytes>,
        /// Changes in causal order.
        incoming: Vec<Bytes>,
    },
    /// A question about the conflicts of a document, answered with [`JobOutput::Reviewed`].
    Review {
        /// What is ours.
        base: Vec<Bytes>,
        /// An [`Asked`](crate::review::desk::Asked) as JSON.
        asked: Bytes,
    },
}

/// A future that owns all it needs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Something that does jobs.
pub trait Materialiser: Send + Sync + 'static {
    /// Does one job. Never panics, whatever the bytes.
    fn run(&self, job: WorkerJob) -> BoxFuture<Result<JobOutput, JobError>>;

    /// Its processes at this moment, if it has any.
    fn processes(&self) -> Option<PoolStatus> {
        None
    }
}
