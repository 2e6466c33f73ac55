//! What a small edit takes on disk: the rows that are there, and the directory as the system counts
//! it, before changes are compacted into a snapshot and after. No server takes part.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use automerge::{ROOT, transaction::Transactable as _};
use clap::Args;
use tokio::time::{Instant, sleep};

use super::{
    BenchError, live::failed, observed::Observed, progress, report::Report, scratch::Scratch,
    stats::to_f64,
};
use crate::{
    peer::Peer,
    replica::{COMPACT_CHANGES, Kind, RowKey, RowWrite},
    store::{self, DocumentKey, Engine, Tenant},
};

/// Edits of a document that is not compacted yet: fewer than call for a snapshot.
const BEFORE: u32 = 400;
/// How long a snapshot may take to come.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
pub(super) struct StoredArgs {
    /// Documents that are edited
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    documents: u32,
    /// Edits of each that are compacted, at least: it goes on to the one that calls for a snapshot
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(500..=100_000))]
    edits: u32,
    /// The storage engine
    #[arg(long, default_value_t = Engine::default())]
    store: Engine,
}

/// What is there, and how long it is.
type Rows = Arc<Mutex<BTreeMap<(DocumentKey, RowKey), u64>>>;

/// Keeps count of what a write leaves.
fn weigh(rows: &Rows, key: &DocumentKey, writes: &[RowWrite]) {
    let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
    for write in writes {
        match write {
            RowWrite::Put(row, bytes) => {
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                rows.insert((key.clone(), *row), length);
            }
            RowWrite::Delete(row) => _ = rows.remove(&(key.clone(), *row)),
            RowWrite::Clear => {
                rows.retain(|(of, row), _| of != key || matches!(row.kind, Kind::Meta));
            }
        }
    }
}

/// Bytes of all rows.
fn weight(rows: &Rows) -> u64 {
    rows.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
}

/// Changes of a document that are in no snapshot.
fn loose(rows: &Rows, document: &DocumentKey) -> usize {
    let first = RowKey { kind: Kind::Meta, id: [0; 32], part: 0 };
    let rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
    let of = rows.range((document.clone(), first)..).take_while(|((of, _), _)| of == document);
    of.filter(|((_, row), _)| matches!(row.kind, Kind::Change)).count()
}

/// Bytes on disk, as the system counts them: blocks that were never written are not there.
fn on_disk(directory: &Path) -> Result<u64, std::io::Error> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in directory.read_dir()? {
        let entry = entry?;
        let about = entry.metadata()?;
        bytes += if about.is_dir() { on_disk(&entry.path())? } else { about.blocks() * 512 };
    }
    Ok(bytes)
}

/// Bytes of rows and on disk for each edit.
async fn stored(documents: u32, edits: u32, engine: Engine) -> Result<(f64, f64), BenchError> {
    let directory = Scratch::new()?;
    let open = || store::open(directory.path(), engine, &store::Options::default());
    let empty = open().map_err(failed)?;
    empty.close().await.map_err(failed)?;
    drop(empty);
    let at_first = on_disk(directory.path()).map_err(failed)?;

    let rows = Rows::default();
    let seen = Arc::clone(&rows);
    let see = move |key: &DocumentKey, writes: &[_]| weigh(&seen, key, writes);
    let store = Observed::new(open().map_err(failed)?, see);
    let peer = Peer::builder(directory.path()).store(Arc::new(store)).open().map_err(failed)?;
    let is_compacted = edits as usize >= COMPACT_CHANGES;
    let bar = progress((documents * edits) as usize, "editing");
    let mut made = 0_u32;
    for _ in 0..documents {
        let document = peer.create().await.map_err(failed)?;
        let tenant = Tenant::default();
        let key = DocumentKey { tenant, document: document.id().clone() };
        let mut edit = 0;
        // On to the edit that calls for a snapshot: what was compacted is measured, and not how
        // long ago that was.
        while edit < edits || is_compacted && loose(&rows, &key) < COMPACT_CHANGES {
            let title = format!("Title {edit}");
            document.change(|tx| Ok(tx.put(ROOT, "title", title)?)).await.map_err(failed)?;
            edit += 1;
            bar.inc(1);
        }
        made += edit;
        let until = Instant::now() + PATIENCE;
        while is_compacted && loose(&rows, &key) >= COMPACT_CHANGES && Instant::now() < until {
            sleep(Duration::from_millis(10)).await;
        }
    }
    bar.finish_and_clear();
    peer.close().await.map_err(failed)?;
    let on_disk = on_disk(directory.path()).map_err(failed)?.saturating_sub(at_first);
    Ok((to_f64(weight(&rows)) / f64::from(made), to_f64(on_disk) / f64::from(made)))
}

pub(super) async fn run(args: &StoredArgs) -> Result<Report, BenchError> {
    let mut report = Report::new("stored");
    report.setting("documents", args.documents);
    report.setting("edits", args.edits);
    report.setting("store", args.store.to_string());
    for (when, edits) in [("before", BEFORE), ("after", args.edits)] {
        let (rows, on_disk) = stored(args.documents, edits, args.store).await?;
        report.figure(&format!("{when}_row_bytes_per_edit"), rows);
        report.figure(&format!("{when}_disk_bytes_per_edit"), on_disk);
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_compacted_takes_less() {
        let args = StoredArgs { documents: 1, edits: 1_100, store: Engine::default() };
        let report: serde_json::Value =
            serde_json::from_str(&run(&args).await.unwrap().to_json()).unwrap();
        let figure = |name: &str| report["figures"][name].as_f64().unwrap();
        assert!(figure("after_row_bytes_per_edit") < figure("before_row_bytes_per_edit"));
        assert!(figure("before_disk_bytes_per_edit") > 0.0);
    }
}
