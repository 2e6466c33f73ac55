//! What a simulated peer is told, and what it asks for: plain data.

use bytes::Bytes;
use concord_protocol::{CloseCode, DocumentId, Message, SessionId};

use crate::{
    peer::{
        applier::Task,
        core::{Action, Command},
        notes::Notes,
    },
    replica::{
        ConnectionId, Counted, Event, Job, JobError, JobOutput, PeerInfo, RowKey, RowWrite,
        StorageFailure, StoredDocument, Ticket,
    },
};

/// Work for the applier: pass it to [`super::SimulatedPeer::apply`], in the order in which it was
/// asked for and as late as the applier is slow. Of a peer that crashed, drop it.
#[derive(Debug)]
#[must_use = "a document is not in memory, or not up to date, before this is applied"]
pub struct Apply(pub(super) Task);

/// Rows of the outbox.
#[derive(Debug, Clone, Default)]
pub struct NotesRead {
    /// Those of documents, in order.
    pub page: Vec<(DocumentId, Option<Bytes>)>,
    /// It is on disk that an outbox is kept.
    pub has_marker: bool,
}

/// What a simulated peer is told.
#[derive(Debug, Clone)]
pub enum PeerInput {
    /// See [`Event::Connected`].
    Connected(ConnectionId, PeerInfo),
    /// See [`Event::Received`].
    Received(ConnectionId, Message),
    /// See [`Event::Drained`].
    Drained(ConnectionId, usize),
    /// See [`Event::Disconnected`].
    Disconnected(ConnectionId),
    /// Answers [`PeerAction::Load`].
    Loaded(Ticket, Result<StoredDocument, StorageFailure>),
    /// Answers [`PeerAction::Read`], rows in the order asked for; `None` where there is none.
    Read(Ticket, Result<Vec<Option<Bytes>>, StorageFailure>),
    /// Answers [`PeerAction::Write`]: all of it is on disk, or none need be.
    Stored(Ticket, Result<(), StorageFailure>),
    /// Answers [`PeerAction::Work`].
    WorkDone(Ticket, Result<JobOutput, JobError>),
    /// Answers [`PeerAction::List`]: the next documents in order, as many as one likes; none:
    /// there are no more.
    Listed(ConnectionId, Result<Vec<DocumentId>, StorageFailure>),
    /// Answers [`PeerAction::Note`].
    Noted(Option<DocumentId>, Result<(), StorageFailure>),
    /// Answers [`PeerAction::Journal`].
    Journalled(Result<(), StorageFailure>),
    /// Answers [`PeerAction::ReadNotes`]; see [`super::read_notes`].
    Notes(Result<NotesRead, StorageFailure>),
    /// Answers [`PeerAction::ListForOutbox`]: the next documents in order; none: there are no more.
    ListedForOutbox(Result<Vec<DocumentId>, StorageFailure>),
    /// The time that [`PeerAction::SetTimer`] asked for has come.
    TimerFired,
    /// A program sends bytes to whoever has the document open; see [`Event::Broadcast`].
    Broadcast {
        /// About which document.
        document: DocumentId,
        /// Its number in the session.
        count: u64,
        /// The run of numbers.
        session: SessionId,
        /// The program's bytes.
        data: Bytes,
    },
}

impl From<PeerInput> for Command {
    fn from(input: PeerInput) -> Self {
        Self::Event(match input {
            PeerInput::Connected(id, info) => Event::Connected(id, info),
            PeerInput::Received(id, message) => Event::Received(id, message),
            PeerInput::Drained(id, bytes) => Event::Drained(id, bytes),
            PeerInput::Disconnected(id) => Event::Disconnected(id),
            PeerInput::Loaded(ticket, loaded) => Event::Loaded(ticket, loaded),
            PeerInput::Read(ticket, read) => Event::Read(ticket, read),
            PeerInput::Stored(ticket, stored) => Event::Stored(ticket, stored),
            PeerInput::WorkDone(ticket, done) => Event::WorkDone(ticket, done),
            PeerInput::TimerFired => Event::TimerFired,
            PeerInput::Broadcast { document, count, session, data } => {
                Event::Broadcast { document, count, session, data }
            }
            PeerInput::Listed(id, page) => return Self::Listed(id, page),
            PeerInput::Noted(document, noted) => return Self::Noted(document, noted),
            PeerInput::Journalled(result) => return Self::Journalled(result),
            PeerInput::Notes(notes) => {
                return Self::Notes(
                    notes.map(|NotesRead { page, has_marker }| Notes { page, has_marker }),
                );
            }
            PeerInput::ListedForOutbox(page) => return Self::Unnoted(page),
        })
    }
}

/// What a simulated peer asks for. Those with a ticket or an id are answered once, at any time
/// and in any order, but for the order that the documentation of [`crate::store::Store`] gives
/// for one document: writes in the order of their asking, and a load or read after the writes
/// that were asked for before it.
#[derive(Debug)]
pub enum PeerAction {
    /// Send these bytes as one message, and say [`PeerInput::Drained`] when they have left. The
    /// connection may be gone: then nothing is to be done.
    Send(ConnectionId, Bytes),
    /// End the connection, after what was already sent to it, and say
    /// [`PeerInput::Disconnected`]. It may be gone.
    Close(ConnectionId, CloseCode, String),
    /// Read what there is of a document, without its snapshot and index pages.
    Load(Ticket, DocumentId),
    /// Read rows.
    Read(Ticket, DocumentId, Vec<RowKey>),
    /// Write rows, in this order, and answer when they are on disk.
    Write(Ticket, DocumentId, Vec<RowWrite>),
    /// Have a materialiser do this; [`crate::worker::resolve`] and [`crate::worker::materialise`]
    /// are how.
    Work(Ticket, DocumentId, Job),
    /// Say [`PeerInput::TimerFired`] at this `mono_ms`; replaces what was asked before.
    SetTimer(u64),
    /// Count this.
    Count(Counted),
    /// List stored documents, those after this one.
    List(ConnectionId, Option<DocumentId>),
    /// Write rows under [`crate::store::DocumentKey::outbox`] of this, in the order of all writes.
    Note(Option<DocumentId>, Vec<RowWrite>),
    /// Write these rows under the outbox of this document, if any, then this row under that of none,
    /// both in the order of all writes; answer when both are on disk. A run that begins finishes what
    /// these say: see [`super::finish`].
    Journal(Option<(DocumentId, Vec<RowWrite>)>, RowWrite),
    /// Read the rows of the outbox, of documents after this one.
    ReadNotes(Option<DocumentId>),
    /// List stored documents, those after this one.
    ListForOutbox(Option<DocumentId>),
    /// See [`Apply`].
    Apply(Apply),
}

/// An action of the core, by who carries it out.
pub(super) enum Asked {
    /// Whoever simulates.
    Outside(PeerAction),
    /// The simulated peer itself: see [`Action::Recall`].
    Recall,
    /// The same: see [`Action::Keep`].
    Keep(Bytes),
    /// Nobody: a simulated peer keeps no index.
    Nothing,
}

impl From<Action> for Asked {
    fn from(action: Action) -> Self {
        Self::Outside(match action {
            // More is drained than documents sent: the replica does not mind.
            Action::Send(id, bytes) | Action::Say(id, bytes) => PeerAction::Send(id, bytes),
            Action::Close(id, code, reason) => PeerAction::Close(id, code, reason),
            Action::Renew(id) => PeerAction::Close(id, CloseCode::Normal, "renewed".to_owned()),
            Action::Load(ticket, document) => PeerAction::Load(ticket, document),
            Action::Read(ticket, document, rows) => PeerAction::Read(ticket, document, rows),
            Action::Write(ticket, document, writes) => PeerAction::Write(ticket, document, writes),
            Action::Work(ticket, document, job) => PeerAction::Work(ticket, document, job),
            Action::SetTimer(at_ms) => PeerAction::SetTimer(at_ms),
            Action::Count(counted) => PeerAction::Count(counted),
            Action::List(id, after) => PeerAction::List(id, after),
            Action::Apply(task) => PeerAction::Apply(Apply(task)),
            Action::Note(document, writes) => PeerAction::Note(document, writes),
            Action::Journal(rows, journal) => PeerAction::Journal(rows, journal),
            Action::ReadNotes(after) => PeerAction::ReadNotes(after),
            Action::ListForOutbox(after) => PeerAction::ListForOutbox(after),
            Action::Recall => return Self::Recall,
            Action::Keep(row) => return Self::Keep(row),
            Action::Mark(..) => return Self::Nothing,
        })
    }
}
