//! A pool of worker processes: cheap for small jobs, whole after any fault.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where it fails")]

use std::time::{Duration, Instant};

use crate::worker_common::{build, large, pool, small, status_kib};
use automerge::{AutoCommit, ROOT, transaction::Transactable as _};
use bytes::Bytes;
use concord::{
    replica::{JobError, JobOutput},
    worker::{Materialiser as _, ProcessPool, WorkerJob, WorkerLimits},
};

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
async fn many_small_jobs_at_once_go_to_one_worker_together() {
    let pool = pool(WorkerLimits::default()).await;
    let document = small();
    let jobs: Vec<_> = (0..50).map(|_| tokio::spawn(pool.run(build(&[&document])))).collect();
    for job in jobs {
        let Ok(JobOutput::Built { snapshot, .. }) = job.await.unwrap() else {
            panic!("not built");
        };
        assert_eq!(snapshot, document);
    }
    assert_eq!(pool.status().started, 1);
    assert_eq!(pool.status().jobs, 0);
}

#[tokio::test]
async fn each_of_many_jobs_gets_its_own_answer() {
    let pool = pool(WorkerLimits::default()).await;
    let mut doc = AutoCommit::new();
    let mut jobs = Vec::new();
    for number in 1..=100_u32 {
        doc.put(ROOT, "a", i64::from(number)).unwrap();
        doc.commit();
        let document = if number % 10 == 0 {
            Bytes::from_static(b"no document at all")
        } else {
            doc.save().into()
        };
        jobs.push(tokio::spawn(pool.run(build(&[&document]))));
    }
    for (number, job) in (1..).zip(jobs) {
        match job.await.unwrap() {
            Ok(JobOutput::Built { index, .. }) => assert_eq!(index.root.changes, number),
            result => {
                assert!(matches!(result, Err(JobError::Incoming(_))), "{result:?}");
                assert_eq!(number % 10, 0);
            }
        }
    }
}

/// Has many innocent jobs done around a fatal one, all at once.
async fn among_innocents(limits: WorkerLimits, fatal: Bytes) -> Result<JobOutput, JobError> {
    let pool = pool(limits).await;
    let document = small();
    let job = |n| build(&[if n == 20 { &fatal } else { &document }]);
    let jobs: Vec<_> = (0..60).map(|n| tokio::spawn(pool.run(job(n)))).collect();
    let mut of_fatal = None;
    for (n, job) in jobs.into_iter().enumerate() {
        let result = job.await.unwrap();
        if n == 20 {
            of_fatal = Some(result);
        } else {
            assert!(matches!(result, Ok(JobOutput::Built { .. })), "job {n}: {result:?}");
        }
    }
    assert_eq!(pool.status().jobs, 0);
    of_fatal.unwrap()
}

#[tokio::test]
async fn a_job_that_ends_its_process_is_blamed_alone() {
    let mut limits = WorkerLimits::default();
    limits.memory_bytes = 400 << 20;
    limits.incoming_ms = 20_000;
    let Some(fatal) = crate::worker_common::hostile("handmade/rle-nulls-10000000.doc") else {
        return;
    };
    let result = among_innocents(limits, fatal).await;
    assert!(matches!(result, Err(JobError::OverLimit(_))), "{result:?}");
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_blamed_alone() {
    let mut limits = WorkerLimits::default();
    limits.incoming_ms = 1;
    limits.incoming_ms_per_kib = 0;
    let Some(fatal) = crate::worker_common::hostile("handmade/rle-nulls-10000000.doc") else {
        return;
    };
    let pool = pool(limits.clone()).await;
    let alone = pool.run(build(&[&fatal])).await;
    assert!(matches!(alone, Err(JobError::OverLimit(_))), "{alone:?}");
    limits.incoming_ms = 1_000;
    let result = among_innocents(limits, fatal).await;
    assert!(matches!(result, Err(JobError::OverLimit(_))), "{result:?}");
}

#[tokio::test]
async fn a_panic_among_small_jobs_is_blamed_alone() {
    let pool = pool(WorkerLimits::default()).await;
    let first = {
        let mut doc = AutoCommit::new();
        doc.put(ROOT, "a", 1).unwrap();
        doc.commit();
        Bytes::copy_from_slice(doc.get_last_local_change().unwrap().raw_bytes())
    };
    let poison = crate::worker_common::poison(&first);
    let job = |n: usize| WorkerJob::Check {
        base: vec![],
        incoming: if n == 7 { vec![first.clone(), poison.clone()] } else { vec![first.clone()] },
    };
    let jobs: Vec<_> = (0..30).map(|n| tokio::spawn(pool.run(job(n)))).collect();
    for (n, job) in jobs.into_iter().enumerate() {
        let result = job.await.unwrap();
        let is_right = match &result {
            Ok(JobOutput::Checked) => n != 7,
            Err(JobError::Breaks { .. }) => n == 7,
            _ => false,
        };
        assert!(is_right, "job {n}: {result:?}");
    }
}

#[tokio::test]
async fn many_jobs_at_once_use_the_workers_there_are() {
    let pool = pool(WorkerLimits::default()).await;
    let document = large();
    let jobs: Vec<_> = (0..10).map(|_| tokio::spawn(pool.run(build(&[&document])))).collect();
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
        crate::worker_common::kill(pool.status().idle[0]);
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
    let document = large();
    let jobs: Vec<_> = (0..10).map(|_| tokio::spawn(pool.run(build(&[&document])))).collect();
    for job in jobs {
        job.await.unwrap().unwrap();
    }
    // One of them may be gone already, where the last job took long.
    assert!(pool.status().started >= 2, "{:?}", pool.status());
    let stopped = async {
        while pool.status().idle.len() != 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), stopped)
        .await
        .expect("the second worker is stopped");
    assert!(pool.run(build(&[&document])).await.is_ok());
}

#[tokio::test]
async fn after_a_time_without_jobs_a_new_worker_takes_over() {
    let mut limits = WorkerLimits::default();
    limits.idle_ms = 50;
    let pool = pool(limits).await;
    pool.run(build(&[&small()])).await.unwrap();
    let used = pool.status().idle;
    let replaced = async {
        while pool.status().idle == used || pool.status().idle.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), replaced).await.expect("it is replaced");
    // One that did nothing stays.
    let fresh = pool.status();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((pool.status().idle, pool.status().started), (fresh.idle, 2));
    assert!(pool.run(build(&[&small()])).await.is_ok());
}

#[tokio::test]
async fn what_needs_too_much_memory_is_over_the_limit() {
    let mut limits = WorkerLimits::default();
    limits.memory_bytes = 400 << 20;
    limits.incoming_ms = 20_000;
    let pool = pool(limits).await;
    // Legal for automerge, and gigabytes: run lengths are cheap to write.
    let Some(document) = crate::worker_common::hostile("handmade/rle-nulls-10000000.doc") else {
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
    let poison = crate::worker_common::poison(&changes[0]);
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
