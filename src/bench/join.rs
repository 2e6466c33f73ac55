//! Many clients fetch one large document at once.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use concord_protocol::{ChangeHash, DocumentId};
use sha2::{Digest, Sha256};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use super::{
    BenchError, Context, Report,
    changes::{Document, typed_document},
    doing,
    light::LightDocument,
    progress,
    server_usage::Meter,
    session::{Session, uploaded},
    stats::{Latencies, per_second, to_f64},
    trace::Trace,
    trace_document,
};

/// A client gives up after so many times --timeout, whatever still comes.
const PATIENCE_FACTOR: u32 = 10;

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// Clients that fetch the document
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// The document: what this editing trace leads to (.json or .json.gz)
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Without a trace: characters of a typed text, each a change. From about 40,000 on servers
    /// take it for an attack: it is a few hundred bytes that take seconds to open
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    operations: u32,
    /// Transactions of the trace in one change
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    transactions_per_change: u32,
    /// Only put the document there, under a name that follows from what is in it
    #[arg(long, conflicts_with = "no_upload")]
    upload_only: bool,
    /// The document is there from a run with --upload-only: for a cold server
    #[arg(long)]
    no_upload: bool,
}

pub(super) async fn run(args: &JoinArgs, context: &Context) -> Result<Report, BenchError> {
    let making = doing("making the document");
    let document = build(args)?;
    drop(making);
    let id = name_of(&document);
    let look = || context.meter.map(Meter::look).transpose();
    let idle = look()?;
    let mut report = Report::new("join");
    report.setting("clients", args.clients);
    report.setting("document", id.as_str());
    if let Some(path) = &args.trace {
        report.setting("trace", path.display().to_string());
    }
    report.figure("document_bytes", to_f64(document.chunk.len()));
    if !args.no_upload {
        let _uploading = doing("uploading it");
        let started = Instant::now();
        uploaded(context, &id, &document, None).await?.close().await;
        report.figure("upload_s", started.elapsed().as_secs_f64());
    }
    let before = look()?;
    report.server("idle", idle, None);
    report.server("uploaded", before, idle);
    if args.upload_only {
        return Ok(report);
    }

    let bar = progress(args.clients as usize, "fetching");
    let (phase, phases) = watch::channel(Phase::Wait);
    let (done, mut dones) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    let heads: Arc<[ChangeHash]> = document.heads.as_slice().into();
    for _ in 0..args.clients {
        let session = Session::open(context).await?;
        let fetch = Fetch { id: id.clone(), heads: heads.clone(), patience: context.timeout };
        tasks.spawn(fetch.run(session, phases.clone(), done.clone()));
    }
    drop((done, phases));
    let started = Instant::now();
    // Those that failed by now say so below.
    let _ = phase.send(Phase::Fetch);
    let mut latencies = Latencies::new();
    let (mut first, mut last) = (None, Duration::ZERO);
    let mut complete = 0_usize;
    for _ in 0..args.clients {
        // Each says once that it has everything, or that it gave up.
        let Some(Some(at)) = dones.recv().await else {
            continue;
        };
        let elapsed = Instant::saturating_duration_since(&at, started);
        latencies.record(elapsed);
        first.get_or_insert(elapsed);
        last = last.max(elapsed);
        complete += 1;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let after = look()?;
    let _ = phase.send(Phase::Leave);
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended? {
            report.failure(error.to_string());
        }
    }
    report.latency(latencies.percentiles());
    report.figure("first_client_s", first.unwrap_or_default().as_secs_f64());
    report.figure("last_client_s", last.as_secs_f64());
    report.figure("clients_per_s", per_second(complete, last));
    report.undelivered(args.clients as usize - complete);
    report.server("after", after, before);
    Ok(report)
}

fn build(args: &JoinArgs) -> Result<Document, BenchError> {
    match &args.trace {
        Some(path) => {
            let trace = Trace::read(path)?;
            trace_document::build(&trace, args.transactions_per_change as usize)
        }
        None => typed_document(&[0xC0; 16], args.operations as usize).map(|(_, document)| document),
    }
}

/// The same document has the same name in every run, so that a server can be restarted between
/// upload and join.
fn name_of(document: &Document) -> DocumentId {
    let hash = Sha256::digest(&document.chunk);
    let mut bytes = [0_u8; 16];
    bytes.iter_mut().zip(&hash[..]).for_each(|(byte, hashed)| *byte = *hashed);
    DocumentId::from_random(bytes)
}

/// What the clients are to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Wait,
    Fetch,
    Leave,
}

/// What one client fetches.
struct Fetch {
    id: DocumentId,
    heads: Arc<[ChangeHash]>,
    patience: Duration,
}

impl Fetch {
    /// Waits for the start, fetches, says when it was done, and stays until all are.
    async fn run(
        self,
        mut session: Session,
        mut phases: watch::Receiver<Phase>,
        done: mpsc::UnboundedSender<Option<Instant>>,
    ) -> Result<(), BenchError> {
        let fetched = self.fetch(&mut session, &mut phases).await;
        // The counter outlives this task.
        let _ = done.send(fetched.as_ref().ok().copied());
        fetched?;
        read_until(&mut session, &mut phases, Phase::Leave).await?;
        session.close().await;
        Ok(())
    }

    async fn fetch(
        &self,
        session: &mut Session,
        phases: &mut watch::Receiver<Phase>,
    ) -> Result<Instant, BenchError> {
        read_until(session, phases, Phase::Fetch).await?;
        session.request(&self.id, LightDocument::expecting(None)).await?;
        let complete = async {
            while !session.document(&self.id).is_some_and(|d| d.is_at(&self.heads)) {
                session.exchange("fetching the document").await?;
            }
            Ok(Instant::now())
        };
        let seconds = self.patience.as_secs();
        // Messages alone are no progress: a server may answer for ever without the document.
        tokio::time::timeout(self.patience * PATIENCE_FACTOR, complete)
            .await
            .unwrap_or(Err(BenchError::Stalled { what: "fetching the document", seconds }))
    }
}

/// Reads and answers, so that the server sees that we are there.
async fn read_until(
    session: &mut Session,
    phases: &mut watch::Receiver<Phase>,
    phase: Phase,
) -> Result<(), BenchError> {
    while *phases.borrow_and_update() != phase {
        tokio::select! {
            touched = session.receive() => {
                let touched = touched?;
                session.answer(&touched).await?;
            }
            changed = phases.changed() => if changed.is_err() { break },
        }
    }
    Ok(())
}
