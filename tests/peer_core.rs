//! The production peer in virtual time: peers and a relay converge, whatever the delays, and the
//! same seeds give the same run, byte for byte.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

#[path = "peer_core/clocks.rs"]
mod clocks;
#[path = "peer_core/crowd.rs"]
mod crowd;
#[path = "peer_core/order.rs"]
mod order;
#[path = "peer_core/refusals.rs"]
mod refusals;
#[path = "peer_core/things.rs"]
mod things;
#[path = "peer_core/world.rs"]
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use automerge::{ObjId, ObjType, ROOT, ReadDoc as _, ScalarValue, transaction::Transactable as _};
use concord::peer::{
    ChangeError,
    simulation::{Dialling, DocumentState},
};
use world::World;

const SEEDS: u64 = 20;

fn text(world: &World, home: usize) -> Option<ObjId> {
    let peer = &world.homes[home].peer;
    peer.read(&world.document, |doc| Some(doc.get(ROOT, "text").unwrap()?.1))?
}

/// One character at the front, and one on the counter.
fn type_at(world: &mut World, home: usize, letter: &str) -> bool {
    let Some(text) = text(world, home) else { return false };
    let made = world.edit(home, |tx| {
        tx.splice_text(&text, 0, 0, letter)?;
        tx.increment(ROOT, "typed", 1)?;
        Ok(())
    });
    made.unwrap();
    true
}

/// A document of peer 0 that peer 1 has, too.
fn shared(seed: u64) -> World {
    let mut world = World::new(2, seed);
    world.create(0);
    world
        .edit(0, |tx| {
            tx.put_object(ROOT, "text", ObjType::Text)?;
            tx.put(ROOT, "typed", ScalarValue::counter(0))?;
            Ok(())
        })
        .unwrap();
    world.open(1);
    world.pass(5_000);
    assert_eq!(world.state(1), DocumentState::Ready, "{:#?}", world.tail());
    world
}

/// Two write at once, over a line that breaks now and then, and one of them crashes.
fn busy_day(seed: u64) -> (World, i64) {
    let mut world = shared(seed);
    let mut typed = 0;
    for step in 0..60 {
        for home in 0..2 {
            if world.rng.below(3) > 0 && type_at(&mut world, home, ["a", "b"][home]) {
                typed += 1;
            }
        }
        let ms = world.rng.below(200);
        world.pass(ms);
        match world.rng.below(12) {
            0 => world.cut(0, None),
            1 => world.cut(1, Some(4503)),
            _ => {}
        }
        if step == 30 {
            // What is not on its disk is lost; here all is.
            world.pass(1_000);
            world.crash(1);
            world.open(1);
        }
    }
    world.pass(120_000);
    (world, typed)
}

#[test]
fn two_who_write_at_once_converge_and_the_run_can_be_repeated() {
    let (mut runs, mut fetched) = (Vec::new(), 0);
    for seed in 0..SEEDS {
        let (world, typed) = busy_day(seed);
        assert!(world.content(0) == world.content(1), "seed {seed}: {:#?}", world.tail());
        assert!(world.confirmed(0) && world.confirmed(1), "seed {seed}: {:#?}", world.tail());
        let document = world.document.clone();
        let count = world.homes[1]
            .peer
            .read(&document, |doc| doc.get(ROOT, "typed").unwrap().unwrap().0.as_i64().unwrap());
        assert_eq!(count, Some(typed), "seed {seed}");
        let length = text(&world, 0).map(|text| {
            world.homes[0].peer.read(&document, |doc| doc.text(&text).unwrap().len()).unwrap()
        });
        assert_eq!(length.map(|length| i64::try_from(length).unwrap()), Some(typed));
        assert!(world.done.values().all(Result::is_ok), "seed {seed}");

        let (again, _) = busy_day(seed);
        assert_eq!(world.log, again.log, "seed {seed}");
        for home in 0..2 {
            assert!(world.save(home) == again.save(home), "seed {seed}: peer {home} differs");
        }
        fetched += world.fetched;
        runs.push(world.log);
    }
    assert!(runs.windows(2).all(|pair| pair[0] != pair[1]), "a seed that changes nothing");
    assert!(fetched > 0, "nobody read a snapshot");
    assert!(runs.iter().flatten().any(|line| line.contains("cut Some(4503)")));
}

/// A page of what is stored may be read before a document goes, and come after that: whoever tells
/// a relay of it then asks for it, and it is back.
#[test]
fn what_is_purged_while_a_relay_is_told_of_what_is_stored_stays_away() {
    let mut gone = 0;
    for seed in 0..SEEDS {
        let mut world = shared(seed);
        world.cut(0, None);
        for _ in 0..20_000 {
            world.pass(1);
            if world.confirmed(0) {
                break;
            }
        }
        assert!(world.confirmed(0), "seed {seed}: {:#?}", world.tail());
        let wait = world.rng.below(100);
        world.pass(wait);
        let purge = world.purge(0);
        while !world.done.contains_key(&(0, purge)) {
            world.pass(1);
        }
        world.shut(0);
        world.pass(60_000);
        if world.done[&(0, purge)].is_ok() {
            gone += 1;
            assert!(!world.is_stored(0), "seed {seed}: it is back: {:#?}", world.tail());
        }
        assert!(world.is_stored(1), "seed {seed}");
    }
    assert!(gone > SEEDS / 2, "{gone} of {SEEDS}");
}

#[test]
fn a_change_that_is_refused_is_rolled_back() {
    let mut world = shared(1);
    let before = world.save(0);
    let text = text(&world, 0).unwrap();
    let large = "x".repeat(1_000_001);
    let made = world.edit(0, |tx| Ok(tx.splice_text(&text, 0, 0, &large)?));
    let (_, edit) = made.unwrap().unwrap();
    world.pass(5_000);
    assert!(matches!(world.done[&(0, edit)], Err(ChangeError::Refused { .. })));
    assert!(world.save(0) == before);
    assert!(type_at(&mut world, 0, "a"));
    world.pass(5_000);
    assert!(world.content(0) == world.content(1));
}

#[test]
fn an_edit_is_refused_while_the_document_is_read() {
    let mut world = shared(2);
    world.crash(0);
    world.open(0);
    assert_eq!(world.state(0), DocumentState::Loading);
    let refused = world.edit(0, |tx| Ok(tx.put(ROOT, "n", 1)?));
    assert!(matches!(refused, Err(ChangeError::Failed(_))), "{refused:?}");
    world.pass(1_000);
    assert_eq!(world.state(0), DocumentState::Ready);
    assert!(world.content(0) == world.content(1));
}

#[test]
fn a_closure_that_panics_leaves_what_is_stored() {
    let mut world = shared(3);
    let before = world.save(0);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        world.edit(0, |tx| {
            tx.put(ROOT, "n", 1)?;
            panic!("on purpose")
        })
    }));
    assert!(panic.is_err());
    assert_eq!(world.state(0), DocumentState::Loading);
    world.pass(1_000);
    assert!(world.save(0) == before);
}

#[test]
fn a_disk_that_fails_closes_the_document_for_changes() {
    let mut world = shared(4);
    world.break_disk(0, true);
    let (_, edit) = world.edit(0, |tx| Ok(tx.put(ROOT, "n", 1)?)).unwrap().unwrap();
    world.pass(1_000);
    assert!(matches!(world.done[&(0, edit)], Err(ChangeError::NotDurable(_))));
    assert!(matches!(world.state(0), DocumentState::Failed(_)));
    assert!(world.saw("Failed { reason"));
    let refused = world.edit(0, |tx| Ok(tx.put(ROOT, "n", 2)?));
    assert!(matches!(refused, Err(ChangeError::Failed(_))), "{refused:?}");
}

#[test]
fn what_was_written_alone_is_told_to_a_relay_by_the_next_run() {
    let mut world = World::new(2, 5);
    world.pass(100);
    world.cut(0, Some(4401));
    assert!(world.homes[0].dialling.stopped().is_some());
    world.create(0);
    let (_, edit) = world.edit(0, |tx| Ok(tx.put(ROOT, "n", 1)?)).unwrap().unwrap();
    world.pass(10_000);
    assert!(matches!(world.done[&(0, edit)], Ok(())));
    assert!(!world.confirmed(0));
    world.crash(0);
    world.dial_anew(0);
    // Nobody opens the document in this run: it goes to the relay all the same.
    world.open(1);
    world.pass(10_000);
    assert_eq!(world.state(1), DocumentState::Ready, "{:#?}", world.tail());
}

#[test]
fn dialling_waits_longer_each_time_and_stops_where_it_is_not_wanted() {
    let mut dialling = Dialling::new();
    assert_eq!(dialling.next_dial_ms(), Some(0));
    dialling.ended(1_000, None, None, 400);
    assert_eq!(dialling.next_dial_ms(), Some(1_400));
    dialling.ended(2_000, Some(4503), Some(5_000), 900);
    assert_eq!(dialling.next_dial_ms(), Some(7_900), "the second ceiling is a second");
    dialling.connected(9_000);
    assert_eq!(dialling.next_dial_ms(), None);
    dialling.ended(9_100, Some(4410), None, 1_900);
    assert_eq!(dialling.next_dial_ms(), Some(11_000), "to be thrown out at once is a failure");
    dialling.connected(12_000);
    dialling.ended(22_000, Some(4410), None, 600);
    assert_eq!(dialling.next_dial_ms(), Some(22_000 + 600 % 501), "the first ceiling again");
    assert_eq!(dialling.stopped(), None);
    dialling.ended(23_000, Some(4403), None, 0);
    assert_eq!(dialling.next_dial_ms(), None);
    assert!(dialling.stopped().is_some());
}
