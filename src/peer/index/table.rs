//! The index in memory: entries by document, and by type and name.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use concord_protocol::DocumentId;

use super::{
    entry::{ById, ByName, Entry, Parts},
    query::{Plan, Position},
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Table {
    by_id: BTreeSet<ById>,
    types: BTreeMap<Box<str>, OfType>,
    /// Open in all of them.
    conflicts: usize,
}

#[derive(Debug, Default)]
struct OfType {
    by_name: BTreeSet<ByName>,
    deleted: usize,
    /// Counts up with whatever changes.
    version: u64,
}

/// How many there are of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TypeCount {
    /// What the documents say that their type is; nothing for those that say none.
    pub type_name: String,
    /// Those that are not deleted.
    pub live: usize,
    /// Those that are.
    pub deleted: usize,
}

impl Table {
    /// A table of entries of different documents, in any order: in a third of the time that it takes
    /// to put in one after the other.
    pub(crate) fn of(mut entries: Vec<Entry>) -> Self {
        let mut table = Self::default();
        let mut types: BTreeMap<Box<str>, Vec<Entry>> = BTreeMap::new();
        for entry in &entries {
            table.conflicts += entry.conflicts();
            if let Some(of) = types.get_mut(entry.type_name()) {
                of.push(entry.clone());
            } else {
                types.insert(entry.type_name().into(), vec![entry.clone()]);
            }
        }
        let of_type = |(name, mut entries): (Box<str>, Vec<Entry>)| {
            entries.sort_unstable_by(|one, other| one.name_order().cmp(&other.name_order()));
            let deleted = entries.iter().filter(|entry| entry.is_deleted()).count();
            let version = u64::try_from(entries.len()).unwrap_or(u64::MAX);
            let by_name = entries.into_iter().map(ByName).collect();
            (name, OfType { by_name, deleted, version })
        };
        table.types = types.into_iter().map(of_type).collect();
        entries.sort_unstable_by(|one, other| one.id_order().cmp(other.id_order()));
        table.by_id = entries.into_iter().map(ById).collect();
        table
    }

    pub(crate) fn get(&self, id: &DocumentId) -> Option<&Entry> {
        self.by_id.get(id.as_str()).map(|found| &found.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many conflicts are open in all of them.
    pub(crate) fn conflicts(&self) -> usize {
        self.conflicts
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.by_id.iter().map(|entry| &entry.0)
    }

    /// Takes an entry in, in place of that of its document. Whether it is another.
    pub(crate) fn put(&mut self, entry: Entry) -> bool {
        let before = self.by_id.get(entry.id()).map(|found| found.0.clone());
        if before.as_ref() == Some(&entry) {
            return false;
        }
        if let Some(before) = before {
            self.take(&before);
        }
        let of = self.types.entry(entry.type_name().into()).or_default();
        of.deleted += usize::from(entry.is_deleted());
        of.version += 1;
        of.by_name.insert(ByName(entry.clone()));
        self.conflicts += entry.conflicts();
        self.by_id.insert(ById(entry));
        true
    }

    /// Whether there was one.
    pub(crate) fn remove(&mut self, id: &DocumentId) -> bool {
        let Some(entry) = self.get(id).cloned() else { return false };
        self.take(&entry);
        true
    }

    fn take(&mut self, entry: &Entry) {
        self.by_id.remove(entry.id());
        self.conflicts -= entry.conflicts();
        if let Some(of) = self.types.get_mut(entry.type_name()) {
            of.by_name.remove(&ByName(entry.clone()));
            of.deleted -= usize::from(entry.is_deleted());
            of.version += 1;
        }
    }

    /// A number that is another after every change to entities of a type.
    pub(crate) fn version(&self, type_name: &str) -> u64 {
        self.types.get(type_name).map_or(0, |of| of.version)
    }

    /// The types of which there is something, in order.
    pub(crate) fn counts(&self) -> Vec<TypeCount> {
        let types = self.types.iter().filter(|(_, of)| !of.by_name.is_empty());
        let counts = types.map(|(name, of)| TypeCount {
            type_name: name.to_string(),
            live: of.by_name.len() - of.deleted,
            deleted: of.deleted,
        });
        counts.collect()
    }

    /// The first of those that may be wanted, in the order of the query, with what the index knows
    /// of whether they are; fewer than `limit` only if there are no more.
    pub(crate) fn candidates(&self, plan: &Plan, limit: usize) -> Vec<(Entry, bool)> {
        let Some(of) = self.types.get(plan.of.as_str()) else { return Vec::new() };
        let candidate = |entry: &Entry| match plan.decide(entry) {
            Some(false) => None,
            decided => Some((entry.clone(), decided.is_some())),
        };
        if plan.is_by_name() {
            let after = plan.after.as_ref().and_then(|after| probe(&plan.of, after));
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let entries = of.by_name.range((from, Bound::Unbounded));
            return entries.filter_map(|entry| candidate(&entry.0)).take(limit).collect();
        }
        let is_after = |entry: &Entry| {
            plan.after.as_ref().is_none_or(|after| plan.order_to(entry, after).is_gt())
        };
        let entries = of.by_name.iter().map(|entry| &entry.0).filter(|entry| is_after(entry));
        let mut found: Vec<_> = entries.filter_map(candidate).collect();
        if limit < found.len() {
            found.select_nth_unstable_by(limit, |one, other| plan.order(&one.0, &other.0));
            found.truncate(limit);
        }
        found.sort_unstable_by(|one, other| plan.order(&one.0, &other.0));
        found
    }

    /// How many are wanted for certain, and those of which only their documents say.
    pub(crate) fn count(&self, plan: &Plan) -> (usize, Vec<Entry>) {
        let (mut count, mut open) = (0, Vec::new());
        let entries = self.types.get(plan.of.as_str()).into_iter().flat_map(|of| &of.by_name);
        for ByName(entry) in entries {
            match plan.decide(entry) {
                Some(yes) => count += usize::from(yes),
                None => open.push(entry.clone()),
            }
        }
        (count, open)
    }
}

/// An entry that stands at a place; `None` where none can.
fn probe(type_name: &str, place: &Position) -> Option<ByName> {
    let id: DocumentId = place.id.parse().ok()?;
    let parts = Parts {
        id: &id,
        type_name,
        key: Some(&place.name),
        reading: 0,
        heads: 0,
        changed: 0,
        is_deleted: false,
        conflicts: 0,
        cells: Vec::new(),
    };
    Some(ByName(Entry::new(&parts)))
}
