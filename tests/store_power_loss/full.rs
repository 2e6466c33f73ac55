//! A disk that fills up: the store stops before the engine notices, and goes on when there is
//! room again.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use concord::{
    replica::{Kind, RowKey, RowWrite},
    store::{self, DocumentKey, Engine, Options, StoreError, Tenant},
};
use concord_protocol::DocumentId;

use crate::disk::Disk;

/// The engine may need this for what it was already given.
const RESERVE_BYTES: u64 = 24 << 20;

pub(super) async fn refuses_and_goes_on(engine: Engine) {
    let disk = Disk::new();
    if disk.copy_to().is_some() {
        println!("skipped: a full disk needs a loop device");
        return;
    }
    let filler = disk.store().with_file_name("filler");
    fs::write(&filler, vec![0; 100 << 20]).unwrap();
    let options = Options { reserve_bytes: RESERVE_BYTES, ..Options::default() };
    let store = store::open(&disk.store(), engine, &options).unwrap();
    let key = DocumentKey { tenant: Tenant::default(), document: DocumentId::from_bytes(&[1; 16]) };
    let row = |n: u32| RowKey { kind: Kind::Snapshot, id: [1; 32], part: n };
    let put = |n: u32| {
        // Not compressible.
        let mut state = u64::from(n) + 1;
        let bytes = (0..100_000).map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        });
        vec![RowWrite::Put(row(n), bytes.collect())]
    };
    let mut acknowledged = 0;
    let error = loop {
        match store.write(key.clone(), put(acknowledged)).await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. }), "{engine} after {acknowledged}: {error}");
    assert!(acknowledged > 10, "{engine}: {acknowledged}");
    fs::remove_file(filler).unwrap();
    store.write(key.clone(), put(acknowledged)).await.unwrap();
    store.close().await.unwrap();

    let given_up = Instant::now() + Duration::from_secs(10);
    let store = loop {
        match store::open(&disk.store(), engine, &options) {
            Ok(store) => break store,
            // A process that another test is just starting has our lock until it is its own program.
            Err(StoreError::Locked { .. }) if Instant::now() < given_up => thread::yield_now(),
            Err(error) => panic!("{engine}: {error}"),
        }
    };
    for n in 0..=acknowledged {
        let found = store.read(key.clone(), vec![row(n)]).await.unwrap();
        assert!(found[0].as_ref().is_some_and(|bytes| bytes.len() == 100_000), "{engine}: {n}");
    }
    store.close().await.unwrap();
}
