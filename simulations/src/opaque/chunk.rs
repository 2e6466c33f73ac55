//! Chunks by hand: changes as automerge writes them, and what stands for snapshots.

use std::rc::Rc;

use bytes::{BufMut as _, Bytes, BytesMut};
use concord_protocol::ChangeHash;
use sha2::{Digest as _, Sha256};

use super::Change;
use crate::random::Rng;

/// What opens a chunk of any kind.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// Type bytes of chunks.
const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;

/// Whether a chunk is a snapshot.
pub(super) fn is_snapshot(chunk: &Bytes) -> bool {
    chunk.get(8) == Some(&DOCUMENT)
}

/// Bytes of a change from which on a part of it is in a snapshot beside its name.
const LARGE_BYTES: usize = 1024;
/// Which part.
const LARGE_PART: usize = 32;

/// Makes a snapshot of changes in order.
pub(super) fn close(changes: &[Rc<Change>]) -> Bytes {
    let mut inside = BytesMut::with_capacity(changes.len() * 36);
    for change in changes {
        let len = change.bytes.len();
        let part = if len < LARGE_BYTES { 0 } else { len / LARGE_PART };
        inside.put_slice(&change.hash.0);
        inside.put_u32_le(u32::try_from(part).unwrap_or(u32::MAX));
        inside.put_slice(&change.bytes[..part]);
    }
    seal(&inside)
}

/// Puts the frame of a document chunk around it.
fn seal(inside: &[u8]) -> Bytes {
    frame(DOCUMENT, inside)
}

/// Puts the frame of a chunk around it.
fn frame(kind: u8, inside: &[u8]) -> Bytes {
    let mut chunk = BytesMut::with_capacity(inside.len() + 19);
    chunk.put_slice(&MAGIC);
    chunk.put_u32(0);
    chunk.put_u8(kind);
    put_number(&mut chunk, inside.len() as u64);
    chunk.put_slice(inside);
    let hash = Sha256::digest(&chunk[8..]);
    chunk[4..8].copy_from_slice(&hash[..4]);
    chunk.freeze()
}

/// Writes a number in LEB128.
fn put_number(to: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        to.put_u8((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    to.put_u8((number & 0x7F) as u8);
}

/// Writes a number in signed LEB128.
fn put_signed(to: &mut BytesMut, mut number: i64) {
    let low = |number: i64| number.to_le_bytes()[0] & 0x7F;
    while !(-0x40..0x40).contains(&number) {
        to.put_u8(low(number) | 0x80);
        number >>= 7;
    }
    to.put_u8(low(number));
}

/// The names of the changes in a snapshot, in order.
pub(super) fn names(chunk: &[u8]) -> Option<Vec<ChangeHash>> {
    let len_bytes = chunk.get(9..)?.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let mut rest = chunk.get(9 + len_bytes..)?;
    let mut names = Vec::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_first_chunk::<32>()?;
        let (part, after) = after.split_first_chunk::<4>()?;
        rest = after.get(u32::from_le_bytes(*part) as usize..)?;
        names.push(ChangeHash(*name));
    }
    Some(names)
}

/// A document chunk in its frame that holds no document.
pub(crate) fn junk(value: u64) -> Bytes {
    seal(&value.to_le_bytes())
}

/// So many bytes that do not compress.
pub(crate) fn noise(value: u64, bytes: usize) -> Vec<u8> {
    let mut rng = Rng::new(value);
    let mut noise: Vec<u8> =
        std::iter::repeat_with(|| rng.next().to_le_bytes()).take(bytes / 8 + 1).flatten().collect();
    noise.truncate(bytes);
    noise
}

/// What a change sets its field to.
pub(crate) enum Value {
    /// A number.
    Number(u64),
    /// Anything.
    Data(Vec<u8>),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

/// Writes a change that sets one field of the root, as automerge would.
pub(crate) fn write(
    actor: &[u8],
    seq: u32,
    start_op: u32,
    time: i64,
    deps: &[ChangeHash],
    value: impl Into<Value>,
) -> Bytes {
    /// A run of one row.
    const ONE: u8 = 0x7F;
    let mut raw = BytesMut::new();
    let kind = match value.into() {
        Value::Number(number) => {
            put_number(&mut raw, number);
            3
        }
        Value::Data(data) => {
            raw.put_slice(&data);
            7
        }
    };
    let mut meta = BytesMut::from(&[ONE][..]);
    put_number(&mut meta, (raw.len() as u64) << 4 | kind);
    // Key, whether it inserts, what it does, its value's kind and bytes, what it overwrites.
    let columns: [(u8, &[u8]); 6] = [
        (0x15, b"\x7f\x05field"),
        (0x34, &[1]),
        (0x42, &[ONE, 1]),
        (0x56, &meta),
        (0x57, &raw),
        (0x70, &[ONE, 0]),
    ];
    let mut body = BytesMut::with_capacity(deps.len() * 32 + actor.len() + raw.len() + 64);
    let mut deps = deps.to_vec();
    deps.sort_unstable();
    put_number(&mut body, deps.len() as u64);
    for dep in &deps {
        body.put_slice(&dep.0);
    }
    put_number(&mut body, actor.len() as u64);
    body.put_slice(actor);
    put_number(&mut body, seq.into());
    put_number(&mut body, start_op.into());
    put_signed(&mut body, time);
    // No message, no other actors.
    body.put_slice(&[0, 0]);
    // What is empty is left out.
    let columns = columns.into_iter().filter(|(_, data)| !data.is_empty());
    put_number(&mut body, columns.clone().count() as u64);
    for (column, data) in columns.clone() {
        body.put_u8(column);
        put_number(&mut body, data.len() as u64);
    }
    for (_, data) in columns {
        body.put_slice(data);
    }
    frame(CHANGE, &body)
}

/// A change of the Automerge profile that keeps every rule and that automerge 0.12 cannot apply:
/// one that was found by changing honest ones at random, under another name.
pub(crate) fn poison(actor: &[u8; 16]) -> Bytes {
    const FOUND: &[u8] = include_bytes!("../../../tests/peer_hostile/poison.change");
    /// Where its actor is.
    const ACTOR: usize = 13;
    let mut chunk = FOUND.to_vec();
    chunk[ACTOR..ACTOR + actor.len()].copy_from_slice(actor);
    let hash = Sha256::digest(&chunk[8..]);
    chunk[4..8].copy_from_slice(&hash[..4]);
    chunk.into()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use automerge::{
        ExpandedChange, ScalarValue,
        legacy::{Key, ObjectId, Op, OpType, SortedVec},
    };

    use super::*;

    /// The same change as automerge writes it.
    fn automerges(
        actor: &[u8],
        seq: u32,
        time: i64,
        deps: &[ChangeHash],
        to: ScalarValue,
    ) -> Bytes {
        let put = Op {
            action: OpType::Put(to),
            obj: ObjectId::Root,
            key: Key::Map("field".into()),
            pred: SortedVec::new(),
            insert: false,
        };
        let change = automerge::Change::from(ExpandedChange {
            operations: vec![put],
            actor_id: automerge::ActorId::from(actor),
            hash: None,
            seq: seq.into(),
            start_op: NonZeroU64::new(u64::from(seq) * 2).unwrap(),
            time,
            message: None,
            deps: deps.iter().map(|dep| automerge::ChangeHash(dep.0)).collect(),
            extra_bytes: Vec::new(),
            author: None,
        });
        Bytes::copy_from_slice(change.raw_bytes())
    }

    #[test]
    fn changes_are_those_of_automerge() {
        let deps = [ChangeHash([3; 32]), ChangeHash([2; 32]), ChangeHash([1; 32])];
        for (seq, time) in [(1, 0), (64, 63), (65, 64), (300, 1_700_000_000), (70_000, -5_000)] {
            for number in [0, 1, 63, 64, 127, 128, u64::from(u32::MAX), u64::MAX] {
                let deps = &deps[..seq as usize % 4];
                let ours = write(&[7; 16], seq, seq * 2, time, deps, number);
                assert_eq!(ours, automerges(&[7; 16], seq, time, deps, ScalarValue::Uint(number)));
            }
            for bytes in [0, 1, 7, 8, 200] {
                let data = noise(5, bytes);
                let ours = write(&[7; 9], seq, seq * 2, time, &[], Value::Data(data.clone()));
                assert_eq!(ours, automerges(&[7; 9], seq, time, &[], ScalarValue::Bytes(data)));
            }
        }
    }
}
