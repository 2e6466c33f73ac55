//! A store whose engine fails: nothing is acknowledged that may not be on disk.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use concord::{
    replica::{Kind, RowKey, RowWrite},
    store::{self, DocumentKey, StoreError, Tenant},
};
use concord_protocol::DocumentId;

fn document(n: u8) -> DocumentKey {
    DocumentKey { tenant: Tenant::default(), document: DocumentId::from_bytes(&[n; 16]) }
}

fn row(kind: Kind, id: u8) -> RowKey {
    RowKey { kind, id: [id; 32], part: 0 }
}

fn put(id: u8) -> Vec<RowWrite> {
    vec![RowWrite::Put(row(Kind::Change, id), vec![id; 10_000].into())]
}

#[tokio::test]
async fn a_failed_flush_ends_all_writing_until_a_restart() {
    let (store, faults) = store::memory_with_faults("faulty".parse().unwrap());
    store.write(document(1), put(1)).await.unwrap();
    faults.fail_flushes(true);
    assert!(matches!(store.write(document(2), put(2)).await, Err(StoreError::Poisoned(_))));
    // A second fsync may succeed without having written anything.
    faults.fail_flushes(false);
    assert!(matches!(store.write(document(3), put(3)).await, Err(StoreError::Poisoned(_))));
    // What is there for certain is still served; what may not be on disk is not.
    assert_eq!(store.load(document(1)).await.unwrap().changes.len(), 1);
    assert!(matches!(store.load(document(2)).await, Err(StoreError::Poisoned(_))));

    let (store, _) = faults.after_crash();
    assert_eq!(store.load(document(1)).await.unwrap().changes.len(), 1);
    assert_eq!(store.load(document(2)).await.unwrap().changes.len(), 0);
    store.write(document(2), put(2)).await.unwrap();
}

#[tokio::test]
async fn a_failed_write_ends_all_writing_too() {
    let (store, faults) = store::memory_with_faults("faulty".parse().unwrap());
    faults.fail_writes(true);
    assert!(matches!(store.write(document(1), put(1)).await, Err(StoreError::Poisoned(_))));
    faults.fail_writes(false);
    let error = store.write(document(1), put(1)).await.unwrap_err();
    assert!(error.to_string().contains("restart"), "{error}");
}

/// Of large rows pieces without a first are what a crash leaves, of small ones nothing is left.
#[tokio::test]
async fn lost_pieces_are_corruption_but_for_large_rows_without_a_first() {
    let kinds = [Kind::Change, Kind::IndexRoot, Kind::Meta, Kind::Snapshot, Kind::IndexPage];
    for (kind, len) in kinds.into_iter().flat_map(|kind| [(kind, 10_000), (kind, 40_000)]) {
        for piece in 0..3 {
            let (store, faults) = store::memory_with_faults("faulty".parse().unwrap());
            let row = row(kind, 0);
            let writes = vec![RowWrite::Put(row, vec![5; len].into())];
            store.write(document(1), writes.clone()).await.unwrap();
            assert!(faults.lose_piece(&document(1), &row, piece));
            let read = store.read(document(1), vec![row]).await;
            let is_no_row = len == 40_000 && piece == 0;
            if is_no_row {
                assert_eq!(read, Ok(vec![None]), "{kind:?}");
            } else {
                assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{kind:?} {piece}");
            }
            let corrupt = store.load(document(1)).await.unwrap().corrupt;
            let is_loaded = !matches!(kind, Kind::Snapshot | Kind::IndexPage);
            let expected = if is_loaded && !is_no_row { vec![row] } else { vec![] };
            assert_eq!(corrupt, expected, "{kind:?} {piece}");
            store.write(document(1), writes).await.unwrap();
            assert!(store.read(document(1), vec![row]).await.unwrap()[0].is_some());
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_the_store_goes_on() {
    let (store, faults) = store::memory_with_faults("faulty".parse().unwrap());
    faults.set_free_bytes(Some(1000));
    let error = store.write(document(1), put(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { free: 1000, .. }), "{error}");
    assert_eq!(store.load(document(1)).await.unwrap().changes, []);
    faults.set_free_bytes(None);
    store.write(document(1), put(1)).await.unwrap();
    assert_eq!(store.load(document(1)).await.unwrap().changes.len(), 1);
}
