//! One who types into a long text of the embedded peer, alone: what an edit costs until somebody who
//! watches the document sees it, until the store has it, and until it is on disk. No server takes
//! part.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, Instant},
};

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use clap::Args;
use concord_protocol::ChangeHash;

use super::{
    BenchError, changes::typed_document, doing, live::failed, observed::Observed, progress,
    report::Report, scratch::Scratch, stats::Latencies,
};
use crate::{
    peer::{Document, DocumentEvent, Peer},
    replica::{Kind, RowKey, RowWrite},
    store::{self, DocumentKey},
};

/// Edits before those that count: the first after a start touch everything for the first time.
const WARM_UP: u32 = 100;
/// Edits go all over the text: a step with no factor in common with most lengths.
const STEP: usize = 7_919;
/// For what takes a hundredth of a millisecond as a rule.
const PATIENCE: Duration = Duration::from_secs(10);

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

/// When each change was handed to the store.
type Handed = Arc<Mutex<HashMap<ChangeHash, Instant>>>;

/// Notes when each change is handed to the store.
fn note(handed: &Handed, writes: &[RowWrite]) {
    let now = Instant::now();
    let mut handed = handed.lock().unwrap_or_else(PoisonError::into_inner);
    for write in writes {
        if let RowWrite::Put(RowKey { kind: Kind::Change, id, .. }, _) = write {
            handed.insert(ChangeHash(*id), now);
        }
    }
}

/// Says when each local change is seen by somebody else in this program, who watches the document.
fn subscriber(document: &Document) -> mpsc::Receiver<Instant> {
    let mut watcher = document.watch();
    let (seen, sees) = mpsc::channel();
    tokio::spawn(async move {
        loop {
            if let DocumentEvent::Changed { local: true, .. } = watcher.next().await
                && seen.send(Instant::now()).is_err()
            {
                return;
            }
        }
    });
    sees
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
    let handed = Handed::default();
    let notes = Arc::clone(&handed);
    let store = Observed::new(inner, move |_: &DocumentKey, writes: &[_]| note(&notes, writes));
    let peer = Peer::builder(directory.path()).store(Arc::new(store));
    let peer = peer.index(!args.no_index).open().map_err(failed)?;
    let document = peer.find(&imported).await.map_err(failed)?;

    drop(preparing);
    let (mut until_store, mut until_disk) = (Latencies::new(), Latencies::new());
    let (mut until_seen, sees) = (Latencies::new(), subscriber(&document));
    let bar = progress(args.edits as usize, "typing");
    for number in 0..WARM_UP.saturating_add(args.edits) {
        let (started, stored, durable) = edit(&document, &handed, number as usize).await?;
        // Long before the disk had it, as a rule.
        let seen = tokio::task::block_in_place(|| sees.recv_timeout(PATIENCE)).map_err(failed)?;
        if number >= WARM_UP {
            until_seen.record(seen.saturating_duration_since(started));
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
    let times =
        [("until_seen", until_seen), ("until_store", until_store), ("until_disk", until_disk)];
    for (name, times) in times {
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

/// One character: when, and the time from then until the store was given the change, and until the
/// call returned, with the change on disk.
async fn edit(
    document: &Document,
    handed: &Handed,
    number: usize,
) -> Result<(Instant, Duration, Duration), BenchError> {
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
    let stored = handed.lock().unwrap_or_else(PoisonError::into_inner).remove(&change);
    let stored = stored.ok_or_else(|| failed(format!("{change} was not stored")))?;
    Ok((started, stored.saturating_duration_since(started), durable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn all_times_of_every_edit_are_found() {
        let args = LocalEditArgs { operations: 50, edits: 20, no_index: false };
        let report: serde_json::Value =
            serde_json::from_str(&run(&args).await.unwrap().to_json()).unwrap();
        let figure = |name: &str| report["figures"][name].as_f64().unwrap();
        assert!(figure("until_store_p50_us") > 0.0);
        assert!(figure("until_seen_max_us") > 0.0);
        assert!(figure("until_store_p50_us") < figure("until_disk_p50_us"));
        assert!(figure("until_disk_p99_us") <= figure("until_disk_max_us"));
    }
}
