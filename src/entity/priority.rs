//! How soon what is written in an entity is sent: by what was done, and to which field.

use std::{collections::BTreeMap, fmt};

use super::{Field, Kind, Policy};

/// Names of fields that say how far something is, whatever their values.
const STATUS_NAMES: [&str; 2] = ["status", "state"];

/// How soon a document of a type is sent, as one word: what a type says of itself as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Everything of it one step later than [`Priorities`] would have it.
    Low,
    /// As they have it.
    #[default]
    Normal,
    /// Everything of it one step sooner.
    High,
}

/// How soon something is sent, from 1, before all others, to 5, behind all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(u8);

/// What the levels of a type are, where it says more than a word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Priorities {
    /// Of making an entity; [`Level::CRITICAL`] where it does not say.
    pub create: Option<Level>,
    /// Of deleting one, or bringing it back; [`Level::CRITICAL`] where it does not say.
    pub delete: Option<Level>,
    /// Of an edit of a field that is not among these; that of its kind where it does not say.
    pub edit: Option<Level>,
    /// Of edits of these fields.
    pub fields: BTreeMap<String, Level>,
}

impl Level {
    /// Entities that are made and deleted, and how far something is.
    pub const CRITICAL: Self = Self(1);
    /// Who has something, and what it is called.
    pub const HIGH: Self = Self(2);
    /// Texts, times, and all of which nothing is known.
    pub const NORMAL: Self = Self(3);
    /// Tags, and places in an order.
    pub const LOW: Self = Self(4);
    /// What many operations were made for at once.
    pub const BACKGROUND: Self = Self(5);
    /// All of them, the first to be sent first.
    pub const ALL: [Self; 5] =
        [Self::CRITICAL, Self::HIGH, Self::NORMAL, Self::LOW, Self::BACKGROUND];

    /// The level of this number, from 1 to 5.
    pub fn new(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.0 == number)
    }

    /// Its number, from 1 to 5.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Of an edit of a field of this kind.
    fn of_field(field: &Field) -> Self {
        match (&field.kind, &field.policy) {
            (Kind::Enum { .. }, Policy::Ladder(_)) => Self::CRITICAL,
            _ if STATUS_NAMES.contains(&field.name.as_str()) => Self::CRITICAL,
            (Kind::Enum { .. } | Kind::Reference { .. } | Kind::String { .. }, _) => Self::HIGH,
            (Kind::Set { .. } | Kind::List { .. } | Kind::Position, _) => Self::LOW,
            _ => Self::NORMAL,
        }
    }

    fn shifted(self, by: Priority) -> Self {
        let number = match by {
            Priority::Low => self.0 + 1,
            Priority::Normal => self.0,
            Priority::High => self.0 - 1,
        };
        Self(number.clamp(Self::CRITICAL.0, Self::BACKGROUND.0))
    }
}

impl Default for Level {
    fn default() -> Self {
        Self::NORMAL
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Priorities {
    /// Of making an entity of a type with this word.
    pub fn of_create(&self, word: Priority) -> Level {
        self.create.unwrap_or(Level::CRITICAL.shifted(word))
    }

    /// Of deleting one, or bringing it back.
    pub fn of_delete(&self, word: Priority) -> Level {
        self.delete.unwrap_or(Level::CRITICAL.shifted(word))
    }

    /// Of an edit of this field; `None`: of something that is no field.
    pub fn of_edit(&self, word: Priority, field: Option<&Field>) -> Level {
        let named = field.and_then(|field| self.fields.get(&field.name).copied());
        named
            .or(self.edit)
            .unwrap_or_else(|| field.map_or(Level::NORMAL, Level::of_field).shifted(word))
    }
}

impl Priority {
    pub(super) const NAMES: [&str; 3] = ["low", "normal", "high"];

    /// Its name in a schema file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Low, Self::Normal, Self::High].into_iter().find(|priority| priority.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use crate::entity::{Schema, SchemaErrors};

    fn schema(more: &str) -> Result<Schema, SchemaErrors> {
        Schema::parse(&format!(
            r#"
[types.user.fields]
name = "string"
[types.task]
{more}
[types.task.fields]
status = {{ kind = "enum", values = ["todo", "done"] }}
stage = {{ kind = "enum", values = ["a", "b"], policy = "ladder", ladder = ["a", "b"] }}
owner = {{ kind = "reference", to = "user" }}
title = "string"
details = "text"
due = "timestamp"
labels = {{ kind = "set", items = "string" }}
place = "position"
"#
        ))
    }

    fn levels(more: &str) -> (u8, u8, Vec<u8>) {
        let schema = schema(more).unwrap();
        let of = &schema.types["task"];
        let names = ["status", "stage", "owner", "title", "details", "due", "labels", "place"];
        let edits = names.map(|name| of.level_of_edit(of.fields.get(name)).number());
        (of.level_of_create().number(), of.level_of_delete().number(), edits.to_vec())
    }

    #[test]
    fn what_matters_most_goes_first() {
        assert_eq!(levels(""), (1, 1, vec![1, 1, 2, 2, 3, 3, 4, 4]));
        assert_eq!(levels("priority = \"normal\""), levels(""));
    }

    #[test]
    fn a_word_moves_all_of_a_type_by_one_step() {
        assert_eq!(levels("priority = \"high\""), (1, 1, vec![1, 1, 1, 1, 2, 2, 3, 3]));
        assert_eq!(levels("priority = \"low\""), (2, 2, vec![2, 2, 3, 3, 4, 4, 5, 5]));
    }

    #[test]
    fn what_a_type_says_of_an_operation_or_a_field_holds() {
        let said = "priority = \"low\"\n\
                    priorities = { create = 3, delete = 2, edit = 4, fields = { labels = 1 } }";
        assert_eq!(levels(said), (3, 2, vec![4, 4, 4, 4, 4, 4, 1, 4]));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said = |more: &str| schema(more).unwrap_err().to_string();
        let six = said("priorities = { create = 6 }");
        assert!(six.contains("1 (before all others) to 5"), "{six}");
        let unknown = said("priorities = { fields = { label = 4 } }");
        assert!(unknown.contains("`label`") && unknown.contains("`labels`"), "{unknown}");
        assert!(said("priorities = { update = 1 }").contains("no key `update`"));
    }
}
