//! What is different between two states of a document.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{
    Automerge, ChangeHash as Native, ObjId, ObjType, Patch, PatchAction, Prop, ROOT, ReadDoc as _,
    Value,
};
use concord_protocol::ChangeHash;
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::{HistoryError, hash::known};
use crate::json::{self, DEPTH_MAX, JsonError, to_json_at};

/// One thing that is different.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Where: a field, an element of a list, or a text.
    #[serde(serialize_with = "as_written")]
    pub path: Vec<Prop>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// In what way something is different. What is new is shown whole, with all that is in it, and as
/// null if it is nested more than [`json::DEPTH_MAX`] levels deep.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// There is another value at the path, or one where there was none.
    Put {
        /// What was there.
        before: Option<Json>,
        /// What is there.
        after: Json,
    },
    /// The field is not there any more.
    Delete {
        /// What was there.
        before: Option<Json>,
    },
    /// Elements are in a list that were not, the first of them at the path.
    Insert {
        /// They.
        values: Vec<Json>,
    },
    /// Elements are not in a list any more; the first of them was at the path.
    Remove {
        /// They, as they were.
        values: Vec<Json>,
    },
    /// The text at the path is another there.
    Splice {
        /// Characters before it.
        index: usize,
        /// What was there.
        removed: String,
        /// What is there.
        inserted: String,
    },
    /// The counter at the path is another.
    Increment {
        /// By how much it is more.
        by: i64,
    },
    /// Two people wrote at the path at the same time. What is shown is the same.
    Conflict,
    /// A part of the text at the path is formatted in another way.
    Mark {
        /// The kind of format.
        name: String,
        /// Its value; null where it ends.
        value: Json,
        /// The first character of it.
        start: usize,
        /// The first after it.
        end: usize,
    },
}

/// What is different after, against before. Done one after the other to what was there before, that
/// gives what is there after; so an index in a list or a text is that at which it is done.
///
/// Of a document that is nested more than [`json::DEPTH_MAX`] levels deep, so many are looked at.
///
/// The two may be any states, also such of which neither came before the other. What was removed and
/// written again as it was is no difference, as far as that is seen where it was written.
///
/// # Errors
/// [`HistoryError`].
pub fn diff(
    doc: &Automerge,
    before: &[ChangeHash],
    after: &[ChangeHash],
) -> Result<Vec<Difference>, HistoryError> {
    let (before, after) = (known(doc, before)?, known(doc, after)?);
    between(doc, &before, &after)
}

/// As [`diff`], of heads that are in the document.
pub(super) fn between(
    doc: &Automerge,
    before: &[Native],
    after: &[Native],
) -> Result<Vec<Difference>, HistoryError> {
    let mut reader =
        Reader { doc, before, after, new: BTreeSet::new(), shifts: BTreeMap::new(), out: vec![] };
    for patch in patches(doc, before, after)? {
        reader.take(patch)?;
    }
    Ok(without_equals(reader.out))
}

/// What automerge finds. It writes the whole path into each patch, which of a document that is
/// nested as deeply as a stranger likes would take all memory: of those only so many levels are
/// looked at.
fn patches(
    doc: &Automerge,
    before: &[Native],
    after: &[Native],
) -> Result<Vec<Patch>, HistoryError> {
    if is_shallow(doc, before) && is_shallow(doc, after) {
        return Ok(doc.diff(before, after));
    }
    let mut patches = Vec::new();
    let mut level = vec![ROOT];
    for _ in 0..DEPTH_MAX {
        let mut next = Vec::new();
        for object in level {
            patches.extend(doc.diff_obj(&object, before, after, false)?);
            next.extend(objects_in(doc, &object, after));
        }
        level = next;
    }
    Ok(patches)
}

/// Whether a state of a document is nested no more than [`DEPTH_MAX`] levels deep.
fn is_shallow(doc: &Automerge, heads: &[Native]) -> bool {
    let mut level = vec![ROOT];
    for _ in 0..DEPTH_MAX {
        level = level.iter().flat_map(|object| objects_in(doc, object, heads)).collect();
        if level.is_empty() {
            return true;
        }
    }
    false
}

/// The maps, lists and texts that are in one.
fn objects_in(doc: &Automerge, object: &ObjId, heads: &[Native]) -> Vec<ObjId> {
    let is_object = |value: Value<'_>| value.is_object();
    match doc.object_type(object) {
        Ok(ObjType::Map | ObjType::Table) => {
            let items = doc.map_range_at(object, .., heads);
            let objects = items.filter(|item| is_object(item.value.clone().into()));
            objects.map(|item| item.id()).collect()
        }
        Ok(ObjType::List) => {
            let items = doc.list_range_at(object, .., heads);
            let objects = items.filter(|item| is_object(item.value.clone().into()));
            objects.map(|item| item.id()).collect()
        }
        // What is in a text is nothing that people nest.
        Ok(ObjType::Text) | Err(_) => Vec::new(),
    }
}

/// Leaves out what was written anew and is as it was: characters, and elements of lists.
fn without_equals(mut all: Vec<Difference>) -> Vec<Difference> {
    let mut place = 0;
    while place < all.len() {
        let (first, rest) = all.split_at_mut(place + 1);
        // It is there.
        let one = &mut first[place];
        match (&mut one.what, rest.first_mut().map(|next| (&mut next.path, &mut next.what))) {
            (What::Splice { index, removed, inserted }, _) => {
                let same = removed.chars().zip(inserted.chars());
                let begin = same.take_while(|(was, is)| was == is);
                let (chars, bytes) = begin
                    .fold((0, 0), |(chars, bytes), (it, _)| (chars + 1, bytes + it.len_utf8()));
                *index += chars;
                removed.drain(..bytes);
                inserted.drain(..bytes);
                let same = removed.chars().rev().zip(inserted.chars().rev());
                let end: usize =
                    same.take_while(|(was, is)| was == is).map(|(it, _)| it.len_utf8()).sum();
                removed.truncate(removed.len() - end);
                inserted.truncate(inserted.len() - end);
            }
            (What::Remove { values: was }, Some((next, What::Insert { values: is })))
                if one.path == *next =>
            {
                let begin = trim(was, is);
                moved(&mut one.path, begin);
                moved(next, begin);
            }
            (What::Insert { values: is }, Some((next, What::Remove { values: was })))
                if is_behind(&one.path, next, is.len()) =>
            {
                let before = is.len();
                let begin = trim(was, is);
                moved(&mut one.path, begin);
                // Behind fewer that are new, and after as many more that are as they were.
                let fewer = before - is.len();
                if let Some(Prop::Seq(index)) = next.last_mut() {
                    *index = *index + begin - fewer;
                }
            }
            _ => {}
        }
        place += 1;
    }
    all.retain(|difference| match &difference.what {
        What::Splice { removed, inserted, .. } => !removed.is_empty() || !inserted.is_empty(),
        What::Insert { values } | What::Remove { values } => !values.is_empty(),
        _ => true,
    });
    all
}

/// Takes away what two lists have alike at their ends; gives how much that was at the begin.
fn trim(one: &mut Vec<Json>, other: &mut Vec<Json>) -> usize {
    let begin = one.iter().zip(&*other).take_while(|(one, other)| one == other).count();
    one.drain(..begin);
    other.drain(..begin);
    let same = one.iter().rev().zip(other.iter().rev());
    let end = same.take_while(|(one, other)| one == other).count();
    one.truncate(one.len() - end);
    other.truncate(other.len() - end);
    begin
}

/// Moves a path to a later element.
fn moved(path: &mut [Prop], by: usize) {
    if let Some(Prop::Seq(index)) = path.last_mut() {
        *index += by;
    }
}

/// Whether a path is to the element of the same list that is so many after another.
fn is_behind(path: &[Prop], other: &[Prop], by: usize) -> bool {
    match (path.split_last(), other.split_last()) {
        (Some((Prop::Seq(index), list)), Some((Prop::Seq(after), other))) => {
            list == other && index + by == *after
        }
        _ => false,
    }
}

struct Reader<'a> {
    doc: &'a Automerge,
    before: &'a [Native],
    after: &'a [Native],
    /// Objects that are shown whole where they are new.
    new: BTreeSet<ObjId>,
    shifts: BTreeMap<ObjId, Shift>,
    out: Vec<Difference>,
}

/// How far a sequence was told of, from its begin on.
#[derive(Default)]
struct Shift {
    inserted: usize,
    deleted: usize,
    /// Of a text: what it was.
    was: Option<Vec<char>>,
}

impl Shift {
    /// Where it was what is there when all before it is done.
    fn before(&self, index: usize) -> usize {
        (index + self.deleted).saturating_sub(self.inserted)
    }
}

impl Reader<'_> {
    fn take(&mut self, patch: Patch) -> Result<(), HistoryError> {
        let Patch { obj, path, action } = patch;
        let is_new = |id: &ObjId| self.new.contains(id);
        if is_new(&obj) || path.iter().any(|(id, _)| is_new(id)) {
            return Ok(());
        }
        let mut path: Vec<Prop> = path.into_iter().map(|(_, step)| step).collect();
        let what = match action {
            PatchAction::PutMap { key, value, .. } => {
                path.push(Prop::Map(key.clone()));
                return self.put(&obj, &Prop::Map(key), path, &value);
            }
            PatchAction::PutSeq { index, value, .. } => {
                let at = self.shift(&obj).before(index);
                path.push(Prop::Seq(index));
                return self.put(&obj, &Prop::Seq(at), path, &value);
            }
            PatchAction::DeleteMap { key } => {
                let before = self.was(&obj, &Prop::Map(key.clone()))?;
                path.push(Prop::Map(key));
                What::Delete { before }
            }
            PatchAction::Insert { index, values } => {
                let mut shown = Vec::with_capacity(values.len());
                for (value, id, _) in &values {
                    shown.push(self.is(&(value.clone(), id.clone()))?);
                }
                self.shift(&obj).inserted += shown.len();
                path.push(Prop::Seq(index));
                What::Insert { values: shown }
            }
            PatchAction::DeleteSeq { index, length } => {
                self.removed(&obj, &mut path, index, length)?
            }
            PatchAction::SpliceText { index, value, .. } => {
                let inserted = value.make_string();
                self.shift(&obj).inserted += inserted.chars().count();
                What::Splice { index, removed: String::new(), inserted }
            }
            PatchAction::Increment { prop, value } => {
                path.push(prop);
                What::Increment { by: value }
            }
            PatchAction::Conflict { prop } => {
                path.push(prop);
                What::Conflict
            }
            PatchAction::Mark { marks } => {
                for mark in marks {
                    let value = Value::Scalar(std::borrow::Cow::Owned(mark.value));
                    let value = json::to_json(self.doc, &value, &obj)?;
                    let (name, start, end) = (mark.name.to_string(), mark.start, mark.end);
                    let what = What::Mark { name, value, start, end };
                    self.out.push(Difference { path: path.clone(), what });
                }
                return Ok(());
            }
        };
        self.tell(Difference { path, what });
        Ok(())
    }

    /// Another value. Who writes what is there already changes nothing that is shown.
    fn put(
        &mut self,
        obj: &ObjId,
        was_at: &Prop,
        path: Vec<Prop>,
        value: &(Value<'static>, ObjId),
    ) -> Result<(), HistoryError> {
        let before = self.was(obj, was_at)?;
        let after = self.is(value)?;
        let was = self.doc.get_at(obj, was_at.clone(), self.before)?;
        let is_alike = was.is_some_and(|(was, _)| {
            was.is_object() == value.0.is_object() && (was.is_object() || was == value.0)
        });
        // What is not shown may be anything.
        let is_shown = !value.0.is_object() || !after.is_null();
        if !is_alike || !is_shown || before.as_ref() != Some(&after) {
            self.tell(Difference { path, what: What::Put { before, after } });
        }
        Ok(())
    }

    /// Elements that are gone, or characters.
    fn removed(
        &mut self,
        obj: &ObjId,
        path: &mut Vec<Prop>,
        index: usize,
        length: usize,
    ) -> Result<What, HistoryError> {
        let from = self.shift(obj).before(index);
        self.shift(obj).deleted += length;
        if self.doc.object_type(obj)? == ObjType::Text {
            if self.shift(obj).was.is_none() {
                let was = self.doc.text_at(obj, self.before)?.chars().collect();
                self.shift(obj).was = Some(was);
            }
            let was = self.shift(obj).was.iter().flatten();
            let removed = was.skip(from).take(length).collect();
            return Ok(What::Splice { index, removed, inserted: String::new() });
        }
        let mut values = Vec::with_capacity(length);
        for at in from..from + length {
            values.push(self.was(obj, &Prop::Seq(at))?.unwrap_or_default());
        }
        path.push(Prop::Seq(index));
        Ok(What::Remove { values })
    }

    /// Puts together what belongs together: the parts of one edit of a text.
    fn tell(&mut self, difference: Difference) {
        let Difference { path, what } = &difference;
        if let (
            What::Splice { index, removed, inserted },
            Some(Difference {
                path: last_path,
                what: What::Splice { index: last, removed: last_removed, inserted: last_inserted },
            }),
        ) = (what, self.out.last_mut())
            && last_path == path
            && *index == *last + last_inserted.chars().count()
        {
            last_removed.push_str(removed);
            last_inserted.push_str(inserted);
            return;
        }
        self.out.push(difference);
    }

    fn shift(&mut self, obj: &ObjId) -> &mut Shift {
        self.shifts.entry(obj.clone()).or_default()
    }

    fn was(&self, obj: &ObjId, prop: &Prop) -> Result<Option<Json>, HistoryError> {
        let found = self.doc.get_at(obj, prop.clone(), self.before)?;
        found.map(|(value, id)| self.shown(&value, &id, self.before)).transpose()
    }

    /// A value; of one that is nested too deeply null, so that it does not hide all the rest.
    fn shown(&self, value: &Value<'_>, id: &ObjId, at: &[Native]) -> Result<Json, HistoryError> {
        match to_json_at(self.doc, value, id, at) {
            Err(JsonError::TooDeep) => Ok(Json::Null),
            shown => Ok(shown?),
        }
    }

    fn is(&mut self, (value, id): &(Value<'static>, ObjId)) -> Result<Json, HistoryError> {
        if value.is_object() {
            self.new.insert(id.clone());
        }
        self.shown(value, id, self.after)
    }
}

/// A path as people write it.
pub(super) fn as_written<S: Serializer>(path: &[Prop], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&json::path(path.iter()))
}

#[cfg(test)]
mod tests;
