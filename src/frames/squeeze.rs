//! Compressed frames. One is opened only where this side said that it takes them, once, and into
//! the room that it declares, which is checked first.

use std::{cell::RefCell, io};

use bytes::Bytes;
use concord_protocol::{
    Limits, Message,
    codec::{self, DecodeError},
    limits::{COMPRESSED_BYTES_MIN, INFLATED_BYTES_MAX},
};
use zstd::bulk::{Compressor, Decompressor};

/// The fastest of zstd's ordinary levels: a relay compresses for each reader by itself. Of what is
/// typed it saves a third.
const LEVEL: i32 = 1;

/// Why a frame cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenError {
    /// It, or what is in it, is no frame.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// This side did not say that it takes them.
    #[error("a compressed frame, which was not agreed on: the feature is `zstd`")]
    NotAgreed,
    /// It is among other messages, or in another.
    #[error("a compressed frame inside a frame: only a whole frame can be compressed, and once")]
    Nested,
    /// It declares more than is allowed.
    #[error("a compressed frame of {len} bytes; at most {max} are allowed")]
    TooLarge {
        /// How many it declares.
        len: usize,
        /// How many it may have.
        max: usize,
    },
    /// It is not zstd, or not of the length that it declares.
    #[error("a compressed frame that does not open: {0}")]
    Damaged(String),
}

thread_local! {
    // Each is some hundred KiB that are made once a thread and not for every frame.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The frame compressed, where that makes it smaller and it is one that is worth it.
pub(super) fn squeeze(frame: &Bytes) -> Option<Bytes> {
    if !(COMPRESSED_BYTES_MIN..=INFLATED_BYTES_MAX).contains(&frame.len()) {
        return None;
    }
    let compressed = COMPRESSOR.with_borrow_mut(|kept| match kept {
        Some(compressor) => compressor.compress(frame),
        None => kept.insert(Compressor::new(LEVEL)?).compress(frame),
    });
    // It is sent as it is then.
    let data = compressed.ok()?.into();
    let length = u32::try_from(frame.len()).ok()?;
    let squeezed = codec::encode(&Message::Compressed { length, data });
    (squeezed.len() < frame.len()).then_some(squeezed)
}

/// Reads one frame, which may be compressed if `zstd` was agreed on. Gives its bytes, too, as they are
/// when it is not.
pub(crate) fn open(
    frame: &Bytes,
    limits: &Limits,
    zstd: bool,
) -> Result<(Vec<Message>, usize), OpenError> {
    let messages = codec::decode(frame, limits)?;
    let is_compressed = |message: &Message| matches!(message, Message::Compressed { .. });
    let inner = match messages.as_slice() {
        [Message::Compressed { .. }] if !zstd => return Err(OpenError::NotAgreed),
        [Message::Compressed { length, data }] => inflate(*length, data, limits)?,
        messages if messages.iter().any(is_compressed) => return Err(OpenError::Nested),
        _ => return Ok((messages, frame.len())),
    };
    let messages = codec::decode(&inner, limits)?;
    if messages.iter().any(is_compressed) {
        return Err(OpenError::Nested);
    }
    Ok((messages, inner.len()))
}

fn inflate(length: u32, data: &[u8], limits: &Limits) -> Result<Bytes, OpenError> {
    let max = INFLATED_BYTES_MAX.min(limits.message_bytes);
    let len = usize::try_from(length).unwrap_or(usize::MAX);
    if len > max {
        return Err(OpenError::TooLarge { len, max });
    }
    // The room is what zstd writes into; it has no window of its own, whatever the header says.
    let mut room = Vec::with_capacity(len);
    let inflated = DECOMPRESSOR.with_borrow_mut(|kept| -> io::Result<usize> {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress_to_buffer(data, &mut room)
    });
    match inflated {
        Ok(inflated) if inflated == len && room.len() == len => Ok(room.into()),
        Ok(other) => Err(OpenError::Damaged(format!("{other} bytes, and it declares {len}"))),
        Err(error) => Err(OpenError::Damaged(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use concord_protocol::codec::MESSAGES_PER_FRAME_MAX;

    use super::*;

    fn hang_ups(count: u32) -> Bytes {
        let messages: Vec<_> = (0..count).map(|id| Message::HangUp { id }).collect();
        codec::encode_many(&messages)
    }

    fn wrapped(length: usize, data: impl Into<Bytes>) -> Bytes {
        let length = length.try_into().unwrap();
        codec::encode(&Message::Compressed { length, data: data.into() })
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(bytes, LEVEL).unwrap()
    }

    fn text(bytes: usize) -> Message {
        Message::Event { id: 1, event: "e".to_owned(), data: "words ".repeat(bytes / 6) }
    }

    #[test]
    fn what_is_compressed_is_read_again() {
        let limits = Limits::default();
        let message = text(100_000);
        let frame = codec::encode(&message);
        let squeezed = squeeze(&frame).unwrap();
        assert!(squeezed.len() < 1_000);
        assert_eq!(open(&squeezed, &limits, true), Ok((vec![message], frame.len())));
        assert_eq!(open(&squeezed, &limits, false), Err(OpenError::NotAgreed));
    }

    #[test]
    fn small_frames_and_those_that_do_not_get_smaller_stay_as_they_are() {
        assert_eq!(squeeze(&codec::encode(&text(1_000))), None);
        let mut state = 1_u32;
        let noise = (0..8_192).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        });
        assert_eq!(squeeze(&noise.collect()), None);
        assert_eq!(squeeze(&vec![0; INFLATED_BYTES_MAX + 1].into()), None);
    }

    #[test]
    fn bombs_and_wrappers_in_wrappers_are_refused() {
        let limits = Limits::default();
        let opened = |frame: &Bytes| open(frame, &limits, true).map(|(messages, _)| messages);
        let bomb = zstd(&vec![0; 64 << 20]);
        assert!(bomb.len() < 16_384, "it is one");
        let over = INFLATED_BYTES_MAX + 1;
        let too_large = OpenError::TooLarge { len: over, max: INFLATED_BYTES_MAX };
        assert_eq!(opened(&wrapped(over, bomb.clone())), Err(too_large));
        // What it declares is less than what is in it.
        for declared in [0, 1, 100, INFLATED_BYTES_MAX] {
            let refused = opened(&wrapped(declared, bomb.clone()));
            assert!(matches!(refused, Err(OpenError::Damaged(_))), "{refused:?}");
        }
        // More than is in it.
        let one = hang_ups(1);
        let refused = opened(&wrapped(one.len() + 1, zstd(&one)));
        assert!(matches!(refused, Err(OpenError::Damaged(_))), "{refused:?}");
        assert_eq!(opened(&wrapped(one.len(), zstd(&one))).map(|messages| messages.len()), Ok(1));

        let inner = wrapped(one.len(), zstd(&one));
        assert_eq!(opened(&wrapped(inner.len(), zstd(&inner))), Err(OpenError::Nested));
        let compressed = Message::Compressed { length: 1, data: Bytes::from_static(b"x") };
        let among = codec::encode_many(&[Message::HangUp { id: 1 }, compressed]);
        assert_eq!(opened(&among), Err(OpenError::Nested));
        assert_eq!(opened(&wrapped(among.len(), zstd(&among))), Err(OpenError::Nested));

        let many = hang_ups(101);
        let refused = opened(&wrapped(many.len(), zstd(&many)));
        let too_many = DecodeError::TooMany {
            what: "messages",
            count: MESSAGES_PER_FRAME_MAX + 1,
            max: MESSAGES_PER_FRAME_MAX,
        };
        assert_eq!(refused, Err(OpenError::Decode(too_many)));
        let garbage = opened(&wrapped(10, Bytes::from_static(b"not zstd")));
        assert!(matches!(garbage, Err(OpenError::Damaged(_))), "{garbage:?}");
    }

    quickcheck::quickcheck! {
        /// Whatever the bytes, there is an answer.
        fn opening_is_total(length: u32, data: Vec<u8>, cut: usize, flip: usize) -> bool {
            let limits = Limits::default();
            let _ = open(&wrapped(length as usize, data.clone()), &limits, true);
            let frame = hang_ups(90);
            let mut squeezed = zstd(&frame);
            squeezed.truncate(cut % squeezed.len() + 1);
            let at = flip % squeezed.len();
            squeezed[at] ^= 1 << (flip % 8);
            let damaged = open(&wrapped(frame.len(), squeezed), &limits, true);
            damaged.is_err() || damaged.is_ok_and(|(messages, _)| messages.len() <= 100)
        }
    }
}
