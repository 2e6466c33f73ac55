//! Changes that were refused: the last so many. What builds on one is refused too, and what is made
//! next builds on what was refused last.

use std::collections::{BTreeSet, VecDeque};

use concord_protocol::ChangeHash;

/// How many are remembered of one document, and of one peer in it.
pub(super) const REFUSED_MAX: usize = 1_024;

/// See the module.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    known: BTreeSet<ChangeHash>,
    /// In the order in which they were refused.
    order: VecDeque<ChangeHash>,
}

impl Refused {
    /// Notes one; the oldest gives way.
    pub(super) fn insert(&mut self, hash: ChangeHash) {
        if !self.known.insert(hash) {
            return;
        }
        self.order.push_back(hash);
        if self.order.len() > REFUSED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// It may be taken now.
    pub(super) fn remove(&mut self, hash: &ChangeHash) {
        if self.known.remove(hash) {
            self.order.retain(|known| known != hash);
        }
    }

    pub(super) fn contains(&self, hash: &ChangeHash) -> bool {
        self.known.contains(hash)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_remembered() {
        let hash = |number: u32| {
            let mut hash = [0; 32];
            // Their order as hashes is not that in which they come.
            hash[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b1).to_be_bytes());
            ChangeHash(hash)
        };
        let mut refused = Refused::default();
        let more = u32::try_from(REFUSED_MAX).unwrap() + 10;
        for number in (0..more).chain([more - 1]) {
            refused.insert(hash(number));
        }
        let known = |refused: &Refused| (0..more).filter(|n| refused.contains(&hash(*n))).count();
        assert_eq!(known(&refused), REFUSED_MAX);
        assert!(!refused.contains(&hash(9)) && refused.contains(&hash(10)));
        refused.remove(&hash(10));
        assert_eq!(known(&refused), REFUSED_MAX - 1);
        refused.clear();
        assert_eq!(known(&refused), 0);
    }
}
