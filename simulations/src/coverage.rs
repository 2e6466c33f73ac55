//! Rare states of worlds. Each must be reached by a run over the standard budget of seeds:
//! a world in which they never happen proves nothing about them.
//!
//! Those that a world sees from outside are [`State`]; those that only the engine sees are
//! [`concord::probe::Mark`]. [`STATES`] lists both, in this order.

use std::fmt;

use concord::probe::Mark;

macro_rules! states {
    ($($variant:ident = $what:literal),+ $(,)?) => {
        /// A rare state that a world sees from outside.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum State {
            $(#[doc = $what] $variant),+
        }

        /// What a world sees from outside, in the order of [`State`].
        const OUTSIDE: &[&str] = &[$($what),+];
    };
}

states! {
    ConnectionReplaced = "a connection took the place of its half-open predecessor",
    ConnectionLostBusy = "a connection ended with messages on their way",
    ReaderCut = "a reader that does not read was cut",
    ClosedByFailedWrite = "a connection was closed because a write failed",
    StrangerClosed = "a stranger was shown the door",
    FrameUnreadable = "a frame that cannot be read ended its connection",
    MessageRefused = "a message was not understood",
    OutboxRecalled = "a peer knew after a start that a document of it was on its way",
    CrashDuringJobs = "a crash with reads or jobs under way",
    CrashDuringSends = "a crash with messages waiting to be sent",
    CrashDuringWrites = "a crash with writes under way",
    CrashLeftPart = "a crash left a part of the writes under way",
    WriteWithoutRoom = "a write found no room",
    StoreFailed = "a process ended because its store failed",
    UserToldOfDisk = "a user was told that the disk failed",
    RefusedAtHome = "a change was refused at home because what it builds on was not written",
    RowDamaged = "a damaged row was found",
    IndexRebuilt = "a damaged index was built anew",
    SnapshotLost = "a document went on without its damaged snapshot",
    ToldOfDamage = "a user was told that a document is damaged",
    ToldUnreadable = "a user was told that a document is unreadable",
    ReadWaited = "a read waited for a write",
    LargeFlush = "a flush carried more than eight writes",
    LargeRow = "a change of more than 32 KiB was written",
    SnapshotBuilt = "a snapshot was built",
    SnapshotTookPlace = "a snapshot took the place of changes",
    SnapshotBehindWrites = "a snapshot was written behind other writes",
    DeletedDuringFlush = "covered rows were deleted while something was being flushed",
    CompactedDuringWrites = "a compaction while changes were being appended",
    ChangesChecked = "changes were checked",
    UploadTaken = "an upload was taken change by change",
    Extracted = "old changes were taken out of a snapshot",
    JobWithoutWorker = "a job found no worker",
    JobTooLarge = "a job was too large for its worker",
    JobWithoutRow = "a job found a row gone or unreadable",
    JobPutOff = "a background job was put off",
    OrphanCame = "a change came before what it builds on",
    ChangeRefused = "a change was refused",
    Evicted = "a document left memory",
    EvictedDuringWrites = "a document left memory while writes were under way",
    Quarantined = "a document was quarantined",
    ToldOfWithheld = "a user was told of a change that is withheld",
    NobodyHasIt = "a user was told that nobody has the document",
    PresenceShown = "presence was shown",
    PresenceDropped = "presence was dropped",
    ValuesDisputed = "a conflict of values was open at the end",
    EditOfDeleted = "a conflict of an edit and a delete was open at the end",
    TwinsMade = "a conflict of two objects in one place was open at the end",
    DecisionsDisputed = "a conflict of two decisions was open at the end",
    DecisionClosed = "a decision closed a conflict for good",
    PolicyDecided = "a policy decided a conflict",
    RuleBroken = "a rule that everybody kept was broken at the end",
    Misfit = "a value that the schema cannot read was open at the end",
    MovedTwice = "a thing that was moved to two places was open at the end",
    EntityBuried = "an entity that was deleted while it was edited was open at the end",
    ClaimedTwice = "a name that two entities have was open at the end",
    Dangling = "a reference to a deleted entity was open at the end",
    LetterOpened = "a relay refused a change of a user",
    LetterTaken = "a change that was refused was taken in the end",
    TakenOut = "a refused change was taken out of its document",
    WrittenAgain = "a change that was made behind a refused one was written again",
    CrashWhileTakingOut = "a crash while a change was being taken out",
    TakenOutByStart = "a start finished taking a change out",
    FailedOver = "a peer went on with another relay than it prefers",
    CameBack = "a peer came back to the relay that it prefers",
    RoundInACircle = "parents that go round in a circle were open at the end",
}

/// How many states there are.
pub const COUNT: usize = OUTSIDE.len() + Mark::ALL.len();

/// Every state in words.
pub const STATES: [&str; COUNT] = {
    let mut all = [""; COUNT];
    let mut at = 0;
    while at < COUNT {
        all[at] =
            if at < OUTSIDE.len() { OUTSIDE[at] } else { Mark::ALL[at - OUTSIDE.len()].what() };
        at += 1;
    }
    all
};

/// How often each state was met.
#[derive(Clone, PartialEq, Eq)]
pub struct Coverage([u64; COUNT]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; COUNT])
    }
}

impl fmt::Debug for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Coverage {
    /// A state was met.
    pub const fn met(&mut self, state: State) {
        self.0[state as usize] += 1;
    }

    /// Adds what the engine met.
    pub fn add_marks(&mut self, marks: &[u64; Mark::ALL.len()]) {
        for (count, more) in self.0[OUTSIDE.len()..].iter_mut().zip(marks) {
            *count += more;
        }
    }

    /// Adds what another world met.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    /// How often a state was met.
    pub const fn of(&self, state: State) -> u64 {
        self.0[state as usize]
    }

    /// How often the engine met a state.
    pub const fn of_mark(&self, mark: Mark) -> u64 {
        self.0[OUTSIDE.len() + mark as usize]
    }

    /// Everything that was met, in words.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        STATES.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }

    /// Everything that was not met, in words.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> {
        STATES.into_iter().zip(self.0).filter(|(_, count)| *count == 0).map(|(state, _)| state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_a_place_of_its_own() {
        let mut coverage = Coverage::default();
        assert_eq!(coverage.missing().count(), COUNT);
        coverage.met(State::PresenceDropped);
        let mut marks = [0; Mark::ALL.len()];
        marks[0] = 2;
        coverage.add_marks(&marks);
        coverage.add(&coverage.clone());
        assert_eq!((coverage.of(State::PresenceDropped), coverage.of_mark(Mark::ALL[0])), (2, 4));
        let met = [("presence was dropped", 2), (Mark::ALL[0].what(), 4)];
        assert_eq!(coverage.iter().collect::<Vec<_>>(), met);
        assert_eq!(coverage.missing().count(), COUNT - 2);
        let names: std::collections::BTreeSet<&str> = STATES.into_iter().collect();
        assert_eq!(names.len(), COUNT, "a sentence stands for two states");
    }
}
