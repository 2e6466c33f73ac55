//! Everything that one side says to the other, in one type.
//!
//! The messages of automerge-repo are those of its protocol, version 1. The others are Concord's own
//! and are said only where both sides said that they speak `concord.v1`; each is one CBOR map like
//! those, with the keys below. A frame is one message, or a list of up to a hundred. Keys and types
//! that are not known are passed over.
//!
//! | `type` | who | keys |
//! | --- | --- | --- |
//! | `concord-ack` | both | `documentId`, `senderId`, `targetId`, `applied`, `durable`, `refused` |
//! | `concord-go-away` | relay | `senderId`, `retryAfterMs` |
//! | `concord-schema` | relay | `hash` (hex of the SHA-256), `text` (TOML) |
//! | `concord-call` | peer | `id` (a number), `method`, `path`, `ifMatch`?, `ifNoneMatch`?, `body`? (JSON, as text) |
//! | `concord-answer` | relay | `id`, `status`, `etag`?, `body` (text) |
//! | `concord-event` | relay | `id`, `event`, `data` (JSON, as text) |
//! | `concord-hang-up` | both | `id` |
//! | `concord-lease` | peer | `documentId`, `senderId`, `targetId`, `id`, `act`, `forMs`, `fence` |
//! | `concord-lease-state` | relay | `documentId`, `senderId`, `targetId`, `id`?, `why`?, `holder`? (`sessionId`, `user`?, `device`?, `fence`, `leftMs`) |
//! | `concord-zstd` | both | `length` (bytes of what is in `data`), `data` (zstd) |
//! | `concord-blob-ask` | peer | `id`, `hash` (hex of the BLAKE3), `at`? |
//! | `concord-blob-offer` | peer | `id`, `hash`, `length`, `outline` (bytes) |
//! | `concord-blob-chunk` | both | `id`, `hash`, `at`, `data` (bytes) |
//! | `concord-blob-state` | relay | `id`, `status`, `reason`?, `length`?, `have`, `outline`? |
//!
//! Those that name no document are about the connection or an attachment ([`BlobMessage`]), and name
//! neither end. `concord-zstd` is a whole frame, of one message or a list of them, and of no other
//! `concord-zstd`. A peer that holds a schema says which in its join (`peerMetadata.concordSchema`, the
//! hash), and is then not told of that one again, and says who it is (`peerMetadata.concordSession`:
//! `sessionId`, `user`?, `device`?). What either side can do beyond these it says by name
//! ([`crate::Feature`], `peerMetadata.concordFeatures`, a list); neither uses what the other did not
//! say, and names that are not known are passed over. A call is the HTTP request of the same method
//! and path below `/v1/`, and is answered as that is. Where HTTP answers with server-sent events, there
//! is an answer without a body, and then events until either side hangs up.

use bytes::Bytes;

use crate::{
    BlobMessage, ChangeHash, DocumentId, Features, LeaseRequest, LeaseState, PeerId, SchemaHash,
    SessionId, SessionInfo, StorageId,
};

/// What a peer says of itself when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerMetadata {
    /// The store behind it, if it has one that lasts.
    pub storage_id: Option<StorageId>,
    /// Whether what it holds goes when it goes. `None` when it did not say.
    pub is_ephemeral: Option<bool>,
    /// The schema of a relay that it holds (`concord.v1`): it need not be told of that one.
    pub schema: Option<SchemaHash>,
    /// What it can do beyond what every `concord.v1` can.
    pub features: Features,
    /// Who it is (`concord.v1`).
    pub session: Option<SessionInfo>,
}

/// Heads of a document as some other store last had them.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteHeads {
    /// Which store.
    pub storage_id: StorageId,
    /// Its heads.
    pub heads: Vec<ChangeHash>,
    /// When it had them, milliseconds since 1970 by the reporter's clock.
    pub timestamp_ms: f64,
}

/// Why a change was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum RefuseCode {
    /// The bytes are not a change, or not one within the limits.
    Malformed,
    /// The same actor already wrote another change with this sequence number.
    Equivocation,
    /// A gap in the actor's sequence numbers, or a counter not above its dependencies'.
    OutOfSequence,
    /// It names an object or an actor that does not exist.
    DanglingName,
    /// It passed the structural checks but could not be applied.
    Unmaterialisable,
    /// A limit of this document or this connection is used up.
    Quota,
    /// The document was deleted and purged: nothing of it is taken any more.
    Deleted,
    /// Somebody else edits the document alone, as its type requires.
    Leased,
}

impl RefuseCode {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Equivocation => "equivocation",
            Self::OutOfSequence => "out-of-sequence",
            Self::DanglingName => "dangling-name",
            Self::Unmaterialisable => "unmaterialisable",
            Self::Quota => "quota",
            Self::Deleted => "deleted",
            Self::Leased => "leased",
        }
    }

    /// Reads the name on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        [
            Self::Malformed,
            Self::Equivocation,
            Self::OutOfSequence,
            Self::DanglingName,
            Self::Unmaterialisable,
            Self::Quota,
            Self::Deleted,
            Self::Leased,
        ]
        .into_iter()
        .find(|code| code.as_str() == text)
    }
}

/// One change that was not taken, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Which change, when it could be told.
    pub hash: Option<ChangeHash>,
    /// The kind of reason.
    pub code: RefuseCode,
    /// The reason in words.
    pub reason: String,
}

/// What became of changes that were sent (`concord.v1`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ack {
    /// Heads of what the sender of the ack has taken and passed on.
    pub applied: Vec<ChangeHash>,
    /// Heads of what it holds on disk.
    pub durable: Vec<ChangeHash>,
    /// What it did not take.
    pub refused: Vec<Refused>,
}

/// A request to a relay, as by HTTP (`concord.v1`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Call {
    /// By which it is answered; one that no other call has that is under way on this connection.
    pub id: u32,
    /// As in HTTP: `GET` or `POST`.
    pub method: String,
    /// With the query: `/v1/conflicts?limit=10`.
    pub path: String,
    /// Only if what is meant has this tag: `"ID"`, with the quotes, as in HTTP.
    pub if_match: Option<String>,
    /// Only if what is there has another tag.
    pub if_none_match: Option<String>,
    /// JSON.
    pub body: Option<String>,
}

/// What a relay answers to a [`Call`] (`concord.v1`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// That of the call.
    pub id: u32,
    /// As in HTTP.
    pub status: u16,
    /// The tag of what is in the body, as in HTTP.
    pub etag: Option<String>,
    /// JSON, but for texts that are something else over HTTP too.
    pub body: String,
}

/// One thing said by one side.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Message {
    /// First words of the side that dialled.
    Join {
        /// Who dialled.
        sender: PeerId,
        /// What it says of itself.
        metadata: PeerMetadata,
        /// Versions it speaks; a missing list means `["1"]`.
        versions: Vec<String>,
    },
    /// The answer to a join.
    Peer {
        /// Who was dialled.
        sender: PeerId,
        /// Who dialled.
        target: PeerId,
        /// What the dialled side says of itself.
        metadata: PeerMetadata,
        /// The version from now on.
        version: String,
    },
    /// The dialled side cannot go on; it closes next.
    Error {
        /// Who says so.
        sender: PeerId,
        /// To whom.
        target: PeerId,
        /// Why, in words.
        message: String,
    },
    /// The sender is about to go. Advisory.
    Leave {
        /// Who goes.
        sender: PeerId,
    },
    /// A sync message of somebody who has nothing of the document and wants to hear if we have
    /// nothing either.
    Request {
        /// Which document.
        document: DocumentId,
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
        /// The Automerge sync message ([`crate::sync::SyncMessage`]).
        data: Bytes,
    },
    /// A sync message.
    Sync {
        /// Which document.
        document: DocumentId,
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
        /// The Automerge sync message ([`crate::sync::SyncMessage`]).
        data: Bytes,
    },
    /// The sender has nothing of the document.
    DocUnavailable {
        /// Which document.
        document: DocumentId,
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
    },
    /// A message that is passed on and forgotten: presence, cursors.
    Ephemeral {
        /// Which document it is about.
        document: DocumentId,
        /// Who made it, which need not be who passed it on.
        sender: PeerId,
        /// To.
        target: PeerId,
        /// Its number in the session.
        count: u64,
        /// The run of numbers.
        session: SessionId,
        /// The application's bytes (CBOR), opaque here.
        data: Bytes,
    },
    /// The sender wants, or no longer wants, to hear of heads in these stores.
    RemoteSubscriptionChange {
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
        /// To hear of.
        add: Vec<StorageId>,
        /// Not any more.
        remove: Vec<StorageId>,
    },
    /// Heads of a document in other stores.
    RemoteHeadsChanged {
        /// Which document.
        document: DocumentId,
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
        /// One entry a store.
        heads: Vec<RemoteHeads>,
    },
    /// `concord.v1`, where the other side said [`crate::Feature::Unsubscribe`]: the sender wants to
    /// hear nothing more of a document, until it says something of it again.
    Unsubscribe {
        /// Which document.
        document: DocumentId,
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
    },
    /// `concord.v1`: what became of the changes that were sent.
    Ack {
        /// Which document.
        document: DocumentId,
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
        /// What became of them.
        ack: Ack,
    },
    /// `concord.v1` with leases: something is asked about the lease of a document.
    Lease {
        /// Which document.
        document: DocumentId,
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
        /// What is asked.
        request: LeaseRequest,
    },
    /// `concord.v1` with leases: how the lease of a document stands.
    LeaseState {
        /// Which document.
        document: DocumentId,
        /// From.
        sender: PeerId,
        /// To.
        target: PeerId,
        /// How it stands.
        state: LeaseState,
    },
    /// `concord.v1`: the relay is about to close; reconnect no sooner than told.
    GoAway {
        /// From.
        sender: PeerId,
        /// Milliseconds to wait before reconnecting.
        retry_after_ms: u32,
    },
    /// `concord.v1`: the schema that the relay has in force. Whoever gets it finds out whether the
    /// hash is that of the text.
    Schema {
        /// Of the text.
        hash: SchemaHash,
        /// The schema file.
        text: String,
    },
    /// `concord.v1`: a request.
    Call(Call),
    /// `concord.v1`: the answer to a request.
    Answer(Answer),
    /// `concord.v1`: something happened that was asked about.
    Event {
        /// That of the call which asked.
        id: u32,
        /// What kind of thing.
        event: String,
        /// JSON.
        data: String,
    },
    /// `concord.v1`: no more events, and no answer if none was given.
    HangUp {
        /// That of the call.
        id: u32,
    },
    /// `concord.v1`, where both sides said [`crate::Feature::Zstd`]: a frame, compressed. Whoever
    /// gets it makes room for no more than it says, and that only within its limits.
    Compressed {
        /// Bytes of the frame.
        length: u32,
        /// The frame, as one zstd frame.
        data: Bytes,
    },
    /// `concord.v1`, [`crate::Feature::Blobs`]: about an attachment.
    Blob(BlobMessage),
    /// A document message whose document id is not one. The only right answer is
    /// [`crate::codec::encode_unavailable`] with the same text, so that the asker does not wait.
    Misaddressed {
        /// The text that stood where a document id should.
        document: String,
        /// From.
        sender: PeerId,
        /// Whether an answer is expected.
        wants_answer: bool,
    },
    /// A type this version does not know; ignored, so that the protocol can grow.
    Unknown {
        /// The type's name.
        kind: String,
    },
}
