//! Every file of the hostile corpus, as a document of its own and into one that others use.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use concord_protocol::{DocumentId, sync::SyncVersion};

use crate::{
    attacker::{Attacker, Outcome, new_document},
    made_up::{carrying, made_up_head},
    worker_common,
    world::World,
};

/// How long the relay may leave an honest client waiting after one file: longer is a hang.
const HANG: Duration = Duration::from_secs(10);
/// KiB that relay and honest clients may grow by over the whole corpus.
const GROWTH_KIB_MAX: u64 = 64 * 1024;
/// Files after which the honest clients edit, where each takes its time in a worker.
const BATCH: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A sync message as it is.
    Sync,
    /// One change.
    Change,
    /// A document, or more than one change.
    Document,
}

struct Hostile {
    name: String,
    form: Form,
    bytes: Bytes,
}

/// What became of the files.
#[derive(Default)]
struct Tally {
    outcomes: BTreeMap<&'static str, usize>,
    slowest: (Duration, String),
    total: Duration,
    sent: usize,
}

impl Tally {
    fn add(&mut self, what: &str, outcome: &Outcome, took: Duration) {
        let name = match outcome {
            Outcome::Refused(_) => "refused",
            Outcome::Closed(..) => "closed",
            Outcome::Answered => "answered",
            Outcome::Silent => "silent",
        };
        *self.outcomes.entry(name).or_default() += 1;
        self.sent += 1;
        self.total += took;
        if took > self.slowest.0 {
            self.slowest = (took, what.to_owned());
        }
    }
}

/// With automerge itself in the honest clients: what it cannot apply must not reach them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_file_of_the_corpus_is_noticed_by_others() {
    let Some(files) = files() else { return };
    let world = World::strict().await;
    print(&world, "messages and changes", &one_by_one(&world, &files).await);

    // What is opened in workers: two at a time, and an honest edit now and then.
    let documents: Vec<_> = files.iter().filter(|file| file.form == Form::Document).collect();
    let (own, shared) =
        tokio::join!(volley(&world, &documents, false), volley(&world, &documents, true));
    print(&world, "documents, each by itself", &own);
    print(&world, "documents into one that others use", &shared);
    end(world).await;
}

/// A change that keeps every rule and that automerge cannot apply.
const POISON: &str =
    "hostile/change/panic_apply_automerge_0.12.0_src_op_set2_change_batch.rs_136-55527.bin";

/// Where nothing is materialised before it is passed on: the relay finds out, tells the writer,
/// and no longer serves it; nothing of anybody else's is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_a_document_is_taken_out_again() {
    poison(false).await;
}

/// As above, with somebody who uploads a document before the relay finds out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_a_document_is_taken_out_after_an_upload() {
    poison(true).await;
}

async fn poison(uploads: bool) {
    let Some(poison) = worker_common::shared(POISON) else {
        return;
    };
    let world = World::new().await;
    let mut attacker = Attacker::join(&world.url(), &world.shared).await;
    let head = made_up_head();
    let poison = fs::read(poison).unwrap().into();
    attacker.send(carrying(SyncVersion::V1, head, vec![poison])).await;
    world.honest.round().await;
    if uploads {
        let mut other = Attacker::join(&world.url(), &world.shared).await;
        let head = made_up_head();
        let upload = carrying(SyncVersion::V2, head, vec![worker_common::small()]);
        other.send(upload).await;
        let outcome = other.dealt_with(head).await;
        assert_eq!(outcome, Outcome::Answered, "an honest upload is taken");
    }
    attacker.refused("unmaterialisable").await;
    world.honest.round().await;
    world.end().await;
}

/// Uploads that hang, many at once and several into one document, hold up an honest one for as
/// long as they take, and no longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_upload_gets_its_turn_after_hostile_ones() {
    let Some(files) = files() else { return };
    let world = World::new().await;
    let hangs = files.iter().filter(|file| file.name.starts_with("load/HANG"));
    let mut crowd = Vec::new();
    for file in hangs.take(12) {
        for (version, document) in shots(file.form, &world.shared) {
            let mut attacker = Attacker::join(&world.url(), &document).await;
            let head = made_up_head();
            attacker.send(message(file, version, head)).await;
            crowd.push((attacker, head));
        }
    }
    let mut honest = Attacker::join(&world.url(), &new_document()).await;
    let head = made_up_head();
    let upload = carrying(SyncVersion::V2, head, vec![worker_common::small()]);
    honest.send(upload).await;
    assert_eq!(honest.dealt_with_in_time(head).await, Outcome::Answered);
    for (attacker, head) in &mut crowd {
        let outcome = attacker.dealt_with_in_time(*head).await;
        assert_ne!(outcome, Outcome::Silent, "every upload gets its turn");
    }
    world.end().await;
}

/// Not materialised before they are passed on: honest edits go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_edits_go_on_where_nothing_is_materialised_first() {
    let Some(files) = files() else { return };
    let world = World::new().await;
    print(&world, "messages and changes", &one_by_one(&world, &files).await);
    end(world).await;
}

/// What is dealt with in this process, and at once after each an honest edit.
async fn one_by_one(world: &World, files: &[Hostile]) -> Tally {
    let mut tally = Tally::default();
    for file in files.iter().filter(|file| file.form != Form::Document) {
        for (version, document) in shots(file.form, &world.shared) {
            let mut attacker = Attacker::join(&world.url(), &document).await;
            let head = made_up_head();
            let start = Instant::now();
            attacker.send(message(file, version, head)).await;
            let took = world.honest.round().await;
            assert!(start.elapsed() < HANG, "{}", file.name);
            let outcome = outcome(&mut attacker, file, head).await;
            tally.add(&file.name, &outcome, took);
        }
    }
    tally
}

async fn end(world: World) {
    let grown = world.grown_kib();
    println!("{grown} KiB more resident");
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more resident");
    world.end().await;
}

/// All of the documents, each into one of its own or into the shared one.
async fn volley(world: &World, documents: &[&Hostile], is_shared: bool) -> Tally {
    let mut tally = Tally::default();
    for batch in documents.chunks(BATCH) {
        for (at, file) in batch.iter().enumerate() {
            // Each goes out in both forms, one here and one there: they take their time.
            let version =
                if (at % 2 == 0) == is_shared { SyncVersion::V1 } else { SyncVersion::V2 };
            let document = if is_shared { world.shared.clone() } else { new_document() };
            let mut attacker = Attacker::join(&world.url(), &document).await;
            let head = made_up_head();
            let start = Instant::now();
            attacker.send(message(file, version, head)).await;
            let outcome = outcome(&mut attacker, file, head).await;
            tally.add(&file.name, &outcome, start.elapsed());
        }
        world.honest.round().await;
    }
    tally
}

/// In which ways a file is sent, and where to.
fn shots(form: Form, shared: &DocumentId) -> Vec<(SyncVersion, DocumentId)> {
    let versions: &[SyncVersion] = match form {
        // It says itself which version it is.
        Form::Sync => &[SyncVersion::V1],
        _ => &[SyncVersion::V1, SyncVersion::V2],
    };
    versions
        .iter()
        .flat_map(|&version| [(version, new_document()), (version, shared.clone())])
        .collect()
}

fn message(file: &Hostile, version: SyncVersion, head: concord_protocol::ChangeHash) -> Bytes {
    match file.form {
        Form::Sync => file.bytes.clone(),
        _ => carrying(version, head, vec![file.bytes.clone()]),
    }
}

async fn outcome(
    attacker: &mut Attacker,
    file: &Hostile,
    head: concord_protocol::ChangeHash,
) -> Outcome {
    let outcome = match file.form {
        Form::Sync => attacker.said().await,
        _ => attacker.dealt_with(head).await,
    };
    if outcome == Outcome::Silent {
        println!("silence after {}", file.name);
    }
    outcome
}

fn print(world: &World, what: &str, tally: &Tally) {
    let (slowest, file) = &tally.slowest;
    println!(
        "{what}: {} sent, {:?}; {:?} in all, slowest {slowest:?} ({file}); {:?} since the start",
        tally.sent,
        tally.outcomes,
        tally.total,
        world.elapsed()
    );
}

/// All of them, or none where there is no corpus.
fn files() -> Option<Vec<Hostile>> {
    let root = worker_common::shared("hostile")?;
    let mut files = Vec::new();
    for folder in fs::read_dir(&root).unwrap() {
        let folder = folder.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let form = form(&folder, &path);
            files.push(Hostile {
                name: path.strip_prefix(&root).unwrap().display().to_string(),
                form,
                bytes: fs::read(&path).unwrap().into(),
            });
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(files.len() > 300, "only {} files", files.len());
    Some(files)
}

/// What the corpus's README says that a file is.
fn form(folder: &Path, path: &Path) -> Form {
    let folder = folder.file_name().and_then(OsStr::to_str);
    let end = path.extension().and_then(OsStr::to_str);
    match (folder, end) {
        (Some("sync"), _) | (_, Some("syncmsg")) => Form::Sync,
        (Some("handmade"), Some("doc")) => Form::Document,
        (Some("change" | "handmade"), _) => Form::Change,
        _ => Form::Document,
    }
}
