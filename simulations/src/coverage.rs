//! Rare states of worlds. Each must be reached by a run over the standard budget of seeds:
//! a world in which they never happen proves nothing about them.

use std::collections::BTreeMap;

/// How often each state was met, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<&'static str, u64>);

impl Coverage {
    /// A state was met.
    pub fn met(&mut self, state: &'static str) {
        *self.0.entry(state).or_default() += 1;
    }

    /// Adds what another world met.
    pub fn add(&mut self, other: &Self) {
        for (state, count) in &other.0 {
            *self.0.entry(state).or_default() += count;
        }
    }

    /// How often a state was met.
    pub fn of(&self, state: &str) -> u64 {
        self.0.get(state).copied().unwrap_or(0)
    }

    /// Everything that was met.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(state, count)| (*state, *count))
    }
}
