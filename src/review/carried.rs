//! Conflicts where versions of a schema meet: fields that an earlier version has elsewhere.
//!
//! Who has the newer schema writes both, so two of them who write at once disagree in the old field,
//! too: that is no conflict of its own. Where somebody wrote the old field who knows nothing of the
//! new one, it is a conflict of the versions, with the old and the new values of each side; so is
//! what the version in force cannot read. A decision writes both.

use std::{cmp::Ordering, collections::BTreeSet, sync::Arc};

use automerge::{Automerge, ChangeHash};
use concord_protocol::DocumentId;

use super::{Code, Conflict, Detector, Place, SlotKey, broken::of_all};
use crate::entity::{Chain, EntityType, Parked, Standings, Why};

/// How fields that a conflict is about are carried between versions of a schema, if they are.
#[derive(Debug, Clone, Default)]
pub struct Through(pub(super) Vec<Arc<Chain>>);

impl Through {
    /// The chains that these keys of a document are in.
    pub(super) fn of<'a>(of: &EntityType, keys: impl IntoIterator<Item = &'a String>) -> Self {
        let keys: Vec<&String> = keys.into_iter().collect();
        let is_meant = |chain: &&Arc<Chain>| keys.iter().any(|key| chain.has(key));
        Self(of.chains().iter().filter(is_meant).cloned().collect())
    }

    /// A document in which the newer fields are written as the older ones say.
    pub(super) fn brought(&self, mut doc: Automerge) -> Automerge {
        for chain in &self.0 {
            let mut tx = doc.transaction();
            // What cannot be brought is shown where it is.
            if chain.bring(&mut tx, &Standings::default()).is_ok() {
                tx.commit();
            } else {
                tx.rollback();
            }
        }
        doc
    }

    fn slots(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|chain| chain.slots())
    }
}

impl PartialEq for Through {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Through {}

impl PartialOrd for Through {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Through {
    fn cmp(&self, other: &Self) -> Ordering {
        self.slots().cmp(other.slots())
    }
}

/// The conflict with what its fields are carried through, where it is about one.
pub(super) fn attached(mut conflict: Conflict, of: &EntityType) -> Conflict {
    if let Some(key) = root_key(&conflict) {
        conflict.through = Through::of(of, [&key.to_owned()]);
    }
    conflict
}

/// What is open between versions, in place of what is only so in the fields of one.
pub(super) fn between_versions(
    doc: &Automerge,
    detector: &Detector,
    document: &DocumentId,
    of: &EntityType,
    open: Vec<Conflict>,
) -> Vec<Conflict> {
    let mut open: Vec<Conflict> = open.into_iter().map(|it| attached(it, of)).collect();
    for chain in of.chains() {
        let is_in = |conflict: &Conflict| root_key(conflict).is_some_and(|key| chain.has(key));
        open.retain(|conflict| {
            let Some(key) = root_key(conflict).filter(|key| chain.has(key)) else { return true };
            if chain.is_newest(key) {
                return !chain.is_overwritten(doc, key);
            }
            let carriers = carriers(detector, chain, key);
            let mut changes = conflict.sides.iter().flat_map(|side| &side.changes);
            changes.all(|change| !carriers.contains(change))
        });
        let is_mixed = is_mixed(doc, detector, chain);
        let parked = chain.parked(doc).into_iter();
        let parked: Vec<Parked> =
            parked.filter(|parked| !matches!(parked.why, Why::Behind(_))).collect();
        if is_mixed || !parked.is_empty() || chain.is_apart(doc) {
            open.retain(|conflict| !is_in(conflict));
            open.extend(versions(detector, document, of, chain, &parked));
        }
    }
    open
}

fn versions(
    detector: &Detector,
    document: &DocumentId,
    of: &EntityType,
    chain: &Arc<Chain>,
    parked: &[Parked],
) -> Option<Conflict> {
    let keys: Vec<String> = chain.slots().map(str::to_owned).collect();
    let parties = detector.last_writers(&keys, &of.begun().unwrap_or_default());
    if parties.is_empty() {
        return None;
    }
    let problem = if parked.is_empty() {
        format!("{} were written in two versions at once", keys.join(", "))
    } else {
        parked.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let name = format!("versions {}", keys.join(", "));
    let through = Through(vec![Arc::clone(chain)]);
    let place = Place { object: "_root".to_owned(), key: SlotKey::Rule { name, keys, through } };
    of_all(detector, document, Code::Schema, place, &parties, problem)
}

/// The key of the document that a conflict is about.
fn root_key(conflict: &Conflict) -> Option<&str> {
    match &conflict.place.key {
        SlotKey::Map(key) if conflict.place.object == "_root" => Some(key),
        _ => None,
    }
}

/// Whether somebody wrote an older field who did not know of one who knows the newer ones, nor that
/// one of them, and it means something else.
fn is_mixed(doc: &Automerge, detector: &Detector, chain: &Chain) -> bool {
    let mut older = chain.slots().filter(|slot| !chain.is_newest(slot));
    older.any(|slot| {
        let carriers = carriers(detector, chain, slot);
        let (knowing, others): (Vec<ChangeHash>, Vec<ChangeHash>) =
            detector.writers_of(slot).into_iter().partition(|change| carriers.contains(change));
        let means_other = |change: &ChangeHash| {
            let then = doc.fork_at(&[*change]).ok();
            then.is_none_or(|then| chain.meaning(&then) != chain.meaning(doc))
        };
        !knowing.is_empty() && others.iter().any(means_other)
    })
}

/// The changes whose writers know what became of an older place.
fn carriers(detector: &Detector, chain: &Chain, slot: &str) -> BTreeSet<ChangeHash> {
    let marks = chain.mark_of(slot).map(|prefix| detector.writers_of_keys(&prefix));
    marks.into_iter().flatten().collect()
}
