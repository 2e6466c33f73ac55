//! The queue of conflicts of a relay that has very many: how long it takes to list them, to decide
//! one and to see the decision on another peer, and what one costs in memory.

use std::time::{Duration, Instant};

use automerge::{ActorId, AutoCommit, ROOT, ReadDoc as _, transaction::Transactable as _};
use clap::Args;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::sleep,
};

use super::{
    BenchError, Context, doing, live::failed, progress, report::Report, server_usage::Meter,
    stats::Latencies,
};
use crate::{
    peer::{Document, Peer},
    review::desk::LISTED_MAX,
    store,
};

/// How often the relay is asked how far it is.
const ASK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct QueueArgs {
    /// Conflicts that are open at once
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    conflicts: u32,
    /// Pages of 50 that are asked for
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    lists: u32,
    /// Decisions, one after the other
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    decisions: u32,
}

/// One connection for one request after the other.
pub(super) struct Http {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Http {
    pub(super) async fn connect(url: &str) -> Result<Self, BenchError> {
        let host = url.strip_prefix("ws://").unwrap_or(url).trim_end_matches('/').to_owned();
        let connected = TcpStream::connect(&host).await;
        let stream =
            connected.map_err(|source| BenchError::Connect { url: url.to_owned(), source })?;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(Self { stream: BufReader::new(stream), host })
    }

    pub(super) async fn ask(&mut self, head: &str, body: &str) -> Result<Value, BenchError> {
        let (host, length) = (&self.host, body.len());
        let request = format!(
            "{head} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await.map_err(failed)?;
        let (mut length, mut line, mut status) = (0, String::new(), String::new());
        while line != "\r\n" {
            line.clear();
            if self.stream.read_line(&mut line).await.map_err(failed)? == 0 {
                return Err(failed("the relay closed a connection for requests"));
            }
            if status.is_empty() {
                status.clone_from(&line);
            }
            if let Some(found) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = found.trim().parse().map_err(failed)?;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.map_err(failed)?;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        if status.contains(" 200 ") {
            return Ok(body);
        }
        Err(failed(format!("{head}: {}, {body}", status.trim())))
    }
}

pub(super) async fn run(
    args: &QueueArgs,
    url: &str,
    context: &Context,
) -> Result<Report, BenchError> {
    let mut http = Http::connect(url).await?;
    let mut count = async || {
        let page = http.ask("GET /v1/conflicts?limit=1", "").await?;
        Ok::<u64, BenchError>(page["open"].as_u64().unwrap_or_default())
    };
    let before = count().await?;
    let memory = || context.meter.map(Meter::look).transpose();
    let memory_before = memory()?;
    let uploader = peer(url)?;
    let watched = documents(args, &uploader, context).await?;

    let bar = progress(args.conflicts as usize, "conflicts found by the relay");
    let started = Instant::now();
    loop {
        let found = count().await? - before;
        bar.set_position(found);
        if found >= u64::from(args.conflicts) {
            break;
        }
        if started.elapsed() > context.timeout {
            let seconds = context.timeout.as_secs();
            return Err(BenchError::Stalled { what: "waiting for conflicts to be found", seconds });
        }
        sleep(ASK).await;
    }
    bar.finish_and_clear();
    let mut report = Report::new("queue");
    report.setting("conflicts", args.conflicts);
    report.figure("found_s", started.elapsed().as_secs_f64());
    if let (Some(before), Some(after)) = (memory_before, memory()?) {
        let bytes = (after.rss_mib - before.rss_mib) * 1024.0 * 1024.0;
        report.figure("memory_per_conflict_bytes", bytes / f64::from(args.conflicts));
    }

    let (mut times, mut next) = (Latencies::new(), String::new());
    for _ in 0..args.lists {
        let started = Instant::now();
        let page = http.ask(&format!("GET /v1/conflicts?limit=50{next}"), "").await?;
        times.record(started.elapsed());
        next = page["next"].as_str().map_or_else(String::new, |next| format!("&after={next}"));
    }
    figures(&mut report, "list", &times);

    let times = decide(args, &mut http, &watched, url, context).await?;
    figures(&mut report, "seen_elsewhere", &times);
    uploader.close().await.map_err(failed)?;
    Ok(report)
}

fn figures(report: &mut Report, name: &str, times: &Latencies) {
    if let Some(found) = times.percentiles() {
        for (which, ms) in [("p50", found.p50_ms), ("p99", found.p99_ms), ("max", found.max_ms)] {
            report.figure(&format!("{name}_{which}_ms"), ms);
        }
    }
}

fn peer(url: &str) -> Result<Peer, BenchError> {
    let store = store::memory().map_err(failed)?;
    let builder = Peer::builder("memory").store(store).relay(url);
    builder.debounce(Duration::ZERO, Duration::ZERO).open().map_err(failed)
}

/// Uploads documents that are full of conflicts, and a small one with those that are decided,
/// which is given back.
async fn documents(
    args: &QueueArgs,
    uploader: &Peer,
    context: &Context,
) -> Result<Document, BenchError> {
    let full = args.conflicts as usize / LISTED_MAX;
    let bar = progress(full, "documents");
    for n in 0..full {
        upload(uploader, n, LISTED_MAX, context).await?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let rest = args.conflicts as usize % LISTED_MAX;
    if rest > 0 {
        upload(uploader, full, rest, context).await?;
    }
    upload(uploader, full + 1, args.decisions as usize, context).await
}

/// Two people who each fill in every field of a form.
async fn upload(
    uploader: &Peer,
    n: usize,
    fields: usize,
    context: &Context,
) -> Result<Document, BenchError> {
    let mut doc = AutoCommit::new().with_actor(ActorId::random());
    doc.put(ROOT, "form", n as u64).map_err(failed)?;
    doc.commit();
    let mut other = doc.fork();
    for field in 0..fields as u64 {
        doc.put(ROOT, format!("field {field}"), 1).map_err(failed)?;
        other.put(ROOT, format!("field {field}"), 2).map_err(failed)?;
    }
    doc.merge(&mut other).map_err(failed)?;
    let document = uploader.import(doc.save().into()).await.map_err(failed)?;
    document.wait_confirmed(context.timeout).await.map_err(failed)?;
    Ok(document)
}

/// Decides conflicts of a document, each until another peer sees what was decided.
async fn decide(
    args: &QueueArgs,
    http: &mut Http,
    watched: &Document,
    url: &str,
    context: &Context,
) -> Result<Latencies, BenchError> {
    let opening = doing("opening the document elsewhere");
    let elsewhere = peer(url)?;
    let found = elsewhere.find_within(watched.id().as_str(), context.timeout).await;
    let seen = found.map_err(failed)?;
    let page = loop {
        let list = format!("GET /v1/conflicts?limit=500&document={}", watched.id().as_str());
        let page = http.ask(&list, "").await?;
        let listed = page["conflicts"].as_array().map_or(0, Vec::len);
        if listed >= (args.decisions as usize).min(500) {
            break page;
        }
        sleep(ASK).await;
    };
    drop(opening);
    let mut times = Latencies::new();
    let conflicts = page["conflicts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let bar = progress(conflicts.len(), "decisions");
    for (n, conflict) in conflicts.iter().enumerate() {
        let id = conflict["id"].as_str().unwrap_or_default();
        let field = conflict["path"].as_str().unwrap_or_default().to_owned();
        let value = 1_000_i64.saturating_add_unsigned(n as u64);
        let body = json!({ "choice": { "value": value } }).to_string();
        let mut watcher = seen.watch();
        let started = Instant::now();
        let resolve = format!("POST /v1/conflicts/{id}/resolve");
        let deciding = http.ask(&resolve, &body);
        let seeing = async {
            let is_there = || {
                seen.read(|doc| doc.get(ROOT, &*field).ok().flatten().and_then(|(v, _)| v.as_i64()))
            };
            while is_there().map_err(failed)? != Some(value) {
                watcher.next().await;
            }
            Ok::<Duration, BenchError>(started.elapsed())
        };
        let both =
            tokio::time::timeout(context.timeout, async { tokio::try_join!(deciding, seeing) });
        let seconds = context.timeout.as_secs();
        let stalled = |_| BenchError::Stalled { what: "waiting for a decision", seconds };
        let (_, took) = both.await.map_err(stalled)??;
        times.record(took);
        bar.inc(1);
    }
    bar.finish_and_clear();
    elsewhere.close().await.map_err(failed)?;
    Ok(times)
}
