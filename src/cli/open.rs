//! From the common arguments to an open peer.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;

use concord::{
    entity::Schema,
    peer::{Peer, PeerBuilder, RelayOptions},
    worker::{ProcessPool, WorkerLimits},
};
use concord_protocol::SessionId;

use super::Failure;

/// What every command on documents takes.
#[derive(Debug, Clone, Args)]
pub(super) struct Common {
    /// Where documents are kept [default: `$XDG_DATA_HOME/concord` or `~/.local/share/concord`]
    #[arg(long, global = true, env = "CONCORD_DIR", value_name = "DIRECTORY")]
    pub(super) dir: Option<PathBuf>,
    /// The relay to keep in step with, `ws://host:port` or `wss://host`; of several (again, or with
    /// commas) the first is preferred, and the others take over while it cannot be reached
    #[arg(
        long = "url",
        global = true,
        env = "CONCORD_URL",
        value_name = "URL",
        value_delimiter = ','
    )]
    urls: Vec<String>,
    /// Certificate (PEM) of an authority to trust for `wss://`, besides the well-known ones
    #[arg(long, global = true, env = "CONCORD_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Who you are, as in ann@example.org: goes with every change that is made
    #[arg(long, global = true, env = "CONCORD_AUTHOR", value_name = "NAME")]
    pub(super) author: Option<String>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Seconds to wait for the relay
    #[arg(long, global = true, default_value_t = DEADLINE_S, value_name = "SECONDS")]
    pub(super) deadline: u64,
}

impl Common {
    /// Relays to keep in step with, the preferred first.
    pub(super) fn relays(&self) -> &[String] {
        &self.urls
    }

    /// Whether there is any.
    pub(super) fn has_relay(&self) -> bool {
        !self.urls.is_empty()
    }

    /// How long to wait for the relay.
    pub(super) fn within(&self) -> Duration {
        Duration::from_secs(self.deadline)
    }
}

/// The default of `--deadline`, in seconds.
const DEADLINE_S: u64 = 10;

/// Opens the replica; connects where a relay is given. With a relay, documents of others are
/// opened in worker processes, which no input can take down.
pub(super) async fn peer(common: &Common) -> Result<Peer, Failure> {
    peer_with(common, |builder| builder).await
}

/// The same as a session of this name, if it has one.
pub(super) async fn peer_of(common: &Common, session: Option<SessionId>) -> Result<Peer, Failure> {
    peer_with(common, |builder| match session {
        Some(session) => builder.session(session),
        None => builder,
    })
    .await
}

/// The same under a schema.
pub(super) async fn peer_under(common: &Common, schema: Option<Schema>) -> Result<Peer, Failure> {
    peer_with(common, |builder| match schema {
        Some(schema) => builder.schema(schema),
        None => builder,
    })
    .await
}

async fn peer_with(
    common: &Common,
    more: impl FnOnce(PeerBuilder) -> PeerBuilder,
) -> Result<Peer, Failure> {
    let mut builder = more(Peer::builder(directory(common.dir.clone())?));
    if common.has_relay() {
        let pool = ProcessPool::start(WorkerLimits::default())
            .await
            .map_err(|error| Failure::failed(error.to_string()))?;
        builder = builder.materialiser(Arc::new(pool));
    }
    for (priority, url) in (0..).zip(common.relays()) {
        builder = builder.relay_with(RelayOptions::new(url).priority(priority));
    }
    if let Some(file) = &common.ca {
        builder = builder.trust(certificate(file)?);
    }
    if let Some(author) = &common.author {
        builder = builder.author(author);
    }
    Ok(builder.open()?)
}

/// What is in the file of a certificate.
pub(super) fn certificate(file: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| {
        Failure::usage(format!("cannot read the certificate {}: {error}", file.display()))
    })
}

/// Where documents are kept, if it is not said otherwise.
pub(super) fn directory(dir: Option<PathBuf>) -> Result<PathBuf, Failure> {
    dir.map_or_else(default_directory, Ok)
}

/// `$XDG_DATA_HOME/concord`, else `~/.local/share/concord`: never in the working directory, where
/// it could be committed or deleted with something else.
fn default_directory() -> Result<PathBuf, Failure> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("concord"))
        .ok_or_else(|| {
            Failure::usage(
                "there is no home directory to keep documents in: give --dir or CONCORD_DIR",
            )
        })
}
