//! The clocks of this process, as the replica wants them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::replica::Now;

/// Reads the time since the relay started, and the wall clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Milliseconds since the start.
    pub(super) fn mono_ms(self) -> u64 {
        saturating_ms(self.start.elapsed())
    }

    pub(super) fn now(self) -> Now {
        // A wall clock before 1970 is reported as 1970: people will see that it is wrong.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Now { mono_ms: self.mono_ms(), wall_ms: wall.map_or(0, saturating_ms) }
    }

    /// Seconds since 1970.
    pub(super) fn now_s(self) -> i64 {
        i64::try_from(self.now().wall_ms / 1_000).unwrap_or(i64::MAX)
    }

    /// Milliseconds since 1970.
    pub(super) fn now_ms(self) -> i64 {
        i64::try_from(self.now().wall_ms).unwrap_or(i64::MAX)
    }

    /// When `mono_ms` is, for a timer. Far futures are capped at a day: the timer is set again.
    pub(super) fn instant(self, mono_ms: u64) -> Instant {
        const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
        let now = self.mono_ms();
        let ahead = mono_ms.saturating_sub(now).min(DAY_MS);
        Instant::now() + Duration::from_millis(ahead)
    }
}

fn saturating_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
