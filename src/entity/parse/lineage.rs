//! Where fields come from: which version brought each, and under which key it is kept.
//!
//! The migrations are undone one by one, from the version of now to the first. A field that is
//! renamed stays where it is in documents; one that becomes a kind that is kept in another way gets
//! a new place, for a value of each kind can be written at the same time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    kind::Fields,
    reader::{Reader, Span},
};
use crate::entity::{
    Field, Kind, Migration, Policy, Step,
    lens::{Chain, How, Kept, Lens, Passage, passage},
    words::{instead, quoted},
};

/// A field at some version.
#[derive(Clone)]
struct Origin {
    who: Who,
    /// The kind that it has then.
    kind: Kind,
}

#[derive(Clone)]
enum Who {
    /// The one that is called this now.
    Now(String),
    /// One that went since, by its number.
    Gone(usize),
}

/// A field that went: what it was called and had when it did, and once that is known where it was
/// kept and since when.
struct Went {
    kind: Kind,
    born: Option<(String, String, u32)>,
}

/// A lens whose older fields have no place yet.
struct Found {
    version: u32,
    how: How,
    /// Names and numbers.
    older: Vec<(String, usize)>,
    newer: Vec<Kept>,
}

struct Lineage<'a> {
    live: BTreeMap<String, Origin>,
    fields: &'a mut Fields,
    went: Vec<Went>,
    /// From the last migration on.
    lenses: Vec<Found>,
    /// Fields whose kind could not be read.
    unread: &'a BTreeSet<String>,
}

/// Where everything is.
#[derive(Default)]
pub(super) struct Traced {
    /// Fields that are gone.
    pub(super) gone: Vec<Field>,
    /// How their values are carried on.
    pub(super) chains: Vec<Arc<Chain>>,
}

/// Sets version and place of every field; gives those that are gone.
pub(super) fn trace(
    reader: &mut Reader<'_>,
    what: &str,
    fields: &mut Fields,
    steps: &[(Span, Migration)],
) -> Traced {
    let now = |(name, field): (&String, &Field)| {
        let origin = Origin { who: Who::Now(name.clone()), kind: field.kind.clone() };
        (name.clone(), origin)
    };
    let live = fields.iter().map(now).collect();
    let unread = std::mem::take(&mut reader.unread);
    let (went, lenses) = (Vec::new(), Vec::new());
    let mut lineage = Lineage { live, fields, went, lenses, unread: &unread };
    for (at, Migration { version, step }) in steps.iter().rev() {
        if let Err(wrong) = lineage.undo(*version, step) {
            let (problem, fix) = match wrong {
                Wrong::Still { name } => {
                    let problem = format!(
                        "a migration of {what} ({step}) takes away `{name}`, which version \
                         {version} still has"
                    );
                    (problem, "remove the field, or the migration".to_owned())
                }
                Wrong::Missing { name } => {
                    let names: Vec<_> = lineage.live.keys().map(String::as_str).collect();
                    let problem = format!(
                        "a migration of {what} ({step}) names `{name}`, which version {version} \
                         does not have"
                    );
                    (problem, instead(&name, &names, "name a field that it has"))
                }
                Wrong::Refused { problem, fix } => {
                    (format!("a migration of {what} ({step}) {problem}"), fix)
                }
            };
            reader.wrong(at.clone(), problem, fix);
        }
    }
    for (name, origin) in std::mem::take(&mut lineage.live) {
        lineage.born(1, &name, name.clone(), origin);
    }
    let Lineage { fields, went, lenses, .. } = lineage;
    reader.unread.clone_from(&unread);
    let mut gone: Vec<Field> = went.iter().filter_map(self::gone).collect();
    gone.sort_by(|one, other| one.slot.cmp(&other.slot));
    let traced = Traced { chains: chains(&went, lenses, fields), gone };
    let mut slots = BTreeSet::new();
    for field in fields.values().chain(&traced.gone) {
        if !slots.insert(&field.slot) {
            let at = steps.last().map_or(0..0, |(at, _)| at.clone());
            let problem = format!("two fields of {what} would be kept under `{}`", field.slot);
            reader.wrong(at, problem, "give the newer one a name that no version had");
        }
    }
    traced
}

fn gone(went: &Went) -> Option<Field> {
    let (name, slot, since) = went.born.clone()?;
    let kind = went.kind.clone();
    let policy = if kind.is_register() { Policy::Review } else { Policy::Merge };
    let (required, default) = (false, None);
    let hold = false;
    Some(Field { name, kind, required, default, policy, hold, slot, since })
}

/// The lenses, with the places that their older fields had.
fn chains(went: &[Went], lenses: Vec<Found>, fields: &Fields) -> Vec<Arc<Chain>> {
    let placed = |found: Found| {
        let Found { version, how, older, newer } = found;
        let older = older.into_iter().map(|(field, number)| {
            let went = went.get(number)?;
            let (_, slot, _) = went.born.clone()?;
            Some(Kept { slot, kind: went.kind.clone(), field })
        });
        Some(Lens { version, how, older: older.collect::<Option<_>>()?, newer })
    };
    let now = |(name, field): (&String, &Field)| {
        let (slot, kind, field) = (field.slot.clone(), field.kind.clone(), name.clone());
        (slot.clone(), Kept { slot, kind, field })
    };
    let now: BTreeMap<String, Kept> = fields.iter().map(now).collect();
    let lenses = lenses.into_iter().rev().filter_map(placed).collect();
    Chain::all(lenses, &now).into_iter().map(Arc::new).collect()
}

/// Why a step cannot have been.
enum Wrong {
    /// It needs a field that is not there.
    Missing { name: String },
    /// It takes one away that is.
    Still { name: String },
    /// Nothing says what becomes of the values.
    Refused { problem: String, fix: String },
}

impl Lineage<'_> {
    fn undo(&mut self, version: u32, step: &Step) -> Result<(), Wrong> {
        match step {
            Step::Add { field } => match field.split_once('.') {
                Some((outer, inner)) => self.add_inside(version, outer, inner),
                None => self.take_born(version, field, field.clone()).map(|_| ()),
            },
            Step::Remove { field, kind } => self.back(field, kind).map(|_| ()),
            Step::Rename { from, to } => {
                let origin = self.take(to)?;
                self.vacant(from)?;
                self.live.insert(from.clone(), origin);
                Ok(())
            }
            Step::Retype { field, from } => self.retype(version, field, from),
            Step::Split { field, from, into, separator } => {
                self.are_texts(into, separator)?;
                let newer = into.iter().map(|name| self.take_born(version, name, name.clone()));
                let newer = newer.collect::<Result<_, _>>()?;
                let older = vec![(field.clone(), self.back(field, from)?)];
                let how = How::Split(separator.clone());
                self.lenses.push(Found { version, how, older, newer });
                Ok(())
            }
            Step::Merge { fields, from, into, separator } => {
                self.are_texts(std::slice::from_ref(into), separator)?;
                let newer = vec![self.take_born(version, into, into.clone())?];
                let older = fields.iter().map(|name| Ok((name.clone(), self.back(name, from)?)));
                let older = older.collect::<Result<_, _>>()?;
                let how = How::Merge(separator.clone());
                self.lenses.push(Found { version, how, older, newer });
                Ok(())
            }
        }
    }

    fn retype(&mut self, version: u32, field: &str, from: &Kind) -> Result<(), Wrong> {
        let is_unread = self.unread.contains(field);
        let missing = || Wrong::Missing { name: field.to_owned() };
        let now = self.live.get_mut(field).ok_or_else(missing)?;
        match passage(from, &now.kind) {
            Passage::Same => {
                now.kind = from.clone();
                Ok(())
            }
            Passage::Lens => {
                let newer = vec![self.take_born(version, field, format!("{field}@{version}"))?];
                let older = vec![(field.to_owned(), self.back(field, from)?)];
                self.lenses.push(Found { version, how: How::Retype, older, newer });
                Ok(())
            }
            // It has had its error.
            Passage::None if is_unread => Ok(()),
            Passage::None => Err(Wrong::Refused {
                problem: format!("makes {} of {from}, and there is no way between them", now.kind),
                fix: match (from, &now.kind) {
                    (Kind::Record { .. }, Kind::Record { .. }) => {
                        "leave it out: `add` says what came into a map".to_owned()
                    }
                    _ => format!(
                        "keep `{field}` as it is, or `remove` it and add one of another name"
                    ),
                },
            }),
        }
    }

    /// Only strings are cut and joined.
    fn are_texts(&self, names: &[String], separator: &str) -> Result<(), Wrong> {
        if separator.is_empty() {
            return Err(Wrong::Refused {
                problem: "has an empty separator, at which nothing can be cut again".to_owned(),
                fix: "write what stands between, or leave `separator` out for a space".to_owned(),
            });
        }
        let is_other = |name: &&String| {
            let origin = self.live.get(*name).filter(|_| !self.unread.contains(*name));
            let is_text = |kind: &Kind| matches!(kind, Kind::String { .. } | Kind::Text { .. });
            origin.is_some_and(|origin| !is_text(&origin.kind))
        };
        let others: Vec<&str> = names.iter().filter(is_other).map(String::as_str).collect();
        if others.is_empty() {
            return Ok(());
        }
        Err(Wrong::Refused {
            problem: format!("makes {}, which is no string or text", quoted(&others)),
            fix: "make it a string, and `retype` that in a migration after this one".to_owned(),
        })
    }

    fn take(&mut self, name: &str) -> Result<Origin, Wrong> {
        self.live.remove(name).ok_or_else(|| Wrong::Missing { name: name.to_owned() })
    }

    fn vacant(&self, name: &str) -> Result<(), Wrong> {
        if self.live.contains_key(name) {
            return Err(Wrong::Still { name: name.to_owned() });
        }
        Ok(())
    }

    fn take_born(&mut self, version: u32, name: &str, slot: String) -> Result<Kept, Wrong> {
        let origin = self.take(name)?;
        let (kind, field) = (origin.kind.clone(), name.to_owned());
        self.born(version, name, slot.clone(), origin);
        Ok(Kept { slot, kind, field })
    }

    /// Before this step there was this field. Gives its number.
    fn back(&mut self, name: &str, kind: &Kind) -> Result<usize, Wrong> {
        self.vacant(name)?;
        let number = self.went.len();
        self.went.push(Went { kind: kind.clone(), born: None });
        let origin = Origin { who: Who::Gone(number), kind: kind.clone() };
        self.live.insert(name.to_owned(), origin);
        Ok(number)
    }

    fn born(&mut self, version: u32, name: &str, slot: String, origin: Origin) {
        match origin.who {
            Who::Now(name) => {
                if let Some(field) = self.fields.get_mut(&name) {
                    (field.since, field.slot) = (version, slot);
                }
            }
            Who::Gone(number) => {
                if let Some(went) = self.went.get_mut(number) {
                    went.born = Some((name.to_owned(), slot, version));
                }
            }
        }
    }

    fn add_inside(&mut self, version: u32, outer: &str, inner: &str) -> Result<(), Wrong> {
        let missing = || Wrong::Missing { name: format!("{outer}.{inner}") };
        let Some(Origin { who: Who::Now(name), .. }) = self.live.get(outer) else {
            return Err(missing());
        };
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
