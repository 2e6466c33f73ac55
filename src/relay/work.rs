//! Jobs on their way to a worker: what they need is read from storage first.

use std::time::Instant;

use concord_protocol::DocumentId;

use crate::{
    replica::{Job, JobError, JobOutput},
    store::{DocumentKey, Tenant},
    worker::resolve::resolve,
};

use super::shard::Surroundings;

/// Gets what a job needs from storage, and has it done.
pub(super) async fn work(
    around: Surroundings,
    document: DocumentId,
    job: Job,
) -> Result<JobOutput, JobError> {
    let start = Instant::now();
    let kind = match &job {
        Job::Build { .. } => "build",
        Job::Extract { .. } => "extract",
        Job::Check { .. } => "check",
    };
    let done = match resolve(&*around.store, key(document), job).await {
        Ok(job) => around.materialiser.run(job).await,
        Err(error) => Err(error),
    };
    let outcome = match &done {
        Ok(_) => "ok",
        Err(JobError::Incoming(_)) => "incoming",
        Err(JobError::Breaks { .. }) => "breaks",
        Err(JobError::Base(_)) => "base",
        Err(JobError::OverLimit(_)) => "over-limit",
        Err(JobError::Storage(_)) => "storage",
        Err(JobError::Unavailable(_)) => "unavailable",
    };
    around.metrics.job_done(kind, outcome, start.elapsed());
    done
}

/// Where a document is stored: without accounts everything is of one tenant.
pub(super) fn key(document: DocumentId) -> DocumentKey {
    DocumentKey { tenant: Tenant::default(), document }
}
