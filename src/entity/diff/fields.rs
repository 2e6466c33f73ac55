//! What became of each field, with the migrations that are declared.

use std::collections::{BTreeMap, BTreeSet};

use super::{Difference, Impact, kinds};
use crate::entity::{EntityType, Field, Kind, Step};

/// The old fields by the names that the migrations give them.
#[derive(Default)]
struct Followed<'a> {
    live: BTreeMap<String, &'a Field>,
    /// What migrations made, and of what.
    made: BTreeMap<String, String>,
    retyped: BTreeSet<String>,
    /// What migrations took away, and why.
    gone: Vec<(String, Why)>,
}

/// Why a field is gone.
struct Why {
    what: String,
    /// Its values are carried on, and back.
    is_carried: bool,
}

pub(super) fn differences(old: &EntityType, new: &EntityType) -> Vec<Difference> {
    let mut followed = Followed {
        live: old.fields.iter().map(|(name, field)| (name.clone(), field)).collect(),
        ..Followed::default()
    };
    for migration in new.migrations.iter().filter(|step| step.version > old.version) {
        followed.follow(&migration.step);
    }
    let Followed { live, made, retyped, gone } = followed;
    let mut found = Vec::new();
    let mut note = |field: &str, impact, what: String, fix: Option<String>| {
        let (type_name, field) = (new.name.clone(), Some(field.to_owned()));
        found.push(Difference { type_name, field, impact, what, fix });
    };
    for (field, why) in gone {
        let impact = if why.is_carried { Impact::Migrated } else { Impact::Lossy };
        note(&field, impact, why.what, None);
    }
    let next = new.version.max(old.version + 1);
    for (name, field) in &new.fields {
        let Some(before) = live.get(name) else {
            let kind = &field.kind;
            match made.get(name) {
                Some(how) => note(name, Impact::Migrated, format!("{how}, {kind}"), None),
                None if needs_making(kind) => note(
                    name,
                    Impact::NeedsMigration,
                    format!("new field, {kind}, that every replica must make alike"),
                    Some(format!("add a migration {{ version = {next}, add = \"{name}\" }}")),
                ),
                None if field.required && field.default.is_none() => note(
                    name,
                    Impact::NeedsMigration,
                    format!("new required field, {kind}, which no document has"),
                    Some("give it a default, or make it optional".to_owned()),
                ),
                None => note(name, Impact::Compatible, format!("new field, {kind}"), None),
            }
            continue;
        };
        if before.name != *name {
            note(name, Impact::Migrated, format!("renamed from {}", before.name), None);
        }
        for change in kinds::changes(before, field, retyped.contains(name), old.version) {
            let fix = (change.impact == Impact::NeedsMigration).then(|| match &change.fix {
                Some(fix) => fix.clone(),
                None => format!(
                    "add a migration {{ version = {next}, retype = \"{name}\", kind = … }} with \
                     the kind as it was"
                ),
            });
            note(name, change.impact, change.what, fix);
        }
    }
    for (name, before) in live.iter().filter(|(name, _)| !new.fields.contains_key(*name)) {
        let alike = new.fields.values().find(|field| {
            field.kind == before.kind
                && !live.contains_key(&field.name)
                && !made.contains_key(&field.name)
        });
        let fix = match alike {
            Some(field) => format!(
                "if it is `{}` now, add a migration {{ version = {next}, rename = \"{name}\", to = \
                 \"{}\" }}",
                field.name, field.name
            ),
            None => format!(
                "add a migration {{ version = {next}, remove = \"{name}\", kind = \"{}\" }} with \
                 the kind as it was",
                before.kind.name()
            ),
        };
        let what = format!("the field is gone, {}", before.kind);
        note(name, Impact::NeedsMigration, what, Some(fix));
    }
    found
}

/// Whether a field begins with an object or counter that must be made once and alike everywhere.
fn needs_making(kind: &Kind) -> bool {
    !kind.is_register()
}

impl Followed<'_> {
    fn follow(&mut self, step: &Step) {
        match step {
            Step::Add { field } => {
                self.made.insert(field.clone(), "added".to_owned());
            }
            Step::Remove { field, .. } => {
                let what = "removed; what was written stays in documents".to_owned();
                self.take(field, Why { what, is_carried: false });
            }
            Step::Rename { from, to } => {
                if let Some(field) = self.live.remove(from) {
                    self.live.insert(to.clone(), field);
                }
                if let Some(how) = self.made.remove(from) {
                    self.made.insert(to.clone(), how);
                }
            }
            Step::Retype { field, .. } => {
                self.retyped.insert(field.clone());
            }
            Step::Split { field, into, .. } => {
                let into_all = into.join(", ");
                let what = format!("split into {into_all}; older versions go on with {field}");
                self.take(field, Why { what, is_carried: true });
                for name in into {
                    self.made.insert(name.clone(), format!("split from {field}"));
                }
            }
            Step::Merge { fields, into, .. } => {
                for field in fields {
                    let what = format!("merged into {into}; older versions go on with {field}");
                    self.take(field, Why { what, is_carried: true });
                }
                self.made.insert(into.clone(), format!("merged from {}", fields.join(", ")));
            }
        }
    }

    fn take(&mut self, name: &str, why: Why) {
        self.made.remove(name);
        if self.live.remove(name).is_some() {
            self.gone.push((name.to_owned(), why));
        }
    }
}
