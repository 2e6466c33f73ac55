//! Chunks by where they are, to chunks in hand.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    replica::{ChunkSource, Job, JobError, JobOutput, Kind, RowKey, StorageFailure},
    store::{DocumentKey, Store},
    worker::{Materialiser, WorkerJob},
};

use super::content::Incoming;

/// Bytes of chunks in hand, in the order of their sources, and whether each is a snapshot.
async fn fetch(
    store: &dyn Store,
    key: &DocumentKey,
    sources: Vec<ChunkSource>,
) -> Result<Vec<(Option<Kind>, Bytes)>, StorageFailure> {
    let rows: Vec<RowKey> = sources
        .iter()
        .filter_map(|source| match source {
            ChunkSource::Stored(row) => Some(*row),
            ChunkSource::Inline(_) => None,
        })
        .collect();
    let mut read = if rows.is_empty() {
        Vec::new()
    } else {
        store.read(key.clone(), rows).await?
    }
    .into_iter();
    sources
        .into_iter()
        .map(|source| match source {
            ChunkSource::Inline(bytes) => Ok((None, bytes)),
            ChunkSource::Stored(row) => match read.next().flatten() {
                Some(bytes) => Ok((Some(row.kind), bytes)),
                None => Err(StorageFailure::Damaged(format!(
                    "a {:?} row of {} is not there",
                    row.kind, key.document
                ))),
            },
        })
        .collect()
}

/// The type byte of a document chunk, after four of magic and four of checksum.
const DOCUMENT_CHUNK: u8 = 0;

/// Chunks to make a document's content of.
pub(super) async fn contents(
    store: &dyn Store,
    key: &DocumentKey,
    sources: Vec<ChunkSource>,
) -> Result<Vec<Incoming>, String> {
    let chunks = fetch(store, key, sources).await.map_err(|failure| failure.to_string())?;
    Ok(chunks
        .into_iter()
        .map(|(kind, bytes)| match kind {
            Some(Kind::Snapshot) => Incoming::Snapshot(bytes),
            None if bytes.get(8) == Some(&DOCUMENT_CHUNK) => Incoming::Snapshot(bytes),
            _ => Incoming::Change(bytes),
        })
        .collect())
}

/// Does a job of the replica.
pub(super) async fn work(
    store: Arc<dyn Store>,
    materialiser: Arc<dyn Materialiser>,
    key: DocumentKey,
    job: Job,
) -> Result<JobOutput, JobError> {
    let all = async |sources| {
        let chunks = fetch(&*store, &key, sources).await.map_err(JobError::Storage)?;
        Ok::<_, JobError>(chunks.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>())
    };
    let job = match job {
        Job::Build { base, incoming, explode_max } => {
            WorkerJob::Build { base: all(base).await?, incoming, explode_max }
        }
        Job::Extract { snapshot, hashes } => WorkerJob::Extract {
            snapshot: all(vec![snapshot]).await?.pop().unwrap_or_default(),
            hashes,
        },
        Job::Check { base, incoming } => {
            WorkerJob::Check { base: all(base).await?, incoming: all(incoming).await? }
        }
    };
    materialiser.run(job).await
}
