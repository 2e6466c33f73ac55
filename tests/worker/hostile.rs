//! The hostile corpus as documents through a pool: an error or a success in time, within memory,
//! and the pool goes on.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it fails")]

use std::time::{Duration, Instant};

use crate::worker_common::{build, pool, shared};
use concord::{
    replica::{JobError, JobOutput},
    worker::{Materialiser as _, WorkerJob, WorkerLimits},
};

/// Less than a relay gives, so that files that hang do not hold up the test.
const INCOMING_MS: u64 = 300;
/// What one file may take, killing and restarting its worker included.
const FILE_MAX: Duration = Duration::from_millis(2_500);
/// Enough for the stack and every honest file of this size.
const MEMORY_BYTES: u64 = 512 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_document_is_harmless() {
    let Some(hostile) = shared("hostile") else {
        return;
    };
    let mut limits = WorkerLimits::default();
    limits.incoming_ms = INCOMING_MS;
    limits.memory_bytes = MEMORY_BYTES;
    let pool = pool(limits).await;
    let base = crate::worker_common::small();
    let mut files = Vec::new();
    for folder in ["load", "load_unverified", "load_incremental", "change", "handmade"] {
        for entry in std::fs::read_dir(hostile.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if folder != "handmade" || path.extension().is_some_and(|end| end == "doc") {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(files.len() > 250, "only {} files", files.len());

    let jobs = files.iter().map(|path| {
        let bytes = std::fs::read(path).unwrap().into();
        let base = if path.to_string_lossy().contains("load_incremental") {
            vec![base.clone()]
        } else {
            Vec::new()
        };
        let job = WorkerJob::Build { base, incoming: vec![bytes], explode_max: 0 };
        (path, job)
    });
    let mut outcomes = [0; 3];
    for (path, job) in jobs {
        let start = Instant::now();
        let result = pool.run(job).await;
        let took = start.elapsed();
        assert!(took < FILE_MAX, "{} took {took:?}", path.display());
        for worker in pool.status().idle {
            let peak_kib = crate::worker_common::status_kib(worker, "VmHWM").unwrap_or(0);
            assert!(peak_kib < MEMORY_BYTES / 1024, "{}", path.display());
        }
        match result {
            Ok(JobOutput::Built { .. }) => outcomes[0] += 1,
            Err(JobError::Incoming(_)) => outcomes[1] += 1,
            Err(JobError::OverLimit(_)) => outcomes[2] += 1,
            other => panic!("{}: {other:?}", path.display()),
        }
        if result.is_err() {
            let honest = pool.run(build(&[&base])).await;
            assert!(honest.is_ok(), "after {}: {honest:?}", path.display());
        }
    }
    let [built, incoming, over] = outcomes;
    println!(
        "{} files: {built} built, {incoming} refused, {over} over the limits; {} processes",
        files.len(),
        pool.status().started
    );
}
