//! Pairs of writes that nobody knows both of, and what must come of each.

use automerge::{
    Automerge, AutomergeError, ObjId, ObjType, ROOT, ReadDoc as _, ScalarValue,
    transaction::{Transactable as _, Transaction},
};

use crate::review::Code;

/// What two people do in one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Each writes a field of their own.
    Fields,
    /// Both type into one text.
    Text,
    /// Both count.
    Counter,
    /// Both insert into one list.
    List,
    /// Both write the same.
    Equal,
    /// One writes, the other does nothing.
    Alone,
    /// Both write one field.
    Value,
    /// One writes a field, the other deletes it.
    EditDelete,
    /// One edits inside an object, the other deletes it.
    Subtree,
    /// Both make an object in one field.
    Twin,
}

pub(super) const CLASSES: [Class; 10] = [
    Class::Fields,
    Class::Text,
    Class::Counter,
    Class::List,
    Class::Equal,
    Class::Alone,
    Class::Value,
    Class::EditDelete,
    Class::Subtree,
    Class::Twin,
];

impl Class {
    /// What a document begins with.
    pub(super) fn begin(tx: &mut Transaction<'_>) -> Result<(), AutomergeError> {
        tx.put(ROOT, "kind", "form")
    }

    /// How many of the two write.
    pub(super) fn writers(self) -> usize {
        if self == Self::Alone { 1 } else { 2 }
    }

    /// The kind of conflict that there must be; `None` for none.
    pub(super) fn code(self) -> Option<Code> {
        match self {
            Self::Value => Some(Code::Value),
            Self::EditDelete | Self::Subtree => Some(Code::EditDelete),
            Self::Twin => Some(Code::Twin),
            _ => None,
        }
    }

    /// What must be there before both write.
    pub(super) fn prepare(
        self,
        tx: &mut Transaction<'_>,
        place: &str,
    ) -> Result<(), AutomergeError> {
        match self {
            Self::Fields | Self::Equal | Self::Alone | Self::Twin => Ok(()),
            Self::Text => {
                let text = tx.put_object(ROOT, place, ObjType::Text)?;
                tx.splice_text(&text, 0, 0, "we agree")
            }
            Self::Counter => tx.put(ROOT, place, ScalarValue::counter(0)),
            Self::List => {
                let list = tx.put_object(ROOT, place, ObjType::List)?;
                tx.insert(&list, 0, 0)
            }
            Self::Value | Self::EditDelete => tx.put(ROOT, place, 0),
            Self::Subtree => {
                let map = tx.put_object(ROOT, place, ObjType::Map)?;
                tx.put(&map, "city", "Rome")
            }
        }
    }

    /// What one of them does, the first or the second.
    pub(super) fn write(
        self,
        tx: &mut Transaction<'_>,
        place: &str,
        half: usize,
    ) -> Result<(), AutomergeError> {
        let number = [3, 4][half.min(1)];
        match (self, half) {
            (Self::Fields, _) => tx.put(ROOT, format!("{place} of {number}"), number),
            (Self::Text, _) => {
                let text = object(tx, place)?;
                let at = if half == 0 { 0 } else { tx.length(&text) };
                tx.splice_text(&text, at, 0, &format!("({number})"))
            }
            (Self::Counter, _) => tx.increment(ROOT, place, number),
            (Self::List, _) => {
                let list = object(tx, place)?;
                tx.insert(&list, 1, number)
            }
            (Self::Equal, _) => tx.put(ROOT, place, 7),
            (Self::Alone | Self::Value, _) | (Self::EditDelete, 0) => tx.put(ROOT, place, number),
            (Self::EditDelete | Self::Subtree, 1..) => tx.delete(ROOT, place),
            (Self::Subtree, 0) => {
                let map = object(tx, place)?;
                tx.put(&map, "city", "Paris")
            }
            (Self::Twin, _) => {
                let map = tx.put_object(ROOT, place, ObjType::Map)?;
                tx.put(&map, "made by", number)
            }
        }
    }

    /// Whether what both wrote is there, where it merges.
    pub(super) fn is_merged(self, doc: &Automerge, place: &str) -> bool {
        let number = |key: &str| doc.get(ROOT, key).ok().flatten().and_then(|(v, _)| v.as_i64());
        let inside = || doc.get(ROOT, place).ok().flatten().map(|(_, id)| id);
        match self {
            Self::Fields => [3, 4].iter().all(|n| number(&format!("{place} of {n}")) == Some(*n)),
            Self::Text => {
                let text = inside().and_then(|id| doc.text(id).ok());
                text.as_deref() == Some("(3)we agree(4)")
            }
            Self::Counter | Self::Equal => number(place) == Some(7),
            Self::List => {
                let items = inside().map(|id| doc.values(&id).filter_map(|(v, _)| v.as_i64()));
                let mut items: Vec<i64> = items.into_iter().flatten().collect();
                items.sort_unstable();
                items == [0, 3, 4]
            }
            Self::Alone => number(place) == Some(3),
            Self::Value | Self::EditDelete | Self::Subtree | Self::Twin => false,
        }
    }
}

fn object(tx: &Transaction<'_>, place: &str) -> Result<ObjId, AutomergeError> {
    let found = tx.get(ROOT, place)?;
    found.map(|(_, id)| id).ok_or_else(|| AutomergeError::InvalidObjId(place.to_owned()))
}
