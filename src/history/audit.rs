//! Whether a history is what was written.

use std::collections::{BTreeMap, BTreeSet};

use automerge::Automerge;
use bytes::Bytes;
use concord_protocol::{
    ChangeHash, Limits,
    guard::{self, GuardError},
};

/// A history is not what was written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Tampered {
    /// The bytes are no change, or not those that their checksum is of.
    #[error("change number {number} is not one that was written: {reason}")]
    NotAChange {
        /// Which, from 0.
        number: usize,
        /// What is wrong with it.
        reason: GuardError,
    },
    /// A document names a change otherwise than by the hash of its bytes.
    #[error("the bytes of change {named} have the hash {is}")]
    OtherHash {
        /// As it is named.
        named: ChangeHash,
        /// As its bytes say.
        is: ChangeHash,
    },
    /// A change builds on one that is not there.
    #[error("change {change} builds on {missing}, which is not there")]
    Missing {
        /// Which.
        change: ChangeHash,
        /// On what.
        missing: ChangeHash,
    },
    /// A writer's changes are not numbered one after the other.
    #[error("change {change} is number {is} of its writer, after {before}")]
    OutOfLine {
        /// Which.
        change: ChangeHash,
        /// Its number.
        is: u32,
        /// The number before it.
        before: u32,
    },
    /// The heads are others than those that were expected.
    #[error("the last changes are others than those that are known: {0} is not among them")]
    OtherHeads(ChangeHash),
}

/// Checks that these changes, as bytes, are a whole history with these heads: that every change is
/// named by the hash of its bytes, builds only on what is there, is numbered after those of its
/// writer before it, and is the last or built upon. Gives how many changes there are.
///
/// Who knows the heads of a document knows by this that nothing in its history was altered, taken
/// out or put in: the heads are hashes over all of it. Heads are worth as much as the place where
/// they were kept; ask somebody who has the document too, or write them down.
///
/// # Errors
/// [`Tampered`]: the first thing that is wrong.
pub fn verify(
    changes: impl IntoIterator<Item = Bytes>,
    heads: &[ChangeHash],
) -> Result<usize, Tampered> {
    let mut known = BTreeMap::new();
    let mut writers: BTreeMap<_, BTreeMap<u32, ChangeHash>> = BTreeMap::new();
    let limits = Limits::default();
    for (number, chunk) in changes.into_iter().enumerate() {
        let read = guard::check_change(&chunk, &limits);
        let header = read.map_err(|reason| Tampered::NotAChange { number, reason })?;
        writers.entry(header.actor).or_default().insert(header.seq, header.hash);
        known.insert(header.hash, header.deps);
    }
    let mut last: BTreeSet<ChangeHash> = known.keys().copied().collect();
    for (change, deps) in &known {
        for dep in deps {
            if !known.contains_key(dep) {
                return Err(Tampered::Missing { change: *change, missing: *dep });
            }
            last.remove(dep);
        }
    }
    for changes in writers.values() {
        let mut before = 0;
        for (&is, &change) in changes {
            if is != before + 1 {
                return Err(Tampered::OutOfLine { change, is, before });
            }
            before = is;
        }
    }
    let expected: BTreeSet<ChangeHash> = heads.iter().copied().collect();
    match last.symmetric_difference(&expected).next() {
        Some(head) => Err(Tampered::OtherHeads(*head)),
        None => Ok(known.len()),
    }
}

/// As [`verify`], of a document with its own heads; and that it names each change by the hash of
/// its bytes.
///
/// # Errors
/// [`Tampered`].
pub fn verify_document(doc: &Automerge) -> Result<usize, Tampered> {
    let changes = doc.get_changes(&[]);
    let named: Vec<_> = doc.get_changes_meta(&[]).into_iter().map(|change| change.hash).collect();
    for (change, named) in changes.iter().zip(named) {
        if change.hash() != named {
            let (named, is) = (ChangeHash(named.0), ChangeHash(change.hash().0));
            return Err(Tampered::OtherHash { named, is });
        }
    }
    let heads: Vec<_> = doc.get_heads().iter().map(|head| ChangeHash(head.0)).collect();
    verify(changes.iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())), &heads)
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;
    use sha2::{Digest as _, Sha256};

    use super::{
        super::tests::{Step, heads, written},
        *,
    };

    fn chunks(doc: &Automerge) -> Vec<Bytes> {
        let changes = doc.get_changes(&[]);
        changes.iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())).collect()
    }

    quickcheck! {
        fn what_was_written_is_whole(steps: Vec<Step>) -> bool {
            let doc = written(&steps);
            verify_document(&doc) == Ok(doc.get_changes(&[]).len())
        }

        /// Whichever byte is flipped.
        fn a_flipped_byte_is_found(steps: Vec<Step>, change: usize, byte: usize, bit: u8) -> bool {
            let doc = written(&steps);
            let mut chunks = chunks(&doc);
            let change = change % chunks.len();
            let mut bytes = chunks[change].to_vec();
            let byte = byte % bytes.len();
            bytes[byte] ^= 1 << (bit % 8);
            chunks[change] = bytes.into();
            verify(chunks, &heads(&doc)).is_err()
        }

        fn a_change_that_was_taken_out_is_found(steps: Vec<Step>, change: usize) -> bool {
            let doc = written(&steps);
            let mut chunks = chunks(&doc);
            chunks.remove(change % chunks.len());
            verify(chunks, &heads(&doc)).is_err()
        }
    }

    /// Whoever makes the checksum right again has made another change, which nothing names.
    #[test]
    fn a_forged_checksum_does_not_help() {
        let steps = |n: usize| {
            (0..n).map(|_| quickcheck::Arbitrary::arbitrary(&mut quickcheck::Gen::new(9)))
        };
        let doc = written(&steps(30).collect::<Vec<Step>>());
        let mut chunks = chunks(&doc);
        let mut bytes = chunks[0].to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let hash = Sha256::digest(&bytes[8..]);
        bytes[4..8].copy_from_slice(&hash[..4]);
        chunks[0] = bytes.into();
        assert!(verify(chunks, &heads(&doc)).is_err());
    }

    #[test]
    fn other_heads_are_found() {
        let doc = written(&[]);
        let other = ChangeHash([5; 32]);
        assert_eq!(verify(chunks(&doc), &[other]), Err(Tampered::OtherHeads(other)));
        assert!(matches!(verify(chunks(&doc), &[]), Err(Tampered::OtherHeads(_))));
        assert_eq!(verify([], &[]), Ok(0));
    }
}
