//! What is on its way to one connection: queued frames, cut into pieces for the socket.

use std::collections::VecDeque;

use bytes::Bytes;
use concord_protocol::CloseCode;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

/// Bytes of a message from which it is sent in several WebSocket frames. The buffer of a
/// connection never shrinks below the largest piece that it wrote, pings fit in between, and
/// what a slow reader took is known piece by piece.
pub(super) const FRAGMENT_BYTES: usize = 16 * 1024;

/// Queued messages whose room is kept when the queue is empty.
const ROOM_KEPT: usize = 16;

/// What a shard, or the server, tells a connection. Unbounded: the replica counts the bytes.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// One message of this shard.
    Frame(u16, Bytes),
    /// The end, after what was sent before.
    Close(CloseCode, String),
}

/// The sending end of a connection's queue.
pub(super) type Outbox = mpsc::UnboundedSender<Outgoing>;

/// Bytes that went to the socket, by the shard that sent them; `None`: the connection's own.
pub(super) type Piece = (Option<u16>, usize, Message);

/// Messages in the order to be sent.
#[derive(Debug, Default)]
pub(super) struct Queue {
    messages: VecDeque<(Option<u16>, Bytes)>,
    /// Whether the first message was begun: what is left of it are continuation frames.
    begun: bool,
    /// How many of them are the connection's own.
    own: usize,
}

impl Queue {
    pub(super) fn push(&mut self, shard: Option<u16>, bytes: Bytes) {
        self.own += usize::from(shard.is_none());
        self.messages.push_back((shard, bytes));
    }

    /// Messages of the connection itself that are not yet sent whole.
    pub(super) fn own(&self) -> usize {
        self.own
    }

    /// Whether the first message is sent in part.
    pub(super) fn is_begun(&self) -> bool {
        self.begun
    }

    /// Forgets everything. A message that was begun is never ended: only a close may follow.
    pub(super) fn clear(&mut self) {
        self.messages = VecDeque::new();
        self.own = 0;
    }

    /// The next frame to send.
    pub(super) fn next_piece(&mut self) -> Option<Piece> {
        let (shard, bytes) = self.messages.front_mut()?;
        let shard = *shard;
        if !self.begun && bytes.len() <= FRAGMENT_BYTES {
            let (_, bytes) = self.messages.pop_front()?;
            self.popped(shard);
            return Some((shard, bytes.len(), Message::Binary(bytes)));
        }
        let piece = bytes.split_to(bytes.len().min(FRAGMENT_BYTES));
        let kind = if self.begun { Data::Continue } else { Data::Binary };
        let is_last = bytes.is_empty();
        self.begun = !is_last;
        if is_last {
            self.messages.pop_front();
            self.popped(shard);
        }
        let len = piece.len();
        let frame = Frame::message(piece, OpCode::Data(kind), is_last);
        Some((shard, len, Message::Frame(frame)))
    }

    fn popped(&mut self, shard: Option<u16>) {
        self.own -= usize::from(shard.is_none());
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

    #[test]
    fn small_messages_are_one_frame_and_large_ones_add_up() {
        let mut queue = Queue::default();
        let large: Bytes = (0..FRAGMENT_BYTES * 2 + 5).map(|i| i.to_le_bytes()[0]).collect();
        queue.push(None, Bytes::from_static(b"first"));
        queue.push(Some(3), large.clone());
        queue.push(Some(1), Bytes::from_static(b"last"));
        assert_eq!(queue.own(), 1);

        assert!(matches!(queue.next_piece(), Some((None, 5, Message::Binary(_)))));
        let mut joined = Vec::new();
        let mut kinds = Vec::new();
        while queue.messages.len() > 1 {
            let Some((Some(3), len, Message::Frame(frame))) = queue.next_piece() else {
                panic!("the large message comes in frames of shard 3");
            };
            assert_eq!(len, frame.payload().len());
            kinds.push((frame.header().opcode, frame.header().is_final));
            joined.extend_from_slice(frame.payload());
        }
        assert_eq!(joined, large);
        let (binary, more) = (OpCode::Data(Data::Binary), OpCode::Data(Data::Continue));
        assert_eq!(kinds, [(binary, false), (more, false), (more, true)]);
        assert!(matches!(queue.next_piece(), Some((Some(1), 4, Message::Binary(_)))));
        assert!(queue.next_piece().is_none());
        assert_eq!(queue.own(), 0);
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
