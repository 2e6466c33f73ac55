//! Who speaks first, and what the answer is: pure functions for both sides.

use crate::{CloseCode, Message, PeerId, PeerMetadata};

/// The WebSocket subprotocol that turns Concord's own messages on.
pub const SUBPROTOCOL: &str = "concord.v1";
/// The one version of the automerge-repo protocol.
pub const VERSION: &str = "1";

/// How the dialled side goes on after the first message.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Send this [`Message::Peer`]; the other side is joined.
    Welcome {
        /// What to send.
        reply: Message,
        /// Who joined.
        peer: PeerId,
        /// What it said of itself.
        metadata: PeerMetadata,
    },
    /// Send this if there is one, then close.
    Refuse {
        /// What to send first.
        reply: Option<Message>,
        /// How to close.
        code: CloseCode,
        /// Why, in words.
        reason: String,
    },
}

/// Answers the first message of a connection that was accepted.
pub fn answer(first: &Message, us: &PeerId, our_metadata: &PeerMetadata) -> Answer {
    let _ = (first, us, our_metadata);
    unimplemented!()
}

/// The first message of a connection that was dialled.
pub fn join(us: &PeerId, our_metadata: &PeerMetadata) -> Message {
    let _ = (us, our_metadata);
    unimplemented!()
}

/// Reads the answer to [`join`].
///
/// # Errors
/// The other side's reason, or that it did not speak the protocol.
pub fn welcomed(reply: &Message, us: &PeerId) -> Result<(PeerId, PeerMetadata), HandshakeError> {
    let _ = (reply, us);
    unimplemented!()
}

/// Why a dialled connection did not come to speak.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The other side said no.
    #[error("the relay refused: {0}")]
    Refused(String),
    /// The other side said something else.
    #[error("expected the relay's answer to our join, got something else")]
    Unexpected,
}
