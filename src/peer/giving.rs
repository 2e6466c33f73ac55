//! Giving documents to relays: what the core does of the [`schedule`](super::schedule), and when.
//!
//! A document that waits is held in the replica, which then says nothing of it. What is in the outbox
//! goes first, in its order; once nothing of it waits, relays are told of all other documents.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use concord_protocol::DocumentId;

use super::{
    core::{Action, Core},
    replace,
    schedule::{FLYING_MAX, Verdict},
};
use crate::{
    entity::Level,
    replica::{ConnectionId, Event},
};

/// Milliseconds between two passes over what relays do not answer for.
const PASS_MS: u64 = 30_000;

impl Core {
    /// A document is about to be changed here.
    pub(super) fn rest(&mut self, document: &DocumentId, level: Level) {
        match self.schedule.edited(self.now.mono_ms, document, level) {
            Verdict::Now => {}
            Verdict::NowWithTheRest => {
                self.sync_again(document);
                self.handle(Event::Release(document.clone()));
            }
            Verdict::Later => self.handle(Event::Hold(document.clone())),
        }
    }

    /// Gives relays what is to be given now; whether there was something.
    pub(super) fn give(&mut self) -> bool {
        if self.connections.is_empty() {
            return false;
        }
        let now_ms = self.now.mono_ms;
        if self.passes_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.pass();
            self.resend();
        }
        let mut has_given = false;
        while let Some(document) = self.schedule.next(now_ms) {
            has_given = true;
            self.sync_again(&document);
            if !self.connections.keys().any(|id| self.replica.has_room(*id, &document)) {
                // It is offered again by the connection that comes next.
                self.schedule.forget(&document);
            }
            self.handle(Event::Release(document));
        }
        if self.is_settled()
            && let Some(id) = self.crowd.next(now_ms)
        {
            tracing::debug!(%id, "a connection is full: what waits goes over another");
            self.push(Action::Renew(id));
            return true;
        }
        if self.schedule.is_idle() && self.outbox.is_complete() {
            for id in std::mem::take(&mut self.untold) {
                self.tell_of_preferred(id);
                self.list(id, None);
                has_given = true;
            }
        }
        has_given
    }

    /// When there is something to give, or to look for, `mono_ms`.
    pub(super) fn gives_at(&self) -> Option<u64> {
        let crowd = self.crowd.wakes_at().filter(|_| self.is_settled());
        self.schedule.wakes_at().into_iter().chain(self.passes_at_ms).chain(crowd).min()
    }

    /// Whether nothing is on its way to a relay, or waits for its answer.
    fn is_settled(&self) -> bool {
        self.is_sent() && self.schedule.flying().next().is_none()
    }

    /// Where there is no room for a document that is to be sent, some is to be made.
    pub(super) fn find_room(&mut self, document: &DocumentId) {
        for id in self.connections.keys() {
            if !self.replica.has_room(*id, document) {
                self.crowd.short(*id);
            }
        }
    }

    fn tell_of_preferred(&mut self, id: ConnectionId) {
        let preferred = self.board.preferred.borrow().clone();
        for document in preferred.into_iter().take(self.stored_max) {
            self.handle(Event::SyncWith(id, document));
        }
    }

    /// Has relays that were told of more than the stored documents say nothing more of this one, if
    /// it is neither open nor waits: there is room for another then.
    pub(super) fn let_be(&mut self, document: &DocumentId) {
        let is_full = |id: &&ConnectionId| self.replica.documents_of(**id) > self.stored_max;
        let full: Vec<_> = self.connections.keys().filter(is_full).copied().collect();
        if full.is_empty()
            || self.find(document).is_some()
            || self.outbox.has(document)
            || self.board.preferred.borrow().contains(document)
        {
            return;
        }
        for id in full {
            self.handle(Event::Unsubscribe(id, document.clone()));
        }
    }

    /// A relay is not told of a stored document.
    pub(super) fn left_out(&mut self, id: ConnectionId, documents: usize) {
        self.crowd.left_out(id, documents);
        self.tell_left_out();
    }

    fn tell_left_out(&self) {
        let left_out = self.crowd.most_left_out();
        replace(&self.board.left_out, left_out);
    }

    /// Gives what rests, and what relays do not answer for.
    pub(super) fn sync_now(&mut self) {
        self.schedule.hurry();
        self.pass();
    }

    /// A relay came.
    pub(super) fn came(&mut self, id: ConnectionId) {
        self.schedule.online(true);
        self.crowd.came(self.now.mono_ms, id);
        self.passes_at_ms.get_or_insert(self.now.mono_ms.saturating_add(PASS_MS));
        // Another relay is not answered for by one that was there before, and may be silent.
        self.wait_no_more();
        let flying: Vec<_> = self.schedule.flying().cloned().collect();
        for document in flying {
            self.sync_with(id, &document);
        }
        for (document, level) in self.outbox.oldest_first() {
            if self.schedule.knows(&document) {
                continue;
            }
            self.schedule.offer(&document, level);
        }
        self.untold.insert(id);
    }

    /// A relay went.
    pub(super) fn went(&mut self, id: ConnectionId) {
        self.untold.remove(&id);
        self.crowd.went(id);
        self.tell_left_out();
        if self.connections.is_empty() {
            self.passes_at_ms = None;
            for document in self.schedule.online(false) {
                self.handle(Event::Release(document));
            }
        } else {
            self.wait_no_more();
        }
    }

    /// What was edited while it was on its way goes now, whoever was to answer before.
    fn wait_no_more(&mut self) {
        let flying: Vec<_> = self.schedule.flying().cloned().collect();
        for document in flying {
            self.schedule.heard(&document);
        }
    }

    /// Offers once more what waits and is not on its way.
    fn pass(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        self.passes_at_ms = Some(self.now.mono_ms.saturating_add(PASS_MS));
        let unanswered: Vec<_> = self
            .outbox
            .waiting()
            .filter(|(document, _)| !self.schedule.knows(document))
            .map(|(document, level)| (document.clone(), level))
            .collect();
        for (document, level) in unanswered {
            self.schedule.offer(&document, level);
        }
    }

    /// Begins again with documents that relays should have confirmed long ago: what they were sent was
    /// lost, or what they said of it. Not while something is on its way, which may be just that.
    fn resend(&mut self) {
        let is_quiet = self.schedule.is_idle() && self.is_sent();
        // Others than our relays are asked by the replica, in a form that they answer.
        if !is_quiet || self.connections.values().any(|concord| !concord) {
            return;
        }
        let before_ms = self.now.wall_ms.saturating_sub(PASS_MS);
        for document in self.outbox.waiting_since(before_ms, FLYING_MAX) {
            self.handle(Event::Resend(document));
        }
    }

    /// The document is gone from this store.
    pub(super) fn give_up(&mut self, document: &DocumentId) {
        self.schedule.forget(document);
        self.handle(Event::Release(document.clone()));
    }
}
