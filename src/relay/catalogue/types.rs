//! The type of a document without opening it: the change with which documents of a type begin is
//! the same everywhere, so its hash names the type.

use std::collections::{BTreeMap, BTreeSet};

use concord_protocol::ChangeHash;

use crate::{
    entity::Schema,
    replica::{Kind, RowWrite},
};

/// The types of a schema.
#[derive(Debug, Default)]
pub(super) struct Types {
    /// The first changes of the documents of each.
    begun: BTreeMap<ChangeHash, String>,
    declared: BTreeSet<String>,
}

impl Types {
    pub(super) fn of(schema: &Schema) -> Self {
        let first = |of: &crate::entity::EntityType| {
            let begun = of.begun().unwrap_or_else(|error| {
                tracing::warn!(of.name, %error, "documents of a type are known only once opened");
                Vec::new()
            });
            Some((ChangeHash(begun.first()?.0), of.name.clone()))
        };
        let begun = schema.types.values().filter_map(first).collect();
        Self { begun, declared: schema.types.keys().cloned().collect() }
    }

    /// Whether the schema, if there is one, declares this type: of another nothing is known.
    pub(super) fn declares(&self, type_name: &str) -> bool {
        self.declared.contains(type_name)
    }

    /// The type of the document of which these rows are written, if its first change is among them.
    pub(super) fn begun_in(&self, rows: &[RowWrite]) -> Option<&str> {
        if self.begun.is_empty() {
            return None;
        }
        rows.iter().find_map(|row| match row {
            RowWrite::Put(key, _) if key.kind == Kind::Change => {
                self.begun.get(&ChangeHash(key.id)).map(String::as_str)
            }
            _ => None,
        })
    }

    /// The type whose first change is in a document.
    pub(super) fn found(&self, holds: impl Fn(&ChangeHash) -> bool) -> Option<&str> {
        self.begun.iter().find(|(first, _)| holds(first)).map(|(_, name)| name.as_str())
    }
}
