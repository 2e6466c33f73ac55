//! Rare states that only the engine can see, counted for simulations. The counts are the
//! thread's: a world runs in one.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher as _},
};

thread_local! {
    static COUNTS: [Cell<u64>; Mark::ALL.len()] = const { [const { Cell::new(0) }; Mark::ALL.len()] };
    static EARLIER: RefCell<BTreeSet<(Mark, u64)>> = const { RefCell::new(BTreeSet::new()) };
}

macro_rules! marks {
    ($($variant:ident = $what:literal),+ $(,)?) => {
        /// A rare state of the engine or the store.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mark {
            $(#[doc = $what] $variant),+
        }

        impl Mark {
            /// All of them, each at the place of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// It in words.
            pub const fn what(self) -> &'static str {
                match self {
                    $(Self::$variant => $what),+
                }
            }
        }
    };
}

marks! {
    // Coming into memory, and leaving it.
    WaitedForLoad = "something came for a document that was being read",
    TwoSnapshotsAtStart = "two snapshots were found at start, one covering the other",
    CoveredRowsAtStart = "changes that a snapshot covers were found at start and deleted",
    OrphansAtStart = "stored changes lacked what they build on",
    WithheldAtStart = "a change that breaks its document was found at start, and stayed withheld",
    FirstMetaRead = "a meta row of the first format was read",
    PagesToSort = "index pages were read to put stored changes in order",
    PagesForReader = "an index page was missing because somebody asked far back, and was read",
    PagesForChange = "an index page was missing to judge a change, and was read",
    PagesReplaced = "index pages came of a snapshot that had been replaced meanwhile",
    PagesDropped = "index pages left memory before their document",
    BeganAgain = "readers were made to begin again because stored rows were damaged",
    EvictionPutOff = "a document could not leave memory while something was under way",
    EvictionWithWrite = "a document could not leave memory because its writer was to be answered",
    EvictedWithReaders = "a document left memory, and its readers stayed",
    LoadedForReader = "a document was read again because a reader that had stayed spoke",

    // Changes.
    Duplicate = "a change came that was here already",
    KnownFromUpload = "a change came from a peer while an upload that holds it was being opened",
    OrphanAgain = "a change that waits for its dependencies came again",
    OrphanAdopted = "a change that waited was taken in",
    OrphanFromOther = "what a change waited for came by another connection",
    OrphanCap = "a change that waited gave way to newer ones",
    ToldToForget = "a peer was told to send again what it had sent",
    OrphanOfRefused = "a change was refused because what it builds on had been",
    OnWithheld = "a change came that builds on one that is withheld",
    RefusedWithWaiting = "a change was refused, and those that waited for it",
    MalformedRefused = "a chunk that is none was refused",
    FailedClosed = "a document's storage failed, and its connections were closed",
    ResentAfterFailure = "a document whose storage had failed took in changes again",
    FailedWithCalls = "a document's storage failed with calls under way",
    AdmissionWaited = "changes waited for a job before they were checked (strict)",
    AdmissionAgain = "a check before admission found no worker, and is done again (strict)",

    // What readers are told.
    ToldNothing = "a reader had nothing to hear",
    ConfirmedLater = "a reader was to hear later of what is on disk",
    ConfirmedNothing = "the time came to tell a reader what is on disk, and it knew",
    ToldChanges = "a reader was told of changes of the tail",
    ToldAll = "a reader that has nothing was sent the whole document",
    ToldSnapshot = "a reader was sent a snapshot",
    ToldExtract = "a reader was sent changes taken out of a snapshot",
    OldReaderExtract = "a reader of version 1 was sent changes taken out of a snapshot",
    ExtractFailed = "changes could not be taken out of a snapshot, and the snapshot was sent",
    ExtractWaited = "a reader waited for changes to be taken out of a snapshot for another",
    ToldInParts = "what a reader lacked did not fit one message",
    ToldAlike = "two readers were told the same, made once",
    HeldBack = "a reader was held back for want of room",
    Resumed = "a reader that had been held back was told when there was room",
    AskedByName = "changes were asked for by name",
    NeedServed = "a change that was asked for by name was sent",
    FilterHid = "a change that a filter had hidden was asked for by name and sent",
    FilterStopped = "a walk stopped where the other side's filter says that it has the rest",
    ResetSaid = "a peer that builds on what we no longer have was asked for everything",
    ResetHeard = "a peer asked to begin again",
    SnapshotRead = "a snapshot was read for a reader",
    SnapshotReplaced = "a snapshot was replaced while it was read for a reader",
    LostDuringRead = "a connection ended while a snapshot was read for it or taken apart",
    LostWithSnapshot = "a connection ended with a snapshot on its way",
    BackAfterSnapshot = "a reader came back after its connection ended with a snapshot on its way",
    ArrivalAwaited = "an asker waited because somebody was sending the document",
    ArrivalTimedOut = "an asker was told that there is nothing after it had waited",
    ArrivalCame = "what an asker waited for came in time",
    RequestSent = "a document of which nothing is here was asked for",
    DrainedBusy = "a replica was drained in the middle of a sync",
    StalledClosed = "a connection was closed because it read nothing for long",
    FullClosed = "a connection was closed because its queue was full",
    HeardWhileClosing = "a message came over a connection that was being closed",

    // Leases.
    LeaseHeld = "a lease was not granted because somebody else held it",
    LeaseTakenOver = "a lease was taken over",
    LeaseExpired = "the time of a lease was up",
    LeaseHolderLost = "the connection of a lease's holder ended",
    LeaseOverNewConnection = "the holder of a lease came back over another connection",
    LeaseSettling = "a lease was not granted because the relay had just started",
    LeaseBack = "the holder of a lease came back to a relay that had started again",
    LeaseLapsed = "no relay had answered in time to who held a lease",
    LeaseBackFromAnother = "two came back for one lease, and the later holder got it",

    // Jobs and snapshots.
    SlotAwaited = "a background job waited for a slot",
    PutOff = "a background job was put off until later",
    DoneAfterPutOff = "a background job that had been put off was done",
    RemovedInParts = "rows that a snapshot covers went in several writes",
    TailStayed = "changes came while a snapshot was built, and stayed behind it",
    AdoptedUpload = "a snapshot that a peer uploaded took effect",
    SnapshotSame = "a snapshot was built that was there already",
    SnapshotForgotten = "a snapshot came to disk after the storage of its document had failed",
    UploadQueued = "an upload waited behind other work of its document",
    UploadKnown = "an upload held nothing new",
    UploadAgain = "an upload found no worker, and was opened later",
    UploadRefused = "an upload was refused",

    // The store.
    RowHalfWritten = "a large row that was half written was found, and taken for none",
    RowMended = "a row was written again that was there and different",
    ReadRefused = "a read was refused because what it reads may not be on disk",
    WriteRefused = "a write was refused because an earlier one failed",
}

/// Ends what was counted and remembered; gives the counts.
pub fn drain() -> [u64; Mark::ALL.len()] {
    EARLIER.with_borrow_mut(BTreeSet::clear);
    COUNTS.with(|counts| std::array::from_fn(|at| counts[at].take()))
}

pub(crate) fn met(mark: Mark) {
    COUNTS.with(|counts| {
        let count = &counts[mark as usize];
        count.set(count.get() + 1);
    });
}

pub(crate) fn met_of(mark: Mark, key: &impl Hash) {
    met(mark);
    EARLIER.with_borrow_mut(|earlier| earlier.insert((mark, hash(key))));
}

pub(crate) fn met_after(mark: Mark, first: Mark, key: &impl Hash) {
    let was = COUNTS.with(|counts| counts[first as usize].get() > 0)
        && EARLIER.with_borrow_mut(|earlier| earlier.remove(&(first, hash(key))));
    if was {
        met(mark);
    }
}

fn hash(key: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_counted_until_they_are_drained() {
        drain();
        met(Mark::Duplicate);
        met_after(Mark::DoneAfterPutOff, Mark::PutOff, &"a");
        met_of(Mark::PutOff, &"a");
        met_after(Mark::DoneAfterPutOff, Mark::PutOff, &"b");
        met_after(Mark::DoneAfterPutOff, Mark::PutOff, &"a");
        met_after(Mark::DoneAfterPutOff, Mark::PutOff, &"a");
        let counts = drain();
        let of = |mark: Mark| counts[mark as usize];
        assert_eq!((of(Mark::Duplicate), of(Mark::PutOff), of(Mark::DoneAfterPutOff)), (1, 1, 1));
        assert_eq!(counts.iter().sum::<u64>(), 3);
        assert_eq!(drain().iter().sum::<u64>(), 0);
        for (number, mark) in Mark::ALL.iter().enumerate() {
            assert_eq!(*mark as usize, number);
        }
    }
}
