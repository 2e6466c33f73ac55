//! Decisions: what becomes of a slot, written as a change that has seen all sides and names the
//! conflict.

use automerge::{
    Automerge, AutomergeError, Change, Cursor, ObjId, ObjType, Prop, ReadDoc as _, ScalarValue,
    Value,
    marks::ExpandMark,
    transaction::{CommitOptions, Transactable as _, Transaction},
};

use super::{Conflict, ConflictId, Content, Place, SlotKey};

/// The first word of the message of a change that decides a conflict.
const WORD: &str = "concord:resolve";

/// What somebody chose.
#[derive(Debug, Clone)]
pub enum Choice {
    /// What one of the sides wants, by its number from 0; what was edited comes back as it was on
    /// that side.
    Side(usize),
    /// What was there before.
    Before,
    /// What is shown until somebody decides.
    Now,
    /// Something else, or nothing.
    Other(Content),
}

/// A decision on a conflict, ready to be written.
#[derive(Debug)]
pub struct Resolution {
    conflict: ConflictId,
    chosen: String,
    reason: Option<String>,
    parent: ObjId,
    prop: Prop,
    is_there: bool,
    content: Content,
}

/// Why a decision cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such side.
    #[error("the conflict has sides 1 to {sides}, and no side {}", side.saturating_add(1))]
    NoSide {
        /// Which was asked for, from 0.
        side: usize,
        /// How many there are.
        sides: usize,
    },
    /// The document is not the one that the conflict was found in.
    #[error("the place of the conflict is not in the document: {0}")]
    NoPlace(String),
    /// An element of a list was decided on, and is another element now.
    #[error(
        "the conflict was about an element of a list that is no longer there: edit the list itself"
    )]
    Gone,
    /// A content cannot be read.
    #[error("what was chosen cannot be read: {0}")]
    Unreadable(String),
}

/// What the message of a change says of a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    /// On which conflict.
    pub conflict: ConflictId,
    /// What was chosen, in a word.
    pub choice: String,
    /// Why, if a reason was given.
    pub reason: Option<String>,
}

impl Decided {
    /// Reads the message of a change; `None` if it is not that of a decision.
    pub fn read(message: &str) -> Option<Self> {
        let (line, reason) = match message.split_once('\n') {
            Some((line, reason)) => (line, Some(reason.to_owned())),
            None => (message, None),
        };
        let mut words = line.split(' ');
        (words.next() == Some(WORD)).then_some(())?;
        let conflict = words.next()?.parse().ok()?;
        Some(Self { conflict, choice: words.next()?.to_owned(), reason })
    }
}

impl Resolution {
    /// Prepares a decision on a conflict of this document.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn prepare(
        doc: &Automerge,
        conflict: &Conflict,
        choice: &Choice,
        reason: Option<String>,
    ) -> Result<Self, Refused> {
        Self::since(None, doc, conflict, choice, reason)
    }

    /// The same for a conflict that is open no longer: in an earlier state of the document, `then`,
    /// it was.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn since(
        then: Option<&Automerge>,
        doc: &Automerge,
        conflict: &Conflict,
        choice: &Choice,
        reason: Option<String>,
    ) -> Result<Self, Refused> {
        if then.is_some() && (conflict.is_gone() || !has_element(doc, &conflict.place)) {
            return Err(Refused::Gone);
        }
        let then = then.unwrap_or(doc);
        let unreadable = |error: AutomergeError| Refused::Unreadable(error.to_string());
        let (chosen, content) = match choice {
            Choice::Side(number) => {
                let (side, sides) = (*number, conflict.sides.len());
                let wanted = conflict.sides.get(side).ok_or(Refused::NoSide { side, sides })?;
                let content = wanted.content(then, &conflict.place).map_err(unreadable)?;
                (format!("side-{}", number + 1), content)
            }
            Choice::Before => ("before".to_owned(), conflict.base(then).map_err(unreadable)?),
            Choice::Now => ("now".to_owned(), conflict.provisional(then).map_err(unreadable)?),
            Choice::Other(Content::Nothing) => ("delete".to_owned(), Content::Nothing),
            Choice::Other(content) => ("value".to_owned(), content.clone()),
        };
        let no_place = |error: AutomergeError| Refused::NoPlace(error.to_string());
        let (found, is_there) = if conflict.is_gone() {
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
        Ok(Self { conflict: conflict.id, chosen, reason, parent, prop, is_there, content })
    }

    /// The message for the change that the decision is written in: it names the conflict, which
    /// is what closes it.
    pub fn message(&self) -> String {
        let line = format!("{WORD} {} {}", self.conflict, self.chosen);
        self.reason.iter().fold(line, |line, reason| format!("{line}\n{reason}"))
    }

    /// The same for a decision that a policy made.
    pub(super) fn by(&self, policy: &str) -> String {
        format!("{WORD} {} policy-{policy}", self.conflict)
    }

    /// Writes the decision. Whether there was something to write: if not, an empty change with the
    /// message does.
    ///
    /// # Errors
    /// Those of the transaction.
    pub fn write(&self, tx: &mut Transaction<'_>) -> Result<bool, AutomergeError> {
        let Self { parent, prop, is_there, .. } = self;
        // Writing what is there already is no operation at all, and somebody else's concurrent
        // decision would then be the only one: so it is taken away first.
        match (&self.content, prop) {
            (Content::Nothing, prop) if *is_there => tx.delete(parent, prop.clone())?,
            (Content::Nothing, _) => return Ok(false),
            (content, Prop::Map(key)) => {
                if *is_there {
                    tx.delete(parent, key.as_str())?;
                }
                put(tx, parent, prop, content, false)?;
            }
            (content, Prop::Seq(index)) => {
                if *is_there {
                    tx.put(parent, *index, ScalarValue::Null)?;
                }
                put(tx, parent, prop, content, !is_there)?;
            }
        }
        Ok(true)
    }

    /// Writes the decision as a change of this document, which is given.
    ///
    /// # Errors
    /// Those of automerge; the document is as it was then.
    pub(super) fn commit(
        &self,
        doc: &mut Automerge,
        message: &str,
        time_s: i64,
    ) -> Result<Change, AutomergeError> {
        let options = || CommitOptions::default().with_message(message).with_time(time_s);
        let mut tx = doc.transaction();
        if let Err(error) = self.write(&mut tx) {
            tx.rollback();
            return Err(error);
        }
        let (written, _) = tx.commit_with(options());
        let hash = written.unwrap_or_else(|| doc.empty_commit(options()));
        doc.get_change_by_hash(&hash).ok_or(AutomergeError::MissingHash(hash))
    }
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
    };
    Ok(Found { parent, prop })
}

/// Whether the element that a place names is in its list. Not asked by its cursor: of an element
/// that is gone, automerge 0.12 gives the place where it would be, which is another one's.
fn has_element(doc: &Automerge, place: &Place) -> bool {
    let SlotKey::Element(element) = &place.key else { return true };
    let (Ok(parent), Ok(wanted)) =
        (doc.import_obj(&place.object), Cursor::try_from(element.as_str()))
    else {
        return false;
    };
    (0..doc.length(&parent))
        .any(|at| doc.get_cursor(&parent, at, None).is_ok_and(|at| at == wanted))
}

fn put(
    tx: &mut Transaction<'_>,
    parent: &ObjId,
    prop: &Prop,
    content: &Content,
    insert: bool,
) -> Result<(), AutomergeError> {
    match content {
        Content::Nothing => {}
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
