//! What Concord puts on the wire, and nothing else: ids, messages, their codec, the handshake,
//! the limits that everything from outside is held against, and the guard that checks Automerge
//! chunks before anybody believes them.
//!
//! No I/O, no clock, no global state, and no knowledge of what an entity is. Everything that
//! decodes is total: any byte string gives a value or a typed error, in linear time, within its
//! limit of memory.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod blob;
pub mod close;
pub mod codec;
mod features;
pub mod guard;
pub mod handshake;
mod hash;
mod ids;
mod lease;
mod leb;
pub mod limits;
mod message;
mod schema;
pub mod sync;

pub use blob::{BlobHash, BlobMessage, NotABlobHash};
pub use close::CloseCode;
pub use features::{Feature, Features};
pub use hash::{ActorId, ChangeHash};
pub use ids::{AutomergeUrl, DocumentId, ID_MAX_LEN, IdError, PeerId, SessionId, StorageId};
pub use lease::{LeaseAction, LeaseHolder, LeaseRefusal, LeaseRequest, LeaseState, SessionInfo};
pub use limits::Limits;
pub use message::{Ack, Answer, Call, Message, PeerMetadata, RefuseCode, Refused, RemoteHeads};
pub use schema::{NotAHash, SchemaHash};
