//! Streams of events of a relay, over the connection that is there; and which connection that is.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use concord_protocol::{Answer as Answered, StorageId};
use tokio::sync::mpsc;

use crate::replica::ConnectionId;

/// Events that wait to be heard; whoever lets more gather hears no more, and asks anew.
pub(super) const EVENTS_MAX: usize = 64;

/// The relay that answers calls: see [`Peer::call`](super::Peer::call).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partner {
    pub(super) connection: ConnectionId,
    /// Its store, by which it is known again.
    pub(super) store: Option<StorageId>,
}

/// The relays that answer calls, of those that are connected.
#[derive(Debug, Default)]
pub(super) struct Partners(BTreeMap<ConnectionId, Option<StorageId>>);

impl Partners {
    pub(super) fn came(&mut self, connection: ConnectionId, store: Option<StorageId>) {
        self.0.insert(connection, store);
    }

    pub(super) fn went(&mut self, connection: ConnectionId) {
        self.0.remove(&connection);
    }

    /// The one that came last: those before it may be about to be left.
    pub(super) fn last(&self) -> Option<Partner> {
        let (connection, store) = self.0.last_key_value()?;
        Some(Partner { connection: *connection, store: store.clone() })
    }
}

/// Streams that somebody here listens to.
#[derive(Debug, Default)]
pub(super) struct Streams(BTreeMap<u32, (ConnectionId, mpsc::Sender<String>)>);

impl Streams {
    /// A stream was asked for over this connection. Its data is told until it ends, which whoever
    /// hears knows by hearing nothing more.
    pub(super) fn began(&mut self, id: u32, over: ConnectionId, heard: mpsc::Sender<String>) {
        self.0.insert(id, (over, heard));
    }

    /// A relay answered; whether that was to one of these.
    pub(super) fn answered(&mut self, over: ConnectionId, answer: &Answered) -> bool {
        let is_ours = self.0.get(&answer.id).is_some_and(|(asked, _)| *asked == over);
        if is_ours && !(200..300).contains(&answer.status) {
            self.0.remove(&answer.id);
        }
        is_ours
    }

    /// An event came. Whether somebody listens.
    pub(super) fn told(&mut self, over: ConnectionId, id: u32, data: String) -> bool {
        let Some((asked, heard)) = self.0.get(&id) else { return false };
        let goes_on = *asked == over && heard.try_send(data).is_ok();
        if *asked == over && !goes_on {
            self.0.remove(&id);
        }
        goes_on
    }

    /// There is no more of it.
    pub(super) fn ended(&mut self, over: ConnectionId, id: u32) {
        self.0.retain(|known, (asked, _)| *known != id || *asked != over);
    }

    /// Nobody listens any more. Gives who tells.
    pub(super) fn given_up(&mut self, id: u32) -> Option<ConnectionId> {
        self.0.remove(&id).map(|(asked, _)| asked)
    }

    /// Nothing more comes from there.
    pub(super) fn lost(&mut self, over: ConnectionId) {
        self.0.retain(|_, (asked, _)| *asked != over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_heard_from_whom_was_asked_until_nobody_hears() {
        let (mut streams, here, there) = (Streams::default(), ConnectionId(1), ConnectionId(2));
        let (heard, mut hears) = mpsc::channel(2);
        streams.began(7, here, heard);
        let answer = |status| Answered { id: 7, status, ..Answered::default() };
        assert!(!streams.answered(there, &answer(404)) && streams.answered(here, &answer(200)));
        assert!(!streams.told(there, 7, "no".to_owned()));
        assert!(streams.told(here, 7, "one".to_owned()) && streams.told(here, 7, "two".to_owned()));
        assert!(!streams.told(here, 7, "three".to_owned()), "nobody takes them");
        assert_eq!(hears.try_recv().as_deref(), Ok("one"));
        assert_eq!(hears.try_recv().as_deref(), Ok("two"));
        assert_eq!(hears.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
        assert_eq!(streams.given_up(7), None);

        let (heard, mut hears) = mpsc::channel(2);
        streams.began(8, here, heard.clone());
        streams.began(9, there, heard);
        streams.lost(here);
        streams.ended(here, 9);
        assert_eq!(streams.given_up(9), Some(there));
        assert_eq!(hears.try_recv(), Err(mpsc::error::TryRecvError::Disconnected));
    }

    #[test]
    fn the_relay_that_came_last_is_asked() {
        let mut partners = Partners::default();
        assert_eq!(partners.last(), None);
        partners.came(ConnectionId(1), None);
        partners.came(ConnectionId(2), "two".parse().ok());
        assert_eq!(partners.last().map(|last| last.connection), Some(ConnectionId(2)));
        partners.went(ConnectionId(2));
        assert_eq!(partners.last().map(|last| last.connection), Some(ConnectionId(1)));
    }
}
