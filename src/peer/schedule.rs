//! When documents of the outbox are given to relays, and in which order.
//!
//! What is edited rests until nobody has edited it for a moment. What is ready goes by its level,
//! and of one level in turn; but every [`OLDEST_EACH`]th place goes to whoever has waited longest, so
//! that nothing waits for ever behind what matters more. Only so many are on their way at once: what
//! is written meanwhile overtakes all that is not. A document that is on its way is not given again
//! before relays have answered; then it goes once more, if it was edited since.
//!
//! No I/O here, and no relay: the core says what happened, and gives what it is told to.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use concord_protocol::DocumentId;

use crate::entity::Level;

/// Documents on their way at once: a round trip with a frame or two of small changes. Their bytes
/// are bounded by the room of the connection.
pub(super) const FLYING_MAX: usize = 256;

/// Of so many places that get free, one goes to the document that has waited longest.
pub(super) const OLDEST_EACH: u64 = 8;

/// Milliseconds after which a document that relays do not confirm is not waited for any more.
pub(super) const ANSWER_MS: u64 = 10_000;

/// How long edits rest before they are sent: [`super::PeerBuilder::debounce`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Debounce {
    /// Milliseconds after the last edit.
    pub(super) after_ms: u64,
    /// Milliseconds after the first that was not sent.
    pub(super) at_most_ms: u64,
}

impl Debounce {
    /// A fifth of a second is a word; nobody who looks on waits longer than two.
    pub(super) const DEFAULT: Self = Self { after_ms: 200, at_most_ms: 2_000 };
    /// Everything is sent as it is made.
    pub(super) const NONE: Self = Self { after_ms: 0, at_most_ms: 0 };

    pub(super) fn new(after: Duration, at_most: Duration) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self { after_ms: millis(after), at_most_ms: millis(at_most.max(after)) }
    }
}

/// What is to be done about an edit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes at once.
    Now,
    /// It goes at once, and so does what rested of the document.
    NowWithTheRest,
    /// It waits for [`Schedule::next`].
    Later,
}

/// Where a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It was edited a moment ago.
    Resting { level: Level, due_ms: u64, last_ms: u64 },
    /// It may go.
    Ready { level: Level, turn: u64 },
    /// It went; edited since, it goes again when relays have answered.
    Flying { until_ms: u64, again: Option<Level> },
    /// It went, and a relay has said something of it, but not that it has all.
    Answered { until_ms: u64 },
}

/// See the module.
#[derive(Debug)]
pub(super) struct Schedule {
    debounce: Debounce,
    is_online: bool,
    places: BTreeMap<DocumentId, Place>,
    resting: BTreeSet<(u64, DocumentId)>,
    by_level: BTreeSet<(Level, u64, DocumentId)>,
    by_age: BTreeSet<(u64, DocumentId)>,
    flying: BTreeSet<(u64, DocumentId)>,
    next_turn: u64,
    picked: u64,
}

impl Schedule {
    pub(super) fn new(debounce: Debounce) -> Self {
        Self {
            debounce,
            is_online: false,
            places: BTreeMap::new(),
            resting: BTreeSet::new(),
            by_level: BTreeSet::new(),
            by_age: BTreeSet::new(),
            flying: BTreeSet::new(),
            next_turn: 0,
            picked: 0,
        }
    }

    /// A relay came, or the last one went: then nothing is on its way, and nobody waits. Gives the
    /// documents that waited.
    pub(super) fn online(&mut self, is_online: bool) -> Vec<DocumentId> {
        self.is_online = is_online;
        if is_online {
            return Vec::new();
        }
        let left = std::mem::replace(self, Self::new(self.debounce));
        let waits = |(document, place): (DocumentId, Place)| {
            let is_held = match place {
                Place::Resting { .. } | Place::Ready { .. } => true,
                Place::Flying { again, .. } => again.is_some(),
                Place::Answered { .. } => false,
            };
            is_held.then_some(document)
        };
        left.places.into_iter().filter_map(waits).collect()
    }

    /// A document was edited here.
    pub(super) fn edited(&mut self, now_ms: u64, document: &DocumentId, level: Level) -> Verdict {
        if !self.is_online {
            return Verdict::Now;
        }
        let place = self.places.get(document).copied();
        if level == Level::CRITICAL || self.debounce == Debounce::NONE {
            return match place {
                None | Some(Place::Flying { again: None, .. } | Place::Answered { .. }) => {
                    Verdict::Now
                }
                Some(_) => {
                    self.fly(now_ms, document);
                    Verdict::NowWithTheRest
                }
            };
        }
        let due_ms = now_ms.saturating_add(self.debounce.after_ms);
        let place = match place {
            None | Some(Place::Answered { .. }) => {
                let last_ms = now_ms.saturating_add(self.debounce.at_most_ms);
                Place::Resting { level, due_ms: due_ms.min(last_ms), last_ms }
            }
            Some(Place::Resting { level: known, last_ms, .. }) => {
                Place::Resting { level: level.min(known), due_ms: due_ms.min(last_ms), last_ms }
            }
            Some(Place::Ready { level: known, turn }) => {
                Place::Ready { level: level.min(known), turn }
            }
            Some(Place::Flying { until_ms, again }) => {
                let again = again.map_or(level, |known| known.min(level));
                Place::Flying { until_ms, again: Some(again) }
            }
        };
        self.put(document, Some(place));
        Verdict::Later
    }

    /// A document of the outbox is to be given to relays that came, or once more.
    pub(super) fn offer(&mut self, document: &DocumentId, level: Level) {
        if !self.is_online {
            return;
        }
        let place = match self.places.get(document).copied() {
            Some(Place::Flying { until_ms, again }) => {
                let again = again.map_or(level, |known| known.min(level));
                Place::Flying { until_ms, again: Some(again) }
            }
            Some(Place::Ready { level: known, turn }) => {
                Place::Ready { level: level.min(known), turn }
            }
            Some(Place::Resting { level: known, .. }) => self.ready(level.min(known)),
            None | Some(Place::Answered { .. }) => self.ready(level),
        };
        self.put(document, Some(place));
    }

    /// All that rests need not any more.
    pub(super) fn hurry(&mut self) {
        let resting: Vec<DocumentId> =
            self.resting.iter().map(|(_, document)| document.clone()).collect();
        for document in resting {
            self.rested(&document);
        }
    }

    /// A relay said something of a document.
    pub(super) fn heard(&mut self, document: &DocumentId) {
        let Some(Place::Flying { until_ms, again }) = self.places.get(document).copied() else {
            return;
        };
        // What is edited after this does not wait for an answer that was given before.
        let place = again.map_or(Place::Answered { until_ms }, |level| self.ready(level));
        self.put(document, Some(place));
    }

    /// Relays have all of a document, or will not: it was refused, or cannot be read here.
    pub(super) fn done(&mut self, document: &DocumentId) {
        match self.places.get(document) {
            Some(Place::Flying { again: None, .. } | Place::Answered { .. }) => {
                self.put(document, None);
            }
            _ => self.heard(document),
        }
    }

    /// The document is gone.
    pub(super) fn forget(&mut self, document: &DocumentId) {
        self.put(document, None);
    }

    /// The document that is to be given now.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<DocumentId> {
        while let Some((due_ms, document)) = self.resting.first().cloned()
            && due_ms <= now_ms
        {
            self.rested(&document);
        }
        while let Some((until_ms, document)) = self.flying.first().cloned()
            && until_ms <= now_ms
        {
            self.done(&document);
        }
        if self.flying.len() >= FLYING_MAX {
            return None;
        }
        let first = self.by_level.first().map(|(.., document)| document);
        let oldest = self.by_age.first().map(|(_, document)| document);
        let is_for_oldest = (self.picked + 1).is_multiple_of(OLDEST_EACH);
        let document = if is_for_oldest { oldest } else { first }?.clone();
        self.picked += 1;
        self.fly(now_ms, &document);
        Some(document)
    }

    /// When [`Schedule::next`] may have something to give that it has not now, `mono_ms`.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        let firsts = [self.resting.first(), self.flying.first()];
        firsts.into_iter().flatten().map(|(at_ms, _)| *at_ms).min()
    }

    /// Whether no document waits for its turn.
    pub(super) fn is_idle(&self) -> bool {
        self.by_age.is_empty()
    }

    /// Whether the document waits, or is on its way.
    pub(super) fn knows(&self, document: &DocumentId) -> bool {
        self.places.contains_key(document)
    }

    /// The documents that are on their way.
    pub(super) fn flying(&self) -> impl Iterator<Item = &DocumentId> {
        self.flying.iter().map(|(_, document)| document)
    }

    fn rested(&mut self, document: &DocumentId) {
        if let Some(Place::Resting { level, .. }) = self.places.get(document) {
            let place = self.ready(*level);
            self.put(document, Some(place));
        }
    }

    fn ready(&mut self, level: Level) -> Place {
        self.next_turn += 1;
        Place::Ready { level, turn: self.next_turn }
    }

    fn fly(&mut self, now_ms: u64, document: &DocumentId) {
        let until_ms = now_ms.saturating_add(ANSWER_MS);
        self.put(document, Some(Place::Flying { until_ms, again: None }));
    }

    /// Puts a document into a place, or out of all of them.
    fn put(&mut self, document: &DocumentId, place: Option<Place>) {
        let before = match place {
            Some(place) => self.places.insert(document.clone(), place),
            None => self.places.remove(document),
        };
        match before {
            None => {}
            Some(Place::Resting { due_ms, .. }) => {
                self.resting.remove(&(due_ms, document.clone()));
            }
            Some(Place::Ready { level, turn }) => {
                self.by_level.remove(&(level, turn, document.clone()));
                self.by_age.remove(&(turn, document.clone()));
            }
            Some(Place::Flying { until_ms, .. } | Place::Answered { until_ms }) => {
                self.flying.remove(&(until_ms, document.clone()));
            }
        }
        match place {
            None => {}
            Some(Place::Resting { due_ms, .. }) => {
                self.resting.insert((due_ms, document.clone()));
            }
            Some(Place::Ready { level, turn }) => {
                self.by_level.insert((level, turn, document.clone()));
                self.by_age.insert((turn, document.clone()));
            }
            Some(Place::Flying { until_ms, .. } | Place::Answered { until_ms }) => {
                self.flying.insert((until_ms, document.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
