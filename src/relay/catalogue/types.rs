//! The type of a document without opening it: the change with which documents of a type begin is
//! the same everywhere, so its hash names the type.

use std::collections::BTreeMap;

use concord_protocol::ChangeHash;

use crate::{
    entity::Schema,
    replica::{Kind, RowWrite},
};

/// The first changes of the documents of each type of a schema.
#[derive(Debug, Default)]
pub(super) struct Types(BTreeMap<ChangeHash, String>);

impl Types {
    pub(super) fn of(schema: &Schema) -> Self {
        let first = |of: &crate::entity::EntityType| {
            let begun = of.begun().unwrap_or_else(|error| {
                tracing::warn!(of.name, %error, "documents of a type are known only once opened");
                Vec::new()
            });
            Some((ChangeHash(begun.first()?.0), of.name.clone()))
        };
        Self(schema.types.values().filter_map(first).collect())
    }

    /// The type of the document of which these rows are written, if its first change is among them.
    pub(super) fn begun_in(&self, rows: &[RowWrite]) -> Option<&str> {
        if self.0.is_empty() {
            return None;
        }
        rows.iter().find_map(|row| match row {
            RowWrite::Put(key, _) if key.kind == Kind::Change => {
                self.0.get(&ChangeHash(key.id)).map(String::as_str)
            }
            _ => None,
        })
    }

    /// The type whose first change is in a document.
    pub(super) fn found(&self, holds: impl Fn(&ChangeHash) -> bool) -> Option<&str> {
        self.0.iter().find(|(first, _)| holds(first)).map(|(_, name)| name.as_str())
    }
}
