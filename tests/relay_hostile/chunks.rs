//! Chunks that no client writes, made byte by byte.

use std::io::Write as _;

use automerge::{
    ActorId, AutoCommit, Automerge, Change, ExpandedChange, ObjType, ROOT,
    legacy::{Key, ObjectId, Op, OpType, SortedVec},
    transaction::Transactable as _,
};
use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, write::DeflateEncoder};
use sha2::{Digest as _, Sha256};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const CHANGE: u8 = 1;
const DEFLATED: u8 = 2;

/// The first change of this actor: it puts one key.
pub(crate) fn first_change(actor: &[u8], value: i64, deps: Vec<automerge::ChangeHash>) -> Bytes {
    let put = Op {
        action: OpType::Put(value.into()),
        obj: ObjectId::Root,
        key: Key::Map("key".into()),
        pred: SortedVec::new(),
        insert: false,
    };
    let change = Change::from(ExpandedChange {
        operations: vec![put],
        actor_id: ActorId::from(actor),
        hash: None,
        seq: 1,
        start_op: 1.try_into().unwrap(),
        time: 0,
        message: None,
        deps,
        extra_bytes: Vec::new(),
        author: None,
    });
    Bytes::copy_from_slice(change.raw_bytes())
}

/// A change with another operation counter, and the checksum that goes with it.
pub(crate) fn with_start_op(start_op: u64) -> Bytes {
    let honest = first_change(&[9], 1, vec![]);
    // Magic, checksum, type, a length of one byte; no dependencies, actor, sequence number.
    let (body, before) = (&honest[10..], 1 + 2 + 1);
    let mut forged = body[..before].to_vec();
    assert_eq!(body[before], 1, "the operation counter");
    number(&mut forged, start_op);
    forged.extend_from_slice(&body[before + 1..]);
    let again = [&body[..before], &[1], &body[before + 1..]].concat();
    assert_eq!(chunk(CHANGE, &again), honest, "checksums are made as automerge does");
    chunk(CHANGE, &forged)
}

/// A legal change that puts so many nulls into a list, in about a hundred bytes.
pub(crate) fn nulls(count: u32) -> Bytes {
    let n = i64::from(count);
    let columns: [(u8, Vec<u8>); 9] = [
        // The object: none, then the list, which operation 1 of actor 0 makes.
        (0x01, [vec![0, 1], signed(n), vec![0]].concat()),
        (0x02, [vec![0, 1], signed(n), vec![1]].concat()),
        // The key: a name, the head of the list, then each the one before.
        (0x11, [vec![0, 2], signed(n - 1), vec![0]].concat()),
        (0x13, [vec![0, 1, 0x7e, 0, 2], signed(n - 2), vec![1]].concat()),
        (0x15, [vec![0x7f, 1, b'l', 0], unsigned(u64::from(count))].concat()),
        (0x34, [vec![1], unsigned(u64::from(count))].concat()),
        // Makes a list, then sets.
        (0x42, [vec![0x7f, 2], signed(n), vec![1]].concat()),
        (0x56, [signed(n + 1), vec![0]].concat()),
        (0x70, [signed(n + 1), vec![0]].concat()),
    ];
    // No dependencies, an actor of one byte, sequence number and counter 1, no time, no message,
    // no other actors.
    let mut body = vec![0, 1, 7, 1, 1, 0, 0, 0, 9];
    for (spec, column) in &columns {
        body.push(*spec);
        number(&mut body, column.len() as u64);
    }
    body.extend(columns.iter().flat_map(|(_, column)| column));
    chunk(CHANGE, &body)
}

/// A deflated change of 10^9 bytes, all zero, in less than a megabyte.
pub(crate) fn bomb() -> Bytes {
    const PIECE: usize = 15_625_000;
    const PIECES: usize = 64;
    // Zeros after zeros: one deflated piece, ended at a byte, goes on for as long as repeated.
    let mut compress = Compress::new(Compression::best(), false);
    let mut piece = Vec::with_capacity(1 << 20);
    let zeros = vec![0; PIECE];
    compress.compress_vec(&zeros, &mut piece, FlushCompress::Full).unwrap();
    assert_eq!(compress.total_in(), PIECE as u64);
    let mut last = DeflateEncoder::new(Vec::new(), Compression::best());
    last.write_all(&[0]).unwrap();
    let deflated = [piece.repeat(PIECES), last.finish().unwrap()].concat();
    let mut bytes = [&MAGIC[..], &[0; 4], &[DEFLATED]].concat();
    number(&mut bytes, deflated.len() as u64);
    bytes.extend(deflated);
    bytes.into()
}

/// Maps in maps, as a document and as its changes.
pub(crate) fn nested(levels: usize) -> (Bytes, Vec<Bytes>) {
    let mut doc = AutoCommit::new();
    let mut map = ROOT;
    for level in 0..levels {
        map = doc.put_object(&map, "m", ObjType::Map).unwrap();
        if level % 100 == 99 {
            doc.commit();
        }
    }
    let changes = doc.get_changes(&[]);
    let chunks = changes.iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())).collect();
    (doc.save().into(), chunks)
}

/// Applies a change as automerge does.
pub(crate) fn apply(change: &Bytes) -> Automerge {
    let mut doc = Automerge::new();
    let change = Change::from_bytes(change.to_vec()).unwrap();
    doc.apply_changes([change]).unwrap();
    doc
}

/// A chunk of this type, with its checksum.
fn chunk(kind: u8, body: &[u8]) -> Bytes {
    let mut hashed = vec![kind];
    number(&mut hashed, body.len() as u64);
    hashed.extend_from_slice(body);
    let hash = Sha256::digest(&hashed);
    [&MAGIC[..], &hash[..4], &hashed].concat().into()
}

/// Appends an unsigned LEB128.
pub(crate) fn number(out: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn unsigned(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    number(&mut out, value);
    out
}

/// A signed LEB128 of a number that is not negative: with one more bit for the sign.
fn signed(value: i64) -> Vec<u8> {
    let mut value = value;
    let mut out = Vec::new();
    while value > 0x3f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}
