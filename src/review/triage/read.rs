//! From notes to what is shown of a conflict.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{ReadDoc, Value};

use super::{
    Assignment, COMMENTS_MAX, Claim, Comment, Dismissal, NOTES_MAX, STANDINGS_MAX, Snooze,
    Standing, Triage,
    document::notes,
    note::{Kind, Note, notes_of, parse},
};
use crate::review::ConflictId;

/// Notes by kind, with their keys.
#[derive(Debug, Default)]
struct Notes([Vec<(String, Note)>; 5]);

impl Notes {
    fn of(&mut self, kind: Kind) -> &mut Vec<(String, Note)> {
        // The kinds are as many as the lists.
        &mut self.0[kind as usize]
    }

    /// The same whatever the order in which the notes were given.
    fn into_triage(mut self) -> Triage {
        for list in &mut self.0 {
            list.sort_by(|(key, note), (other, than)| (note.at, key).cmp(&(than.at, other)));
        }
        let mut claims: Vec<Claim> = Vec::new();
        let mut seen = BTreeSet::new();
        for (_, Note { who, at, .. }) in std::mem::take(self.of(Kind::Claim)) {
            if seen.insert(who.clone()) {
                claims.push(Claim { who, since: at });
            }
        }
        let mut last = |kind| self.of(kind).pop().map(|(_, note)| note);
        let assigned = last(Kind::Assign)
            .and_then(|Note { who, at, to, .. }| Some(Assignment { to: to?, who, time: at }));
        let snoozed = last(Kind::Snooze)
            .and_then(|Note { who, at, until, .. }| Some(Snooze { until: until?, who, time: at }));
        let dismissed = last(Kind::Dismiss).map(|Note { who, at, text, .. }| Dismissal {
            who,
            time: at,
            why: text,
        });
        let said = std::mem::take(self.of(Kind::Comment)).into_iter().take(COMMENTS_MAX);
        let comment = |(_, note): (String, Note)| {
            Some(Comment { who: note.who, time: note.at, text: note.text? })
        };
        let comments = said.filter_map(comment).collect();
        Triage { claims, assigned, snoozed, dismissed, comments }
    }
}

/// What the review document says about a conflict; nothing if it is no review document.
pub fn read(doc: &impl ReadDoc, conflict: ConflictId) -> Triage {
    let Some(object) = notes(doc) else { return Triage::default() };
    let mut all = Notes::default();
    for kind in Kind::ALL {
        *all.of(kind) = notes_of(doc, &object, conflict, kind);
    }
    all.into_triage()
}

/// What it says about all conflicts, in a few words; about the first [`STANDINGS_MAX`] by their
/// names. With each goes when something was last said, in seconds since 1970.
pub fn standings(doc: &impl ReadDoc) -> BTreeMap<ConflictId, (Standing, i64)> {
    let mut told = BTreeMap::new();
    let Some(object) = notes(doc) else { return told };
    let mut now: Option<(ConflictId, Notes, i64)> = None;
    // One after another: the keys are in order, and begin with the conflict.
    for item in doc.map_range(&object, ..) {
        let Some((conflict, kind)) = parse(&item.key) else { continue };
        if let Some((id, notes, last)) = now.take_if(|(id, ..)| *id != conflict) {
            told.insert(id, (notes.into_triage().standing(), last));
            if told.len() >= STANDINGS_MAX {
                return told;
            }
        }
        let (_, notes, last) = now.get_or_insert_with(|| (conflict, Notes::default(), 0));
        let list = notes.of(kind);
        let value: Value<'_> = item.value.clone().into();
        if list.len() < NOTES_MAX
            && let Some(note) = Note::read(kind, &value)
        {
            *last = (*last).max(note.at);
            list.push((item.key.to_string(), note));
        }
    }
    told.extend(now.map(|(id, notes, last)| (id, (notes.into_triage().standing(), last))));
    told
}
