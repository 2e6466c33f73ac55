//! What policies would have done: with what people decided, and with what is open.

use automerge::Automerge;
use concord_protocol::DocumentId;
use serde_json::Value as Json;

use super::{
    Choice, Conflict, Content, Detector, SlotKey, Unreadable,
    history::{self, NotAgain},
    open,
    policy::{self, At, field_at},
};
use crate::{
    entity::{EntityType, Field, Kind, Policy, Schema},
    json::JsonError,
};

/// What a policy would have made of one conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// What people made of it.
    Same,
    /// Something else.
    Other,
    /// Nothing: people would have had to decide all the same.
    Undecided,
    /// It is open, and would not be.
    Closes,
    /// It is open, and would be all the same.
    StaysOpen,
}

/// What a policy would have done with a conflict about a field.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// Of which type.
    pub type_name: String,
    /// The field, as in `address.city`.
    pub field: String,
    /// The policy.
    pub policy: Policy,
    /// Whether the schema says this one.
    pub is_declared: bool,
    /// What it would have done.
    pub verdict: Verdict,
}

/// Tries each policy that a field may have on every conflict about it that was decided by people
/// since a time, in seconds since 1970, or is open now.
///
/// # Errors
/// [`Unreadable`].
pub fn simulate(
    doc: &Automerge,
    document: &DocumentId,
    schema: &Schema,
    since_s: i64,
) -> Result<Vec<Trial>, Unreadable> {
    let Some(of) = schema.recognise(doc) else { return Ok(Vec::new()) };
    let mut trials = Vec::new();
    for past in history::decisions(doc) {
        if past.is_automatic() || past.who.time_s < since_s {
            continue;
        }
        let found = history::decided(doc, document, Some(schema), past.decided.conflict);
        let (conflict, then) = match found {
            Ok(found) => found,
            Err(NotAgain::Unreadable(error)) => return Err(error),
            // It was about what is told apart by a schema that is no longer in force.
            Err(_) => continue,
        };
        let decided = automerge::ChangeHash(past.who.change.0);
        let Ok(after) = doc.fork_at(&[decided]) else { continue };
        let Ok(made) = value(&after, &conflict, None) else { continue };
        try_all(of, &then, &conflict, &mut trials, |choice| match choice {
            None => Ok(Verdict::Undecided),
            Some(choice) if value(&then, &conflict, Some(choice))? == made => Ok(Verdict::Same),
            Some(_) => Ok(Verdict::Other),
        });
    }
    let detector = Detector::of(&doc.get_changes(&[]))?;
    for conflict in open(doc, &detector, document, Some(schema)) {
        try_all(of, doc, &conflict, &mut trials, |choice| {
            Ok(if choice.is_some() { Verdict::Closes } else { Verdict::StaysOpen })
        });
    }
    Ok(trials)
}

fn try_all(
    of: &EntityType,
    doc: &Automerge,
    conflict: &Conflict,
    trials: &mut Vec<Trial>,
    judge: impl Fn(Option<&Choice>) -> Result<Verdict, JsonError>,
) {
    // What a rule is about is no policy's.
    let is_slot = matches!(conflict.place.key, SlotKey::Map(_));
    let path = if is_slot { conflict.path(doc) } else { None };
    let Some(path) = path else { return };
    let Some(At { name, field, rest: [] }) = field_at(of, &path) else { return };
    for policy in candidates(field) {
        let tried = policy::decide(&policy, doc, conflict);
        // What cannot be read is not decided.
        let tried = tried.and_then(|choice| judge(choice.as_ref()));
        let verdict = tried.unwrap_or(Verdict::Undecided);
        let is_declared = policy == field.policy;
        let (type_name, field) = (of.name.clone(), name.clone());
        trials.push(Trial { type_name, field, policy, is_declared, verdict });
    }
}

/// What would be at the place of a conflict; without a choice, what is there.
fn value(
    doc: &Automerge,
    conflict: &Conflict,
    choice: Option<&Choice>,
) -> Result<Option<Json>, JsonError> {
    match choice {
        Some(Choice::Side(number)) => match conflict.sides.get(*number) {
            Some(side) => side.content(doc, &conflict.place)?.to_json(),
            None => Ok(None),
        },
        Some(Choice::Before) => conflict.base(doc)?.to_json(),
        Some(Choice::Other(Content::Nothing)) => Ok(None),
        Some(Choice::Other(content)) => content.to_json(),
        Some(Choice::Now) | None => conflict.provisional(doc)?.to_json(),
    }
}

/// The policies that a field may have, but for those that ask who somebody is.
fn candidates(field: &Field) -> Vec<Policy> {
    if !field.kind.is_register() {
        return Vec::new();
    }
    let mut candidates = vec![Policy::Latest, Policy::Earliest];
    match &field.kind {
        Kind::Integer { .. } | Kind::Number { .. } | Kind::Timestamp { .. } => {
            candidates.extend([Policy::Max, Policy::Min]);
        }
        Kind::Enum { values } => candidates.push(match &field.policy {
            declared @ Policy::Ladder(_) => declared.clone(),
            _ => Policy::Ladder(values.clone()),
        }),
        Kind::Json => candidates.push(Policy::Union),
        _ => {}
    }
    candidates
}
