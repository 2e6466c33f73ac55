//! Jobs on their way to a worker: what they need is read from storage first.

use std::time::Instant;

use bytes::Bytes;
use concord_protocol::DocumentId;

use crate::{
    replica::{ChunkSource, Job, JobError, JobOutput, RowKey, StorageFailure},
    store::{DocumentKey, Store, Tenant},
    worker::WorkerJob,
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
    let done = match resolve(&*around.store, document, job).await {
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

async fn resolve(store: &dyn Store, document: DocumentId, job: Job) -> Result<WorkerJob, JobError> {
    Ok(match job {
        Job::Build { base, incoming, explode_max } => {
            WorkerJob::Build { base: chunks(store, &document, base).await?, incoming, explode_max }
        }
        Job::Extract { snapshot, hashes } => {
            let mut found = chunks(store, &document, vec![snapshot]).await?;
            let snapshot =
                found.pop().ok_or_else(|| gone("no snapshot".to_owned()))?;
            WorkerJob::Extract { snapshot, hashes }
        }
        Job::Check { base, incoming } => WorkerJob::Check {
            base: chunks(store, &document, base).await?,
            incoming: chunks(store, &document, incoming).await?,
        },
    })
}

/// The bytes of chunks, in order, with one read for all that are stored.
async fn chunks(
    store: &dyn Store,
    document: &DocumentId,
    sources: Vec<ChunkSource>,
) -> Result<Vec<Bytes>, JobError> {
    let rows: Vec<RowKey> = sources
        .iter()
        .filter_map(|source| match source {
            ChunkSource::Stored(row) => Some(*row),
            ChunkSource::Inline(_) => None,
        })
        .collect();
    let mut stored = if rows.is_empty() {
        Vec::new()
    } else {
        let reading = store.read(key(document.clone()), rows);
        reading.await.map_err(|error| JobError::Storage(error.into()))?
    }
    .into_iter();
    sources
        .into_iter()
        .map(|source| match source {
            ChunkSource::Inline(bytes) => Ok(bytes),
            ChunkSource::Stored(row) => stored.next().flatten().ok_or_else(|| {
                gone(format!("no row of kind {:?} where there was one", row.kind))
            }),
        })
        .collect()
}

fn gone(what: String) -> JobError {
    JobError::Storage(StorageFailure::Damaged(what))
}

/// Where a document is stored: without accounts everything is of one tenant.
pub(super) fn key(document: DocumentId) -> DocumentKey {
    DocumentKey { tenant: Tenant::default(), document }
}
