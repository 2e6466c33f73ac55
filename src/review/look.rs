//! A conflict as people see it: where it is, what each side has, who wrote it.

use std::borrow::Cow;

use automerge::{
    Automerge, AutomergeError, ChangeHash, ObjId, ObjType, Prop, ReadDoc as _, ScalarValue, Value,
};

use super::{
    Conflict, Kept, Place, Side, SlotKey,
    part::{Found, find, has_element},
};
use crate::{history::Stamp, json};

/// What is, was or would be at a place.
#[derive(Debug, Clone)]
pub enum Content {
    /// Nothing.
    Nothing,
    /// A value without parts.
    Single(ScalarValue),
    /// An object with all that is in it.
    Object {
        /// A document that it can be read in.
        doc: Box<Automerge>,
        /// Which it is there.
        object: ObjId,
        /// What it is.
        kind: ObjType,
    },
    /// Some keys of a map: what a rule is about.
    Fields {
        /// A document that has them at its root.
        doc: Box<Automerge>,
        /// Which.
        keys: Vec<String>,
    },
}

impl Content {
    /// What a document has at this part of an object. The document is copied only where it is an
    /// object that is there, and the document is not given away.
    ///
    /// # Errors
    /// Those of automerge, if there is no such object.
    pub fn of(
        doc: Cow<'_, Automerge>,
        parent: &ObjId,
        prop: impl Into<Prop>,
    ) -> Result<Self, AutomergeError> {
        let (kind, object) = match doc.get(parent, prop)? {
            None => return Ok(Self::Nothing),
            Some((Value::Scalar(value), _)) => return Ok(Self::Single(value.into_owned())),
            Some((Value::Object(kind), object)) => (kind, object),
        };
        Ok(Self::Object { doc: Box::new(doc.into_owned()), object, kind })
    }
}

impl Conflict {
    /// Where it is, as people write it; see [`Conflict::path`].
    pub(super) fn path_text(&self, doc: &Automerge) -> Option<String> {
        match self.place.key.keys() {
            Some(keys) => {
                let path = |key: &String| json::path([Prop::Map(key.clone())].iter());
                Some(keys.iter().map(path).collect::<Vec<_>>().join(", "))
            }
            None => self.path(doc).map(|path| json::path(path.iter())),
        }
    }

    /// Where it is: in the document as it is now, else as it was before. `None` if it was made
    /// and removed since. A rule about several keys is at the map that they are in.
    pub fn path(&self, doc: &Automerge) -> Option<Vec<Prop>> {
        if let Some(keys) = self.place.key.keys() {
            return Some(match &*keys {
                [key] => vec![Prop::Map(key.clone())],
                _ => Vec::new(),
            });
        }
        let now = if self.is_gone(doc) { None } else { path_in(doc, &self.place) };
        now.or_else(|| path_in(&doc.fork_at(&self.before).ok()?, &self.place))
    }

    /// Whether it is about an element of a list that is not there until it is decided.
    pub(super) fn is_gone(&self, doc: &Automerge) -> bool {
        if !matches!(self.place.key, SlotKey::Element(_)) {
            return false;
        }
        let is_live = |side: &Side| matches!(side.kept, Kept::Put(_) | Kept::Made(_));
        let is_deleted = self.sides.iter().any(|side| side.kept == Kept::Deleted);
        // Who writes once more what somebody else wrote there too leaves, in automerge 0.12, the
        // other's operation and deletes their own: if the other is deleted, nothing is there.
        let operations = self.sides.iter().flat_map(|side| &side.operations);
        !self.sides.iter().any(is_live) || is_deleted && !has_element(doc, &self.place, operations)
    }

    /// When the last of its changes was made, in seconds since 1970 by its author's clock.
    pub fn time_s(&self, doc: &Automerge) -> i64 {
        latest(doc, self.sides.iter().flat_map(|side| &side.changes))
    }

    /// What was there before: what all sides had seen.
    ///
    /// # Errors
    /// Those of automerge, if the document is not the one that the conflict is of.
    pub fn base(&self, doc: &Automerge) -> Result<Content, AutomergeError> {
        content_at(Cow::Owned(doc.fork_at(&self.before)?), &self.place)
    }

    /// What is shown until it is decided: what Automerge chose.
    ///
    /// # Errors
    /// As [`Conflict::base`].
    pub fn provisional(&self, doc: &Automerge) -> Result<Content, AutomergeError> {
        if self.is_gone(doc) {
            return Ok(Content::Nothing);
        }
        content_at(Cow::Borrowed(doc), &self.place)
    }
}

impl Side {
    /// What it has at the place of the conflict.
    ///
    /// # Errors
    /// As [`Conflict::base`].
    pub fn content(&self, doc: &Automerge, place: &Place) -> Result<Content, AutomergeError> {
        match &self.kept {
            Kept::Edited(None) | Kept::Fields => {
                content_at(Cow::Owned(doc.fork_at(&self.changes)?), place)
            }
            Kept::Put(value) => {
                let counted = if value.is_counter() { self.counted(doc, place)? } else { None };
                Ok(Content::Single(counted.unwrap_or_else(|| value.clone())))
            }
            Kept::Deleted => Ok(Content::Nothing),
            Kept::Made(kind) => self.object(doc.clone(), *kind),
            Kept::Edited(Some(kind)) => self.object(doc.fork_at(&self.changes)?, *kind),
        }
    }

    /// Who wrote it: one for each of its changes.
    pub fn who(&self, doc: &Automerge) -> Vec<Stamp> {
        self.changes.iter().filter_map(|change| stamp(doc, change)).collect()
    }

    /// A counter with all that was counted.
    fn counted(
        &self,
        doc: &Automerge,
        place: &Place,
    ) -> Result<Option<ScalarValue>, AutomergeError> {
        if !has_element(doc, place, &self.operations) {
            return Ok(None);
        }
        let Found { parent, prop } = find(doc, place)?;
        let found = doc.get_all(&parent, prop)?.into_iter().find(|(_, written)| {
            self.operations.iter().any(|operation| *operation == written.to_string())
        });
        Ok(found.and_then(|(value, _)| value.into_scalar().ok()))
    }

    fn object(&self, doc: Automerge, kind: ObjType) -> Result<Content, AutomergeError> {
        let name = self.operations.first().map_or("_root", String::as_str);
        let object = doc.import_obj(name)?;
        Ok(Content::Object { doc: Box::new(doc), object, kind })
    }
}

/// Who made a change, when, and what for; `None` if it is not in the document.
pub(super) fn stamp(doc: &Automerge, change: &ChangeHash) -> Option<Stamp> {
    Stamp::of(doc, &concord_protocol::ChangeHash(change.0))
}

/// When the last of these changes was made; 0 if none of them says.
pub(super) fn latest<'a>(
    doc: &Automerge,
    changes: impl IntoIterator<Item = &'a ChangeHash>,
) -> i64 {
    let made = |change| Some(doc.get_change_meta_by_hash(change)?.timestamp);
    changes.into_iter().filter_map(made).max().unwrap_or_default()
}

fn path_in(doc: &Automerge, place: &Place) -> Option<Vec<Prop>> {
    let Found { parent, prop } = find(doc, place).ok()?;
    let above: Vec<_> = doc.parents(&parent).ok()?.collect();
    let is_visible = above.iter().all(|parent| parent.visible);
    let mut path: Vec<Prop> = above.into_iter().map(|parent| parent.prop).collect();
    path.reverse();
    path.push(prop);
    is_visible.then_some(path)
}

fn content_at(doc: Cow<'_, Automerge>, place: &Place) -> Result<Content, AutomergeError> {
    if let Some(keys) = place.key.shown() {
        let doc = match &place.key {
            SlotKey::Rule { through, .. } => through.brought(doc.into_owned()),
            _ => doc.into_owned(),
        };
        return Ok(Content::Fields { doc: Box::new(doc), keys });
    }
    let Ok(Found { parent, prop }) = find(&doc, place) else {
        // What it is in was not there yet.
        return Ok(Content::Nothing);
    };
    Content::of(doc, &parent, prop)
}
