//! From frames to messages, and from messages to the shards that they are for.

use bytes::Bytes;
use concord_protocol::{DocumentId, Message, PeerId, codec};

use super::{Connection, End};
use crate::{frames, relay::shard::Inbound, replica::Event};

/// Where a message goes.
enum Route<'a> {
    /// To the shard of the document, if the sender is who joined.
    Document(&'a DocumentId, &'a PeerId),
    /// To every shard, if the sender is who joined.
    All(&'a PeerId),
    /// Nowhere: there is no such document.
    Misaddressed { document: &'a str, wants_answer: bool },
    /// Nowhere.
    Ignored,
    /// It may not be said now.
    Wrong(&'static str),
}

fn route(message: &Message) -> Route<'_> {
    match message {
        Message::Request { document, sender, .. }
        | Message::Sync { document, sender, .. }
        | Message::DocUnavailable { document, sender, .. }
        | Message::Ephemeral { document, sender, .. }
        | Message::RemoteHeadsChanged { document, sender, .. }
        | Message::Unsubscribe { document, sender, .. }
        | Message::Lease { document, sender, .. }
        | Message::Ack { document, sender, .. } => Route::Document(document, sender),
        Message::RemoteSubscriptionChange { sender, .. } => Route::All(sender),
        Message::Misaddressed { document, wants_answer, .. } => {
            Route::Misaddressed { document, wants_answer: *wants_answer }
        }
        Message::Join { .. } => Route::Wrong("a second join"),
        Message::Peer { .. } => Route::Wrong("an answer to a join that was not ours"),
        // Advisory, or of a later version.
        _ => Route::Ignored,
    }
}

impl Connection {
    /// Reads one frame; its bytes as they are when it is not compressed.
    pub(super) fn decode(&self, frame: &Bytes) -> Result<(Vec<Message>, usize), End> {
        let limits = &self.hub.config.limits;
        let (messages, bytes) = frames::open(frame, limits, self.zstd).map_err(|error| {
            self.hub.metrics.bad_frame("undecodable");
            End::protocol(error.to_string())
        })?;
        if !self.concord && messages.len() != 1 {
            self.hub.metrics.bad_frame("batch");
            return Err(End::protocol("one message a frame, unless concord.v1 was negotiated"));
        }
        Ok((messages, bytes))
    }

    /// Passes one message on.
    pub(super) async fn route(&mut self, message: Message) -> Result<(), End> {
        let message = match message {
            Message::Call(call) if self.speaks => {
                self.call(call);
                return Ok(());
            }
            Message::HangUp { id } if self.speaks => {
                self.calls.hang_up(id);
                return Ok(());
            }
            Message::Blob(blob) if self.blobs.speaks => {
                self.blob(blob);
                return Ok(());
            }
            message => message,
        };
        match route(&message) {
            Route::Document(_, sender) | Route::All(sender) if !self.is_peer(sender) => {
                self.hub.metrics.foreign_sender.inc();
            }
            Route::Document(document, _) => {
                let shard = self.hub.shards.of(document);
                let event = Event::Received(self.id, message);
                self.hub.shards.tell(shard, Inbound::Event(event)).await;
            }
            Route::All(_) => {
                let id = self.id;
                let told = || Inbound::Event(Event::Received(id, message.clone()));
                self.hub.shards.tell_all(told).await;
            }
            Route::Misaddressed { document, wants_answer } => {
                self.hub.metrics.bad_frame("misaddressed");
                if let (true, Some(joined)) = (wants_answer, &self.joined) {
                    let answer = codec::encode_unavailable(document, &self.hub.us, &joined.peer);
                    self.answer(answer);
                }
            }
            Route::Ignored => {}
            Route::Wrong(what) => {
                self.hub.metrics.bad_frame("out-of-place");
                return Err(End::protocol(what));
            }
        }
        Ok(())
    }

    /// Queues an answer of our own.
    pub(super) fn answer(&mut self, bytes: Bytes) {
        self.queue.push(None, bytes);
    }

    fn is_peer(&self, sender: &PeerId) -> bool {
        self.joined.as_ref().is_some_and(|joined| joined.peer == *sender)
    }
}
