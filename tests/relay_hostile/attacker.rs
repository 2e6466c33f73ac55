//! A peer that joins as any other, sends one thing, and listens to what becomes of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use concord_protocol::{ChangeHash, CloseCode, DocumentId, Limits, Message, sync::SyncMessage};
use tokio::time::timeout;

use crate::{
    client::{Client, Heard},
    made_up::number,
};

/// Silence after which nothing more is expected.
const SILENCE: Duration = Duration::from_millis(1_500);
/// How long an upload may wait for its turn here, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a relay may close with on account of what a peer sent.
const CLOSES: [CloseCode; 3] = [CloseCode::Protocol, CloseCode::TooBig, CloseCode::Backpressure];

/// What became of what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An error message that says why.
    Refused(String),
    /// The connection was closed.
    Closed(u16, String),
    /// The relay goes on talking of the document.
    Answered,
    /// There was nothing to say.
    Silent,
}

impl Outcome {
    pub(crate) fn is_refused(&self, code: &str) -> bool {
        matches!(self, Self::Refused(text) if text.contains(&format!("({code})")))
    }
}

pub(crate) struct Attacker {
    pub(crate) client: Client,
    pub(crate) document: DocumentId,
    joined: Instant,
}

impl Attacker {
    pub(crate) async fn join(url: &str, document: &DocumentId) -> Self {
        Self {
            client: Client::join(url, &format!("mallory-{}", number())).await,
            document: document.clone(),
            joined: Instant::now(),
        }
    }

    /// Sends the data of a sync message.
    pub(crate) async fn send(&mut self, data: Bytes) {
        let message = Message::Sync {
            document: self.document.clone(),
            sender: self.client.name.clone(),
            target: self.client.relay.clone(),
            data,
        };
        self.client.send(&message).await;
    }

    /// What becomes of a message that is decided about at once, with nothing in it that the
    /// relay would have to ask for.
    pub(crate) async fn said(&mut self) -> Outcome {
        self.listen(|_| true).await
    }

    /// What becomes of a message that named this head: the relay refuses it or, when all else
    /// of the message is dealt with, asks for it.
    pub(crate) async fn dealt_with(&mut self, head: ChangeHash) -> Outcome {
        self.listen(|message| message.need.contains(&head)).await
    }

    /// Waits until something is refused so.
    pub(crate) async fn refused(&mut self, code: &str) {
        loop {
            match self.client.hear().await {
                Heard::Message(Message::Error { message, .. })
                    if message.contains(&format!("({code})")) =>
                {
                    return;
                }
                Heard::Message(_) | Heard::Ping => {}
                other => panic!("heard {other:?}"),
            }
        }
    }

    /// As [`Self::dealt_with`], of a message that waits for its turn.
    pub(crate) async fn dealt_with_in_time(&mut self, head: ChangeHash) -> Outcome {
        loop {
            let outcome = self.dealt_with(head).await;
            if outcome != Outcome::Silent || self.joined.elapsed() > PATIENCE {
                return outcome;
            }
        }
    }

    async fn listen(&mut self, decides: impl Fn(&SyncMessage) -> bool) -> Outcome {
        loop {
            let Ok(heard) = timeout(SILENCE, self.client.hear()).await else {
                return Outcome::Silent;
            };
            match heard {
                Heard::Closed(code, reason) => {
                    assert!(
                        CLOSES.iter().any(|close| close.code() == code),
                        "closed with {code}: {reason}"
                    );
                    return Outcome::Closed(code, reason);
                }
                Heard::Message(Message::Error { message, .. }) => {
                    assert!(message.contains(&self.document.to_string()), "{message}");
                    return Outcome::Refused(message);
                }
                Heard::Message(Message::Sync { document, data, .. }) => {
                    assert_eq!(document, self.document);
                    if decides(&SyncMessage::decode(&data, &Limits::default()).unwrap()) {
                        return Outcome::Answered;
                    }
                }
                Heard::Message(Message::DocUnavailable { .. }) | Heard::Ping => {}
                other => panic!("heard {other:?}"),
            }
        }
    }
}

/// A document that nobody has used.
pub(crate) fn new_document() -> DocumentId {
    let mut id = [2; 16];
    id[..8].copy_from_slice(&number().to_le_bytes());
    DocumentId::from_bytes(&id)
}
