//! A change that the relay refuses is taken out while everything else goes on, in whatever order
//! things come: what was made after it stays, and outbox and relay agree in the end.

use automerge::{ObjType, ROOT, ReadDoc as _, ScalarValue, transaction::Transactable as _};
use concord::peer::{
    ChangeError, LetterError, LetterState,
    simulation::{DocumentState, EditId},
};
use concord_protocol::{ChangeHash, RefuseCode};

use crate::{text, world::World};

const SEEDS: u64 = 40;

/// Bytes of the largest change that the relay takes.
const NARROW: usize = 1_000;

/// More than that.
fn large() -> String {
    "x".repeat(2 * NARROW)
}

fn put(world: &mut World, home: usize, key: &str, value: &str) -> Option<ChangeHash> {
    let made = world.edit(home, |tx| Ok(tx.put(ROOT, key, value)?));
    made.ok().flatten().map(|(hash, _)| hash)
}

/// What the relay refused of a peer: never a small change, for that comes behind the large one.
fn letters(world: &World, home: usize) -> Vec<ChangeHash> {
    let letters = world.open_letters(home);
    for letter in &letters {
        assert_eq!(letter.code, RefuseCode::Malformed, "{letter:?}: {:#?}", world.tail());
    }
    letters.into_iter().map(|letter| letter.change).collect()
}

/// What the document of a peer says at a key.
fn at(world: &World, home: usize, key: &str) -> Option<String> {
    let peer = &world.homes[home].peer;
    let value = peer.read(&world.document, |doc| {
        doc.get(ROOT, key).unwrap().and_then(|(value, _)| value.as_str().map(str::to_owned))
    });
    value.unwrap_or_else(|| panic!("nothing is shown: {:?}", world.state(home)))
}

/// One character, and one on the counter, unless the document is being read.
fn type_in(world: &mut World, home: usize) -> Option<EditId> {
    let text = text(world, home)?;
    let made = world.edit(home, |tx| {
        tx.splice_text(&text, 0, 0, "a")?;
        tx.increment(ROOT, "typed", 1)?;
        Ok(())
    });
    Some(made.unwrap().unwrap().1)
}

/// Two peers with a document and a relay that takes no large change.
fn narrow(seed: u64) -> World {
    let mut world = World::narrow(2, seed, NARROW);
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

/// Takes out what is refused until nothing is, and lets all come together.
fn settle(world: &mut World) {
    for _ in 0..200 {
        world.pass(3_000);
        let mut is_open = false;
        for home in 0..2 {
            if let Some(change) = letters(world, home).first() {
                is_open = true;
                // It may not be a moment for it: it is tried again.
                let _ = world.discard(home, *change);
            }
        }
        if !is_open {
            return world.pass(60_000);
        }
    }
    panic!("letters stay open: {:#?}", world.tail());
}

#[test]
fn whatever_comes_while_a_change_is_taken_out_nothing_else_is_lost() {
    let (mut out, mut not_now, mut refused) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut world = narrow(seed);
        let (mut typed, mut large_ones) = (Vec::new(), 0);
        for step in 0..40 {
            for home in 0..2 {
                if world.rng.below(3) > 0 {
                    let made = type_in(&mut world, home);
                    typed.extend(made.map(|edit| (home, edit)));
                }
            }
            let home = usize::try_from(world.rng.below(2)).unwrap();
            match world.rng.below(16) {
                0..2 => {
                    let made = put(&mut world, home, &format!("large {step}"), &large());
                    large_ones += usize::from(made.is_some());
                }
                2 => world.cut(home, None),
                3 => world.cut(home, Some(4503)),
                4 => world.retry(home),
                5..12 => {
                    let letters = letters(&world, home);
                    let which = usize::try_from(world.rng.below(1 + letters.len() as u64)).unwrap();
                    if let Some(change) = letters.get(which) {
                        // Of a document that is being read nothing is taken out.
                        let _ = world.discard(home, *change);
                    }
                }
                _ => {}
            }
            let ms = [1, 20, 200][usize::try_from(world.rng.below(3)).unwrap()];
            let ms = world.rng.below(ms);
            world.pass(ms);
        }
        settle(&mut world);
        let tail = || format!("seed {seed}: {:#?}", world.tail());
        assert!(world.content(0) == world.content(1), "{}", tail());
        assert!(world.confirmed(0) && world.confirmed(1), "{}", tail());
        // Whose call returned is there, and nobody else's.
        let mut kept = 0;
        for edit in &typed {
            match &world.done[edit] {
                Ok(()) => kept += 1,
                Err(ChangeError::Refused { .. }) => refused += 1,
                Err(error) => panic!("{error}: {}", tail()),
            }
        }
        let shown = world.homes[0].peer.read(&world.document, |doc| {
            let large_ones = doc.keys(ROOT).filter(|key| key.starts_with("large")).count();
            (doc.get(ROOT, "typed").unwrap().unwrap().0.as_i64().unwrap(), large_ones)
        });
        // A large one in a document that the relay is given as a whole is taken: it asks for the size
        // of single changes only.
        let out_here = world.taken_out.iter().filter(|(_, _, done)| done.is_ok()).count();
        assert_eq!(shown, Some((kept, large_ones - out_here)), "{}", tail());
        for home in 0..2 {
            assert_eq!(world.homes[home].peer.outbox().unwrap(), [], "{}", tail());
            let is_out = |letter: &&concord::peer::DeadLetter| {
                matches!(letter.state, LetterState::Discarded { .. })
            };
            let letters = world.homes[home].peer.dead_letters();
            let taken = world.taken_out.iter().filter(|(at, _, done)| *at == home && done.is_ok());
            assert_eq!(letters.iter().filter(is_out).count(), taken.count(), "{}", tail());
        }
        out += world.taken_out.iter().filter(|(_, _, done)| done.is_ok()).count();
        let is_not_now = |done: &Result<_, _>| matches!(done, Err(LetterError::NotNow { .. }));
        not_now += world.taken_out.iter().filter(|(_, _, done)| is_not_now(done)).count();
    }
    assert!(out > 100 && not_now > 0, "{out} taken out, {not_now} put off, {refused} refused");
}

/// The only change of a document is refused: without it there is an empty one, and one may go on.
#[test]
fn a_document_of_which_all_is_refused_is_empty_without_it() {
    let mut world = World::narrow(1, 1, NARROW);
    // Nothing is on disk before this, not even that there is a document.
    world.begin(0);
    let first = put(&mut world, 0, "text", &large()).unwrap();
    world.pass(5_000);
    let letters = world.open_letters(0);
    assert_eq!(letters.iter().map(|letter| letter.change).collect::<Vec<_>>(), [first]);
    assert_eq!(letters[0].code, RefuseCode::Malformed);
    world.discard(0, first).unwrap();
    world.pass(5_000);
    let [(0, _, Ok(out))] = &world.taken_out[..] else { panic!("{:?}", world.taken_out) };
    assert!(out.rewritten.is_empty() && out.lost.is_empty());
    assert_eq!(at(&world, 0, "text"), None);
    assert!(world.saw("RolledBack"), "{:#?}", world.tail());
    assert_eq!(world.homes[0].peer.outbox().unwrap(), [], "there is nothing to confirm");

    put(&mut world, 0, "text", "short").unwrap();
    world.pass(5_000);
    assert!(world.confirmed(0), "{:#?}", world.tail());
    assert_eq!(world.homes[0].peer.outbox().unwrap(), []);
    assert_eq!(at(&world, 0, "text").as_deref(), Some("short"));
}

/// Nothing was made after the change that goes: the relay has all that is left, and says so again.
#[test]
fn what_is_left_without_the_last_change_is_confirmed() {
    let mut world = narrow(5);
    let refused = put(&mut world, 0, "large", &large()).unwrap();
    world.pass(5_000);
    world.discard(0, refused).unwrap();
    world.pass(10_000);
    assert!(world.confirmed(0), "{:#?}", world.tail());
    assert_eq!(world.homes[0].peer.outbox().unwrap(), []);
}

/// The row that says what is to be written has no room: nothing is done, and nothing is lost.
#[test]
fn a_disk_that_fails_before_a_change_is_out_leaves_the_document_as_it_is() {
    let mut world = narrow(3);
    let refused = put(&mut world, 0, "large", &large()).unwrap();
    put(&mut world, 0, "after", "it").unwrap();
    world.pass(5_000);
    assert_eq!(world.open_letters(0).len(), 1);
    world.fail_journals(0, true);
    world.discard(0, refused).unwrap();
    world.pass(5_000);
    let done = &world.taken_out[..];
    assert!(
        matches!(done, [(0, _, Err(LetterError::Change(ChangeError::NotDurable(_))))]),
        "{done:?}"
    );
    world.fail_journals(0, false);
    world.crash(0);
    world.open(0);
    world.pass(5_000);
    assert_eq!(at(&world, 0, "after").as_deref(), Some("it"));
    assert_eq!(at(&world, 0, "large"), Some(large()));
    assert_eq!(world.open_letters(0).len(), 1, "and it is still to be decided");
}

/// What was in the outbox is read slowly, and as it was before a refusal came: the refusal counts, and
/// what builds on the change is not taken for what was refused.
#[test]
fn a_refusal_that_comes_before_the_outbox_was_read_is_not_forgotten() {
    let mut world = World::narrow(1, 7, NARROW);
    world.start_slowly(0, 700);
    world.create(0);
    let refused = put(&mut world, 0, "large", &large()).unwrap();
    world.pass(1_600);
    put(&mut world, 0, "after", "it").unwrap();
    world.pass(5_000);
    assert_eq!(letters(&world, 0), [refused], "{:#?}", world.tail());
    world.discard(0, refused).unwrap();
    world.pass(5_000);
    assert_eq!(at(&world, 0, "after").as_deref(), Some("it"), "{:#?}", world.tail());
    assert_eq!(world.homes[0].peer.outbox().unwrap(), []);
}

/// The relay's word on what is behind a refused change is still on its way when that is sent once more:
/// it is not taken for what was refused, or whoever discards it loses it.
#[test]
fn what_waits_behind_a_change_that_is_sent_once_more_is_no_letter() {
    for seed in 0..10 {
        let mut world = narrow(seed);
        let refused = put(&mut world, 0, "large", &large()).unwrap();
        put(&mut world, 0, "after", "it").unwrap();
        for _ in 0..1_000 {
            world.pass(1);
            if !letters(&world, 0).is_empty() {
                break;
            }
        }
        world.retry(0);
        assert_eq!(letters(&world, 0), []);
        for _ in 0..500 {
            world.pass(1);
            let open = letters(&world, 0);
            assert!(open.is_empty() || open == [refused], "seed {seed}: {:#?}", world.tail());
        }
        let open = world.open_letters(0);
        let [letter] = &open[..] else { panic!("seed {seed}: {open:?}") };
        assert!(letter.times > 1 && letter.state == LetterState::Open { behind: 1 }, "{letter:?}");
    }
}

/// Somebody edits a document before it is known what was kept of it: that is still known afterwards.
#[test]
fn an_edit_that_comes_before_the_outbox_was_read_leaves_what_was_kept_in_it() {
    let mut world = narrow(8);
    let out = put(&mut world, 0, "large", &large()).unwrap();
    world.pass(5_000);
    world.discard(0, out).unwrap();
    world.pass(5_000);
    let refused = put(&mut world, 0, "large", &large()).unwrap();
    world.pass(5_000);
    world.start_slowly(0, 1_000);
    world.open(0);
    world.pass(300);
    put(&mut world, 0, "after", "it").unwrap();
    world.pass(10_000);
    let kept: Vec<ChangeHash> =
        world.homes[0].peer.dead_letters().iter().map(|letter| letter.change).collect();
    assert_eq!(kept, [refused, out], "{:#?}", world.tail());
    world.discard(0, refused).unwrap();
    world.pass(10_000);
    assert!(world.content(0) == world.content(1), "{:#?}", world.tail());
}

/// The end comes between the row that says that a document is on its way and the document's first
/// change: there is nothing that a relay could confirm, and nobody waits for it.
#[test]
fn what_never_came_to_the_disk_is_not_on_its_way() {
    let mut world = World::new(1, 9);
    world.pass(1_000);
    world.lose_changes(0, true);
    let edit = world.create(0);
    world.pass(1_000);
    assert!(!world.done.contains_key(&(0, edit)));
    world.crash(0);
    world.lose_changes(0, false);
    world.pass(10_000);
    assert_eq!(world.homes[0].peer.outbox().unwrap(), [], "{:#?}", world.tail());
}
