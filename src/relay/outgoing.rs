//! What is on its way to one connection, and what of it has left.

use std::fmt;

use bytes::Bytes;
use concord_protocol::CloseCode;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::frames::{Lanes, Left, Takes};

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

/// Messages that wait for the socket.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lanes: Lanes<Sender>,
    /// How many of them are the connection's own.
    own: usize,
    drained: Drained,
}

impl Queue {
    /// From now on the other side takes this.
    pub(super) fn set_takes(&mut self, takes: Takes) {
        self.lanes.set_takes(takes);
    }

    pub(super) fn push(&mut self, shard: Option<u16>, bytes: Bytes) {
        self.own += usize::from(shard.is_none());
        let (own, drained) = (&mut self.own, &mut self.drained);
        let sender = shard.map_or(Sender::Own, Sender::Shard);
        self.lanes.push(sender, bytes, |left| drained.left(&left, own));
    }

    /// A message that answers a call.
    pub(super) fn push_answer(&mut self, bytes: Bytes, place: Place) {
        let (own, drained) = (&mut self.own, &mut self.drained);
        self.lanes.push(Sender::Call { _place: place }, bytes, |left| drained.left(&left, own));
    }

    /// Messages of the connection itself that are not yet sent whole.
    pub(super) fn own(&self) -> usize {
        self.own
    }

    /// Whether a frame is sent in part.
    pub(super) fn is_begun(&self) -> bool {
        self.lanes.is_begun()
    }

    /// Forgets everything. A message that was begun is never ended: only a close may follow.
    pub(super) fn clear(&mut self) {
        self.lanes.clear();
        self.own = 0;
    }

    /// The next frame to send, and its bytes.
    pub(super) fn next_piece(&mut self) -> Option<(usize, Message)> {
        let (own, drained) = (&mut self.own, &mut self.drained);
        self.lanes.next(|left| drained.left(&left, own))
    }

    /// Tells each shard how many bytes of it have left since this was last asked.
    pub(super) fn report(&mut self, tell: impl FnMut(u16, usize)) {
        self.drained.report(tell);
    }
}

/// Bytes that left for the network and were not yet reported, by shard.
#[derive(Debug, Default)]
struct Drained {
    by_shard: Vec<(u16, usize)>,
}

impl Drained {
    /// Something left, or was left out.
    fn left(&mut self, left: &Left<'_, Sender>, own: &mut usize) {
        match left.owner {
            Sender::Shard(shard) => self.add(*shard, left.bytes),
            Sender::Own => *own -= usize::from(left.is_whole),
            Sender::Call { .. } => {}
        }
    }

    fn add(&mut self, shard: u16, bytes: usize) {
        match self.by_shard.iter_mut().find(|(there, _)| *there == shard) {
            Some((_, sum)) => *sum += bytes,
            None => self.by_shard.push((shard, bytes)),
        }
    }

    fn report(&mut self, mut tell: impl FnMut(u16, usize)) {
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
    fn messages_are_sent_in_order_and_each_shard_hears_of_its_own() {
        let mut queue = Queue::default();
        queue.push(None, Bytes::from_static(b"first"));
        queue.push(Some(3), Bytes::from(vec![7; FRAGMENT_BYTES + 5]));
        queue.push(Some(1), Bytes::from_static(b"last"));
        assert_eq!(queue.own(), 1);

        let mut sent = Vec::new();
        while queue.next_piece().is_some() {
            let mut told = Vec::new();
            queue.report(|shard, bytes| told.push((shard, bytes)));
            sent.push((told, queue.is_begun(), queue.own()));
        }
        let pieces = [
            (vec![], false, 0),
            (vec![(3, FRAGMENT_BYTES)], true, 0),
            (vec![(3, 5)], false, 0),
            (vec![(1, 4)], false, 0),
        ];
        assert_eq!(sent, pieces);
    }

    #[test]
    fn a_place_is_taken_until_the_frame_with_its_answer_has_left() {
        let mut queue = Queue::default();
        queue.set_takes(Takes { batches: true, zstd: false });
        let place = std::sync::Arc::new(());
        queue.push(Some(1), Bytes::from(vec![7; FRAGMENT_BYTES]));
        queue.push_answer(Bytes::from_static(b"answer"), Box::new(place.clone()));
        assert!(queue.next_piece().is_some() && queue.is_begun());
        assert_eq!(std::sync::Arc::strong_count(&place), 2);
        assert!(queue.next_piece().is_some() && !queue.is_begun());
        assert_eq!(std::sync::Arc::strong_count(&place), 1);
    }

    #[test]
    fn drained_bytes_are_reported_once_by_shard() {
        let mut drained = Drained::default();
        for (shard, bytes) in [(1, 10), (0, 5), (1, 7)] {
            drained.add(shard, bytes);
        }
        let mut told = Vec::new();
        drained.report(|shard, bytes| told.push((shard, bytes)));
        assert_eq!(told, [(1, 17), (0, 5)]);
        drained.report(|_, _| panic!("already told"));
    }
}
