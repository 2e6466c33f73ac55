//! Large messages in several WebSocket frames: pings fit in between, what a slow reader took is
//! known piece by piece, and the buffer of a connection never grows to the largest message.

use bytes::Bytes;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

/// Bytes of a message from which it is sent in several WebSocket frames.
pub(crate) const FRAGMENT_BYTES: usize = 16 * 1024;

/// A message that is being sent.
#[derive(Debug)]
pub(crate) struct Fragments {
    rest: Bytes,
    is_begun: bool,
    is_done: bool,
}

impl Fragments {
    /// Nothing of it is sent yet.
    pub(crate) const fn new(message: Bytes) -> Self {
        Self { rest: message, is_begun: false, is_done: false }
    }

    /// Whether all of it was given out.
    pub(crate) const fn is_done(&self) -> bool {
        self.is_done
    }
}

/// The frames of the message, and the bytes of it that each carries.
impl Iterator for Fragments {
    type Item = (usize, Message);

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let piece = self.rest.split_to(self.rest.len().min(FRAGMENT_BYTES));
        let len = piece.len();
        self.is_done = self.rest.is_empty();
        let is_whole = self.is_done && !self.is_begun;
        let kind = if self.is_begun { Data::Continue } else { Data::Binary };
        self.is_begun = true;
        let message = if is_whole {
            Message::Binary(piece)
        } else {
            Message::Frame(Frame::message(piece, OpCode::Data(kind), self.is_done))
        };
        Some((len, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_are_one_frame_and_large_ones_add_up() {
        let mut small = Fragments::new(Bytes::from_static(b"first"));
        assert!(matches!(small.next(), Some((5, Message::Binary(_)))));
        assert!(small.is_done() && small.next().is_none());

        let large: Bytes = (0..FRAGMENT_BYTES * 2 + 5).map(|i| i.to_le_bytes()[0]).collect();
        let mut fragments = Fragments::new(large.clone());
        let (mut joined, mut kinds) = (Vec::new(), Vec::new());
        while let Some((len, Message::Frame(frame))) = fragments.next() {
            assert_eq!(len, frame.payload().len());
            assert_eq!(fragments.is_done(), frame.header().is_final);
            kinds.push((frame.header().opcode, frame.header().is_final));
            joined.extend_from_slice(frame.payload());
        }
        assert_eq!(joined, large);
        assert!(fragments.is_done());
        let (binary, more) = (OpCode::Data(Data::Binary), OpCode::Data(Data::Continue));
        assert_eq!(kinds, [(binary, false), (more, false), (more, true)]);
    }

    #[test]
    fn a_message_of_just_one_fragment_is_whole() {
        let mut exact = Fragments::new(Bytes::from(vec![1; FRAGMENT_BYTES]));
        assert!(matches!(exact.next(), Some((FRAGMENT_BYTES, Message::Binary(_)))));
        assert!(exact.next().is_none());
        let mut empty = Fragments::new(Bytes::new());
        assert!(matches!(empty.next(), Some((0, Message::Binary(_)))));
        assert!(empty.next().is_none());
    }
}
