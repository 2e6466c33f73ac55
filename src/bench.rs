//! `concord bench`: a load generator for any server that speaks automerge-repo version 1.
//!
//! Its clients are light: they follow heads and count change chunks, and never hold a document,
//! so that one core of them can load a server of many. Every scenario ends by itself, at a count
//! or a time limit.

mod changes;
mod client;
mod connect;
mod detect;
mod divergence;
mod entities;
mod fanout;
mod join;
mod light;
mod live;
mod local_edit;
mod many;
mod observed;
mod outbox;
mod progress;
mod queue;
mod report;
mod scratch;
mod server_usage;
mod session;
mod stats;
mod stored;
mod target;
pub mod trace;
mod trace_document;

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::{Args, Subcommand};
use concord_protocol::{Limits, codec, guard, handshake, sync};

pub use report::Report;

use client::Traffic;
use progress::{doing, progress};
use server_usage::Meter;
use target::Target;

use crate::tls::Trust;

/// What to measure, and where.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    scenario: Scenario,
    /// The server, any that speaks automerge-repo version 1
    #[arg(long, global = true, default_value = "ws://127.0.0.1:3030")]
    url: String,
    /// Certificate (PEM) of an authority to trust for wss://, besides the well-known ones
    #[arg(long, global = true, env = "CONCORD_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long, global = true)]
    pub json: bool,
    /// Process id of the server: reports its CPU and memory, children included (Linux)
    #[arg(long, global = true)]
    pid: Option<u32>,
    /// Seconds to wait for what was sent; what is missing then counts as undelivered
    #[arg(long, global = true, default_value_t = 60)]
    timeout: u64,
    /// Allow a server that is not on this machine. Only load servers that are yours
    #[arg(long, global = true)]
    allow_remote: bool,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// One writer, many readers, one document: latency, or changes per second
    Fanout(fanout::FanoutArgs),
    /// Many small documents, three clients each
    Many(many::ManyArgs),
    /// Idle connections: how fast they join, and what each costs
    Connect(connect::ConnectArgs),
    /// Many clients fetch one large document at once
    Join(join::JoinArgs),
    /// Replay a recorded editing history through two live peers, and compare both texts with its end
    Trace(TraceArgs),
    /// Type into a long text of an embedded peer, without a server: time until an edit is seen, until
    /// the store has it, and until it is on disk
    LocalEdit(local_edit::LocalEditArgs),
    /// Open, list and query a replica of very many entities, without a server
    Entities(entities::EntitiesArgs),
    /// What small edits take on disk, before and after they are compacted, without a server
    Stored(stored::StoredArgs),
    /// Edit entities of an embedded peer offline, then connect: time until a relay has confirmed all
    Outbox(outbox::OutboxArgs),
    /// Look for conflicts in small entities and in a long text, without a server
    Detect(detect::DetectArgs),
    /// List and decide conflicts of a Concord relay that has very many
    Queue(queue::QueueArgs),
    /// Write apart and meet again: what merges, what becomes a conflict, and whether anything is lost
    Divergence(divergence::DivergenceArgs),
}

#[derive(Debug, Args)]
struct TraceArgs {
    /// The trace, `.json` or `.json.gz`. Without it, one is made up
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Transactions of the trace that is made up
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    transactions: u32,
    /// Keep the peers' replicas on disk, each edit with its fsync, instead of in memory
    #[arg(long)]
    durable: bool,
}

/// Why a measurement did not come to an end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The URL is not usable.
    #[error("{url:?} is not a WebSocket address: {reason}; expected ws://HOST:PORT/ or wss://")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server is elsewhere, and nobody said that it may be.
    #[error("{0} is not on this machine; if the server is yours, add --allow-remote")]
    Remote(String),
    /// No connection.
    #[error("cannot connect to {url}: {source}; is the server running?")]
    Connect {
        /// Where to.
        url: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is to be trusted is no certificate.
    #[error("cannot trust {}: {reason}", file.display())]
    Certificate {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no speaking TLS with the server.
    #[error("cannot connect to {url}: {reason}")]
    Tls {
        /// Where to.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The WebSocket failed.
    #[error("the connection failed: {0}")]
    Socket(Box<tokio_tungstenite::tungstenite::Error>),
    /// The server closed while something was still expected.
    #[error("the server closed the connection{0}")]
    Closed(String),
    /// The server did not take us in.
    #[error(transparent)]
    Handshake(#[from] handshake::HandshakeError),
    /// The server sent what is not a message.
    #[error("the server sent an unreadable message: {0}")]
    Message(#[from] codec::DecodeError),
    /// The server sent what is not a sync message.
    #[error("the server sent an unreadable sync message: {0}")]
    Sync(#[from] sync::SyncError),
    /// The server sent a chunk that is none.
    #[error("the server sent an unreadable chunk: {0}")]
    Chunk(#[from] guard::GuardError),
    /// Nothing came for too long.
    #[error(
        "{what}: no progress for {seconds} s; raise --timeout if the server is that slow, or see in its log or metrics whether it refused what was sent"
    )]
    Stalled {
        /// What was waited for.
        what: &'static str,
        /// How long.
        seconds: u64,
    },
    /// The server's process cannot be watched.
    #[error("cannot read the state of process {pid}: {source}; is --pid the server's?")]
    Process {
        /// Which.
        pid: u32,
        /// What the system said.
        source: std::io::Error,
    },
    /// The trace cannot be used.
    #[error(transparent)]
    Trace(#[from] trace::TraceError),
    /// The document to send could not be made.
    #[error("cannot make the document to send: {0}")]
    Document(String),
    /// No randomness for names.
    #[error("the system gave no random bytes: {0}")]
    Random(getrandom::Error),
    /// A part of the load generator ended early.
    #[error("a client ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
}

impl From<tokio_tungstenite::tungstenite::Error> for BenchError {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        Self::Socket(Box::new(error))
    }
}

/// What all clients of a measurement share.
#[derive(Clone)]
struct Context {
    target: Target,
    traffic: Arc<Traffic>,
    limits: Arc<Limits>,
    timeout: Duration,
    meter: Option<Meter>,
    trust: Trust,
}

impl Context {
    /// Waits for something, but not for ever.
    async fn within<T>(
        &self,
        what: &'static str,
        work: impl Future<Output = Result<T, BenchError>>,
    ) -> Result<T, BenchError> {
        tokio::time::timeout(self.timeout, work)
            .await
            .unwrap_or(Err(BenchError::Stalled { what, seconds: self.timeout.as_secs() }))
    }
}

/// Measures, and returns what was found.
///
/// # Errors
/// [`BenchError`] when nothing could be measured. Changes that did not arrive are no error: they
/// are counted in the report.
pub async fn measure(args: BenchArgs) -> Result<Report, BenchError> {
    // These need no server, and none is looked up for them.
    match &args.scenario {
        Scenario::LocalEdit(args) => return local_edit::run(args).await,
        Scenario::Detect(args) => return detect::run(args).await,
        Scenario::Entities(args) => return entities::run(args).await,
        Scenario::Stored(args) => return stored::run(args).await,
        _ => {}
    }
    raise_open_files_limit();
    let (trusted, trust) = trust(args.ca)?;
    let context = Context {
        target: Target::resolve(&args.url, args.allow_remote).await?,
        traffic: Arc::default(),
        limits: Arc::default(),
        timeout: Duration::from_secs(args.timeout),
        meter: args.pid.map(Meter::new).transpose()?,
        trust,
    };
    let mut report = match &args.scenario {
        Scenario::Fanout(args) => fanout::run(args, &context).await?,
        Scenario::Many(args) => many::run(args, &context).await?,
        Scenario::Connect(args) => connect::run(args, &context).await?,
        Scenario::Join(args) => join::run(args, &context).await?,
        Scenario::Trace(trace_args) => replay(trace_args, &args.url, &trusted, &context).await?,
        Scenario::LocalEdit(args) => local_edit::run(args).await?,
        Scenario::Detect(args) => detect::run(args).await?,
        Scenario::Entities(args) => entities::run(args).await?,
        Scenario::Stored(args) => stored::run(args).await?,
        Scenario::Outbox(outbox_args) => outbox::run(outbox_args, &args.url, &context).await?,
        Scenario::Queue(queue_args) => queue::run(queue_args, &args.url, &context).await?,
        Scenario::Divergence(of) => divergence::run(of, &args.url, &context).await?,
    };
    report.setting("url", args.url);
    // The peers of a trace have connections of their own, which nobody counts.
    let own = matches!(
        args.scenario,
        Scenario::Trace(_) | Scenario::Queue(_) | Scenario::Divergence(_) | Scenario::Outbox(_)
    );
    if !own {
        report.traffic(&context.traffic);
    }
    Ok(report)
}

/// Replays a trace through two live peers and the relay.
async fn replay(
    args: &TraceArgs,
    url: &str,
    trusted: &[Vec<u8>],
    context: &Context,
) -> Result<Report, BenchError> {
    let trace = match &args.trace {
        Some(path) => trace::Trace::read(path)?,
        None => trace::Trace::generate(1, args.transactions),
    };
    live::run(&trace, url, trusted, args.durable, context.timeout).await
}

/// The certificates that were given, and whom to trust with them.
fn trust(file: Option<PathBuf>) -> Result<(Vec<Vec<u8>>, Trust), BenchError> {
    let mut trusted = Vec::new();
    let file = file.unwrap_or_default();
    let wrong = |reason: String| BenchError::Certificate { file: file.clone(), reason };
    if !file.as_os_str().is_empty() {
        trusted.push(std::fs::read(&file).map_err(|error| wrong(error.to_string()))?);
    }
    let trust = Trust::with(&trusted).map_err(|error| wrong(error.to_string()))?;
    Ok((trusted, trust))
}

/// A socket is an open file, and the usual limit of 1,024 is below what a server must bear.
fn raise_open_files_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where this is not allowed, opening the connection that is one too many says so.
    let _ = setrlimit(Resource::Nofile, limit);
}
