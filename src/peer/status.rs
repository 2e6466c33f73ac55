//! Where a peer stands with its relays.

use std::{collections::BTreeMap, sync::Mutex, time::SystemTime};

use tokio::sync::watch;

/// Whether a relay can be reached at the moment. Edits work all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// No relay is reached.
    Offline {
        /// Why, in words.
        reason: String,
        /// When it will be tried again; `None`: not before [`crate::peer::Peer::connect`].
        next_try: Option<SystemTime>,
    },
    /// A relay is being dialled.
    Connecting,
    /// At least one relay is speaking with us.
    Online {
        /// Its URL.
        relay: String,
    },
}

impl Status {
    /// Whether a relay is speaking with us.
    pub fn is_online(&self) -> bool {
        matches!(self, Self::Online { .. })
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Online { .. } => 3,
            Self::Connecting => 2,
            Self::Offline { next_try: Some(_), .. } => 1,
            Self::Offline { next_try: None, .. } => 0,
        }
    }
}

/// The status of every relay, and the best of them for all to see.
#[derive(Debug)]
pub(super) struct StatusBoard {
    relays: Mutex<BTreeMap<String, Status>>,
    best: watch::Sender<Status>,
}

impl Default for StatusBoard {
    fn default() -> Self {
        Self {
            relays: Mutex::default(),
            best: watch::Sender::new(Status::Offline {
                reason: "no relay is configured".into(),
                next_try: None,
            }),
        }
    }
}

impl StatusBoard {
    /// One relay's status changed.
    pub(super) fn set(&self, relay: &str, status: Status) {
        let mut relays = super::locked(&self.relays);
        relays.insert(relay.to_owned(), status);
        self.tell(&relays);
    }

    /// A relay is about to be dialled, if it is offline.
    pub(super) fn asked(&self, relay: &str) {
        let mut relays = super::locked(&self.relays);
        if let Some(status @ Status::Offline { .. }) = relays.get_mut(relay) {
            *status = Status::Connecting;
            self.tell(&relays);
        }
    }

    fn tell(&self, relays: &BTreeMap<String, Status>) {
        if let Some(best) = relays.values().max_by_key(|status| status.rank()) {
            let best = best.clone();
            self.best.send_if_modified(|now| {
                let changed = *now != best;
                *now = best;
                changed
            });
        }
    }

    /// Whether any relay was ever configured and is not given up.
    pub(super) fn may_come_online(&self) -> bool {
        super::locked(&self.relays).values().any(|status| status.rank() > 0)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Status> {
        self.best.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_relay_speaks_for_the_peer() {
        let board = StatusBoard::default();
        let seen = board.subscribe();
        assert!(!board.may_come_online());
        board.set("a", Status::Online { relay: "a".into() });
        let gone =
            Status::Offline { reason: "gone".into(), next_try: Some(SystemTime::UNIX_EPOCH) };
        board.set("b", gone.clone());
        assert!(seen.borrow().is_online());
        board.set("a", Status::Offline { reason: "forbidden".into(), next_try: None });
        assert_eq!(*seen.borrow(), gone);
        assert!(board.may_come_online());
    }
}
