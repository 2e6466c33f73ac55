//! A recorded editing history, typed again by two live peers that meet through a relay.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::Poll,
    time::{Duration, Instant},
};

use automerge::{
    ObjId, ObjType, ROOT, ReadDoc as _, Value,
    transaction::{Transactable as _, Transaction as AutomergeTransaction},
};
use concord_protocol::ChangeHash;
use futures_util::poll;

use super::{
    BenchError, doing, progress,
    report::Report,
    scratch::Scratch,
    stats,
    trace::{Patch, Trace, Transaction},
};
use crate::{
    peer::{ChangeError, Changed, Document, Peer},
    store,
};

/// Edits whose way to the disk is not waited for one by one.
const IN_FLIGHT: usize = 256;

type Edit<'a> = Pin<Box<dyn Future<Output = Result<Changed<()>, ChangeError>> + Send + 'a>>;

pub(super) fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Document(error.to_string())
}

/// One of the two who type.
struct Writer {
    peer: Peer,
    document: Document,
}

impl Writer {
    fn start(
        url: &str,
        trusted: &[Vec<u8>],
        directory: &std::path::Path,
        durable: bool,
    ) -> Result<Peer, BenchError> {
        // What is measured is the way of each edit, and not how long it rests before.
        let mut builder =
            Peer::builder(directory).relay(url).debounce(Duration::ZERO, Duration::ZERO);
        for pem in trusted {
            builder = builder.trust(pem.as_slice());
        }
        if !durable {
            builder = builder.store(store::memory().map_err(failed)?);
        }
        builder.open().map_err(failed)
    }

    fn text(&self) -> Result<Option<ObjId>, BenchError> {
        let found = self.document.read(|doc| match doc.get(ROOT, "text") {
            Ok(Some((Value::Object(ObjType::Text), id))) => Some(id),
            _ => None,
        });
        found.map_err(failed)
    }

    fn content(&self) -> Result<String, BenchError> {
        let Some(text) = self.text()? else {
            return Ok(String::new());
        };
        self.document.read(|doc| doc.text(&text)).map_err(failed)?.map_err(failed)
    }

    /// Waits until something is so, looking again whenever the document changes.
    async fn until(
        &self,
        timeout: Duration,
        mut so: impl FnMut(&Self) -> Result<bool, BenchError>,
    ) -> Result<(), BenchError> {
        let mut watcher = self.document.watch();
        let seconds = timeout.as_secs();
        while !so(self)? {
            let event = tokio::time::timeout(timeout, watcher.next()).await;
            event.map_err(|_| BenchError::Stalled { what: "replaying the trace", seconds })?;
        }
        Ok(())
    }
}

/// Replays a trace and compares both texts with its end.
pub(super) async fn run(
    trace: &Trace,
    url: &str,
    trusted: &[Vec<u8>],
    durable: bool,
    timeout: Duration,
) -> Result<Report, BenchError> {
    let preparing = doing("connecting two peers");
    let directory = Scratch::new()?;
    let start = |name| Writer::start(url, trusted, &directory.path().join(name), durable);
    let (first, second) = (start("first")?, start("second")?);
    let document = first.create().await.map_err(failed)?;
    let start_content = trace.start_content.clone();
    let begun = document
        .change(|tx| {
            let text = tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.splice_text(&text, 0, 0, &start_content)?;
            Ok(())
        })
        .await
        .map_err(failed)?;
    document.wait_confirmed(timeout).await.map_err(failed)?;
    let other = second.find(&document.url().to_string()).await.map_err(failed)?;
    let writers = [Writer { peer: first, document }, Writer { peer: second, document: other }];
    let root = begun.change.ok_or_else(|| failed("nothing was written"))?;
    writers[1].until(timeout, |writer| writer.document.holds(root).map_err(failed)).await?;
    let text = writers[0].text()?.ok_or_else(|| failed("there is no text"))?;

    drop(preparing);
    let started = Instant::now();
    let bar = progress(trace.transactions.len(), "replaying");
    type_all(trace, &writers, &text, root, timeout, &bar).await?;
    let typed = started.elapsed();
    bar.finish_and_clear();
    let converging = doing("waiting until both have everything");
    for writer in &writers {
        writer.until(timeout, |writer| Ok(writer.content()? == trace.end_content)).await.or_else(
            |error| trace.check_end(&writer.content()?).map_err(BenchError::from).and(Err(error)),
        )?;
    }
    let converged = started.elapsed();
    drop(converging);

    let mut report = Report::new("trace");
    report.setting("transactions", trace.transactions.len());
    report.setting("authors", trace.num_agents);
    report.setting("peers' store", if durable { "sled" } else { "memory" });
    report.figure("typed_s", typed.as_secs_f64());
    report.figure("converged_s", converged.as_secs_f64());
    report.figure("transactions_per_s", stats::per_second(trace.transactions.len(), converged));
    report.figure("characters", stats::to_f64(trace.end_content.chars().count()));
    report.figure("texts_equal_to_the_trace", 2.0);
    for Writer { peer, document } in writers {
        drop(document);
        peer.close().await.map_err(failed)?;
    }
    Ok(report)
}

/// Types every transaction, each on what its author had seen.
async fn type_all(
    trace: &Trace,
    writers: &[Writer; 2],
    text: &ObjId,
    root: ChangeHash,
    timeout: Duration,
    bar: &indicatif::ProgressBar,
) -> Result<(), BenchError> {
    let concurrent = trace.is_concurrent();
    let mut hashes: Vec<ChangeHash> = Vec::with_capacity(trace.transactions.len());
    let mut pending: VecDeque<(usize, Edit<'_>)> = VecDeque::new();
    for (index, transaction) in trace.transactions.iter().enumerate() {
        let writer = &writers[transaction.agent % 2];
        let parents = trace.parents(index);
        let mut heads = Vec::with_capacity(parents.len().max(1));
        if concurrent {
            // The hash of an edit is known when it has been made, which is before it is on disk.
            while pending.front().is_some_and(|(first, _)| parents.iter().any(|p| p >= first)) {
                finish(&mut pending, &mut hashes).await?;
            }
            heads.extend(parents.iter().filter_map(|parent| hashes.get(*parent).copied()));
            if heads.is_empty() {
                heads.push(root);
            }
            let heads = &heads;
            let all_there = |writer: &Writer| {
                heads.iter().try_fold(true, |all, head| {
                    writer.document.holds(*head).map(|there| all && there).map_err(failed)
                })
            };
            if !all_there(writer)? {
                writer.until(timeout, all_there).await?;
            }
        }
        let edit = apply(transaction, text);
        let document = &writer.document;
        let mut change: Edit<'_> = if concurrent {
            Box::pin(async move { document.change_at(&heads, edit).await })
        } else {
            Box::pin(document.change(edit))
        };
        // The first poll is the edit; the rest is the disk.
        match poll!(&mut change) {
            Poll::Ready(changed) => pending.push_back((index, Box::pin(async { changed }))),
            Poll::Pending => pending.push_back((index, change)),
        }
        if pending.len() >= IN_FLIGHT {
            finish(&mut pending, &mut hashes).await?;
        }
        bar.inc(1);
    }
    while !pending.is_empty() {
        finish(&mut pending, &mut hashes).await?;
    }
    Ok(())
}

async fn finish(
    pending: &mut VecDeque<(usize, Edit<'_>)>,
    hashes: &mut Vec<ChangeHash>,
) -> Result<(), BenchError> {
    if let Some((index, edit)) = pending.pop_front() {
        let changed = edit.await.map_err(failed)?;
        let hash = changed.change.ok_or_else(|| failed(format!("transaction {index} is empty")))?;
        hashes.push(hash);
    }
    Ok(())
}

fn apply<'a>(
    transaction: &'a Transaction,
    text: &'a ObjId,
) -> impl FnOnce(&mut AutomergeTransaction<'_>) -> Result<(), crate::peer::EditError> + 'a {
    move |tx| {
        for Patch(at, deleted, inserted) in &transaction.patches {
            let deleted = isize::try_from(*deleted).unwrap_or(isize::MAX);
            tx.splice_text(text, *at, deleted, inserted)?;
        }
        Ok(())
    }
}
