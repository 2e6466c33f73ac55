//! Attachments on the wire: bytes beside documents, named by what they are.
//!
//! A peer asks and offers, a relay answers; each answer has the number of what it answers. The pieces
//! of an attachment ([`crate::limits::BLOB_CHUNK_BYTES`]) go one to a message, in order when they are
//! offered, and each can be checked when it comes: the *outline* has the chaining value of each in
//! BLAKE3's own tree, and their root is the name. Of an attachment of one piece the name is enough,
//! and the outline is empty.

use std::{fmt, str::FromStr};

use bytes::Bytes;

/// The name of an attachment: the BLAKE3 of its bytes, as `b3sum` prints it, in 64 hexadecimal
/// digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash(pub [u8; 32]);

/// Text that is not the name of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a BLAKE3 in 64 hexadecimal digits")]
pub struct NotABlobHash;

impl FromStr for BlobHash {
    type Err = NotABlobHash;

    /// One form only, so that what is equal is written alike: digits are lower case.
    fn from_str(text: &str) -> Result<Self, NotABlobHash> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NotABlobHash);
        }
        let value = |digit: &u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(NotABlobHash),
        };
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_chunks::<2>().0) {
            let [high, low] = pair;
            *byte = value(high)? << 4 | value(low)?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What two sides say to each other about attachments ([`crate::Feature::Blobs`]).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BlobMessage {
    /// A piece is wanted; without one, how long it is and its outline. Answered with
    /// [`BlobMessage::Chunk`] or [`BlobMessage::State`].
    Ask {
        /// By which it is answered.
        id: u32,
        /// Of which attachment.
        hash: BlobHash,
        /// Which piece, from 0.
        at: Option<u32>,
    },
    /// Somebody has one to give. Answered with [`BlobMessage::State`], which says where to begin.
    Offer {
        /// By which it is answered.
        id: u32,
        /// Which.
        hash: BlobHash,
        /// Its bytes.
        length: u64,
        /// 32 bytes for each piece; nothing if there is only one.
        outline: Bytes,
    },
    /// A piece: asked for, or to be kept, which is answered with [`BlobMessage::State`] once it is on
    /// disk.
    Chunk {
        /// By which it is answered, or what it answers.
        id: u32,
        /// Of which attachment.
        hash: BlobHash,
        /// Which piece, from 0.
        at: u32,
        /// The bytes.
        data: Bytes,
    },
    /// How it stands with an attachment at a relay.
    State {
        /// What it answers.
        id: u32,
        /// As in HTTP: 200 when all of it is there, 202 when more is wanted, 404 when there is none of
        /// it, 409 when another piece is wanted first, 413 when it is too large, 422 when bytes are not
        /// what the name says, 429 when too much is under way, 503 when it cannot be kept at the moment,
        /// 507 when there is no more room.
        status: u16,
        /// In words, where something went wrong.
        reason: Option<String>,
        /// Its bytes, if it is there.
        length: Option<u64>,
        /// So many pieces are on disk, from the first.
        have: u32,
        /// See [`BlobMessage::Offer`]; of what is there, if that was asked.
        outline: Option<Bytes>,
    },
}

impl BlobMessage {
    /// By which it is answered, or what it answers.
    pub fn id(&self) -> u32 {
        match self {
            Self::Ask { id, .. }
            | Self::Offer { id, .. }
            | Self::Chunk { id, .. }
            | Self::State { id, .. } => *id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_form() {
        let text = "0123456789abcdef".repeat(4);
        let hash: BlobHash = text.parse().unwrap();
        assert_eq!(hash.to_string(), text);
        assert_eq!(hash.0[0], 0x01);
        let wrong =
            [String::new(), text[1..].to_owned(), text.to_uppercase(), text.replace('0', "g")];
        for wrong in wrong {
            assert_eq!(wrong.parse::<BlobHash>(), Err(NotABlobHash), "{wrong}");
        }
    }
}
