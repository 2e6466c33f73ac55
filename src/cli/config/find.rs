//! Where values are found: the file with its lines, and the order of places to look.

use std::{
    fmt::{self},
    str::FromStr,
};

use concord::{entity::nearest, relay::RelayConfig};
use toml::de::{DeTable, DeValue};

use super::{ConfigError, FILE, limits::limits};

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

/// A table of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Serve,
    Limits,
}

impl Section {
    pub(super) const ALL: [Self; 2] = [Self::Serve, Self::Limits];

    pub(super) const fn name(self) -> &'static str {
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

    fn keys(self) -> Vec<&'static str> {
        match self {
            Self::Serve => SERVE_KEYS.to_vec(),
            Self::Limits => {
                limits(&mut RelayConfig::default()).into_iter().map(|(name, _)| name).collect()
            }
        }
    }

    /// Where to look for what was meant by a key that is not there.
    fn hint(self, key: &str) -> String {
        match nearest(&key.replace('_', "-"), &self.keys()) {
            Some(nearest) => format!("did you mean {nearest:?}?"),
            None => "`concord serve --print-config` lists them".to_owned(),
        }
    }
}

/// Every key of `[serve]`.
pub(super) const SERVE_KEYS: [&str; 21] = [
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
    "no-review",
    "no-compression",
    "schema",
    "idle-ms",
    "ping-ms",
    "pong-timeout-ms",
    "stalled-ms",
    "allow-anonymous",
    "allowed-origins",
    "log-format",
    "log",
];

/// A file that was read: section, key, value, line.
#[derive(Debug, Default)]
pub(super) struct File {
    name: String,
    values: Vec<(Section, String, String, usize)>,
}

impl File {
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
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
            let section = Section::ALL.into_iter().find(|section| section.name() == key.get_ref());
            let (Some(section), DeValue::Table(inner)) = (section, value.get_ref()) else {
                let reason = format!(
                    "{:?} is not known here: settings are in [serve] and [limits]",
                    key.get_ref()
                );
                return Err(wrong(at, reason));
            };
            for (key, value) in inner {
                let at = key.span().start;
                if !section.keys().contains(&&**key.get_ref()) {
                    let (name, key) = (section.name(), key.get_ref());
                    let hint = section.hint(key);
                    let reason = format!("[{name}] has no setting {key:?}: {hint}");
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
        Ok(Self { name: name.to_owned(), values })
    }

    pub(super) fn find(&self, section: Section, key: &str) -> Option<(String, Source)> {
        let (_, _, value, line) =
            self.values.iter().find(|(there, name, ..)| *there == section && name == key)?;
        Some((value.clone(), Source::File(self.name.clone(), *line)))
    }
}

/// Finds values and notes where they were found.
pub(super) struct Finder<'a> {
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    pub(super) file: File,
    pub(super) lines: Vec<(Section, &'static str, String, Source)>,
}

impl Finder<'_> {
    /// One value: flag, `CONCORD_*`, the older variable, file, default.
    #[expect(clippy::needless_pass_by_value, reason = "defaults are mostly literals")]
    pub(super) fn find<T>(
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
        } else if let Some(found) =
            given(&name).or_else(|| older.and_then(given)).or_else(|| self.file.find(section, key))
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

pub(super) fn read_file(
    named: Option<&str>,
    read: &dyn Fn(&str) -> std::io::Result<String>,
) -> Result<File, ConfigError> {
    let name = named.unwrap_or(FILE);
    match read(name) {
        Ok(text) => File::parse(name, &text),
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            Ok(File::default())
        }
        Err(error) => {
            Err(ConfigError::Unreadable { file: name.to_owned(), error: error.to_string() })
        }
    }
}
