//! Conflicts of what a schema says: a rule that everybody kept and the merge breaks, and values
//! that cannot be read as what the schema says they are.
//!
//! They are conflicts of those who wrote the fields concerned last, not knowing of each other.
//! Where that is one alone, there is one side: whatever is wrong is shown until it is put right, or
//! somebody decides to let it be.

use std::collections::BTreeSet;

use automerge::{Automerge, ROOT, ReadDoc as _, Value};
use concord_protocol::DocumentId;

use super::{
    Code, Conflict, Detector, Kept, Place, Side, SlotKey, Through, carried::between_versions,
    causality::ChangeNumber, conflict, policy::is_place,
};
use crate::entity::{DELETED_KEY, EntityType, Problem, Schema, is_deleted, is_mark};

/// Of a document in which more is wrong than this, the rest is found when this is put right.
const PROBLEMS_MAX: usize = 100;

/// All conflicts that are open in a document, under the schema that is in force, if there is one.
/// The detector must have taken in all of the document.
pub fn open(
    doc: &Automerge,
    detector: &Detector,
    document: &DocumentId,
    schema: Option<&Schema>,
) -> Vec<Conflict> {
    let mut open = detector.open(document);
    if let Some(of) = schema.and_then(|schema| schema.recognise(doc)) {
        open = between_versions(doc, detector, document, of, open);
        for conflict in open.iter_mut().filter(|conflict| conflict.code == Code::Value) {
            // By the same name as for those who do not know the schema.
            if conflict.path(doc).is_some_and(|path| is_place(of, &path)) {
                conflict.code = Code::Move;
            }
        }
        if is_deleted(doc) {
            // What is deleted is not wrong any more, unless it is wrong that it is.
            open.extend(buried(detector, document, of));
        } else {
            open.extend(broken(doc, detector, document, of));
        }
        open.sort_by(|one, other| (&one.place, one.id).cmp(&(&other.place, other.id)));
    }
    open
}

fn broken(
    doc: &Automerge,
    detector: &Detector,
    document: &DocumentId,
    of: &EntityType,
) -> Vec<Conflict> {
    let problems = of.read(doc).problems();
    if problems.is_empty() {
        return Vec::new();
    }
    // Nobody wrote what a document begins with.
    let begun = of.begun().unwrap_or_default();
    let conflict = |problem: &Problem| {
        let (name, keys) = about(doc, of, problem)?;
        let through = Through::of(of, &keys);
        let parties = detector.last_writers(&keys, &begun);
        if parties.is_empty() {
            return None;
        }
        let code = match problem {
            Problem::Misfit(misfit) if !is_of_all(doc, &misfit.field, &keys, parties.len()) => {
                Code::Schema
            }
            _ => Code::Invariant,
        };
        let place =
            Place { object: "_root".to_owned(), key: SlotKey::Rule { name, keys, through } };
        of_all(detector, document, code, place, &parties, problem.to_string())
    };
    problems.iter().take(PROBLEMS_MAX).filter_map(conflict).collect()
}

/// The conflict of those who deleted an entity with those who edited it, not knowing of that.
pub(super) fn buried(
    detector: &Detector,
    document: &DocumentId,
    of: &EntityType,
) -> Option<Conflict> {
    let (mut parties, mut edited) =
        detector.edited_meanwhile(DELETED_KEY, &of.begun().unwrap_or_default());
    for keys in edited.values_mut() {
        keys.retain(|key| !is_mark(key));
    }
    edited.retain(|_, keys| !keys.is_empty());
    if edited.is_empty() {
        return None;
    }
    let keys: BTreeSet<&str> = edited.values().flatten().copied().collect();
    let problem = format!(
        "it was deleted while others edited {}",
        keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
    );
    let key = SlotKey::Tombstone { edited: keys.into_iter().map(str::to_owned).collect() };
    let place = Place { object: "_root".to_owned(), key };
    let editors: BTreeSet<ChangeNumber> = edited.into_keys().collect();
    parties.extend(detector.causality.last_of(&editors));
    of_all(detector, document, Code::EditDelete, place, &parties, problem)
}

/// A conflict of these changes, each of which is a side; unless it was decided.
pub(super) fn of_all(
    detector: &Detector,
    document: &DocumentId,
    code: Code,
    place: Place,
    parties: &BTreeSet<ChangeNumber>,
    problem: String,
) -> Option<Conflict> {
    let left = |party: &ChangeNumber| Side {
        kept: Kept::Fields,
        operations: Vec::new(),
        changes: vec![detector.causality.hash(*party)],
    };
    let mut sides: Vec<Side> = parties.iter().map(left).collect();
    sides.sort_by(|one, other| one.changes.cmp(&other.changes));
    let id = conflict::name(document, code, &place, &sides);
    if detector.is_decided(&id, parties) {
        return None;
    }
    let before = detector.causality.seen_by_all(parties);
    let through = match &place.key {
        SlotKey::Rule { through, .. } => through.clone(),
        _ => Through::default(),
    };
    Some(Conflict { id, code, place, sides, before, problem: Some(problem), through })
}

/// What a problem is called, and the keys that it is about. `None` if it is about none, or is told of
/// as a conflict between versions of the schema.
fn about(doc: &Automerge, of: &EntityType, problem: &Problem) -> Option<(String, Vec<String>)> {
    let (name, fields): (_, BTreeSet<&str>) = match problem {
        Problem::Misfit(misfit) => {
            (format!("field {}", misfit.field), BTreeSet::from([outermost(&misfit.field)]))
        }
        Problem::Missing { field } => {
            (format!("required {field}"), BTreeSet::from([outermost(field)]))
        }
        Problem::Broken { rule, .. } => (format!("rule {rule}"), of.invariants.get(rule)?.fields()),
        // It says nothing of the entity.
        Problem::Unsettled { .. } => return None,
    };
    let mut keys = Vec::new();
    for field in fields.into_iter().filter_map(|field| of.fields.get(field)) {
        // What earlier versions have elsewhere was written there, too.
        match of.chains().iter().find(|chain| chain.has(&field.slot)) {
            Some(chain) if matches!(problem, Problem::Misfit(_)) && chain.is_unread(doc) => {
                return None;
            }
            Some(chain) => keys.extend(chain.slots().map(str::to_owned)),
            None => keys.push(field.slot.clone()),
        }
    }
    keys.sort_unstable();
    keys.dedup();
    Some((name, keys)).filter(|(_, keys)| !keys.is_empty())
}

/// The field of the entity itself that something like `lines[2].amount` is in.
fn outermost(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or(path)
}

/// Whether what does not fit is what several made together, such as a list that is too long: each
/// of them may have kept to the schema.
fn is_of_all(doc: &Automerge, field: &str, keys: &[String], parties: usize) -> bool {
    let is_object = |key: &String| matches!(doc.get(ROOT, key), Ok(Some((Value::Object(_), _))));
    parties > 1 && outermost(field) == field && keys.iter().all(is_object)
}
