//! Which change is the first that breaks: a binary search over prefixes.

/// Searches the shortest prefix that breaks, where the whole is known to break.
///
/// Ask for [`PrefixSearch::next`], try that many from scratch, [`PrefixSearch::tell`] the
/// outcome, until there is nothing left to try.
#[derive(Debug)]
pub(crate) struct PrefixSearch {
    /// The shortest length that may still break.
    low: usize,
    /// The shortest length that is known to break.
    high: usize,
}

impl PrefixSearch {
    /// Among `len` changes that break together. Length zero is tried as well: the base may
    /// break by itself.
    pub(crate) fn new(len: usize) -> Self {
        Self { low: 0, high: len }
    }

    /// The next length to try.
    pub(crate) fn next(&self) -> Option<usize> {
        (self.low < self.high).then(|| self.low + (self.high - self.low) / 2)
    }

    /// What came of the length that [`PrefixSearch::next`] gave.
    pub(crate) fn tell(&mut self, len: usize, breaks: bool) {
        if breaks {
            self.high = len;
        } else {
            self.low = len + 1;
        }
    }

    /// The position of the change that breaks; `None` if it takes none of them. True once
    /// [`PrefixSearch::next`] has nothing more.
    pub(crate) fn culprit(&self) -> Option<usize> {
        self.high.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_position_is_found_in_logarithmic_tries() {
        for len in 0..70_usize {
            for breaking_len in 0..=len {
                let mut search = PrefixSearch::new(len);
                let mut tries = 0;
                while let Some(length) = search.next() {
                    search.tell(length, length >= breaking_len);
                    tries += 1;
                }
                assert_eq!(search.culprit(), breaking_len.checked_sub(1));
                assert!(tries <= 7, "{tries} tries for {len}");
            }
        }
    }
}
