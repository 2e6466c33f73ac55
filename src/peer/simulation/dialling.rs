//! When a peer dials its relay, in virtual time.

use crate::peer::dialer::{Dialer, Ended, State};

/// How a connection ended, or an attempt.
pub(super) fn how(close_code: Option<u16>, retry_after_ms: Option<u64>) -> Ended {
    let ended = match close_code {
        Some(code) => Ended::closed(code, ""),
        None => Ended::transient("the connection broke"),
    };
    Ended { retry_after_ms, ..ended }
}

/// The state machine that keeps one relay connected in production: it says when to dial, and is
/// told what came of it.
#[derive(Debug, Default)]
pub struct Dialling(Dialer);

impl Dialling {
    /// One that dials at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// When to dial, in milliseconds of the clock that [`Dialling::ended`] is given; zero is at
    /// once. `None` while it is connected, and where dialling again would fail again.
    pub fn next_dial_ms(&self) -> Option<u64> {
        match self.0.state() {
            State::Ready => Some(0),
            State::Waiting { until_ms, .. } => Some(*until_ms),
            State::Online { .. } | State::Stopped { .. } => None,
        }
    }

    /// The handshake is done, at a time of the clock that [`Dialling::ended`] is given.
    pub fn connected(&mut self, now_ms: u64) {
        self.0.connected(now_ms);
    }

    /// The attempt failed, or the connection ended: with this close code, whoever closed, or
    /// without one. `retry_after_ms` is what the relay's go-away asked for. `random` is any
    /// uniform number; production draws it from the system.
    pub fn ended(
        &mut self,
        now_ms: u64,
        close_code: Option<u16>,
        retry_after_ms: Option<u64>,
        random: u64,
    ) {
        self.0.ended(now_ms, how(close_code, retry_after_ms), random);
    }

    /// Why it does not dial again, if so.
    pub fn stopped(&self) -> Option<&str> {
        match self.0.state() {
            State::Stopped { reason } => Some(reason),
            _ => None,
        }
    }
}
