//! Messages to and from CBOR: one map a message, as `automerge-repo` writes it with cbor-x.
//!
//! Read generously where clients differ (lengths of any form, `undefined`, numbers as integers or
//! floats, keys in any order, unknown keys) and strictly where nothing honest differs (tags,
//! trailing bytes, texts in pieces). Of a key that comes twice the last one counts, as in
//! JavaScript. Written in the one form that every client reads.

mod decode;
mod encode;
mod error;
mod item;
mod writer;

pub use decode::{MESSAGES_PER_FRAME_MAX, decode};
pub use encode::{encode, encode_many, encode_sync, encode_unavailable, frame_of, is_ephemeral};
pub use error::DecodeError;

/// Field names and message types, as they stand on the wire.
mod names {
    pub(super) const ACT: &str = "act";
    pub(super) const ADD: &str = "add";
    pub(super) const APPLIED: &str = "applied";
    pub(super) const AT: &str = "at";
    pub(super) const BODY: &str = "body";
    pub(super) const CODE: &str = "code";
    pub(super) const CONCORD_FEATURES: &str = "concordFeatures";
    pub(super) const CONCORD_SCHEMA: &str = "concordSchema";
    pub(super) const CONCORD_SESSION: &str = "concordSession";
    pub(super) const COUNT: &str = "count";
    pub(super) const DATA: &str = "data";
    pub(super) const DEVICE: &str = "device";
    pub(super) const DOCUMENT_ID: &str = "documentId";
    pub(super) const DURABLE: &str = "durable";
    pub(super) const ETAG: &str = "etag";
    pub(super) const EVENT: &str = "event";
    pub(super) const FENCE: &str = "fence";
    pub(super) const FOR_MS: &str = "forMs";
    pub(super) const HASH: &str = "hash";
    pub(super) const HAVE: &str = "have";
    pub(super) const HEADS: &str = "heads";
    pub(super) const HOLDER: &str = "holder";
    pub(super) const ID: &str = "id";
    pub(super) const IF_MATCH: &str = "ifMatch";
    pub(super) const IF_NONE_MATCH: &str = "ifNoneMatch";
    pub(super) const IS_EPHEMERAL: &str = "isEphemeral";
    pub(super) const LEFT_MS: &str = "leftMs";
    pub(super) const LENGTH: &str = "length";
    pub(super) const MESSAGE: &str = "message";
    pub(super) const METHOD: &str = "method";
    pub(super) const NEW_HEADS: &str = "newHeads";
    pub(super) const OUTLINE: &str = "outline";
    pub(super) const PATH: &str = "path";
    pub(super) const PEER_METADATA: &str = "peerMetadata";
    pub(super) const REASON: &str = "reason";
    pub(super) const REFUSED: &str = "refused";
    pub(super) const REMOVE: &str = "remove";
    pub(super) const RETRY_AFTER_MS: &str = "retryAfterMs";
    pub(super) const SELECTED_VERSION: &str = "selectedProtocolVersion";
    pub(super) const SENDER_ID: &str = "senderId";
    pub(super) const SESSION_ID: &str = "sessionId";
    pub(super) const STATUS: &str = "status";
    pub(super) const STORAGE_ID: &str = "storageId";
    pub(super) const SUPPORTED_VERSIONS: &str = "supportedProtocolVersions";
    pub(super) const TARGET_ID: &str = "targetId";
    pub(super) const TEXT: &str = "text";
    pub(super) const TIMESTAMP: &str = "timestamp";
    pub(super) const TYPE: &str = "type";
    pub(super) const USER: &str = "user";
    pub(super) const WHY: &str = "why";
}

mod types {
    pub(super) const ACK: &str = "concord-ack";
    pub(super) const ANSWER: &str = "concord-answer";
    pub(super) const BLOB_ASK: &str = "concord-blob-ask";
    pub(super) const BLOB_CHUNK: &str = "concord-blob-chunk";
    pub(super) const BLOB_OFFER: &str = "concord-blob-offer";
    pub(super) const BLOB_STATE: &str = "concord-blob-state";
    pub(super) const CALL: &str = "concord-call";
    pub(super) const DOC_UNAVAILABLE: &str = "doc-unavailable";
    pub(super) const EPHEMERAL: &str = "ephemeral";
    pub(super) const ERROR: &str = "error";
    pub(super) const EVENT: &str = "concord-event";
    pub(super) const GO_AWAY: &str = "concord-go-away";
    pub(super) const HANG_UP: &str = "concord-hang-up";
    pub(super) const JOIN: &str = "join";
    pub(super) const LEASE: &str = "concord-lease";
    pub(super) const LEASE_STATE: &str = "concord-lease-state";
    pub(super) const UNSUBSCRIBE: &str = "concord-unsubscribe";
    pub(super) const LEAVE: &str = "leave";
    pub(super) const PEER: &str = "peer";
    pub(super) const REMOTE_HEADS_CHANGED: &str = "remote-heads-changed";
    pub(super) const REMOTE_SUBSCRIPTION_CHANGE: &str = "remote-subscription-change";
    pub(super) const REQUEST: &str = "request";
    pub(super) const SCHEMA: &str = "concord-schema";
    pub(super) const SYNC: &str = "sync";
    pub(super) const ZSTD: &str = "concord-zstd";
}
