//! Documents that are purged: when, what is left of them, and what those are told who still have
//! them.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use automerge::{ROOT, transaction::Transactable as _};
use bytes::Bytes;
use concord::replica::{ConnectionId, Counted, Event, Kind, Leaving, LocalError};
use concord_protocol::{
    Ack, ChangeHash, DocumentId, Message, PeerMetadata, RefuseCode, Refused, sync::SyncMessage,
};

use crate::replica_common::{World, WorldOptions, sync_message, writer::Writer};

fn document() -> DocumentId {
    DocumentId::from_bytes(&[7; 16])
}

fn relay(compact_changes: usize) -> World {
    World::new(WorldOptions { compact_changes, ..WorldOptions::default() })
}

/// A program with a document of one change, its head, and a relay that it is connected to.
fn program() -> (World, ChangeHash, ConnectionId) {
    let mut world = World::new(WorldOptions {
        compact_changes: 10_000,
        dials_forgetless: true,
        ..WorldOptions::default()
    });
    world.edit_here(|doc| doc.put(ROOT, "key", 1).unwrap());
    world.finish_all();
    let head = ChangeHash(world.ours.get_heads()[0].0);
    let relay = world.bare_server(1, true);
    (world, head, relay)
}

/// A relay with a document of a few changes, its writer, and the head.
fn written(compact_changes: usize) -> (World, Writer, ChangeHash) {
    let mut world = relay(compact_changes);
    let author = world.bare_concord(1);
    let mut writer = Writer::new(1);
    let mut head = ChangeHash([0; 32]);
    for value in 0..7 {
        let (hash, bytes) = writer.put(value);
        world.say(author, &document(), &sync_message(vec![hash], vec![bytes]));
        world.finish_all();
        world.pass_time(2_000);
        world.finish_all();
        head = hash;
    }
    // What is due in the background is done.
    for _ in 0..60 {
        world.pass_time(1_000);
        world.finish_all();
    }
    world.taken(author);
    (world, writer, head)
}

/// As [`written`], and purged.
fn purged() -> (World, Writer, ChangeHash) {
    let (mut world, writer, head) = written(10_000);
    world.purge(&[head], Leaving::Record);
    world.finish_all();
    assert_eq!(world.purges, [Ok(())]);
    world.purges.clear();
    (world, writer, head)
}

fn kinds(world: &World) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = world.rows().iter().map(|row| row.kind).collect();
    kinds.dedup();
    kinds
}

fn unavailable(messages: &[Message]) -> usize {
    messages.iter().filter(|message| matches!(message, Message::DocUnavailable { .. })).count()
}

fn acks(messages: Vec<Message>) -> Vec<Ack> {
    let ack = |message| match message {
        Message::Ack { ack, .. } => Some(ack),
        _ => None,
    };
    messages.into_iter().filter_map(ack).collect()
}

fn refused(acks: &[Ack]) -> Vec<(Option<ChangeHash>, RefuseCode)> {
    acks.iter()
        .flat_map(|ack| &ack.refused)
        .map(|Refused { hash, code, .. }| (*hash, *code))
        .collect()
}

fn v1(world: &mut World, number: u64) -> ConnectionId {
    world.bare(number, PeerMetadata::default())
}

#[test]
fn a_record_is_all_that_is_left_of_a_purged_document() {
    for compact_changes in [10_000, 3] {
        let (mut world, _, head) = written(compact_changes);
        let has_snapshot = kinds(&world).contains(&Kind::Snapshot);
        assert_eq!(has_snapshot, compact_changes == 3, "{:?}", kinds(&world));
        world.purge(&[head], Leaving::Record);
        assert!(world.purges.is_empty(), "not before it is on disk");
        world.finish_all();
        assert_eq!((&world.purges[..], kinds(&world)), (&[Ok(())][..], vec![Kind::Meta]));
        assert_eq!(world.counts.iter().filter(|count| **count == Counted::Purged).count(), 1);
        assert_eq!(world.relay.stats().chunk_bytes, 0);
        // Once more is no other purge.
        world.purge(&[head], Leaving::Record);
        assert_eq!(world.purges.len(), 2);
        assert!(world.purges.iter().all(Result::is_ok));

        // Also after a restart.
        for _ in 0..2 {
            let asker = v1(&mut world, 5);
            world.ask(asker, &document());
            assert_eq!(unavailable(&world.taken(asker)), 1, "at once");
            world.crash();
        }
        assert_eq!(kinds(&world), [Kind::Meta]);
    }
}

#[test]
fn only_what_was_seen_is_purged_and_only_while_nothing_waits() {
    let no = |world: &mut World, heads: &[ChangeHash], said: &str| {
        let before = world.rows();
        world.purge(heads, Leaving::Record);
        let Some(Err(LocalError::NotPurged(reason))) = world.purges.pop() else {
            panic!("{said}: purged");
        };
        assert_eq!(reason, said);
        world.finish_all();
        assert!(world.rows().len() >= before.len());
    };
    let (mut world, mut writer, head) = written(10_000);
    let author = world.bare_concord(2);
    no(&mut world, &[], "it is another than was seen");
    no(&mut world, &[ChangeHash([9; 32])], "it is another than was seen");
    no(&mut world, &[head, ChangeHash([9; 32])], "it is another than was seen");

    // A change that is not on disk yet.
    let (next, bytes) = writer.put(8);
    world.say(author, &document(), &sync_message(vec![next], vec![bytes]));
    no(&mut world, &[head], "more of it is being written");
    world.finish_all();
    no(&mut world, &[head], "it is another than was seen");

    // Somebody has more of it, and has not sent it yet; then it waits for what it builds on.
    let (between, bytes_between) = writer.put(9);
    let (last, bytes) = writer.put(10);
    world.say(author, &document(), &sync_message(vec![last], vec![]));
    no(&mut world, &[next], "somebody has more of it");
    world.say(author, &document(), &sync_message(vec![last], vec![bytes]));
    no(&mut world, &[next], "more of it is coming");
    world.say(author, &document(), &sync_message(vec![last], vec![bytes_between]));
    world.finish_all();
    no(&mut world, &[between], "it is another than was seen");

    // What was withheld is kept.
    let (bad, bytes) = Writer::new(3).put(1);
    world.breaks.insert(bad);
    world.say(author, &document(), &sync_message(vec![last, bad], vec![bytes]));
    for _ in 0..4 {
        world.finish_all();
        world.pass_time(5_000);
    }
    assert!(kinds(&world).contains(&Kind::Quarantine));
    world.purge(&[last], Leaving::Record);
    world.purge(&[last, bad], Leaving::Record);
    world.finish_all();
    assert!(world.purges.iter().all(Result::is_err), "{:?}", world.purges);
    assert!(!world.counts.contains(&Counted::Purged));
}

#[test]
fn a_crash_at_any_moment_leaves_all_of_it_or_the_record() {
    for compact_changes in [10_000, 3] {
        for rows in 0..=3 {
            let (mut world, _, head) = written(compact_changes);
            let before = world.rows();
            world.purge(&[head], Leaving::Record);
            world.crash_after(rows);
            let asker = v1(&mut world, 5);
            world.ask(asker, &document());
            world.finish_all();
            let told = world.taken(asker);
            if rows == 0 {
                assert_eq!((unavailable(&told), world.rows()), (0, before), "it is as it was");
                assert!(told.iter().any(|message| matches!(message, Message::Sync { .. })));
            } else {
                assert_eq!((unavailable(&told), kinds(&world)), (1, vec![Kind::Meta]), "{rows}");
            }
            // What was begun is finished once, not at every start.
            let at = world.rows();
            world.crash();
            world.ask(asker, &document());
            assert_eq!(world.rows(), at);
        }
    }
}

#[test]
fn a_purge_that_cannot_be_written_has_not_happened() {
    let (mut world, _, head) = written(10_000);
    world.disk_fails = true;
    world.purge(&[head], Leaving::Record);
    world.finish_writes();
    assert!(matches!(world.purges[..], [Err(LocalError::Storage(_))]), "{:?}", world.purges);
}

#[test]
fn whoever_still_has_it_loses_nothing_and_brings_nothing() {
    let (mut world, mut writer, head) = purged();
    // One who was in step when it was purged, and one who knows it from before.
    let same = world.bare_concord(2);
    world.say(same, &document(), &sync_message(vec![head], vec![]));
    let told = acks(world.taken(same));
    assert_eq!((told.len(), &told[0].durable, &told[0].refused), (1, &vec![head], &vec![]));

    // One who wrote meanwhile: refused by what it names, and by what it sends, once each.
    let (next, bytes) = writer.put(8);
    let away = world.bare_concord(3);
    world.say(away, &document(), &sync_message(vec![next], vec![]));
    let told = acks(world.taken(away));
    assert_eq!(refused(&told), [(Some(next), RefuseCode::Deleted)]);
    assert!(told[0].durable.is_empty() && told[0].refused[0].reason.contains("deleted"));
    world.say(away, &document(), &sync_message(vec![next], vec![bytes.clone()]));
    assert!(world.taken(away).is_empty(), "it knows");
    let later = world.bare_concord(4);
    let (last, last_bytes) = writer.put(9);
    let run = Bytes::from([bytes.clone(), last_bytes].concat());
    world.say(later, &document(), &sync_message(vec![head], vec![run]));
    let told = acks(world.taken(later));
    assert_eq!(
        refused(&told),
        [(Some(last), RefuseCode::Deleted)],
        "what it builds on goes with it"
    );
    // As it names what is on its disk later.
    let ack = Ack { applied: vec![last], durable: vec![last], refused: vec![] };
    let (sender, target) = ("x".parse().unwrap(), "relay".parse().unwrap());
    let ack = Message::Ack { document: document(), sender, target, ack };
    world.handle(Event::Received(later, ack));
    assert!(world.taken(later).is_empty());

    // Documents as a whole, and one who never had it.
    let whole = world.bare_concord(5);
    let upload = sync_message(vec![last], vec![Bytes::from(writer.0.save())]);
    world.say(whole, &document(), &upload);
    assert_eq!(refused(&acks(world.taken(whole))), [(Some(last), RefuseCode::Deleted)]);
    world.ask(whole, &document());
    assert_eq!(unavailable(&world.taken(whole)), 1);

    // Clients without acks hear that there is none, and nothing else.
    let client = v1(&mut world, 6);
    world.say(client, &document(), &sync_message(vec![next], vec![]));
    assert_eq!(unavailable(&world.taken(client)), 1);
    world.say(client, &document(), &sync_message(vec![next], vec![bytes]));
    world.say(client, &document(), &upload);
    assert!(world.taken(client).is_empty(), "said once");
    world.ask(client, &document());
    assert_eq!(unavailable(&world.taken(client)), 1, "whoever asks is answered");

    world.finish_all();
    world.pass_time(120_000);
    assert!(world.sent.is_empty() && world.closed.is_empty());
    assert_eq!(kinds(&world), [Kind::Meta]);
    assert_eq!(world.relay.stats().documents, 0, "it leaves memory");
    // And it is the same for those who are still there.
    let (newest, bytes) = writer.put(10);
    world.say(away, &document(), &sync_message(vec![newest], vec![bytes]));
    assert_eq!(refused(&acks(world.taken(away))), [(Some(newest), RefuseCode::Deleted)]);
}

#[test]
fn a_document_that_is_read_to_find_out_takes_nothing_that_came_meanwhile() {
    let (mut world, mut writer, head) = purged();
    world.crash();
    let jobs_done = world.jobs_done;
    let (next, bytes) = writer.put(8);
    let (client, away) = (v1(&mut world, 2), world.bare_concord(3));
    world.say(client, &document(), &sync_message(vec![next], vec![writer.0.save().into()]));
    world.say(away, &document(), &sync_message(vec![next], vec![bytes.clone()]));
    world.finish_all();
    assert_eq!(refused(&acks(world.taken(away))), [(Some(next), RefuseCode::Deleted)]);
    assert_eq!((unavailable(&world.taken(client)), kinds(&world)), (1, vec![Kind::Meta]));
    assert_eq!(world.jobs_done, jobs_done, "nobody opened it");

    // Nor does the relay itself write to it, or find anything in it.
    world.change_here(bytes);
    let Some(Err(LocalError::Refused { code, .. })) = world.purges.pop() else { panic!() };
    assert_eq!(code, RefuseCode::Deleted);
    world.handle(Event::Open(document()));
    assert!(world.ours.get_heads().is_empty());
    let _ = head;
}

#[test]
fn a_peer_that_is_refused_keeps_what_it_has_and_names_what_is_new() {
    let (mut world, head, relay) = program();
    world.taken(relay);
    let refuse = |world: &mut World, hash| {
        let refused =
            Refused { hash: Some(hash), code: RefuseCode::Deleted, reason: "gone".into() };
        let ack = Ack { refused: vec![refused], ..Ack::default() };
        let (sender, target) = ("relay".parse().unwrap(), "x".parse().unwrap());
        let ack = Message::Ack { document: document(), sender, target, ack };
        world.handle(Event::Received(relay, ack));
    };
    refuse(&mut world, head);
    assert_eq!(world.refusals, [(head, RefuseCode::Deleted)]);
    assert!(world.taken(relay).is_empty(), "it sends nothing that is not wanted");

    let before = world.rows().len();
    world.edit_here(|doc| doc.put(ROOT, "key", 2).unwrap());
    world.finish_all();
    world.pass_time(1_000);
    let next = ChangeHash(world.ours.get_heads()[0].0);
    let said = world.taken(relay);
    let limits = concord_protocol::Limits::default();
    let has_changes = |message: &Message| match message {
        Message::Sync { data, .. } => {
            !SyncMessage::decode(data, &limits).unwrap().changes.is_empty()
        }
        _ => false,
    };
    assert!(!said.iter().any(has_changes), "{said:?}");
    assert_eq!(acks(said).last().unwrap().durable, [next], "but it says what it has");
    assert_eq!(world.rows().len(), before + 1, "and keeps it");
    refuse(&mut world, next);
    assert_eq!(world.refusals.len(), 2);
    assert!(world.taken(relay).is_empty());

    // A program that opens it later is told, too.
    world.refusals.clear();
    world.handle(Event::Shut(document()));
    world.handle(Event::Open(document()));
    assert_eq!(world.refusals, [(next, RefuseCode::Deleted)]);
}

#[test]
fn a_store_forgets_a_document_without_a_record_when_its_program_says_so() {
    let (mut world, head, relay) = program();
    world.purge(&[ChangeHash([3; 32])], Leaving::Nothing);
    assert!(matches!(world.purges.pop(), Some(Err(LocalError::NotPurged(_)))));
    world.purge(&[head], Leaving::Nothing);
    world.finish_all();
    assert_eq!((world.purges.pop(), world.rows()), (Some(Ok(())), vec![]));
    world.handle(Event::Shut(document()));
    world.taken(relay);

    // What the relay says of it from now on is not wanted, unless somebody asks again.
    let change = Bytes::copy_from_slice(world.ours.get_last_local_change().unwrap().raw_bytes());
    let news = sync_message(vec![head], vec![change]);
    world.say(relay, &document(), &news);
    world.finish_all();
    assert!(world.rows().is_empty() && world.taken(relay).is_empty());
    world.handle(Event::Open(document()));
    let asked = world.taken(relay);
    assert!(matches!(asked[..], [Message::Request { .. }]), "{asked:?}");
    world.say(relay, &document(), &news);
    world.finish_all();
    assert_eq!(world.rows().len(), 1, "it is there again");
}
