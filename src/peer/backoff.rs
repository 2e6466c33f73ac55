//! How long to wait before dialling again: doubling, with full jitter.
//!
//! Full jitter (a uniform draw below the ceiling) spreads the clients of a relay that restarts
//! over the whole interval; see "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.

/// The first ceiling, in milliseconds.
pub(super) const FIRST_MS: u64 = 500;
/// The highest ceiling, in milliseconds.
pub(super) const MAX_MS: u64 = 30_000;

/// The schedule of one dialler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after one more failure, in milliseconds. `random` is any uniform number.
    pub(super) fn next(&mut self, random: u64) -> u64 {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        random % (ceiling + 1)
    }

    /// Failures in a row.
    pub(super) fn failures(self) -> u32 {
        self.failures
    }

    /// A connection came to speak, and stayed: start over.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The longest that the next delay can be, in milliseconds.
    pub(super) fn ceiling(self) -> u64 {
        // 2^6 * 500 ms is over the maximum, so a larger exponent changes nothing.
        (FIRST_MS << self.failures.min(6)).min(MAX_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_up_to_the_maximum_and_start_over() {
        let mut backoff = Backoff::default();
        let mut ceilings = Vec::new();
        for _ in 0..9 {
            ceilings.push(backoff.ceiling());
            backoff.next(0);
        }
        assert_eq!(ceilings, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        backoff.reset();
        assert_eq!(backoff.ceiling(), FIRST_MS);
    }

    #[test]
    fn delays_spread_over_the_whole_interval() {
        let draw = |random| Backoff { failures: 1 }.next(random);
        assert_eq!(draw(0), 0);
        assert_eq!(draw(1000), 1000);
        assert_eq!(draw(1001), 0);
        assert!(draw(u64::MAX) <= 1000);
    }

    #[test]
    fn many_failures_do_not_overflow() {
        let mut backoff = Backoff { failures: u32::MAX };
        assert!(backoff.next(u64::MAX) <= MAX_MS);
    }
}
