//! What goes into the replica and what comes out of it.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use concord_protocol::{
    Ack, ChangeHash, CloseCode, DocumentId, Message, PeerId, PeerMetadata, RefuseCode, SessionId,
};

use super::index::SnapshotIndex;

/// The time, as the caller reads it. The replica has no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Milliseconds that only go forward, from any start: for timers.
    pub mono_ms: u64,
    /// Milliseconds since 1970, which may jump: for what people read.
    pub wall_ms: u64,
}

/// One connection of this process, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// One request of the replica to its surroundings, answered by one event that repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerInfo {
    /// Its name.
    pub peer: PeerId,
    /// What it said of itself.
    pub metadata: PeerMetadata,
    /// Whether `concord.v1` was negotiated.
    pub concord: bool,
    /// Whether we dialled it. We tell a relay that we dialled of every document that we hold; to
    /// one who dialled us we speak only of documents that it names.
    pub dialled: bool,
}

/// What kind of row of a document's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// What is true of the document as a whole: one row, id zero.
    Meta = 1,
    /// The root of a snapshot's index. The id is the snapshot's.
    IndexRoot = 2,
    /// One page of a snapshot's index. The id is the snapshot's, `part` the page.
    IndexPage = 3,
    /// An Automerge document chunk; the id is the SHA-256 of its bytes.
    Snapshot = 4,
    /// An Automerge change chunk; the id is the change's hash.
    Change = 5,
    /// Bytes that were accepted once and then found to break the document: kept, not served.
    Quarantine = 6,
}

/// Names one row of one document's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// Of what kind.
    pub kind: Kind,
    /// Which one of the kind.
    pub id: [u8; 32],
    /// Which part of it; zero but for index pages.
    pub part: u32,
}

/// One change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowWrite {
    /// Write it, or leave it if it is there: rows are content-addressed, but for `Meta`. One that
    /// is there and differs was damaged, and is written again.
    Put(RowKey, Bytes),
    /// Remove it.
    Delete(RowKey),
    /// Remove every row of the document but `Meta`, those that nobody knows of too.
    Clear,
}

/// What a document's storage held when it was opened.
#[derive(Debug, Clone, Default)]
pub struct StoredDocument {
    /// The `Meta` row.
    pub meta: Option<Bytes>,
    /// The `IndexRoot` rows: one for each snapshot that was completely written.
    pub roots: Vec<([u8; 32], Bytes)>,
    /// The `Change` rows, in any order.
    pub changes: Vec<(ChangeHash, Bytes)>,
    /// Rows that failed their checksum. They stay where they are and are reported.
    pub corrupt: Vec<RowKey>,
}

/// Where the bytes of a chunk are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkSource {
    /// In storage.
    Stored(RowKey),
    /// Here.
    Inline(Bytes),
}

/// Work that needs the operation set, done by a materialiser away from the replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Make one snapshot of all of these chunks together, with its index.
    Build {
        /// What is ours and already checked: snapshots first, then changes in causal order.
        base: Vec<ChunkSource>,
        /// What a peer sent, a document chunk among it: a failure here is the peer's.
        incoming: Vec<Bytes>,
        /// Where `incoming` holds no more than this many changes, give those that are not in
        /// `base` as [`JobOutput::Changes`] and make no snapshot: young documents are uploaded
        /// whole at every edit. Zero: always a snapshot.
        explode_max: u32,
    },
    /// Read these changes out of a snapshot, in this order.
    Extract {
        /// The snapshot.
        snapshot: ChunkSource,
        /// Which changes.
        hashes: Vec<ChangeHash>,
    },
    /// Apply `incoming` to `base`, in order, and name the first that breaks.
    Check {
        /// What is ours.
        base: Vec<ChunkSource>,
        /// Changes in causal order.
        incoming: Vec<ChunkSource>,
    },
}

/// What a job gave.
#[derive(Debug, Clone)]
pub enum JobOutput {
    /// Of [`Job::Build`]: the snapshot loads again with the index's heads (verified).
    Built {
        /// The document chunk.
        snapshot: Bytes,
        /// Its index.
        index: Arc<SnapshotIndex>,
    },
    /// Of [`Job::Build`] with few enough incoming changes, or one that is too large among them: the new
    /// ones, each as a change chunk, in causal order.
    Changes(Vec<Bytes>),
    /// Of [`Job::Extract`]: change chunks in the order asked for.
    Extracted(Vec<Bytes>),
    /// Of [`Job::Check`]: all of them apply.
    Checked,
    /// Of a question about conflicts, which replicas do not ask: an
    /// [`Answer`](crate::review::desk::Answer) as JSON.
    Reviewed(Bytes),
}

/// Why a job gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// What a peer sent cannot be opened. Nothing of ours is touched.
    #[error("the incoming bytes cannot be opened: {0}")]
    Incoming(String),
    /// One change breaks the document: it panics automerge, is not read back as it was written,
    /// or makes a document that does not load again.
    #[error("change {hash} breaks the document: {reason}")]
    Breaks {
        /// The change.
        hash: ChangeHash,
        /// How.
        reason: String,
    },
    /// Our own bytes cannot be opened, and no single change is to blame.
    #[error("the stored document cannot be opened: {0}")]
    Base(String),
    /// Larger or slower than the limits of a worker allow.
    #[error("over the worker's limits: {0}")]
    OverLimit(String),
    /// A row could not be read, or is not there.
    #[error("storage: {0}")]
    Storage(StorageFailure),
    /// There is no worker to do it; try again later.
    #[error("no worker: {0}")]
    Unavailable(String),
}

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// The handshake of a connection is done.
    Connected(ConnectionId, PeerInfo),
    /// A message came.
    Received(ConnectionId, Message),
    /// This many bytes of what was to be sent have left for the network.
    Drained(ConnectionId, usize),
    /// The connection is gone; nothing more will come of it.
    Disconnected(ConnectionId),
    /// Answers [`Effect::Load`].
    Loaded(Ticket, Result<StoredDocument, StorageFailure>),
    /// Answers [`Effect::Read`], rows in the order asked for; `None` where there is none.
    Read(Ticket, Result<Vec<Option<Bytes>>, StorageFailure>),
    /// Answers [`Effect::Write`]: all of it is on disk, or none need be.
    Stored(Ticket, Result<(), StorageFailure>),
    /// Answers [`Effect::Work`].
    WorkDone(Ticket, Result<JobOutput, JobError>),
    /// A program in this process made a change (a change chunk). Answered by
    /// [`Effect::LocalDone`] once it is on disk.
    LocalChange(Ticket, DocumentId, Bytes),
    /// All of a document is to go for good, if it is just what was seen of it. Answered by
    /// [`Effect::LocalDone`] once it is gone.
    Purge {
        /// What the answer repeats; of the same numbers as those of [`Event::LocalChange`].
        ticket: Ticket,
        /// Which document.
        document: DocumentId,
        /// The heads that it had when it was looked at.
        heads: Vec<ChangeHash>,
        /// What is left of it.
        leaving: Leaving,
    },
    /// A relay that we dialled is to be told of this document, whoever has it open.
    SyncWith(ConnectionId, DocumentId),
    /// A relay that we dialled is to say nothing more of a document, and is told so. Does nothing for
    /// one that does not say [`concord_protocol::Feature::Unsubscribe`], or that named what is to come.
    Unsubscribe(ConnectionId, DocumentId),
    /// The relays that we dialled are to be sent once more what they do not have of this document,
    /// also what they refused.
    Resend(DocumentId),
    /// Say nothing of this document until [`Event::Release`]: what is made of it here is stored, and
    /// waits to be sent.
    Hold(DocumentId),
    /// Say what there is to say of this document.
    Release(DocumentId),
    /// A program in this process sends an ephemeral message.
    Broadcast {
        /// About which document.
        document: DocumentId,
        /// Its number in the session.
        count: u64,
        /// The run of numbers.
        session: SessionId,
        /// The application's bytes.
        data: Bytes,
    },
    /// A program in this process wants the document and what becomes of it published.
    Open(DocumentId),
    /// It no longer does.
    Shut(DocumentId),
    /// A relay was started so many times on its store, which is on disk. Leases are granted from then
    /// on, under numbers that are higher than those of any start before.
    Numbered(u64),
    /// The time that [`Effect::SetTimer`] asked for has come.
    TimerFired,
    /// Stop sending document messages; connections will be closed soon.
    Drain,
}

/// What is left of a document that is purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// A record that it was purged: it is served to nobody, and nothing of it is taken any more.
    /// Only if nothing in it waits for anything.
    Record,
    /// Nothing: it is as if it had never been here.
    Nothing,
}

/// Why a change of a program in this process was not taken, or a document not purged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalError {
    /// It is not on disk; the program should stop writing.
    #[error("the change is not on disk: {0}")]
    Storage(#[from] StorageFailure),
    /// It is not acceptable.
    #[error("the change was refused ({}): {reason}", code.as_str())]
    Refused {
        /// The kind of reason.
        code: RefuseCode,
        /// The reason in words.
        reason: String,
    },
    /// The document is not purged: it is another than was seen, or something in it waits.
    #[error("the document is not purged: {0}")]
    NotPurged(String),
}

/// The store could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageFailure {
    /// The disk or the system failed; what was asked for may be well, and is asked for again.
    #[error("{0}")]
    Passing(String),
    /// What was asked for is not what was written, or is gone, and does not mend by itself.
    #[error("{0}")]
    Damaged(String),
}

/// Something is to be done.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Send these bytes as one message.
    Send(ConnectionId, Bytes),
    /// End the connection, after what was already sent to it.
    Close(ConnectionId, CloseCode, String),
    /// Read what there is of a document, without its snapshot and index pages.
    Load(Ticket, DocumentId),
    /// Read rows.
    Read(Ticket, DocumentId, Vec<RowKey>),
    /// Write rows, in this order, and answer when they are on disk.
    Write(Ticket, DocumentId, Vec<RowWrite>),
    /// Have a materialiser do this.
    Work(Ticket, DocumentId, Job),
    /// Call with [`Event::TimerFired`] at this `mono_ms`; replaces what was asked before.
    SetTimer(u64),
    /// Answers [`Event::LocalChange`] and [`Event::Purge`]: it is on disk, or was refused.
    LocalDone(Ticket, Result<(), LocalError>),
    /// Tell the program in this process.
    Publish(DocumentId, Published),
    /// Count this.
    Count(Counted),
}

/// What a program in this process is told of a document that it opened.
#[derive(Debug, Clone)]
pub enum Published {
    /// Everything there is at the time of opening, as chunks to load in order: a snapshot, then
    /// changes. Published once more after [`Published::Damaged`].
    Opened(Vec<Bytes>),
    /// Changes of others that were accepted, in causal order; not yet necessarily durable.
    Changes(Vec<Bytes>),
    /// A document chunk of others was accepted; the changes in it that were not here before.
    Snapshot(Bytes),
    /// These heads are on this store's disk.
    Durable(Vec<ChangeHash>),
    /// A relay says what it has on disk.
    RelayHas {
        /// Over which connection.
        connection: ConnectionId,
        /// Its word, as an ack or as the heads of a sync message.
        ack: Ack,
    },
    /// A relay that we dialled has on its disk all that is on this one. Told once after each change
    /// of a program and each new connection, also of documents that no program has open.
    Confirmed,
    /// No connected peer has it.
    Unavailable,
    /// A change was not taken by a relay that we dialled, also if no program has the document open;
    /// or one of others was not taken here.
    Refused {
        /// Which.
        hash: ChangeHash,
        /// Why.
        code: RefuseCode,
        /// Why, in words.
        reason: String,
    },
    /// A change that breaks the document was found, and is withheld with all that builds on it.
    Quarantined(String),
    /// A part of the document is damaged on this store's disk and lost to it until a peer brings
    /// it. [`Published::Opened`] follows with what is left; what was shown before may be more.
    Damaged(String),
    /// The document could not be read several times over. It is tried again all the same.
    Unreadable(String),
    /// An ephemeral message.
    Ephemeral {
        /// Who made it.
        sender: PeerId,
        /// The application's bytes.
        data: Bytes,
    },
}

/// Things worth counting, each a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counted {
    /// Changes accepted from peers.
    ChangesAccepted(u64),
    /// Changes refused, by reason.
    ChangeRefused(RefuseCode),
    /// Changes that wait for their dependencies.
    Orphaned,
    /// Sync messages received.
    SyncReceived,
    /// Sync messages sent.
    SyncSent,
    /// Ephemeral messages passed on.
    EphemeralForwarded(u64),
    /// Ephemeral messages dropped: repeated, or the reader is too slow.
    EphemeralDropped(u64),
    /// Messages that were not understood or not allowed.
    BadMessage,
    /// Documents put into memory.
    DocumentLoaded,
    /// Documents that left memory.
    DocumentEvicted,
    /// Documents marked quarantined.
    Quarantined,
    /// Snapshots built.
    Compacted,
    /// Background jobs that could not be done and will be tried again.
    JobPostponed,
    /// Rows that failed their checksum.
    CorruptRow,
    /// Damaged indexes that were built anew from their snapshots.
    IndexRebuilt,
    /// Damaged snapshots without which their documents went on.
    SnapshotLost,
    /// Documents that were deleted long ago, and of which only a record is left.
    Purged,
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.0)
    }
}
