//! What is on its way to one connection: queued frames, cut into pieces for the socket.

use std::{collections::VecDeque, fmt};

use bytes::Bytes;
use concord_protocol::CloseCode;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::frames::Fragments;

/// Queued messages whose room is kept when the queue is empty.
const ROOM_KEPT: usize = 16;

/// What a shard, or the server, tells a connection. Unbounded: the replica counts the bytes.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// One message of this shard.
    Frame(u16, Bytes),
    /// One message that answers a call.
    Answer(Bytes, Place),
    /// The end, after what was sent before.
    Close(CloseCode, String),
}

/// The room that an answer to a call takes, until it has left for the network.
pub(super) type Place = Box<dyn fmt::Debug + Send>;

/// The sending end of a connection's queue.
pub(super) type Outbox = mpsc::UnboundedSender<Outgoing>;

/// Bytes that went to the socket, by the shard that sent them; `None`: the connection's own.
pub(super) type Piece = (Option<u16>, usize, Message);

/// Whose message it is.
#[derive(Debug)]
enum Sender {
    Shard(u16),
    /// The connection itself.
    Own,
    /// Somebody who answers a call.
    Call {
        _place: Place,
    },
}

impl Sender {
    fn shard(&self) -> Option<u16> {
        match self {
            Self::Shard(shard) => Some(*shard),
            Self::Own | Self::Call { .. } => None,
        }
    }
}

/// Messages in the order to be sent.
#[derive(Debug, Default)]
pub(super) struct Queue {
    messages: VecDeque<(Sender, Fragments)>,
    /// How many of them are the connection's own.
    own: usize,
}

impl Queue {
    pub(super) fn push(&mut self, shard: Option<u16>, bytes: Bytes) {
        self.own += usize::from(shard.is_none());
        self.messages.push_back((shard.map_or(Sender::Own, Sender::Shard), Fragments::new(bytes)));
    }

    /// A message that answers a call.
    pub(super) fn push_answer(&mut self, bytes: Bytes, place: Place) {
        self.messages.push_back((Sender::Call { _place: place }, Fragments::new(bytes)));
    }

    /// Messages of the connection itself that are not yet sent whole.
    pub(super) fn own(&self) -> usize {
        self.own
    }

    /// Whether the first message is sent in part.
    pub(super) fn is_begun(&self) -> bool {
        self.messages.front().is_some_and(|(_, message)| message.is_begun())
    }

    /// Forgets everything. A message that was begun is never ended: only a close may follow.
    pub(super) fn clear(&mut self) {
        self.messages = VecDeque::new();
        self.own = 0;
    }

    /// The next frame to send.
    pub(super) fn next_piece(&mut self) -> Option<Piece> {
        let (sender, message) = self.messages.front_mut()?;
        let shard = sender.shard();
        let (len, frame) = message.next()?;
        if message.is_done() {
            self.popped();
        }
        Some((shard, len, frame))
    }

    fn popped(&mut self) {
        let popped = self.messages.pop_front();
        self.own -= usize::from(matches!(popped, Some((Sender::Own, _))));
        if self.messages.is_empty() && self.messages.capacity() > ROOM_KEPT {
            self.messages = VecDeque::new();
        }
    }
}

/// Bytes that left for the network and were not yet reported, by shard.
#[derive(Debug, Default)]
pub(super) struct Drained {
    by_shard: Vec<(u16, usize)>,
}

impl Drained {
    pub(super) fn add(&mut self, shard: Option<u16>, bytes: usize) {
        let Some(shard) = shard else { return };
        match self.by_shard.iter_mut().find(|(there, _)| *there == shard) {
            Some((_, sum)) => *sum += bytes,
            None => self.by_shard.push((shard, bytes)),
        }
    }

    pub(super) fn report(&mut self, mut tell: impl FnMut(u16, usize)) {
        for (shard, bytes) in self.by_shard.drain(..) {
            tell(shard, bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::FRAGMENT_BYTES;

    #[test]
    fn messages_are_sent_in_order_piece_by_piece() {
        let mut queue = Queue::default();
        queue.push(None, Bytes::from_static(b"first"));
        queue.push(Some(3), Bytes::from(vec![7; FRAGMENT_BYTES + 5]));
        queue.push(Some(1), Bytes::from_static(b"last"));
        assert_eq!(queue.own(), 1);

        let mut sent = Vec::new();
        while let Some((shard, len, _)) = queue.next_piece() {
            sent.push((shard, len, queue.is_begun(), queue.own()));
        }
        let pieces = [
            (None, 5, false, 0),
            (Some(3), FRAGMENT_BYTES, true, 0),
            (Some(3), 5, false, 0),
            (Some(1), 4, false, 0),
        ];
        assert_eq!(sent, pieces);
    }

    #[test]
    fn drained_bytes_are_reported_once_by_shard() {
        let mut drained = Drained::default();
        for (shard, bytes) in [(Some(1), 10), (None, 99), (Some(0), 5), (Some(1), 7)] {
            drained.add(shard, bytes);
        }
        let mut told = Vec::new();
        drained.report(|shard, bytes| told.push((shard, bytes)));
        assert_eq!(told, [(1, 17), (0, 5)]);
        drained.report(|_, _| panic!("already told"));
    }
}
