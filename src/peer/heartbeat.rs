//! Whether a relay still answers: when to ping it, when it is under suspicion, when it is dead. No
//! sockets, no clock.
//!
//! A ping wakes a sleeping radio, so an idle connection has one every 15 s. Only where another relay
//! could take over, and while somebody writes or reads, it is asked often enough that silence is
//! noticed in time; the first thing that is sent after a pause has a ping behind it.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use super::latency::Latency;

/// Time between pings (DESIGN section 3).
const PING: Duration = Duration::from_secs(15);
/// Time without a byte after which the relay is dead.
const DEAD: Duration = Duration::from_mins(1);
/// Time between pings while it matters to notice silence.
const WATCHFUL_PING: Duration = Duration::from_millis(750);
/// Time after a message for which it matters.
const ACTIVE: Duration = Duration::from_secs(30);
/// Time that a ping may wait for its answer before the relay is under suspicion. With the time
/// between pings it leaves most of a second of three to have another relay take over.
const SUSPECT: Duration = Duration::from_millis(1_400);
/// Time after that in which an answer that has arrived is read: this program may have slept.
const DOUBT: Duration = Duration::from_millis(100);
/// Bytes a millisecond that even a slow line carries: what was written before a ping is in its way.
const SLOW_LINE: u64 = 128;

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Due {
    /// Send a ping with this number.
    pub(super) ping: Option<u64>,
    /// It should have answered by now.
    pub(super) is_suspect: bool,
    /// It is taken for dead.
    pub(super) is_dead: bool,
}

/// The pings of one connection. Times are since any moment, the same for all.
#[derive(Debug)]
pub(super) struct Heartbeat {
    is_watchful: bool,
    heard: Duration,
    /// When a message went or came last.
    active: Option<Duration>,
    /// The last ping.
    pinged: Duration,
    number: u64,
    waiting: Option<Waiting>,
    /// When it was seen that the answer is late.
    doubted: Option<Duration>,
    /// Bytes written before the last ping that was answered, and before the last that was sent.
    written: (u64, u64),
    latency: Latency,
}

/// A ping without an answer.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    since: Duration,
    /// How long what was written before it may take.
    backlog: Duration,
}

impl Heartbeat {
    /// Of a connection that was made just now.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            is_watchful: false,
            heard: now,
            active: Some(now),
            pinged: now,
            number: 0,
            waiting: None,
            doubted: None,
            written: (0, 0),
            latency: Latency::default(),
        }
    }

    /// Whether another relay could take over.
    pub(super) fn watch(&mut self, is_watchful: bool) {
        self.is_watchful = is_watchful;
    }

    /// A message went or came.
    pub(super) fn active(&mut self, now: Duration) {
        self.active = Some(now);
    }

    /// Something came, if only a part of a message.
    pub(super) fn heard(&mut self, now: Duration) {
        self.heard = now;
    }

    /// The ping of this number was answered; the round trip, if it was the last.
    pub(super) fn answered(&mut self, now: Duration, number: u64) -> Option<Duration> {
        if number != self.number {
            return None;
        }
        self.waiting.take()?;
        self.written.0 = self.written.1;
        let trip = now.saturating_sub(self.pinged);
        self.latency.add(trip);
        Some(trip)
    }

    /// What is due, if so many bytes were written until now.
    pub(super) fn due(&mut self, now: Duration, written: u64) -> Due {
        let ping = (now >= self.next_ping(now)).then(|| {
            self.number += 1;
            self.pinged = now;
            self.written.1 = written;
            let in_its_way = written.saturating_sub(self.written.0);
            let backlog = Duration::from_millis(in_its_way / SLOW_LINE).min(DEAD);
            self.waiting.get_or_insert(Waiting { since: now, backlog });
            self.number
        });
        let is_late = self.late_at().is_some_and(|at| now >= at);
        self.doubted = is_late.then(|| self.doubted.unwrap_or(now));
        Due {
            ping,
            is_suspect: self.doubted.is_some_and(|since| now >= since + DOUBT),
            is_dead: now.saturating_sub(self.heard) > DEAD,
        }
    }

    /// When something is due next, if nothing happens before.
    pub(super) fn next(&self, now: Duration) -> Duration {
        let late = self.doubted.map(|since| since + DOUBT).or_else(|| self.late_at());
        let dead = self.heard + DEAD + Duration::from_millis(1);
        self.next_ping(now).min(dead).min(late.filter(|at| *at > now).unwrap_or(Duration::MAX))
    }

    fn next_ping(&self, now: Duration) -> Duration {
        let is_active = self.active.is_some_and(|last| now.saturating_sub(last) < ACTIVE);
        // One that is not answered yet is enough.
        let hurries = self.is_watchful && is_active && self.waiting.is_none();
        self.pinged + if hurries { WATCHFUL_PING } else { PING }
    }

    fn late_at(&self) -> Option<Duration> {
        let Waiting { since, backlog } = self.waiting.filter(|_| self.is_watchful)?;
        Some(
            since.max(self.heard)
                + SUSPECT.max(self.latency.at_most().unwrap_or_default()).min(DEAD)
                + backlog,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What was due in every millisecond of a time in which nobody answers, or everybody at once.
    fn run(beat: &mut Heartbeat, times: std::ops::Range<u64>, answers: bool) -> Vec<(u64, Due)> {
        let mut found = Vec::new();
        for at in times {
            let due = beat.due(ms(at), 0);
            if due != Due::default() {
                found.push((at, due));
            }
            if let Some(number) = due.ping.filter(|_| answers) {
                beat.heard(ms(at));
                assert_eq!(beat.answered(ms(at), number), Some(Duration::ZERO));
            }
        }
        found
    }

    #[test]
    fn the_only_relay_is_pinged_now_and_then_and_never_under_suspicion() {
        let mut beat = Heartbeat::new(ms(0));
        let found = run(&mut beat, 0..60_000, false);
        assert_eq!(found.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [15_000, 30_000, 45_000]);
        assert!(found.iter().all(|(_, due)| !due.is_suspect && !due.is_dead));
        assert!(beat.due(ms(60_001), 0).is_dead);
    }

    #[test]
    fn silence_is_noticed_in_time_while_somebody_works() {
        let mut beat = Heartbeat::new(ms(0));
        beat.watch(true);
        let pings = run(&mut beat, 0..10_000, true);
        assert_eq!(pings.len(), 13, "{pings:?}");
        // The worst time to die is right after an answer.
        let last = pings.last().unwrap().0;
        let silent = run(&mut beat, last + 1..last + 3_000, false);
        let suspect = silent.iter().find(|(_, due)| due.is_suspect).unwrap().0;
        assert_eq!(suspect - last, 2_250);
        // It answers after all.
        beat.heard(ms(suspect + 1));
        assert!(!beat.due(ms(suspect + 1), 0).is_suspect);
    }

    #[test]
    fn an_idle_connection_has_few_pings_and_the_first_edit_has_one_behind_it() {
        let mut beat = Heartbeat::new(ms(0));
        beat.watch(true);
        run(&mut beat, 0..31_000, true);
        let idle = run(&mut beat, 31_000..151_000, true);
        assert_eq!(idle.len(), 8, "{idle:?}");
        beat.active(ms(151_000));
        assert_eq!(beat.next(ms(151_000)).min(ms(151_000)), beat.next(ms(151_000)));
        assert!(beat.due(ms(151_000), 0).ping.is_some());
    }

    #[test]
    fn a_large_upload_is_given_the_time_that_a_slow_line_takes() {
        let mut beat = Heartbeat::new(ms(0));
        beat.watch(true);
        assert_eq!(beat.due(ms(750), 1_280_000).ping, Some(1));
        assert!(!beat.due(ms(750 + 11_399), 1_280_000).is_suspect);
        assert!(!beat.due(ms(750 + 11_400), 1_280_000).is_suspect);
        assert!(beat.due(ms(750 + 11_500), 1_280_000).is_suspect);
        // What was written before a ping that was answered is not in the way of the next.
        assert!(beat.answered(ms(13_000), 1).is_some());
        assert_eq!(beat.due(ms(13_750), 1_280_000).ping, Some(2));
    }

    #[test]
    fn who_slept_reads_what_has_arrived_before_it_suspects_anybody() {
        let mut beat = Heartbeat::new(ms(0));
        beat.watch(true);
        let number = beat.due(ms(750), 0).ping.unwrap();
        assert!(!beat.due(ms(20_000), 0).is_suspect);
        assert_eq!(beat.next(ms(20_000)), ms(20_100));
        beat.heard(ms(20_001));
        beat.answered(ms(20_001), number);
        assert!(!beat.due(ms(20_100), 0).is_suspect);
    }

    #[test]
    fn an_answer_to_an_older_ping_is_no_measurement() {
        let mut beat = Heartbeat::new(ms(0));
        assert_eq!(beat.answered(ms(1), 0), None);
        beat.due(ms(15_000), 0);
        beat.due(ms(30_000), 0);
        assert_eq!(beat.answered(ms(30_001), 1), None);
        assert_eq!(beat.answered(ms(30_040), 2), Some(ms(40)));
    }
}
