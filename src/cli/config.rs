//! The configuration of `concord serve`: from flags, environment, file and defaults, in that
//! order, each value with where it came from.

use std::{
    fmt::{self, Write as _},
    net::IpAddr,
    path::PathBuf,
    str::FromStr,
};

use concord::{
    relay::{self, RelayConfig},
    store::Engine,
    worker::WorkerLimits,
};
use toml::de::{DeTable, DeValue};

use super::serve::ServeArgs;

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

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// This flag.
    Flag(String),
    /// This environment variable.
    Env(String),
    /// This line of this file.
    File(String, usize),
    /// Nowhere.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Env(name) => f.write_str(name),
            Self::File(file, line) => write!(f, "{file}:{line}"),
            Self::Default => f.write_str("default"),
        }
    }
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

/// A table of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Serve,
    Limits,
}

impl Section {
    const ALL: [Self; 2] = [Self::Serve, Self::Limits];

    const fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Limits => "limits",
        }
    }

    fn env(self, key: &str) -> String {
        let key = key.replace('-', "_").to_uppercase();
        match self {
            Self::Serve => format!("CONCORD_{key}"),
            Self::Limits => format!("CONCORD_LIMIT_{key}"),
        }
    }

    fn knows(self, key: &str) -> bool {
        match self {
            Self::Serve => SERVE_KEYS.contains(&key),
            Self::Limits => limits(&mut RelayConfig::default())
                .iter()
                .any(|(name, _)| *name == key),
        }
    }
}

/// Every key of `[serve]`.
const SERVE_KEYS: [&str; 17] = [
    "host",
    "port",
    "data-dir",
    "store",
    "admin-host",
    "admin-port",
    "no-admin",
    "shards",
    "workers",
    "strict",
    "idle-ms",
    "ping-ms",
    "pong-timeout-ms",
    "stalled-ms",
    "allow-anonymous",
    "log-format",
    "log",
];

enum Slot<'a> {
    Size(&'a mut usize),
    Count(&'a mut u64),
    Rate(&'a mut u32),
}

/// Every key of `[limits]`, and where it goes.
fn limits(config: &mut RelayConfig) -> Vec<(&'static str, Slot<'_>)> {
    let RelayConfig {
        limits,
        rates,
        connections,
        ..
    } = config;
    vec![
        ("connections", Slot::Size(connections)),
        ("handshake-ms", Slot::Count(&mut limits.handshake_ms)),
        ("message-bytes", Slot::Size(&mut limits.message_bytes)),
        ("document-bytes", Slot::Size(&mut limits.document_bytes)),
        ("ephemeral-bytes", Slot::Size(&mut limits.ephemeral_bytes)),
        ("change-bytes", Slot::Size(&mut limits.change_bytes)),
        (
            "change-inflated-bytes",
            Slot::Size(&mut limits.change_inflated_bytes),
        ),
        ("change-ops", Slot::Count(&mut limits.change_ops)),
        ("change-deps", Slot::Size(&mut limits.change_deps)),
        ("change-actors", Slot::Size(&mut limits.change_actors)),
        ("change-columns", Slot::Size(&mut limits.change_columns)),
        (
            "change-message-bytes",
            Slot::Size(&mut limits.change_message_bytes),
        ),
        ("sync-changes", Slot::Size(&mut limits.sync_changes)),
        ("sync-heads", Slot::Size(&mut limits.sync_heads)),
        ("sync-need", Slot::Size(&mut limits.sync_need)),
        ("sync-haves", Slot::Size(&mut limits.sync_haves)),
        (
            "remote-subscriptions",
            Slot::Size(&mut limits.remote_subscriptions),
        ),
        ("orphans", Slot::Size(&mut limits.orphans)),
        ("orphan-bytes", Slot::Size(&mut limits.orphan_bytes)),
        ("queue-bytes", Slot::Size(&mut limits.queue_bytes)),
        (
            "documents-per-connection",
            Slot::Size(&mut limits.documents_per_connection),
        ),
        ("frames-per-second", Slot::Rate(&mut rates.frames)),
        ("frame-burst", Slot::Rate(&mut rates.frame_burst)),
        ("bytes-per-second", Slot::Rate(&mut rates.bytes)),
        ("byte-burst", Slot::Rate(&mut rates.byte_burst)),
        ("sustained-ms", Slot::Count(&mut rates.sustained_ms)),
    ]
}

/// A file that was read: section, key, value, line.
#[derive(Debug, Default)]
struct File {
    name: String,
    values: Vec<(Section, String, String, usize)>,
}

impl File {
    fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let line_of = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let wrong = |at: usize, reason: String| ConfigError::File {
            file: name.to_owned(),
            line: line_of(at),
            reason,
        };
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            wrong(at, error.message().replace('\n', " "))
        })?;
        let mut values = Vec::new();
        for (key, value) in table.get_ref() {
            let at = key.span().start;
            let section = Section::ALL
                .into_iter()
                .find(|section| section.name() == key.get_ref());
            let (Some(section), DeValue::Table(inner)) = (section, value.get_ref()) else {
                let reason = format!(
                    "{:?} is not known here: settings are in [serve] and [limits]",
                    key.get_ref()
                );
                return Err(wrong(at, reason));
            };
            for (key, value) in inner {
                let at = key.span().start;
                if !section.knows(key.get_ref()) {
                    let reason = format!(
                        "[{}] has no setting {:?}; `concord serve --print-config` lists them",
                        section.name(),
                        key.get_ref()
                    );
                    return Err(wrong(at, reason));
                }
                let value = match value.get_ref() {
                    DeValue::String(text) => text.to_string(),
                    DeValue::Integer(number) => number.to_string(),
                    DeValue::Boolean(truth) => truth.to_string(),
                    _ => {
                        let reason = "expected a string, an integer or a boolean".to_owned();
                        return Err(wrong(value.span().start, reason));
                    }
                };
                values.push((section, key.get_ref().to_string(), value, line_of(at)));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            values,
        })
    }

    fn find(&self, section: Section, key: &str) -> Option<(String, Source)> {
        let (_, _, value, line) = self
            .values
            .iter()
            .find(|(there, name, ..)| *there == section && name == key)?;
        Some((value.clone(), Source::File(self.name.clone(), *line)))
    }
}

/// Finds values and notes where they were found.
struct Finder<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    file: File,
    lines: Vec<(Section, &'static str, String, Source)>,
}

impl Finder<'_> {
    /// One value: flag, `CONCORD_*`, the older variable, file, default.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "defaults are mostly literals"
    )]
    fn find<T>(
        &mut self,
        (section, key): (Section, &'static str),
        flag: Option<T>,
        older: Option<&str>,
        default: T,
    ) -> Result<T, ConfigError>
    where
        T: FromStr<Err: fmt::Display> + fmt::Display,
    {
        let name = section.env(key);
        let given = |name: &str| {
            let value = (self.env)(name).filter(|value| !value.is_empty())?;
            Some((value, Source::Env(name.to_owned())))
        };
        let (text, source) = if let Some(flag) = flag {
            (flag.to_string(), Source::Flag(format!("--{key}")))
        } else if let Some(found) = given(&name)
            .or_else(|| older.and_then(given))
            .or_else(|| self.file.find(section, key))
        {
            found
        } else {
            (default.to_string(), Source::Default)
        };
        let value: T = text.parse().map_err(|error: T::Err| ConfigError::Value {
            source_name: source.to_string(),
            key,
            value: text.clone(),
            reason: error.to_string(),
        })?;
        self.lines.push((section, key, value.to_string(), source));
        Ok(value)
    }
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
        let mut finder = Finder {
            env,
            file,
            lines: Vec::new(),
        };
        let f = &mut finder;
        let serve = |key| (Section::Serve, key);
        let mut relay = RelayConfig::default();
        let mut workers = WorkerLimits::default();

        relay.host = f.find(serve("host"), args.host.clone(), None, relay.host)?;
        relay.port = f.find(serve("port"), args.port, Some("PORT"), relay.port)?;
        let data_dir = args
            .data_dir
            .as_ref()
            .map(|path| path.display().to_string());
        let older = Some("DATA_DIR");
        let data_dir = f.find(
            serve("data-dir"),
            data_dir,
            older,
            "concord-data".to_owned(),
        )?;
        let sled = StoreKind::Disk(Engine::Sled);
        let store = f.find(serve("store"), args.store, None, sled)?;
        let admin_host = relay::HOST.to_owned();
        let admin_host = f.find(
            serve("admin-host"),
            args.admin_host.clone(),
            None,
            admin_host,
        )?;
        let admin_port = f.find(
            serve("admin-port"),
            args.admin_port,
            None,
            relay::ADMIN_PORT,
        )?;
        let no_admin = f.find(serve("no-admin"), set(args.no_admin), None, false)?;
        relay.admin = (!no_admin).then_some((admin_host, admin_port));
        relay.shards = f.find(serve("shards"), args.shards, None, relay.shards)?;
        workers.workers = f.find(serve("workers"), args.workers, None, workers.workers)?;
        relay.strict = f.find(serve("strict"), set(args.strict), None, relay.strict)?;
        relay.idle_ms = f.find(serve("idle-ms"), args.idle_ms, None, relay.idle_ms)?;
        relay.ping_ms = f.find(serve("ping-ms"), args.ping_ms, None, relay.ping_ms)?;
        let pong_ms = args.pong_timeout_ms;
        relay.pong_timeout_ms = f.find(
            serve("pong-timeout-ms"),
            pong_ms,
            None,
            relay.pong_timeout_ms,
        )?;
        relay.stalled_ms = f.find(serve("stalled-ms"), args.stalled_ms, None, relay.stalled_ms)?;
        let is_open = set(args.allow_anonymous);
        relay.allow_anonymous = f.find(serve("allow-anonymous"), is_open, None, false)?;
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
        self.at_least(
            "ping-ms",
            relay.ping_ms,
            1,
            "pings need some time between them",
        )?;
        let enough = relay.ping_ms.saturating_add(1);
        let reason = "a pong must have longer than the time between pings (ping-ms)";
        self.at_least("pong-timeout-ms", relay.pong_timeout_ms, enough, reason)?;
        let workers = self.workers.workers as u64;
        self.at_least("workers", workers, 1, "documents need a worker")?;
        let largest = relay.limits.message_bytes as u64;
        let reason = "it must hold one message of the largest size (message-bytes)";
        self.at_least(
            "byte-burst",
            u64::from(relay.rates.byte_burst),
            largest,
            reason,
        )?;
        for rate in [
            ("frames-per-second", relay.rates.frames),
            ("bytes-per-second", relay.rates.bytes),
        ] {
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
            source_name: line
                .map_or(&Source::Default, |(.., source)| source)
                .to_string(),
            key,
            value: value.to_string(),
            reason: format!("{reason}; at least {least}"),
        })
    }

    /// Whether others than this machine could reach a listener, as far as the text shows.
    pub(crate) fn is_exposed(&self) -> bool {
        let admin = self.relay.admin.as_ref().map(|(host, _)| host);
        let is_far = |host: &String| {
            host.parse::<IpAddr>()
                .map_or(host != "localhost", |ip| !ip.is_loopback())
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

fn read_file(
    named: Option<&str>,
    read: &dyn Fn(&str) -> std::io::Result<String>,
) -> Result<File, ConfigError> {
    let name = named.unwrap_or(FILE);
    match read(name) {
        Ok(text) => File::parse(name, &text),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(File::default())
        }
        Err(error) => Err(ConfigError::Unreadable {
            file: name.to_owned(),
            error: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests;
