//! How documents of a type begin: the same change on every replica, so that no map, list, text or
//! counter is ever made twice.
//!
//! Each version of a type that brings such fields has one change, which depends on that of the
//! version before; the first also names the type. So a document of version 1 becomes one of version
//! 2 by one change that is the same wherever it is made, and replicas may meet in any order.
//!
//! A change is made by an actor that is derived from the type, the version and *what is made*: two
//! schemas that declare the same version otherwise make changes of two actors, which is a conflict
//! that people can see, and not one actor with two first changes, which no replica could take in.

use std::collections::BTreeMap;

use automerge::{
    ActorId, Automerge, AutomergeError, Change, ChangeHash, ObjId, ObjType, ROOT, ReadDoc as _,
    ScalarValue,
    transaction::{CommitOptions, Transactable as _, Transaction},
};

use super::{EntityType, Field, Kind};
use crate::digest::digest;

/// Tells these actors from all others.
const DOMAIN: &str = "concord genesis 1";

/// Something that is made: where, and what.
#[derive(Debug)]
struct Made<'a> {
    path: Vec<&'a str>,
    version: u32,
    kind: &'a Kind,
}

impl EntityType {
    /// The changes that documents of the type begin with, by version: the first, and one for each
    /// later version that brought something to make.
    ///
    /// # Errors
    /// Those of automerge.
    pub fn genesis(&self) -> Result<Vec<Change>, AutomergeError> {
        let made = self.made();
        let mut versions: Vec<u32> = made.iter().map(|made| made.version).chain([1]).collect();
        versions.sort_unstable();
        versions.dedup();
        let mut doc = Automerge::new();
        let mut changes = Vec::new();
        for version in versions {
            let now: Vec<_> = made.iter().filter(|made| made.version == version).collect();
            doc.set_actor(self.actor(version, &now));
            let mut tx = doc.transaction();
            if version == 1 {
                tx.put(ROOT, &self.root_key, self.name.as_str())?;
            }
            for made in now {
                make(&mut tx, made)?;
            }
            let (hash, _) = tx.commit_with(CommitOptions::default().with_time(0));
            changes.extend(hash.and_then(|hash| doc.get_change_by_hash(&hash)));
        }
        Ok(changes)
    }

    /// The names of these changes.
    ///
    /// # Errors
    /// Those of automerge.
    pub(crate) fn begun(&self) -> Result<Vec<ChangeHash>, AutomergeError> {
        Ok(self.genesis()?.iter().map(Change::hash).collect())
    }

    /// What a document begins with and lacks, in causal order. Nothing if it began otherwise: a
    /// plain client made it, and it has its own.
    ///
    /// # Errors
    /// Those of automerge.
    pub fn lacking(&self, doc: &Automerge) -> Result<Vec<Change>, AutomergeError> {
        let mut changes = self.genesis()?;
        let has = |change: &Change| doc.get_change_meta_by_hash(&change.hash()).is_some();
        if !doc.get_heads().is_empty() && !changes.first().is_some_and(has) {
            return Ok(Vec::new());
        }
        changes.retain(|change| !has(change));
        Ok(changes)
    }

    /// Gives a document what it begins with, as far as it lacks it ([`EntityType::lacking`]).
    /// Whether something was given.
    ///
    /// # Errors
    /// Those of automerge.
    pub fn begin(&self, doc: &mut Automerge) -> Result<bool, AutomergeError> {
        let changes = self.lacking(doc)?;
        if changes.is_empty() {
            return Ok(false);
        }
        doc.apply_changes(changes)?;
        Ok(true)
    }

    /// All that is made, by where it is kept.
    fn made(&self) -> Vec<Made<'_>> {
        let fields = self.fields.values().chain(&self.gone);
        let sorted: BTreeMap<_, _> = fields.map(|field| (field.slot.as_str(), field)).collect();
        let mut made = Vec::new();
        for (slot, field) in sorted {
            gather(&[slot], field, 1, &mut made);
        }
        made
    }

    fn actor(&self, version: u32, made: &[&Made<'_>]) -> ActorId {
        let mut lines = String::new();
        for made in made {
            let what = match made.kind.object() {
                Some(ObjType::Text) => "text",
                Some(ObjType::List) => "list",
                Some(_) => "map",
                None => "counter",
            };
            lines.extend([&made.path.join("."), " ", what, "\n"]);
        }
        let root = if version == 1 { self.root_key.as_bytes() } else { &[] };
        let version = version.to_be_bytes();
        let parts = [DOMAIN.as_bytes(), self.name.as_bytes(), &version, root, lines.as_bytes()];
        ActorId::from(digest(parts))
    }
}

fn gather<'a>(path: &[&'a str], field: &'a Field, above: u32, made: &mut Vec<Made<'a>>) {
    if field.kind.is_register() {
        return;
    }
    let version = field.since.max(above);
    made.push(Made { path: path.to_vec(), version, kind: &field.kind });
    if let Kind::Record { fields } = &field.kind {
        for field in fields.values() {
            let path: Vec<_> = path.iter().copied().chain([field.slot.as_str()]).collect();
            gather(&path, field, version, made);
        }
    }
}

fn make(tx: &mut Transaction<'_>, made: &Made<'_>) -> Result<(), AutomergeError> {
    let Some((key, above)) = made.path.split_last() else { return Ok(()) };
    let mut parent: ObjId = ROOT;
    for name in above {
        // What is above was made before: it comes first by path, and no later by version.
        let Some((_, object)) = tx.get(&parent, *name)? else { return Ok(()) };
        parent = object;
    }
    match made.kind.object() {
        Some(kind) => {
            tx.put_object(&parent, *key, kind)?;
        }
        None => tx.put(&parent, *key, ScalarValue::counter(0))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests;
