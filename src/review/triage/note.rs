//! A note: its key, and what it says.

use std::ops::Range;

use automerge::{ObjId, ReadDoc, ScalarValue, Value};
use serde::{Deserialize, Serialize};

use super::{NOTES_MAX, TEXT_BYTES_MAX, TIME_S_MAX};
use crate::{history, review::ConflictId};

/// Bytes of a note as it is stored: text has up to six times its bytes in JSON, and the rest is
/// short.
const NOTE_BYTES_MAX: usize = 6 * TEXT_BYTES_MAX + 4 * 1024;

/// What a note is about; the letter is in its key, so that many of one kind do not hide another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Assign,
    Claim,
    Comment,
    Dismiss,
    Snooze,
}

impl Kind {
    pub(super) const ALL: [Self; 5] =
        [Self::Assign, Self::Claim, Self::Comment, Self::Dismiss, Self::Snooze];

    fn letter(self) -> char {
        match self {
            Self::Assign => 'a',
            Self::Claim => 'c',
            Self::Comment => 't',
            Self::Dismiss => 'd',
            Self::Snooze => 's',
        }
    }
}

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) who: String,
    pub(super) at: i64,
    /// A comment, or why something was dismissed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    /// To whom it was assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) to: Option<String>,
    /// Until when it was put off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) until: Option<i64>,
}

/// The key of a new note: `unique` was drawn for it.
pub(super) fn key(conflict: ConflictId, kind: Kind, unique: [u8; 16]) -> String {
    format!("{conflict} {} {:032x}", kind.letter(), u128::from_be_bytes(unique))
}

/// The keys of the notes of one kind on one conflict.
fn keys(conflict: ConflictId, kind: Kind) -> Range<String> {
    // The character after the blank.
    format!("{conflict} {} ", kind.letter())..format!("{conflict} {}!", kind.letter())
}

/// Which conflict a key is about, and which kind of note it is.
pub(super) fn parse(key: &str) -> Option<(ConflictId, Kind)> {
    let (conflict, rest) = key.split_once(' ')?;
    let (letter, unique) = rest.split_once(' ')?;
    let kind = Kind::ALL.into_iter().find(|kind| {
        let mut name = [0; 4];
        letter == kind.letter().encode_utf8(&mut name)
    })?;
    let is_unique = unique.len() == 32 && unique.bytes().all(|c| c.is_ascii_hexdigit());
    let id: ConflictId = conflict.parse().ok()?;
    // In one way of writing only: the keys of a conflict are then one after another.
    (is_unique && id.to_string() == conflict).then_some((id, kind))
}

impl Note {
    /// Reads what is stored; `None` if it is no note of this kind.
    pub(super) fn read(kind: Kind, stored: &Value<'_>) -> Option<Self> {
        let Value::Scalar(value) = stored else { return None };
        let ScalarValue::Str(json) = value.as_ref() else { return None };
        if json.len() > NOTE_BYTES_MAX {
            return None;
        }
        let note: Self = serde_json::from_str(json).ok()?;
        note.is_sound(kind).then_some(note)
    }

    /// As it is stored; `None` if it would not be read again.
    pub(super) fn to_json(&self, kind: Kind) -> Option<String> {
        let json = serde_json::to_string(self).ok()?;
        (json.len() <= NOTE_BYTES_MAX && self.is_sound(kind)).then_some(json)
    }

    fn is_sound(&self, kind: Kind) -> bool {
        let is_name = |name: &String| history::author(name).is_ok();
        let is_time = |time: i64| (1..=TIME_S_MAX).contains(&time);
        let is_text = |text: &String| !text.trim().is_empty() && text.len() <= TEXT_BYTES_MAX;
        is_name(&self.who)
            && is_time(self.at)
            && match kind {
                Kind::Assign => self.to.as_ref().is_some_and(is_name),
                Kind::Claim => true,
                Kind::Comment => self.text.as_ref().is_some_and(is_text),
                Kind::Dismiss => self.text.as_ref().is_none_or(is_text),
                Kind::Snooze => self.until.is_some_and(is_time),
            }
    }
}

/// The notes of one kind on one conflict, with their keys.
pub(super) fn notes_of(
    doc: &impl ReadDoc,
    notes: &ObjId,
    conflict: ConflictId,
    kind: Kind,
) -> Vec<(String, Note)> {
    let found = doc.map_range(notes, keys(conflict, kind)).take(NOTES_MAX);
    found
        .filter(|item| parse(&item.key) == Some((conflict, kind)))
        .filter_map(|item| {
            let note = Note::read(kind, &item.value.clone().into())?;
            Some((item.key.to_string(), note))
        })
        .collect()
}
