//! The guard against automerge itself: what it says of real changes, and what it lets through.

#![allow(clippy::unwrap_used, reason = "in a test, a failure to prepare is a failure")]

mod common;

use std::collections::BTreeSet;

use automerge::legacy::{ObjectId, OpType};
use bytes::Bytes;
use concord_protocol::{
    ChangeHash, Limits,
    guard::{self, ChangeHeader, ChunkKind, GuardError},
};
use quickcheck::{TestResult, quickcheck};

fn check(chunk: &Bytes) -> Result<ChangeHeader, GuardError> {
    guard::check_change(chunk, &Limits::default())
}

/// What automerge says of a change, in the guard's terms.
fn expected(change: &automerge::Change, chunk: &Bytes) -> ChangeHeader {
    let actors: Vec<_> = change.actors().cloned().collect();
    let position = |actor: &automerge::ActorId| {
        u32::try_from(actors.iter().position(|a| a == actor).unwrap()).unwrap()
    };
    let start_op = u32::try_from(change.start_op().get()).unwrap();
    let mut made = Vec::new();
    let mut named = BTreeSet::new();
    for (counter, op) in (start_op..).zip(&change.decode().operations) {
        if let OpType::Make(_) = op.action {
            made.push(counter);
        }
        if let ObjectId::Id(id) = &op.obj {
            named.insert((u32::try_from(id.counter()).unwrap(), position(id.actor())));
        }
    }
    assert!(chunk.len() <= change.raw_bytes().len());
    ChangeHeader {
        hash: ChangeHash(change.hash().0),
        deps: change.deps().iter().map(|dep| ChangeHash(dep.0)).collect(),
        actor: change.actor_id().to_bytes().into(),
        seq: u32::try_from(change.seq()).unwrap(),
        start_op,
        ops: u32::try_from(change.len()).unwrap(),
        time: change.timestamp(),
        other_actors: change.other_actor_ids().iter().map(|a| a.to_bytes().into()).collect(),
        objects_made: made,
        objects_named: named.into_iter().collect(),
        inflated_bytes: u32::try_from(change.raw_bytes().len()).unwrap(),
    }
}

quickcheck! {
    fn the_header_is_what_automerge_says(script: Vec<(u8, u8)>) -> bool {
        let mut doc = common::document(&script);
        common::chunks(&mut doc).iter().all(|(change, chunk)| {
            let header = check(chunk).unwrap();
            assert_eq!(header, expected(change, chunk));
            let plain = Bytes::copy_from_slice(change.raw_bytes());
            assert_eq!(check(&plain), Ok(header));
            true
        })
    }

    fn a_run_of_chunks_is_cut_where_it_was_joined(script: Vec<(u8, u8)>) -> bool {
        let mut doc = common::document(&script);
        let mut run = doc.save();
        let saved = run.len();
        let changes = common::chunks(&mut doc);
        for (_, chunk) in &changes {
            run.extend(chunk);
        }
        let chunks = guard::split(&run.into(), &Limits::default()).unwrap();
        guard::check_document(&chunks[0].bytes, &Limits::default()).unwrap();
        chunks[0].kind == ChunkKind::Document
            && chunks[0].bytes.len() == saved
            && chunks[1..].iter().map(|chunk| &chunk.bytes).eq(changes.iter().map(|(_, c)| c))
    }

    fn a_change_cut_off_anywhere_is_refused(script: Vec<(u8, u8)>, at: usize) -> bool {
        let mut doc = common::document(&script);
        common::chunks(&mut doc).iter().all(|(_, chunk)| {
            let at = at % chunk.len();
            let cut = chunk.slice(..at);
            check(&cut) == Err(GuardError::Truncated)
                && (at == 0 || guard::split(&cut, &Limits::default()).is_err())
        })
    }

    fn a_change_with_a_byte_changed_is_refused(script: Vec<(u8, u8)>, at: usize, by: u8) -> TestResult {
        if by == 0 {
            return TestResult::discard();
        }
        let mut doc = common::document(&script);
        let refused = common::chunks(&mut doc).iter().all(|(change, chunk)| {
            let mut bytes = chunk.to_vec();
            let at = at % bytes.len();
            bytes[at] ^= by;
            // A deflated change has bits that mean nothing: what it inflates to is what counts.
            check(&bytes.into()).map_or(true, |found| {
                chunk[8] == 2 && found == expected(change, chunk)
            })
        });
        TestResult::from_bool(refused)
    }

    /// The checksum mended, so that the damage reaches the fields: what the guard lets through
    /// automerge must read too, with the same count, and without a panic.
    fn what_passes_automerge_can_read(script: Vec<(u8, u8)>, damage: Vec<(usize, u8)>) -> bool {
        let mut doc = common::document(&script[..script.len().min(12)]);
        for (change, _) in common::chunks(&mut doc) {
            let raw = change.raw_bytes();
            let header = 9 + common::leb(raw.len() as u64).len();
            for &(at, by) in &damage {
                let mut body = raw[header.min(raw.len())..].to_vec();
                if body.is_empty() {
                    continue;
                }
                let at = at % body.len();
                body[at] ^= by;
                let chunk = common::framed(1, &body);
                if let Ok(found) = check(&chunk)
                    && let Ok(read) = automerge::Change::from_bytes(chunk.to_vec())
                {
                    assert_eq!(found, expected(&read, &chunk));
                }
            }
        }
        true
    }

    fn no_bytes_make_the_guard_panic(bytes: Vec<u8>) -> bool {
        let limits = Limits::default();
        let framed = [common::framed(1, &bytes), common::framed(2, &bytes), bytes.into()];
        for data in framed {
            let _ = check(&data);
            let _ = guard::check_document(&data, &limits);
            if let Ok(chunks) = guard::split(&data, &limits) {
                assert_eq!(chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>(), data.len());
            }
        }
        true
    }
}

#[test]
fn a_long_text_may_be_pasted_and_deleted_at_once() {
    use automerge::{AutoCommit, ObjType, ROOT, transaction::Transactable as _};
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.commit();
    let last = |doc: &mut AutoCommit| {
        doc.commit();
        Bytes::copy_from_slice(doc.get_last_local_change().unwrap().raw_bytes())
    };
    doc.splice_text(&text, 0, 0, &"x".repeat(150_000)).unwrap();
    assert_eq!(check(&last(&mut doc)).unwrap().ops, 150_000);
    doc.splice_text(&text, 0, 150_000, "").unwrap();
    assert_eq!(check(&last(&mut doc)).unwrap().ops, 150_000);
}

#[test]
fn what_is_too_large_once_inflated_is_named_and_a_bomb_is_not() {
    use automerge::{AutoCommit, ROOT, transaction::Transactable as _};
    let limits = Limits::default();
    let deflated = |length: usize| {
        let mut doc = AutoCommit::new();
        doc.put(ROOT, "book", "x".repeat(length)).unwrap();
        let (change, bytes) = common::chunks(&mut doc).remove(0);
        assert!(bytes.len() < limits.change_bytes);
        (ChangeHash(change.hash().0), bytes)
    };
    let (name, book) = deflated(limits.change_inflated_bytes + 1);
    assert!(matches!(check(&book), Err(GuardError::TooLarge { .. })));
    assert_eq!(guard::name_of_change(&book, &limits), Some(name));
    let (_, bomb) = deflated(5 * limits.change_inflated_bytes);
    assert_eq!(guard::name_of_change(&bomb, &limits), None);
}
