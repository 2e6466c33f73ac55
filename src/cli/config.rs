//! The configuration of `concord serve`: from flags, environment, file and defaults, in that
//! order, each value with where it came from.

mod find;
mod limits;

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
    path::PathBuf,
    str::FromStr,
};

use super::serve::ServeArgs;
use concord::{
    entity::Schema,
    relay::{self, RelayConfig},
    store::Engine,
    worker::WorkerLimits,
};
use find::{Finder, Section, Source, read_file};
use limits::{Slot, limits};

/// The file that is read where none is named and it is there.
pub(crate) const FILE: &str = "concord.toml";

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("cannot read {file}: {error}. Give --config a file that is there")]
    Unreadable {
        /// Which file.
        file: String,
        /// What the system said.
        error: String,
    },
    /// The file is not TOML, or has what is not known.
    #[error("{file}:{line}: {reason}")]
    File {
        /// Which file.
        file: String,
        /// Which line, from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The schema file is not there, or is none.
    #[error("--schema {file}: {reason}")]
    Schema {
        /// Which file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A value is not what it should be.
    #[error("{source_name}: {key} cannot be {value:?}: {reason}")]
    Value {
        /// Where it was given.
        source_name: String,
        /// For what.
        key: &'static str,
        /// What was given.
        value: String,
        /// What it should be.
        reason: String,
    },
}

/// Where documents are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreKind {
    /// On disk, by this engine.
    Disk(Engine),
    /// Nowhere: gone with the process.
    Memory,
}

impl FromStr for StoreKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "memory" {
            return Ok(Self::Memory);
        }
        let engine = text.parse().map_err(|_| "expected sled, fjall or memory")?;
        Ok(Self::Disk(engine))
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(engine) => engine.fmt(f),
            Self::Memory => f.write_str("memory"),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json".to_owned()),
        }
    }
}

/// What is in force.
#[derive(Debug, Clone)]
pub(crate) struct ServeConfig {
    /// Of the relay.
    pub(crate) relay: RelayConfig,
    /// Of the workers.
    pub(crate) workers: WorkerLimits,
    /// Where documents are.
    pub(crate) data_dir: PathBuf,
    /// How they are kept.
    pub(crate) store: StoreKind,
    /// How log lines look.
    pub(crate) log_format: LogFormat,
    /// Which log lines there are, as `tracing` filters.
    pub(crate) log: String,
    /// All of it for people: section, key, value as TOML, and where it came from.
    lines: Vec<(Section, &'static str, String, Source)>,
}

/// The text of a schema file that is one; none if none is named.
fn read_schema(
    file: String,
    read: &dyn Fn(&str) -> std::io::Result<String>,
) -> Result<Option<String>, ConfigError> {
    if file.is_empty() {
        return Ok(None);
    }
    let checked = read(&file)
        .map_err(|error| error.to_string())
        .and_then(|text| Schema::parse(&text).map(|_| text).map_err(|errors| errors.to_string()));
    checked.map(Some).map_err(|reason| ConfigError::Schema { file, reason })
}

impl ServeConfig {
    /// Puts the configuration together. `env` reads the environment, `read` the file.
    ///
    /// # Errors
    /// [`ConfigError`] for whatever is not as it should be; nothing is guessed.
    pub(crate) fn resolve(
        args: &ServeArgs,
        env: &dyn Fn(&str) -> Option<String>,
        read: &dyn Fn(&str) -> std::io::Result<String>,
    ) -> Result<Self, ConfigError> {
        let named = args.config.clone().or_else(|| env("CONCORD_CONFIG"));
        let file = read_file(named.as_deref(), read)?;
        let mut finder = Finder { env, file, lines: Vec::new() };
        let f = &mut finder;
        let serve = |key| (Section::Serve, key);
        let mut relay = RelayConfig::default();
        let mut workers = WorkerLimits::default();

        relay.host = f.find(serve("host"), args.host.clone(), None, relay.host)?;
        relay.port = f.find(serve("port"), args.port, Some("PORT"), relay.port)?;
        let data_dir = args.data_dir.as_ref().map(|path| path.display().to_string());
        let older = Some("DATA_DIR");
        let data_dir = f.find(serve("data-dir"), data_dir, older, "concord-data".to_owned())?;
        let sled = StoreKind::Disk(Engine::Sled);
        let store = f.find(serve("store"), args.store, None, sled)?;
        let admin_host = relay::HOST.to_owned();
        let admin_host = f.find(serve("admin-host"), args.admin_host.clone(), None, admin_host)?;
        let admin_port = f.find(serve("admin-port"), args.admin_port, None, relay::ADMIN_PORT)?;
        let no_admin = f.find(serve("no-admin"), set(args.no_admin), None, false)?;
        relay.admin = (!no_admin).then_some((admin_host, admin_port));
        relay.shards = f.find(serve("shards"), args.shards, None, relay.shards)?;
        workers.workers = f.find(serve("workers"), args.workers, None, workers.workers)?;
        relay.strict = f.find(serve("strict"), set(args.strict), None, relay.strict)?;
        let no_review = f.find(serve("no-review"), set(args.no_review), None, !relay.review)?;
        relay.review = !no_review;
        let plain = set(args.no_compression);
        relay.compression = !f.find(serve("no-compression"), plain, None, !relay.compression)?;
        let schema = f.find(serve("schema"), args.schema.clone(), None, String::new())?;
        relay.schema = read_schema(schema, read)?;
        relay.idle_ms = f.find(serve("idle-ms"), args.idle_ms, None, relay.idle_ms)?;
        relay.ping_ms = f.find(serve("ping-ms"), args.ping_ms, None, relay.ping_ms)?;
        let pong_ms = args.pong_timeout_ms;
        relay.pong_timeout_ms =
            f.find(serve("pong-timeout-ms"), pong_ms, None, relay.pong_timeout_ms)?;
        relay.stalled_ms = f.find(serve("stalled-ms"), args.stalled_ms, None, relay.stalled_ms)?;
        let is_open = set(args.allow_anonymous);
        relay.allow_anonymous = f.find(serve("allow-anonymous"), is_open, None, false)?;
        let origins = args.allowed_origins.clone();
        relay.allowed_origins =
            f.find(serve("allowed-origins"), origins, None, relay.allowed_origins)?;
        let log_format = f.find(serve("log-format"), args.log_format, None, LogFormat::Text)?;
        let log = f.find(serve("log"), args.log.clone(), None, "info".to_owned())?;
        for (key, slot) in limits(&mut relay) {
            let key = (Section::Limits, key);
            match slot {
                Slot::Size(at) => *at = f.find(key, None, None, *at)?,
                Slot::Count(at) => *at = f.find(key, None, None, *at)?,
                Slot::Rate(at) => *at = f.find(key, None, None, *at)?,
            }
        }
        workers.changes = relay.limits.clone();
        let config = Self {
            relay,
            workers,
            data_dir: data_dir.into(),
            store,
            log_format,
            log,
            lines: finder.lines,
        };
        config.check()?;
        Ok(config)
    }

    /// What no single value shows.
    fn check(&self) -> Result<(), ConfigError> {
        let relay = &self.relay;
        self.at_least("ping-ms", relay.ping_ms, 1, "pings need some time between them")?;
        let enough = relay.ping_ms.saturating_add(1);
        let reason = "a pong must have longer than the time between pings (ping-ms)";
        self.at_least("pong-timeout-ms", relay.pong_timeout_ms, enough, reason)?;
        let workers = self.workers.workers as u64;
        self.at_least("workers", workers, 1, "documents need a worker")?;
        let largest = relay.limits.message_bytes as u64;
        let reason = "it must hold one message of the largest size (message-bytes)";
        self.at_least("byte-burst", u64::from(relay.rates.byte_burst), largest, reason)?;
        for rate in
            [("frames-per-second", relay.rates.frames), ("bytes-per-second", relay.rates.bytes)]
        {
            self.at_least(rate.0, u64::from(rate.1), 1, "nothing could ever be sent")?;
        }
        Ok(())
    }

    fn at_least(
        &self,
        key: &'static str,
        value: u64,
        least: u64,
        reason: &str,
    ) -> Result<(), ConfigError> {
        if value >= least {
            return Ok(());
        }
        let line = self.lines.iter().find(|(_, name, ..)| *name == key);
        Err(ConfigError::Value {
            source_name: line.map_or(&Source::Default, |(.., source)| source).to_string(),
            key,
            value: value.to_string(),
            reason: format!("{reason}; at least {least}"),
        })
    }

    /// Whether others than this machine could reach a listener, as far as the text shows.
    pub(crate) fn is_exposed(&self) -> bool {
        let admin = self.relay.admin.as_ref().map(|(host, _)| host);
        let is_far = |host: &String| {
            host.parse::<IpAddr>().map_or(host != "localhost", |ip| !ip.is_loopback())
        };
        is_far(&self.relay.host) || admin.is_some_and(is_far)
    }

    /// What is in force, as a file that would say the same.
    pub(crate) fn to_toml(&self) -> String {
        let mut out = String::new();
        for section in Section::ALL {
            let separator = if out.is_empty() { "" } else { "\n" };
            // Writing to a String does not fail.
            let _ = writeln!(out, "{separator}[{}]", section.name());
            for (_, key, value, source) in self.lines.iter().filter(|(there, ..)| *there == section)
            {
                let is_bare = value.parse::<u64>().is_ok() || value.parse::<bool>().is_ok();
                let value = if is_bare {
                    value.clone()
                } else {
                    toml::Value::String(value.clone()).to_string()
                };
                let _ = writeln!(out, "{:<44} # {source}", format!("{key} = {value}"));
            }
        }
        out
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// A flag that was not given leaves the word to the environment and the file.
fn set(flag: bool) -> Option<bool> {
    flag.then_some(true)
}

#[cfg(test)]
mod tests;
