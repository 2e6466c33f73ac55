//! Jobs on real automerge histories give what automerge itself gives, and poison is named.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it fails")]
#![allow(clippy::needless_pass_by_value, reason = "quickcheck gives properties values")]

use automerge::{
    ActorId, AutoCommit, Automerge, ObjType, ROOT, ReadDoc as _, ScalarValue,
    transaction::Transactable as _,
};
use bytes::Bytes;
use concord::{
    replica::{JobError, JobOutput},
    worker::{InProcess, Materialiser as _, WorkerJob, WorkerLimits, materialise},
};
use concord_protocol::{ChangeHash, Limits, guard};
use quickcheck::{Arbitrary, Gen, QuickCheck};

/// Edits by three writers, who now and then read what the others have.
#[derive(Debug, Clone)]
struct History(Vec<(u8, u8, u16)>);

impl Arbitrary for History {
    fn arbitrary(g: &mut Gen) -> Self {
        let len = usize::from(u8::arbitrary(g) % 24);
        Self((0..len).map(|_| Arbitrary::arbitrary(g)).collect())
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        Box::new(self.0.shrink().map(Self))
    }
}

impl History {
    fn play(&self) -> Vec<AutoCommit> {
        let mut root = AutoCommit::new().with_actor(ActorId::from([9_u8; 16]));
        let text = root.put_object(ROOT, "text", ObjType::Text).unwrap();
        let list = root.put_object(ROOT, "list", ObjType::List).unwrap();
        root.put(ROOT, "count", ScalarValue::counter(0)).unwrap();
        root.commit();
        let mut writers: Vec<AutoCommit> =
            (0..3_u8).map(|writer| root.fork().with_actor(ActorId::from([writer; 16]))).collect();
        for &(writer, what, value) in &self.0 {
            let other = usize::from(value) % writers.len();
            let mut seen = writers[other].clone();
            let doc = &mut writers[usize::from(writer) % 3];
            let length = doc.length(&text);
            let place = usize::from(value) % (length + 1);
            match what % 7 {
                0 => doc.splice_text(&text, place, 0, "añb").unwrap(),
                1 => doc
                    .splice_text(&text, place, (length - place).min(2).cast_signed(), "")
                    .unwrap(),
                2 => doc.put(ROOT, format!("key{}", value % 4), i64::from(value)).unwrap(),
                3 => doc.increment(ROOT, "count", i64::from(value)).unwrap(),
                4 => doc.insert(&list, 0, u64::from(value)).unwrap(),
                5 => drop(doc.put_object(ROOT, format!("map{}", value % 3), ObjType::Map).unwrap()),
                _ => drop(doc.merge(&mut seen).unwrap()),
            }
            doc.commit();
        }
        writers
    }

    fn merged(writers: &mut [AutoCommit]) -> AutoCommit {
        let mut whole = AutoCommit::new();
        for writer in writers {
            whole.merge(writer).unwrap();
        }
        whole
    }
}

fn run(job: &WorkerJob) -> Result<JobOutput, JobError> {
    materialise::run(job, &WorkerLimits::default())
}

fn build(base: Vec<Bytes>, incoming: Vec<Bytes>) -> WorkerJob {
    WorkerJob::Build { base, incoming, explode_max: 0 }
}

fn built(result: Result<JobOutput, JobError>) -> (Bytes, concord::replica::index::SnapshotIndex) {
    match result {
        Ok(JobOutput::Built { snapshot, index }) => (snapshot, (*index).clone()),
        other => panic!("not built: {other:?}"),
    }
}

/// Changes as chunks, some deflated, in causal order.
fn chunks(doc: &mut AutoCommit) -> Vec<Bytes> {
    (doc.get_changes(&[]).into_iter().enumerate())
        .map(|(place, mut change)| match place % 2 {
            0 => Bytes::copy_from_slice(change.raw_bytes()),
            _ => Bytes::from(change.bytes().into_owned()),
        })
        .collect()
}

fn same(snapshot: &Bytes, doc: &mut AutoCommit) -> bool {
    let loaded = Automerge::load(snapshot).unwrap();
    loaded.get_heads() == doc.get_heads()
        && loaded.hydrate(None) == doc.hydrate(&ROOT, None).unwrap()
}

#[test]
fn build_is_what_automerge_merges() {
    fn property(history: History) -> bool {
        let mut writers = history.play();
        let mut whole = History::merged(&mut writers);
        // The first writer's document as snapshot, the second's as a tail of changes, the
        // third's as what a peer uploads.
        let base: Vec<Bytes> =
            std::iter::once(writers[0].save().into()).chain(chunks(&mut writers[1])).collect();
        let incoming = vec![writers[2].save().into()];
        let (snapshot, index) = built(run(&build(base, incoming)));
        let changes = whole.get_changes(&[]);
        let mut heads: Vec<_> = whole.get_heads().iter().map(|head| head.0).collect();
        let mut indexed = index.root.heads.clone();
        heads.sort_unstable();
        indexed.sort_unstable();
        let ops: usize = changes.iter().map(automerge::Change::len).sum();
        same(&snapshot, &mut whole)
            && index.root.changes as usize == changes.len()
            && heads == indexed
            && index.root.snapshot_bytes == snapshot.len() as u64
            && u64::from(index.root.max_op)
                == changes.iter().map(automerge::Change::max_op).max().unwrap()
            && index.root.objects.len() <= ops
            && index.root.objects.len() >= 2
    }
    QuickCheck::new().tests(60).quickcheck(property as fn(History) -> bool);
}

#[test]
fn new_changes_are_given_one_by_one_where_they_are_few() {
    fn property(history: History) -> bool {
        let mut writers = history.play();
        let mut both = writers[0].fork();
        both.merge(&mut writers[1]).unwrap();
        let (ours, theirs) = (writers[0].clone(), writers[1].clone());
        let job = |explode_max| WorkerJob::Build {
            base: vec![ours.clone().save().into()],
            incoming: vec![theirs.clone().save().into()],
            explode_max,
        };
        let new = both.get_changes(&writers[0].get_heads());
        let Ok(JobOutput::Changes(given)) = run(&job(u32::MAX)) else {
            return false;
        };
        let fits = given.len() == new.len()
            && given.iter().all(|chunk| guard::check_change(chunk, &Limits::default()).is_ok());
        let mut applied = writers[0].clone();
        for chunk in &given {
            let change = automerge::Change::try_from(&chunk[..]).unwrap();
            applied.apply_changes([change]).unwrap();
        }
        let one_less = u32::try_from(new.len()).unwrap().saturating_sub(1);
        fits && applied.get_heads() == both.get_heads()
            && (new.is_empty() || matches!(run(&job(one_less)), Ok(JobOutput::Built { .. })))
    }
    QuickCheck::new().tests(40).quickcheck(property as fn(History) -> bool);
}

#[test]
fn extract_gives_the_bytes() {
    fn property(history: History, picks: Vec<u8>) -> bool {
        let mut writers = history.play();
        let mut whole = History::merged(&mut writers);
        let changes = whole.get_changes(&[]);
        let picked: Vec<_> =
            (picks.iter()).map(|pick| &changes[usize::from(*pick) % changes.len()]).collect();
        let job = WorkerJob::Extract {
            snapshot: whole.save().into(),
            hashes: picked.iter().map(|change| ChangeHash(change.hash().0)).collect(),
        };
        let Ok(JobOutput::Extracted(given)) = run(&job) else {
            return false;
        };
        given.len() == picked.len()
            && given.iter().zip(picked).all(|(given, change)| {
                let again = automerge::Change::try_from(&given[..]).unwrap();
                again.raw_bytes() == change.raw_bytes() && given.len() <= change.raw_bytes().len()
            })
    }
    QuickCheck::new().tests(60).quickcheck(property as fn(History, Vec<u8>) -> bool);
}

#[test]
fn a_change_that_the_snapshot_lacks_is_an_error_of_the_base() {
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "a", 1).unwrap();
    for others in [0, 5] {
        let mut hashes = vec![ChangeHash(doc.get_heads()[0].0); others];
        hashes.push(ChangeHash([7; 32]));
        let job = WorkerJob::Extract { snapshot: doc.save().into(), hashes };
        assert!(matches!(run(&job), Err(JobError::Base(_))));
    }
}

#[test]
fn orphans_are_named_and_never_saved() {
    let mut doc = AutoCommit::new();
    let mut all = Vec::new();
    for value in 0..3 {
        doc.put(ROOT, "a", value).unwrap();
        doc.commit();
    }
    all.extend(chunks(&mut doc));
    let orphans = all[1..].to_vec();
    assert!(matches!(run(&build(vec![], orphans.clone())), Err(JobError::Incoming(_))));
    assert!(matches!(run(&build(orphans.clone(), vec![])), Err(JobError::Base(_))));
    // A document with a change behind it that does not belong to it.
    let mut other = AutoCommit::new();
    other.put(ROOT, "b", 1).unwrap();
    let mut run_of_chunks = other.save();
    run_of_chunks.extend_from_slice(&all[2]);
    let incoming = vec![run_of_chunks.into()];
    assert!(matches!(run(&build(vec![], incoming)), Err(JobError::Incoming(_))));
}

#[test]
fn nothing_at_all_builds_an_empty_document() {
    let (snapshot, index) = built(run(&build(vec![], vec![])));
    assert_eq!(index.root.changes, 0);
    assert!(Automerge::load(&snapshot).unwrap().get_heads().is_empty());
}

#[test]
fn whose_bytes_fail_is_told_apart() {
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "a", 1).unwrap();
    let good = Bytes::from(doc.save());
    let mut bad = good.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    let bad = Bytes::from(bad);
    let incoming = run(&build(vec![good.clone()], vec![bad.clone()]));
    assert!(matches!(incoming, Err(JobError::Incoming(_))), "{incoming:?}");
    let base = run(&build(vec![bad], vec![good]));
    assert!(matches!(base, Err(JobError::Base(_))), "{base:?}");
}

#[test]
fn a_second_change_of_the_same_number_is_refused() {
    let actor = ActorId::from([1_u8; 16]);
    let document = |value| {
        let mut doc = AutoCommit::new().with_actor(actor.clone());
        doc.put(ROOT, "a", value).unwrap();
        Bytes::from(doc.save())
    };
    let result = run(&build(vec![document(1)], vec![document(2)]));
    assert!(matches!(result, Err(JobError::Incoming(_))), "{result:?}");
}

#[test]
fn a_change_over_a_peers_limits_is_taken_from_us_and_not_from_a_peer() {
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, &"x".repeat(500)).unwrap();
    let chunk = Bytes::from(doc.save());
    let mut limits = WorkerLimits::default();
    limits.changes.change_ops = 100;
    let run = |base: &[&Bytes], incoming: &[&Bytes]| {
        let owned = |runs: &[&Bytes]| runs.iter().map(|run| (*run).clone()).collect();
        materialise::run(&build(owned(base), owned(incoming)), &limits)
    };
    assert!(matches!(run(&[&chunk], &[]), Ok(JobOutput::Built { .. })));
    let mut later = doc.fork();
    later.put(ROOT, "a", 1).unwrap();
    let later = Bytes::from(later.save());
    assert!(matches!(run(&[&chunk], &[&later]), Ok(JobOutput::Built { .. })));
    // What came with it need not be refused with it: whoever asked judges each.
    let Ok(JobOutput::Changes(changes)) = run(&[], &[&later]) else { panic!("not one by one") };
    let is_taken = |change: &Bytes| guard::check_change(change, &limits.changes).is_ok();
    assert_eq!(changes.iter().map(is_taken).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn a_change_that_is_small_as_it_comes_is_taken_out_of_a_document_too() {
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    doc.splice_text(&text, 0, 0, &"x".repeat(5_000)).unwrap();
    doc.commit();
    let mut change = doc.get_last_local_change().unwrap();
    let mut limits = WorkerLimits::default();
    limits.changes.change_bytes = 1_000;
    let as_it_comes = Bytes::from(change.bytes().into_owned());
    assert!(guard::check_change(&as_it_comes, &limits.changes).is_ok());
    assert!(guard::check_change(&change.raw_bytes().to_vec().into(), &limits.changes).is_err());
    let result = materialise::run(&build(vec![], vec![doc.save().into()]), &limits);
    assert!(matches!(result, Ok(JobOutput::Built { .. })), "{result:?}");
}

#[test]
fn check_names_the_change_that_breaks() {
    fn property(history: History, place: u8) -> bool {
        let mut writers = history.play();
        let mut whole = History::merged(&mut writers);
        let mut incoming = chunks(&mut whole);
        let fine = WorkerJob::Check { base: vec![], incoming: incoming.clone() };
        let poison = crate::worker_common::poison(&incoming[0]);
        let place = 1 + usize::from(place) % incoming.len();
        let job = WorkerJob::Check {
            base: vec![incoming[0].clone()],
            incoming: {
                incoming.insert(place, poison.clone());
                incoming
            },
        };
        let hash = guard::check_change(&poison, &Limits::default()).unwrap().hash;
        matches!(run(&fine), Ok(JobOutput::Checked))
            && matches!(run(&job), Err(JobError::Breaks { hash: named, .. }) if named == hash)
    }
    QuickCheck::new().tests(10).quickcheck(property as fn(History, u8) -> bool);
}

#[tokio::test]
async fn in_process_threads_do_jobs_and_end_panics() {
    let threads = InProcess::start(WorkerLimits::default()).unwrap();
    let mut doc = AutoCommit::new();
    doc.put(ROOT, "a", 1).unwrap();
    let jobs: Vec<_> =
        (0..8).map(|_| threads.run(build(vec![], vec![doc.save().into()]))).collect();
    for job in jobs {
        assert!(same(&built(job.await).0, &mut doc));
    }
}
