//! Many small documents, each made by one client and fetched by two others.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use concord_protocol::{ChangeHash, DocumentId};
use tokio::sync::mpsc;

use super::{
    BenchError, Context, Report,
    changes::{Document, typed_document},
    doing,
    light::LightDocument,
    progress,
    server_usage::Meter,
    session::{Session, random_document_id},
    stats::{Latencies, per_second},
};

/// Clients that fetch each document, besides the one that makes it.
const READERS: usize = 2;

#[derive(Debug, Args)]
pub(super) struct ManyArgs {
    /// Documents to make
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    documents: u32,
    /// Characters in each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    operations: u32,
    /// Documents that are on their way at most
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    in_flight: u32,
    /// Seconds to stay connected before memory is measured
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    hold: u32,
    /// Seconds after everybody left before memory is measured once more
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=3_600))]
    settle: u32,
}

/// A document that the server has, for the readers to fetch.
#[derive(Clone)]
struct Offer {
    id: DocumentId,
    heads: Arc<[ChangeHash]>,
}

pub(super) async fn run(args: &ManyArgs, context: &Context) -> Result<Report, BenchError> {
    let count = args.documents as usize;
    let bar = progress(count, "making documents");
    let mut documents = Vec::with_capacity(count);
    for number in 0..args.documents {
        let mut actor = [0xD0; 16];
        actor[..4].copy_from_slice(&number.to_be_bytes());
        let (_, document) = typed_document(&actor, args.operations as usize)?;
        documents.push((random_document_id()?, document));
        bar.inc(1);
    }
    bar.finish_and_clear();

    let look = || context.meter.map(Meter::look).transpose();
    let idle = look()?;
    let mut creator = Session::open(context).await?;
    let (done, mut dones) = mpsc::unbounded_channel();
    let mut offers = Vec::new();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let (offer, offered) = mpsc::unbounded_channel();
        offers.push(offer);
        let session = Session::open(context).await?;
        readers.push(tokio::spawn(fetch(session, offered, done.clone())));
    }
    drop(done);

    let started = Instant::now();
    let mut work = Creation {
        session: &mut creator,
        offers: &offers,
        in_flight: args.in_flight as usize,
        waiting: HashMap::new(),
        complete: 0,
        latencies: Latencies::new(),
    };
    work.run(documents, &mut dones, context.timeout).await?;
    let elapsed = started.elapsed();
    let (complete, latencies) = (work.complete, work.latencies);
    let after = look()?;

    if args.hold > 0 {
        stay(&mut creator, Duration::from_secs(args.hold.into())).await?;
    }
    let held = look()?;
    drop(offers);
    creator.close().await;
    let mut report = Report::new("many");
    for reader in readers {
        if let Err(error) = reader.await? {
            report.failure(error.to_string());
        }
    }
    if args.settle > 0 {
        let _settling = doing("letting the server settle");
        tokio::time::sleep(Duration::from_secs(args.settle.into())).await;
    }
    let settled = look()?;

    report.setting("documents", args.documents);
    report.setting("operations", args.operations);
    report.setting("in_flight", args.in_flight);
    report.latency(latencies.percentiles());
    report.figure("elapsed_s", elapsed.as_secs_f64());
    report.figure("documents_per_s", per_second(complete, elapsed));
    report.undelivered(count - complete);
    report.server("idle", idle, None);
    report.server("after", after, idle);
    if args.hold > 0 {
        report.server("held", held, None);
    }
    if args.settle > 0 {
        report.server("settled", settled, None);
    }
    if let (Some(idle), Some(held)) = (idle, held) {
        report.figure("memory_added_mib", held.rss_mib - idle.rss_mib);
    }
    Ok(report)
}

/// Stays connected for a time: reads, so that pings are answered.
async fn stay(session: &mut Session, span: Duration) -> Result<(), BenchError> {
    let read = async {
        loop {
            let touched = session.receive().await?;
            session.answer(&touched).await?;
        }
    };
    tokio::time::timeout(span, read).await.unwrap_or(Ok(()))
}

/// A document on its way.
struct Pending {
    heads: Arc<[ChangeHash]>,
    since: Instant,
    offered: bool,
    fetched: usize,
}

/// The client that makes the documents.
struct Creation<'a> {
    session: &'a mut Session,
    offers: &'a [mpsc::UnboundedSender<Offer>],
    in_flight: usize,
    waiting: HashMap<DocumentId, Pending>,
    complete: usize,
    latencies: Latencies,
}

impl Creation<'_> {
    /// Makes all documents; returns when all have them, or nothing moves any more.
    async fn run(
        &mut self,
        documents: Vec<(DocumentId, Document)>,
        dones: &mut mpsc::UnboundedReceiver<DocumentId>,
        patience: Duration,
    ) -> Result<(), BenchError> {
        let bar = progress(documents.len(), "synchronising documents");
        let mut left = documents.into_iter();
        loop {
            while self.waiting.len() < self.in_flight {
                let Some((id, document)) = left.next() else {
                    break;
                };
                self.create(id, &document).await?;
            }
            if self.waiting.is_empty() {
                break;
            }
            tokio::select! {
                done = dones.recv() => match done {
                    Some(id) => self.fetched(&id),
                    // Both readers have failed, which they say themselves.
                    None => break,
                },
                touched = self.session.receive() => {
                    let touched = touched?;
                    self.session.answer(&touched).await?;
                    self.offer(&touched);
                }
                () = tokio::time::sleep(patience) => break,
            }
            bar.set_position(u64::try_from(self.complete).unwrap_or(0));
        }
        bar.finish_and_clear();
        Ok(())
    }

    async fn create(&mut self, id: DocumentId, document: &Document) -> Result<(), BenchError> {
        let pending = Pending {
            heads: document.heads.as_slice().into(),
            since: Instant::now(),
            offered: false,
            fetched: 0,
        };
        self.session.offer(&id, LightDocument::holding(document, None)).await?;
        self.waiting.insert(id, pending);
        Ok(())
    }

    /// Tells the readers of what the server now has.
    fn offer(&mut self, touched: &[DocumentId]) {
        for id in touched {
            let Some(pending) = self.waiting.get_mut(id) else {
                continue;
            };
            let settled = self.session.document(id).is_some_and(LightDocument::is_settled);
            if settled && !pending.offered {
                pending.offered = true;
                for reader in self.offers {
                    // A reader that has failed says so itself.
                    let _ = reader.send(Offer { id: id.clone(), heads: pending.heads.clone() });
                }
            }
        }
    }

    fn fetched(&mut self, id: &DocumentId) {
        let Some(pending) = self.waiting.get_mut(id) else {
            return;
        };
        pending.fetched += 1;
        if pending.fetched == self.offers.len() {
            self.latencies.record(pending.since.elapsed());
            self.complete += 1;
            self.waiting.remove(id);
        }
    }
}

/// Fetches what is offered until nothing more will be, then leaves.
async fn fetch(
    mut session: Session,
    mut offered: mpsc::UnboundedReceiver<Offer>,
    done: mpsc::UnboundedSender<DocumentId>,
) -> Result<(), BenchError> {
    let mut expected: HashMap<DocumentId, Arc<[ChangeHash]>> = HashMap::new();
    loop {
        tokio::select! {
            offer = offered.recv() => {
                let Some(Offer { id, heads }) = offer else { break };
                session.request(&id, LightDocument::expecting(None)).await?;
                expected.insert(id, heads);
            }
            touched = session.receive() => {
                let touched = touched?;
                session.answer(&touched).await?;
                for id in touched {
                    let here = |heads: &Arc<[ChangeHash]>| {
                        session.document(&id).is_some_and(|document| document.is_at(heads))
                    };
                    if expected.get(&id).is_some_and(here) {
                        expected.remove(&id);
                        // Nobody counts any more when the creator has given up.
                        let _ = done.send(id);
                    }
                }
            }
        }
    }
    session.close().await;
    Ok(())
}
