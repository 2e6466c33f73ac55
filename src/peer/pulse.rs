//! The signs of life of one connection: its heartbeat, under the clock and the bytes that it had.

use std::time::Duration;

use tokio::time::Instant;

use super::{dialer::Ended, heartbeat::Heartbeat, traffic::Traffic};

/// A sign of life of a relay, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    /// It answered a ping in this time.
    Answered(Duration),
    /// Whether it owes an answer for too long.
    Silent(bool),
    /// It is going away.
    GoingAway {
        /// And does not want to be dialled before so many milliseconds.
        retry_after_ms: u64,
    },
}

/// The signs of life of one connection.
pub(super) struct Pulse<'a, T> {
    heartbeat: Heartbeat,
    started: Instant,
    traffic: &'a Traffic,
    /// Bytes sent before this connection, and received when they were looked at last.
    sent_before: u64,
    received: u64,
    is_silent: bool,
    tell: T,
}

impl<'a, T: Fn(Sign)> Pulse<'a, T> {
    pub(super) fn new(traffic: &'a Traffic, tell: T) -> Self {
        Self {
            heartbeat: Heartbeat::new(Duration::ZERO),
            started: Instant::now(),
            traffic,
            sent_before: traffic.sent(),
            received: traffic.received(),
            is_silent: false,
            tell,
        }
    }

    /// Whether another relay could take over.
    pub(super) fn watch(&mut self, is_watched: bool) {
        self.heartbeat.watch(is_watched);
    }

    /// A message went or came.
    pub(super) fn active(&mut self) {
        let now = self.now();
        self.heartbeat.active(now);
    }

    /// A frame came.
    pub(super) fn heard(&mut self) {
        let now = self.now();
        self.heartbeat.heard(now);
    }

    pub(super) fn tell(&self, sign: Sign) {
        (self.tell)(sign);
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// When to look again, if nothing happens before.
    pub(super) fn next(&self) -> Instant {
        self.started + self.heartbeat.next(self.now())
    }

    /// What is to be done: a ping to send, or why it is over.
    pub(super) fn beat(&mut self) -> Result<Option<u64>, Ended> {
        let now = self.now();
        let received = self.traffic.received();
        // Parts of a large message are signs of life, too.
        if received != self.received {
            self.received = received;
            self.heartbeat.heard(now);
        }
        let sent = self.traffic.sent().saturating_sub(self.sent_before);
        let due = self.heartbeat.due(now, sent);
        if due.is_dead {
            return Err(Ended::transient("the relay stopped answering"));
        }
        if due.is_suspect != self.is_silent {
            self.is_silent = due.is_suspect;
            (self.tell)(Sign::Silent(due.is_suspect));
        }
        Ok(due.ping)
    }

    /// A ping was answered.
    pub(super) fn pong(&mut self, payload: &[u8]) {
        let number = payload.try_into().map(u64::from_be_bytes);
        if let Ok(number) = number
            && let Some(trip) = self.heartbeat.answered(self.now(), number)
        {
            (self.tell)(Sign::Answered(trip));
        }
    }
}
