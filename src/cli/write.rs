//! JSON into documents: strings become text that people can edit together, large values go in
//! over several changes, each within the limits of a change.

use std::collections::VecDeque;

use automerge::{
    ObjId, ObjType, Prop, ROOT, ScalarValue,
    transaction::{Transactable, Transaction},
};
use concord::peer::{Document, EditError};
use serde_json::Value as Json;

use super::Failure;

/// Operations of one change; well below `CHANGE_OPS_MAX`, and as many characters stay below
/// `CHANGE_BYTES_MAX`.
const OPS_MAX: usize = 50_000;

/// Something that is still to be written.
#[derive(Debug)]
enum Task {
    /// A value at a place; a list's index is at its end.
    Put(ObjId, Prop, Json),
    /// More characters at the end of a text.
    Append(ObjId, usize, String),
}

/// Writes the fields of a JSON object into an empty document.
pub(super) async fn document(
    document: &Document,
    fields: Json,
    message: &str,
) -> Result<(), Failure> {
    let Json::Object(fields) = fields else {
        return Err(Failure::usage("a document is a JSON object, as in {\"title\": \"Shopping\"}"));
    };
    let mut tasks: VecDeque<Task> =
        fields.into_iter().map(|(key, value)| Task::Put(ROOT, Prop::Map(key), value)).collect();
    while !tasks.is_empty() {
        document
            .change_with(Some(message), |tx| {
                let mut ops = 0;
                while ops < OPS_MAX {
                    let Some(task) = tasks.pop_front() else { break };
                    ops += step(tx, task, &mut tasks, OPS_MAX - ops)?;
                }
                Ok(())
            })
            .await?;
    }
    Ok(())
}

/// Writes one value, whole, at a place. `insert` makes room for it in a list.
pub(super) fn put(
    tx: &mut Transaction<'_>,
    parent: &ObjId,
    prop: Prop,
    value: Json,
    insert: bool,
) -> Result<(), EditError> {
    let mut tasks = VecDeque::new();
    one(tx, parent, prop, value, insert, &mut tasks)?;
    while let Some(task) = tasks.pop_front() {
        step(tx, task, &mut tasks, usize::MAX)?;
    }
    Ok(())
}

/// Does one task, or `ops_max` operations of it; gives how many it took.
fn step(
    tx: &mut Transaction<'_>,
    task: Task,
    tasks: &mut VecDeque<Task>,
    ops_max: usize,
) -> Result<usize, EditError> {
    match task {
        Task::Put(parent, prop, value) => {
            let insert = matches!(prop, Prop::Seq(_));
            one(tx, &parent, prop, value, insert, tasks)?;
            Ok(1)
        }
        Task::Append(text, at, characters) => {
            let end =
                characters.char_indices().nth(ops_max).map_or(characters.len(), |(end, _)| end);
            let (now, later) = characters.split_at(end);
            tx.splice_text(&text, at, 0, now)?;
            let written = now.chars().count();
            if !later.is_empty() {
                // Positions are counted as the document counts them, which may not be characters.
                let at = automerge::ReadDoc::length(tx, &text);
                tasks.push_front(Task::Append(text, at, later.to_owned()));
            }
            Ok(written)
        }
    }
}

/// Writes one value; what is inside it is left as tasks.
fn one(
    tx: &mut Transaction<'_>,
    parent: &ObjId,
    prop: Prop,
    value: Json,
    insert: bool,
    tasks: &mut VecDeque<Task>,
) -> Result<(), EditError> {
    let object = |tx: &mut Transaction<'_>, kind| match &prop {
        Prop::Seq(index) if insert => tx.insert_object(parent, *index, kind),
        prop => tx.put_object(parent, prop.clone(), kind),
    };
    match value {
        Json::String(text) => {
            let id = object(tx, ObjType::Text)?;
            if !text.is_empty() {
                tasks.push_front(Task::Append(id, 0, text));
            }
        }
        Json::Array(items) => {
            let id = object(tx, ObjType::List)?;
            tasks.extend(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(at, item)| Task::Put(id.clone(), Prop::Seq(at), item)),
            );
        }
        Json::Object(fields) => {
            let id = object(tx, ObjType::Map)?;
            tasks.extend(
                fields.into_iter().map(|(key, field)| Task::Put(id.clone(), Prop::Map(key), field)),
            );
        }
        single => {
            let scalar = scalar(&single);
            match prop {
                Prop::Seq(index) if insert => tx.insert(parent, index, scalar)?,
                prop => tx.put(parent, prop, scalar)?,
            }
        }
    }
    Ok(())
}

/// A JSON value without parts, as automerge has it.
fn scalar(value: &Json) -> ScalarValue {
    match value {
        Json::Bool(yes) => ScalarValue::Boolean(*yes),
        Json::Number(number) => number
            .as_i64()
            .map(ScalarValue::Int)
            .or_else(|| number.as_u64().map(ScalarValue::Uint))
            .or_else(|| number.as_f64().map(ScalarValue::F64))
            .unwrap_or(ScalarValue::Null),
        _ => ScalarValue::Null,
    }
}
