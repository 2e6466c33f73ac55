//! Who wrote what a document shows.

use std::{collections::BTreeMap, sync::Arc};

use automerge::{
    Automerge, ChangeHash as Native, ObjId, ObjType, Prop, ReadDoc as _, ScalarValue, Value,
    legacy::{OpId, OpType},
};
use serde::Serialize;
use serde_json::Value as Json;

use super::{
    HistoryError, Stamp,
    diff::as_written,
    expanded::expanded,
    state::{Found, find},
};
use crate::json::{self, DEPTH_MAX, JsonError};

/// Something that is shown, and who wrote it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Blame {
    /// Where it is.
    #[serde(serialize_with = "as_written")]
    pub path: Vec<Prop>,
    /// What is shown there.
    #[serde(flatten)]
    pub shown: Shown,
    /// Who wrote it; `None` for the document itself.
    pub by: Option<Arc<Stamp>>,
}

/// Part of what a document shows.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Shown {
    /// A value: who put it there.
    Value {
        /// It.
        value: Json,
    },
    /// A counter: who last added to it, or made it if nobody has.
    Counter {
        /// What it has come to.
        value: i64,
    },
    /// A map: who made it. What is in it follows.
    Map,
    /// A list: who made it. What is in it follows.
    List,
    /// A text: who made it. What is in it follows.
    Text,
    /// Characters of the text at the path, all written by one change.
    Run {
        /// Characters before them.
        start: usize,
        /// They.
        text: String,
    },
}

/// Who wrote what the document shows at a path (`&[]`: all of it), each thing with the change that
/// it is there by. In the order of keys, elements and characters.
///
/// Of values that several people put at one place at the same time, that which is shown is told of.
/// Where there are counters, the operations of the whole history are looked through.
///
/// # Errors
/// [`HistoryError::NoPath`] if there is nothing at the path, and [`HistoryError::Json`] if it is
/// nested too deeply.
pub fn blame(doc: &Automerge, path: &[Prop]) -> Result<Vec<Blame>, HistoryError> {
    let found = find(doc, path, None)?;
    let mut reader = Reader { doc, stamps: BTreeMap::new(), counters: vec![], out: vec![] };
    reader.take(path.to_vec(), &found, DEPTH_MAX)?;
    reader.count();
    Ok(reader.out)
}

struct Reader<'a> {
    doc: &'a Automerge,
    stamps: BTreeMap<Native, Arc<Stamp>>,
    /// Counters, by the operations that made them and where they are told of.
    counters: Vec<(String, usize)>,
    out: Vec<Blame>,
}

impl Reader<'_> {
    fn take(&mut self, path: Vec<Prop>, found: &Found, depth: usize) -> Result<(), HistoryError> {
        let Found { value, id } = found;
        let below = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
        let change = self.doc.hash_for_opid(id);
        let by = change.and_then(|change| self.stamp(change));
        let kind = match value {
            Value::Scalar(value) => {
                let shown = match value.as_ref() {
                    ScalarValue::Counter(counter) => {
                        self.counters.push((id.to_string(), self.out.len()));
                        Shown::Counter { value: i64::from(counter) }
                    }
                    value => {
                        let value = Value::Scalar(std::borrow::Cow::Borrowed(value));
                        Shown::Value { value: json::to_json(self.doc, &value, id)? }
                    }
                };
                self.out.push(Blame { path, shown, by });
                return Ok(());
            }
            Value::Object(kind) => *kind,
        };
        let shown = match kind {
            ObjType::Map | ObjType::Table => Shown::Map,
            ObjType::List => Shown::List,
            ObjType::Text => Shown::Text,
        };
        let doc = self.doc;
        if *id != automerge::ROOT {
            self.out.push(Blame { path: path.clone(), shown, by });
        }
        match kind {
            ObjType::Map | ObjType::Table => {
                for item in doc.map_range(id, ..) {
                    let found = Found { value: item.value.clone().into(), id: item.id() };
                    let path = with(&path, Prop::Map(item.key.into_owned()));
                    self.take(path, &Found { value: found.value.into_owned(), ..found }, below)?;
                }
            }
            ObjType::List => {
                for item in doc.list_range(id, ..) {
                    let value: Value<'_> = item.value.clone().into();
                    let found = Found { value: value.into_owned(), id: item.id() };
                    self.take(with(&path, Prop::Seq(item.index)), &found, below)?;
                }
            }
            ObjType::Text => self.runs(&path, id),
        }
        Ok(())
    }

    /// The characters of a text. An object in it is one, as text has it.
    fn runs(&mut self, path: &[Prop], id: &ObjId) {
        const OBJECT: &str = "\u{fffc}";
        let (mut start, mut length, mut text) = (0, 0, String::new());
        let mut last: Option<Native> = None;
        let doc = self.doc;
        let tell = |reader: &mut Self, change: Option<Native>, start, text: &mut String| {
            if let Some(change) = change {
                let (path, text) = (path.to_vec(), std::mem::take(text));
                let by = reader.stamp(change);
                reader.out.push(Blame { path, shown: Shown::Run { start, text }, by });
            }
        };
        for item in doc.list_range(id, ..) {
            let change = doc.hash_for_opid(&item.id());
            if change != last {
                tell(self, last, start, &mut text);
                (start, last) = (start + length, change);
                length = 0;
            }
            let value: Value<'_> = item.value.clone().into();
            let piece = value.as_str().unwrap_or(OBJECT);
            text.push_str(piece);
            length += piece.chars().count();
        }
        tell(self, last, start, &mut text);
    }

    fn stamp(&mut self, change: Native) -> Option<Arc<Stamp>> {
        if let Some(stamp) = self.stamps.get(&change) {
            return Some(Arc::clone(stamp));
        }
        let meta = self.doc.get_change_meta_by_hash(&change)?;
        let stamp = Arc::new(Stamp::from(&meta));
        self.stamps.insert(change, Arc::clone(&stamp));
        Some(stamp)
    }

    /// Finds who last added to each counter: of additions at the same time the one that is ordered
    /// last, as automerge orders operations.
    fn count(&mut self) {
        if self.counters.is_empty() {
            return;
        }
        let counters = std::mem::take(&mut self.counters);
        let mut last: BTreeMap<String, Option<(u64, String, Native)>> =
            counters.iter().map(|(counter, _)| (counter.clone(), None)).collect();
        for change in self.doc.get_changes(&[]) {
            let Some(expanded) = expanded(&change) else { continue };
            let actor = expanded.actor_id.to_string();
            for (number, op) in (expanded.start_op.get()..).zip(&expanded.operations) {
                if !matches!(op.action, OpType::Increment(_)) {
                    continue;
                }
                for OpId(made, by) in op.pred.iter() {
                    if let Some(last) = last.get_mut(&format!("{made}@{by}")) {
                        let this = (number, actor.clone(), change.hash());
                        if last.as_ref().is_none_or(|last| *last < this) {
                            *last = Some(this);
                        }
                    }
                }
            }
        }
        for (counter, place) in counters {
            if let Some(Some((.., change))) = last.get(&counter) {
                self.out[place].by = self.stamp(*change);
            }
        }
    }
}

fn with(path: &[Prop], step: Prop) -> Vec<Prop> {
    path.iter().cloned().chain([step]).collect()
}

#[cfg(test)]
mod tests;
