//! A history as events, for programs that follow what happens to entities.

use automerge::{Automerge, Prop};
use concord_protocol::ChangeHash;
use serde::Serialize;
use serde_json::Value as Json;

use super::{
    Difference, Entry, HistoryError, Order, Stamp, What, cursor,
    diff::{as_written, between},
    hash::native,
    log,
    state::find,
};
use crate::{
    entity::{EntityType, Kind, ROOT_KEY, Schema, is_mark, limits::NAME_BYTES_MAX, type_name},
    json::to_json_at,
};

/// The type of documents that do not say theirs.
pub const NO_TYPE: &str = "document";

/// Something that happened to an entity: one difference that one change made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Its own, the same on every replica: the change and a number.
    pub id: String,
    /// `task.status_changed`: the type, the field, and what happened to the field ([`Happened`]);
    /// `task.created` has no field.
    pub name: String,
    /// The type of the document as it was after the change: a type of the schema, else what its root
    /// key `type` says, else [`NO_TYPE`].
    pub entity_type: String,
    /// The field: by its name in the schema, else the key at the root of the document.
    pub field: Option<String>,
    /// What happened to the field.
    pub happened: Happened,
    /// Where in the document, which may be inside the field.
    #[serde(serialize_with = "as_written")]
    pub path: Vec<Prop>,
    /// What was there before: the value, the elements or characters that are gone, what a counter
    /// had come to.
    pub before: Option<Json>,
    /// What is there now, likewise.
    pub after: Option<Json>,
    /// Of a text: how many characters are before what is other.
    pub index: Option<usize>,
    /// What caused it.
    pub cause: Stamp,
}

/// What can happen to a field. The names are for events and stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Happened {
    /// The entity began: the change builds on nothing.
    Created,
    /// It has a value, and had none.
    Set,
    /// It has another value, or something inside it has.
    Changed,
    /// It has no value any more.
    Deleted,
    /// Text in it was written or removed.
    Edited,
    /// Text in it was formatted.
    Formatted,
    /// A counter went up, or down.
    Counted,
    /// Elements came into it: into a list, or as members of a set.
    Added,
    /// Elements are gone from it.
    Removed,
}

impl Happened {
    /// As it is in the names of events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Set => "set",
            Self::Changed => "changed",
            Self::Deleted => "deleted",
            Self::Edited => "edited",
            Self::Formatted => "formatted",
            Self::Counted => "counted",
            Self::Added => "added",
            Self::Removed => "removed",
        }
    }
}

/// Some of the events of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Events {
    /// They, in the order of the log.
    pub events: Vec<Event>,
    /// Where to go on.
    pub cursor: Vec<ChangeHash>,
}

/// What happened after some heads (`&[]`: from the beginning), in at most `limit` changes, in the
/// order of [`log`] from the oldest on.
///
/// An event says what its change did to what its author saw: before and after are those of the
/// author, not those of a replica on which others' changes came first. So the events of a change
/// are the same everywhere and always; of two who wrote at once each has its own, and which value
/// is shown in the end is the document's to say.
///
/// Each change costs a look through the operations of the document: give a limit to those of long
/// histories.
///
/// # Errors
/// [`HistoryError`].
pub fn events(
    doc: &Automerge,
    schema: Option<&Schema>,
    after: &[ChangeHash],
    limit: usize,
) -> Result<Events, HistoryError> {
    let entries = log(doc, after, Order::OldestFirst, limit)?;
    let mut events = Vec::new();
    for entry in &entries {
        of_change(doc, schema, entry, &mut events)?;
    }
    Ok(Events { events, cursor: cursor(after, &entries) })
}

fn of_change(
    doc: &Automerge,
    schema: Option<&Schema>,
    entry: &Entry,
    events: &mut Vec<Event>,
) -> Result<(), HistoryError> {
    let before: Vec<_> = entry.deps.iter().map(native).collect();
    let after = [native(&entry.stamp.change)];
    let differences = between(doc, &before, &after)?;
    let is_first = entry.deps.is_empty();
    if differences.is_empty() && !is_first {
        return Ok(());
    }
    let (entity_type, declared) = type_of(doc, schema, &after);
    let mut number = 0;
    let mut tell = |field: Option<String>, happened: Happened, rest: Rest| {
        let name = match &field {
            None => format!("{entity_type}.{}", happened.name()),
            Some(field) => format!("{entity_type}.{field}_{}", happened.name()),
        };
        let id = format!("{}/{number}", entry.stamp.change);
        number += 1;
        let Rest { path, before, after, index } = rest;
        let (entity_type, cause) = (entity_type.clone(), entry.stamp.clone());
        events.push(Event {
            id,
            name,
            entity_type,
            field,
            happened,
            path,
            before,
            after,
            index,
            cause,
        });
    };
    if is_first {
        tell(None, Happened::Created, Rest::default());
    }
    let key_of = |path: &[Prop]| match path.first() {
        Some(Prop::Map(key)) => Some(key.clone()),
        _ => None,
    };
    let carries = differences.iter().any(|it| key_of(&it.path).is_some_and(|it| is_mark(&it)));
    for difference in differences {
        let Difference { path, what } = difference;
        // What is written for other versions of a type says nothing that is not said for this one.
        let is_carried = |key: &String| {
            let older = |of: &EntityType| of.chains().iter().any(|it| it.has_older(key));
            is_mark(key) || carries && declared.is_some_and(older)
        };
        if key_of(&path).as_ref().is_some_and(is_carried) {
            continue;
        }
        let field = path.first().map(|step| field_name(step, declared));
        let kind = declared.and_then(|of| kind_of(of, path.first()?));
        let is_inside = path.len() > 1;
        let (happened, rest) = match what {
            What::Put { before, after } => {
                let happened = match (&before, is_inside, kind) {
                    (None, true, Some(Kind::Set { .. })) => Happened::Added,
                    (None, false, _) => Happened::Set,
                    _ => Happened::Changed,
                };
                (happened, Rest { before, after: Some(after), ..Rest::default() })
            }
            What::Delete { before } => {
                let happened = match (is_inside, kind) {
                    (true, Some(Kind::Set { .. })) => Happened::Removed,
                    (true, _) => Happened::Changed,
                    (false, _) => Happened::Deleted,
                };
                (happened, Rest { before, ..Rest::default() })
            }
            What::Insert { values } => {
                let after = Some(Json::Array(values));
                (Happened::Added, Rest { after, ..Rest::default() })
            }
            What::Remove { values } => {
                let before = Some(Json::Array(values));
                (Happened::Removed, Rest { before, ..Rest::default() })
            }
            What::Splice { index, removed, inserted } => {
                let some = |text: String| (!text.is_empty()).then_some(Json::String(text));
                let (before, after) = (some(removed), some(inserted));
                let index = Some(index);
                (Happened::Edited, Rest { before, after, index, ..Rest::default() })
            }
            What::Increment { .. } => {
                let shown = |heads: &[_]| -> Option<Json> {
                    let found = find(doc, &path, Some(heads)).ok()?;
                    to_json_at(doc, &found.value, &found.id, heads).ok()
                };
                let (before, after) = (shown(&before), shown(&after));
                (Happened::Counted, Rest { before, after, ..Rest::default() })
            }
            What::Mark { name, value, start, .. } => {
                let after = Some(serde_json::json!({ name: value }));
                (Happened::Formatted, Rest { after, index: Some(start), ..Rest::default() })
            }
            // One change is never at odds with itself.
            What::Conflict => continue,
        };
        tell(field, happened, Rest { path, ..rest });
    }
    Ok(())
}

#[derive(Default)]
struct Rest {
    path: Vec<Prop>,
    before: Option<Json>,
    after: Option<Json>,
    index: Option<usize>,
}

/// The type of a document at some heads: its name, and what is declared of it.
fn type_of<'s>(
    doc: &Automerge,
    schema: Option<&'s Schema>,
    heads: &[automerge::ChangeHash],
) -> (String, Option<&'s EntityType>) {
    let key = schema.map_or(ROOT_KEY, |schema| &schema.root_key);
    let name = type_name(doc, key, Some(heads));
    let is_name = |name: &String| {
        let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(is_plain)
    };
    let name = name.filter(is_name);
    let declared = schema.zip(name.as_ref()).and_then(|(schema, name)| schema.types.get(name));
    (name.unwrap_or_else(|| NO_TYPE.to_owned()), declared)
}

fn field_name(step: &Prop, declared: Option<&EntityType>) -> String {
    let Prop::Map(key) = step else { return step.to_string() };
    let named = declared.and_then(|of| of.fields.iter().find(|(_, field)| field.slot == *key));
    named.map_or(key, |(name, _)| name).clone()
}

fn kind_of<'s>(of: &'s EntityType, step: &Prop) -> Option<&'s Kind> {
    let Prop::Map(key) = step else { return None };
    of.fields.values().find(|field| field.slot == *key).map(|field| &field.kind)
}

#[cfg(test)]
mod tests;
