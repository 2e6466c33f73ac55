//! What becomes of concurrent writes that differ.

use std::fmt;

use super::Role;

/// What becomes of values that people wrote into one field at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// The kind merges by itself: texts, counters, sets, lists and maps.
    Merge,
    /// A person decides. The default of every kind that does not merge by itself.
    Review,
    /// The write with the latest time stands.
    Latest,
    /// The write with the earliest time stands.
    Earliest,
    /// The greatest value stands.
    Max,
    /// The least value stands.
    Min,
    /// What any side has stands.
    Union,
    /// The value that is furthest on stands: for a status that only moves forward.
    Ladder(Vec<String>),
    /// The write of whoever has the first of these roles stands, and of those who have the same the
    /// latest. Where somebody has none of them, a person decides.
    Role(Vec<Role>),
    /// What a relay wrote stands.
    Relay,
    /// What a peer wrote stands.
    Peer,
}

impl Policy {
    /// Those that a file can name.
    pub(super) const NAMES: [&str; 10] =
        ["review", "latest", "earliest", "max", "min", "union", "ladder", "role", "relay", "peer"];

    /// Its name in a schema file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Review => "review",
            Self::Latest => "latest",
            Self::Earliest => "earliest",
            Self::Max => "max",
            Self::Min => "min",
            Self::Union => "union",
            Self::Ladder(_) => "ladder",
            Self::Role(_) => "role",
            Self::Relay => "relay",
            Self::Peer => "peer",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ladder(order) => write!(f, "ladder {}", order.join(" < ")),
            Self::Role(order) => {
                let names: Vec<&str> = order.iter().map(|role| role.name.as_str()).collect();
                write!(f, "role {}", names.join(" > "))
            }
            other => f.write_str(other.name()),
        }
    }
}
