//! A schema: the types of entities, as a file declares them.

use std::{collections::BTreeMap, sync::Arc};

use concord_protocol::ChangeHash;

use super::{
    Expiry, Field, Level, Migration, Priorities, Priority, Rule, SchemaErrors, lens::Chain, parse,
};

/// The key of a document that names its type, where a schema does not say another.
pub const ROOT_KEY: &str = "type";

/// What entities there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// The key of a document, at its root, that names its type.
    pub root_key: String,
    /// The types by name.
    pub types: BTreeMap<String, EntityType>,
}

/// A type of entities.
#[derive(Debug, Clone, PartialEq)]
pub struct EntityType {
    /// What it is called: the value of the root key in its documents.
    pub name: String,
    /// The key of a document that names its type.
    pub root_key: String,
    /// Which version of the type this is, from 1.
    pub version: u32,
    /// Its fields by name.
    pub fields: BTreeMap<String, Field>,
    /// Fields that earlier versions had, as they were kept in documents. Old documents begin with
    /// them, and peers of those versions still write them.
    pub gone: Vec<Field>,
    /// Fields which, taken together, no two live entities have alike.
    pub unique: Vec<Vec<String>>,
    /// What must hold of its fields together, by name.
    pub invariants: BTreeMap<String, Rule>,
    /// How soon what is written in its documents is sent, as a whole.
    pub priority: Priority,
    /// The same by what is done, and to which field.
    pub priorities: Priorities,
    /// What a lease on one of its documents means.
    pub lease: LeaseRule,
    /// What becomes of edits concurrent with a delete.
    pub edits_of_deleted: EditsOfDeleted,
    /// How long after it was deleted a relay purges an entity: nothing of it is kept then, and its
    /// name is not used again. `None`: never.
    pub purge_deleted_after: Option<Expiry>,
    /// What changed with each version, in order.
    pub migrations: Vec<Migration>,
    /// The fields that earlier versions have elsewhere.
    pub(super) chains: Vec<Arc<Chain>>,
}

/// What it means that a session holds the lease of a document.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LeaseRule {
    /// Programs show it, and keep to it as they will.
    #[default]
    Advisory,
    /// Relays take changes of nobody else as long as it is held.
    Required,
}

/// What becomes of an entity that one person deletes while another edits it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EditsOfDeleted {
    /// It stays, with the edits.
    #[default]
    Keep,
    /// A person decides.
    Review,
}

impl Schema {
    /// Reads a schema file.
    ///
    /// # Errors
    /// All that is wrong with it, each with its line and what to do.
    ///
    /// ```
    /// let schema = concord::entity::Schema::parse(r#"
    ///     [types.task.fields]
    ///     title = "text"
    ///     status = { kind = "enum", values = ["todo", "done"], default = "todo" }
    /// "#)?;
    /// assert_eq!(schema.types["task"].fields["status"].kind.name(), "enum");
    /// # Ok::<(), concord::entity::SchemaErrors>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self, SchemaErrors> {
        parse::schema(text)
    }

    /// What the documents begin with whose types require a lease.
    pub(crate) fn leased(&self) -> Vec<ChangeHash> {
        let types = self.types.values().filter(|of| of.lease == LeaseRule::Required);
        // A type that cannot be begun has no documents.
        let first = |of: &EntityType| of.begun().ok()?.first().map(|first| ChangeHash(first.0));
        types.filter_map(first).collect()
    }
}

impl EntityType {
    /// How soon it is sent that an entity was made.
    pub fn level_of_create(&self) -> Level {
        self.priorities.of_create(self.priority)
    }

    /// How soon it is sent that one was deleted, or brought back.
    pub fn level_of_delete(&self) -> Level {
        self.priorities.of_delete(self.priority)
    }

    /// How soon an edit of a field is sent; `None`: of something else in the document.
    pub fn level_of_edit(&self, field: Option<&Field>) -> Level {
        self.priorities.of_edit(self.priority, field)
    }

    /// The fields that earlier versions have elsewhere.
    pub(crate) fn chains(&self) -> &[Arc<Chain>] {
        &self.chains
    }
}

impl LeaseRule {
    pub(super) const NAMES: [&str; 2] = ["advisory", "required"];

    /// Its name in a schema file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Advisory => "advisory",
            Self::Required => "required",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Advisory, Self::Required].into_iter().find(|rule| rule.name() == name)
    }
}

impl EditsOfDeleted {
    pub(super) const NAMES: [&str; 2] = ["keep", "review"];

    /// Its name in a schema file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Review => "review",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Keep, Self::Review].into_iter().find(|policy| policy.name() == name)
    }
}
