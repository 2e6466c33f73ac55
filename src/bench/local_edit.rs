//! One who types into a long text of the embedded peer, alone: what an edit costs until the store
//! has it, and until it is on disk. No server takes part.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use bytes::Bytes;
use clap::Args;
use concord_protocol::{ChangeHash, DocumentId, StorageId};

use super::{
    BenchError, changes::typed_document, doing, live::failed, progress, report::Report,
    scratch::Scratch, stats::Latencies,
};
use crate::{
    peer::{Document, Peer},
    replica::{Kind, RowKey, RowWrite, StoredDocument},
    store::{self, BoxFuture, DocumentKey, Store, StoreError, StoreStats, Tenant},
};

/// Edits before those that count: the first after a start touch everything for the first time.
const WARM_UP: u32 = 100;
/// Edits go all over the text: a step with no factor in common with most lengths.
const STEP: usize = 7_919;

#[derive(Debug, Args)]
pub(super) struct LocalEditArgs {
    /// Characters of the text, each typed with its own change
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    operations: u32,
    /// Edits of one character, one after the other
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    edits: u32,
    /// Without the index of entities, to see what it costs
    #[arg(long)]
    no_index: bool,
}

/// A store that notes when each change was handed to it.
struct Noting {
    inner: Arc<dyn Store>,
    handed: Mutex<HashMap<ChangeHash, Instant>>,
}

impl Noting {
    fn take(&self, change: ChangeHash) -> Option<Instant> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner).remove(&change)
    }
}

impl Store for Noting {
    fn storage_id(&self) -> StorageId {
        self.inner.storage_id()
    }

    fn load(&self, key: DocumentKey) -> BoxFuture<Result<StoredDocument, StoreError>> {
        self.inner.load(key)
    }

    fn read(
        &self,
        key: DocumentKey,
        rows: Vec<RowKey>,
    ) -> BoxFuture<Result<Vec<Option<Bytes>>, StoreError>> {
        self.inner.read(key, rows)
    }

    fn write(&self, key: DocumentKey, writes: Vec<RowWrite>) -> BoxFuture<Result<(), StoreError>> {
        let now = Instant::now();
        let mut handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
        for write in &writes {
            if let RowWrite::Put(RowKey { kind: Kind::Change, id, .. }, _) = write {
                handed.insert(ChangeHash(*id), now);
            }
        }
        drop(handed);
        self.inner.write(key, writes)
    }

    fn documents(
        &self,
        tenant: Tenant,
        after: Option<DocumentId>,
        limit: usize,
    ) -> BoxFuture<Result<Vec<DocumentId>, StoreError>> {
        self.inner.documents(tenant, after, limit)
    }

    fn close(&self) -> BoxFuture<Result<(), StoreError>> {
        self.inner.close()
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }
}

/// Types, and reports both times of every edit.
pub(super) async fn run(args: &LocalEditArgs) -> Result<Report, BenchError> {
    let directory = Scratch::new()?;
    let preparing = doing("making the text");
    let (_, text) = typed_document(&[0xED; 16], args.operations as usize)?;
    let peer = Peer::open(directory.path()).map_err(failed)?;
    let imported = peer.import(text.chunk).await.map_err(failed)?.url().to_string();
    peer.close().await.map_err(failed)?;
    drop(peer);

    // As an application that is started again: what is measured is not what an import left over.
    let engine = store::Engine::default();
    let inner =
        store::open(directory.path(), engine, &store::Options::default()).map_err(failed)?;
    let store = Arc::new(Noting { inner, handed: Mutex::default() });
    let peer = Peer::builder(directory.path()).store(store.clone());
    let peer = peer.index(!args.no_index).open().map_err(failed)?;
    let document = peer.find(&imported).await.map_err(failed)?;

    drop(preparing);
    let (mut until_store, mut until_disk) = (Latencies::new(), Latencies::new());
    let bar = progress(args.edits as usize, "typing");
    for number in 0..WARM_UP.saturating_add(args.edits) {
        let (stored, durable) = edit(&document, &store, number as usize).await?;
        if number >= WARM_UP {
            until_store.record(stored);
            until_disk.record(durable);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    drop(document);
    peer.close().await.map_err(failed)?;

    let mut report = Report::new("local-edit");
    report.setting("operations", args.operations);
    report.setting("edits", args.edits);
    report.setting("index", !args.no_index);
    report.setting("store", engine.to_string());
    for (name, times) in [("until_store", until_store), ("until_disk", until_disk)] {
        let Some(found) = times.percentiles() else { continue };
        for (which, ms) in [
            ("p50", found.p50_ms),
            ("p95", found.p95_ms),
            ("p99", found.p99_ms),
            ("max", found.max_ms),
        ] {
            report.figure(&format!("{name}_{which}_us"), ms * 1_000.0);
        }
    }
    Ok(report)
}

/// One character: the time from the call until the store was given the change, and until the call
/// returned, with the change on disk.
async fn edit(
    document: &Document,
    store: &Noting,
    number: usize,
) -> Result<(Duration, Duration), BenchError> {
    let found = document.read(|doc| {
        let text = doc.get(ROOT, "text").ok().flatten().map(|(_, text)| text);
        text.map(|text| (doc.length(&text), text))
    });
    let (length, text) = found.map_err(failed)?.ok_or_else(|| failed("there is no text"))?;
    let place = (number * STEP) % (length + 1);
    let started = Instant::now();
    let changed = document.change(|tx| Ok(tx.splice_text(&text, place, 0, "x")?)).await;
    let durable = started.elapsed();
    let change = changed.map_err(failed)?.change.ok_or_else(|| failed("nothing was written"))?;
    let handed = store.take(change).ok_or_else(|| failed(format!("{change} was not stored")))?;
    Ok((handed.saturating_duration_since(started), durable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_times_of_every_edit_are_found() {
        let args = LocalEditArgs { operations: 50, edits: 20, no_index: false };
        let report: serde_json::Value =
            serde_json::from_str(&run(&args).await.unwrap().to_json()).unwrap();
        let figure = |name: &str| report["figures"][name].as_f64().unwrap();
        assert!(figure("until_store_p50_us") > 0.0);
        assert!(figure("until_store_p50_us") < figure("until_disk_p50_us"));
        assert!(figure("until_disk_p99_us") <= figure("until_disk_max_us"));
    }
}
