//! Latencies in bounded memory, and the arithmetic of rates.

use std::time::Duration;

use serde::Serialize;

/// Buckets per doubling: values are told apart to within 1 in 64.
const STEPS: u64 = 64;
/// Values below this have a bucket each.
const EXACT: u64 = 2 * STEPS;
/// Enough buckets for every `u64`.
const BUCKETS: usize = 64 * 60;

/// Counts of latencies, to the nearest 1.6 percent.
#[derive(Debug, Clone)]
pub(super) struct Latencies {
    buckets: Vec<u64>,
    count: u64,
    max_us: u64,
}

/// What is reported of latencies, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    pub(super) samples: u64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, max_us: 0 }
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.buckets.get_mut(bucket_of(us)) {
            *bucket += 1;
        }
        self.count += 1;
        self.max_us = self.max_us.max(us);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *ours += theirs;
        }
        self.count += other.count;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// `None` when nothing was recorded.
    pub(super) fn percentiles(&self) -> Option<Percentiles> {
        (self.count > 0).then(|| Percentiles {
            p50_ms: self.quantile_ms(50),
            p95_ms: self.quantile_ms(95),
            p99_ms: self.quantile_ms(99),
            max_ms: ms(self.max_us),
            samples: self.count,
        })
    }

    fn quantile_ms(&self, percent: u64) -> f64 {
        let rank = (self.count * percent).div_ceil(100);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return ms(lowest_of(index).min(self.max_us));
            }
        }
        ms(self.max_us)
    }
}

fn bucket_of(us: u64) -> usize {
    if us < EXACT {
        return usize::try_from(us).unwrap_or(0);
    }
    let shift = us.ilog2() - STEPS.ilog2();
    let index = u64::from(shift) * STEPS + (us >> shift);
    usize::try_from(index).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

fn lowest_of(index: usize) -> u64 {
    let index = u64::try_from(index).unwrap_or(u64::MAX);
    if index < EXACT {
        return index;
    }
    let shift = index / STEPS - 1;
    (index - shift * STEPS) << shift
}

fn ms(us: u64) -> f64 {
    to_f64(us) / 1_000.0
}

/// For figures that people read: exact to 15 digits.
#[expect(clippy::cast_precision_loss, reason = "figures are rounded to a few digits anyway")]
pub(super) fn to_f64(count: impl TryInto<u64>) -> f64 {
    count.try_into().unwrap_or(u64::MAX) as f64
}

/// A rate; 0 when no time went by.
pub(super) fn per_second(count: impl TryInto<u64>, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { to_f64(count) / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_two_percent() {
        let mut latencies = Latencies::new();
        for us in 1..=10_000 {
            latencies.record(Duration::from_micros(us));
        }
        let found = latencies.percentiles().unwrap();
        for (found, expected) in
            [(found.p50_ms, 5.0), (found.p95_ms, 9.5), (found.p99_ms, 9.9), (found.max_ms, 10.0)]
        {
            assert!((found - expected).abs() <= expected * 0.02, "{found} {expected}");
        }
        assert_eq!(found.samples, 10_000);
        assert!(Latencies::new().percentiles().is_none());
    }

    #[test]
    fn buckets_rise_with_their_values() {
        let mut last = 0;
        for power in 0..64 {
            for value in [1_u64 << power, (1 << power) + (1 << power) / 3] {
                let bucket = bucket_of(value);
                assert!(bucket >= last && bucket < BUCKETS);
                assert!(lowest_of(bucket) <= value);
                assert!(value - lowest_of(bucket) <= value / STEPS);
                last = bucket;
            }
        }
    }

    #[test]
    fn merging_adds() {
        let (mut a, mut b) = (Latencies::new(), Latencies::new());
        a.record(Duration::from_millis(1));
        b.record(Duration::from_millis(100));
        a.merge(&b);
        let found = a.percentiles().unwrap();
        assert_eq!(found.samples, 2);
        assert!((found.max_ms - 100.0).abs() < f64::EPSILON);
    }
}
