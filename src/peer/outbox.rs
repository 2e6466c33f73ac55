//! What relays have not yet confirmed as durable: one entry a document, however many edits.
//!
//! A document is in the outbox from the moment of an edit to the moment at which a relay is known
//! to have all of it on disk. The row that says so is given to the store before the edit is, and
//! the store keeps a prefix of what it is given: whatever of an edit outlives a crash, the row does
//! too. It is deleted some time later, for an edit that follows would write it again; a row that
//! outlived its reason is a document that is confirmed anew at the next connection.
//!
//! What a relay refuses is in the same row: see [`super::letters`].
//!
//! No I/O here: the core carries out what is asked.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod row;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use concord_protocol::{ChangeHash, DocumentId, RefuseCode};

pub(super) use self::row::{Row, RowLetter, RowRefused, on_its_way};
use super::{
    base::{BASE_HEADS_MAX, Heads},
    overview::Board,
    replace,
};
use crate::{entity::Level, replica::Now};

/// Milliseconds that the row of a document stays after it was confirmed. Who types has written the
/// next word by then, and costs one write less.
const LINGER_MS: u64 = 2_000;

/// Milliseconds after which a row that could not be written is tried again.
const RETRY_MS: u64 = 1_000;

/// Refused changes that are kept count of, a document. Each has what was refused before it as a
/// dependency as a rule, so those beyond come again when the first are dealt with.
const REFUSED_MAX: usize = 1_024;

/// Changes that were taken out of a document and are kept beside it. Beyond that some have to be
/// thrown away first, by whoever looks after them.
const LETTERS_MAX: usize = 10_000;

/// A document that is on its way to relays.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxEntry {
    /// Which.
    pub document: DocumentId,
    /// When the first of its edits was made that is not confirmed, milliseconds since 1970.
    pub since_ms: u64,
    /// How urgent the most urgent of its edits is that is not confirmed.
    pub level: Level,
    /// How far it is.
    pub state: OutboxState,
}

/// How far a document is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutboxState {
    /// No relay is connected.
    Pending,
    /// A relay is connected, and is given it.
    Sending,
    /// A relay refused so many of its changes, or of those that build on them: they are dead
    /// letters. The rest was taken.
    Refused {
        /// Why the first was refused.
        code: RefuseCode,
        /// The same in words.
        reason: String,
        /// How many changes.
        changes: usize,
        /// A relay said so that is connected now, as far as is known. One that comes is given them
        /// anew, and may take them.
        is_current: bool,
    },
    /// It cannot be read here.
    Failed {
        /// Why.
        reason: String,
    },
}

/// How many documents are in the outbox, by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OutboxCounts {
    /// See [`OutboxState::Pending`].
    pub pending: usize,
    /// See [`OutboxState::Sending`].
    pub sending: usize,
    /// See [`OutboxState::Refused`].
    pub refused: usize,
    /// See [`OutboxState::Failed`].
    pub failed: usize,
    /// Of those that are pending or sending, how many are of each level, the most urgent first.
    pub by_level: [usize; Level::ALL.len()],
    /// What was there at the start is counted too. Until then more may be waiting.
    pub is_complete: bool,
}

impl OutboxCounts {
    /// Documents that a relay will be given, or is.
    pub fn waiting(&self) -> usize {
        self.pending + self.sending
    }
}

/// What is to be done about a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Note {
    /// Write it.
    Put(DocumentId, Bytes),
    /// Delete it.
    Delete(DocumentId),
}

/// One document.
#[derive(Debug, Default)]
struct Entry {
    row: Row,
    /// The row is on disk, or on its way there.
    is_noted: bool,
    /// It says that relays have less than they had: what it says is true, and is written anew when
    /// there is time.
    is_stale: bool,
    /// Confirmed; the row goes at this time, `mono_ms`.
    goes_at_ms: Option<u64>,
    failed: Option<String>,
    /// [`Outbox::comings`] when something of it was last refused.
    refused_at: u64,
}

/// What an entry is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Waiting(Level),
    Refused,
    Failed,
}

impl Entry {
    /// `None`: it is confirmed.
    fn class(&self) -> Option<Class> {
        if self.row.since_ms == 0 || self.goes_at_ms.is_some() {
            None
        } else if self.failed.is_some() {
            Some(Class::Failed)
        } else if self.refused().is_some() {
            Some(Class::Refused)
        } else {
            Some(Class::Waiting(self.row.level()))
        }
    }

    /// The refusal that stands. What was refused for nothing but what it builds on comes after what
    /// was for itself, and says nothing while that is sent once more: the word of that is to come.
    fn refused(&self) -> Option<&RowRefused> {
        let Row { refused, sent_again, .. } = &self.row;
        let own = refused.iter().find(|one| one.code() != RefuseCode::OutOfSequence);
        own.or_else(|| refused.first().filter(|_| sent_again.is_empty()))
    }

    /// As it is while relays are connected, of which the last came as so many had before; or none is.
    fn state(&self, comings: Option<u64>) -> Option<OutboxState> {
        self.class()?;
        Some(match (&self.failed, self.refused()) {
            (Some(reason), _) => OutboxState::Failed { reason: reason.clone() },
            (None, Some(first)) => OutboxState::Refused {
                code: first.code(),
                reason: first.reason.clone(),
                changes: self.row.refused.len(),
                is_current: comings == Some(self.refused_at),
            },
            (None, None) if comings.is_some() => OutboxState::Sending,
            (None, None) => OutboxState::Pending,
        })
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    entries: BTreeMap<DocumentId, Entry>,
    /// The entries that were confirmed, by when their rows go.
    going: BTreeSet<(u64, DocumentId)>,
    /// Rows that could not be written, by when that is tried again.
    retries: BTreeSet<(u64, DocumentId)>,
    board: Arc<Board>,
    now: Now,
    /// Those that are waiting, by level.
    waiting: [usize; Level::ALL.len()],
    refused: usize,
    failed: usize,
    is_online: bool,
    /// How often a relay came.
    comings: u64,
    is_complete: bool,
}

impl Outbox {
    /// An empty one, before what is on disk is known.
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self {
            entries: BTreeMap::new(),
            going: BTreeSet::new(),
            retries: BTreeSet::new(),
            board,
            now: Now::default(),
            waiting: [0; Level::ALL.len()],
            refused: 0,
            failed: 0,
            is_online: false,
            comings: 0,
            is_complete: false,
        }
    }

    /// A row that was there at the start.
    pub(super) fn recalled(&mut self, document: &DocumentId, row: &[u8]) {
        let row = Row::read(row).unwrap_or_else(|error| {
            // It stands for edits all the same.
            tracing::warn!(%document, %error, "a row of the outbox cannot be read");
            Row { since_ms: 1, ..Row::default() }
        });
        self.change(document, |entry| {
            // What was edited meanwhile is waiting in any case.
            let since_ms = match (entry.row.since_ms, row.since_ms) {
                (0, since_ms) | (since_ms, 0) => since_ms,
                (one, other) => one.min(other),
            };
            let level = match (entry.class(), row.since_ms) {
                (None, _) => row.level,
                (Some(_), 0) => entry.row.level,
                (Some(_), _) => entry.row.level().min(row.level()).number(),
            };
            entry.row = Row { since_ms, level, ..row };
            entry.is_noted = true;
        });
    }

    /// All that was there at the start is here.
    pub(super) fn complete(&mut self, now: Now) {
        self.now = now;
        self.is_complete = true;
        self.tell();
    }

    /// Somebody edits a document, or it was stored here by a version that kept no outbox; of which a
    /// relay has `base`, if that is asked for. Gives the row to be written before the edit.
    pub(super) fn edited(
        &mut self,
        now: Now,
        document: &DocumentId,
        level: Level,
        base: impl FnOnce() -> Heads,
    ) -> Option<Note> {
        self.now = now;
        let (row, at_ms) = self.change(document, |entry| {
            let at_ms = entry.goes_at_ms.take();
            let written = entry.row.level();
            let is_first = at_ms.is_some() || entry.row.since_ms == 0;
            if is_first {
                entry.row.since_ms = now.wall_ms.max(1);
                let base = base();
                let is_kept = base.len() <= BASE_HEADS_MAX;
                entry.row.base = base.into_iter().filter(|_| is_kept).map(|head| head.0).collect();
                // The row that lingers says all that matters.
                entry.is_noted &= at_ms.is_some();
            }
            if is_first || level < written {
                entry.row.level = level.number();
            }
            // That it says more than is so costs nothing but its place.
            entry.is_noted &= level >= written;
            let is_noted = std::mem::replace(&mut entry.is_noted, true);
            entry.is_stale = is_noted && (entry.is_stale || at_ms.is_some());
            ((!is_noted).then(|| entry.row.write()), at_ms)
        });
        if at_ms.is_some() && row.is_none() {
            self.retries.insert((now.mono_ms.saturating_add(LINGER_MS), document.clone()));
        }
        self.stays(document, at_ms);
        Some(Note::Put(document.clone(), row?))
    }

    /// The row could not be written: it is tried again with the next edit, or in a while.
    pub(super) fn not_noted(&mut self, now: Now, document: &DocumentId) {
        if let Some(entry) = self.entries.get_mut(document) {
            entry.is_noted = false;
            self.retries.insert((now.mono_ms.saturating_add(RETRY_MS), document.clone()));
        }
    }

    /// A relay has all of the document.
    pub(super) fn confirmed(&mut self, now: Now, document: &DocumentId) -> Option<Note> {
        let entry = self.entries.get(document)?;
        entry.class()?;
        self.now = now;
        self.board.passes.send_modify(|passes| passes.confirmed(now));
        let at_ms = now.mono_ms.saturating_add(LINGER_MS);
        let note = self.change(document, |entry| {
            entry.row.refused.clear();
            entry.row.sent_again.clear();
            entry.failed = None;
            if entry.row.letters.is_empty() {
                entry.goes_at_ms = Some(at_ms);
                return None;
            }
            entry.row.since_ms = 0;
            entry.row.base.clear();
            Some(Note::Put(document.clone(), entry.row.write()))
        });
        if note.is_none() {
            self.going.insert((at_ms, document.clone()));
        }
        note
    }

    /// What a relay had of a document before the first of its edits that wait; `None` if none does.
    pub(super) fn base(&self, document: &DocumentId) -> Option<Heads> {
        let entry = self.entries.get(document).filter(|entry| entry.class().is_some())?;
        Some(entry.row.base.iter().copied().map(ChangeHash).collect())
    }

    /// When [`Outbox::due`] has something to give, `mono_ms`.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        let firsts = [self.going.first(), self.retries.first()];
        firsts.into_iter().flatten().map(|(at_ms, _)| *at_ms).min()
    }

    /// The rows that are to go now, all that are confirmed if `is_last`; and those that could not be
    /// written before.
    pub(super) fn due(&mut self, now: Now, is_last: bool) -> Vec<Note> {
        let is_due = |first: Option<&(u64, DocumentId)>| {
            first.is_some_and(|(at_ms, _)| is_last || *at_ms <= now.mono_ms)
        };
        let mut due = Vec::new();
        while is_due(self.going.first())
            && let Some((_, document)) = self.going.pop_first()
        {
            self.entries.remove(&document);
            due.push(Note::Delete(document));
        }
        while is_due(self.retries.first())
            && let Some((_, document)) = self.retries.pop_first()
        {
            if let Some(entry) = self.entries.get_mut(&document)
                && (!entry.is_noted || entry.is_stale && entry.class().is_some())
            {
                (entry.is_noted, entry.is_stale) = (true, false);
                due.push(Note::Put(document, entry.row.write()));
            }
        }
        due
    }

    /// A relay came.
    pub(super) fn came(&mut self, now: Now) {
        self.comings += 1;
        self.online(now, true);
    }

    /// A relay went, the last one or not.
    pub(super) fn went(&mut self, now: Now, is_last: bool) {
        self.online(now, !is_last);
    }

    fn online(&mut self, now: Now, is_online: bool) {
        self.now = now;
        self.is_online = is_online;
        self.tell();
    }

    /// A relay refused a change. Gives the row to be written, if that is news.
    pub(super) fn refused(
        &mut self,
        now: Now,
        document: &DocumentId,
        (hash, code, reason): (ChangeHash, RefuseCode, &str),
    ) -> Option<Note> {
        self.now = now;
        let comings = self.comings;
        let (row, at_ms) = self.change(document, |entry| {
            entry.refused_at = comings;
            let at_ms = entry.goes_at_ms.take();
            if entry.row.since_ms == 0 {
                entry.row.since_ms = now.wall_ms.max(1);
            }
            let refused = &mut entry.row.refused;
            if let Some(known) = refused.iter_mut().find(|known| known.hash == hash.0) {
                // Written with the next that is news: a write for each connection is not worth it.
                known.again(now.wall_ms);
                return (None, at_ms);
            }
            if refused.len() >= REFUSED_MAX {
                return (None, at_ms);
            }
            let mut news = RowRefused::new(hash, code, reason, now.wall_ms);
            let sent_again = &mut entry.row.sent_again;
            if let Some(at) = sent_again.iter().position(|before| before.hash == hash.0) {
                news.follows(&sent_again.remove(at));
            }
            refused.push(news);
            entry.is_noted = true;
            (Some(entry.row.write()), at_ms)
        });
        self.stays(document, at_ms);
        Some(Note::Put(document.clone(), row?))
    }

    /// What was refused of a document is to be sent once more. Gives its row.
    pub(super) fn retried(&mut self, document: &DocumentId) -> Option<Note> {
        self.entries.get(document).filter(|entry| !entry.row.refused.is_empty())?;
        let row = self.change(document, |entry| {
            let Row { refused, sent_again, .. } = &mut entry.row;
            sent_again.append(refused);
            entry.row.write()
        });
        Some(Note::Put(document.clone(), row))
    }

    /// Somebody takes a refused change out of a document, and with it what was refused because it
    /// built on it. Gives the row, and what was said of the change; `None`: it was not refused, or
    /// [`LETTERS_MAX`] are kept.
    pub(super) fn discarded(
        &mut self,
        now: Now,
        document: &DocumentId,
        hash: ChangeHash,
        gone: &BTreeSet<ChangeHash>,
        who: &str,
    ) -> Option<(Note, RowRefused)> {
        let entry = self.entries.get(document)?;
        let refused = entry.row.refused.iter().find(|refused| refused.hash == hash.0)?.clone();
        if entry.row.letters.len() >= LETTERS_MAX {
            return None;
        }
        let row = self.change(document, |entry| {
            let Row { refused: open, letters, sent_again, .. } = &mut entry.row;
            let stays = |other: &RowRefused| {
                other.hash != hash.0 && !gone.contains(&ChangeHash(other.hash))
            };
            open.retain(stays);
            sent_again.retain(stays);
            letters.retain(|letter| letter.refused.hash != hash.0);
            letters.push(RowLetter {
                refused: refused.clone(),
                when_ms: now.wall_ms,
                who: who.to_owned(),
            });
            entry.is_noted = true;
            entry.row.write()
        });
        Some((Note::Put(document.clone(), row), refused))
    }

    /// It was not taken out after all. Gives the row.
    pub(super) fn not_discarded(
        &mut self,
        document: &DocumentId,
        hash: ChangeHash,
    ) -> Option<Note> {
        self.entries.get(document)?;
        let row = self.change(document, |entry| {
            let Row { refused, letters, .. } = &mut entry.row;
            if let Some(at) = letters.iter().position(|letter| letter.refused.hash == hash.0) {
                refused.push(letters.remove(at).refused);
            }
            entry.row.write()
        });
        Some(Note::Put(document.clone(), row))
    }

    /// A change that was taken out need not be kept any more. Gives the row.
    pub(super) fn forgotten(&mut self, document: &DocumentId, hash: ChangeHash) -> Option<Note> {
        let is_it = |letter: &RowLetter| letter.refused.hash == hash.0;
        self.entries.get(document).filter(|entry| entry.row.letters.iter().any(is_it))?;
        let (row, is_empty) = self.change(document, |entry| {
            entry.row.letters.retain(|letter| !is_it(letter));
            (entry.row.write(), entry.row.letters.is_empty() && entry.class().is_none())
        });
        if is_empty {
            self.entries.remove(document);
            return Some(Note::Delete(document.clone()));
        }
        Some(Note::Put(document.clone(), row))
    }

    /// The rows of documents of which something was refused.
    pub(super) fn letters(&self) -> Vec<(DocumentId, Row)> {
        let rows = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.row.letters.is_empty() || !entry.row.refused.is_empty());
        rows.map(|(document, entry)| (document.clone(), entry.row.clone())).collect()
    }

    /// A document cannot be read here, or can again.
    pub(super) fn failed(&mut self, document: &DocumentId, reason: Option<&str>) {
        if self.entries.contains_key(document) {
            self.change(document, |entry| entry.failed = reason.map(str::to_owned));
        }
    }

    /// The document is gone from this store. Gives its row's end.
    pub(super) fn forget(&mut self, document: &DocumentId) -> Option<Note> {
        let at_ms = self.entries.get(document)?.goes_at_ms;
        self.change(document, |entry| *entry = Entry::default());
        self.entries.remove(document);
        self.stays(document, at_ms);
        Some(Note::Delete(document.clone()))
    }

    /// Whether something of a document waits, or was refused.
    pub(super) fn has(&self, document: &DocumentId) -> bool {
        let has = |entry: &Entry| entry.class().is_some() || !entry.row.letters.is_empty();
        // Before all is known, anything may be in it.
        !self.is_complete || self.entries.get(document).is_some_and(has)
    }

    /// Whether what was there at the start is here.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// What is in it, by document.
    pub(super) fn list(&self) -> Vec<OutboxEntry> {
        let comings = self.is_online.then_some(self.comings);
        let entries = self.entries.iter().filter_map(|(document, entry)| {
            let state = entry.state(comings)?;
            let (document, since_ms) = (document.clone(), entry.row.since_ms);
            Some(OutboxEntry { document, since_ms, level: entry.row.level(), state })
        });
        entries.collect()
    }

    /// The documents in it and their levels, those first that have waited longest.
    pub(super) fn oldest_first(&self) -> Vec<(DocumentId, Level)> {
        let waiting = self.entries.iter().filter(|(_, entry)| entry.class().is_some());
        let mut waiting: Vec<_> =
            waiting.map(|(document, entry)| (entry.row.since_ms, document, entry)).collect();
        waiting.sort_unstable_by_key(|(since_ms, document, _)| (*since_ms, *document));
        let level =
            |(_, document, entry): (_, &DocumentId, &Entry)| (document.clone(), entry.row.level());
        waiting.into_iter().map(level).collect()
    }

    /// The level of a document, if it is in the outbox.
    pub(super) fn level(&self, document: &DocumentId) -> Option<Level> {
        let entry = self.entries.get(document)?;
        entry.class().map(|_| entry.row.level())
    }

    /// Some of those that were edited before this time, `wall_ms`, and are not confirmed.
    pub(super) fn waiting_since(&self, before_ms: u64, most: usize) -> Vec<DocumentId> {
        let is_old = |entry: &Entry| {
            matches!(entry.class(), Some(Class::Waiting(_))) && entry.row.since_ms < before_ms
        };
        let old = self.entries.iter().filter(|(_, entry)| is_old(entry));
        old.take(most).map(|(document, _)| document.clone()).collect()
    }

    /// Documents that a relay has not answered for, as far as is known, and their levels.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (&DocumentId, Level)> {
        let waiting = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.class(), Some(Class::Waiting(_))));
        waiting.map(|(document, entry)| (document, entry.row.level()))
    }

    /// The row of a document does not go after all.
    fn stays(&mut self, document: &DocumentId, at_ms: Option<u64>) {
        if let Some(at_ms) = at_ms {
            self.going.remove(&(at_ms, document.clone()));
        }
    }

    /// Changes an entry, and what it is counted as.
    fn change<T>(&mut self, document: &DocumentId, change: impl FnOnce(&mut Entry) -> T) -> T {
        let entry = match self.entries.get_mut(document) {
            Some(entry) => entry,
            None => self.entries.entry(document.clone()).or_default(),
        };
        let before = entry.class();
        let given = change(entry);
        let after = entry.class();
        if before != after {
            if let Some(class) = before {
                let count = self.count(class);
                *count = count.saturating_sub(1);
            }
            if let Some(class) = after {
                *self.count(class) += 1;
            }
            self.tell();
        }
        given
    }

    fn count(&mut self, class: Class) -> &mut usize {
        match class {
            Class::Waiting(level) => &mut self.waiting[usize::from(level.number() - 1)],
            Class::Refused => &mut self.refused,
            Class::Failed => &mut self.failed,
        }
    }

    fn tell(&self) {
        let waiting = self.waiting.iter().sum();
        let (pending, sending) = if self.is_online { (0, waiting) } else { (waiting, 0) };
        let counts = OutboxCounts {
            pending,
            sending,
            refused: self.refused,
            failed: self.failed,
            by_level: self.waiting,
            is_complete: self.is_complete,
        };
        let stands = (self.is_online, waiting > 0);
        let is_in_step = self.is_online && self.is_complete && waiting == 0;
        let board = &self.board;
        board.passes.send_if_modified(|passes| {
            if is_in_step {
                passes.in_step(self.now);
            }
            passes.stands(self.now, stands, || board.bytes()) || is_in_step
        });
        replace(&board.counts, counts);
    }
}

#[cfg(test)]
mod tests;
