//! Clocks that are an hour off and jump: what merges, what is on its way and what is told do not
//! depend on them, and the times that changes say do not run backwards.

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::peer::OutboxState;

use crate::{shared, type_at, world::World};

const HOUR_MS: i64 = 3_600_000;

fn title(world: &World, home: usize) -> Option<String> {
    let title = world.homes[home].peer.read(&world.document, |doc| {
        doc.get(ROOT, "title").unwrap().and_then(|(title, _)| title.as_str().map(str::to_owned))
    });
    title.unwrap_or_else(|| panic!("nothing is shown: {:?}", world.state(home)))
}

fn put_title(world: &mut World, home: usize, title: &str) {
    world.edit(home, |tx| Ok(tx.put(ROOT, "title", title)?)).unwrap().unwrap();
}

/// When each change was made, as it says, is not before what it builds on.
fn check_times(world: &World, home: usize) {
    let checked = world.homes[home].peer.read(&world.document, |doc| {
        let changes = doc.get_changes_meta(&[]);
        for change in &changes {
            for dep in &change.deps {
                let dep = doc.get_change_meta_by_hash(dep).unwrap();
                assert!(dep.timestamp <= change.timestamp, "{}", change.hash);
            }
        }
        changes.len()
    });
    assert!(checked > Some(10));
}

#[test]
fn who_writes_last_having_seen_the_rest_has_the_last_word_whatever_the_clocks_say() {
    for seed in 0..10 {
        let mut world = shared(seed);
        // One after another: hours apart but less than a day, and jumping in between.
        let clocks = [(1, -1), (-1, 1), (1, 1), (-20, 3), (0, -2), (-3, 0)];
        for (turn, (ann, ben)) in clocks.into_iter().enumerate() {
            world.set_clock(0, ann * HOUR_MS);
            world.set_clock(1, ben * HOUR_MS);
            for home in [turn % 2, 1 - turn % 2] {
                let mine = format!("turn {turn} of {home}");
                put_title(&mut world, home, &mine);
                assert!(type_at(&mut world, home, "a"));
                world.pass(5_000);
                for reader in 0..2 {
                    let tail = world.tail();
                    assert_eq!(title(&world, reader).as_ref(), Some(&mine), "{seed}: {tail:#?}");
                }
            }
        }
        assert!(world.content(0) == world.content(1));
        check_times(&world, 0);
        check_times(&world, 1);
        assert!(!world.saw("closes"), "nobody is cut off for a clock: {:#?}", world.tail());
    }
}

#[test]
fn what_is_on_its_way_says_since_when_and_goes_in_time_though_the_clock_jumps() {
    let mut world = shared(3);
    // Long enough that the rows of what is confirmed are gone.
    world.pass(10_000);
    world.set_clock(0, HOUR_MS);
    world.cut(0, None);
    put_title(&mut world, 0, "alone");
    world.pass(0);
    let made_ms = world.now_at(0).wall_ms;
    world.set_clock(0, -HOUR_MS);
    world.pass(1);
    let outbox = world.homes[0].peer.outbox().unwrap();
    let [entry] = &outbox[..] else { panic!("{outbox:?}") };
    assert_eq!((&entry.state, entry.since_ms), (&OutboxState::Pending, made_ms));
    // It is dialled again and confirmed as soon as if the clock had stood still.
    world.pass(5_000);
    assert_eq!(world.homes[0].peer.outbox().unwrap(), [], "{:#?}", world.tail());
    assert!(world.confirmed(0));
    assert_eq!(title(&world, 1).as_deref(), Some("alone"));
    // And known to be so by the next run, whose clock is another hour off.
    world.pass(5_000);
    world.set_clock(0, 2 * HOUR_MS);
    world.crash(0);
    world.open(0);
    world.pass(10_000);
    assert_eq!(world.homes[0].peer.outbox().unwrap(), []);
    assert!(world.content(0) == world.content(1));
}
