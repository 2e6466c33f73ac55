//! What tests of workers share.
#![allow(dead_code, reason = "each test crate uses some of it")]

use std::path::PathBuf;

use automerge::{ActorId, AutoCommit, ObjType, ROOT, transaction::Transactable as _};
use bytes::Bytes;
use concord::worker::{ProcessPool, WorkerJob, WorkerLimits};

/// A pool of the program under test.
pub(crate) async fn pool(limits: WorkerLimits) -> ProcessPool {
    ProcessPool::start_program(env!("CARGO_BIN_EXE_concord").into(), limits)
        .await
        .expect("the program starts")
}

/// A snapshot of what a peer sent.
pub(crate) fn build(incoming: &[&Bytes]) -> WorkerJob {
    WorkerJob::Build {
        base: vec![],
        incoming: incoming.iter().map(|run| (*run).clone()).collect(),
        explode_max: 0,
    }
}

/// A document of ten changes.
pub(crate) fn small() -> Bytes {
    let mut doc = AutoCommit::new();
    for field in 0..10 {
        doc.put(ROOT, format!("field{field}"), field).unwrap();
        doc.commit();
    }
    doc.save().into()
}

/// A document that takes a worker longer than to be told of it.
pub(crate) fn large() -> Bytes {
    let mut doc = AutoCommit::new();
    let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
    // Numbers of a linear congruence, which do not compress well.
    let next = |state: &u32| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let numbers = std::iter::successors(Some(1_u32), next).take(30_000);
    let letters = numbers.map(|number| char::from(b'a' + number.to_be_bytes()[0] % 26));
    doc.splice_text(&text, 0, 0, &letters.collect::<String>()).unwrap();
    doc.commit();
    let document = Bytes::from(doc.save());
    assert!(document.len() > 8 * 1024, "{} bytes", document.len());
    document
}

/// A change after `first` that the guard accepts and that automerge cannot apply: it edits a map
/// that only another change, which it does not build on, makes.
pub(crate) fn poison(first: &Bytes) -> Bytes {
    let mut doc = AutoCommit::new().with_actor(ActorId::from([77_u8; 16]));
    doc.load_incremental(first).unwrap();
    let heads = doc.get_heads();
    let map = doc.put_object(ROOT, "m", ObjType::Map).unwrap();
    doc.commit();
    doc.put(&map, "k", 1).unwrap();
    doc.commit();
    let mut change = doc.get_last_local_change().unwrap().decode();
    change.deps = heads;
    change.seq = 1;
    change.hash = None;
    Bytes::copy_from_slice(automerge::Change::from(change).raw_bytes())
}

/// A folder or file of the shared test data; `None`, with a word, where there is none.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CONCORD_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: no {}; set CONCORD_SHARED to where the test data is", path.display());
    None
}

/// A file of the hostile corpus.
pub(crate) fn hostile(name: &str) -> Option<Bytes> {
    shared(&format!("hostile/{name}")).map(|path| std::fs::read(path).unwrap().into())
}

/// A line of a process's status, in KiB.
pub(crate) fn status_kib(pid: u32, field: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Ends a process at once.
pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
}
