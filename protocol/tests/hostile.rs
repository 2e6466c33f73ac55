//! Inputs that break automerge: the shared corpus, and those named by hand, built here.

#![allow(clippy::unwrap_used, reason = "in a test, a failure to prepare is a failure")]

mod common;

use std::{
    io::Write,
    time::{Duration, Instant},
};

use bytes::Bytes;
use common::{framed, leb};
use concord_protocol::{
    Limits, codec,
    guard::{self, ChangeHeader, GuardError},
    sync::SyncMessage,
};

/// What one hostile input may take; generous, because tests run unoptimised beside others.
const TIME_MAX: Duration = Duration::from_millis(500);

fn check(chunk: &Bytes) -> Result<ChangeHeader, GuardError> {
    guard::check_change(chunk, &Limits::default())
}

fn in_time<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    assert!(start.elapsed() < TIME_MAX, "{name} took {:?}", start.elapsed());
    result
}

/// A change without columns: only its writer, number and first counter.
fn empty_change(seq: u64, start_op: u64) -> Vec<u8> {
    change_with(seq, start_op, 0, &[])
}

fn change_with(seq: u64, start_op: u64, others: u8, columns: &[(u32, &[u8])]) -> Vec<u8> {
    let mut body = vec![0, 1, 0xaa];
    body.extend(leb(seq));
    body.extend(leb(start_op));
    body.extend([0, 0, others]);
    (0..others).for_each(|n| body.extend([1, n]));
    body.extend(leb(columns.len() as u64));
    for (spec, data) in columns {
        body.extend(leb(u64::from(*spec)));
        body.extend(leb(data.len() as u64));
    }
    for (_, data) in columns {
        body.extend_from_slice(data);
    }
    body
}

/// A run of `rows` times `value`.
fn run(rows: u64, value: u8) -> Vec<u8> {
    let mut out = leb(rows);
    // The length is signed: its sign bit must be clear.
    if out.last().is_some_and(|last| last & 0x40 != 0) {
        *out.last_mut().unwrap() |= 0x80;
        out.push(0);
    }
    out.push(value);
    out
}

/// The columns of `rows` list insertions of null, all after the head.
fn nulls(rows: u64) -> Bytes {
    let zeros = run(rows, 0);
    let insert = [vec![0], leb(rows)].concat();
    let action = run(rows, 1);
    let columns: [(u32, &[u8]); 5] =
        [(0x13, &zeros), (0x34, &insert), (0x42, &action), (0x56, &zeros), (0x70, &zeros)];
    framed(1, &change_with(1, 1, 0, &columns))
}

fn deflated(body: &[u8]) -> Bytes {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    let deflated = encoder.finish().unwrap();
    // The checksum is of the plain change; the frame around it of the deflated bytes.
    let plain = framed(1, body);
    let mut chunk = plain[..8].to_vec();
    chunk.push(2);
    chunk.extend(leb(deflated.len() as u64));
    chunk.extend(deflated);
    chunk.into()
}

#[test]
fn a_small_change_that_declares_millions_of_operations_is_refused() {
    assert_eq!(check(&nulls(1_000)).unwrap().ops, 1_000);
    assert_eq!(check(&nulls(100_000)).unwrap().ops, 100_000);
    for rows in [100_001, 1_000_000, 10_000_000, u64::MAX >> 1] {
        let chunk = nulls(rows);
        assert!(chunk.len() < 150);
        let refused = in_time("rle", || check(&chunk));
        let what = "operations";
        assert_eq!(refused, Err(GuardError::TooMany { what, count: rows, max: 100_000 }));
    }
}

#[test]
fn other_columns_may_not_go_on_longer_than_the_actions() {
    let (zeros, action) = (run(1, 0), run(1, 1));
    let insert = [0, 1];
    let base: [(u32, &[u8]); 5] =
        [(0x13, &zeros), (0x34, &insert), (0x42, &action), (0x56, &zeros), (0x70, &zeros)];
    check(&framed(1, &change_with(1, 1, 0, &base))).unwrap();
    let long = run(10_000_000, 0);
    let long_nulls = [vec![0], leb(10_000_000)].concat();
    let many_predecessors = [vec![1], leb(10_000_000)].concat();
    for (spec, data) in [
        (0x01, &long_nulls),
        (0x02, &long_nulls),
        (0x11, &long_nulls),
        (0x15, &long_nulls),
        (0x70, &many_predecessors),
        (0x71, &long),
        (0x73, &long),
        (0x94, &leb(10_000_000)),
        (0xa5, &long_nulls),
        (0x134, &leb(10_000_000)),
        (0x142, &long_nulls),
        (0x150, &many_predecessors),
    ] {
        let mut columns: Vec<_> =
            base.iter().filter(|(other, _)| *other != spec).copied().collect();
        columns.push((spec, data));
        columns.sort_by_key(|(spec, _)| *spec);
        let refused = check(&framed(1, &change_with(1, 1, 0, &columns)));
        assert!(refused.is_err(), "{spec:#x}");
    }
}

#[test]
fn unknown_columns_and_extra_bytes_of_later_versions_pass() {
    let (zeros, action) = (run(1, 0), run(1, 1));
    let columns: [(u32, &[u8]); 12] = [
        (0x13, &zeros),
        (0x34, &[0, 1]),
        (0x42, &action),
        (0x56, &zeros),
        (0x70, &zeros),
        (0x94, &[]),
        (0xa5, &[]),
        (0x110, &[1, 3]),
        (0x111, &[3, 0]),
        (0x116, &[0x7d, 0x16, 0x26, 0x06]),
        (0x117, b"aab"),
        (0x125, &[0x7f, 1, b'x']),
    ];
    let body = change_with(1, 1, 0, &columns);
    assert_eq!(check(&framed(1, &body)).unwrap().ops, 1);
    let body = [&body[..], b"\x09\x01whatever comes later"].concat();
    assert_eq!(check(&framed(1, &body)).unwrap().ops, 1);
}

#[test]
fn counters_near_the_end_of_their_range_are_refused() {
    let check = |seq, start_op| check(&framed(1, &empty_change(seq, start_op)));
    assert!(check(1, (1 << 31) - 1).is_ok());
    assert!(check((1 << 31) - 1, 1).is_ok());
    for value in [0, 1 << 31, (1 << 32) - 2, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, u64::MAX] {
        let what = "the first operation's counter";
        assert_eq!(check(1, value), Err(GuardError::Counter { what, value }));
        let what = "the sequence number";
        assert_eq!(check(value, 1), Err(GuardError::Counter { what, value }));
    }
}

#[test]
fn operations_may_not_run_over_the_end_of_the_counters() {
    let (zeros, action) = (run(2, 0), run(2, 1));
    let columns: [(u32, &[u8]); 5] =
        [(0x13, &zeros), (0x34, &[0, 2]), (0x42, &action), (0x56, &zeros), (0x70, &zeros)];
    let check = |start_op| check(&framed(1, &change_with(1, start_op, 0, &columns)));
    assert_eq!(check((1 << 31) - 2).unwrap().max_op(), (1 << 31) - 1);
    let what = "the last operation's counter";
    assert_eq!(check((1 << 31) - 1), Err(GuardError::Counter { what, value: 1 << 31 }));
}

#[test]
fn objects_of_actors_that_are_not_listed_are_refused() {
    let (zeros, action) = (run(1, 0), run(1, 1));
    let with = |actor: u8, others: u8| {
        let (actor, counter) = ([0x7f, actor], [0x7f, 5]);
        let columns: [(u32, &[u8]); 7] = [
            (0x01, &actor),
            (0x02, &counter),
            (0x13, &zeros),
            (0x34, &[0, 1]),
            (0x42, &action),
            (0x56, &zeros),
            (0x70, &zeros),
        ];
        check(&framed(1, &change_with(1, 9, others, &columns)))
    };
    assert_eq!(with(0, 0).unwrap().objects_named, [(5, 0)]);
    assert_eq!(with(2, 2).unwrap().objects_named, [(5, 2)]);
    assert!(matches!(with(1, 0), Err(GuardError::Column { column: "object", .. })));
    assert!(matches!(with(3, 2), Err(GuardError::Column { column: "object", .. })));
}

#[test]
fn a_bomb_is_given_up_at_the_limit() {
    let mut body = empty_change(1, 1);
    body.resize(1_000_000, 0);
    assert_eq!(check(&deflated(&body)).unwrap().seq, 1);
    body.resize(100_000_000, 0);
    let bomb = deflated(&body);
    assert!(bomb.len() < 200_000);
    let max = Limits::default().change_inflated_bytes as u64;
    let refused = in_time("bomb", || check(&bomb));
    let what = "an inflated change";
    assert_eq!(refused, Err(GuardError::TooLarge { what, len: max + 1, max }));
}

#[test]
fn bytes_behind_a_deflated_change_are_refused() {
    let mut chunk = deflated(&empty_change(1, 1)).to_vec();
    check(&chunk.clone().into()).unwrap();
    chunk[9] += 1;
    chunk.push(0);
    assert_eq!(check(&chunk.into()), Err(GuardError::TrailingBytes(1)));
}

#[test]
fn frames_that_are_not_one_change_are_refused() {
    let good = framed(1, &empty_change(1, 1));
    let with = |at: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = byte;
        check(&bytes.into())
    };
    assert_eq!(with(0, 0x84), Err(GuardError::Magic));
    assert_eq!(with(4, good[4] ^ 1), Err(GuardError::Checksum));
    assert_eq!(with(8, 9), Err(GuardError::UnknownKind(9)));
    assert_eq!(with(8, 0), Err(GuardError::WrongKind { expected: "change", found: 0 }));
    assert_eq!(with(8, 3), Err(GuardError::WrongKind { expected: "change", found: 3 }));
    let longer: Bytes = [&good[..], &[0]].concat().into();
    assert_eq!(check(&longer), Err(GuardError::TrailingBytes(1)));
    let limits = Limits::default();
    let wrong = GuardError::WrongKind { expected: "document", found: 1 };
    assert_eq!(guard::check_document(&good, &limits), Err(wrong));
    let huge: Bytes = [&good[..9], &leb(u64::MAX)].concat().into();
    assert!(matches!(check(&huge), Err(GuardError::TooLarge { .. })));
    assert_eq!(guard::split(&huge, &limits), Err(GuardError::Truncated));
}

#[test]
fn a_change_over_the_limit_is_cut_out_of_a_run_and_has_its_name() {
    let good = framed(1, &empty_change(1, 1));
    let mut limits = Limits::default();
    limits.change_bytes = good.len() - 1;
    let run: Bytes = [&good[..], &good[..]].concat().into();
    let chunks = guard::split(&run, &limits).unwrap();
    assert_eq!(chunks.len(), 2);
    let refused = guard::check_change(&chunks[0].bytes, &limits);
    assert!(matches!(refused, Err(GuardError::TooLarge { .. })));
    let name = guard::check_change(&good, &Limits::default()).unwrap().hash;
    assert_eq!(guard::name_of_change(&chunks[0].bytes, &limits), Some(name));
    let mut other = good.to_vec();
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(guard::name_of_change(&other.into(), &limits), None, "not what its checksum says");
    assert_eq!(guard::name_of_change(&Bytes::new(), &limits), None);
}

#[test]
fn lists_in_the_head_of_a_change_are_bounded() {
    let many = leb(1_000_000);
    let deps = [&many[..], &[0; 64]].concat();
    assert!(matches!(
        check(&framed(1, &deps)),
        Err(GuardError::TooMany { what: "dependencies", .. })
    ));
    let few = [&leb(1_000)[..], &[0; 64]].concat();
    assert_eq!(check(&framed(1, &few)), Err(GuardError::Truncated));
    let mut body = vec![0, 65];
    body.extend([7; 65]);
    assert!(matches!(check(&framed(1, &body)), Err(GuardError::TooLarge { len: 65, .. })));
    let actors = [&[0, 1, 1, 1, 1, 0, 0][..], &many].concat();
    assert!(matches!(
        check(&framed(1, &actors)),
        Err(GuardError::TooMany { what: "other actors", .. })
    ));
    let columns = [&[0, 1, 1, 1, 1, 0, 0, 0][..], &many].concat();
    assert!(matches!(
        check(&framed(1, &columns)),
        Err(GuardError::TooMany { what: "columns", .. })
    ));
    let message = [&[0, 1, 1, 1, 1, 0][..], &many].concat();
    assert!(matches!(check(&framed(1, &message)), Err(GuardError::TooLarge { .. })));
    let not_text = [0, 1, 1, 1, 1, 0, 1, 0xff, 0, 0];
    assert_eq!(check(&framed(1, &not_text)), Err(GuardError::NotUtf8("the change's message")));
}

#[test]
fn an_author_in_a_later_change_is_refused() {
    let with = |seq| {
        let body = [&empty_change(seq, 1)[..], &[1, 3], b"bob"].concat();
        check(&framed(1, &body))
    };
    assert!(with(1).is_ok());
    assert_eq!(with(2), Err(GuardError::AuthorTooLate));
}

#[test]
fn columns_in_a_wrong_make_up_are_refused() {
    let layout = |columns: &[(u32, &[u8])]| check(&framed(1, &change_with(1, 1, 0, columns)));
    for columns in [
        &[(0x42_u32, &[][..]), (0x34, &[])][..],
        &[(0x42, &[]), (0x42, &[])],
        &[(0x4a, &[])],
        &[(0x57, &[])],
        &[(0x57, &[]), (0x70, &[])],
        &[(0x70, &[]), (0x72, &[])],
    ] {
        let refused = layout(columns);
        assert!(matches!(refused, Err(GuardError::Layout { .. })), "{columns:x?}: {refused:?}");
    }
}

#[test]
fn two_megabytes_of_anything_are_decoded_in_linear_time() {
    let limits = Limits::default();
    for fill in [0x00_u8, 0x01, 0x7f, 0x80, 0x81, 0xa1, 0xbf, 0x9f, 0xc1, 0xd8, 0xf6, 0xff] {
        let mut bytes = vec![fill; 2 << 20];
        in_time("change", || drop(check(&framed(1, &bytes[..1 << 19]))));
        let _ = in_time("codec", || codec::decode(&bytes.clone().into(), &limits));
        let _ = in_time("split", || guard::split(&bytes.clone().into(), &limits));
        bytes[0] = 0x42;
        let _ = in_time("sync", || SyncMessage::decode(&bytes.clone().into(), &limits));
        bytes[1..4].fill(0);
        let _ = in_time("sync", || SyncMessage::decode(&bytes.clone().into(), &limits));
        // A map with as many entries as there are bytes.
        bytes[..5].copy_from_slice(&[0xba, 0, 0x20, 0, 0]);
        let _ = in_time("codec", || codec::decode(&bytes.clone().into(), &limits));
    }
}

#[test]
fn the_corpus_of_changes_gives_typed_results() {
    let Some(folder) = common::shared("hostile/change") else {
        return;
    };
    let mut refused = 0;
    let files = common::files(&folder);
    for (name, bytes) in &files {
        refused += usize::from(in_time(name, || check(bytes)).is_err());
    }
    println!("{refused} of {} refused; the rest only breaks with its document", files.len());
    assert!(refused > 0);
}

#[test]
fn the_corpus_of_documents_gives_typed_results() {
    for folder in ["load", "load_unverified", "load_incremental"] {
        let Some(folder) = common::shared(&format!("hostile/{folder}")) else {
            return;
        };
        for (name, bytes) in common::files(&folder) {
            let chunks = in_time(&name, || guard::split(&bytes, &Limits::default()));
            for chunk in chunks.unwrap_or_default() {
                let _ = in_time(&name, || guard::check_document(&chunk.bytes, &Limits::default()));
                let _ = in_time(&name, || check(&chunk.bytes));
            }
        }
    }
}

#[test]
fn the_corpus_of_sync_messages_gives_typed_results() {
    let Some(folder) = common::shared("hostile/sync") else {
        return;
    };
    for (name, bytes) in common::files(&folder) {
        let decoded = in_time(&name, || SyncMessage::decode(&bytes, &Limits::default()));
        for change in decoded.iter().flat_map(|message| &message.changes) {
            let _ = in_time(&name, || guard::split(change, &Limits::default()));
            let _ = in_time(&name, || check(change));
        }
    }
}

#[test]
fn the_corpus_made_by_hand_is_refused() {
    let Some(folder) = common::shared("hostile/handmade") else {
        return;
    };
    for (name, bytes) in common::files(&folder) {
        let refused = in_time(&name, || match name.rsplit_once('.').unwrap().1 {
            "syncmsg" => SyncMessage::decode(&bytes, &Limits::default()).is_err(),
            // What is in a document is found by the worker that opens it.
            "doc" => guard::check_document(&bytes, &Limits::default()).is_ok(),
            _ => check(&bytes).is_err(),
        });
        assert!(refused, "{name}");
    }
}
