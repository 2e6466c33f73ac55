//! What the replica promises, one story a test.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "test code: small numbers, and a panic is the report"
)]

use automerge::{ActorId, AutoCommit, ROOT, transaction::Transactable as _};
use bytes::Bytes;
use concord::replica::{ConnectionId, Counted, Event};
use concord_protocol::{
    Ack, ChangeHash, DocumentId, Feature, Features, Message, PeerId, PeerMetadata, RefuseCode,
    StorageId,
    sync::{Bloom, SyncMessage, SyncVersion},
};
use sha2::{Digest as _, Sha256};

use crate::replica_common::{Rng, World, WorldOptions, sync_message, writer::Writer};

fn world() -> World {
    World::new(WorldOptions { compact_changes: 10_000, ..WorldOptions::default() })
}

/// The sync messages among what was sent.
fn syncs(messages: Vec<Message>) -> Vec<SyncMessage> {
    let limits = concord_protocol::Limits::default();
    messages
        .into_iter()
        .filter_map(|message| match message {
            Message::Sync { data, .. } => Some(SyncMessage::decode(&data, &limits).unwrap()),
            _ => None,
        })
        .collect()
}

fn errors(messages: &[Message]) -> Vec<String> {
    let text = |message: &Message| match message {
        Message::Error { message, .. } => Some(message.clone()),
        _ => None,
    };
    messages.iter().filter_map(text).collect()
}

fn join(world: &mut World, number: u64) -> ConnectionId {
    world.bare(number, PeerMetadata::default())
}

fn document() -> DocumentId {
    DocumentId::from_bytes(&[7; 16])
}

#[test]
fn a_change_is_passed_on_at_once_and_acknowledged_when_it_is_on_disk() {
    let mut world = world();
    let (author, reader) = (join(&mut world, 1), join(&mut world, 2));
    let mut writer = Writer::new(1);
    let (first, bytes) = writer.put(1);
    world.say(author, &document(), &sync_message(vec![first], vec![bytes]));
    world.finish_all();
    world.say(reader, &document(), &sync_message(vec![first], vec![]));
    world.finish_all();
    world.taken(author);
    world.taken(reader);

    let (second, bytes) = writer.put(2);
    world.say(author, &document(), &sync_message(vec![second], vec![bytes.clone()]));
    let passed_on = syncs(world.taken(reader));
    assert_eq!(passed_on.len(), 1);
    assert_eq!(passed_on[0].changes, vec![bytes], "before the flush");
    assert_eq!(passed_on[0].heads, vec![first], "but named are only heads on disk");
    assert!(world.taken(author).is_empty(), "nothing to acknowledge yet");

    world.finish_writes();
    let acknowledged = syncs(world.taken(author));
    assert_eq!(acknowledged.len(), 1);
    assert_eq!(acknowledged[0].heads, vec![second]);
    world.pass_time(200);
    let confirmed = syncs(world.taken(reader));
    assert_eq!((confirmed.len(), &confirmed[0].heads), (1, &vec![second]));
    world.pass_time(30_000);
    assert!(world.sent.is_empty(), "then it is quiet");
}

#[test]
fn a_peer_that_builds_on_what_is_not_here_is_asked_to_begin_again_also_where_acks_are_spoken() {
    let mut world = world();
    let reader = world.bare_concord(1);
    let (ours, bytes) = Writer::new(1).put(1);
    let (theirs, _) = Writer::new(2).put(2);
    world.say(reader, &document(), &sync_message(vec![ours], vec![bytes]));
    world.finish_all();
    let news = world.taken(reader);
    assert!(matches!(news.last(), Some(Message::Ack { .. })), "{news:?}");

    // As after a false yes of our filter: it takes us to have what we never had.
    let mut message = sync_message(vec![ours], vec![]);
    message.have[0].last_sync = vec![theirs];
    world.say(reader, &document(), &message);
    let [asked] = &syncs(world.taken(reader))[..] else { panic!("an ack asks for nothing") };
    assert!(asked.have[0].last_sync.is_empty() && asked.have[0].bloom.is_empty());
    world.say(reader, &document(), &message);
    assert!(syncs(world.taken(reader)).is_empty(), "once is enough");
}

#[test]
fn a_document_that_is_being_opened_is_not_asked_for_again() {
    let mut world = world();
    let uploader = join(&mut world, 1);
    let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    doc.put(ROOT, "key", 1).unwrap();
    let head = ChangeHash(doc.get_heads()[0].0);
    let mut message = sync_message(vec![head], vec![doc.save().into()]);
    // As one speaks who sends all there is: what both sides have is what is in here.
    message.have[0].last_sync = vec![head];
    world.say(uploader, &document(), &message);
    assert_eq!(syncs(world.taken(uploader)), [], "nothing to say before it is open");
    world.finish_all();
    let said = syncs(world.taken(uploader));
    assert_eq!(said.last().unwrap().heads, vec![head]);
    assert!(said.iter().all(|message| message.have[0].last_sync == [head]), "{said:?}");
}

#[test]
fn who_asks_for_nothing_hears_at_once_and_gets_it_when_it_comes() {
    let mut world = world();
    let asker = join(&mut world, 1);
    world.ask(asker, &document());
    let answer = world.taken(asker);
    assert!(answer.iter().any(|m| matches!(m, Message::DocUnavailable { .. })), "{answer:?}");
    world.ask(asker, &document());
    let again = world.taken(asker);
    assert!(again.iter().any(|m| matches!(m, Message::DocUnavailable { .. })), "{again:?}");

    let author = join(&mut world, 2);
    let (hash, bytes) = Writer::new(1).put(1);
    world.say(author, &document(), &sync_message(vec![hash], vec![bytes.clone()]));
    let arrived = syncs(world.taken(asker));
    assert_eq!(arrived[0].changes, vec![bytes]);
}

#[test]
fn who_asks_while_somebody_is_sending_waits_for_it() {
    let mut world = world();
    let (author, asker) = (join(&mut world, 1), join(&mut world, 2));
    let (hash, bytes) = Writer::new(1).put(1);
    world.say(author, &document(), &sync_message(vec![hash], vec![]));
    let asked = syncs(world.taken(author));
    assert_eq!(asked[0].need, vec![hash]);
    world.ask(asker, &document());
    assert!(!world.taken(asker).iter().any(|m| matches!(m, Message::DocUnavailable { .. })));
    world.say(author, &document(), &sync_message(vec![hash], vec![bytes.clone()]));
    assert_eq!(syncs(world.taken(asker)).last().unwrap().changes, vec![bytes]);
}

#[test]
fn who_waits_for_somebody_who_goes_hears_that_there_is_nothing() {
    for leaves in [true, false] {
        let mut world = world();
        let (author, asker) = (join(&mut world, 1), join(&mut world, 2));
        let (hash, _) = Writer::new(1).put(1);
        world.say(author, &document(), &sync_message(vec![hash], vec![]));
        world.ask(asker, &document());
        if leaves {
            world.handle(Event::Disconnected(author));
        } else {
            world.pass_time(6_000);
        }
        let answer = world.taken(asker);
        assert!(answer.iter().any(|m| matches!(m, Message::DocUnavailable { .. })), "{answer:?}");
    }
}

#[test]
fn ephemeral_messages_reach_the_others_once() {
    let mut world = world();
    let connections = [1, 2, 3].map(|n| join(&mut world, n));
    let say = |world: &mut World, from: ConnectionId, count| {
        world.handle(Event::Received(
            from,
            Message::Ephemeral {
                document: document(),
                sender: "bare-1".parse().unwrap(),
                target: "relay".parse().unwrap(),
                count,
                session: "s".parse().unwrap(),
                data: Bytes::from_static(&[0xa0]),
            },
        ));
    };
    let ephemerals = |messages: Vec<Message>| {
        messages.into_iter().filter(|m| matches!(m, Message::Ephemeral { .. })).count()
    };
    world.ask(connections[1], &document());
    say(&mut world, connections[0], 1);
    say(&mut world, connections[0], 1);
    say(&mut world, connections[0], 3);
    say(&mut world, connections[0], 2);
    assert_eq!(ephemerals(world.taken(connections[1])), 2, "1 and 3");
    assert_eq!(ephemerals(world.taken(connections[0])), 0, "not to the sender");
    assert_eq!(ephemerals(world.taken(connections[2])), 0, "not to who does not hold it");
    assert!(world.counts.contains(&Counted::EphemeralDropped(1)));
}

#[test]
fn who_unsubscribes_hears_nothing_more_until_they_ask_again() {
    let mut world = world();
    let (author, reader) = (join(&mut world, 1), join(&mut world, 2));
    let mut writer = Writer::new(1);
    let [(first, one), (second, two)] = [1, 2].map(|value| writer.put(value));
    world.say(author, &document(), &sync_message(vec![first], vec![one]));
    world.ask(reader, &document());
    world.finish_all();
    world.say(reader, &document(), &sync_message(vec![first], vec![]));
    world.taken(reader);

    let (sender, target) = ("bare-2".parse().unwrap(), "relay".parse().unwrap());
    let message = Message::Unsubscribe { document: document(), sender, target };
    // Twice is once.
    world.handle(Event::Received(reader, message.clone()));
    world.handle(Event::Received(reader, message));
    world.say(author, &document(), &sync_message(vec![second], vec![two.clone()]));
    world.finish_all();
    world.pass_time(200);
    assert!(syncs(world.taken(reader)).is_empty());

    world.say(reader, &document(), &sync_message(vec![first], vec![]));
    world.finish_all();
    world.pass_time(200);
    let told = syncs(world.taken(reader));
    assert!(told.iter().any(|message| message.changes.contains(&two)), "{told:?}");
}

#[test]
fn a_relay_is_told_who_unsubscribes_if_it_understands() {
    let mut world = world();
    let server = world.bare_server(1, true);
    let knows = world.bare_server_with(2, Features::NONE.with(Feature::Unsubscribe));
    world.handle(Event::Open(document()));
    world.finish_all();
    // Not while there is something that it named and has not sent.
    let (first, bytes) = Writer::new(2).put(1);
    world.say(knows, &document(), &sync_message(vec![first], vec![]));
    world.handle(Event::Unsubscribe(knows, document()));
    assert!(world.relay.follows(knows, &document()));
    world.say(knows, &document(), &sync_message(vec![first], vec![bytes]));
    world.finish_all();
    for connection in [server, knows] {
        world.taken(connection);
        world.handle(Event::Unsubscribe(connection, document()));
    }
    let told = world.taken(knows);
    assert!(matches!(&told[..], [Message::Unsubscribe { .. }]), "{told:?}");
    assert!(world.taken(server).is_empty());
    assert!(!world.relay.follows(knows, &document()));
    assert!(world.relay.follows(server, &document()));
    // What it says meanwhile is not taken in, for it says it again when it is asked again.
    let (hash, bytes) = Writer::new(1).put(1);
    world.say(knows, &document(), &sync_message(vec![hash], vec![bytes]));
    world.finish_all();
    assert_eq!(world.relay.durable_heads(&document()), Some(vec![first]));
}

#[test]
fn a_second_change_with_the_same_number_is_refused_and_nobody_else_notices() {
    let mut world = world();
    let (author, liar, reader) = (join(&mut world, 1), join(&mut world, 2), join(&mut world, 3));
    let (hash, bytes) = Writer::new(1).put(1);
    let (forged, forged_bytes) = Writer::new(1).put(2);
    world.say(author, &document(), &sync_message(vec![hash], vec![bytes]));
    world.say(reader, &document(), &sync_message(vec![hash], vec![]));
    world.finish_all();
    world.pass_time(200);
    world.taken(reader);
    world.say(liar, &document(), &sync_message(vec![forged], vec![forged_bytes]));
    world.finish_all();
    let told = world.taken(liar);
    assert!(errors(&told)[0].contains("equivocation"), "{told:?}");
    assert!(syncs(world.taken(reader)).is_empty());
    assert!(world.counts.contains(&Counted::ChangeRefused(RefuseCode::Equivocation)));
    // It says so again and again; it is not asked for it again.
    world.taken(liar);
    world.say(liar, &document(), &sync_message(vec![forged], vec![]));
    assert!(syncs(world.taken(liar)).iter().all(|message| message.need.is_empty()));
    assert!(world.closed.is_empty());
}

#[test]
fn what_builds_on_a_refused_change_is_refused_though_the_document_left_memory() {
    let mut world = world();
    let (author, liar) = (join(&mut world, 1), join(&mut world, 2));
    let (hash, bytes) = Writer::new(1).put(1);
    world.say(author, &document(), &sync_message(vec![hash], vec![bytes]));
    let mut forger = Writer::new(1);
    let (forged, bytes) = forger.put(2);
    world.say(liar, &document(), &sync_message(vec![forged], vec![bytes]));
    world.finish_all();
    for _ in 0..3 {
        world.pass_time(61_000);
        world.finish_all();
    }
    assert_eq!(world.relay.stats().documents, 0);
    world.taken(liar);
    // It is not asked, one by one, for all that lies between.
    let changes: Vec<_> = (3..2_000).map(|value| forger.put(value)).collect();
    let last = changes.last().unwrap().0;
    let bytes = changes.into_iter().map(|(_, bytes)| bytes).collect();
    world.say(liar, &document(), &sync_message(vec![last], bytes));
    let (next, bytes) = forger.put(2_000);
    world.say(liar, &document(), &sync_message(vec![next], vec![bytes]));
    world.finish_all();
    let told = world.taken(liar);
    let errors = errors(&told);
    assert!(errors.len() == 1_998 && errors[1_997].contains("which was refused"), "{errors:?}");
    assert!(syncs(told).iter().all(|message| message.need.is_empty()));
    assert_eq!(world.relay.stats().orphans, 0);
}

/// A document chunk that holds no document, which only a worker finds out.
fn no_document() -> Bytes {
    let framed = [0, 4, 1, 2, 3, 4];
    [&[0x85, 0x6f, 0x4a, 0x83], &Sha256::digest(framed)[..4], &framed].concat().into()
}

#[test]
fn what_is_refused_of_a_stranger_says_nothing_of_what_others_bring() {
    let mut no_checksum = no_document().to_vec();
    no_checksum[4] ^= 1;
    for chunk in [no_document(), no_checksum.into()] {
        let mut world = world();
        let (stranger, author) = (join(&mut world, 1), join(&mut world, 2));
        let mut writer = Writer::new(1);
        let [first, second, third] = [1, 2, 3].map(|value| writer.put(value));
        world.nonsense.push(chunk.clone());
        // It names what somebody else is about to bring.
        world.say(stranger, &document(), &sync_message(vec![second.0], vec![chunk]));
        world.finish_all();
        assert_eq!(errors(&world.taken(stranger)).len(), 1);
        // It is not asked for what it could not bring, and what it builds on that is refused.
        world.say(stranger, &document(), &sync_message(vec![second.0], vec![]));
        world.say(stranger, &document(), &sync_message(vec![third.0], vec![third.1.clone()]));
        let told = world.taken(stranger);
        assert!(errors(&told)[0].contains("which was refused"), "{told:?}");
        assert!(syncs(told).iter().all(|message| message.need.is_empty()));

        world.say(author, &document(), &sync_message(vec![second.0], vec![]));
        assert_eq!(syncs(world.taken(author)).last().unwrap().need, vec![second.0]);
        world.say(author, &document(), &sync_message(vec![third.0], vec![third.1.clone()]));
        let told = world.taken(author);
        assert!(errors(&told).is_empty(), "{told:?}");
        assert_eq!(world.relay.stats().orphans, 1);
        let rest = vec![first.1.clone(), second.1.clone()];
        world.say(author, &document(), &sync_message(vec![third.0], rest));
        world.finish_all();
        assert_eq!(syncs(world.taken(author)).last().unwrap().heads, vec![third.0]);
    }
}

#[test]
fn what_the_graph_can_say_no_to_takes_no_worker_where_all_is_checked_first() {
    let options = WorldOptions { compact_changes: 10_000, strict: true, ..WorldOptions::default() };
    let mut world = World::new(options);
    let (author, liar) = (join(&mut world, 1), join(&mut world, 2));
    let mut writer = Writer::new(1);
    let (first, bytes) = writer.put(0);
    world.say(author, &document(), &sync_message(vec![first], vec![bytes]));
    let (second, next) = writer.put(1);
    // One message each, all while the first job is at work.
    for number in 1..100 {
        let (forged, bytes) = Writer::new(1).put(number);
        world.say(liar, &document(), &sync_message(vec![forged], vec![bytes]));
    }
    // All in one message: each is fine without the others.
    let (heads, changes) = (0..100).map(|number| Writer::new(2).put(number)).unzip();
    world.say(liar, &document(), &sync_message(heads, changes));
    world.say(author, &document(), &sync_message(vec![second], vec![next]));
    world.finish_all();
    assert_eq!(syncs(world.taken(author)).last().unwrap().heads.len(), 2);
    let no = Counted::ChangeRefused(RefuseCode::Equivocation);
    assert_eq!(world.counts.iter().filter(|count| **count == no).count(), 99 + 99);
    assert_eq!(world.jobs_done, 3, "the author's two, and one of the liar's");
}

#[test]
fn a_batch_is_checked_at_once_also_where_its_changes_build_on_each_other() {
    let options = WorldOptions { compact_changes: 10_000, strict: true, ..WorldOptions::default() };
    let mut world = World::new(options);
    let author = join(&mut world, 1);
    let mut writer = Writer::new(1);
    let all: Vec<(ChangeHash, Bytes)> = (0..100).map(|number| writer.put(number)).collect();
    let last = all[99].0;
    // The first comes last: until then nothing can be checked, and all that waits is then.
    for (hash, bytes) in all[1..].iter().rev() {
        world.say(author, &document(), &sync_message(vec![*hash], vec![bytes.clone()]));
    }
    assert_eq!((world.relay.stats().orphans, world.jobs_done), (99, 0));
    world.say(author, &document(), &sync_message(vec![last], vec![all[0].1.clone()]));
    world.finish_all();
    assert_eq!(world.jobs_done, 2);
    assert_eq!(syncs(world.taken(author)).last().unwrap().heads, vec![last]);
    assert!(errors(&world.taken(author)).is_empty());
}

#[test]
fn an_upload_is_taken_also_where_a_change_behind_it_has_to_wait() {
    let mut world = world();
    let author = join(&mut world, 1);
    let mut writer = Writer::new(1);
    writer.put(1);
    let chunk: Bytes = writer.0.save().into();
    let (_, hidden) = writer.put(2);
    let (last, bytes) = writer.put(3);
    // As after a false yes of our filter: the change between is taken to be here.
    world.say(author, &document(), &sync_message(vec![last], vec![chunk, bytes]));
    world.finish_all();
    assert!(errors(&world.taken(author)).is_empty());
    assert_eq!(world.relay.stats().orphans, 1);
    world.say(author, &document(), &sync_message(vec![last], vec![hidden]));
    world.finish_all();
    assert_eq!(syncs(world.taken(author)).last().unwrap().heads, vec![last]);
    assert!(!world.counts.iter().any(|count| matches!(count, Counted::ChangeRefused(_))));
}

#[test]
fn orphans_wait_within_bounds_and_are_taken_in_when_their_time_comes() {
    let mut world = world();
    let author = join(&mut world, 1);
    let mut writer = Writer::new(1);
    let changes: Vec<(ChangeHash, Bytes)> = (0..2_000).map(|n| writer.put(n)).collect();
    let last = changes.last().unwrap().0;
    for (_, bytes) in changes[1..].iter().rev() {
        world.say(author, &document(), &sync_message(vec![last], vec![bytes.clone()]));
    }
    assert_eq!(world.relay.stats().orphans, 1_000);
    // They were honest, and are asked for when they can be taken in.
    assert!(errors(&world.taken(author)).is_empty());
    let all: Vec<Bytes> = changes.iter().map(|(_, bytes)| bytes.clone()).collect();
    world.say(author, &document(), &sync_message(vec![last], all));
    world.finish_all();
    assert_eq!(world.relay.stats().orphans, 0);
    assert_eq!(syncs(world.taken(author)).last().unwrap().heads, vec![last]);
}

#[test]
fn who_brought_what_had_to_give_way_is_told_to_send_it_again_once() {
    let mut world = world();
    let author = join(&mut world, 1);
    let mut writer = Writer::new(1);
    let changes: Vec<(ChangeHash, Bytes)> = (0..4_000).map(|n| writer.put(n)).collect();
    let last = changes.last().unwrap().0;
    let bytes = |from: usize, to: usize| {
        changes[from..to].iter().map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>()
    };
    // In several messages, one after another, without waiting for an answer.
    for from in [1, 1_001, 2_001, 3_001] {
        let to = (from + 1_000).min(4_000);
        world.say(author, &document(), &sync_message(vec![last], bytes(from, to)));
    }
    let told = syncs(world.taken(author));
    let resets = told.iter().filter(|message| message.flags.is_some_and(|flags| flags.reset));
    assert_eq!(resets.count(), 1, "{told:?}");
    assert!(told.iter().all(|message| message.have.iter().all(|have| have.bloom.is_empty())));
    world.say(author, &document(), &sync_message(vec![last], bytes(0, 4_000)));
    world.finish_all();
    assert_eq!(syncs(world.taken(author)).last().unwrap().heads, vec![last]);
}

#[test]
fn many_changes_made_offline_come_in_few_messages_also_where_a_filter_hides_the_first() {
    let mut world = world();
    let mut first = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    first.put(ROOT, "key", 0).unwrap();
    first.commit();
    let base = first.clone();
    for number in 0..20 {
        first.put(ROOT, "first", number).unwrap();
        first.commit();
    }
    let beyond = first.get_changes(&base.clone().get_heads());
    let names: Vec<ChangeHash> = beyond.iter().map(|change| ChangeHash(change.hash().0)).collect();
    let filter = Bloom::from_hashes(names.iter());
    // A false yes of our filter, which names those that the other does not have.
    let mut offline = (0_u16..10_000)
        .find_map(|number| {
            let actor = [&[2_u8; 14][..], &number.to_be_bytes()].concat();
            let mut doc = base.clone().with_actor(ActorId::from(actor));
            doc.put(ROOT, "offline", -1).unwrap();
            let hash = doc.commit().unwrap();
            filter.contains(&ChangeHash(hash.0)).then_some(doc)
        })
        .unwrap();
    // More behind it than may wait.
    for number in 0..3_000 {
        offline.put(ROOT, "offline", number).unwrap();
        offline.commit();
    }
    world.add_client(first, false);
    // One that reads version 1 only sends change by change, not a document.
    world.add_client(offline, true);
    world.connect(0);
    while world.deliver_one(&mut Rng::new(1)) {}
    world.finish_all();
    world.connect(1);
    world.settle().unwrap();
    assert!(world.counts.contains(&Counted::Orphaned), "nothing was hidden");
    assert!(world.messages < 50, "{} messages", world.messages);
    assert!(world.closed.is_empty());
}

#[test]
fn a_document_has_no_more_heads_than_a_change_may_depend_on() {
    let mut world = world();
    let author = join(&mut world, 1);
    for number in 0_u16..1_200 {
        let actor = ActorId::from([&[9_u8; 14][..], &number.to_be_bytes()].concat());
        let mut doc = AutoCommit::new().with_actor(actor);
        doc.put(ROOT, "key", i64::from(number)).unwrap();
        doc.commit();
        let change = doc.get_last_local_change().unwrap();
        let (hash, bytes) =
            (ChangeHash(change.hash().0), Bytes::copy_from_slice(change.raw_bytes()));
        world.say(author, &document(), &sync_message(vec![hash], vec![bytes]));
    }
    let refused = world.counts.iter().filter(|c| **c == Counted::ChangeRefused(RefuseCode::Quota));
    assert_eq!(refused.count(), 200);
    assert!(world.closed.is_empty());
}

#[test]
fn a_change_that_breaks_the_document_is_withheld_and_its_writer_told() {
    for compact_changes in [10_000, 2] {
        let mut world = World::new(WorldOptions { compact_changes, ..WorldOptions::default() });
        let (author, other, late) = (join(&mut world, 1), join(&mut world, 2), join(&mut world, 3));
        let (good, good_bytes) = Writer::new(1).put(1);
        let (bad, bad_bytes) = Writer::new(2).put(2);
        world.breaks.insert(bad);
        world.say(other, &document(), &sync_message(vec![good], vec![good_bytes]));
        world.say(author, &document(), &sync_message(vec![bad], vec![bad_bytes]));
        world.finish_all();
        world.pass_time(5_000);
        world.finish_all();
        world.pass_time(5_000);
        world.finish_all();
        assert!(world.counts.contains(&Counted::Quarantined));
        let told = world.taken(author);
        assert!(errors(&told).iter().any(|e| e.contains("unmaterialisable")), "{told:?}");
        assert!(errors(&world.taken(other)).is_empty());

        // It stays so over a restart, and who comes late is not given it.
        for restart in [false, true] {
            if restart {
                world.finish_all();
                world.crash();
            }
            let late = if restart { join(&mut world, 4) } else { late };
            world.ask(late, &document());
            world.finish_all();
            let got = syncs(world.taken(late));
            assert_eq!(got[0].heads, vec![good]);
            assert!(world.closed.is_empty());
        }
    }
}

#[test]
fn what_comes_after_a_check_that_hung_is_checked_within_minutes_all_the_same() {
    let mut world = world();
    let author = join(&mut world, 1);
    let (good, good_bytes) = Writer::new(1).put(1);
    let (bad, bad_bytes) = Writer::new(2).put(2);
    world.breaks.insert(bad);
    world.say(author, &document(), &sync_message(vec![good], vec![good_bytes]));
    world.finish_writes();
    world.pass_time(1_000);
    // The worker waits for a disk that hangs.
    world.pass_time(120_000);
    world.finish_all();
    assert!(world.relay.stats().unchecked == 0, "the check is done");
    world.say(author, &document(), &sync_message(vec![bad], vec![bad_bytes]));
    world.finish_all();
    assert_eq!(world.relay.stats().unchecked, 1);
    for _ in 0..5 {
        world.pass_time(60_000);
        world.finish_all();
    }
    assert!(world.counts.contains(&Counted::Quarantined));
    assert_eq!(world.relay.stats().unchecked, 0);
}

#[test]
fn an_idle_document_leaves_memory_and_comes_back() {
    let mut world = world();
    let (author, reader) = (join(&mut world, 1), join(&mut world, 2));
    let mut writer = Writer::new(1);
    let (first, bytes) = writer.put(1);
    world.say(author, &document(), &sync_message(vec![first], vec![bytes]));
    world.say(reader, &document(), &sync_message(vec![first], vec![]));
    world.finish_all();
    for _ in 0..3 {
        world.pass_time(61_000);
        world.finish_all();
    }
    let stats = world.relay.stats();
    assert_eq!((stats.documents, stats.chunk_bytes), (0, 0));
    assert_eq!(stats.connections, 2);
    world.taken(reader);
    let (second, bytes) = writer.put(2);
    world.say(author, &document(), &sync_message(vec![second], vec![bytes.clone()]));
    assert_eq!(syncs(world.taken(reader))[0].changes, vec![bytes], "still subscribed");
}

#[test]
fn an_ack_does_not_overtake_what_was_said_before_it() {
    let mut world = world();
    let author = join(&mut world, 1);
    let mut writer = Writer::new(1);
    let (first, first_bytes) = writer.put(1);
    let (second, second_bytes) = writer.put(2);
    world.say(author, &document(), &sync_message(vec![second], vec![first_bytes, second_bytes]));
    world.finish_all();
    world.handle(Event::Disconnected(author));
    world.pass_time(70_000);
    world.finish_all();
    world.pass_time(70_000);
    assert_eq!(world.relay.stats().documents, 0, "it has to be read first");

    let reader = world.bare_concord(2);
    let mut said = sync_message(vec![first], vec![]);
    said.have[0].last_sync = vec![first];
    let (sender, target): (PeerId, PeerId) = ("x".parse().unwrap(), "relay".parse().unwrap());
    let data = said.encode();
    let (document, ack) = (document(), Ack { durable: vec![second], ..Ack::default() });
    let said = Message::Sync {
        document: document.clone(),
        sender: sender.clone(),
        target: target.clone(),
        data,
    };
    let acked = Message::Ack { document, sender, target, ack };
    // Both before the store has answered.
    world.relay.handle(world.now, Event::Received(reader, said));
    world.handle(Event::Received(reader, acked));
    world.finish_all();
    let told = syncs(world.taken(reader));
    assert!(told.iter().all(|message| message.changes.is_empty()), "it has all: {told:?}");
}

#[test]
fn a_failed_write_acknowledges_nothing_and_closes() {
    let mut world = world();
    world.disk_fails = true;
    let author = join(&mut world, 1);
    let (hash, bytes) = Writer::new(1).put(1);
    world.say(author, &document(), &sync_message(vec![hash], vec![bytes]));
    world.finish_all();
    assert_eq!(world.closed, vec![(author, 4507)]);
    assert!(syncs(world.taken(author)).iter().all(|message| message.heads.is_empty()));
}

#[test]
fn a_reader_that_takes_nothing_is_bounded_then_closed_and_others_go_on() {
    let mut world = world();
    let (author, slow) = (join(&mut world, 1), join(&mut world, 2));
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "key", "start").unwrap();
    doc.commit();
    let send = |world: &mut World, doc: &mut AutoCommit| {
        let change = doc.get_last_local_change().unwrap();
        let (hash, bytes) =
            (ChangeHash(change.hash().0), Bytes::copy_from_slice(change.raw_bytes()));
        world.say(author, &document(), &sync_message(vec![hash], vec![bytes]));
        world.finish_all();
        hash
    };
    let first = send(&mut world, &mut doc);
    world.say(slow, &document(), &sync_message(vec![first], vec![]));
    world.taken(slow);
    world.draining = false;
    for number in 0..60 {
        // Not compressible, so that it is as large on the wire.
        let noise: Vec<u8> = (0..100_000_u64)
            .map(|n| (n.wrapping_mul(n + number).wrapping_mul(0x9E37_79B9) >> 13) as u8)
            .collect();
        doc.put(ROOT, "key", noise).unwrap();
        doc.commit();
        send(&mut world, &mut doc);
        let author_got = world.taken(author).iter().map(|_| 64).sum();
        world.handle(Event::Drained(author, author_got));
    }
    let queued = world.relay.stats().queued_bytes;
    assert!(queued < 8 * 1024 * 1024, "{queued} bytes queued");
    assert!(world.closed.is_empty(), "it may still catch up");
    world.pass_time(29_900);
    assert!(world.closed.is_empty(), "it may still catch up");
    world.pass_time(200);
    assert!(world.closed.contains(&(slow, 1013)), "by a timer of its own: {:?}", world.closed);
}

#[test]
fn presence_goes_on_where_documents_have_no_room_and_has_bounds_of_its_own() {
    let mut world = world();
    let (author, slow) = (join(&mut world, 1), join(&mut world, 2));
    world.ask(slow, &document());
    world.draining = false;
    let (mut doc, mut told) = (AutoCommit::new(), 0);
    for number in 0..200_u64 {
        let noise: Vec<u8> = (0..20_000_u64)
            .map(|n| (n.wrapping_mul(n + number).wrapping_mul(0x9E37_79B9) >> 13) as u8)
            .collect();
        doc.put(ROOT, "key", noise).unwrap();
        doc.commit();
        let change = doc.get_last_local_change().unwrap();
        let hash = ChangeHash(change.hash().0);
        let bytes = Bytes::copy_from_slice(change.raw_bytes());
        world.say(author, &document(), &sync_message(vec![hash], vec![bytes]));
        world.finish_all();
        let got = world.taken(author).iter().map(|_| 64).sum();
        world.handle(Event::Drained(author, got));
        told += syncs(world.taken(slow)).iter().map(|sync| sync.changes.len()).sum::<usize>();
    }
    assert!(told < 200, "the rest waits");
    let mut shown = 0;
    for count in 0..1_000 {
        world.handle(Event::Received(
            author,
            Message::Ephemeral {
                document: document(),
                sender: "bare-1".parse().unwrap(),
                target: "relay".parse().unwrap(),
                count,
                session: "s".parse().unwrap(),
                data: Bytes::from(vec![0; 10_000]),
            },
        ));
        let taken = world.taken(slow);
        shown += taken.iter().filter(|m| matches!(m, Message::Ephemeral { .. })).count();
    }
    assert!((20..100).contains(&shown), "{shown} of 1000");
    assert!(world.closed.is_empty(), "{:?}", world.closed);
}

#[test]
fn a_document_larger_than_the_queue_does_not_cost_a_slow_reader_its_connection() {
    let mut world = world();
    let (author, slow) = (join(&mut world, 1), join(&mut world, 2));
    let mut doc = AutoCommit::new();
    let mut changes = Vec::new();
    for number in 0..12 {
        let noise: Vec<u8> = (0..900_000_u64)
            .map(|n| (n.wrapping_mul(n + number).wrapping_mul(0x9E37_79B9) >> 13) as u8)
            .collect();
        doc.put(ROOT, "key", noise).unwrap();
        doc.commit();
        let change = doc.get_last_local_change().unwrap();
        changes.push(Bytes::copy_from_slice(change.raw_bytes()));
    }
    let last = ChangeHash(doc.get_heads()[0].0);
    for change in changes {
        world.say(author, &document(), &sync_message(vec![last], vec![change]));
        world.finish_all();
    }
    world.draining = false;
    world.say(slow, &document(), &sync_message(vec![], vec![]));
    world.finish_all();
    let queued = world.relay.stats().queued_bytes;
    assert!(queued > 8 * 1024 * 1024, "{queued} bytes queued");

    // While that is on its way it goes on asking for other documents.
    for number in 0..100 {
        world.ask(slow, &DocumentId::from_bytes(&[number; 16]));
        world.pass_time(250);
        world.handle(Event::Drained(slow, 16 * 1024));
    }
    assert!(world.closed.is_empty(), "{:?}", world.closed);
}

#[test]
fn heads_of_followed_stores_are_told() {
    let mut world = world();
    let storage: StorageId = "their-storage".parse().unwrap();
    let metadata = PeerMetadata {
        storage_id: Some(storage.clone()),
        is_ephemeral: Some(false),
        ..PeerMetadata::default()
    };
    let author = world.bare(1, metadata);
    let follower = join(&mut world, 2);
    let (hash, bytes) = Writer::new(1).put(1);
    world.ask(follower, &document());
    world.handle(Event::Received(
        follower,
        Message::RemoteSubscriptionChange {
            sender: "bare-2".parse().unwrap(),
            target: "relay".parse().unwrap(),
            add: vec![storage.clone(), "relay-storage".parse().unwrap()],
            remove: vec![],
        },
    ));
    world.say(author, &document(), &sync_message(vec![hash], vec![bytes]));
    let told = |messages: Vec<Message>| -> Vec<(String, Vec<ChangeHash>)> {
        let heads = |message| match message {
            Message::RemoteHeadsChanged { heads, .. } => heads,
            _ => vec![],
        };
        let all = messages.into_iter().flat_map(heads);
        all.map(|remote| (remote.storage_id.to_string(), remote.heads)).collect()
    };
    assert_eq!(told(world.taken(follower)), vec![("their-storage".to_owned(), vec![hash])]);
    world.finish_writes();
    assert_eq!(
        told(world.taken(follower)),
        vec![("relay-storage".to_owned(), vec![hash])],
        "ours once it is on disk"
    );
}

#[test]
fn a_large_upload_becomes_a_snapshot_that_all_joiners_get_as_it_lies_on_disk() {
    let mut world = world();
    let author = join(&mut world, 1);
    let mut doc = AutoCommit::new();
    for number in 0..1_500_i64 {
        doc.put(ROOT, "key", number).unwrap();
        doc.commit();
    }
    let heads: Vec<ChangeHash> = doc.get_heads().iter().map(|hash| ChangeHash(hash.0)).collect();
    let mut upload = sync_message(heads.clone(), vec![Bytes::from(doc.save())]);
    upload.version = SyncVersion::V2;
    world.say(author, &document(), &upload);
    world.finish_all();
    assert_eq!(syncs(world.taken(author)).last().unwrap().heads, heads);
    let mut seen = Vec::new();
    for number in 2..5 {
        let joiner = join(&mut world, number);
        world.ask(joiner, &document());
        world.finish_all();
        let got = syncs(world.taken(joiner));
        assert_eq!((got[0].version, &got[0].heads), (SyncVersion::V2, &heads));
        seen.push(got[0].changes.clone());
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    let mut loaded = AutoCommit::load(&seen[0][0]).unwrap();
    assert_eq!(loaded.get_heads(), doc.get_heads());

    // Behind by little: the changes. Behind by most of it: the snapshot.
    for (behind, snapshot) in [(10_usize, false), (1_490, true)] {
        let reader = join(&mut world, 100 + behind as u64);
        let known = doc.get_changes(&[])[1_499 - behind].hash();
        world.say(reader, &document(), &sync_message(vec![ChangeHash(known.0)], vec![]));
        world.finish_all();
        let got = syncs(world.taken(reader));
        let run = got.iter().find_map(|message| message.changes.first()).unwrap();
        assert_eq!(run[8] == 0, snapshot, "chunk type 0 is a document");
    }
}

#[test]
fn a_small_upload_is_kept_whole_and_the_next_one_adds_what_is_new() {
    let mut world = world();
    let author = join(&mut world, 1);
    let mut doc = AutoCommit::new();
    let mut upload = |world: &mut World, edits: i64| {
        for number in 0..edits {
            doc.put(ROOT, "key", number).unwrap();
            doc.commit();
        }
        let heads: Vec<_> = doc.get_heads().iter().map(|hash| ChangeHash(hash.0)).collect();
        let mut upload = sync_message(heads.clone(), vec![Bytes::from(doc.save())]);
        upload.version = SyncVersion::V2;
        world.say(author, &document(), &upload);
        world.finish_all();
        assert_eq!(syncs(world.taken(author)).last().unwrap().heads, heads);
        heads
    };
    let heads = upload(&mut world, 11);
    assert_eq!(world.rows_read, 0, "who has its heads, or nothing, needs no page");
    let reader = join(&mut world, 2);
    world.ask(reader, &document());
    let got = syncs(world.taken(reader));
    assert_eq!((got[0].version, &got[0].heads, got[0].changes.len()), (SyncVersion::V2, &heads, 1));
    assert_eq!(got[0].changes[0][8], 0, "chunk type 0 is a document");
    world.say(reader, &document(), &sync_message(heads.clone(), vec![]));
    world.finish_all();
    world.taken(reader);

    let next = upload(&mut world, 1);
    let got = syncs(world.taken(reader));
    let chunks: Vec<_> = got.iter().flat_map(|message| &message.changes).collect();
    assert_eq!(chunks.len(), 1);
    assert_eq!(chunks[0][8], 1, "chunk type 1 is a change");
    let late = join(&mut world, 3);
    world.ask(late, &document());
    world.finish_all();
    assert_eq!(syncs(world.taken(late))[0].heads, next);
}

#[test]
fn word_of_writes_may_come_in_any_order() {
    let mut world = world();
    let author = join(&mut world, 1);
    let mut writer = Writer::new(1);
    for number in 0..3 {
        let (hash, bytes) = writer.put(number);
        world.say(author, &document(), &sync_message(vec![hash], vec![bytes]));
    }
    world.finish_writes_backwards();
    let last = ChangeHash(writer.0.get_heads()[0].0);
    for message in syncs(world.taken(author)) {
        assert!(message.heads.is_empty() || message.heads == vec![last], "{message:?}");
    }
    world.finish_all();
    world.pass_time(1_000);
    let late = join(&mut world, 2);
    world.ask(late, &document());
    assert_eq!(syncs(world.taken(late))[0].heads, vec![last]);
}

/// Found in a world whose disk had room for a small change, and not for the large one before it.
#[test]
fn what_builds_on_a_write_that_failed_is_not_promised() {
    let (mut world, _) = written(1);
    world.edit_here(|doc| doc.put(ROOT, "key", "large").unwrap());
    world.edit_here(|doc| doc.put(ROOT, "key", "small").unwrap());
    world.finish_writes_but_the_first();
    assert_eq!(world.failed_calls, 2, "both calls were told");
}

/// A world whose program has written this many changes, one on top of the other; their hashes.
fn written(count: usize) -> (World, Vec<ChangeHash>) {
    let options = WorldOptions { dials_forgetless: true, ..WorldOptions::default() };
    let mut world = World::new(WorldOptions { compact_changes: 10_000, ..options });
    let mut hashes = Vec::new();
    for value in 0..count {
        world.edit_here(|doc| {
            doc.put(ROOT, "key", value as i64).unwrap();
            hashes.push(ChangeHash(doc.commit().unwrap().0));
        });
    }
    world.finish_all();
    (world, hashes)
}

#[test]
fn a_server_that_says_nothing_is_told_less_which_it_answers() {
    let (mut world, hashes) = written(2);
    let server = world.bare_server(1, false);
    let first = syncs(world.taken(server)).remove(0);
    assert_eq!(first.heads, [hashes[1]]);
    world.pass_time(999);
    assert_eq!(world.taken(server), [], "it may be slow");
    world.pass_time(1);
    let asked = syncs(world.taken(server)).remove(0);
    assert_eq!((&asked.heads[..], &asked.need[..]), (&hashes[..1], &[][..]));
    assert!(asked.changes.is_empty());
    assert!(asked.have[0].bloom.contains(&hashes[1]), "what it has is not to be sent again");

    // It answers, is told all again, and all is said.
    world.say(server, &document(), &sync_message(vec![hashes[1]], vec![]));
    world.pass_time(100);
    assert_eq!(syncs(world.taken(server)).remove(0).heads, [hashes[1]]);
    world.pass_time(600_000);
    assert_eq!(world.taken(server), []);
}

#[test]
fn a_server_that_says_nothing_of_a_first_change_is_asked_for_it() {
    let (mut world, hashes) = written(1);
    let server = world.bare_server(1, false);
    world.taken(server);
    world.pass_time(1_000);
    let asked = syncs(world.taken(server)).remove(0);
    assert_eq!((&asked.heads, &asked.need), (&hashes, &hashes));
}

#[test]
fn a_server_that_never_answers_is_not_asked_for_ever() {
    let (mut world, _) = written(2);
    let server = world.bare_server(1, false);
    world.taken(server);
    world.pass_time(10_000);
    assert_eq!(world.taken(server).len(), 3, "after 1, 3 and 7 s");
    world.pass_time(600_000);
    assert_eq!(world.taken(server).len(), 3);
}

#[test]
fn nobody_is_asked_who_has_answered_or_will() {
    let (mut world, hashes) = written(2);
    let (relay, server) = (world.bare_server(1, true), world.bare_server(2, false));
    let client = join(&mut world, 3);
    world.say(client, &document(), &sync_message(vec![hashes[0]], vec![]));
    world.say(server, &document(), &sync_message(vec![hashes[1]], vec![]));
    for connection in [relay, server, client] {
        world.taken(connection);
    }
    world.pass_time(600_000);
    for connection in [relay, server, client] {
        assert_eq!(world.taken(connection), []);
    }
}

#[test]
fn what_was_asked_for_and_came_without_what_it_builds_on_is_asked_for_again() {
    let (mut world, hashes) = written(2);
    let server = world.bare_server(1, false);
    world.taken(server);
    let says = |heads, changes| {
        let mut message = sync_message(heads, changes);
        message.have[0].last_sync = vec![hashes[1]];
        message
    };
    let mut other = Writer::new(1);
    let (lost, _) = other.put(1);
    world.say(server, &document(), &says(vec![hashes[1], lost], vec![]));
    assert_eq!(syncs(world.taken(server)).remove(0).need, [lost]);
    // Its answer brings what is new there, and not what it believes to have sent.
    let (new, bytes) = other.put(2);
    world.say(server, &document(), &says(vec![hashes[1], new], vec![bytes]));
    assert_eq!(world.taken(server), []);
    world.pass_time(1_000);
    assert_eq!(syncs(world.taken(server)).remove(0).need, [lost]);
    // It still believes it, and is told to forget.
    world.say(server, &document(), &says(vec![hashes[1], new], vec![]));
    let flags = syncs(world.taken(server)).remove(0).flags.unwrap();
    assert!(flags.reset);
}
