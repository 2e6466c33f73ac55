//! Where fields come from: which version brought each, and under which key it is kept.
//!
//! The migrations are undone one by one, from the version of now to the first. A field that is
//! renamed stays where it is in documents; one that becomes a kind that is kept in another way gets
//! a new place, for a value of each kind can be written at the same time.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    kind::Fields,
    reader::{Reader, Span},
};
use crate::entity::{Field, Kind, Migration, Policy, Step, words::instead};

/// A field at some version.
#[derive(Clone)]
enum Origin {
    /// The one that is called this now.
    Now(String),
    /// One that went since.
    Gone(Kind),
}

struct Lineage<'a> {
    live: BTreeMap<String, Origin>,
    fields: &'a mut Fields,
    gone: Vec<Field>,
}

/// Sets version and place of every field; gives those that are gone.
pub(super) fn trace(
    reader: &mut Reader<'_>,
    what: &str,
    fields: &mut Fields,
    steps: &[(Span, Migration)],
) -> Vec<Field> {
    let live = fields.keys().map(|name| (name.clone(), Origin::Now(name.clone()))).collect();
    let mut lineage = Lineage { live, fields, gone: Vec::new() };
    for (at, Migration { version, step }) in steps.iter().rev() {
        if let Err(Missing { name, still }) = lineage.undo(*version, step) {
            let (problem, fix) = if still {
                let problem = format!(
                    "a migration of {what} ({step}) takes away `{name}`, which version {version} \
                     still has"
                );
                (problem, "remove the field, or the migration".to_owned())
            } else {
                let names: Vec<_> = lineage.live.keys().map(String::as_str).collect();
                let problem = format!(
                    "a migration of {what} ({step}) names `{name}`, which version {version} does \
                     not have"
                );
                (problem, instead(&name, &names, "name a field that it has"))
            };
            reader.wrong(at.clone(), problem, fix);
        }
    }
    for (name, origin) in std::mem::take(&mut lineage.live) {
        lineage.born(1, &name, name.clone(), origin);
    }
    let gone = lineage.gone;
    let mut slots = BTreeSet::new();
    for field in fields.values().chain(&gone) {
        if !slots.insert(&field.slot) {
            let at = steps.last().map_or(0..0, |(at, _)| at.clone());
            let problem = format!("two fields of {what} would be kept under `{}`", field.slot);
            reader.wrong(at, problem, "give the newer one a name that no version had");
        }
    }
    gone
}

/// A field that a step needs and that is not there, or the other way round.
struct Missing {
    name: String,
    still: bool,
}

impl Lineage<'_> {
    fn undo(&mut self, version: u32, step: &Step) -> Result<(), Missing> {
        match step {
            Step::Add { field } => match field.split_once('.') {
                Some((outer, inner)) => self.add_inside(version, outer, inner),
                None => self.take_born(version, field, field.clone()),
            },
            Step::Remove { field, kind } => self.back(field, kind),
            Step::Rename { from, to } => {
                let origin = self.take(to)?;
                self.vacant(from)?;
                self.live.insert(from.clone(), origin);
                Ok(())
            }
            Step::Retype { field, from } => {
                let now = match self.live.get(field) {
                    Some(Origin::Now(name)) => self.fields.get(name).map(|field| &field.kind),
                    Some(Origin::Gone(kind)) => Some(kind),
                    None => None,
                };
                if now.is_some_and(|now| now.is_kept_like(from)) {
                    return Ok(());
                }
                self.take_born(version, field, format!("{field}@{version}"))?;
                self.back(field, from)
            }
            Step::Split { field, from, into, .. } => {
                for name in into {
                    self.take_born(version, name, name.clone())?;
                }
                self.back(field, from)
            }
            Step::Merge { fields, from, into, .. } => {
                self.take_born(version, into, into.clone())?;
                fields.iter().try_for_each(|name| self.back(name, from))
            }
        }
    }

    fn take(&mut self, name: &str) -> Result<Origin, Missing> {
        self.live.remove(name).ok_or_else(|| Missing { name: name.to_owned(), still: false })
    }

    fn vacant(&self, name: &str) -> Result<(), Missing> {
        if self.live.contains_key(name) {
            return Err(Missing { name: name.to_owned(), still: true });
        }
        Ok(())
    }

    fn take_born(&mut self, version: u32, name: &str, slot: String) -> Result<(), Missing> {
        let origin = self.take(name)?;
        self.born(version, name, slot, origin);
        Ok(())
    }

    /// Before this step there was this field.
    fn back(&mut self, name: &str, kind: &Kind) -> Result<(), Missing> {
        self.vacant(name)?;
        self.live.insert(name.to_owned(), Origin::Gone(kind.clone()));
        Ok(())
    }

    fn born(&mut self, version: u32, name: &str, slot: String, origin: Origin) {
        match origin {
            Origin::Now(name) => {
                if let Some(field) = self.fields.get_mut(&name) {
                    (field.since, field.slot) = (version, slot);
                }
            }
            Origin::Gone(kind) => {
                let policy = if kind.is_register() { Policy::Review } else { Policy::Merge };
                let name = name.to_owned();
                let (required, default, hold) = (false, None, false);
                let since = version;
                self.gone.push(Field { name, kind, required, default, policy, hold, slot, since });
            }
        }
    }

    fn add_inside(&mut self, version: u32, outer: &str, inner: &str) -> Result<(), Missing> {
        let missing = || Missing { name: format!("{outer}.{inner}"), still: false };
        let Some(Origin::Now(name)) = self.live.get(outer) else { return Err(missing()) };
        let mut kind = self.fields.get_mut(name).map(|field| &mut field.kind);
        let mut names = inner.split('.').peekable();
        while let Some(name) = names.next() {
            let field = kind.and_then(record).and_then(|fields| fields.get_mut(name));
            let field = field.ok_or_else(missing)?;
            if names.peek().is_none() {
                field.since = version;
            }
            kind = Some(&mut field.kind);
        }
        Ok(())
    }
}

/// The fields of a map, or of the maps in a list or map.
fn record(kind: &mut Kind) -> Option<&mut Fields> {
    let mut kind = kind;
    loop {
        match kind {
            Kind::Record { fields } => return Some(fields),
            Kind::List { items, .. } | Kind::Map { items, .. } => kind = items,
            _ => return None,
        }
    }
}
