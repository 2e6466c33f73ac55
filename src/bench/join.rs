//! Many clients fetch one large document at once.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use concord_protocol::{ChangeHash, DocumentId};
use sha2::{Digest, Sha256};
use tokio::{sync::Barrier, task::JoinSet};

use super::{
    BenchError, Context, Report,
    changes::{Document, typed_document},
    light::LightDocument,
    progress,
    session::{Session, document_id, uploaded},
    stats::{Latencies, per_second, to_f64},
    trace::Trace,
    trace_document,
};

#[derive(Debug, Args)]
pub(super) struct JoinArgs {
    /// Clients that fetch the document
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// The document: what this editing trace leads to (.json or .json.gz)
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Without a trace: characters of a typed text
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
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
    let document = build(args)?;
    let id = name_of(&document);
    let look = || context.meter.map(|meter| meter.look()).transpose();
    let idle = look()?;
    let mut report = Report::new("join");
    report.setting("clients", args.clients);
    report.setting("document", id.as_str());
    if let Some(path) = &args.trace {
        report.setting("trace", path.display().to_string());
    }
    report.figure("document_bytes", to_f64(document.chunk.len()));
    if !args.no_upload {
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
    let start = Arc::new(Barrier::new(args.clients as usize + 1));
    let mut tasks = JoinSet::new();
    let heads: Arc<[ChangeHash]> = document.heads.as_slice().into();
    for _ in 0..args.clients {
        let session = Session::open(context).await?;
        tasks.spawn(fetch(session, id.clone(), heads.clone(), start.clone()));
    }
    start.wait().await;
    let started = Instant::now();
    let mut latencies = Latencies::new();
    let (mut first, mut last) = (None, Duration::ZERO);
    let (mut complete, mut sessions) = (0_usize, Vec::new());
    while let Some(ended) = tasks.join_next().await {
        match ended? {
            Ok((session, at)) => {
                let elapsed = at.saturating_duration_since(started);
                latencies.record(elapsed);
                first = Some(first.map_or(elapsed, |first: Duration| first.min(elapsed)));
                last = last.max(elapsed);
                complete += 1;
                sessions.push(session);
                bar.inc(1);
            }
            Err(error) => report.failure(error.to_string()),
        }
    }
    bar.finish_and_clear();
    let after = look()?;
    for session in sessions {
        session.close().await;
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
    bytes
        .iter_mut()
        .zip(&hash[..])
        .for_each(|(byte, hashed)| *byte = *hashed);
    document_id(bytes)
}

async fn fetch(
    mut session: Session,
    id: DocumentId,
    heads: Arc<[ChangeHash]>,
    start: Arc<Barrier>,
) -> Result<(Session, Instant), BenchError> {
    start.wait().await;
    session.request(&id, LightDocument::expecting(None)).await?;
    loop {
        session.exchange("fetching the document").await?;
        if session
            .document(&id)
            .is_some_and(|document| document.is_at(&heads))
        {
            return Ok((session, Instant::now()));
        }
    }
}
