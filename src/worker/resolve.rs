//! Jobs that say where their chunks are, to jobs with their chunks in hand.
//!
//! The rules are in functions without a store, so that simulations share them: [`job_rows`] says what
//! is to be read, [`worker_job`] puts in what was read.

use bytes::Bytes;

use super::WorkerJob;
use crate::{
    replica::{ChunkSource, Job, JobError, RowKey, StorageFailure},
    store::{DocumentKey, Store},
};

/// The rows that sources name, in order.
fn rows(sources: &[ChunkSource]) -> Vec<RowKey> {
    let stored = |source: &ChunkSource| match source {
        ChunkSource::Stored(row) => Some(*row),
        ChunkSource::Inline(_) => None,
    };
    sources.iter().filter_map(stored).collect()
}

/// The rows that a job names, in order.
pub fn job_rows(job: &Job) -> Vec<RowKey> {
    match job {
        Job::Build { base, .. } => rows(base),
        Job::Extract { snapshot, .. } => rows(std::slice::from_ref(snapshot)),
        Job::Check { base, incoming } => [rows(base), rows(incoming)].concat(),
    }
}

/// The bytes of sources, in order; `read` are the rows that [`rows`] named.
///
/// # Errors
/// [`JobError::Storage`] if one of them is not there.
fn chunks(
    sources: Vec<ChunkSource>,
    read: impl IntoIterator<Item = Option<Bytes>>,
) -> Result<Vec<Bytes>, JobError> {
    let mut read = read.into_iter();
    sources
        .into_iter()
        .map(|source| match source {
            ChunkSource::Inline(bytes) => Ok(bytes),
            ChunkSource::Stored(row) => read.next().flatten().ok_or_else(|| {
                let gone = format!("no row of kind {:?} where there was one", row.kind);
                JobError::Storage(StorageFailure::Damaged(gone))
            }),
        })
        .collect()
}

/// A job for a worker; `read` are the rows that [`job_rows`] named.
///
/// # Errors
/// [`JobError::Storage`] if one of them is not there.
pub fn worker_job(
    job: Job,
    read: impl IntoIterator<Item = Option<Bytes>>,
) -> Result<WorkerJob, JobError> {
    let mut read = read.into_iter();
    Ok(match job {
        Job::Build { base, incoming, explode_max } => {
            WorkerJob::Build { base: chunks(base, read)?, incoming, explode_max }
        }
        Job::Extract { snapshot, hashes } => WorkerJob::Extract {
            // One source gives one chunk.
            snapshot: chunks(vec![snapshot], read)?.pop().unwrap_or_default(),
            hashes,
        },
        Job::Check { base, incoming } => WorkerJob::Check {
            base: chunks(base, read.by_ref())?,
            incoming: chunks(incoming, read)?,
        },
    })
}

/// Reads what a job needs, all rows with one read.
///
/// # Errors
/// [`JobError::Storage`] if one of them is not there or cannot be read.
pub async fn resolve(store: &dyn Store, key: DocumentKey, job: Job) -> Result<WorkerJob, JobError> {
    let read = read(store, key, job_rows(&job)).await?;
    worker_job(job, read)
}

async fn read(
    store: &dyn Store,
    key: DocumentKey,
    rows: Vec<RowKey>,
) -> Result<Vec<Option<Bytes>>, JobError> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    store.read(key, rows).await.map_err(|error| JobError::Storage(error.into()))
}

#[cfg(test)]
mod tests {
    use concord_protocol::DocumentId;

    use super::*;
    use crate::{
        replica::{Kind, RowWrite},
        store::{self, Tenant},
    };

    const fn row(n: u8) -> RowKey {
        RowKey { kind: Kind::Change, id: [n; 32], part: 0 }
    }

    fn inline(text: &'static str) -> ChunkSource {
        ChunkSource::Inline(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn chunks_come_in_the_order_of_their_sources() {
        let store = store::memory().unwrap();
        let document = DocumentId::from_bytes(&[1; 16]);
        let key = DocumentKey { tenant: Tenant::default(), document };
        let put =
            |n, text: &'static str| RowWrite::Put(row(n), Bytes::from_static(text.as_bytes()));
        store.write(key.clone(), vec![put(1, "a"), put(2, "b")]).await.unwrap();

        let job = Job::Check {
            base: vec![ChunkSource::Stored(row(2)), inline("x")],
            incoming: vec![inline("y"), ChunkSource::Stored(row(1))],
        };
        let whole = WorkerJob::Check {
            base: vec!["b".into(), "x".into()],
            incoming: vec!["y".into(), "a".into()],
        };
        assert_eq!(resolve(&*store, key.clone(), job).await, Ok(whole));

        let base = vec![ChunkSource::Stored(row(1)), ChunkSource::Stored(row(3))];
        let missing = Job::Build { base, incoming: Vec::new(), explode_max: 0 };
        let failed = resolve(&*store, key, missing).await;
        assert!(matches!(failed, Err(JobError::Storage(_))), "{failed:?}");
    }
}
