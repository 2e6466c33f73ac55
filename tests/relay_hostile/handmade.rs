//! Attacks made by hand: each gets its refusal, and the honest go on.

use automerge::{ROOT, ReadDoc as _};
use bytes::Bytes;
use concord_protocol::{CloseCode, Limits, guard, sync::SyncVersion};

use crate::{
    attacker::{Attacker, Outcome, new_document},
    chunks,
    made_up::{carrying, made_up_head},
    world::World,
};

/// KiB that relay and honest clients may grow by over all of them.
const GROWTH_KIB_MAX: u64 = 64 * 1024;

/// Sends these changes to a document that nobody else uses.
async fn attack(world: &World, version: SyncVersion, changes: Vec<Bytes>) -> Outcome {
    let mut attacker = Attacker::join(&world.url(), &new_document()).await;
    let head = made_up_head();
    attacker.send(carrying(version, head, changes)).await;
    let outcome = attacker.dealt_with(head).await;
    world.honest.round().await;
    outcome
}

/// Sends one change, which is refused so.
async fn refused(world: &World, code: &str, what: &str, change: Bytes) {
    for version in [SyncVersion::V1, SyncVersion::V2] {
        let outcome = attack(world, version, vec![change.clone()]).await;
        assert!(outcome.is_refused(code), "{what}: {outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_messages_that_cost_more_than_their_bytes_end_the_connection() {
    let world = World::new().await;
    let no_bits = vec![0x42, 0, 0, 1, 0, 3, 1, 0, 7, 0];
    let mut probes = vec![0x42, 0, 0, 1, 0, 7, 1, 8];
    chunks::number(&mut probes, 10_000_000);
    probes.extend([0xff, 0]);
    assert_eq!((no_bits.len(), probes.len()), (10, 14));
    for message in [no_bits, probes] {
        for document in [new_document(), world.shared.clone()] {
            let mut attacker = Attacker::join(&world.url(), &document).await;
            attacker.send(message.clone().into()).await;
            let (code, reason) = attacker.client.closed().await;
            assert_eq!(code, CloseCode::Protocol.code());
            assert!(reason.contains("bloom"), "{reason}");
            world.honest.round().await;
        }
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_cost_more_than_their_bytes_are_refused() {
    let world = World::new().await;
    // That it is a legal change, and what it says, is shown on a small one.
    let doc = chunks::apply(&chunks::nulls(1_000));
    let (_, list) = doc.get(ROOT, "l").unwrap().unwrap();
    assert_eq!(doc.length(list), 1_000);
    let nulls = chunks::nulls(10_000_000);
    assert!(nulls.len() < 120, "{} bytes", nulls.len());
    refused(&world, "malformed", "ten million nulls", nulls).await;

    let bomb = chunks::bomb();
    assert!(bomb.len() < Limits::default().change_bytes);
    refused(&world, "malformed", "a gigabyte of zeros", bomb).await;
    let grown = world.grown_kib();
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more resident");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_changes_are_refused() {
    let world = World::new().await;
    // Counters: an honest change with another one, and its checksum, is let in.
    let outcome = attack(&world, SyncVersion::V1, vec![chunks::with_start_op(1_000)]).await;
    assert_eq!(outcome, Outcome::Answered);
    for start_op in [1 << 31, (1 << 32) - 2, (1 << 32) - 1, 1 << 32, (1 << 63) - 1] {
        let change = chunks::with_start_op(start_op);
        refused(&world, "malformed", &start_op.to_string(), change).await;
    }

    // A wrong checksum, which automerge does not look at.
    let honest = chunks::first_change(&[8], 1, vec![]);
    let mut forged = honest.to_vec();
    forged[4] ^= 1;
    assert!(automerge::Change::from_bytes(forged.clone()).is_ok());
    refused(&world, "malformed", "a checksum", forged.into()).await;

    // Two first changes of one actor: the first one counts.
    let other = chunks::first_change(&[8], 2, vec![]);
    let outcome = attack(&world, SyncVersion::V1, vec![honest, other]).await;
    assert!(outcome.is_refused("equivocation"), "{outcome:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crowds_are_bounded() {
    let world = World::new().await;
    let changes = |count: u32, deps: &[automerge::ChangeHash]| -> Vec<Bytes> {
        let change = |n: u32| chunks::first_change(&n.to_be_bytes(), 1, deps.to_vec());
        (0..count).map(change).collect()
    };
    let missing = automerge::ChangeHash(made_up_head().0);
    let outcome = attack(&world, SyncVersion::V1, changes(8_000, &[missing])).await;
    // Those for which there is no room are forgotten, and asked for again: honest ones may wait too.
    assert_eq!(outcome, Outcome::Answered, "orphans");
    let outcome = attack(&world, SyncVersion::V1, changes(4_000, &[])).await;
    assert!(outcome.is_refused("quota"), "actors: {outcome:?}");
    let outcome = attack(&world, SyncVersion::V2, changes(4_000, &[])).await;
    assert!(outcome.is_refused("quota"), "actors: {outcome:?}");
    let grown = world.grown_kib();
    println!("{grown} KiB more resident after crowds");
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more resident");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_nesting_goes_through_and_ends_nobody() {
    let world = World::new().await;
    let (document, changes) = chunks::nested(300);
    assert_eq!(changes.len(), 3);
    for (version, chunks) in [(SyncVersion::V1, changes), (SyncVersion::V2, vec![document])] {
        for chunk in &chunks {
            guard::split(chunk, &Limits::default()).unwrap();
        }
        let outcome = attack(&world, version, chunks).await;
        assert_eq!(outcome, Outcome::Answered, "nesting breaks no rule");
    }
    world.end().await;
}
