//! What is done about a conflict, written into a transaction of the caller.

use std::collections::BTreeSet;

use automerge::{
    AutomergeError, ObjId, ReadDoc as _,
    transaction::{Transactable as _, Transaction},
};

use super::{
    Act, COMMENTS_MAX, TEXT_BYTES_MAX, TIME_S_MAX,
    document::notes,
    note::{Kind, Note, key, notes_of, parse},
    read::read,
};
use crate::{
    history::{self, AuthorError},
    review::ConflictId,
};

/// Something that is done about a conflict.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// About which.
    pub conflict: ConflictId,
    /// What.
    pub act: &'a Act,
    /// By whom.
    pub who: &'a str,
    /// When, in seconds since 1970.
    pub time_s: i64,
    /// Drawn for this, and for nothing else.
    pub unique: [u8; 16],
}

/// Why something is not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Whoever does it, or is to do something, has no name.
    #[error(transparent)]
    Name(#[from] AuthorError),
    /// Somebody else looks after it.
    #[error("{who} looks after the conflict already: take it over if they should not")]
    Held {
        /// Who.
        who: String,
    },
    /// A comment without words.
    #[error("the comment is empty")]
    Empty,
    /// A comment or reason that is too long.
    #[error("the text has {bytes} bytes: give at most {TEXT_BYTES_MAX}")]
    Long {
        /// How long it is.
        bytes: usize,
    },
    /// There are so many comments already.
    #[error("the conflict has {COMMENTS_MAX} comments already: decide it, or dismiss it")]
    Full,
    /// It is put off to a time that is none, or over.
    #[error("a conflict is put off until a time that is to come")]
    Time,
    /// It is no review document.
    #[error("the document is not the review document, or has not begun")]
    Document,
    /// See the error of automerge.
    #[error(transparent)]
    Automerge(#[from] AutomergeError),
}

impl Entry<'_> {
    /// The message for the change that it is written in.
    pub fn message(&self) -> String {
        format!("concord:triage {} {}", self.conflict, self.act.name())
    }
}

/// Writes it. Whether there was something to write.
///
/// # Errors
/// [`Refused`]; then nothing was written.
pub fn write(tx: &mut Transaction<'_>, entry: &Entry<'_>) -> Result<bool, Refused> {
    let Entry { conflict, act, who, time_s, unique } = entry;
    history::author(who)?;
    let notes = notes(tx).ok_or(Refused::Document)?;
    let mut desk = Desk { tx, notes, conflict: *conflict };
    let mut note = Note {
        who: (*who).to_owned(),
        at: (*time_s).clamp(1, TIME_S_MAX),
        text: None,
        to: None,
        until: None,
    };
    let is_else = |note: &Note| note.who != *who;
    match act {
        Act::Claim { take } => {
            let now = read(desk.tx, *conflict);
            match now.holder() {
                Some(holder) if holder == *who => return Ok(false),
                Some(holder) if !take => return Err(Refused::Held { who: holder.to_owned() }),
                // A claim of one's own that came second counts from now.
                _ => desk.clear(Kind::Claim, |_| true)?,
            };
            desk.put(Kind::Claim, &note, *unique)
        }
        Act::Release => desk.clear(Kind::Claim, |note| !is_else(note)),
        Act::Assign(None) => desk.clear(Kind::Assign, |_| true),
        Act::Assign(Some(to)) => {
            history::author(to)?;
            let now = read(desk.tx, *conflict);
            if now.assigned.is_some_and(|assigned| assigned.to == *to) {
                return Ok(false);
            }
            note.to = Some(to.clone());
            desk.replace(Kind::Assign, &note, *unique)
        }
        Act::Comment(text) => {
            if text.trim().is_empty() {
                return Err(Refused::Empty);
            }
            note.text = Some(checked(text)?);
            if read(desk.tx, *conflict).comments.len() >= COMMENTS_MAX {
                return Err(Refused::Full);
            }
            desk.put(Kind::Comment, &note, *unique)
        }
        Act::Snooze(until) => {
            if !(note.at + 1..=TIME_S_MAX).contains(until) {
                return Err(Refused::Time);
            }
            note.until = Some(*until);
            desk.replace(Kind::Snooze, &note, *unique)
        }
        Act::Dismiss(why) => {
            let why = why.as_ref().filter(|why| !why.trim().is_empty());
            note.text = why.map(|why| checked(why)).transpose()?;
            desk.replace(Kind::Dismiss, &note, *unique)
        }
        Act::Reopen => {
            let dismissed = desk.clear(Kind::Dismiss, |_| true)?;
            Ok(desk.clear(Kind::Snooze, |_| true)? || dismissed)
        }
    }
}

/// Takes away all notes about these conflicts. How many there were.
///
/// # Errors
/// Those of automerge.
pub fn forget(
    tx: &mut Transaction<'_>,
    conflicts: &BTreeSet<ConflictId>,
) -> Result<usize, AutomergeError> {
    let Some(notes) = notes(tx) else { return Ok(0) };
    let about = |key: &str| parse(key).is_some_and(|(id, _)| conflicts.contains(&id));
    let keys: Vec<String> = tx
        .map_range(&notes, ..)
        .filter(|item| about(&item.key))
        .map(|item| item.key.to_string())
        .collect();
    for key in &keys {
        tx.delete(&notes, key.as_str())?;
    }
    Ok(keys.len())
}

fn checked(text: &str) -> Result<String, Refused> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Refused::Long { bytes: text.len() });
    }
    Ok(text.to_owned())
}

/// The notes on one conflict, to write in.
struct Desk<'a, 'd> {
    tx: &'a mut Transaction<'d>,
    notes: ObjId,
    conflict: ConflictId,
}

impl Desk<'_, '_> {
    fn put(&mut self, kind: Kind, note: &Note, unique: [u8; 16]) -> Result<bool, Refused> {
        // All of it was checked, so it fits.
        let json = note.to_json(kind).ok_or(Refused::Time)?;
        self.tx.put(&self.notes, key(self.conflict, kind, unique), json)?;
        Ok(true)
    }

    /// What was seen makes place: what somebody writes meanwhile stays beside it.
    fn replace(&mut self, kind: Kind, note: &Note, unique: [u8; 16]) -> Result<bool, Refused> {
        self.clear(kind, |_| true)?;
        self.put(kind, note, unique)
    }

    /// Takes notes away. Whether there were any.
    fn clear(&mut self, kind: Kind, which: impl Fn(&Note) -> bool) -> Result<bool, Refused> {
        let found = notes_of(self.tx, &self.notes, self.conflict, kind);
        let gone: Vec<String> =
            found.into_iter().filter(|(_, note)| which(note)).map(|(key, _)| key).collect();
        for key in &gone {
            self.tx.delete(&self.notes, key.as_str())?;
        }
        Ok(!gone.is_empty())
    }
}
