//! Who speaks first, and what the answer is: pure functions for both sides.

use crate::{CloseCode, Features, Message, PeerId, PeerMetadata};

/// The WebSocket subprotocol that turns Concord's own messages on, and the version by which both
/// sides say in their first messages that they mean it. The subprotocol alone says little: a
/// server made with the `ws` package of JavaScript takes whatever is offered first.
pub const SUBPROTOCOL: &str = "concord.v1";
/// The one version of the automerge-repo protocol.
pub const VERSION: &str = "1";
/// What the JavaScript server says too.
const UNSUPPORTED: &str = "unsupported protocol version";

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

/// Answers the first message of a connection that was accepted: only a [`Message::Join`] that
/// speaks [`VERSION`] is welcome. With `concord`, the WebSocket subprotocol was negotiated: a join
/// that offers it as a version too is told that it is spoken.
pub fn answer(first: &Message, us: &PeerId, our_metadata: &PeerMetadata, concord: bool) -> Answer {
    let Message::Join { sender, metadata, versions } = first else {
        return Answer::Refuse {
            reply: None,
            code: CloseCode::Protocol,
            reason: "the first message must be a join".to_owned(),
        };
    };
    let offers = |wanted: &str| versions.iter().any(|version| version == wanted);
    if offers(VERSION) {
        let version = if concord && offers(SUBPROTOCOL) { SUBPROTOCOL } else { VERSION };
        let features = if version == SUBPROTOCOL { our_metadata.features } else { Features::NONE };
        return Answer::Welcome {
            reply: Message::Peer {
                sender: us.clone(),
                target: sender.clone(),
                metadata: PeerMetadata { features, ..our_metadata.clone() },
                version: version.to_owned(),
            },
            peer: sender.clone(),
            metadata: metadata.clone(),
        };
    }
    let reason = UNSUPPORTED.to_owned();
    Answer::Refuse {
        reply: Some(Message::Error {
            sender: us.clone(),
            target: sender.clone(),
            message: reason.clone(),
        }),
        code: CloseCode::Protocol,
        reason,
    }
}

/// The version that an answer to a join says; `None` for what is none.
pub fn version_of(reply: &Message) -> Option<&str> {
    match reply {
        Message::Peer { version, .. } => Some(version),
        _ => None,
    }
}

/// The first message of a connection that was dialled.
pub fn join(us: &PeerId, our_metadata: &PeerMetadata) -> Message {
    Message::Join {
        sender: us.clone(),
        metadata: PeerMetadata { features: Features::NONE, ..our_metadata.clone() },
        versions: vec![VERSION.to_owned()],
    }
}

/// As [`join`], where the WebSocket subprotocol was negotiated.
pub fn join_concord(us: &PeerId, our_metadata: &PeerMetadata) -> Message {
    Message::Join {
        sender: us.clone(),
        metadata: our_metadata.clone(),
        versions: vec![VERSION.to_owned(), SUBPROTOCOL.to_owned()],
    }
}

/// Reads the answer to [`join`].
///
/// # Errors
/// The other side's reason, or that it did not speak the protocol.
pub fn welcomed(reply: &Message, us: &PeerId) -> Result<(PeerId, PeerMetadata), HandshakeError> {
    match reply {
        Message::Peer { sender, target, metadata, version }
            if target == us && version == VERSION =>
        {
            Ok((sender.clone(), metadata.clone()))
        }
        Message::Error { message, .. } => Err(HandshakeError::Refused(message.clone())),
        _ => Err(HandshakeError::Unexpected),
    }
}

/// Reads the answer to [`join_concord`]; whether Concord's own messages are understood.
///
/// # Errors
/// As [`welcomed`].
pub fn welcomed_concord(
    reply: &Message,
    us: &PeerId,
) -> Result<(PeerId, PeerMetadata, bool), HandshakeError> {
    match reply {
        Message::Peer { sender, target, metadata, version }
            if target == us && version == SUBPROTOCOL =>
        {
            Ok((sender.clone(), metadata.clone(), true))
        }
        _ => welcomed(reply, us).map(|(peer, metadata)| (peer, metadata, false)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StorageId;

    fn peer(name: &str) -> PeerId {
        name.parse().unwrap()
    }

    fn metadata() -> PeerMetadata {
        let storage_id: StorageId = "5f3c".parse().unwrap();
        PeerMetadata {
            storage_id: Some(storage_id),
            is_ephemeral: Some(false),
            ..PeerMetadata::default()
        }
    }

    fn join_with(versions: &[&str]) -> Message {
        let versions = versions.iter().map(|&version| version.to_owned()).collect();
        Message::Join { sender: peer("alice"), metadata: metadata(), versions }
    }

    #[test]
    fn a_join_is_answered_with_a_peer_that_the_joiner_accepts() {
        let (alice, relay) = (peer("alice"), peer("relay"));
        let first = join(&alice, &PeerMetadata::default());
        let Answer::Welcome { reply, peer, metadata: hers } =
            answer(&first, &relay, &metadata(), true)
        else {
            panic!("refused");
        };
        assert_eq!((peer, hers), (alice.clone(), PeerMetadata::default()));
        assert_eq!(welcomed(&reply, &alice), Ok((relay, metadata())));
        assert_eq!(welcomed(&reply, &self::peer("bob")), Err(HandshakeError::Unexpected));
    }

    #[test]
    fn one_version_in_common_is_enough() {
        let welcome = answer(&join_with(&["2", "1"]), &peer("relay"), &metadata(), false);
        assert!(matches!(welcome, Answer::Welcome { .. }));
    }

    #[test]
    fn concord_is_spoken_where_both_sides_and_the_socket_say_so() {
        let (alice, relay) = (peer("alice"), peer("relay"));
        let spoken = |first: &Message, socket| {
            let Answer::Welcome { reply, .. } = answer(first, &relay, &metadata(), socket) else {
                panic!("refused");
            };
            welcomed_concord(&reply, &alice).unwrap().2
        };
        let (concord, plain) =
            (join_concord(&alice, &metadata()), join(&alice, &PeerMetadata::default()));
        assert!(spoken(&concord, true));
        assert!(!spoken(&concord, false));
        assert!(!spoken(&plain, true));
        let foreign =
            Message::Error { sender: relay, target: alice.clone(), message: "no".to_owned() };
        let refused = Err(HandshakeError::Refused("no".to_owned()));
        assert_eq!(welcomed_concord(&foreign, &alice), refused);
    }

    #[test]
    fn a_join_without_a_version_in_common_is_told_so() {
        for versions in [&["2"][..], &[], &["1.0", "01"]] {
            let refusal = answer(&join_with(versions), &peer("relay"), &metadata(), true);
            let Answer::Refuse { reply: Some(reply), code: CloseCode::Protocol, .. } = refusal
            else {
                panic!("{refusal:?}");
            };
            let told = welcomed(&reply, &peer("alice"));
            assert_eq!(told, Err(HandshakeError::Refused(UNSUPPORTED.to_owned())));
        }
    }

    #[test]
    fn anything_before_the_join_is_refused_without_words() {
        let leave = Message::Leave { sender: peer("alice") };
        let unknown = Message::Unknown { kind: "hello".to_owned() };
        for first in [leave, unknown] {
            let refusal = answer(&first, &peer("relay"), &metadata(), false);
            let refused =
                matches!(refusal, Answer::Refuse { reply: None, code: CloseCode::Protocol, .. });
            assert!(refused, "{first:?}");
            assert_eq!(welcomed(&first, &peer("alice")), Err(HandshakeError::Unexpected));
        }
    }
}
