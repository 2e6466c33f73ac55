//! When to dial a relay, when to wait, and when to give up: no sockets, no clock.
//!
//! Failures in a row lengthen the wait ([`Backoff`]), and from [`OPENS_AFTER`] on the relay is left
//! alone for longer: its circuit breaker is open. Then one attempt shows whether it is well again.

use concord_protocol::CloseCode;

use super::backoff::Backoff;

/// Milliseconds well after which a failure is news, and not one more in a row: whoever takes
/// everybody in and then throws them out is not to be dialled without pause.
pub(super) const STAYED_MS: u64 = 10_000;
/// Failures in a row from which on the breaker is open: when the waits are at their longest.
pub(super) const OPENS_AFTER: u32 = 7;
/// The longest that an open breaker keeps from the next attempt, in milliseconds. The shortest is
/// half of it: clients of a relay that is away do not come back together.
pub(super) const OPEN_MS: u64 = 30_000;

/// The longest that a relay can ask us to stay away, in milliseconds: nobody is sent away for good by
/// a number.
pub(super) const RETRY_AFTER_MS_MAX: u64 = 600_000;

/// The circuit breaker of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// It works, or has not failed often.
    Closed,
    /// It failed seven times in a row and is left alone for 15 to 30 s.
    Open,
    /// The next attempt, or the first seconds of a connection, show whether it is well again.
    HalfOpen,
}

/// Why a connection could not be made, or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    /// In words.
    pub(super) reason: String,
    /// Whether trying again unchanged will fail again.
    pub(super) permanent: bool,
    /// The relay asked not to come back before this many milliseconds.
    pub(super) retry_after_ms: Option<u64>,
    /// We ended it, for nothing that the relay did: it is dialled again at once.
    pub(super) is_ours: bool,
}

impl Ended {
    /// We ended it, to begin anew.
    pub(super) fn ours(reason: impl Into<String>) -> Self {
        Self { is_ours: true, ..Self::transient(reason) }
    }

    /// Something that may well work the next time.
    pub(super) fn transient(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), permanent: false, retry_after_ms: None, is_ours: false }
    }

    /// Something that will fail again.
    pub(super) fn permanent(reason: impl Into<String>) -> Self {
        Self { permanent: true, ..Self::transient(reason) }
    }

    /// The other side closed with this code.
    pub(super) fn closed(code: u16, reason: &str) -> Self {
        let words = if reason.is_empty() { "no reason given" } else { reason };
        Self {
            reason: format!("the relay closed the connection ({code}): {words}"),
            permanent: is_permanent(code),
            retry_after_ms: None,
            is_ours: false,
        }
    }
}

/// DESIGN section 3: 4400 to 4499 are permanent, but for those that only mean "slower". Being
/// replaced is not: it is what a half-open connection of our own looks like.
fn is_permanent(code: u16) -> bool {
    (4400..4500).contains(&code)
        && ![CloseCode::RateLimited, CloseCode::HandshakeTimeout, CloseCode::Replaced]
            .iter()
            .any(|transient| transient.code() == code)
}

/// Where a dialler stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// It may be dialled.
    Ready,
    /// Speaking.
    Online {
        /// Since when.
        since_ms: u64,
    },
    /// Dial at this time, in milliseconds of the caller's clock.
    Waiting {
        /// When.
        until_ms: u64,
        /// Why not now.
        reason: String,
    },
    /// Do not dial again.
    Stopped {
        /// Why.
        reason: String,
    },
}

/// The state machine of one relay's connection.
#[derive(Debug)]
pub(super) struct Dialer {
    state: State,
    backoff: Backoff,
    /// Since when nothing failed that worked once.
    well_since_ms: Option<u64>,
}

impl Default for Dialer {
    fn default() -> Self {
        Self { state: State::Ready, backoff: Backoff::default(), well_since_ms: None }
    }
}

impl Dialer {
    /// Where it stands.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// The handshake is done.
    pub(super) fn connected(&mut self, now_ms: u64) {
        self.state = State::Online { since_ms: now_ms };
        self.checked(now_ms);
    }

    /// It answered.
    pub(super) fn checked(&mut self, now_ms: u64) {
        self.well_since_ms.get_or_insert(now_ms);
    }

    /// We ended the connection, for nothing that it did.
    pub(super) fn parted(&mut self) {
        if matches!(self.state, State::Online { .. }) {
            self.state = State::Ready;
        }
    }

    /// For how many milliseconds it has been well; `None` if it failed last, or was never tried.
    pub(super) fn well_ms(&self, now_ms: u64) -> Option<u64> {
        self.well_since_ms.map(|since_ms| now_ms.saturating_sub(since_ms))
    }

    /// Whether it failed when it was tried last.
    pub(super) fn has_failed(&self) -> bool {
        self.well_since_ms.is_none() && self.backoff.failures() > 0
    }

    /// Its circuit breaker.
    pub(super) fn breaker(&self, now_ms: u64) -> Breaker {
        let has_stayed = self.well_ms(now_ms).is_some_and(|well_ms| well_ms >= STAYED_MS);
        match self.state {
            _ if self.backoff.failures() < OPENS_AFTER || has_stayed => Breaker::Closed,
            State::Waiting { .. } | State::Stopped { .. } => Breaker::Open,
            State::Ready | State::Online { .. } => Breaker::HalfOpen,
        }
    }

    /// The attempt failed, or the connection ended. `random` is any uniform number.
    pub(super) fn ended(&mut self, now_ms: u64, ended: Ended, random: u64) {
        if ended.is_ours {
            return self.parted();
        }
        if self.well_ms(now_ms).is_some_and(|well_ms| well_ms >= STAYED_MS) {
            self.backoff.reset();
        }
        self.well_since_ms = None;
        let Ended { reason, permanent, retry_after_ms, .. } = ended;
        if permanent {
            self.state = State::Stopped { reason };
            return;
        }
        let drawn_ms = self.backoff.next(random);
        let wait_ms = match self.backoff.failures() {
            ..OPENS_AFTER => drawn_ms,
            _ => OPEN_MS / 2 + random % (OPEN_MS / 2 + 1),
        };
        let asked_ms = retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MS_MAX);
        let delay_ms = wait_ms.saturating_add(asked_ms);
        self.state = State::Waiting { until_ms: now_ms.saturating_add(delay_ms), reason };
    }

    /// Somebody asked to try at once, even if it was given up.
    pub(super) fn dial_now(&mut self) {
        if matches!(self.state, State::Waiting { .. } | State::Stopped { .. }) {
            *self = Self::default();
        }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now_ms: u64) {
        if matches!(self.state, State::Waiting { until_ms, .. } if until_ms <= now_ms) {
            self.state = State::Ready;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_end_to_begin_anew_is_no_failure() {
        let mut dialer = Dialer::default();
        for now_ms in 0..20 {
            dialer.connected(now_ms);
            dialer.ended(now_ms, Ended::ours("for room"), 7);
            assert_eq!(*dialer.state(), State::Ready);
        }
        assert!(!dialer.has_failed() && dialer.breaker(20) == Breaker::Closed);
        assert_eq!(dialer.well_ms(20), Some(20));
    }

    #[test]
    fn waits_for_the_drawn_delay_then_dials() {
        let mut dialer = Dialer::default();
        assert_eq!(*dialer.state(), State::Ready);
        dialer.ended(1_000, Ended::transient("refused"), 400);
        let waiting = State::Waiting { until_ms: 1_400, reason: "refused".into() };
        assert_eq!(*dialer.state(), waiting);
        dialer.tick(1_399);
        assert_eq!(*dialer.state(), waiting);
        dialer.tick(1_400);
        assert_eq!(*dialer.state(), State::Ready);
    }

    #[test]
    fn success_that_lasts_resets_the_backoff() {
        for (lasts_ms, waits_ms) in [(STAYED_MS, 500), (STAYED_MS - 1, 4_000)] {
            let mut dialer = Dialer::default();
            for _ in 0..3 {
                dialer.ended(0, Ended::transient("x"), 0);
            }
            dialer.connected(100);
            let ended_ms = 100 + lasts_ms;
            // What is drawn is taken modulo one more than the ceiling.
            dialer.ended(ended_ms, Ended::transient("x"), waits_ms);
            let until_ms = ended_ms + waits_ms;
            assert_eq!(*dialer.state(), State::Waiting { until_ms, reason: "x".into() });
        }
    }

    #[test]
    fn the_breaker_opens_after_failures_in_a_row_and_closes_once_it_stays_well() {
        let mut dialer = Dialer::default();
        let mut now_ms = 0;
        for failure in 1..=OPENS_AFTER {
            assert_eq!(dialer.breaker(now_ms), Breaker::Closed);
            dialer.ended(now_ms, Ended::transient("x"), 0);
            let State::Waiting { until_ms, .. } = *dialer.state() else { panic!("not given up") };
            let waits_ms = until_ms - now_ms;
            assert_eq!(waits_ms, if failure < OPENS_AFTER { 0 } else { OPEN_MS / 2 });
            now_ms = until_ms;
        }
        assert_eq!(dialer.breaker(now_ms - 1), Breaker::Open);
        dialer.tick(now_ms);
        assert_eq!(dialer.breaker(now_ms), Breaker::HalfOpen);
        // One failure opens it again, whatever is drawn.
        dialer.ended(now_ms, Ended::transient("x"), u64::MAX);
        let State::Waiting { until_ms, .. } = *dialer.state() else { panic!("not given up") };
        assert!((OPEN_MS / 2..=OPEN_MS).contains(&(until_ms - now_ms)));
        dialer.tick(until_ms);
        dialer.connected(until_ms);
        assert_eq!(dialer.breaker(until_ms + STAYED_MS - 1), Breaker::HalfOpen);
        assert_eq!(dialer.breaker(until_ms + STAYED_MS), Breaker::Closed);
    }

    #[test]
    fn who_asks_is_heard_unless_it_is_dialled_already() {
        let mut dialer = Dialer::default();
        for ended in [Ended::transient("refused"), Ended::permanent("forbidden")] {
            dialer.ended(0, ended, 1);
            dialer.dial_now();
            assert_eq!(*dialer.state(), State::Ready);
        }
        dialer.connected(5);
        dialer.dial_now();
        assert_eq!(*dialer.state(), State::Online { since_ms: 5 });
    }

    #[test]
    fn the_relay_s_own_delay_comes_first() {
        let mut dialer = Dialer::default();
        let ended = Ended { retry_after_ms: Some(5_000), ..Ended::transient("draining") };
        dialer.ended(0, ended, 100);
        assert_eq!(*dialer.state(), State::Waiting { until_ms: 5_100, reason: "draining".into() });
        let ended = Ended { retry_after_ms: Some(u64::MAX), ..Ended::transient("draining") };
        dialer.ended(0, ended, 100);
        let until_ms = RETRY_AFTER_MS_MAX + 100;
        assert_eq!(*dialer.state(), State::Waiting { until_ms, reason: "draining".into() });
    }

    #[test]
    fn permanent_codes_stop_and_the_others_do_not() {
        for (code, stops) in [
            (4401, true),
            (4403, true),
            (4409, true),
            (4429, false),
            (4408, false),
            (4410, false),
            (4503, false),
            (1000, false),
            (1013, false),
        ] {
            let mut dialer = Dialer::default();
            dialer.ended(0, Ended::closed(code, ""), 0);
            assert_eq!(matches!(dialer.state(), State::Stopped { .. }), stops, "{code}");
        }
    }
}
