//! A pool of worker processes: cheap for small jobs, whole after any fault.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it fails")]

mod worker_common;

use std::time::{Duration, Instant};

use automerge::{AutoCommit, ROOT, transaction::Transactable as _};
use bytes::Bytes;
use concord::{
    replica::{JobError, JobOutput},
    worker::{Materialiser as _, ProcessPool, WorkerJob, WorkerLimits},
};
use worker_common::{build, pool, small, status_kib};

#[tokio::test]
async fn a_small_document_is_built_in_another_process() {
    let pool = pool(WorkerLimits::default()).await;
    let document = small();
    let Ok(JobOutput::Built { snapshot, index }) = pool.run(build(&[&document])).await else {
        panic!("not built");
    };
    assert_eq!(snapshot, document);
    assert_eq!(index.root.changes, 10);
    assert_eq!(pool.status().started, 1);
    let times: Vec<Duration> = {
        let mut times = Vec::new();
        for _ in 0..200 {
            let start = Instant::now();
            pool.run(build(&[&document])).await.unwrap();
            times.push(start.elapsed());
        }
        times.sort_unstable();
        times
    };
    let idle = pool.status().idle;
    assert_eq!((idle.len(), pool.status().started), (1, 1));
    println!(
        "{} bytes: median {:?}, p99 {:?}; idle worker {:?} KiB resident",
        document.len(),
        times[100],
        times[198],
        status_kib(idle[0], "VmRSS")
    );
}

#[tokio::test]
async fn many_jobs_at_once_use_the_workers_there_are() {
    let pool = pool(WorkerLimits::default()).await;
    let document = small();
    let jobs: Vec<_> = (0..50).map(|_| tokio::spawn(pool.run(build(&[&document])))).collect();
    for job in jobs {
        assert!(matches!(job.await.unwrap(), Ok(JobOutput::Built { .. })));
    }
    assert_eq!(pool.status().started, 2);
    assert_eq!(pool.status().jobs, 0);
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let mut limits = WorkerLimits::default();
    limits.queue_jobs = 1;
    limits.workers = 1;
    let pool = pool(limits).await;
    let document = small();
    let first = pool.run(build(&[&document]));
    let second = pool.run(build(&[&document]));
    let third = pool.run(build(&[&document])).await;
    assert!(matches!(third, Err(JobError::Unavailable(_))), "{third:?}");
    assert!(first.await.is_ok() && second.await.is_ok());
    assert!(pool.run(build(&[&document])).await.is_ok());
}

#[tokio::test]
async fn a_job_nobody_waits_for_frees_its_place() {
    let mut limits = WorkerLimits::default();
    limits.workers = 1;
    let pool = pool(limits).await;
    let document = small();
    for _ in 0..3 {
        let job = pool.run(build(&[&document]));
        let _ = tokio::time::timeout(Duration::from_micros(50), job).await;
    }
    assert!(pool.run(build(&[&document])).await.is_ok());
    assert_eq!(pool.status().jobs, 0);
}

#[tokio::test]
async fn a_killed_idle_worker_is_replaced_unnoticed() {
    let pool = pool(WorkerLimits::default()).await;
    let document = small();
    pool.run(build(&[&document])).await.unwrap();
    for _ in 0..5 {
        worker_common::kill(pool.status().idle[0]);
        assert!(pool.run(build(&[&document])).await.is_ok());
    }
}

#[tokio::test]
async fn a_worker_ends_after_its_number_of_jobs() {
    let mut limits = WorkerLimits::default();
    limits.jobs_per_process = 5;
    let pool = pool(limits).await;
    let document = small();
    for _ in 0..10 {
        pool.run(build(&[&document])).await.unwrap();
    }
    assert_eq!(pool.status().started, 3);
}

#[tokio::test]
async fn idle_workers_are_stopped_but_for_one() {
    let mut limits = WorkerLimits::default();
    limits.idle_ms = 50;
    let pool = pool(limits).await;
    let document = small();
    let jobs: Vec<_> = (0..20).map(|_| tokio::spawn(pool.run(build(&[&document])))).collect();
    for job in jobs {
        job.await.unwrap().unwrap();
    }
    assert_eq!(pool.status().idle.len(), 2);
    let stopped = async {
        while pool.status().idle.len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), stopped)
        .await
        .expect("the second worker is stopped");
    assert!(pool.run(build(&[&document])).await.is_ok());
}

#[tokio::test]
async fn what_needs_too_much_memory_is_over_the_limit() {
    let mut limits = WorkerLimits::default();
    limits.memory_bytes = 400 << 20;
    limits.incoming_ms = 20_000;
    let pool = pool(limits).await;
    // Legal for automerge, and gigabytes: run lengths are cheap to write.
    let Some(document) = worker_common::hostile("handmade/rle-nulls-10000000.doc") else {
        return;
    };
    let result = pool.run(build(&[&document])).await;
    assert!(matches!(result, Err(JobError::OverLimit(_))), "{result:?}");
    assert!(pool.run(build(&[&small()])).await.is_ok());
}

#[tokio::test]
async fn deep_nesting_is_harmless() {
    let pool = pool(WorkerLimits::default()).await;
    let mut doc = AutoCommit::new();
    let mut object = ROOT;
    for _ in 0..300 {
        object = doc.put_object(&object, "m", automerge::ObjType::Map).unwrap();
    }
    let document = Bytes::from(doc.save());
    let Ok(JobOutput::Built { index, .. }) = pool.run(build(&[&document])).await else {
        panic!("not built");
    };
    assert_eq!(index.root.objects.len(), 300);
    assert_eq!(pool.status().started, 1);
}

#[tokio::test]
async fn a_panic_in_automerge_names_the_change_and_costs_one_process() {
    let pool = pool(WorkerLimits::default()).await;
    let mut doc = AutoCommit::new().with_actor(automerge::ActorId::from([1_u8; 16]));
    let mut changes = Vec::new();
    for value in 0..9 {
        doc.put(ROOT, "a", value).unwrap();
        doc.commit();
        let change = doc.get_last_local_change().unwrap();
        changes.push(Bytes::copy_from_slice(change.raw_bytes()));
    }
    let poison = worker_common::poison(&changes[0]);
    changes.insert(6, poison.clone());
    let job = WorkerJob::Check { base: vec![], incoming: changes };
    let Err(JobError::Breaks { hash, reason }) = pool.run(job).await else {
        panic!("not named");
    };
    let header =
        concord_protocol::guard::check_change(&poison, &concord_protocol::Limits::default());
    assert_eq!(hash, header.unwrap().hash);
    assert!(reason.contains("panicked"), "{reason}");
    assert!(pool.run(build(&[&small()])).await.is_ok());
    assert_eq!(pool.status().started, 2);
}

#[tokio::test]
async fn a_program_that_is_no_worker_is_no_fault_of_the_peer() {
    let missing =
        ProcessPool::start_program("/nonexistent/concord".into(), WorkerLimits::default());
    assert!(missing.await.unwrap_err().to_string().contains("/nonexistent/concord"));
    let other = ProcessPool::start_program("/bin/false".into(), WorkerLimits::default()).await;
    if let Ok(other) = other {
        let result = other.run(build(&[&small()])).await;
        assert!(matches!(result, Err(JobError::Unavailable(_))), "{result:?}");
    }
}
