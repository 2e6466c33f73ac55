//! What operators read: text that scrapers understand, with what every part counts.

use std::sync::Arc;

use concord::{
    relay::{Relay, RelayConfig},
    replica::{Kind, RowKey, RowWrite},
    store::{self, DocumentKey, Tenant},
    worker::{Materialiser as _, ProcessPool, WorkerJob, WorkerLimits},
};
use concord_protocol::DocumentId;

use crate::world::{World, metric};

#[tokio::test]
async fn metrics_are_text_that_scrapers_read() {
    let world = World::new().await;
    let mut writer = world.join("writer").await;
    writer.upload(&DocumentId::from_bytes(b"counted")).await.unwrap();
    let (status, text) = world.admin("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.ends_with("# EOF\n"));
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("concord_"), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(!name.contains("counted") && !name.contains("writer"), "{line}");
    }
    for (name, least) in [
        ("concord_connections", 1.0),
        ("concord_changes_accepted_total", 1.0),
        ("concord_store_flush_seconds_count", 1.0),
        ("concord_received_bytes_total", 100.0),
        ("concord_documents", 1.0),
        ("concord_store_writes_total", 1.0),
        ("concord_store_rows_total", 1.0),
        ("concord_store_written_bytes_total", 100.0),
        ("concord_store_syncs_total", 1.0),
    ] {
        assert!(world.metric(name).await >= least, "{name}");
    }
}

#[tokio::test]
async fn what_the_store_found_corrupt_is_counted() {
    let (store, faults) = store::memory_with_faults("faulty".parse().unwrap());
    // Whoever looks for conflicts reads every document when a relay starts.
    let relay = crate::world::start(store.clone(), |config| config.review = false).await;
    let document = DocumentId::from_bytes(b"rotten");
    let key = DocumentKey { tenant: Tenant::default(), document: document.clone() };
    let row = RowKey { kind: Kind::Change, id: [1; 32], part: 0 };
    let writes = vec![RowWrite::Put(row, vec![5; 100].into())];
    store.write(key.clone(), writes).await.unwrap();
    assert!(faults.corrupt(&key, &row));
    for _ in 0..2 {
        store.load(key.clone()).await.unwrap();
    }
    let admin = relay.admin_addr().unwrap();
    assert_eq!(metric(admin, "concord_store_corrupt_reads_total").await, Some(2.0));
    assert_eq!(metric(admin, "concord_store_corrupt_rows").await, Some(1.0));
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn worker_processes_are_counted_where_there_are_any() {
    const STARTED: &str = "concord_worker_processes_started_total";
    let world = World::new().await;
    let admin = world.relay.admin_addr().unwrap();
    assert_eq!(metric(admin, STARTED).await, None, "this one has none");

    let program = env!("CARGO_BIN_EXE_concord").into();
    let limits = WorkerLimits::default();
    let pool = Arc::new(ProcessPool::start_program(program, limits).await.unwrap());
    let admin = Some(("127.0.0.1".to_owned(), 0));
    let config = RelayConfig { port: 0, admin, ..RelayConfig::default() };
    let relay = Relay::start(config, store::memory().unwrap(), pool.clone()).await.unwrap();
    let admin = relay.admin_addr().unwrap();
    assert_eq!(metric(admin, STARTED).await, Some(1.0));
    assert_eq!(metric(admin, "concord_worker_processes_idle").await, Some(1.0));
    assert_eq!(metric(admin, "concord_worker_jobs_pending").await, Some(0.0));

    // Accepted when it is asked for, before anybody waits for it.
    let empty = WorkerJob::Build { base: vec![], incoming: vec![], explode_max: 0 };
    let job = pool.run(empty);
    assert_eq!(metric(admin, "concord_worker_jobs_pending").await, Some(1.0));
    // What becomes of a job without anything in it does not matter here.
    let _ = job.await;
    assert_eq!(metric(admin, "concord_worker_jobs_pending").await, Some(0.0));
    relay.shutdown().await.unwrap();
}
