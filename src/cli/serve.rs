//! `concord serve`: a relay, until a signal or the store ends it.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use concord::{
    relay::{AllowedOrigins, Relay},
    store::{self, Store},
    worker::ProcessPool,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{
    config::{LogFormat, ServeConfig, StoreKind},
    output,
};

/// Wrong configuration, an address or a directory that cannot be had.
const EXIT_USAGE: u8 = 2;
/// The store failed, or did not close.
const EXIT_FAILED: u8 = 1;
/// A second signal did not wait for the shutdown (128 and the signal, as shells count).
const EXIT_INTERRUPTED: i32 = 130;

/// Serve documents to automerge-repo clients over WebSockets
///
/// A value is taken from the flag, else from the environment, else from the file, else it is the
/// default. The variable of a flag is its name in capitals after `CONCORD_`: `--ping-ms` is
/// `CONCORD_PING_MS`. `PORT` and `DATA_DIR` are read too.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
#[expect(clippy::doc_markdown, reason = "read as help, not as Markdown")]
pub(crate) struct ServeArgs {
    /// Address to listen on [default: 127.0.0.1] [env: CONCORD_HOST]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) host: Option<String>,
    /// Port to listen on, 0 for any that is free [default: 3030] [env: CONCORD_PORT, PORT]
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Where documents are kept [default: concord-data] [env: CONCORD_DATA_DIR, DATA_DIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// How they are kept: sled, fjall, or memory to forget them [default: sled]
    #[arg(long, value_name = "ENGINE")]
    pub(crate) store: Option<StoreKind>,
    /// Address for /healthz, /readyz and /metrics [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin_host: Option<String>,
    /// Port for them, 0 for any that is free [default: 9090]
    #[arg(long, value_name = "PORT")]
    pub(crate) admin_port: Option<u16>,
    /// Do without them
    #[arg(long)]
    pub(crate) no_admin: bool,
    /// Threads of documents, 0 for one a core [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<usize>,
    /// Worker processes that open whole documents [default: 2]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// Apply every change in a worker before it is stored and passed on: slower, and nothing
    /// that breaks a document is ever taken
    #[arg(long)]
    pub(crate) strict: bool,
    /// Do not look for conflicts in documents that change, and do not serve /v1/conflicts
    #[arg(long)]
    pub(crate) no_review: bool,
    /// Neither take nor send compressed frames
    #[arg(long)]
    pub(crate) no_compression: bool,
    /// Schema file: what the policies of its types decide waits for nobody, and what it says and is not so is a conflict. Peers are told of it
    #[arg(long, value_name = "FILE")]
    pub(crate) schema: Option<String>,
    /// Milliseconds of silence after which a document leaves memory [default: 60000]
    #[arg(long, value_name = "MS")]
    pub(crate) idle_ms: Option<u64>,
    /// Milliseconds between pings [default: 15000]
    #[arg(long, value_name = "MS")]
    pub(crate) ping_ms: Option<u64>,
    /// Milliseconds of silence after which a connection is closed [default: 60000]
    #[arg(long, value_name = "MS")]
    pub(crate) pong_timeout_ms: Option<u64>,
    /// Milliseconds that a client may leave its queue full [default: 30000]
    #[arg(long, value_name = "MS")]
    pub(crate) stalled_ms: Option<u64>,
    /// Listen beyond this machine although there are no accounts: everybody who reaches the
    /// address may read and change every document
    #[arg(long)]
    pub(crate) allow_anonymous: bool,
    /// Web pages that may connect, as in "https://app.example.com, https://b.example", or * for
    /// all. Programs always may, and pages of the same host and of localhost
    #[arg(long, value_name = "ORIGINS")]
    pub(crate) allowed_origins: Option<AllowedOrigins>,
    /// How log lines on stderr look: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Which log lines: error, warn, info, debug, trace, or a tracing filter [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub(crate) log: Option<String>,
    /// File to read [default: concord.toml, if there is one] [env: CONCORD_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<String>,
    /// Print what is in force and where it came from, as such a file, and do nothing else
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// Serves until a signal comes or the store fails.
///
/// Exit code 0 after a shutdown; 2 if it could not start, with one line on stderr that says what
/// to do; 1 if the store failed.
pub(crate) async fn run(args: ServeArgs) -> ExitCode {
    let env = |name: &str| std::env::var(name).ok();
    let read = |name: &str| std::fs::read_to_string(name);
    let config = match ServeConfig::resolve(&args, &env, &read) {
        Ok(config) => config,
        Err(error) => return refuse(&error),
    };
    if args.print_config {
        return match output::raw(config.to_toml().as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(false),
        };
    }
    if let Err(error) = start_log(&config) {
        return refuse(&error);
    }
    // Before anything is opened, so that no signal finds us unprepared.
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return refuse(&format_args!("cannot listen for signals: {error}")),
    };
    let relay = match start(config).await {
        Ok(relay) => relay,
        Err(reason) => return refuse(&reason),
    };
    tokio::select! {
        reason = relay.failed() => {
            eprintln!("concord: {reason}");
            relay.abandon().await;
            ExitCode::from(EXIT_FAILED)
        }
        () = signals.next() => tokio::select! {
            closed = relay.shutdown() => match closed {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("concord: the store did not close: {error}");
                    ExitCode::from(EXIT_FAILED)
                }
            },
            () = signals.next() => std::process::exit(EXIT_INTERRUPTED),
        },
    }
}

/// Opens the store, then the workers, then the doors; and says so.
async fn start(config: ServeConfig) -> Result<Relay, String> {
    let (is_exposed, kind, dir) = (config.is_exposed(), config.store, config.data_dir.clone());
    if is_exposed && config.relay.allow_anonymous {
        tracing::warn!(
            "ANYBODY who reaches this address can READ AND CHANGE EVERY DOCUMENT: there are no \
             accounts, and --allow-anonymous was given"
        );
    }
    let store = open(kind, dir.clone()).await?;
    let workers = ProcessPool::start(config.workers).await.map_err(|error| error.to_string())?;
    let started = Relay::start(config.relay, store.clone(), Arc::new(workers)).await;
    let relay = match started {
        Ok(relay) => relay,
        Err(error) => {
            // It was only read; what matters is that the directory is given free.
            let _ = store.close().await;
            return Err(error.to_string());
        }
    };
    let admin = relay.admin_addr().map(|admin| format!("admin on http://{admin}\n"));
    let data = match kind {
        StoreKind::Memory => "memory: gone when this process ends".to_owned(),
        StoreKind::Disk(engine) => format!("{} ({engine})", dir.display()),
    };
    // Whoever started it may not read this, which is no reason not to serve.
    let _ = output::line(format_args!(
        "concord {} listening on ws://{}\n{}data in {data}",
        env!("CARGO_PKG_VERSION"),
        relay.addr(),
        admin.unwrap_or_default(),
    ));
    tracing::info!(addr = %relay.addr(), storage_id = relay.storage_id(), "serving");
    Ok(relay)
}

async fn open(kind: StoreKind, dir: PathBuf) -> Result<Arc<dyn Store>, String> {
    let opening = tokio::task::spawn_blocking(move || match kind {
        StoreKind::Memory => store::memory(),
        StoreKind::Disk(engine) => store::open(&dir, engine, &store::Options::default()),
    });
    match opening.await {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(error) => Err(format!("opening the store failed: {error}")),
    }
}

fn start_log(config: &ServeConfig) -> Result<(), String> {
    // A bare level is for our own lines: the engines below have much to say.
    let is_level = config.log.parse::<tracing::Level>().is_ok();
    let filter = if is_level { format!("warn,concord={}", config.log) } else { config.log.clone() };
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| format!("--log {:?} is not a filter: {error}", config.log))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(output::is_coloured())
        .with_writer(std::io::stderr);
    let started = match config.log_format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|error| format!("cannot start the log: {error}"))
}

fn refuse(reason: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("concord: {reason}");
    ExitCode::from(EXIT_USAGE)
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
