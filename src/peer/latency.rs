//! How long a relay takes to answer, smoothed as TCP does it (RFC 6298).

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

/// The smoothed round trip, and by how much it varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Latency(Option<Measured>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Measured {
    smoothed: Duration,
    variation: Duration,
}

impl Latency {
    /// One more round trip.
    pub(super) fn add(&mut self, trip: Duration) {
        self.0 = Some(match self.0 {
            None => Measured { smoothed: trip, variation: trip / 2 },
            Some(Measured { smoothed, variation }) => Measured {
                variation: (variation * 3 + smoothed.abs_diff(trip)) / 4,
                smoothed: (smoothed * 7 + trip) / 8,
            },
        });
    }

    /// The smoothed round trip; `None` before the first.
    pub(super) fn smoothed(self) -> Option<Duration> {
        self.0.map(|measured| measured.smoothed)
    }

    /// What an answer nearly always stays below: what TCP waits before it sends again.
    pub(super) fn at_most(self) -> Option<Duration> {
        self.0.map(|measured| measured.smoothed + measured.variation * 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_answer_among_many_moves_it_little() {
        let mut latency = Latency::default();
        assert_eq!(latency.smoothed(), None);
        for _ in 0..50 {
            latency.add(Duration::from_millis(40));
        }
        latency.add(Duration::from_millis(440));
        assert_eq!(latency.smoothed(), Some(Duration::from_millis(90)));
        assert!(latency.at_most() > Some(Duration::from_millis(440)), "and patience grows with it");
    }
}
