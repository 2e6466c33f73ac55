//! Rules that are broken on purpose: a simulation that does not notice has a hole.
//!
//! Each [`Mutant`] is one place in the engine or the store where `mutant!` is asked and the wrong
//! thing is done while it is on. One is on at a time, in one thread.

use std::cell::Cell;

thread_local! {
    static ON: Cell<Option<Mutant>> = const { Cell::new(None) };
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// What a mutant does, and what must notice it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaks {
    /// Names of the invariants of which it breaks one: which, depends on what happens first.
    pub invariants: &'static [&'static str],
    /// What is done wrong, in a sentence.
    pub how: &'static str,
}

macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal breaks [$($invariant:literal),+]),+ $(,)?) => {
        /// A rule that can be broken.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $variant),+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name on the command line and in files.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            /// What it breaks.
            pub const fn what_it_breaks(self) -> Breaks {
                match self {
                    $(Self::$variant => Breaks {
                        invariants: &[$($invariant),+],
                        how: concat!($($doc),+).trim_ascii(),
                    }),+
                }
            }
        }
    };
}

mutants! {
    /// Heads are named before they are on disk.
    NameBeforeFlush = "name-before-flush" breaks ["durability"],
    /// A local call returns before its change is written.
    ReturnBeforeWrite = "return-before-write" breaks ["durability"],
    /// Every fiftieth message vanishes between the engine and the socket.
    LoseMessage = "lose-message" breaks ["convergence", "progress"],
    /// The rows that a snapshot covers are deleted in front of it, not once it is on disk.
    DeleteCoveredEarly = "delete-covered-early" breaks ["durability", "no-silent-loss"],
    /// The root of a snapshot's index is written before the snapshot.
    RootFirst = "root-first" breaks ["durability", "no-silent-loss", "convergence", "progress"],
    /// A change is taken in before what it builds on.
    ForgetDependency = "forget-dependency" breaks ["at-most-once", "durability", "convergence", "no-silent-loss"],
    /// A document leaves memory with writes under way, and nobody remembers what they were for.
    LoseAtEviction = "lose-at-eviction" breaks ["progress", "durability", "local-first"],
    /// A background job that fails keeps its slot, until no document gets one.
    FailedJobKeepsSlot = "failed-job-keeps-slot" breaks ["progress"],
    /// Every tenth background job keeps its slot, until no document gets one.
    LeakJobSlot = "leak-job-slot" breaks ["progress"],
    /// Presence is passed on as often as it comes.
    RepeatPresence = "repeat-presence" breaks ["at-most-once"],
    /// Readers are told the same heads again for ever.
    KeepTalking = "keep-talking" breaks ["quiescence", "progress"],
    /// There is room for any number of changes that wait for their dependencies.
    OrphansUnbounded = "orphans-unbounded" breaks ["bounds"],
    /// A document comes into memory without the last of its stored changes.
    IgnoreStoredChange = "ignore-stored-change" breaks ["convergence", "progress", "at-most-once", "no-silent-loss"],
    /// A snapshot takes the place of changes that came while it was built.
    CompactionDropsTail = "compaction-drops-tail" breaks ["durability", "no-silent-loss", "convergence", "at-most-once"],
    /// A reader whose message was held back counts as told.
    ToldWithoutSending = "told-without-sending" breaks ["convergence", "progress"],
    /// A refused change is dropped, and its writer is not told.
    RefuseSilently = "refuse-silently" breaks ["no-silent-loss"],
    /// A change that breaks its document goes on being served.
    ServeWithheld = "serve-withheld" breaks ["convergence", "progress", "quiescence"],
    /// A call returns twice.
    AnswerTwice = "answer-twice" breaks ["at-most-once"],
    /// Changes are published twice.
    PublishTwice = "publish-twice" breaks ["at-most-once"],
    /// The store acknowledges writes without flushing them.
    SkipFlush = "skip-flush" breaks ["durability"],
    /// The store acknowledges writes whose flush failed.
    AckFailedFlush = "ack-failed-flush" breaks ["durability"],
    /// A conflict does not name the last of its sides.
    ForgetSide = "forget-side" breaks ["no-silent-loss", "convergence"],
    /// Nobody notices what was edited in something that somebody else removed.
    ForgetEditOfDeleted = "forget-edit-of-deleted" breaks ["no-silent-loss"],
    /// Of concurrent writes to one slot the one that came last counts.
    LastToComeWins = "last-to-come-wins" breaks ["convergence", "no-silent-loss"],
    /// The sides of a conflict are in the order in which they came.
    SidesAsTheyCome = "sides-as-they-come" breaks ["convergence"],
    /// A lease is granted though another session holds it.
    GrantHeldLease = "grant-held-lease" breaks ["one-lease"],
    /// A peer takes a lease for its own for as long as it was granted, also without a relay.
    TrustGrantAlone = "trust-grant-alone" breaks ["one-lease"],
    /// An edit made without a relay returns with the first one made with one.
    WaitForNetwork = "wait-for-network" breaks ["local-first", "progress", "durability"],
    /// What was taken out of a document is not kept.
    ForgetDiscarded = "forget-discarded" breaks ["no-silent-loss"],
    /// A document is replaced without a word on what it is to be.
    ReplaceWithoutJournal = "replace-without-journal" breaks ["durability", "no-silent-loss", "convergence"],
    /// The first piece of a large row is written first: half a row looks like one.
    FirstPieceFirst = "first-piece-first" breaks ["durability"],
}

impl Mutant {
    /// The one of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }
}

/// As long as it lives, what was set before is off.
#[derive(Debug)]
pub struct Scope {
    before: Option<Mutant>,
}

/// From now on, in this thread, this rule is broken, or none; until the scope ends.
#[must_use = "the rule is whole again when this is dropped"]
pub fn set(mutant: Option<Mutant>) -> Scope {
    ASKED.set(0);
    Scope { before: ON.replace(mutant) }
}

impl Drop for Scope {
    fn drop(&mut self) {
        ON.set(self.before);
    }
}

pub(crate) fn is_on(mutant: Mutant) -> bool {
    ON.get() == Some(mutant)
}

pub(crate) fn is_on_each(mutant: Mutant, nth: u64) -> bool {
    is_on(mutant) && {
        ASKED.set(ASKED.get() + 1);
        ASKED.get().is_multiple_of(nth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_and_rules_are_whole_again_afterwards() {
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::parse(mutant.name()), Some(*mutant));
            assert!(!mutant.what_it_breaks().how.is_empty());
            assert!(!is_on(*mutant));
            let scope = set(Some(*mutant));
            assert!(is_on(*mutant));
            drop(scope);
            assert!(!is_on(*mutant));
        }
        assert_eq!(Mutant::parse("nobody"), None);
        let _scope = set(Some(Mutant::LoseMessage));
        let lost = (0..100).filter(|_| is_on_each(Mutant::LoseMessage, 50)).count();
        assert_eq!(lost, 2);
    }
}
