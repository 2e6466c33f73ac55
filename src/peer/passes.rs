//! How long it takes until relays have what was edited here: the last hundred *passes*. A pass
//! begins when something waits and a relay is there, and ends when nothing waits any more. One whose
//! relay goes meanwhile begins anew with the next relay: being offline is no slowness.
//!
//! No I/O here: the outbox says how things stand.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::VecDeque;

use crate::replica::Now;

/// Passes that are kept.
pub const PASSES_MAX: usize = 100;

/// From something that waits for a relay to nothing that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pass {
    /// When it ended, milliseconds since 1970.
    pub ended_ms: u64,
    /// How long it took, milliseconds.
    pub took_ms: u64,
    /// Documents that were confirmed.
    pub documents: u64,
    /// Bytes that went to relays meanwhile, with all else that was sent.
    pub sent_bytes: u64,
    /// Bytes that came from relays meanwhile.
    pub received_bytes: u64,
}

/// What passes were like, one with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassAverage {
    /// How many passes this is of.
    pub passes: u64,
    /// See [`Pass::took_ms`].
    pub took_ms: u64,
    /// See [`Pass::documents`].
    pub documents: u64,
    /// See [`Pass::sent_bytes`].
    pub sent_bytes: u64,
    /// See [`Pass::received_bytes`].
    pub received_bytes: u64,
}

/// The last passes, and when a relay was last known to have what is here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Passes {
    ring: VecDeque<Pass>,
    under_way: Option<Begun>,
    synchronised_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Begun {
    at_ms: u64,
    documents: u64,
    bytes: Bytes,
}

/// Bytes sent to relays and received from them, ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Bytes {
    pub(super) sent: u64,
    pub(super) received: u64,
}

impl Passes {
    /// The last [`PASSES_MAX`] of them since the peer was opened, the oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Pass> + DoubleEndedIterator {
        self.ring.iter()
    }

    /// What they were like on average; `None` before the first.
    pub fn average(&self) -> Option<PassAverage> {
        let passes = u64::try_from(self.ring.len()).ok().filter(|passes| *passes > 0)?;
        let mean = |of: fn(&Pass) -> u64| {
            let sum = self.ring.iter().map(|pass| u128::from(of(pass))).sum::<u128>();
            // No mean is more than the greatest.
            u64::try_from(sum / u128::from(passes)).unwrap_or(u64::MAX)
        };
        Some(PassAverage {
            passes,
            took_ms: mean(|pass| pass.took_ms),
            documents: mean(|pass| pass.documents),
            sent_bytes: mean(|pass| pass.sent_bytes),
            received_bytes: mean(|pass| pass.received_bytes),
        })
    }

    /// When a relay last confirmed a document, or came while nothing waited, milliseconds since
    /// 1970; `None`: not since the peer was opened.
    pub fn synchronised_ms(&self) -> Option<u64> {
        self.synchronised_ms
    }

    /// A relay has all of one more document.
    pub(super) fn confirmed(&mut self, now: Now) {
        self.synchronised_ms = Some(now.wall_ms);
        if let Some(begun) = &mut self.under_way {
            begun.documents += 1;
        }
    }

    /// A relay is there, and nothing waits for it.
    pub(super) fn in_step(&mut self, now: Now) {
        self.synchronised_ms = Some(now.wall_ms);
    }

    /// How things stand: whether a relay is there, and whether something waits for it. `bytes` is
    /// asked only where a pass begins or ends. Gives whether one ended.
    pub(super) fn stands(
        &mut self,
        now: Now,
        (is_online, is_waiting): (bool, bool),
        bytes: impl FnOnce() -> Bytes,
    ) -> bool {
        match (is_online && is_waiting, self.under_way) {
            (true, None) => {
                let bytes = bytes();
                self.under_way = Some(Begun { at_ms: now.mono_ms, documents: 0, bytes });
                false
            }
            (false, Some(begun)) => {
                self.under_way = None;
                // What was refused, or is gone from here, says nothing of how fast relays are.
                let is_done = is_online && begun.documents > 0;
                if is_done {
                    self.add(now, begun, bytes());
                }
                is_done
            }
            _ => false,
        }
    }

    fn add(&mut self, now: Now, begun: Begun, bytes: Bytes) {
        if self.ring.len() >= PASSES_MAX {
            self.ring.pop_front();
        }
        self.ring.push_back(Pass {
            ended_ms: now.wall_ms,
            took_ms: now.mono_ms.saturating_sub(begun.at_ms),
            documents: begun.documents,
            sent_bytes: bytes.sent.saturating_sub(begun.bytes.sent),
            received_bytes: bytes.received.saturating_sub(begun.bytes.received),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono_ms: ms, wall_ms: 1_000_000 + ms }
    }

    fn bytes(sent: u64) -> impl FnOnce() -> Bytes {
        move || Bytes { sent, received: sent * 2 }
    }

    #[test]
    fn a_pass_is_from_the_first_that_waits_to_none_that_does() {
        let mut passes = Passes::default();
        assert!(!passes.stands(at(0), (true, false), bytes(0)), "nothing waits");
        passes.stands(at(5), (true, true), bytes(100));
        passes.stands(at(6), (true, true), bytes(150));
        passes.confirmed(at(20));
        passes.confirmed(at(25));
        assert!(passes.stands(at(25), (true, false), bytes(400)));
        let pass = Pass {
            ended_ms: 1_000_025,
            took_ms: 20,
            documents: 2,
            sent_bytes: 300,
            received_bytes: 600,
        };
        assert_eq!(passes.iter().copied().collect::<Vec<_>>(), [pass]);
        assert_eq!(passes.synchronised_ms(), Some(1_000_025));
    }

    #[test]
    fn being_offline_is_no_slowness_and_refusals_are_no_passes() {
        let mut passes = Passes::default();
        passes.stands(at(0), (true, true), bytes(0));
        passes.stands(at(10), (false, true), bytes(0));
        assert_eq!((passes.iter().len(), passes.average()), (0, None));
        passes.stands(at(7_200_000), (true, true), bytes(0));
        passes.confirmed(at(7_200_003));
        assert!(passes.stands(at(7_200_003), (true, false), bytes(0)));
        assert_eq!(passes.iter().next().unwrap().took_ms, 3);
        // All that waited was refused.
        passes.stands(at(8_000_000), (true, true), bytes(0));
        assert!(!passes.stands(at(8_000_001), (true, false), bytes(0)));
        assert_eq!(passes.iter().len(), 1);
        // A clock that jumps back takes nothing with it.
        passes.stands(at(9_000_000), (true, true), bytes(9));
        passes.confirmed(at(1));
        assert!(passes.stands(at(1), (true, false), bytes(0)));
        let last = passes.iter().next_back().unwrap();
        assert_eq!((last.took_ms, last.sent_bytes), (0, 0));
    }

    #[test]
    fn the_last_hundred_are_kept_and_averages_are_of_them() {
        let mut passes = Passes::default();
        for n in 0..250 {
            passes.stands(at(n * 1_000), (true, true), bytes(n * 50));
            passes.confirmed(at(n * 1_000));
            passes.stands(at(n * 1_000 + n), (true, false), bytes(n * 50 + 10));
        }
        assert_eq!(passes.iter().len(), PASSES_MAX);
        let average = passes.average().unwrap();
        // 150 to 249.
        assert_eq!((average.passes, average.took_ms, average.documents), (100, 199, 1));
        assert_eq!((average.sent_bytes, average.received_bytes), (10, 20));
    }
}
