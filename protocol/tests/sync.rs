//! Sync messages against automerge's own, in both directions.

#![allow(clippy::unwrap_used, reason = "in a test, a failure to prepare is a failure")]

mod common;

use automerge::sync::{BloomFilter, Message, SyncDoc};
use bytes::Bytes;
use concord_protocol::{
    ChangeHash, Limits,
    sync::{Bloom, Have, SyncError, SyncFlags, SyncMessage, SyncVersion},
};
use quickcheck::{Arbitrary, Gen, quickcheck};

#[derive(Debug, Clone)]
struct Any(SyncMessage);

fn hash(g: &mut Gen) -> ChangeHash {
    ChangeHash(std::array::from_fn(|_| u8::arbitrary(g)))
}

fn hashes(g: &mut Gen) -> Vec<ChangeHash> {
    let mut hashes: Vec<_> = (0..u8::arbitrary(g) % 6).map(|_| hash(g)).collect();
    hashes.sort();
    hashes
}

impl Arbitrary for Any {
    fn arbitrary(g: &mut Gen) -> Self {
        let mut have: Vec<_> = (0..u8::arbitrary(g) % 3)
            .map(|_| Have { last_sync: hashes(g), bloom: Bloom::from_hashes(hashes(g).iter()) })
            .collect();
        if bool::arbitrary(g) {
            let many: Vec<_> = (0..200).map(|_| hash(g)).collect();
            have.push(Have { last_sync: vec![], bloom: Bloom::from_hashes(many.iter()) });
        }
        let flags = SyncFlags {
            reset: bool::arbitrary(g),
            read_only: bool::arbitrary(g),
            supports_reset: bool::arbitrary(g),
        };
        let version = if bool::arbitrary(g) { SyncVersion::V1 } else { SyncVersion::V2 };
        let changes: Vec<Vec<u8>> = Arbitrary::arbitrary(g);
        Self(SyncMessage {
            version,
            heads: hashes(g),
            need: hashes(g),
            have,
            changes: changes.into_iter().map(Bytes::from).collect(),
            flags: bool::arbitrary(g).then_some(flags),
        })
    }
}

fn decode(bytes: impl Into<Bytes>) -> Result<SyncMessage, SyncError> {
    SyncMessage::decode(&bytes.into(), &Limits::default())
}

fn theirs(hashes: &[automerge::ChangeHash]) -> Vec<ChangeHash> {
    hashes.iter().map(|hash| ChangeHash(hash.0)).collect()
}

quickcheck! {
    fn messages_round_trip(message: Any) -> bool {
        let bytes = message.0.encode();
        bytes.len() == message.0.encoded_len() && decode(bytes).as_ref() == Ok(&message.0)
    }

    fn automerge_reads_what_we_write_and_writes_the_same(message: Any) -> bool {
        let bytes = message.0.encode();
        let read = Message::decode(&bytes).unwrap();
        assert_eq!(theirs(&read.heads), message.0.heads);
        assert_eq!(theirs(&read.need), message.0.need);
        assert_eq!(read.have.len(), message.0.have.len());
        assert!(read.changes.iter().eq(message.0.changes.iter().map(|change| &change[..])));
        read.encode() == bytes
    }

    fn heads_are_sorted_when_written(hashes: Vec<u8>) -> bool {
        let heads: Vec<_> = hashes.iter().map(|&byte| ChangeHash([byte; 32])).collect();
        let mut sorted = heads.clone();
        sorted.sort();
        let message = SyncMessage {
            version: SyncVersion::V1,
            heads,
            need: vec![],
            have: vec![],
            changes: vec![],
            flags: None,
        };
        decode(message.encode()).unwrap().heads == sorted
    }

    fn a_filter_answers_as_automerges_does(seed: Vec<u64>, others: Vec<u64>) -> bool {
        let spread = |number: &u64| {
            let word = |n: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7) ^ n;
            let bytes = [word(1), word(2), word(3), word(4)].map(u64::to_le_bytes).concat();
            ChangeHash(bytes.try_into().unwrap())
        };
        let hashes: Vec<_> = seed.iter().map(spread).collect();
        let ours = Bloom::from_hashes(hashes.iter());
        let filter = BloomFilter::from_hashes(hashes.iter().map(|hash| automerge::ChangeHash(hash.0)));
        let written = SyncMessage {
            version: SyncVersion::V1,
            heads: vec![],
            need: vec![],
            have: vec![Have { last_sync: vec![], bloom: ours.clone() }],
            changes: vec![],
            flags: None,
        };
        let read = Message::decode(&written.encode()).unwrap();
        assert_eq!(read.have[0].bloom, filter);
        assert!(hashes.iter().all(|hash| ours.contains(hash)));
        assert_eq!(ours.is_empty(), hashes.is_empty());
        others.iter().map(spread).chain(hashes.iter().copied()).all(|hash| {
            ours.contains(&hash) == filter.contains_hash(&automerge::ChangeHash(hash.0))
        })
    }

    fn messages_of_real_peers_are_read_as_automerge_reads_them(script: Vec<(u8, u8)>, part: usize) -> bool {
        let mut whole = common::document(&script);
        let mut some = automerge::AutoCommit::new();
        let changes = whole.get_changes(&[]);
        let known = part % (changes.len() + 1);
        some.apply_changes(changes.into_iter().take(known)).unwrap();
        let (mut a, mut b) = (automerge::sync::State::new(), automerge::sync::State::new());
        let mut quiet = 0;
        for turn in 0..20 {
            let (doc, state, other, other_state) = if turn % 2 == 0 {
                (&mut whole, &mut a, &mut some, &mut b)
            } else {
                (&mut some, &mut b, &mut whole, &mut a)
            };
            let Some(message) = doc.sync().generate_sync_message(state) else {
                quiet += 1;
                if quiet == 2 {
                    return true;
                }
                continue;
            };
            quiet = 0;
            let bytes = message.clone().encode();
            let read = decode(bytes.clone()).unwrap();
            assert_eq!(read.heads, theirs(&message.heads));
            assert_eq!(read.flags.is_some(), message.flags.is_some());
            assert_eq!(read.encode(), bytes);
            other.sync().receive_sync_message(other_state, message).unwrap();
        }
        false
    }

    fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>, version: bool) -> bool {
        let _ = decode(bytes.clone());
        let bytes = [&[if version { 0x42 } else { 0x43 }][..], &bytes].concat();
        decode(bytes.clone()).is_ok_and(|read| {
            let items = read.heads.len() + read.need.len() + read.have.len() + read.changes.len();
            items <= bytes.len()
        }) || decode(bytes).is_err()
    }

    fn a_damaged_message_gives_a_message_or_an_error(message: Any, at: usize, by: u8, cut: bool) -> bool {
        let mut bytes = message.0.encode().to_vec();
        let at = at % bytes.len();
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= by;
        }
        match decode(bytes.clone()) {
            Ok(read) => read.encoded_len() <= bytes.len() + 3,
            Err(_) => true,
        }
    }
}

/// One have with a filter of these parts.
fn with_filter(filter: &[u8]) -> Vec<u8> {
    let len = u8::try_from(filter.len()).unwrap();
    [&[0x42, 0, 0, 1, 0, len][..], filter, &[0]].concat()
}

#[test]
fn filters_that_break_automerge_are_refused() {
    let parameters =
        |bits_per_entry, probes| Err(SyncError::BloomParameters { bits_per_entry, probes });
    assert_eq!(decode(with_filter(&[1, 0, 7])), parameters(0, 7));
    assert_eq!(decode(with_filter(&[1, 8, 0, 0])), parameters(8, 0));
    assert_eq!(decode(with_filter(&[1, 8, 65, 0])), parameters(8, 65));
    assert_eq!(decode(with_filter(&[1, 8, 0x80, 0xad, 0xe2, 4, 0])), parameters(8, 10_000_000));
    let size = Err(SyncError::BloomSize { expected: 2, got: 3 });
    assert_eq!(decode(with_filter(&[1, 10, 7, 0, 0, 0])), size);
    let vast = [0xff, 0xff, 0xff, 0xff, 0x0f, 64, 7, 0];
    assert!(matches!(decode(with_filter(&vast)), Err(SyncError::BloomSize { got: 1, .. })));
    assert!(decode(with_filter(&[1, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0])).is_ok());
}

#[test]
fn counts_are_compared_before_anything_is_allocated() {
    let too_many = |what, count, max| Err(SyncError::TooMany { what, count, max });
    let million = [0xc0, 0x84, 0x3d];
    let frame = |before: &[u8]| [&[0x42][..], before, &million].concat();
    assert_eq!(decode(frame(&[])), too_many("heads", 1_000_000, 4_096));
    assert_eq!(decode(frame(&[0])), too_many("needed hashes", 1_000_000, 100_000));
    assert_eq!(decode(frame(&[0, 0])), too_many("haves", 1_000_000, 8));
    assert_eq!(decode(frame(&[0, 0, 0])), too_many("changes", 1_000_000, 100_000));
    assert_eq!(decode(vec![0x42, 2, 0, 0]), Err(SyncError::Truncated));
    assert_eq!(decode(vec![0x41]), Err(SyncError::UnknownVersion(0x41)));
    assert_eq!(decode(vec![]), Err(SyncError::Truncated));
}

#[test]
fn flags_of_older_and_newer_versions_are_understood() {
    let flags = |section: &[u8]| decode([&[0x42, 0, 0, 0, 0][..], section].concat()).unwrap().flags;
    assert_eq!(flags(&[]), None);
    assert_eq!(flags(&[1, 2]), Some(SyncFlags::default()));
    assert_eq!(flags(&[0]), Some(SyncFlags::default()));
    let all = SyncFlags { reset: true, read_only: true, supports_reset: true };
    assert_eq!(flags(&[2, 2, 0x87]), Some(all));
    assert_eq!(flags(&[4, 2, 1, 0x80, 0xf8, 9, 9]), Some(SyncFlags::default()));
}

#[test]
fn the_first_request_of_a_client_is_read() {
    let bytes = vec![0x42, 0, 0, 1, 0, 0, 0, 2, 2, 0x84];
    let read = decode(bytes.clone()).unwrap();
    assert_eq!(read.have, [Have::default()]);
    assert_eq!(read.flags, Some(SyncFlags { supports_reset: true, ..SyncFlags::default() }));
    assert_eq!(read.encode(), bytes);
}
