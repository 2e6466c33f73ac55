//! Rare states of worlds. Each must be reached by a run over the standard budget of seeds:
//! a world in which they never happen proves nothing about them.

use std::collections::BTreeMap;

/// Every state in words.
pub const STATES: [&str; 37] = [
    "a background job was put off",
    "a change came before what it builds on",
    "a change was refused",
    "a change was refused at home because what it builds on was not written",
    "a compaction while changes were being appended",
    "a connection ended with messages on their way",
    "a connection took the place of its half-open predecessor",
    "a connection was closed because a write failed",
    "a crash with messages waiting to be sent",
    "a crash with reads or jobs under way",
    "a crash with writes under way",
    "a damaged row was found",
    "a document left memory",
    "a document left memory while writes were under way",
    "a document was quarantined",
    "a flush carried more than eight writes",
    "a frame that cannot be read ended its connection",
    "a job found a row gone or unreadable",
    "a job found no worker",
    "a message was not understood",
    "a process ended because its store failed",
    "a read waited for a write",
    "a reader that does not read was cut",
    "a snapshot took the place of changes",
    "a snapshot was built",
    "a snapshot was written behind other writes",
    "a stranger was shown the door",
    "a user was told that nobody has the document",
    "a user was told that the disk failed",
    "a write found no room",
    "an upload was taken change by change",
    "changes were checked",
    "covered rows were deleted while something was being flushed",
    "old changes were taken out of a snapshot",
    "presence was dropped",
    "presence was shown",
    "what an open document was to be read from was replaced meanwhile",
];

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
    /// Everything that was not met.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> {
        STATES.into_iter().filter(|state| !self.0.contains_key(state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_met_is_missing() {
        let mut coverage = Coverage::default();
        assert_eq!(coverage.missing().count(), STATES.len());
        coverage.met(STATES[3]);
        assert_eq!(coverage.iter().collect::<Vec<_>>(), [(STATES[3], 1)]);
        assert_eq!(coverage.missing().count(), STATES.len() - 1);
    }
}
