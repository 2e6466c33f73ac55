//! What a decision writes: at the place of a conflict, or in the fields that a rule is about.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use automerge::{
    Automerge, AutomergeError, ChangeHash, Cursor, ExpandedChange, ObjId, ObjType, Prop, ROOT,
    ReadDoc, ScalarValue, Value,
    legacy::{ElementId, Key, Op},
    marks::ExpandMark,
    transaction::{Transactable as _, Transaction},
};
use concord_protocol::AutomergeUrl;
use serde_json::Value as Json;

use super::{Conflict, Content, Place, Refused, SlotKey};
use crate::{
    entity::{Brought, Chain, DELETED_KEY, Meant, Standings},
    history::{self, HistoryError},
    json,
};

/// What is written at one place.
#[derive(Debug)]
pub(super) enum Part {
    Slot {
        parent: ObjId,
        prop: Prop,
        is_there: bool,
        content: Content,
    },
    /// A text that stays where it is, and becomes this.
    Text {
        text: ObjId,
        becomes: String,
    },
    /// What other versions of the schema have then of what is written.
    Carried(Carried),
    /// What several versions have, as it was.
    Imposed {
        chain: Arc<Chain>,
        meant: Meant,
    },
    /// What was at a key of the document at these heads.
    Then {
        key: String,
        heads: Vec<ChangeHash>,
    },
}

/// Fields that several versions of a schema have, each elsewhere.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) chain: Arc<Chain>,
    pub(super) by: By,
    /// The keys that are written.
    pub(super) keys: Vec<String>,
}

/// Which fields say what the others are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// Those of the version in force.
    Newest,
    /// Those of earlier ones.
    Older,
}

impl Carried {
    /// What has to be before anything else is written: what later versions have not written yet.
    fn bring(&self, tx: &mut Transaction<'_>) -> Result<(Standings, Brought), AutomergeError> {
        let unread = self.chain.unread_besides(tx, &self.keys);
        let brought = match self.by {
            By::Newest => self.chain.bring(tx, &Standings::default())?,
            By::Older => Brought::default(),
        };
        Ok((unread, brought))
    }

    /// Writes what the other fields are then. Whether there was something to write.
    fn align(
        &self,
        tx: &mut Transaction<'_>,
        (unread, mut brought): (Standings, Brought),
    ) -> Result<bool, AutomergeError> {
        if self.by == By::Older {
            brought = self.chain.bring(tx, &Standings::default())?;
            if self.chain.is_unread(tx) {
                // It is as it would be had somebody of that version written it.
                return Ok(false);
            }
        }
        let unread = if self.by == By::Older { Standings::default() } else { unread };
        self.chain.align(tx, None, &unread, &brought)?;
        Ok(true)
    }
}

/// Writes all of it. Whether there was something to write.
pub(super) fn write(parts: &[Part], tx: &mut Transaction<'_>) -> Result<bool, AutomergeError> {
    let mut before = Vec::new();
    for part in parts {
        if let Part::Carried(carried) = part {
            before.push((carried, carried.bring(tx)?));
        }
    }
    let mut is_written = false;
    for part in parts {
        is_written |= part.write(tx)?;
    }
    for (carried, before) in before {
        is_written |= carried.align(tx, before)?;
    }
    Ok(is_written)
}

impl Part {
    /// The key of the document that it is about, if it is about one.
    pub(super) fn root_key(&self) -> Option<String> {
        match self {
            Self::Slot { parent, prop: Prop::Map(key), .. } if *parent == ROOT => Some(key.clone()),
            Self::Then { key, .. } => Some(key.clone()),
            _ => None,
        }
    }

    /// Writes it. Whether there was something to write.
    fn write(&self, tx: &mut Transaction<'_>) -> Result<bool, AutomergeError> {
        let (parent, prop, is_there, content) = match self {
            Self::Slot { parent, prop, is_there, content } => (parent, prop, *is_there, content),
            Self::Text { text, becomes } => {
                tx.update_text(text, becomes)?;
                return Ok(true);
            }
            // It is written by what is written before and after it.
            Self::Carried(_) => return Ok(false),
            Self::Imposed { chain, meant } => {
                chain.impose(tx, meant)?;
                return Ok(true);
            }
            Self::Then { key, heads } => return then(tx, key, heads),
        };
        // Writing what is there already is no operation at all, and somebody else's concurrent
        // decision would then be the only one: so it is taken away first.
        match (content, prop) {
            (Content::Nothing, prop) if is_there => tx.delete(parent, prop.clone())?,
            (Content::Nothing, _) => return Ok(false),
            (content, Prop::Map(key)) => {
                if is_there {
                    tx.delete(parent, key.as_str())?;
                }
                put(tx, parent, prop, content, false)?;
            }
            (content, Prop::Seq(index)) => {
                if is_there {
                    tx.put(parent, *index, ScalarValue::Null)?;
                }
                put(tx, parent, prop, content, !is_there)?;
            }
        }
        Ok(true)
    }
}

/// Writes what was at a key. Whether there was something to write.
fn then(tx: &mut Transaction<'_>, key: &str, heads: &[ChangeHash]) -> Result<bool, AutomergeError> {
    let heads: Vec<_> = heads.iter().map(|head| concord_protocol::ChangeHash(head.0)).collect();
    match history::restore(tx, &heads, &[Prop::Map(key.to_owned())]) {
        Ok(()) => Ok(true),
        // Nothing was there, and nothing is.
        Err(HistoryError::NoPath { .. }) => Ok(false),
        Err(HistoryError::Automerge(error)) => Err(*error),
        Err(error) => Err(AutomergeError::InvalidObjId(error.to_string())),
    }
}

pub(super) fn unreadable(error: impl fmt::Display) -> Refused {
    Refused::Unreadable(error.to_string())
}

/// Writes what a conflict of one slot is decided with.
pub(super) fn slot(
    doc: &Automerge,
    conflict: &Conflict,
    content: Content,
) -> Result<Part, Refused> {
    if let Content::Fields { .. } = content {
        return Err(unreadable("fields of a rule were given for a single place"));
    }
    let no_place = |error: AutomergeError| Refused::NoPlace(error.to_string());
    let (found, is_there) = if conflict.is_gone(doc) {
        let before = doc.fork_at(&conflict.before).map_err(unreadable)?;
        (find(&before, &conflict.place).map_err(no_place)?, false)
    } else {
        let found = find(doc, &conflict.place).map_err(no_place)?;
        let is_there = doc.get(&found.parent, found.prop.clone()).map_err(unreadable)?;
        (found, is_there.is_some())
    };
    let Found { parent, prop } = found;
    let prop = match prop {
        // It comes back where it was.
        Prop::Seq(index) => Prop::Seq(index.min(doc.length(&parent))),
        key @ Prop::Map(_) => key,
    };
    Ok(Part::Slot { parent, prop, is_there, content })
}

/// Writes fields that a conflict is about. What people edit together stays where it is the same, and a
/// text where it is another, so that nothing is lost that somebody writes meanwhile.
pub(super) fn fields(
    doc: &Automerge,
    keys: &[String],
    content: Content,
) -> Result<Vec<Part>, Refused> {
    let (from, wanted) = match content {
        Content::Fields { doc, keys } => (doc, keys),
        Content::Nothing => (Box::default(), keys.to_vec()),
        Content::Single(_) | Content::Object { .. } => (Box::default(), Vec::new()),
    };
    if wanted.is_empty() || wanted.iter().any(|key| !keys.contains(key)) {
        return Err(Refused::NotFields { keys: keys.join(", ") });
    }
    let mut parts = Vec::new();
    for key in wanted {
        let now = doc.get(ROOT, &key).map_err(unreadable)?;
        let mut content =
            Content::of(Cow::Borrowed(&*from), &ROOT, key.as_str()).map_err(unreadable)?;
        let is_there = now.is_some();
        if let (DELETED_KEY, Content::Single(ScalarValue::Int(time_ms))) = (&*key, &content) {
            content = Content::Single(ScalarValue::Timestamp(*time_ms));
        }
        if let Some((now, id)) = now {
            let is_counter = matches!(&now, Value::Scalar(value) if value.is_counter());
            if let (true, Content::Single(ScalarValue::Int(count))) = (is_counter, &content) {
                content = Content::Single(ScalarValue::counter(*count));
            }
            if now.is_object() || is_counter {
                let now = json::to_json(doc, &now, &id).map_err(unreadable)?;
                if content.to_json().map_err(unreadable)?.as_ref() == Some(&now) {
                    continue;
                }
            }
            if now == Value::Object(ObjType::Text)
                && let Some(Json::String(becomes)) = content.to_json().map_err(unreadable)?
            {
                parts.push(Part::Text { text: id, becomes });
                continue;
            }
        }
        parts.push(Part::Slot { parent: ROOT, prop: Prop::Map(key), is_there, content });
    }
    Ok(parts)
}

/// Takes all references to a document out of what is at a key, there and then.
pub(crate) fn clear_references(
    tx: &mut Transaction<'_>,
    key: &str,
    to: &str,
) -> Result<bool, AutomergeError> {
    let parts = without(tx, key, to)?;
    write(&parts, tx)
}

/// Takes all references to a document out of what is at a key: members of sets, and values of lists
/// and maps.
pub(super) fn without(
    doc: &impl ReadDoc,
    key: &str,
    to: &str,
) -> Result<Vec<Part>, AutomergeError> {
    let refers = |text: &str| text.parse().is_ok_and(|AutomergeUrl(id)| id.as_str() == to);
    let is_it = |value: &Value<'_>| value.as_str().is_some_and(refers);
    let mut parts = Vec::new();
    let mut take = |parent: &ObjId, prop: Prop| {
        let content = Content::Nothing;
        parts.push(Part::Slot { parent: parent.clone(), prop, is_there: true, content });
    };
    let mut left: Vec<(ObjId, ObjType)> = Vec::new();
    match doc.get(ROOT, key)? {
        Some((Value::Object(kind), id)) => left.push((id, kind)),
        Some((value, _)) if is_it(&value) => take(&ROOT, Prop::Map(key.to_owned())),
        _ => {}
    }
    while let Some((object, kind)) = left.pop() {
        match kind {
            ObjType::Map | ObjType::Table => {
                for item in doc.map_range(&object, ..) {
                    let value: Value<'_> = item.value.clone().into();
                    match value {
                        _ if refers(&item.key) => take(&object, Prop::Map(item.key.to_string())),
                        Value::Object(kind) => left.push((item.id(), kind)),
                        value if is_it(&value) => {
                            take(&object, Prop::Map(item.key.to_string()));
                        }
                        Value::Scalar(_) => {}
                    }
                }
            }
            ObjType::List => {
                // From the end on, so that those before stay where they are.
                let items: Vec<_> = doc.list_range(&object, ..).collect();
                for (index, item) in items.into_iter().enumerate().rev() {
                    match item.value.clone().into() {
                        Value::Object(kind) => left.push((item.id(), kind)),
                        value if is_it(&value) => take(&object, Prop::Seq(index)),
                        Value::Scalar(_) => {}
                    }
                }
            }
            ObjType::Text => {}
        }
    }
    Ok(parts)
}

/// A place in a document.
pub(super) struct Found {
    pub(super) parent: ObjId,
    pub(super) prop: Prop,
}

/// Where a place is in a document. An element must be there: where it is not, automerge 0.12 says
/// where it would be, but in debug builds fails a check of its own.
pub(super) fn find(doc: &Automerge, place: &Place) -> Result<Found, AutomergeError> {
    let parent = doc.import_obj(&place.object)?;
    let prop = match &place.key {
        SlotKey::Map(key) => Prop::Map(key.clone()),
        SlotKey::Element(element) => {
            let cursor = Cursor::try_from(element.as_str())?;
            Prop::Seq(doc.get_cursor_position(&parent, &cursor, None)?)
        }
        // It is about keys, and in none of them.
        SlotKey::Rule { .. } | SlotKey::Tombstone { .. } => {
            return Err(AutomergeError::InvalidObjId(place.object.clone()));
        }
    };
    Ok(Found { parent, prop })
}

/// Whether the element that a place names is in its list. The operations are some of those that may
/// have written what is in it.
pub(super) fn has_element<'a>(
    doc: &Automerge,
    place: &'a Place,
    operations: impl IntoIterator<Item = &'a String>,
) -> bool {
    let SlotKey::Element(element) = &place.key else { return true };
    let Ok(parent) = doc.import_obj(&place.object) else { return false };
    // Not asked by its cursor: of an element that is gone, automerge 0.12 gives the place where it
    // would be, which is another one's, and fails a check of its own in debug builds.
    let shown: Vec<ObjId> = (0..doc.length(&parent))
        .filter_map(|at| doc.get(&parent, at).ok().flatten())
        .map(|(_, shown)| shown)
        .collect();
    let known: BTreeSet<&String> = operations.into_iter().chain([element]).collect();
    let mut changes = BTreeMap::new();
    shown.iter().any(|shown| known.contains(&shown.to_string()))
        || shown.iter().any(|shown| element_of(doc, shown, &mut changes).as_ref() == Some(element))
}

/// Whether the element that a place names is in its list, and has what it was inserted with: what was
/// written over that may be another's by now.
pub(super) fn is_as_inserted(doc: &Automerge, place: &Place) -> bool {
    let SlotKey::Element(element) = &place.key else { return true };
    let (Ok(parent), Ok(wanted)) =
        (doc.import_obj(&place.object), Cursor::try_from(element.as_str()))
    else {
        return false;
    };
    (0..doc.length(&parent))
        .any(|at| doc.get_cursor(&parent, at, None).is_ok_and(|at| at == wanted))
}

/// The element of a list that an operation wrote to which did not insert it.
fn element_of(
    doc: &Automerge,
    operation: &ObjId,
    changes: &mut BTreeMap<ChangeHash, Option<ExpandedChange>>,
) -> Option<String> {
    let ObjId::Id(counter, ..) = operation else { return None };
    let hash = doc.hash_for_opid(operation)?;
    let expanded = changes
        .entry(hash)
        .or_insert_with(|| doc.get_change_by_hash(&hash).as_ref().and_then(history::expanded));
    let expanded = expanded.as_ref()?;
    let at = counter.checked_sub(expanded.start_op.get())?;
    match expanded.operations.get(usize::try_from(at).ok()?)? {
        Op { insert: false, key: Key::Seq(ElementId::Id(element)), .. } => {
            Some(element.to_string())
        }
        _ => None,
    }
}

fn put(
    tx: &mut Transaction<'_>,
    parent: &ObjId,
    prop: &Prop,
    content: &Content,
    insert: bool,
) -> Result<(), AutomergeError> {
    match content {
        // No value of one place.
        Content::Nothing | Content::Fields { .. } => {}
        Content::Single(value) => match prop {
            Prop::Seq(index) if insert => tx.insert(parent, *index, value.clone())?,
            prop => tx.put(parent, prop.clone(), value.clone())?,
        },
        Content::Object { doc, object, kind } => {
            let made = match prop {
                Prop::Seq(index) if insert => tx.insert_object(parent, *index, *kind)?,
                prop => tx.put_object(parent, prop.clone(), *kind)?,
            };
            copy(tx, doc, object.clone(), *kind, made)?;
        }
    }
    Ok(())
}

/// Copies what is in an object of one document into an empty one.
fn copy(
    tx: &mut Transaction<'_>,
    from: &Automerge,
    object: ObjId,
    kind: ObjType,
    into: ObjId,
) -> Result<(), AutomergeError> {
    let mut left = vec![(object, kind, into)];
    while let Some((object, kind, into)) = left.pop() {
        match kind {
            ObjType::Map | ObjType::Table => {
                for item in from.map_range(&object, ..) {
                    match item.value.clone().into() {
                        Value::Scalar(value) => tx.put(&into, &*item.key, value.into_owned())?,
                        Value::Object(kind) => {
                            left.push((item.id(), kind, tx.put_object(&into, &*item.key, kind)?));
                        }
                    }
                }
            }
            ObjType::List => {
                for (index, item) in from.list_range(&object, ..).enumerate() {
                    match item.value.clone().into() {
                        Value::Scalar(value) => tx.insert(&into, index, value.into_owned())?,
                        Value::Object(kind) => {
                            left.push((item.id(), kind, tx.insert_object(&into, index, kind)?));
                        }
                    }
                }
            }
            ObjType::Text => {
                tx.splice_text(&into, 0, 0, &from.text(&object)?)?;
                for mark in from.marks(&object)? {
                    tx.mark(&into, mark, ExpandMark::default())?;
                }
            }
        }
    }
    Ok(())
}
