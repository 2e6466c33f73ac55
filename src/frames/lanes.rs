//! Messages that wait for a socket. What waits together goes together, where the other side takes
//! several messages a frame; messages of documents, calls and acks stay in order, and presence
//! passes them: it is worthless a second later, so there is little room for it, and what is oldest
//! is left out.

use std::collections::VecDeque;

use bytes::Bytes;
use concord_protocol::{
    codec::{self, MESSAGES_PER_FRAME_MAX},
    limits::FRAME_BYTES_MAX,
};
use tokio_tungstenite::tungstenite::Message;

use super::{fragments::Fragments, squeeze::squeeze};

/// Messages of presence that wait: ten sessions in each of a hundred open documents.
const PRESENCE_MAX: usize = 1_000;
/// Bytes of presence that wait: four messages of the largest size.
const PRESENCE_BYTES_MAX: usize = 256 * 1024;
/// Messages whose room is kept when nothing waits.
const ROOM_KEPT: usize = 16;

/// What the other side takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Takes {
    /// Several messages a frame.
    pub(crate) batches: bool,
    /// Frames that are compressed.
    pub(crate) zstd: bool,
}

/// Of one message, what just left or was left out.
#[derive(Debug)]
pub(crate) struct Left<'a, T> {
    /// Whose it is.
    pub(crate) owner: &'a T,
    /// How many of its bytes, as they were queued: of a compressed frame, its part.
    pub(crate) bytes: usize,
    /// Whether it is all of it, now.
    pub(crate) is_whole: bool,
}

/// See the module. Each message has an owner, which is dropped when it has left.
#[derive(Debug)]
pub(crate) struct Lanes<T> {
    takes: Takes,
    /// So many of the first go alone: when they were queued the other side took nothing else.
    alone: usize,
    ordered: VecDeque<(T, Bytes)>,
    presence: VecDeque<(T, Bytes)>,
    presence_bytes: usize,
    /// The last frame was one of presence: it is the turn of the others, if any wait.
    passed: bool,
    sending: Option<Sending<T>>,
}

/// A frame that is being sent.
#[derive(Debug)]
struct Sending<T> {
    pieces: Fragments,
    /// Bytes of it, and how many of them have left.
    frame_bytes: usize,
    left_bytes: usize,
    /// Its messages and their bytes, of which so many are told to have left.
    messages: VecDeque<(T, usize)>,
    message_bytes: usize,
    told_bytes: usize,
    /// Those of the first message.
    first_told: usize,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self {
            takes: Takes::default(),
            alone: 0,
            ordered: VecDeque::new(),
            presence: VecDeque::new(),
            presence_bytes: 0,
            passed: false,
            sending: None,
        }
    }
}

impl<T> Lanes<T> {
    /// The other side takes this, in what is queued from now on.
    pub(crate) fn set_takes(&mut self, takes: Takes) {
        self.takes = takes;
        self.alone = self.ordered.len();
    }

    /// One more message, encoded. Tells of presence that is left out for it.
    pub(crate) fn push(&mut self, owner: T, message: Bytes, mut left: impl FnMut(Left<'_, T>)) {
        if !codec::is_ephemeral(&message) {
            self.ordered.push_back((owner, message));
            return;
        }
        self.presence_bytes += message.len();
        self.presence.push_back((owner, message));
        let is_over = |lanes: &Self| {
            lanes.presence.len() > PRESENCE_MAX || lanes.presence_bytes > PRESENCE_BYTES_MAX
        };
        while is_over(self)
            && let Some((owner, message)) = self.presence.pop_front()
        {
            self.presence_bytes -= message.len();
            left(Left { owner: &owner, bytes: message.len(), is_whole: true });
        }
    }

    /// Whether a frame is sent in part.
    pub(crate) fn is_begun(&self) -> bool {
        self.sending.is_some()
    }

    /// Forgets everything. A frame that was begun is never ended: only a close may follow.
    pub(crate) fn clear(&mut self) {
        *self = Self { takes: self.takes, ..Self::default() };
    }

    /// The next thing to give to the socket, and how many bytes of a frame it carries; tells of what
    /// leaves with it.
    pub(crate) fn next(&mut self, left: impl FnMut(Left<'_, T>)) -> Option<(usize, Message)> {
        if self.sending.is_none() {
            self.sending = self.begin();
        }
        let sending = self.sending.as_mut()?;
        let (len, piece) = sending.pieces.next()?;
        sending.tell(len, left);
        if sending.pieces.is_done() {
            self.sending = None;
            if self.ordered.is_empty() && self.ordered.capacity() > ROOM_KEPT {
                self.ordered = VecDeque::new();
            }
        }
        Some((len, piece))
    }

    fn begin(&mut self) -> Option<Sending<T>> {
        let passes = !self.presence.is_empty() && (self.ordered.is_empty() || !self.passed);
        self.passed = passes;
        let lane = if passes { &mut self.presence } else { &mut self.ordered };
        let (owner, message) = lane.pop_front()?;
        let mut takes = self.takes;
        if !passes && self.alone > 0 {
            self.alone -= 1;
            takes = Takes::default();
        }
        let mut bytes = message.len();
        let (mut messages, mut parts) = (VecDeque::from([(owner, bytes)]), vec![message]);
        while takes.batches
            && parts.len() < MESSAGES_PER_FRAME_MAX
            && lane.front().is_some_and(|(_, next)| bytes + next.len() <= FRAME_BYTES_MAX)
            && let Some((owner, message)) = lane.pop_front()
        {
            bytes += message.len();
            messages.push_back((owner, message.len()));
            parts.push(message);
        }
        if passes {
            self.presence_bytes -= bytes;
        }
        let frame = match parts.pop() {
            Some(only) if parts.is_empty() => only,
            last => {
                parts.extend(last);
                codec::frame_of(parts.iter())
            }
        };
        let frame = takes.zstd.then(|| squeeze(&frame)).flatten().unwrap_or(frame);
        Some(Sending {
            frame_bytes: frame.len(),
            pieces: Fragments::new(frame),
            left_bytes: 0,
            messages,
            message_bytes: bytes,
            told_bytes: 0,
            first_told: 0,
        })
    }
}

impl<T> Sending<T> {
    /// So many bytes of the frame left: tells whose that were, as if the frame's bytes were those of
    /// its messages, in order.
    fn tell(&mut self, len: usize, mut left: impl FnMut(Left<'_, T>)) {
        self.left_bytes += len;
        let is_over = self.left_bytes >= self.frame_bytes;
        let due = if is_over {
            self.message_bytes
        } else {
            // Neither is above the largest message: the product fits 64 bits.
            let part = self.message_bytes as u64 * self.left_bytes as u64 / self.frame_bytes as u64;
            usize::try_from(part).unwrap_or(self.message_bytes)
        };
        let mut now = due - self.told_bytes;
        self.told_bytes = due;
        while let Some((owner, bytes)) = self.messages.front() {
            let rest = bytes - self.first_told;
            let is_whole = now >= rest && (now > 0 || is_over);
            let told = now.min(rest);
            if told > 0 || is_whole {
                left(Left { owner, bytes: told, is_whole });
            }
            now -= told;
            if !is_whole {
                self.first_told += told;
                return;
            }
            self.first_told = 0;
            self.messages.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use concord_protocol::{DocumentId, Limits, Message as Said};
    use quickcheck::quickcheck;

    use super::{
        super::{open, squeeze},
        *,
    };
    use crate::frames::FRAGMENT_BYTES;

    const ALL: Takes = Takes { batches: true, zstd: true };

    fn sync(number: u8, bytes: usize) -> Bytes {
        let document = DocumentId::from_bytes(&[number; 16]);
        let (us, them) = ("us".parse().unwrap(), "them".parse().unwrap());
        codec::encode_sync(&document, &us, &them, &vec![number; bytes])
    }

    fn presence(count: u64, bytes: usize) -> Bytes {
        codec::encode(&Said::Ephemeral {
            document: DocumentId::from_bytes(&[0; 16]),
            sender: "us".parse().unwrap(),
            target: "them".parse().unwrap(),
            count,
            session: "session".parse().unwrap(),
            data: vec![1; bytes].into(),
        })
    }

    /// Everything that is queued, as the other side reads it; and the bytes told of each owner.
    fn sent(lanes: &mut Lanes<usize>) -> (Vec<Vec<Said>>, Vec<usize>) {
        let (mut frames, mut told, mut whole) = (Vec::new(), vec![0; 256], 0);
        let mut frame = Vec::new();
        while let Some((_, piece)) = lanes.next(|left| {
            told[*left.owner] += left.bytes;
            whole += usize::from(left.is_whole);
        }) {
            match piece {
                Message::Binary(bytes) => frame.extend_from_slice(&bytes),
                Message::Frame(piece) => frame.extend_from_slice(piece.payload()),
                other => panic!("{other:?}"),
            }
            if !lanes.is_begun() {
                let bytes = Bytes::from(std::mem::take(&mut frame));
                frames.push(open(&bytes, &Limits::default(), true).unwrap().0);
            }
        }
        assert_eq!(whole, frames.iter().map(Vec::len).sum::<usize>(), "each is whole once");
        (frames, told)
    }

    fn data(messages: &[Said]) -> Vec<u8> {
        let first = |message: &Said| match message {
            Said::Sync { data, .. } => data.first().copied().unwrap_or_default(),
            other => panic!("{other:?}"),
        };
        messages.iter().map(first).collect()
    }

    #[test]
    fn what_waits_together_goes_together_in_order() {
        let mut lanes = Lanes::default();
        for takes in [Takes::default(), Takes { batches: true, zstd: false }, ALL] {
            lanes.set_takes(takes);
            let mut queued = vec![0; 256];
            for number in 0..250_u8 {
                let message = sync(number, if number == 17 { 3 * FRAGMENT_BYTES } else { 40 });
                queued[usize::from(number)] = message.len();
                lanes.push(number.into(), message, |_| panic!("nothing is left out"));
            }
            let (frames, told) = sent(&mut lanes);
            assert_eq!(frames.len(), if takes.batches { 3 } else { 250 }, "{takes:?}");
            assert!(data(&frames.concat()).into_iter().eq(0..250));
            assert_eq!(told, queued, "{takes:?}");
        }
    }

    #[test]
    fn what_was_queued_before_it_was_known_what_is_taken_goes_alone() {
        let mut lanes = Lanes::default();
        for number in 0..2 {
            lanes.push(0, sync(number, 10_000), |_| {});
        }
        lanes.set_takes(ALL);
        for number in 2..5 {
            lanes.push(0, sync(number, 10_000), |_| {});
        }
        let (frames, _) = sent(&mut lanes);
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 3]);
        assert_eq!(data(&frames.concat()), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_frame_holds_no_more_than_the_limit_of_frames() {
        let mut lanes = Lanes::default();
        lanes.set_takes(Takes { batches: true, zstd: false });
        for number in 0..10 {
            lanes.push(number, sync(1, FRAME_BYTES_MAX / 3), |_| {});
        }
        let (frames, _) = sent(&mut lanes);
        assert!(frames.iter().all(|frame| frame.len() == 2), "{}", frames.len());
        // One that is larger goes alone.
        for bytes in [10, FRAME_BYTES_MAX + 1, 10] {
            lanes.push(0, sync(1, bytes), |_| {});
        }
        assert_eq!(sent(&mut lanes).0.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1]);
    }

    #[test]
    fn presence_passes_documents_and_does_not_keep_them() {
        let mut lanes = Lanes::default();
        for number in 0..3 {
            lanes.push(0, sync(number, 10), |_| {});
        }
        for count in 0..3 {
            lanes.push(1, presence(count, 10), |_| {});
        }
        let (frames, _) = sent(&mut lanes);
        let is_presence = |frame: &Vec<Said>| matches!(frame[0], Said::Ephemeral { .. });
        let order: Vec<_> = frames.iter().map(is_presence).collect();
        assert_eq!(order, [true, false, true, false, true, false]);
    }

    #[test]
    fn of_presence_the_oldest_is_left_out_and_told_of() {
        let mut lanes = Lanes::default();
        let (mut queued, mut told, mut whole) = (0, 0, 0);
        for count in 0..1_000 {
            let message = presence(count, 1_000);
            queued += message.len();
            lanes.push(0, message, |left| {
                told += left.bytes;
                whole += usize::from(left.is_whole);
            });
        }
        assert!(whole > 700 && lanes.presence_bytes <= PRESENCE_BYTES_MAX);
        let (frames, rest) = sent(&mut lanes);
        assert_eq!(told + rest[0], queued);
        let last = frames.last().and_then(|frame| frame.last());
        assert!(matches!(last, Some(Said::Ephemeral { count: 999, .. })));
        for count in 0..5_000 {
            lanes.push(0, presence(count, 1), |_| {});
        }
        assert_eq!(lanes.presence.len(), PRESENCE_MAX);
    }

    quickcheck! {
        /// Whatever is queued, what was told to have left is what was queued, message by message.
        fn what_left_is_what_was_queued(sizes: Vec<u16>, zstd: bool, batches: bool) -> bool {
            let mut lanes = Lanes::default();
            lanes.set_takes(Takes { batches, zstd });
            let mut queued = vec![0; 256];
            for (number, size) in sizes.iter().take(250).enumerate() {
                let message = sync(u8::try_from(number).unwrap(), usize::from(*size) * 2);
                queued[number] = message.len();
                lanes.push(number, message, |_| {});
            }
            let (frames, told) = sent(&mut lanes);
            told == queued && frames.concat().len() == sizes.len().min(250)
        }
    }

    #[test]
    fn a_message_of_its_own_is_squeezed_too() {
        let message = sync(7, 10_000);
        assert!(squeeze::squeeze(&message).is_some());
        let mut lanes = Lanes::default();
        lanes.set_takes(ALL);
        lanes.push(3, message.clone(), |_| {});
        let (frames, told) = sent(&mut lanes);
        assert_eq!((frames.len(), told[3]), (1, message.len()));
    }
}
