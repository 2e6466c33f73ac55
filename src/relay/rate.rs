//! Token buckets: how much one connection may send.

/// Milliseconds without a pause after which sending too much is abuse and not a burst.
pub const SUSTAINED_MS: u64 = 60_000;

/// What one connection may send. Whoever sends more is read later, which TCP tells them; who
/// keeps that up for [`RateLimits::sustained_ms`] is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits {
    /// Frames a second. A person types ten; an import sends some thousands.
    pub frames: u32,
    /// Frames at once.
    pub frame_burst: u32,
    /// Bytes a second.
    pub bytes: u32,
    /// Bytes at once: at least one message of the largest size.
    pub byte_burst: u32,
    /// See [`SUSTAINED_MS`].
    pub sustained_ms: u64,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            frames: 50_000,
            frame_burst: 100_000,
            bytes: 64 * 1024 * 1024,
            byte_burst: 256 * 1024 * 1024,
            sustained_ms: SUSTAINED_MS,
        }
    }
}

/// What to do after a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Go on.
    Go,
    /// Read nothing before this `mono_ms`.
    PauseUntil(u64),
    /// It never stopped.
    Abuse,
}

/// The buckets of one connection.
#[derive(Debug, Clone)]
pub(super) struct Limiter {
    frames: Bucket,
    bytes: Bucket,
    over_since: Option<u64>,
}

impl Limiter {
    pub(super) fn new(limits: &RateLimits, now_ms: u64) -> Self {
        Self {
            frames: Bucket::full(limits.frame_burst, now_ms),
            bytes: Bucket::full(limits.byte_burst, now_ms),
            over_since: None,
        }
    }

    /// Takes in one frame of so many bytes.
    pub(super) fn charge(&mut self, limits: &RateLimits, now_ms: u64, bytes: usize) -> Verdict {
        self.frames.refill(limits.frames, limits.frame_burst, now_ms);
        self.bytes.refill(limits.bytes, limits.byte_burst, now_ms);
        if self.frames.is_half_full(limits.frame_burst)
            && self.bytes.is_half_full(limits.byte_burst)
        {
            self.over_since = None;
        }
        self.frames.take(1);
        self.bytes.take(bytes);
        let wait = self.frames.wait_ms(limits.frames).max(self.bytes.wait_ms(limits.bytes));
        if wait == 0 {
            return Verdict::Go;
        }
        let since = *self.over_since.get_or_insert(now_ms);
        if now_ms.saturating_sub(since) >= limits.sustained_ms {
            Verdict::Abuse
        } else {
            Verdict::PauseUntil(now_ms.saturating_add(wait))
        }
    }
}

/// Thousandths of tokens, so that a slow refill is exact by the millisecond.
#[derive(Debug, Clone)]
struct Bucket {
    level: i64,
    at_ms: u64,
}

impl Bucket {
    fn full(burst: u32, now_ms: u64) -> Self {
        Self { level: i64::from(burst) * 1_000, at_ms: now_ms }
    }

    fn refill(&mut self, rate: u32, burst: u32, now_ms: u64) {
        let passed = i64::try_from(now_ms.saturating_sub(self.at_ms)).unwrap_or(i64::MAX);
        let gained = passed.saturating_mul(i64::from(rate));
        self.level = self.level.saturating_add(gained).min(i64::from(burst) * 1_000);
        self.at_ms = now_ms;
    }

    fn take(&mut self, tokens: usize) {
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX).saturating_mul(1_000);
        self.level = self.level.saturating_sub(tokens);
    }

    fn is_half_full(&self, burst: u32) -> bool {
        self.level >= i64::from(burst) * 500
    }

    /// Milliseconds until nothing is owed.
    fn wait_ms(&self, rate: u32) -> u64 {
        let owed = self.level.min(0).unsigned_abs();
        owed.div_ceil(u64::from(rate.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RateLimits = RateLimits {
        frames: 10,
        frame_burst: 5,
        bytes: 1_000,
        byte_burst: 2_000,
        sustained_ms: 1_000,
    };

    #[test]
    fn a_burst_passes_and_the_next_frame_waits_for_its_token() {
        let mut limiter = Limiter::new(&LIMITS, 0);
        for _ in 0..5 {
            assert_eq!(limiter.charge(&LIMITS, 0, 1), Verdict::Go);
        }
        assert_eq!(limiter.charge(&LIMITS, 0, 1), Verdict::PauseUntil(100));
        assert_eq!(limiter.charge(&LIMITS, 300, 1), Verdict::Go);
    }

    #[test]
    fn one_large_frame_is_paid_off_in_time() {
        let mut limiter = Limiter::new(&LIMITS, 0);
        assert_eq!(limiter.charge(&LIMITS, 0, 5_000), Verdict::PauseUntil(3_000));
        assert_eq!(limiter.charge(&LIMITS, 3_100, 1), Verdict::Go);
    }

    #[test]
    fn only_who_never_stops_is_cut_off() {
        let mut limiter = Limiter::new(&LIMITS, 0);
        let mut now = 0;
        let mut verdict = Verdict::Go;
        while now < 5_000 && verdict != Verdict::Abuse {
            verdict = limiter.charge(&LIMITS, now, 1);
            if let Verdict::PauseUntil(then) = verdict {
                now = then;
            }
        }
        assert_eq!(verdict, Verdict::Abuse);
        assert!((1_000..2_000).contains(&now), "cut off at {now} ms");

        // Who rests between bursts goes on for ever.
        let mut limiter = Limiter::new(&LIMITS, 0);
        for burst in 0..100 {
            for _ in 0..6 {
                assert_ne!(limiter.charge(&LIMITS, burst * 2_000, 1), Verdict::Abuse);
            }
        }
    }

    #[test]
    fn a_clock_that_stands_still_or_leaps_does_no_harm() {
        let mut limiter = Limiter::new(&LIMITS, 50);
        assert_eq!(limiter.charge(&LIMITS, 0, 1), Verdict::Go);
        assert_eq!(limiter.charge(&LIMITS, u64::MAX, usize::MAX), Verdict::PauseUntil(u64::MAX));
    }
}
