//! Fields: what a value may be, and how it is kept in a document.

use std::{collections::BTreeMap, fmt};

use automerge::ObjType;

use super::Policy;

/// A field of an entity, or of a map in one.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// What it is called.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether an entity without it is incomplete: a text, set, list or map must then not be
    /// empty.
    pub required: bool,
    /// What readers see where nothing was written. It is never written into a document, so that a
    /// default is no one's decision and conflicts with none.
    pub default: Option<Literal>,
    /// What becomes of values written at the same time.
    pub policy: Policy,
    /// Whether readers are told that it is in review while people disagree about it.
    pub hold: bool,
    /// The key that it is kept under in a document: the name that it began with. A field that is
    /// renamed stays where it is, so that old and new versions edit the same value.
    pub slot: String,
    /// The version of its type that it came with.
    pub since: u32,
}

/// A value without parts, in a schema file.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// True or false.
    Boolean(bool),
    /// A whole number; of a timestamp, milliseconds since 1970.
    Integer(i64),
    /// A number.
    Number(f64),
    /// A string.
    String(String),
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// Text that several people edit at once, kept as an Automerge text.
    Text {
        /// Characters at most.
        max_length: Option<u64>,
    },
    /// A string that is written as a whole.
    String {
        /// Characters at most.
        max_length: Option<u64>,
        /// What it must match.
        pattern: Option<Pattern>,
    },
    /// One of these strings.
    Enum {
        /// Which.
        values: Vec<String>,
    },
    /// A whole number.
    Integer {
        /// The least.
        min: Option<i64>,
        /// The greatest.
        max: Option<i64>,
    },
    /// A number.
    Number {
        /// The least.
        min: Option<f64>,
        /// The greatest.
        max: Option<f64>,
    },
    /// True or false.
    Boolean,
    /// A moment, in milliseconds since 1970.
    Timestamp {
        /// The earliest.
        min: Option<i64>,
        /// The latest.
        max: Option<i64>,
    },
    /// A number that people add to; what is added at the same time is summed up.
    Counter,
    /// Members without order, kept as the keys of a map: what is added while somebody else removes
    /// it stays.
    Set {
        /// What a member is: a string, enum, integer or reference.
        items: Box<Kind>,
        /// Members at most.
        max_length: Option<u64>,
    },
    /// Values in the order that they were inserted in.
    List {
        /// What each is.
        items: Box<Kind>,
        /// Values at most.
        max_length: Option<u64>,
    },
    /// Values by keys that anybody may add: in a file, a `map` with `items`.
    Map {
        /// What each is.
        items: Box<Kind>,
        /// Values at most.
        max_length: Option<u64>,
    },
    /// Fields that are declared: in a file, a `map` with `fields`.
    Record {
        /// Which.
        fields: BTreeMap<String, Field>,
    },
    /// Another entity, by the id of its document.
    Reference {
        /// Of which type.
        to: String,
        /// What becomes of this when that is deleted.
        on_delete: OnDelete,
        /// Whether following it never leads back to where one began: the parent of an entity in a
        /// tree. Only of a field of the entity itself, to its own type.
        acyclic: bool,
    },
    /// A place in an order that people change: see [`write::place_between`].
    ///
    /// [`write::place_between`]: super::write::place_between
    Position,
    /// Bytes.
    Blob {
        /// Bytes at most.
        max_length: Option<u64>,
    },
    /// Bytes beside the document: an [`Attachment`](super::Attachment) as a string, written as a
    /// whole.
    Attachment {
        /// Bytes at most.
        max_length: Option<u64>,
    },
    /// Anything, written as a whole or in parts.
    Json,
}

/// What becomes of a reference when its target is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDelete {
    /// The target cannot be deleted while something refers to it.
    #[default]
    Restrict,
    /// Whatever refers to it is deleted too.
    Cascade,
    /// The reference becomes empty.
    SetNull,
    /// The target comes back.
    Restore,
}

/// A regular expression that a string must match, anywhere unless it is anchored. It takes time
/// that is linear in the string.
#[derive(Debug, Clone)]
pub struct Pattern(pub(super) regex::Regex);

impl Pattern {
    /// Whether a string matches.
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// As it stands in the file.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl OnDelete {
    pub(super) const NAMES: [&str; 4] = ["restrict", "cascade", "set_null", "restore"];

    /// Its name in a schema file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Restrict => "restrict",
            Self::Cascade => "cascade",
            Self::SetNull => "set_null",
            Self::Restore => "restore",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [Self::Restrict, Self::Cascade, Self::SetNull, Self::Restore];
        all.into_iter().find(|rule| rule.name() == name)
    }
}

impl Kind {
    /// Every kind that a file can name.
    pub(super) const NAMES: [&str; 16] = [
        "text",
        "string",
        "enum",
        "integer",
        "number",
        "boolean",
        "timestamp",
        "counter",
        "set",
        "list",
        "map",
        "reference",
        "position",
        "blob",
        "attachment",
        "json",
    ];

    /// Its name in a schema file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::String { .. } => "string",
            Self::Enum { .. } => "enum",
            Self::Integer { .. } => "integer",
            Self::Number { .. } => "number",
            Self::Boolean => "boolean",
            Self::Timestamp { .. } => "timestamp",
            Self::Counter => "counter",
            Self::Set { .. } => "set",
            Self::List { .. } => "list",
            Self::Map { .. } | Self::Record { .. } => "map",
            Self::Reference { .. } => "reference",
            Self::Position => "position",
            Self::Blob { .. } => "blob",
            Self::Attachment { .. } => "attachment",
            Self::Json => "json",
        }
    }

    /// Whether it is written as a whole, so that values written at the same time differ. The other
    /// kinds merge by themselves.
    pub fn is_register(&self) -> bool {
        self.object().is_none() && !matches!(self, Self::Counter)
    }

    /// The Automerge object that it is kept in; `None` if it is a value without parts. Values of
    /// [`Kind::Json`] may be either.
    pub fn object(&self) -> Option<ObjType> {
        match self {
            Self::Text { .. } => Some(ObjType::Text),
            Self::List { .. } => Some(ObjType::List),
            Self::Set { .. } | Self::Map { .. } | Self::Record { .. } => Some(ObjType::Map),
            _ => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enum { values } => write!(f, "enum {}", values.join(" | ")),
            Self::Set { items, .. } => write!(f, "set of {items}"),
            Self::List { items, .. } => write!(f, "list of {items}"),
            Self::Map { items, .. } => write!(f, "map of {items}"),
            Self::Record { fields } => {
                let names: Vec<_> = fields.keys().map(String::as_str).collect();
                write!(f, "map {{ {} }}", names.join(", "))
            }
            Self::Reference { to, on_delete, acyclic } => {
                let acyclic = if *acyclic { ", acyclic" } else { "" };
                write!(f, "reference to {to}, {}{acyclic}", on_delete.name())
            }
            other => f.write_str(other.name()),
        }
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(yes) => write!(f, "{yes}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::String(text) => write!(f, "{text:?}"),
        }
    }
}
