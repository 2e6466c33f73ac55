//! Documents that are deleted and expire: each is looked at when its time has come, and purged if
//! nothing keeps it.
//!
//! Nothing is purged while there is a document that the relay has not looked at, or could not: it
//! may refer to what is deleted. What is kept by something is tried again later.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use concord_protocol::{ChangeHash, DocumentId};

use super::{Reviewer, State};
use crate::{relay::hub::Hub, replica::LocalError, review::Expires};

/// Milliseconds until it is tried again to purge what something keeps: as long as its type keeps
/// what is deleted, within these bounds.
const AGAIN_MS: (i64, i64) = (1_000, 3_600_000);

/// When which documents expire, in milliseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Expiries {
    of: BTreeMap<DocumentId, Due>,
    order: BTreeSet<(i64, DocumentId)>,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    at_ms: i64,
    after_ms: i64,
}

impl Expiries {
    fn set(&mut self, document: &DocumentId, due: Option<Due>) {
        if let Some(before) = self.of.remove(document) {
            self.order.remove(&(before.at_ms, document.clone()));
        }
        if let Some(due) = due {
            self.order.insert((due.at_ms, document.clone()));
            self.of.insert(document.clone(), due);
        }
    }

    fn put_off(&mut self, document: &DocumentId, after_ms: i64, now_ms: i64) {
        let at_ms = now_ms.saturating_add(after_ms.clamp(AGAIN_MS.0, AGAIN_MS.1));
        self.set(document, Some(Due { at_ms, after_ms }));
    }

    fn take_due(&mut self, now_ms: i64) -> Option<(DocumentId, Due)> {
        let (_, document) = self.order.first().filter(|(at_ms, _)| *at_ms <= now_ms)?;
        let document = document.clone();
        let due = self.of.get(&document).copied()?;
        self.set(&document, None);
        Some((document, due))
    }
}

impl State {
    /// Whether something keeps a deleted document: what is not decided in it, what is alive and
    /// refers to it, or a document of which that is not known.
    fn is_kept(&self, document: &DocumentId) -> bool {
        let is_dismissed =
            |id: &_| self.standings.of(id).is_some_and(|standing| standing.dismissed);
        !self.is_looked_through
            || !self.index.failures(1).is_empty()
            || self.index.has_undecided(document, is_dismissed)
            || self.between.keeps(document)
    }

    /// Has those looked at that expire now, unless something keeps them.
    pub(super) fn expire(&mut self, now_ms: i64, now: Instant) {
        while let Some((document, due)) = self.expiries.take_due(now_ms) {
            if self.is_kept(&document) {
                self.expiries.put_off(&document, due.after_ms, now_ms);
            } else {
                self.queue.unknown(&document, now);
            }
        }
    }

    /// How long it is until a document expires.
    pub(super) fn next_expiry(&self, now_ms: i64) -> Option<Duration> {
        let (at_ms, _) = self.expiries.order.first()?;
        Some(Duration::from_millis(u64::try_from(at_ms.saturating_sub(now_ms)).unwrap_or(0)))
    }

    /// Nothing is left of a document.
    fn note_purged(&mut self, document: &DocumentId) {
        self.expiries.set(document, None);
        self.references.set(document, Vec::new());
        self.bulks.update(document, Vec::new());
        self.past.news(document, None);
    }
}

impl Reviewer {
    /// A document was looked at and expires then, or does not. Purges it if it is time.
    pub(super) async fn consider_purge(
        &self,
        hub: &Hub,
        document: &DocumentId,
        expires: Option<Expires>,
    ) {
        let now_ms = self.clock.now_ms();
        let heads = {
            let mut state = self.state();
            let Some(Expires { at_ms, after_ms, heads }) = expires else {
                return state.expiries.set(document, None);
            };
            if at_ms > now_ms {
                return state.expiries.set(document, Some(Due { at_ms, after_ms }));
            }
            // Should something come in between.
            state.expiries.put_off(document, after_ms, now_ms);
            if state.is_kept(document) {
                return;
            }
            heads
        };
        let heads = heads.into_iter().map(ChangeHash).collect();
        match hub.shards.purge(document, heads).await {
            Some(Ok(())) => {
                tracing::info!(%document, "purged, for it was deleted long enough ago");
                let changes = {
                    let mut state = self.state();
                    state.note_purged(document);
                    state.note(document, Vec::new(), 0, None).0
                };
                for change in changes {
                    self.tell(change);
                }
            }
            Some(Err(LocalError::NotPurged(reason))) => {
                tracing::debug!(%document, reason, "not purged yet");
            }
            Some(Err(error)) => self.failed(document, &error.to_string()),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_document_expires_once_in_order() {
        let document = |n| DocumentId::from_bytes(&[n; 16]);
        let mut expiries = Expiries::default();
        let due = |at_ms| Some(Due { at_ms, after_ms: 10 });
        expiries.set(&document(1), due(300));
        expiries.set(&document(2), due(200));
        expiries.set(&document(1), due(100));
        expiries.set(&document(3), due(150));
        expiries.set(&document(3), None);
        assert!(expiries.take_due(99).is_none());
        let mut taken = |now_ms| expiries.take_due(now_ms).map(|(document, _)| document);
        assert_eq!((taken(250), taken(250)), (Some(document(1)), Some(document(2))));
        assert_eq!(taken(i64::MAX), None);
        expiries.put_off(&document(1), 10, 1_000);
        expiries.put_off(&document(2), i64::MAX, 1_000);
        assert_eq!(expiries.of[&document(1)].at_ms, 2_000, "not at once");
        assert_eq!(expiries.of[&document(2)].at_ms, 3_601_000, "nor in years");
    }
}
