//! What becomes of a document whose stored rows were damaged, or cannot be read for a while: it
//! comes back by itself, nobody is told what is not true, and nobody else notices.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "test code: small numbers, and a panic is the report"
)]

mod world;

use bytes::Bytes;
use concord::replica::{Counted, Event, Kind, LocalError, Published, Ticket, index};
use concord_protocol::{ChangeHash, DocumentId};

use self::world::{World, Writer, heads_of, said};

/// Milliseconds after which what failed is tried again, and a little.
const RETRY_MS: u64 = 5_100;

fn document() -> DocumentId {
    DocumentId::from_bytes(&[7; 16])
}

fn other() -> DocumentId {
    DocumentId::from_bytes(&[8; 16])
}

/// A document of so many changes, of which all but the last are in a snapshot, not in memory.
fn with_snapshot(changes: usize) -> (World, Writer, [u8; 32]) {
    let mut world = World::new(10_000);
    let mut writer = Writer::new(1, changes);
    let author = world.join(1);
    world.say(author, &document(), &writer.upload());
    world.finish_all();
    let (hash, bytes) = writer.put();
    world.say(author, &document(), &said(&[hash], vec![bytes]));
    world.finish_all();
    world.handle(Event::Disconnected(author));
    world.rest();
    world.counts.clear();
    world.sent.clear();
    let snapshot = world.snapshot(&document());
    (world, writer, snapshot)
}

#[test]
fn a_damaged_index_is_built_anew_from_the_snapshot() {
    let hash_page = index::HASH_PAGES_FROM;
    for (kind, part, known) in [
        (Kind::IndexPage, 0, 100),
        (Kind::IndexPage, 2, 1_450),
        (Kind::IndexPage, hash_page, 1_450),
        (Kind::IndexRoot, 0, 1_450),
    ] {
        let (mut world, mut writer, snapshot) = with_snapshot(1_500);
        for page in 0..4 {
            if part >= hash_page {
                world.rot(&document(), kind, snapshot, part + page);
            }
        }
        if part < hash_page {
            world.rot(&document(), kind, snapshot, part);
        }
        let (reader, author) = (world.join(2), world.join(3));
        let known = writer.changes[known].0;
        world.say(reader, &document(), &said(&[known], vec![]));
        // What comes meanwhile waits.
        let before = writer.head();
        let (hash, bytes) = writer.put();
        world.say(author, &document(), &said(&[hash], vec![bytes]));
        world.finish_all();
        world.pass_time(200);
        assert!(world.closed.is_empty(), "{kind:?} {part}: {:?}", world.closed);
        let told = world.taken(reader, &document());
        let sent: usize = told.iter().map(|message| message.changes.len()).sum();
        assert!(sent > 0, "{kind:?} {part}");
        assert_eq!(told.last().unwrap().heads, [hash], "{kind:?} {part}");
        assert!(told.iter().any(|message| message.heads == [before] || message.heads == [hash]));
        assert_eq!(world.taken(author, &document()).last().unwrap().heads, [hash]);
        assert_eq!(world.snapshot(&document()), snapshot);
        assert_eq!(world.is_whole(&document(), Kind::Snapshot, snapshot, 0), Some(true));
        assert_eq!(
            world.is_whole(&document(), kind, snapshot, part),
            Some(true),
            "{kind:?} {part}"
        );
        assert_eq!(heads_of_joiner(&mut world), [hash]);
    }
}

/// The heads of what somebody gets who has nothing.
fn heads_of_joiner(world: &mut World) -> Vec<ChangeHash> {
    let joiner = world.join(99);
    world.ask(joiner, &document());
    world.finish_all();
    let got = world.taken(joiner, &document());
    world.handle(Event::Disconnected(joiner));
    heads_of(&got)
}

#[test]
fn a_missing_index_page_is_written_again() {
    let (mut world, writer, snapshot) = with_snapshot(1_500);
    world.lose(&document(), Kind::IndexPage, snapshot, 2);
    assert_eq!(world.is_whole(&document(), Kind::IndexPage, snapshot, 2), None);
    let reader = world.join(2);
    world.say(reader, &document(), &said(&[writer.changes[1_450].0], vec![]));
    world.finish_all();
    assert!(world.closed.is_empty());
    assert_eq!(world.is_whole(&document(), Kind::IndexPage, snapshot, 2), Some(true));
    assert_eq!(world.taken(reader, &document()).last().unwrap().heads, [writer.head()]);
}

#[test]
fn a_document_whose_salvage_finds_no_worker_disturbs_no_other() {
    let (mut world, writer, snapshot) = with_snapshot(1_500);
    world.rot(&document(), Kind::IndexPage, snapshot, 2);
    world.no_worker.insert(document());
    let reader = world.join(2);
    world.say(reader, &document(), &said(&[writer.changes[1_450].0], vec![]));
    let mut neighbour = Writer::new(2, 0);
    let jobs_before = world.jobs_done;
    for round in 0..20 {
        world.say(reader, &document(), &said(&[writer.changes[1_450 + round].0], vec![]));
        let (hash, bytes) = neighbour.put();
        world.say(reader, &other(), &said(&[hash], vec![bytes]));
        world.finish_all();
        assert_eq!(world.taken(reader, &other()).last().unwrap().heads, [hash]);
        world.pass_time(5_000);
    }
    assert!(world.closed.is_empty(), "{:?}", world.closed);
    assert!(world.taken(reader, &document()).is_empty());
    assert!(world.jobs_done - jobs_before < 50, "{} jobs in 100 s", world.jobs_done - jobs_before);
    world.no_worker.clear();
    world.pass_time(60_000);
    world.finish_all();
    world.pass_time(1_000);
    assert_eq!(world.taken(reader, &document()).last().unwrap().heads, [writer.head()]);
}

/// Plays a client that has everything until there is nothing more to say.
fn converse(world: &mut World, number: u64, writer: &mut Writer) -> concord::replica::ConnectionId {
    let client = world.join(number);
    world.say(client, &document(), &said(&[writer.head()], vec![]));
    for _ in 0..10 {
        world.finish_all();
        let asked = world.taken(client, &document());
        if !asked.iter().any(|message| !message.need.is_empty()) {
            break;
        }
        // As clients do, who see from `have` how much the relay lacks.
        let upload = writer.upload();
        world.say(client, &document(), &upload);
    }
    client
}

#[test]
fn a_document_goes_on_without_a_damaged_snapshot_and_the_peers_bring_it_back() {
    let (mut world, mut writer, snapshot) = with_snapshot(1_500);
    let told = world.join(2);
    world.say(told, &document(), &said(&[writer.head()], vec![]));
    world.finish_all();
    assert_eq!(world.taken(told, &document()).last().unwrap().heads, [writer.head()]);
    world.rot(&document(), Kind::Snapshot, snapshot, 0);

    let asker = world.join(3);
    world.ask(asker, &document());
    world.finish_all();
    assert_eq!(world.closed, [(told, 4507)], "who was told of it begins again, nobody else");
    assert!(world.taken(asker, &document()).iter().all(|message| message.heads.is_empty()));
    world.closed.clear();

    converse(&mut world, 4, &mut writer);
    world.pass_time(200);
    world.finish_all();
    let got = world.taken(asker, &document());
    assert_eq!(heads_of(&got), [writer.head()]);
    assert_eq!(got.last().unwrap().heads, [writer.head()]);
    assert!(world.closed.is_empty(), "{:?}", world.closed);
    // The same changes make the same snapshot: it must not be taken for the damaged one.
    world.restart();
    assert_eq!(heads_of_joiner(&mut world), [writer.head()]);
    assert!(world.closed.is_empty());
}

#[test]
fn a_restart_remembers_that_a_snapshot_is_damaged() {
    let (mut world, mut writer, snapshot) = with_snapshot(1_500);
    world.rot(&document(), Kind::Snapshot, snapshot, 0);
    assert_eq!(heads_of_joiner(&mut world), []);
    world.restart();
    let (asker, author) = (world.join(2), world.join(3));
    world.ask(asker, &document());
    world.finish_all();
    assert!(world.taken(asker, &document()).iter().all(|message| message.heads.is_empty()));
    // Its rows stay for whoever can do more with them.
    assert_eq!(world.is_whole(&document(), Kind::Snapshot, snapshot, 0), Some(false));
    world.say(author, &document(), &writer.upload());
    world.finish_all();
    assert_eq!(heads_of_joiner(&mut world), [writer.head()]);
    world.restart();
    assert_eq!(heads_of_joiner(&mut world), [writer.head()]);
}

#[test]
fn whoever_needs_the_damaged_snapshot_finds_out() {
    // An extraction, a compaction, the base of an upload, and a check, each without a reader who
    // would have been given the snapshot itself.
    for needs in ["extraction", "compaction", "upload", "check"] {
        let (mut world, mut writer, snapshot) = with_snapshot(1_500);
        world.rot(&document(), Kind::Snapshot, snapshot, 0);
        let client = world.join(2);
        match needs {
            "extraction" => {
                world.say(client, &document(), &said(&[writer.changes[1_495].0], vec![]));
            }
            "compaction" => {
                for _ in 0..10_000 {
                    writer.put();
                }
                let new: Vec<Bytes> = writer.changes[1_501..].iter().map(|c| c.1.clone()).collect();
                for part in new.chunks(1_000) {
                    world.say(client, &document(), &said(&[writer.head()], part.to_vec()));
                }
            }
            "upload" => {
                writer.put();
                let upload = writer.upload();
                world.say(client, &document(), &upload);
            }
            _ => {
                let (hash, bytes) = writer.put();
                world.say(client, &document(), &said(&[hash], vec![bytes]));
            }
        }
        world.finish_all();
        world.pass_time(2_000);
        world.finish_all();
        world.handle(Event::Disconnected(client));
        converse(&mut world, 3, &mut writer);
        world.finish_all();
        assert_eq!(heads_of_joiner(&mut world), [writer.head()], "{needs}");
        world.restart();
        assert_eq!(heads_of_joiner(&mut world), [writer.head()], "{needs}");
    }
}

#[test]
fn a_program_opens_what_is_left_and_what_comes_back() {
    let (mut world, mut writer, snapshot) = with_snapshot(1_500);
    let last = writer.changes.last().unwrap().clone();
    world.rot(&document(), Kind::Snapshot, snapshot, 0);
    world.handle(Event::Open(document()));
    world.finish_all();
    let opened = |world: &World| -> Vec<Vec<Bytes>> {
        let chunks = |(_, published): &(DocumentId, Published)| match published {
            Published::Opened(chunks) => Some(chunks.clone()),
            _ => None,
        };
        world.published.iter().filter_map(chunks).collect()
    };
    assert_eq!(opened(&world), [Vec::<Bytes>::new()], "its last change waits for what is gone");

    // What builds on what is gone is refused, in words.
    let (hash, bytes) = writer.put();
    world.handle(Event::LocalChange(Ticket(1), document(), bytes.clone()));
    world.finish_all();
    let (_, answer) = world.done.pop().unwrap();
    assert!(matches!(answer, Err(LocalError::Refused { .. })), "{answer:?}");

    world.published.clear();
    converse(&mut world, 2, &mut writer);
    world.finish_all();
    let shown = world.published.iter().any(|(_, published)| match published {
        Published::Snapshot(_) => true,
        Published::Changes(changes) => changes.contains(&last.1) || changes.contains(&bytes),
        _ => false,
    });
    assert!(shown, "{:?}", world.published);
    assert_eq!(heads_of_joiner(&mut world), [hash]);
}

#[test]
fn a_disk_that_does_not_answer_for_a_while_costs_nobody_the_connection() {
    let (mut world, mut writer, _) = with_snapshot(1_500);
    world.reads_fail = true;
    let (asker, author, behind) = (world.join(2), world.join(3), world.join(4));
    world.ask(asker, &document());
    let (hash, bytes) = writer.put();
    world.say(author, &document(), &said(&[hash], vec![bytes]));
    let mut neighbour = Writer::new(2, 1);
    for _ in 0..6 {
        world.say(behind, &document(), &said(&[writer.changes[1_450].0], vec![]));
        world.finish_all();
        world.pass_time(RETRY_MS);
    }
    assert!(world.closed.is_empty(), "{:?}", world.closed);
    assert!((2..20).contains(&world.failed_reads), "{} reads", world.failed_reads);

    // The document answers, then its index, then its snapshot.
    world.reads_fail = false;
    world.pass_time(RETRY_MS);
    world.finish_all();
    world.pass_time(RETRY_MS);
    world.finish_all();
    assert!(world.closed.is_empty(), "{:?}", world.closed);
    assert_eq!(heads_of(&world.taken(asker, &document())), [hash]);
    assert_eq!(world.taken(author, &document()).last().unwrap().heads, [hash]);
    assert!(!world.taken(behind, &document()).is_empty());
    let (hash, bytes) = neighbour.changes.pop().unwrap();
    world.say(asker, &other(), &said(&[hash], vec![bytes]));
    world.finish_all();
    assert_eq!(world.taken(asker, &other()).last().unwrap().heads, [hash]);
}

#[test]
fn pages_and_snapshots_that_cannot_be_read_for_a_while_are_read_again() {
    for wants_pages in [true, false] {
        let (mut world, writer, _) = with_snapshot(1_500);
        let reader = world.join(2);
        // The document itself is in memory.
        world.say(reader, &document(), &said(&[writer.head()], vec![]));
        world.finish_all();
        world.taken(reader, &document());
        world.reads_fail = true;
        let behind = world.join(3);
        if wants_pages {
            world.say(behind, &document(), &said(&[writer.changes[1_450].0], vec![]));
        } else {
            world.ask(behind, &document());
        }
        world.finish_all();
        for _ in 0..3 {
            world.pass_time(RETRY_MS);
            world.finish_all();
        }
        assert!(world.closed.is_empty(), "{:?}", world.closed);
        assert!((2..8).contains(&world.failed_reads), "{} reads", world.failed_reads);
        world.reads_fail = false;
        world.pass_time(RETRY_MS);
        world.finish_all();
        let told = world.taken(behind, &document());
        assert_eq!(told.last().unwrap().heads, [writer.head()]);
        assert!(told.iter().any(|message| !message.changes.is_empty()));
    }
}

#[test]
fn a_program_is_told_when_its_disk_does_not_answer_for_long() {
    let (mut world, mut writer, _) = with_snapshot(1_500);
    world.reads_fail = true;
    world.handle(Event::Open(document()));
    let (_, bytes) = writer.put();
    world.handle(Event::LocalChange(Ticket(1), document(), bytes));
    world.finish_all();
    assert!(world.done.is_empty(), "it may still come right");
    for _ in 0..5 {
        world.pass_time(RETRY_MS);
    }
    assert!(matches!(world.done.pop(), Some((Ticket(1), Err(LocalError::Storage(_))))));
    world.reads_fail = false;
    world.pass_time(RETRY_MS);
    world.finish_all();
    let opened =
        |(_, published): &(DocumentId, Published)| matches!(published, Published::Opened(_));
    assert!(world.published.iter().any(opened));
}

/// A document of changes without a snapshot, not in memory.
fn without_snapshot(changes: usize) -> (World, Writer) {
    let mut world = World::new(10_000);
    let writer = Writer::new(1, changes);
    let author = world.join(1);
    let all = writer.changes.iter().map(|change| change.1.clone()).collect();
    world.say(author, &document(), &said(&[writer.head()], all));
    world.finish_all();
    world.handle(Event::Disconnected(author));
    world.rest();
    world.counts.clear();
    world.sent.clear();
    (world, writer)
}

#[test]
fn a_damaged_change_heals_when_it_comes_again() {
    let (mut world, mut writer) = without_snapshot(20);
    let damaged = writer.changes[10].0;
    world.rot(&document(), Kind::Change, damaged.0, 0);
    let asker = world.join(2);
    world.ask(asker, &document());
    world.finish_all();
    assert_eq!(heads_of(&world.taken(asker, &document())), [writer.changes[9].0]);
    assert_eq!(world.replica.stats().orphans, 9);

    converse(&mut world, 3, &mut writer);
    world.finish_all();
    assert_eq!(world.is_whole(&document(), Kind::Change, damaged.0, 0), Some(true));
    assert_eq!(world.replica.stats().orphans, 0);
    assert_eq!(heads_of_joiner(&mut world), [writer.head()]);
    assert!(world.closed.is_empty());
    world.restart();
    assert_eq!(heads_of_joiner(&mut world), [writer.head()]);
}

#[test]
fn a_damaged_change_that_comes_back_in_a_snapshot_leaves_nothing_behind() {
    let (mut world, mut writer) = without_snapshot(20);
    let damaged = writer.changes[10].0;
    world.rot(&document(), Kind::Change, damaged.0, 0);
    let mut longer = Writer::new(1, 1_500);
    assert_eq!(longer.changes[10].0, damaged);
    let author = world.join(2);
    world.say(author, &document(), &longer.upload());
    world.finish_all();
    assert_eq!(world.replica.stats().orphans, 0, "they are in the snapshot");
    assert_eq!(heads_of_joiner(&mut world), [longer.head()]);
    world.rest_with(author);
    let late = world.join(3);
    world.say(late, &document(), &said(&[longer.head()], vec![]));
    world.finish_all();
    let stored = world.stored(&document());
    assert!(stored.corrupt.is_empty() && stored.changes.is_empty(), "{stored:?}");
    let (hash, bytes) = longer.put();
    world.say(late, &document(), &said(&[hash], vec![bytes]));
    world.finish_all();
    assert_eq!(heads_of_joiner(&mut world), [hash]);
    drop(writer.put());
}

#[test]
fn what_comes_with_a_document_chunk_is_taken_in_with_it() {
    // More of it than may wait for what is in the chunk.
    let mut world = World::new(10_000);
    let mut writer = Writer::new(1, 1_500);
    let mut upload = writer.upload();
    for _ in 0..1_200 {
        upload.changes.push(writer.put().1);
    }
    upload.heads = vec![writer.head()];
    upload.changes = vec![upload.changes.concat().into()];
    let author = world.join(1);
    world.say(author, &document(), &upload);
    world.finish_all();
    let refused = |counted: &Counted| matches!(counted, Counted::ChangeRefused(_));
    assert!(!world.counts.iter().any(refused), "{:?}", world.counts);
    assert_eq!(world.taken(author, &document()).last().unwrap().heads, [writer.head()]);
    assert_eq!(heads_of_joiner(&mut world), [writer.head()]);
}

#[test]
fn a_damaged_change_that_only_its_writer_has_is_asked_of_its_writer() {
    let (mut world, mut writer) = without_snapshot(20);
    let reader = world.join(2);
    world.say(reader, &document(), &said(&[writer.head()], vec![]));
    world.finish_all();
    world.taken(reader, &document());
    // It leaves memory with the reader still there, and comes back without its last change.
    world.rest();
    let damaged = writer.head();
    world.rot(&document(), Kind::Change, damaged.0, 0);
    let asker = world.join(3);
    world.ask(asker, &document());
    world.finish_all();
    assert_eq!(world.closed, [(reader, 4507)]);
    converse(&mut world, 4, &mut writer);
    world.finish_all();
    world.pass_time(200);
    assert_eq!(heads_of(&world.taken(asker, &document())), [damaged]);
    assert_eq!(world.is_whole(&document(), Kind::Change, damaged.0, 0), Some(true));
}
