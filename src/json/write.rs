//! JSON into documents: strings become text that people can edit together.

use std::collections::VecDeque;

use automerge::{
    AutomergeError, ObjId, ObjType, Prop, ROOT, ScalarValue,
    transaction::{Transactable, Transaction},
};
use serde_json::{Map, Value as Json};

/// Something that is still to be written.
#[derive(Debug)]
enum Task {
    /// A value at a place; a list's index is at its end.
    Put(ObjId, Prop, Json),
    /// More characters at the end of a text.
    Append(ObjId, usize, String),
}

/// Writes the fields of a JSON object into the root of a document, in as many changes as are
/// needed.
#[derive(Debug)]
pub struct Writer(VecDeque<Task>);

impl Writer {
    /// Of these fields nothing is written yet.
    pub fn new(fields: Map<String, Json>) -> Self {
        let put = |(key, value)| Task::Put(ROOT, Prop::Map(key), value);
        Self(fields.into_iter().map(put).collect())
    }

    /// Whether nothing is left to be written.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the next part, about `ops_max` operations.
    ///
    /// # Errors
    /// Those of the transaction.
    pub fn write(
        &mut self,
        tx: &mut Transaction<'_>,
        ops_max: usize,
    ) -> Result<(), AutomergeError> {
        let mut ops = 0;
        while ops < ops_max {
            let Some(task) = self.0.pop_front() else { break };
            ops += step(tx, task, &mut self.0, ops_max - ops)?;
        }
        Ok(())
    }
}

/// Writes one value, whole, at a place. `insert` makes room for it in a list.
///
/// # Errors
/// Those of the transaction.
pub fn put(
    tx: &mut Transaction<'_>,
    parent: &ObjId,
    prop: Prop,
    value: Json,
    insert: bool,
) -> Result<(), AutomergeError> {
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
) -> Result<usize, AutomergeError> {
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
) -> Result<(), AutomergeError> {
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
