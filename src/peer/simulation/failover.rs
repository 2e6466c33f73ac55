//! Which of several relays a peer uses, in virtual time.

use std::{collections::BTreeSet, time::Duration};

use super::dialling::how;
use crate::peer::relays::{self, RelayKey, Relays, Standing};

/// A round trip that a check of a relay reports: all are alike.
const TRIP: Duration = Duration::from_millis(1);

/// What is to be done about a relay, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Connect to it: [`Failover::opened`] or [`Failover::ended`].
    Dial(u8),
    /// See whether it answers: [`Failover::checked`].
    Check(u8),
    /// End the connection or the attempt: [`Failover::ended`].
    Leave(u8),
}

/// The state machine that keeps a peer connected to the best of its relays in production: it says
/// what to do, and is told what came of it. Times are milliseconds of any one clock.
#[derive(Debug)]
pub struct Failover {
    relays: Relays,
    preferred: RelayKey,
    count: usize,
    leaving: BTreeSet<u8>,
}

impl Failover {
    /// Of so many relays this one is preferred, then those after it.
    pub fn new(relays: u8, preferred: u8) -> Self {
        let mut all = Relays::new(1);
        for relay in 0..relays {
            let after = u32::from(relay) + u32::from(relays) - u32::from(preferred);
            all.add(after % u32::from(relays));
        }
        let preferred = RelayKey(preferred.into());
        Self { relays: all, preferred, count: relays.into(), leaving: BTreeSet::new() }
    }

    /// The handshake is done.
    pub fn opened(&mut self, now_ms: u64, relay: u8) {
        self.relays.opened(now_ms, RelayKey(relay.into()));
    }

    /// The attempt failed, or the connection ended, as [`super::Dialling::ended`] has it.
    pub fn ended(
        &mut self,
        now_ms: u64,
        relay: u8,
        (close_code, retry_after_ms): (Option<u16>, Option<u64>),
        random: u64,
    ) {
        let key = RelayKey(relay.into());
        if self.leaving.remove(&relay) {
            self.relays.left(now_ms, key, random);
        } else {
            self.relays.ended(now_ms, key, how(close_code, retry_after_ms), random);
        }
    }

    /// What came of a check.
    pub fn checked(&mut self, now_ms: u64, relay: u8, answers: bool, random: u64) {
        let key = RelayKey(relay.into());
        if answers {
            self.relays.checked(now_ms, key, TRIP);
        } else {
            self.relays.check_failed(now_ms, key, how(None, None), random);
        }
    }

    /// The relay said that it is going away.
    pub fn going(&mut self, relay: u8, retry_after_ms: u64) {
        self.relays.going(RelayKey(relay.into()), retry_after_ms);
    }

    /// What is to be done now, after whatever happened.
    pub fn decide(&mut self, now_ms: u64) -> Vec<Order> {
        self.relays.decide(now_ms);
        let number = |key: RelayKey| u8::try_from(key.0).unwrap_or(u8::MAX);
        let mut orders = Vec::new();
        while let Some(order) = self.relays.poll() {
            orders.push(match order {
                relays::Order::Dial(key) => Order::Dial(number(key)),
                relays::Order::Check(key) => Order::Check(number(key)),
                relays::Order::Leave(key) => {
                    self.leaving.insert(number(key));
                    Order::Leave(number(key))
                }
            });
        }
        orders
    }

    /// When to decide again, if nothing happens before.
    pub fn wakes_at(&self) -> Option<u64> {
        self.relays.wakes_at()
    }

    /// Whether this relay is being dialled.
    pub fn is_dialling(&self, relay: u8) -> bool {
        self.relays.standing(RelayKey(relay.into())) == Standing::Connecting
    }

    /// Whether this relay is given up.
    pub fn is_stopped(&self, relay: u8) -> bool {
        matches!(self.relays.standing(RelayKey(relay.into())), Standing::Stopped { .. })
    }

    /// Whether the preferred relay is connected, and no other is, or about to be.
    pub fn is_settled(&self) -> bool {
        let is_busy = |key: RelayKey| {
            matches!(self.relays.standing(key), Standing::Online | Standing::Connecting)
        };
        self.leaving.is_empty()
            && self.relays.is_good(self.preferred)
            && (0..self.count).map(RelayKey).all(|key| key == self.preferred || !is_busy(key))
    }
}
