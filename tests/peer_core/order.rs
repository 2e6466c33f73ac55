//! When edits go, and in which order: debounce, priorities, and one sync of a document at a time.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use automerge::{ROOT, transaction::Transactable as _};
use concord::{entity::Schema, peer::DocumentEvent};
use concord_protocol::{DocumentId, Message, limits::SYNC_CHANGES_MAX, sync::SyncMessage};

use crate::world::{Settings, World};

const SCHEMA: &str = r#"
[types.task]
priorities = { create = 3 }
[types.task.fields]
status = { kind = "enum", values = ["todo", "done"] }
title = "string"
details = "string"
"#;

fn settings() -> Settings {
    let schema = Some(Arc::new(Schema::parse(SCHEMA).unwrap()));
    let debounce = (Duration::from_millis(200), Duration::from_secs(2));
    Settings { debounce, schema, ..Settings::default() }
}

fn document(n: u32) -> DocumentId {
    DocumentId::from_bytes(&n.to_be_bytes())
}

/// One more document, and what is written in it.
fn write(world: &mut World, home: usize, n: u32, field: &str, value: &str) {
    let (now, document) = (world.now, document(n));
    let peer = &mut world.homes[home].peer;
    if peer.state(&document).is_none() {
        peer.create(now, document.clone()).unwrap();
    }
    peer.edit(now, &document, |tx| {
        tx.put(ROOT, "type", "task")?;
        Ok(tx.put(ROOT, field, value)?)
    })
    .unwrap();
    world.pass(0);
}

fn waiting(world: &World, home: usize) -> BTreeSet<DocumentId> {
    let entries = world.homes[home].peer.outbox().unwrap();
    entries.into_iter().map(|entry| entry.document).collect()
}

/// A peer that wrote so many documents alone, and is about to dial.
fn alone(documents: u32, seed: u64) -> World {
    let mut world = World::with(1, seed, settings());
    world.pass(100);
    world.cut(0, Some(4401));
    for n in 0..documents {
        write(&mut world, 0, n, "title", "written alone");
    }
    world.pass(5_000);
    assert_eq!(waiting(&world, 0).len(), documents as usize);
    world.dial_anew(0);
    world
}

/// How many documents are sent changes by a peer, in this part of what was said.
fn changes_sent(sent: &[(usize, Message)], document: &DocumentId) -> usize {
    let carries = |(node, message): &&(usize, Message)| match message {
        Message::Sync { document: of, data, .. } if *node == 1 && of == document => {
            let limits = concord_protocol::Limits::default();
            let message = SyncMessage::decode(data, &limits).unwrap();
            assert!(message.changes.len() < SYNC_CHANGES_MAX);
            !message.changes.is_empty()
        }
        _ => false,
    };
    sent.iter().filter(carries).count()
}

#[test]
fn what_is_critical_overtakes_what_was_written_before_it() {
    let mut world = alone(900, 1);
    // Before a relay is there, and while most are on their way.
    write(&mut world, 0, 10_000, "status", "done");
    let mut left = waiting(&world, 0);
    while left.len() > 600 {
        world.pass(1);
        left = waiting(&world, 0);
    }
    assert!(!left.contains(&document(10_000)), "it is among the first");
    // The last of those that were written alone.
    assert!(left.contains(&document(899)));
    write(&mut world, 0, 899, "status", "done");
    while waiting(&world, 0).contains(&document(899)) {
        world.pass(1);
    }
    assert!(!waiting(&world, 0).is_empty(), "it is not the last");
    world.pass(60_000);
    assert_eq!(waiting(&world, 0), BTreeSet::new());
}

#[test]
fn of_what_waits_only_so_much_is_on_its_way() {
    let mut world = alone(600, 2);
    while !world.sent.iter().any(|(node, _)| *node == 1) {
        world.pass(1);
    }
    let told: BTreeSet<_> = world.sent.iter().filter_map(|(_, message)| of(message)).collect();
    assert_eq!(told.len(), 256, "documents that are on their way at once");
    world.pass(60_000);
    assert_eq!(waiting(&world, 0), BTreeSet::new());
}

fn of(message: &Message) -> Option<DocumentId> {
    match message {
        Message::Sync { document, .. } | Message::Request { document, .. } => {
            Some(document.clone())
        }
        _ => None,
    }
}

#[test]
fn what_is_typed_goes_when_nobody_has_typed_for_a_moment() {
    let mut world = World::with(2, 3, settings());
    world.pass(1_000);
    write(&mut world, 0, 1, "title", "begun");
    world.pass(5_000);
    world.document = document(1);
    world.open(1);
    world.pass(5_000);
    let said = world.sent.len();
    for word in 0..10 {
        write(&mut world, 0, 1, "details", &format!("word {word}"));
        world.pass(50);
    }
    assert_eq!(changes_sent(&world.sent[said..], &document(1)), 0, "it rests");
    assert!(waiting(&world, 0).contains(&document(1)), "and is known to wait");
    world.pass(150);
    assert_eq!(changes_sent(&world.sent[said..], &document(1)), 1, "all of it at once");
    world.pass(1_000);
    assert!(waiting(&world, 0).is_empty());
    assert!(world.content(0) == world.content(1));

    // What is critical takes along what rests, and so does who does not want to wait.
    let said = world.sent.len();
    write(&mut world, 0, 1, "details", "more");
    write(&mut world, 0, 1, "status", "done");
    assert_eq!(changes_sent(&world.sent[said..], &document(1)), 1);
    world.pass(2_000);
    let said = world.sent.len();
    write(&mut world, 0, 1, "details", "even more");
    let now = world.now;
    world.homes[0].peer.sync_now(now);
    world.pass(0);
    assert_eq!(changes_sent(&world.sent[said..], &document(1)), 1);
}

#[test]
fn what_is_on_the_disk_is_not_waited_for() {
    let mut world = World::with(1, 4, settings());
    world.pass(1_000);
    write(&mut world, 0, 1, "title", "begun");
    world.pass(5_000);
    world.document = document(1);
    let (_, edit) = world.edit(0, |tx| Ok(tx.put(ROOT, "details", "x")?)).unwrap().unwrap();
    world.pass(100);
    assert!(matches!(world.done[&(0, edit)], Ok(())), "it rests, and is on the disk");
    assert!(waiting(&world, 0).contains(&document(1)));
}

#[test]
fn one_sync_of_a_document_is_on_its_way_and_what_is_asked_for_meanwhile_is_one_more() {
    let mut world = World::with(1, 5, settings());
    world.pass(1_000);
    write(&mut world, 0, 1, "title", "begun");
    world.pass(5_000);
    let said = world.sent.len();
    write(&mut world, 0, 1, "details", "first");
    // It goes after the debounce; from then on, and until the relay answers, nothing more does.
    while changes_sent(&world.sent[said..], &document(1)) == 0 {
        world.pass(1);
    }
    let (said, mut asked) = (world.sent.len(), 0);
    while !world.sent[said..].iter().any(|(node, _)| *node == 0) {
        write(&mut world, 0, 1, "details", &format!("meanwhile {asked}"));
        let now = world.now;
        world.homes[0].peer.sync_now(now);
        asked += 1;
        assert_eq!(changes_sent(&world.sent[said..], &document(1)), 0, "after {asked} requests");
        world.pass(1);
    }
    assert!(asked > 1, "there was time for more than one");
    world.pass(1_000);
    assert_eq!(changes_sent(&world.sent[said..], &document(1)), 1, "of {asked} requests");
    assert!(waiting(&world, 0).is_empty());
}

#[test]
fn what_rested_when_the_line_broke_goes_with_the_next() {
    for seed in 0..10 {
        let mut world = World::with(2, seed, settings());
        world.pass(1_000);
        write(&mut world, 0, 1, "title", "begun");
        world.pass(5_000);
        world.document = document(1);
        world.open(1);
        world.pass(5_000);
        for step in 0..40 {
            write(&mut world, 0, 1, "details", &format!("word {step}"));
            let ms = world.rng.below(150);
            world.pass(ms);
            if world.rng.below(8) == 0 {
                world.cut(0, None);
            }
        }
        world.pass(120_000);
        assert!(waiting(&world, 0).is_empty(), "seed {seed}: {:#?}", world.tail());
        assert!(world.content(0) == world.content(1), "seed {seed}");
    }
}

#[test]
fn a_refusal_is_told_and_does_not_take_a_place() {
    let mut world = World::with(1, 6, settings());
    world.pass(1_000);
    write(&mut world, 0, 1, "title", "begun");
    world.document = document(1);
    let large = "x".repeat(1_100_000);
    let refused = world.edit(0, |tx| Ok(tx.put(ROOT, "details", large.as_str())?)).unwrap();
    world.pass(10_000);
    let (_, edit) = refused.unwrap();
    assert!(world.done[&(0, edit)].is_err());
    assert!(!world.saw(&format!("{:?}", DocumentEvent::Lagged { missed: 1 })));
    write(&mut world, 0, 1, "details", "small");
    world.pass(5_000);
    assert!(waiting(&world, 0).is_empty());
}
