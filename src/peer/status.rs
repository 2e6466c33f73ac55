//! Where a peer stands with its relays.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use tokio::sync::watch;

use super::{
    dialer::Breaker,
    relays::{RelayKey, Relays, Standing},
    replace,
};

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
        /// Its URL; of several, that of the preferred one.
        relay: String,
    },
}

impl Status {
    /// Whether a relay is speaking with us.
    pub fn is_online(&self) -> bool {
        matches!(self, Self::Online { .. })
    }

    /// What is said of relays, the preferred first.
    fn of(relays: &[RelayStatus]) -> Self {
        let online = |is_in_use: bool| {
            let here = |relay: &&RelayStatus| {
                relay.state == RelayState::Online && (relay.in_use || !is_in_use)
            };
            relays.iter().find(here)
        };
        if let Some(relay) = online(true).or_else(|| online(false)) {
            return Self::Online { relay: relay.url.clone() };
        }
        let is_coming = |relay: &RelayStatus| {
            matches!(relay.state, RelayState::Connecting | RelayState::Standby)
        };
        if relays.iter().any(is_coming) {
            return Self::Connecting;
        }
        let waits = relays.iter().find_map(|relay| match &relay.state {
            RelayState::Offline { reason, next_try } => {
                Some(Self::Offline { reason: reason.clone(), next_try: Some(*next_try) })
            }
            _ => None,
        });
        let stopped = || {
            relays.iter().find_map(|relay| match &relay.state {
                RelayState::Stopped { reason } => {
                    Some(Self::Offline { reason: reason.clone(), next_try: None })
                }
                _ => None,
            })
        };
        waits.or_else(stopped).unwrap_or_else(|| Self::Offline {
            reason: "no relay is configured".into(),
            next_try: None,
        })
    }
}

/// What is known of one relay: see [`crate::peer::Peer::relays`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayStatus {
    /// Its URL.
    pub url: String,
    /// As configured: a lower number is preferred.
    pub priority: u32,
    /// Where it stands.
    pub state: RelayState,
    /// Since when, by the wall clock.
    pub since: SystemTime,
    /// Whether documents go over it, and nothing is wrong with it.
    pub in_use: bool,
    /// Its circuit breaker.
    pub breaker: Breaker,
    /// The smoothed round trip of a ping; `None` before the first.
    pub latency: Option<Duration>,
    /// Bytes sent to it since the peer was opened, with all that a connection costs.
    pub sent_bytes: u64,
    /// Bytes received from it.
    pub received_bytes: u64,
}

/// Where a relay stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayState {
    /// It is connected.
    Online,
    /// It is being dialled.
    Connecting,
    /// It is not needed now. It is checked now and then.
    Standby,
    /// It cannot be reached, or asked for patience.
    Offline {
        /// Why, in words.
        reason: String,
        /// Before this it is not tried again.
        next_try: SystemTime,
    },
    /// It refused us for good: not before [`crate::peer::Peer::connect`].
    Stopped {
        /// Why, in words.
        reason: String,
    },
}

/// The status of every relay, and the one line that is made of it, for all to see.
#[derive(Debug)]
pub(super) struct StatusBoard {
    relays: watch::Sender<Vec<RelayStatus>>,
    best: watch::Sender<Status>,
    /// Where each stood when it was shown last, and the times that were shown.
    shown: BTreeMap<RelayKey, (Standing, SystemTime, SystemTime)>,
}

impl Default for StatusBoard {
    fn default() -> Self {
        let best = watch::Sender::new(Status::of(&[]));
        Self { relays: watch::Sender::default(), best, shown: BTreeMap::new() }
    }
}

impl StatusBoard {
    /// Shows where relays stand at this time of theirs; `about` gives the URL of each, and the bytes
    /// sent and received.
    pub(super) fn show<'a>(
        &mut self,
        relays: &Relays,
        now_ms: u64,
        about: impl Fn(RelayKey) -> (&'a str, u64, u64),
    ) {
        let keys = relays.in_order();
        let statuses: Vec<_> = keys
            .into_iter()
            .map(|key| {
                let (url, sent_bytes, received_bytes) = about(key);
                let (state, since) = self.state(relays, now_ms, key);
                RelayStatus {
                    url: url.to_owned(),
                    priority: relays.priority(key),
                    state,
                    since,
                    in_use: relays.is_good(key),
                    breaker: relays.breaker(now_ms, key),
                    latency: relays.latency(key),
                    sent_bytes,
                    received_bytes,
                }
            })
            .collect();
        replace(&self.best, Status::of(&statuses));
        replace(&self.relays, statuses);
    }

    fn state(&mut self, relays: &Relays, now_ms: u64, key: RelayKey) -> (RelayState, SystemTime) {
        let standing = relays.standing(key);
        let shown = self.shown.get(&key).filter(|(before, ..)| *before == standing);
        let (since, next_try) = shown.map_or_else(
            || {
                let now = SystemTime::now();
                let wait_ms = match &standing {
                    Standing::Offline { until_ms, .. } => until_ms.saturating_sub(now_ms),
                    _ => 0,
                };
                (now, now.checked_add(Duration::from_millis(wait_ms)).unwrap_or(now))
            },
            |(_, since, next_try)| (*since, *next_try),
        );
        let state = match standing.clone() {
            Standing::Online => RelayState::Online,
            Standing::Connecting => RelayState::Connecting,
            Standing::Standby => RelayState::Standby,
            Standing::Offline { reason, .. } => RelayState::Offline { reason, next_try },
            Standing::Stopped { reason } => RelayState::Stopped { reason },
        };
        self.shown.insert(key, (standing, since, next_try));
        (state, since)
    }

    /// Whether any relay was ever configured and is not given up.
    pub(super) fn may_come_online(&self) -> bool {
        let is_given_up = |relay: &RelayStatus| matches!(relay.state, RelayState::Stopped { .. });
        self.relays.borrow().iter().any(|relay| !is_given_up(relay))
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Status> {
        self.best.subscribe()
    }

    pub(super) fn subscribe_relays(&self) -> watch::Receiver<Vec<RelayStatus>> {
        self.relays.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::dialer::Ended;

    fn show(board: &mut StatusBoard, relays: &Relays) {
        board.show(relays, 0, |key| (if key.0 == 0 { "a" } else { "b" }, 0, 0));
    }

    #[test]
    fn the_best_relay_speaks_for_the_peer() {
        let mut board = StatusBoard::default();
        let seen = board.subscribe();
        let mut relays = Relays::new(1);
        show(&mut board, &relays);
        assert!(!board.may_come_online());
        assert!(matches!(&*seen.borrow(), Status::Offline { next_try: None, .. }));
        let (a, b) = (relays.add(0), relays.add(1));
        relays.decide(0);
        show(&mut board, &relays);
        assert_eq!(*seen.borrow(), Status::Connecting);
        relays.opened(0, a);
        show(&mut board, &relays);
        assert_eq!(*seen.borrow(), Status::Online { relay: "a".into() });
        // Under suspicion it speaks for us until another does.
        relays.silent(a, true);
        relays.decide(0);
        show(&mut board, &relays);
        assert_eq!(*seen.borrow(), Status::Online { relay: "a".into() });
        relays.opened(0, b);
        relays.decide(0);
        show(&mut board, &relays);
        assert_eq!(*seen.borrow(), Status::Online { relay: "b".into() });
        relays.left(0, a, 0);
        relays.ended(0, a, Ended::permanent("forbidden"), 0);
        relays.ended(0, b, Ended::transient("gone"), 7);
        show(&mut board, &relays);
        let Status::Offline { reason, next_try: Some(_) } = seen.borrow().clone() else {
            panic!("{:?}", seen.borrow());
        };
        assert_eq!(reason, "gone");
        assert!(board.may_come_online());
        relays.ended(0, b, Ended::permanent("forbidden"), 0);
        show(&mut board, &relays);
        assert!(matches!(&*seen.borrow(), Status::Offline { next_try: None, .. }));
        assert!(!board.may_come_online());
    }

    #[test]
    fn who_watches_is_told_of_what_is_different_and_not_of_time_that_passes() {
        let mut board = StatusBoard::default();
        let mut seen = board.subscribe_relays();
        let mut relays = Relays::new(1);
        let a = relays.add(0);
        relays.ended(0, a, Ended::transient("gone"), 400);
        board.show(&relays, 0, |_| ("a", 0, 0));
        let before = seen.borrow_and_update().clone();
        board.show(&relays, 300, |_| ("a", 0, 0));
        assert!(!seen.has_changed().unwrap());
        board.show(&relays, 300, |_| ("a", 1, 0));
        assert!(seen.has_changed().unwrap());
        assert_eq!(seen.borrow()[0].since, before[0].since);
    }
}
