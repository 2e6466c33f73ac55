//! How the pieces of an attachment are checked, each by itself.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use bytes::Bytes;
use concord_protocol::{
    BlobHash,
    limits::{BLOB_CHUNK_BYTES, BLOB_OUTLINE_BYTES_MAX},
};

/// Bytes of the node that stands for a piece.
const NODE_BYTES: usize = 32;

/// In how many pieces so many bytes are. Nothing is one piece, which is empty. `None`: more than an
/// outline may have.
pub(crate) fn pieces(length: u64) -> Option<u32> {
    const PIECES_MAX: u64 = (BLOB_OUTLINE_BYTES_MAX / NODE_BYTES) as u64;
    let pieces = length.div_ceil(BLOB_CHUNK_BYTES as u64).max(1);
    u32::try_from(pieces).ok().filter(|_| pieces <= PIECES_MAX)
}

/// How many bytes a piece has of so many in all; `None`: there is no such piece.
pub(crate) fn piece_bytes(length: u64, at: u32) -> Option<usize> {
    let begin = u64::from(at) * BLOB_CHUNK_BYTES as u64;
    let left = length.checked_sub(begin).filter(|left| *left > 0 || at == 0)?;
    Some(usize::try_from(left).map_or(BLOB_CHUNK_BYTES, |left| left.min(BLOB_CHUNK_BYTES)))
}

/// The nodes of an attachment's tree that stand for a piece each: see the module above.
///
/// Which nodes they are follows from the length. A length that is not the true one may have a list with
/// the same root (of nodes above or below those of pieces), but no bytes are what such a node says: no
/// piece of it is ever taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outline {
    hash: BlobHash,
    length: u64,
    /// None if there is one piece only, whose hash is the name.
    nodes: Vec<ChainingValue>,
}

/// What was given is not the outline of that attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum OutlineError {
    #[error("an attachment of {0} bytes is longer than any outline")]
    TooLong(u64),
    #[error("the outline has not 32 bytes for each piece")]
    Size,
    #[error("the outline is of something else")]
    Other,
}

impl Outline {
    /// Reads what somebody says is the outline of so many bytes of this name.
    pub(crate) fn read(hash: BlobHash, length: u64, bytes: &[u8]) -> Result<Self, OutlineError> {
        let pieces = pieces(length).ok_or(OutlineError::TooLong(length))?;
        let (nodes, rest) = bytes.as_chunks::<NODE_BYTES>();
        let wanted = if pieces == 1 { 0 } else { pieces as usize };
        if nodes.len() != wanted || !rest.is_empty() {
            return Err(OutlineError::Size);
        }
        if pieces > 1 && root(nodes) != Some(hash) {
            return Err(OutlineError::Other);
        }
        Ok(Self { hash, length, nodes: nodes.to_vec() })
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        Bytes::from(self.nodes.as_flattened().to_vec())
    }

    pub(crate) fn hash(&self) -> BlobHash {
        self.hash
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Whether these are the bytes of a piece.
    pub(crate) fn is_piece(&self, at: u32, bytes: &[u8]) -> bool {
        if piece_bytes(self.length, at) != Some(bytes.len()) {
            return false;
        }
        match self.nodes.get(at as usize) {
            Some(wanted) => node(at, bytes) == *wanted,
            None => at == 0 && *blake3::hash(bytes).as_bytes() == self.hash.0,
        }
    }
}

/// Makes the outline of bytes that come piece by piece.
#[derive(Debug, Default)]
pub(crate) struct Outlining {
    nodes: Vec<ChainingValue>,
    length: u64,
    /// The name, if the first piece is the only one.
    first: Option<BlobHash>,
}

impl Outlining {
    /// Takes in the next piece. Each but the last is of [`BLOB_CHUNK_BYTES`].
    pub(crate) fn push(&mut self, piece: &[u8]) {
        if self.nodes.is_empty() {
            self.first = Some(BlobHash(*blake3::hash(piece).as_bytes()));
        }
        let at = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        self.nodes.push(node(at, piece));
        self.length += piece.len() as u64;
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The outline of all that was taken in.
    pub(crate) fn finish(mut self) -> Outline {
        if self.nodes.is_empty() {
            self.push(&[]);
        }
        let (length, first) = (self.length, self.first.unwrap_or(BlobHash([0; 32])));
        match root(&self.nodes) {
            Some(hash) => Outline { hash, length, nodes: self.nodes },
            None => Outline { hash: first, length, nodes: Vec::new() },
        }
    }
}

fn node(at: u32, piece: &[u8]) -> ChainingValue {
    if piece.is_empty() {
        // The tree of nothing has no node below its root, and nothing is asked of this one.
        return [0; NODE_BYTES];
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(u64::from(at) * BLOB_CHUNK_BYTES as u64);
    hasher.update(piece);
    hasher.finalize_non_root()
}

/// The root over several nodes; `None` of fewer than two.
fn root(nodes: &[ChainingValue]) -> Option<BlobHash> {
    let (left, right) = halves(nodes)?;
    Some(BlobHash(*merge_subtrees_root(&subtree(left)?, &subtree(right)?, Mode::Hash).as_bytes()))
}

fn subtree(nodes: &[ChainingValue]) -> Option<ChainingValue> {
    match nodes {
        [node] => Some(*node),
        // As deep as the logarithm of their number.
        nodes => {
            let (left, right) = halves(nodes)?;
            Some(merge_subtrees_non_root(&subtree(left)?, &subtree(right)?, Mode::Hash))
        }
    }
}

/// On the left the largest power of two that leaves something on the right.
fn halves(nodes: &[ChainingValue]) -> Option<(&[ChainingValue], &[ChainingValue])> {
    let left = nodes.len().checked_next_power_of_two().map(|above| above / 2)?;
    nodes.split_at_checked(left).filter(|(left, right)| !left.is_empty() && !right.is_empty())
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn bytes(length: usize, seed: u8) -> Vec<u8> {
        let byte = |n: usize| {
            // No two pieces alike.
            let [low, next, piece, ..] = n.to_le_bytes();
            low.wrapping_mul(31) ^ next.wrapping_mul(7) ^ piece.wrapping_mul(13) ^ seed
        };
        (0..length).map(byte).collect()
    }

    fn outlined(bytes: &[u8]) -> Outline {
        let mut outlining = Outlining::default();
        bytes.chunks(BLOB_CHUNK_BYTES).for_each(|piece| outlining.push(piece));
        outlining.finish()
    }

    quickcheck! {
        fn the_name_is_the_blake3_of_the_bytes(pieces: u8, more: u16, seed: u8) -> bool {
            let bytes = bytes(usize::from(pieces % 20) * BLOB_CHUNK_BYTES + usize::from(more), seed);
            let outline = outlined(&bytes);
            outline.hash().0 == *blake3::hash(&bytes).as_bytes()
                && outline.length() == bytes.len() as u64
                && Outline::read(outline.hash(), outline.length(), &outline.to_bytes()) == Ok(outline)
        }

        fn every_piece_is_known_and_no_other(pieces: u8, more: u16, bit: u32) -> bool {
            let bytes = bytes(usize::from(pieces % 6) * BLOB_CHUNK_BYTES + usize::from(more), 3);
            let outline = outlined(&bytes);
            // Of nothing there is no piece to spoil.
            bytes.chunks(BLOB_CHUNK_BYTES).zip(0..).all(|(piece, at)| {
                let mut wrong = piece.to_vec();
                let place = bit as usize % (wrong.len() * 8);
                wrong[place / 8] ^= 1 << (place % 8);
                outline.is_piece(at, piece)
                    && !outline.is_piece(at, &wrong)
                    && !outline.is_piece(at, &piece[1..])
                    && !outline.is_piece(at + 1, piece)
            })
        }

        fn an_outline_that_was_tampered_with_is_none(pieces: u8, bit: u32) -> bool {
            let bytes = bytes(usize::from(pieces % 9 + 2) * BLOB_CHUNK_BYTES, 5);
            let outline = outlined(&bytes);
            let mut list = outline.to_bytes().to_vec();
            let place = bit as usize % (list.len() * 8);
            list[place / 8] ^= 1 << (place % 8);
            Outline::read(outline.hash(), outline.length(), &list) == Err(OutlineError::Other)
        }
    }

    #[test]
    fn nothing_is_a_piece_too() {
        let nothing = outlined(&[]);
        assert_eq!(nothing.hash().0, *blake3::hash(&[]).as_bytes());
        assert!(nothing.is_piece(0, &[]) && !nothing.is_piece(1, &[]));
        assert_eq!((pieces(0), piece_bytes(0, 0), piece_bytes(0, 1)), (Some(1), Some(0), None));
    }

    /// Two nodes above those of four pieces have the same root, for half the length.
    #[test]
    fn a_list_of_other_nodes_takes_no_piece() {
        let bytes = bytes(4 * BLOB_CHUNK_BYTES, 9);
        let outline = outlined(&bytes);
        let above: Vec<u8> =
            outline.nodes.chunks(2).flat_map(|pair| subtree(pair).unwrap()).collect();
        let half = outline.length() / 2;
        let shorter = Outline::read(outline.hash(), half, &above).unwrap();
        assert!(bytes.chunks(BLOB_CHUNK_BYTES).all(|piece| !shorter.is_piece(0, piece)));
    }

    #[test]
    fn sizes_are_looked_at_first() {
        let hash = BlobHash([1; 32]);
        let read = |length, bytes: &[u8]| Outline::read(hash, length, bytes);
        assert!(matches!(read(u64::MAX, &[]), Err(OutlineError::TooLong(_))));
        assert_eq!(read(200_000, &[0; 64]), Err(OutlineError::Size));
        assert_eq!(read(200_000, &[0; 129]), Err(OutlineError::Size));
        assert_eq!(read(5, &[0; 32]), Err(OutlineError::Size));
        assert!(read(5, &[]).is_ok());
    }
}
