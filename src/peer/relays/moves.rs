//! Health checks of relays that are not in use, and when one of them takes the place of one that
//! is, though nothing is wrong with that.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use super::{Order, Relay, RelayKey, Relays, Stage};

/// Milliseconds that a preferred relay must have been well before it is returned to.
pub(in crate::peer) const RETURN_MS: u64 = 10_000;
/// The same for one that ended soon, many times: it doubles up to this.
const RETURN_MS_MAX: u64 = 300_000;
/// Milliseconds between checks of a relay that is to be returned to.
const CONFIRM_MS: u64 = 3_000;
/// Milliseconds between checks of one that looks faster than one in use.
const COMPARE_MS: u64 = 10_000;
/// Milliseconds between checks of the others: each wakes whoever is asleep.
const CHECK_MS: u64 = 300_000;
/// Milliseconds before the first of these: a program that ends soon does without.
const FIRST_CHECK_MS: u64 = 5_000;
/// Milliseconds for which a relay must be clearly faster, and so many checks must say so.
const FASTER_MS: u64 = 30_000;
const FASTER_CHECKS: u32 = 3;
/// Milliseconds after a move to a faster relay in which there is no other.
const CALM_MS: u64 = 300_000;
/// What is clearly faster: in nearly all of its answers, by this, and by a quarter.
const CLEARLY: Duration = Duration::from_millis(10);

/// From one relay, once the other is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Move {
    from: RelayKey,
    pub(super) to: RelayKey,
}

impl Relays {
    /// Leaves the old relay if the new one is there, and forgets of it if that did not work.
    pub(super) fn finish_move(&mut self) {
        let Some(Move { from, to }) = self.moving else { return };
        match self.all[to.0].stage {
            Stage::Dialling { .. } => return,
            Stage::Up { trouble: None, .. } if self.good().len() > self.at_once => self.leave(from),
            _ => {}
        }
        self.moving = None;
    }

    /// With enough relays in use (`good`, which is not empty): checks the others, and begins a move.
    pub(super) fn check_and_move(&mut self, now_ms: u64, good: &[RelayKey]) {
        let Some(worst) = self.worst(good) else { return };
        let standbys: Vec<_> =
            self.in_order().into_iter().filter(|key| self.all[key.0].may_be_dialled()).collect();
        for key in standbys {
            if self.moving.is_none() && self.is_time(now_ms, key, worst) {
                if self.all[key.0].priority == self.all[worst.0].priority {
                    self.moved_ms = Some(now_ms);
                }
                self.moving = Some(Move { from: worst, to: key });
                self.dial(now_ms, key);
                continue;
            }
            if self.all[key.0].is_checking {
                continue;
            }
            let due_ms = self.check_due(now_ms, key, worst);
            if due_ms <= now_ms {
                self.all[key.0].is_checking = true;
                self.orders.push_back(Order::Check(key));
            } else {
                self.wake(due_ms);
            }
        }
    }

    /// Something was measured: whether relays that are not in use are clearly faster than the worst
    /// that is. `checked` is the one that was checked just now.
    pub(super) fn compare(&mut self, now_ms: u64, checked: Option<RelayKey>) {
        let Some(worst) = self.worst(&self.good()) else { return };
        let Relay { priority, latency, .. } = self.all[worst.0];
        let Some(slow) = latency.smoothed() else { return };
        for (at, relay) in self.all.iter_mut().enumerate() {
            let is_faster = relay.stage == Stage::Idle
                && relay.priority == priority
                && relay.latency.at_most().is_some_and(|fast| slow > fast + CLEARLY.max(slow / 4));
            relay.faster = is_faster.then(|| {
                let (since_ms, checks) = relay.faster.unwrap_or((now_ms, 0));
                (since_ms, checks.saturating_add(u32::from(checked == Some(RelayKey(at)))))
            });
        }
    }

    /// Of those in use, the one to leave first for something better.
    fn worst(&self, good: &[RelayKey]) -> Option<RelayKey> {
        let slow = |key: &&RelayKey| {
            let relay = &self.all[key.0];
            (relay.priority, relay.latency.smoothed(), key.0)
        };
        good.iter().max_by_key(slow).copied()
    }

    /// Whether `worst` is to be left for this one now.
    fn is_time(&self, now_ms: u64, key: RelayKey, worst: RelayKey) -> bool {
        let (relay, in_use) = (&self.all[key.0], &self.all[worst.0]);
        if relay.priority < in_use.priority {
            let doubled = RETURN_MS << relay.flaps.saturating_sub(1).min(5);
            let is_fresh = relay.checked_ms.is_some_and(|at| now_ms <= at + CONFIRM_MS);
            let well_ms = relay.dialer.well_ms(now_ms);
            return is_fresh && well_ms.is_some_and(|well| well >= doubled.min(RETURN_MS_MAX));
        }
        let is_calm = self.moved_ms.is_none_or(|at| now_ms >= at + CALM_MS);
        let is_long =
            |(since_ms, checks)| now_ms >= since_ms + FASTER_MS && checks >= FASTER_CHECKS;
        relay.priority == in_use.priority && is_calm && relay.faster.is_some_and(is_long)
    }

    fn check_due(&self, now_ms: u64, key: RelayKey, worst: RelayKey) -> u64 {
        let (relay, in_use) = (&self.all[key.0], &self.all[worst.0]);
        let is_preferred = relay.priority < in_use.priority;
        let Some(checked_ms) = relay.checked_ms else {
            return match in_use.stage {
                Stage::Up { since_ms, .. } if !is_preferred => since_ms + FIRST_CHECK_MS,
                _ => now_ms,
            };
        };
        if is_preferred && relay.dialer.has_failed() {
            // It has waited for as long as it has to.
            return now_ms;
        }
        let interval_ms = match relay.faster {
            _ if is_preferred => CONFIRM_MS,
            Some(_) => COMPARE_MS,
            None => CHECK_MS,
        };
        checked_ms + interval_ms
    }
}
