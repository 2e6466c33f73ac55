//! Relays take only so many documents of one connection. What is open and what is in the outbox goes
//! first; of the other stored documents relays are told as long as there is room, and some room is
//! left for what is opened later, which relays are told to forget when it is shut. When it is used up
//! all the same and something is to be sent for which there is none, the connection is given up and
//! made anew: what was confirmed meanwhile takes no room then.
//!
//! No I/O here, and no relay: the core says what happened, and gives up what it is told to.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use crate::replica::ConnectionId;

/// Of the documents that a relay takes of a connection, one in so many is left for those that are
/// opened while it lasts.
const SPARE_PART: usize = 10;

/// Milliseconds that a connection lasts at least before it is given up for its room.
const LASTS_MS: u64 = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    connections: BTreeMap<ConnectionId, Of>,
}

#[derive(Debug)]
struct Of {
    came_ms: u64,
    /// Something is to be sent for which there is no room.
    is_short: bool,
    /// It has documents that a new connection would not begin with.
    has_slack: bool,
    /// Stored documents that its relay was not told of.
    left_out: usize,
}

impl Crowd {
    pub(super) fn came(&mut self, now_ms: u64, id: ConnectionId) {
        let of = Of { came_ms: now_ms, is_short: false, has_slack: false, left_out: 0 };
        self.connections.insert(id, of);
    }

    pub(super) fn went(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
    }

    /// How many documents a connection may have before stored ones are left out that nobody has open.
    pub(super) fn of_stored(documents_max: usize) -> usize {
        documents_max - documents_max / SPARE_PART
    }

    /// There was no room for something that is to be sent.
    pub(super) fn short(&mut self, id: ConnectionId) {
        if let Some(of) = self.connections.get_mut(&id) {
            of.is_short = true;
        }
    }

    /// A relay was told of a stored document that nobody has open.
    pub(super) fn told(&mut self, id: ConnectionId) {
        if let Some(of) = self.connections.get_mut(&id) {
            of.has_slack = true;
        }
    }

    /// A document that was open or in the outbox is neither any more.
    pub(super) fn freed(&mut self) {
        self.connections.values_mut().for_each(|of| of.has_slack = true);
    }

    /// A relay was not told of these.
    pub(super) fn left_out(&mut self, id: ConnectionId, documents: usize) {
        if let Some(of) = self.connections.get_mut(&id) {
            of.left_out += documents;
        }
    }

    /// The most that any relay was not told of.
    pub(super) fn most_left_out(&self) -> usize {
        self.connections.values().map(|of| of.left_out).max().unwrap_or_default()
    }

    /// A connection that is to be given up now. It is not named again.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<ConnectionId> {
        let gives_up = |of: &Of| of.gives_up_at().is_some_and(|at_ms| at_ms <= now_ms);
        let (id, of) = self.connections.iter_mut().find(|(_, of)| gives_up(of))?;
        of.is_short = false;
        of.has_slack = false;
        Some(*id)
    }

    /// When there is one, if nothing else happens.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        self.connections.values().filter_map(Of::gives_up_at).min()
    }
}

impl Of {
    fn gives_up_at(&self) -> Option<u64> {
        (self.is_short && self.has_slack).then(|| self.came_ms.saturating_add(LASTS_MS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_given_up_once_and_only_if_that_makes_room() {
        let (one, other) = (ConnectionId(1), ConnectionId(2));
        let mut crowd = Crowd::default();
        crowd.came(10, one);
        crowd.came(10, other);
        crowd.short(one);
        assert_eq!((crowd.wakes_at(), crowd.next(5_000)), (None, None), "all of it is open");
        crowd.told(one);
        assert_eq!(crowd.wakes_at(), Some(10 + LASTS_MS));
        assert_eq!(crowd.next(9 + LASTS_MS), None);
        assert_eq!(crowd.next(10 + LASTS_MS), Some(one));
        assert_eq!(crowd.next(10 + LASTS_MS), None);
        crowd.freed();
        crowd.short(other);
        crowd.went(other);
        assert_eq!((crowd.wakes_at(), crowd.next(5_000)), (None, None));
    }

    #[test]
    fn what_is_left_out_is_counted_where_it_is_most() {
        let (one, other) = (ConnectionId(1), ConnectionId(2));
        let mut crowd = Crowd::default();
        crowd.came(0, one);
        crowd.came(0, other);
        crowd.left_out(one, 5);
        crowd.left_out(other, 3);
        crowd.left_out(other, 3);
        assert_eq!(crowd.most_left_out(), 6);
        crowd.went(other);
        assert_eq!(crowd.most_left_out(), 5);
        assert_eq!((Crowd::of_stored(10_000), Crowd::of_stored(3)), (9_000, 3));
    }
}
