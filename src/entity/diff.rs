//! What a new version of a schema means for the documents of the old one.

mod fields;
mod kinds;

use std::fmt;

use super::{EntityType, LeaseRule, Schema};

/// One difference between two schemas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The type that it is of; empty if it is the schema's.
    pub type_name: String,
    /// The field that it is of, by its new name if it has one.
    pub field: Option<String>,
    /// What it means.
    pub impact: Impact,
    /// What differs.
    pub what: String,
    /// What to do about it, if there is something to do.
    pub fix: Option<String>,
}

/// What a difference means for documents that are there, and peers of the old schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Impact {
    /// Nothing is lost, and nothing has to be done.
    Compatible,
    /// A migration that the new schema declares takes care of it.
    Migrated,
    /// Some of what is or can be written no longer fits, or is no longer shown. It stays in the
    /// documents, unless the type says that they are purged.
    Lossy,
    /// A migration is missing.
    NeedsMigration,
}

impl fmt::Display for Impact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Compatible => "compatible",
            Self::Migrated => "migrated",
            Self::Lossy => "lossy",
            Self::NeedsMigration => "needs_migration",
        })
    }
}

impl Schema {
    /// What differs in a newer schema, by type and field.
    pub fn diff(&self, newer: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        if self.root_key != newer.root_key {
            found.push(Difference {
                type_name: String::new(),
                field: None,
                impact: Impact::NeedsMigration,
                what: format!(
                    "documents are recognised by `{}` instead of `{}`",
                    newer.root_key, self.root_key
                ),
                fix: Some(format!("keep `root_key = {:?}`", self.root_key)),
            });
        }
        for (name, old) in &self.types {
            match newer.types.get(name) {
                Some(new) => found.extend(old.diff(new)),
                None => found.push(old.of(
                    Impact::Lossy,
                    "the type is gone; its documents stay, as documents of no type",
                    None,
                )),
            }
        }
        for (name, new) in &newer.types {
            if !self.types.contains_key(name) {
                let what = format!("new type with {} fields", new.fields.len());
                found.push(new.of(Impact::Compatible, what, None));
            }
        }
        found
    }
}

impl EntityType {
    /// What differs in a newer version of the type.
    pub fn diff(&self, newer: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        if newer.version < self.version {
            let what = format!("version {} became {}", self.version, newer.version);
            let fix = format!("write `version = {}`, or more", self.version);
            found.push(newer.of(Impact::NeedsMigration, what, Some(fix)));
        } else if newer.version > self.version {
            let what = format!("version {} became {}", self.version, newer.version);
            found.push(newer.of(Impact::Compatible, what, None));
        }
        let declared = |entity: &Self| -> Vec<_> {
            let steps = entity.migrations.iter();
            steps.filter(|step| step.version <= self.version).cloned().collect()
        };
        if newer.version >= self.version && declared(self) != declared(newer) {
            let what = "migrations of versions that are in use differ";
            let fix = format!("restore them; new ones lead to version {}", self.version + 1);
            found.push(newer.of(Impact::NeedsMigration, what, Some(fix)));
        }
        found.extend(fields::differences(self, newer));
        if !found.iter().any(|it| it.impact == Impact::NeedsMigration) && !self.begins_alike(newer)
        {
            let what = "documents would begin otherwise than those that are there";
            let fix = format!(
                "declare what came and went since version {} with migrations to version {}",
                self.version,
                newer.version.max(self.version + 1)
            );
            found.push(newer.of(Impact::NeedsMigration, what, Some(fix)));
        }
        for key in newer.unique.iter().filter(|key| !self.unique.contains(key)) {
            let what = format!("{} must be unique now", key.join(" and "));
            found.push(newer.of(Impact::Lossy, what, None));
        }
        for key in self.unique.iter().filter(|key| !newer.unique.contains(key)) {
            let what = format!("{} need not be unique any more", key.join(" and "));
            found.push(newer.of(Impact::Compatible, what, None));
        }
        found.extend(self.purge_differs(newer));
        found.extend(self.lease_differs(newer));
        for (name, rule) in &newer.invariants {
            if self.invariants.get(name) != Some(rule) {
                found.push(newer.of(Impact::Lossy, format!("new rule `{name}`: {rule}"), None));
            }
        }
        for name in self.invariants.keys().filter(|name| !newer.invariants.contains_key(*name)) {
            found.push(newer.of(Impact::Compatible, format!("rule `{name}` is gone"), None));
        }
        found
    }

    fn lease_differs(&self, newer: &Self) -> Option<Difference> {
        if self.lease == newer.lease {
            return None;
        }
        let (impact, what) = match newer.lease {
            LeaseRule::Required => (
                Impact::Lossy,
                "leases are required: while one is held, what others write offline is refused, \
                 and becomes their dead letters",
            ),
            LeaseRule::Advisory => {
                (Impact::Compatible, "leases are advisory: nothing is refused for them any more")
            }
        };
        Some(newer.of(impact, what, None))
    }

    fn purge_differs(&self, newer: &Self) -> Option<Difference> {
        let (old, new) = (self.purge_deleted_after, newer.purge_deleted_after);
        let Some(new) = new else {
            let what = "what is deleted is not purged any more";
            return old.map(|_| newer.of(Impact::Compatible, what, None));
        };
        let (impact, before) = match old {
            Some(old) if old == new => return None,
            Some(old) if old < new => (Impact::Compatible, format!("{old}")),
            Some(old) => (Impact::Lossy, format!("{old}")),
            None => (Impact::Lossy, "never".to_owned()),
        };
        let what = format!("what is deleted is purged after {new} instead of {before}");
        Some(newer.of(impact, what, None))
    }

    /// Whether documents of the newer version begin as these do.
    fn begins_alike(&self, newer: &Self) -> bool {
        match (self.begun(), newer.begun()) {
            (Ok(old), Ok(new)) => new.starts_with(&old),
            _ => false,
        }
    }

    fn of(&self, impact: Impact, what: impl Into<String>, fix: Option<String>) -> Difference {
        Difference { type_name: self.name.clone(), field: None, impact, what: what.into(), fix }
    }
}
