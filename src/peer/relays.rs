//! Which of several relays are connected: no sockets, no clock.
//!
//! As many as asked for are connected, of those that work the preferred ones: by priority, then by
//! how fast they answer, then as they were configured. The others are checked now and then. A relay
//! that falls silent or goes away is left once another stands in its place, and a preferred one is
//! returned to once it has been well for a while; nobody is left before the next is there.
//!
//! Any number of calls, then [`Relays::decide`], then [`Relays::poll`] until `None`.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod moves;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Duration};

use self::moves::Move;
use super::{
    dialer::{Breaker, Dialer, Ended, State},
    latency::Latency,
};

/// Milliseconds that an attempt may take before the next relay is dialled beside it.
pub(super) const STAGGER_MS: u64 = 1_000;
/// Milliseconds in use after which an end does not count as flapping.
const LASTED_MS: u64 = 600_000;

/// One of the relays, by the order in which they were configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RelayKey(pub(super) usize);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Connect to it. Answered by [`Relays::opened`] or [`Relays::ended`].
    Dial(RelayKey),
    /// See whether it answers. Answered by [`Relays::checked`] or [`Relays::check_failed`].
    Check(RelayKey),
    /// End the connection or the attempt. Answered by [`Relays::ended`] or [`Relays::left`].
    Leave(RelayKey),
}

/// What is wrong with a connection that is there still.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// It owes an answer.
    Silent,
    /// It said that it is going away, for so many milliseconds.
    Going(u64),
}

/// What is under way with a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Idle,
    Dialling { since_ms: u64 },
    Up { since_ms: u64, trouble: Option<Trouble> },
    Leaving { because: Option<Trouble> },
}

/// See [`super::RelayState`], with times of the caller's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Online,
    Connecting,
    Standby,
    Offline { reason: String, until_ms: u64 },
    Stopped { reason: String },
}

#[derive(Debug)]
struct Relay {
    priority: u32,
    dialer: Dialer,
    latency: Latency,
    stage: Stage,
    is_checking: bool,
    /// When it was checked last, whatever came of it.
    checked_ms: Option<u64>,
    /// Since when, and by how many checks, it is clearly faster than one in use.
    faster: Option<(u64, u32)>,
    /// Times that it ended soon, in a row.
    flaps: u32,
}

impl Relay {
    fn is_good(&self) -> bool {
        matches!(self.stage, Stage::Up { trouble: None, .. })
    }

    fn is_up(&self) -> bool {
        matches!(self.stage, Stage::Up { .. })
    }

    fn may_be_dialled(&self) -> bool {
        self.stage == Stage::Idle && *self.dialer.state() == State::Ready
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Relays {
    all: Vec<Relay>,
    at_once: usize,
    orders: VecDeque<Order>,
    moving: Option<Move>,
    /// When a relay was left for a faster one.
    moved_ms: Option<u64>,
    wakes_at: Option<u64>,
    is_closing: bool,
}

impl Relays {
    /// None yet, of which so many are to be connected at the same time: one at least.
    pub(super) fn new(at_once: usize) -> Self {
        Self {
            all: Vec::new(),
            at_once: at_once.max(1),
            orders: VecDeque::new(),
            moving: None,
            moved_ms: None,
            wakes_at: None,
            is_closing: false,
        }
    }

    /// One more relay; a lower priority is preferred.
    pub(super) fn add(&mut self, priority: u32) -> RelayKey {
        self.all.push(Relay {
            priority,
            dialer: Dialer::default(),
            latency: Latency::default(),
            stage: Stage::Idle,
            is_checking: false,
            checked_ms: None,
            faster: None,
            flaps: 0,
        });
        RelayKey(self.all.len() - 1)
    }

    /// The highest priority number of all.
    pub(super) fn last_priority(&self) -> Option<u32> {
        self.all.iter().map(|relay| relay.priority).max()
    }

    /// Another priority than before.
    pub(super) fn prefer(&mut self, key: RelayKey, priority: u32) {
        self.all[key.0].priority = priority;
    }

    /// Somebody asked to try it at once, even if it was given up.
    pub(super) fn ask(&mut self, key: RelayKey) {
        let relay = &mut self.all[key.0];
        relay.dialer.dial_now();
        if relay.stage == Stage::Idle {
            relay.flaps = 0;
            relay.checked_ms = None;
        }
    }

    /// Nothing is dialled any more.
    pub(super) fn close(&mut self) {
        self.is_closing = true;
        self.orders.clear();
    }

    /// It is connected.
    pub(super) fn opened(&mut self, now_ms: u64, key: RelayKey) {
        let relay = &mut self.all[key.0];
        relay.dialer.connected(now_ms);
        if let Stage::Dialling { .. } = relay.stage {
            relay.stage = Stage::Up { since_ms: now_ms, trouble: None };
        }
    }

    /// The attempt failed, or the connection ended. `random` is any uniform number.
    pub(super) fn ended(&mut self, now_ms: u64, key: RelayKey, ended: Ended, random: u64) {
        let is_move = self.moving.is_some_and(|moving| moving.to == key);
        let relay = &mut self.all[key.0];
        let is_polite = ended.retry_after_ms.is_some();
        match relay.stage {
            Stage::Up { since_ms, .. } if now_ms.saturating_sub(since_ms) >= LASTED_MS => {
                relay.flaps = 0;
            }
            Stage::Up { .. } if !is_polite => relay.flaps += 1,
            Stage::Dialling { .. } if is_move => relay.flaps += 1,
            _ => {}
        }
        relay.stage = Stage::Idle;
        relay.faster = None;
        relay.dialer.ended(now_ms, ended, random);
    }

    /// It was left, as ordered.
    pub(super) fn left(&mut self, now_ms: u64, key: RelayKey, random: u64) {
        let relay = &mut self.all[key.0];
        let because = match &mut relay.stage {
            Stage::Leaving { because } => because.take(),
            _ => None,
        };
        relay.stage = Stage::Idle;
        let ended = match because {
            None => return relay.dialer.parted(),
            Some(Trouble::Silent) => {
                relay.flaps += 1;
                Ended::transient("the relay stopped answering")
            }
            Some(Trouble::Going(retry_after_ms)) => Ended {
                retry_after_ms: Some(retry_after_ms),
                ..Ended::transient("the relay is going away")
            },
        };
        relay.dialer.ended(now_ms, ended, random);
    }

    /// A round trip over its connection.
    pub(super) fn measured(&mut self, now_ms: u64, key: RelayKey, trip: Duration) {
        self.all[key.0].latency.add(trip);
        self.compare(now_ms, None);
    }

    /// It answered while it was not connected.
    pub(super) fn checked(&mut self, now_ms: u64, key: RelayKey, trip: Duration) {
        let relay = &mut self.all[key.0];
        relay.is_checking = false;
        relay.checked_ms = Some(now_ms);
        relay.latency.add(trip);
        relay.dialer.checked(now_ms);
        self.compare(now_ms, Some(key));
    }

    /// It did not.
    pub(super) fn check_failed(&mut self, now_ms: u64, key: RelayKey, ended: Ended, random: u64) {
        let relay = &mut self.all[key.0];
        relay.is_checking = false;
        relay.checked_ms = Some(now_ms);
        relay.faster = None;
        // An attempt that is made meanwhile speaks for itself.
        if relay.stage == Stage::Idle {
            relay.dialer.ended(now_ms, ended, random);
        }
    }

    /// It owes an answer, or gave it after all.
    pub(super) fn silent(&mut self, key: RelayKey, is_silent: bool) {
        if let Stage::Up { trouble, .. } = &mut self.all[key.0].stage
            && !matches!(trouble, Some(Trouble::Going(_)))
        {
            *trouble = is_silent.then_some(Trouble::Silent);
        }
    }

    /// It said that it is going away, and not to come back before so many milliseconds.
    pub(super) fn going(&mut self, key: RelayKey, retry_after_ms: u64) {
        if let Stage::Up { trouble, .. } = &mut self.all[key.0].stage {
            *trouble = Some(Trouble::Going(retry_after_ms));
        }
    }

    /// Decides what is to be done, after whatever happened.
    pub(super) fn decide(&mut self, now_ms: u64) {
        self.wakes_at = None;
        if self.is_closing {
            return;
        }
        for relay in &mut self.all {
            relay.dialer.tick(now_ms);
        }
        self.finish_move();
        let mut good = self.good();
        while good.len() > self.at_once
            && let Some(worst) = good.pop()
        {
            self.leave(worst);
        }
        if good.len() < self.at_once {
            self.fail_over(now_ms, self.at_once - good.len());
        } else {
            self.settle();
            self.check_and_move(now_ms, &good);
        }
        self.wake_for_dialers();
    }

    /// The next thing to do.
    pub(super) fn poll(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// When to decide again, if nothing happens before.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        self.wakes_at
    }

    /// Whether this one is worth watching closely: another could take its place.
    pub(super) fn is_watched(&self, now_ms: u64, key: RelayKey) -> bool {
        let could = |relay: &Relay| {
            !relay.is_up()
                && !matches!(relay.dialer.state(), State::Stopped { .. })
                && relay.dialer.breaker(now_ms) != Breaker::Open
        };
        let others = self.all.iter().enumerate().filter(|(at, _)| *at != key.0);
        others.map(|(_, relay)| relay).any(could)
    }

    /// Where a relay stands.
    pub(super) fn standing(&self, key: RelayKey) -> Standing {
        let relay = &self.all[key.0];
        match (&relay.stage, relay.dialer.state()) {
            (Stage::Up { .. }, _) => Standing::Online,
            (Stage::Dialling { .. }, _) => Standing::Connecting,
            (_, State::Waiting { until_ms, reason }) => {
                Standing::Offline { reason: reason.clone(), until_ms: *until_ms }
            }
            (_, State::Stopped { reason }) => Standing::Stopped { reason: reason.clone() },
            (_, State::Ready | State::Online { .. }) => Standing::Standby,
        }
    }

    /// Whether it is connected, and nothing is wrong with it.
    pub(super) fn is_good(&self, key: RelayKey) -> bool {
        self.all[key.0].is_good()
    }

    pub(super) fn priority(&self, key: RelayKey) -> u32 {
        self.all[key.0].priority
    }

    pub(super) fn latency(&self, key: RelayKey) -> Option<Duration> {
        self.all[key.0].latency.smoothed()
    }

    pub(super) fn breaker(&self, now_ms: u64, key: RelayKey) -> Breaker {
        self.all[key.0].dialer.breaker(now_ms)
    }

    /// All of them, the preferred first.
    pub(super) fn in_order(&self) -> Vec<RelayKey> {
        let mut keys: Vec<_> = (0..self.all.len()).map(RelayKey).collect();
        keys.sort_by_key(|key| (self.all[key.0].priority, key.0));
        keys
    }

    /// Those in use with which nothing is wrong, the one to keep longest first.
    fn good(&self) -> Vec<RelayKey> {
        let up = |(at, relay): (usize, &Relay)| match relay.stage {
            Stage::Up { since_ms, trouble: None } => Some((relay.priority, since_ms, at)),
            _ => None,
        };
        let mut good: Vec<_> = self.all.iter().enumerate().filter_map(up).collect();
        good.sort_unstable();
        good.into_iter().map(|(.., at)| RelayKey(at)).collect()
    }

    /// Dials as many relays as are missing.
    fn fail_over(&mut self, now_ms: u64, missing: usize) {
        let fresh = |relay: &Relay| match relay.stage {
            Stage::Dialling { since_ms } => Some(since_ms + STAGGER_MS).filter(|at| *at > now_ms),
            _ => None,
        };
        let fresh: Vec<u64> = self.all.iter().filter_map(fresh).collect();
        let mut candidates: Vec<_> =
            (0..self.all.len()).filter(|at| self.all[*at].may_be_dialled()).collect();
        candidates.sort_by_key(|at| {
            let relay = &self.all[*at];
            let latency = relay.latency.smoothed().unwrap_or(Duration::MAX);
            // Who failed last is tried after those who did not: they may both be away.
            (relay.dialer.has_failed(), relay.priority, latency, *at)
        });
        let dialled = missing.saturating_sub(fresh.len()).min(candidates.len());
        for at in &candidates[..dialled] {
            self.dial(now_ms, RelayKey(*at));
        }
        if dialled < candidates.len() {
            for at in fresh {
                self.wake(at);
            }
            if dialled > 0 {
                self.wake(now_ms + STAGGER_MS);
            }
        }
    }

    /// There are enough: whatever else is there or on its way is left.
    fn settle(&mut self) {
        let to = self.moving.map(|moving| moving.to);
        for at in 0..self.all.len() {
            let is_extra = match self.all[at].stage {
                Stage::Dialling { .. } => to != Some(RelayKey(at)),
                Stage::Up { ref trouble, .. } => trouble.is_some(),
                Stage::Idle | Stage::Leaving { .. } => false,
            };
            if is_extra {
                self.leave(RelayKey(at));
            }
        }
    }

    fn dial(&mut self, now_ms: u64, key: RelayKey) {
        self.all[key.0].stage = Stage::Dialling { since_ms: now_ms };
        self.orders.push_back(Order::Dial(key));
    }

    fn leave(&mut self, key: RelayKey) {
        let stage = &mut self.all[key.0].stage;
        let because = match stage {
            Stage::Up { trouble, .. } => trouble.take(),
            Stage::Dialling { .. } => None,
            Stage::Idle | Stage::Leaving { .. } => return,
        };
        *stage = Stage::Leaving { because };
        self.orders.push_back(Order::Leave(key));
    }

    fn wake(&mut self, at_ms: u64) {
        self.wakes_at = Some(self.wakes_at.map_or(at_ms, |at| at.min(at_ms)));
    }

    fn wake_for_dialers(&mut self) {
        for at in 0..self.all.len() {
            if let State::Waiting { until_ms, .. } = *self.all[at].dialer.state() {
                self.wake(until_ms);
            }
        }
    }
}
