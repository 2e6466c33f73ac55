//! What changed from one version of a type to the next.

use std::fmt;

/// One step from the version before to this one.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// The version that it leads to.
    pub version: u32,
    /// What it does.
    pub step: Step,
}

/// What a migration does.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// A field came; of a map, as `address.street`.
    Add {
        /// Which.
        field: String,
    },
    /// A field went. What was written stays in the document.
    Remove {
        /// Which.
        field: String,
        /// The kind that it had.
        kind: super::Kind,
    },
    /// A field got another name. It stays under its first key in documents.
    Rename {
        /// What it was called.
        from: String,
        /// What it is called.
        to: String,
    },
    /// A field became another kind, in a place of its own unless values of both are kept alike. Each
    /// version writes its own, and whoever knows both carries values on and back: nothing is
    /// rounded, and what has no counterpart is [`Parked`](super::Parked).
    ///
    /// | from \ to     | text, string | enum          | integer  | number   | boolean    | timestamp |
    /// | ------------- | ------------ | ------------- | -------- | -------- | ---------- | --------- |
    /// | text, string  | as it is     | if one of its | decimal  | decimal  | true/false | RFC 3339  |
    /// | enum          | as it is     | if one of its | decimal  | decimal  | true/false | RFC 3339  |
    /// | integer       | decimal      | decimal       | as it is | to 2^53  | 0 or 1     | ms        |
    /// | number        | decimal      | decimal       | if whole | as it is | 0 or 1     | whole ms  |
    /// | boolean       | true/false   | true/false    | 0 or 1   | 0 or 1   | as it is   | refused   |
    /// | timestamp     | RFC 3339     | RFC 3339      | ms       | to 2^53  | refused    | as it is  |
    ///
    /// Of all other kinds, only those become each other whose values are kept alike: strings, enums,
    /// references and places; sets; lists and maps of such. The rest is refused in the schema file.
    Retype {
        /// Which.
        field: String,
        /// The kind that it had.
        from: super::Kind,
    },
    /// One field became several: its words, cut at a separator. The last has what is left over, and
    /// where there are too few, the others have no value. All are strings or texts.
    Split {
        /// Which.
        field: String,
        /// The kind that it had.
        from: super::Kind,
        /// What it became.
        into: Vec<String>,
        /// What stood between.
        separator: String,
    },
    /// Several fields became one: joined with a separator, without those that have no value. All
    /// are strings or texts.
    Merge {
        /// Which.
        fields: Vec<String>,
        /// The kind that they had.
        from: super::Kind,
        /// What they became.
        into: String,
        /// What stands between.
        separator: String,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { field } => write!(f, "add {field}"),
            Self::Remove { field, kind } => write!(f, "remove {field} ({})", kind.name()),
            Self::Rename { from, to } => write!(f, "rename {from} to {to}"),
            Self::Retype { field, from } => write!(f, "retype {field} from {}", from.name()),
            Self::Split { field, into, .. } => write!(f, "split {field} into {}", into.join(", ")),
            Self::Merge { fields, into, .. } => {
                write!(f, "merge {} into {into}", fields.join(", "))
            }
        }
    }
}
