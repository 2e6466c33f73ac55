//! A long real history through a pool: what a first upload, a compaction and a look into the past
//! cost. Run with `cargo test --release --test worker -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it fails")]

use std::{io::Read as _, time::Instant};

use crate::worker_common::{build, pool, shared, status_kib};
use automerge::{Automerge, ObjType, ROOT, ReadDoc as _, transaction::Transactable as _};
use bytes::Bytes;
use concord::{
    replica::JobOutput,
    worker::{Materialiser as _, WorkerJob, WorkerLimits},
};
use concord_protocol::ChangeHash;

/// One change for each transaction of a trace.
fn replay(trace: &serde_json::Value) -> Automerge {
    let mut doc = Automerge::new();
    let mut first = doc.transaction();
    let text = first.put_object(ROOT, "text", ObjType::Text).unwrap();
    first.commit();
    for transaction in trace["txns"].as_array().unwrap() {
        let mut edit = doc.transaction();
        for patch in transaction["patches"].as_array().unwrap() {
            let number = |place: usize| usize::try_from(patch[place].as_u64().unwrap()).unwrap();
            let inserted = patch[2].as_str().unwrap();
            edit.splice_text(&text, number(0), number(1).cast_signed(), inserted).unwrap();
        }
        edit.commit();
    }
    assert_eq!(doc.text(&text).unwrap(), trace["endContent"].as_str().unwrap());
    doc
}

#[tokio::test]
#[ignore = "a measurement of 260,000 changes; minutes without --release"]
async fn the_automerge_paper_is_built_and_read() {
    let Some(path) = shared("traces/automerge-paper.json.gz") else {
        return;
    };
    let mut json = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_string(&mut json)
        .unwrap();
    let start = Instant::now();
    let doc = replay(&serde_json::from_str(&json).unwrap());
    let changes = doc.get_changes(&[]);
    println!("replayed {} changes in {:?}", changes.len(), start.elapsed());
    let document = Bytes::from(doc.save());

    let mut limits = WorkerLimits::default();
    limits.incoming_ms = 60_000;
    // Kept, so that what it used can be read.
    limits.resident_bytes = u64::MAX;
    let pool = pool(limits).await;
    let peak = || status_kib(pool.status().idle[0], "VmHWM").unwrap() / 1024;
    let start = Instant::now();
    let Ok(JobOutput::Built { snapshot, index }) = pool.run(build(&[&document])).await else {
        panic!("not built");
    };
    let index_bytes: usize = index.pages.iter().map(|(_, page)| page.len()).sum();
    println!(
        "build of {} KiB: {:?}, index {} KiB, peak {} MiB",
        document.len() / 1024,
        start.elapsed(),
        index_bytes / 1024,
        peak()
    );
    assert_eq!(index.root.changes as usize, changes.len());

    let middle = changes.len() - 1_000;
    let base = std::iter::once(Bytes::from(doc.fork_at(&[changes[middle].hash()]).unwrap().save()))
        .chain(
            changes[middle + 1..].iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())),
        )
        .collect();
    let compaction = WorkerJob::Build { base, incoming: vec![], explode_max: 0 };
    let start = Instant::now();
    let result = pool.run(compaction).await;
    println!("compaction with a tail of 1,000: {:?}, peak {} MiB", start.elapsed(), peak());
    assert!(matches!(result, Ok(JobOutput::Built { snapshot: ours, .. }) if ours == snapshot));

    for wanted in [1, 4, 5, 100, 10_000] {
        let hashes = changes.iter().step_by(changes.len() / wanted).take(wanted);
        let extract = WorkerJob::Extract {
            snapshot: snapshot.clone(),
            hashes: hashes.map(|change| ChangeHash(change.hash().0)).collect(),
        };
        let start = Instant::now();
        let result = pool.run(extract).await;
        println!("extract {wanted}: {:?}", start.elapsed());
        assert!(matches!(result, Ok(JobOutput::Extracted(given)) if given.len() == wanted));
    }
}
