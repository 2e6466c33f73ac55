//! Messages to and from CBOR.

use bytes::Bytes;

use crate::{Limits, Message, PeerId};

/// Why bytes are not an acceptable message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It ended too early.
    #[error("the message is cut off")]
    Truncated,
}

/// Reads one WebSocket message: one CBOR map, or with `concord.v1` also an array of maps.
///
/// # Errors
/// [`DecodeError`] when it is not that, or over a limit.
pub fn decode(frame: &Bytes, limits: &Limits) -> Result<Vec<Message>, DecodeError> {
    let _ = (frame, limits);
    unimplemented!()
}

/// The bytes of one message.
pub fn encode(message: &Message) -> Bytes {
    let _ = message;
    unimplemented!()
}

/// `doc-unavailable` for a text that is not a document id, so that who asked does not wait.
pub fn encode_unavailable(document: &str, sender: &PeerId, target: &PeerId) -> Bytes {
    let _ = (document, sender, target);
    unimplemented!()
}

/// The bytes of a [`Message::Sync`], without making the message.
pub fn encode_sync(document: &crate::DocumentId, sender: &PeerId, target: &PeerId, data: &[u8]) -> Bytes {
    let _ = (document, sender, target, data);
    unimplemented!()
}
