//! One suite that every store runs through: memory, sled, fjall.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use concord::{
    replica::{Kind, RowKey, RowWrite, StoredDocument},
    store::{self, DocumentKey, Engine, MemoryFaults, Options, Store, StoreError, Tenant},
};
use concord_protocol::{ChangeHash, DocumentId};
use quickcheck::{Arbitrary, Gen, QuickCheck};
use tempfile::TempDir;

/// A store that can be closed and opened again with what it had.
struct Place {
    store: Arc<dyn Store>,
    home: Home,
}

enum Home {
    Memory(MemoryFaults),
    Disk(TempDir, Engine),
}

fn options() -> Options {
    Options { cache_bytes: 4 << 20, reserve_bytes: 1 << 20, ..Options::default() }
}

fn open(path: &Path, engine: Engine) -> Result<Arc<dyn Store>, StoreError> {
    store::open(path, engine, &options())
}

impl Place {
    fn memory() -> Self {
        let (store, faults) = store::memory_with_faults("memory".parse().unwrap());
        Self { store, home: Home::Memory(faults) }
    }

    fn disk(engine: Engine) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { store: open(dir.path(), engine).unwrap(), home: Home::Disk(dir, engine) }
    }

    fn all() -> [Self; 3] {
        [Self::memory(), Self::disk(Engine::Sled), Self::disk(Engine::Fjall)]
    }

    fn name(&self) -> &'static str {
        match &self.home {
            Home::Memory(_) => "memory",
            Home::Disk(_, engine) => engine.as_str(),
        }
    }

    async fn reopen(self) -> Self {
        self.store.close().await.unwrap();
        match self.home {
            Home::Memory(faults) => {
                let (store, faults) = faults.after_crash();
                Self { store, home: Home::Memory(faults) }
            }
            Home::Disk(dir, engine) => {
                Self { store: open(dir.path(), engine).unwrap(), home: Home::Disk(dir, engine) }
            }
        }
    }
}

fn document(n: u8) -> DocumentKey {
    DocumentKey { tenant: Tenant::default(), document: DocumentId::from_bytes(&[n; 16]) }
}

fn row(kind: Kind, id: u8) -> RowKey {
    RowKey { kind, id: [id; 32], part: 0 }
}

fn put(row: RowKey, bytes: impl Into<Bytes>) -> RowWrite {
    RowWrite::Put(row, bytes.into())
}

fn noise(len: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        })
        .collect()
}

async fn read_one(store: &dyn Store, key: &DocumentKey, row: RowKey) -> Option<Bytes> {
    store.read(key.clone(), vec![row]).await.unwrap().remove(0)
}

#[tokio::test]
async fn rows_of_every_size_come_back_and_survive_a_restart() {
    for place in Place::all() {
        let name = place.name();
        let sizes =
            [0, 1, 120, 4074, 4075, 4076, 4095, 4096, 4097, 8162, 8163, 65_536, 1 << 20, 3 << 20];
        let mut writes = Vec::new();
        for (n, len) in (0_u8..).zip(sizes) {
            for kind in [Kind::Snapshot, Kind::Change] {
                writes.push(put(row(kind, n), noise(len)));
            }
        }
        place.store.write(document(1), writes).await.unwrap();
        let id = place.store.storage_id();
        let place = place.reopen().await;
        assert_eq!(place.store.storage_id(), id, "{name}");
        for (n, len) in (0_u8..).zip(sizes) {
            for kind in [Kind::Snapshot, Kind::Change] {
                let found = read_one(&*place.store, &document(1), row(kind, n)).await;
                assert!(found == Some(noise(len)), "{name}: {len} bytes as {kind:?}");
            }
        }
        assert_eq!(place.store.stats().corrupt, [], "{name}");
    }
}

#[tokio::test]
async fn rows_are_read_in_the_order_asked_for() {
    for place in Place::all() {
        let (a, b, none) = (row(Kind::Change, 1), row(Kind::Change, 2), row(Kind::Change, 3));
        place.store.write(document(1), vec![put(b, "b"), put(a, "a")]).await.unwrap();
        let found = place.store.read(document(1), vec![b, none, a, b]).await.unwrap();
        let some = |text: &'static str| Some(Bytes::from(text));
        assert_eq!(found, [some("b"), None, some("a"), some("b")], "{}", place.name());
    }
}

#[tokio::test]
async fn meta_is_overwritten_longer_and_shorter() {
    for mut place in Place::all() {
        let meta = row(Kind::Meta, 0);
        for len in [10, 20_000, 5_000, 0, 9_000, 100] {
            place.store.write(document(1), vec![put(meta, noise(len))]).await.unwrap();
            let found = read_one(&*place.store, &document(1), meta).await;
            assert!(found == Some(noise(len)), "{}: {len}", place.name());
            place = place.reopen().await;
            let stored = place.store.load(document(1)).await.unwrap();
            assert!(stored.meta == Some(noise(len)), "{}: {len}", place.name());
            assert_eq!(stored.corrupt, []);
        }
    }
}

#[tokio::test]
async fn writes_happen_in_order_within_a_group() {
    for place in Place::all() {
        let (a, b) = (row(Kind::Change, 1), row(Kind::Snapshot, 2));
        let large = noise(3 << 20);
        let writes = vec![
            put(a, "a"),
            RowWrite::Delete(a),
            put(a, "a"),
            put(b, large.clone()),
            RowWrite::Delete(b),
        ];
        let first = place.store.write(document(1), writes);
        let second = place.store.write(document(1), vec![put(b, large.clone())]);
        first.await.unwrap();
        second.await.unwrap();
        let place = place.reopen().await;
        assert_eq!(read_one(&*place.store, &document(1), a).await, Some("a".into()));
        assert!(read_one(&*place.store, &document(1), b).await == Some(large), "{}", place.name());
    }
}

#[tokio::test]
async fn deleted_rows_are_gone_with_all_their_pieces() {
    for place in Place::all() {
        let rows = [row(Kind::Change, 1), row(Kind::Snapshot, 2), row(Kind::Meta, 0)];
        let writes = rows.map(|row| put(row, noise(2 << 20))).to_vec();
        place.store.write(document(1), writes).await.unwrap();
        place.store.write(document(2), vec![put(rows[0], "stays")]).await.unwrap();
        let deletes = rows.map(RowWrite::Delete).to_vec();
        place.store.write(document(1), deletes).await.unwrap();
        let place = place.reopen().await;
        let found = place.store.read(document(1), rows.to_vec()).await.unwrap();
        assert_eq!(found, [None, None, None], "{}", place.name());
        let documents = place.store.documents(Tenant::default(), None, 10).await.unwrap();
        assert_eq!(documents, [document(2).document], "{}", place.name());
    }
}

#[tokio::test]
async fn a_document_is_cleared_of_all_but_what_is_true_of_it_as_a_whole() {
    for place in Place::all() {
        let meta = row(Kind::Meta, 0);
        let page = RowKey { part: 3, ..row(Kind::IndexPage, 9) };
        // Also rows that no root names, as a crash leaves them.
        let rows = [row(Kind::Change, 1), row(Kind::Snapshot, 2), page, row(Kind::Quarantine, 4)];
        for n in [1, 2] {
            let writes = rows.map(|row| put(row, noise(1 << 20)));
            place.store.write(document(n), writes.to_vec()).await.unwrap();
        }
        // The record is on disk no later than anything is gone, and what comes after it stays.
        let later = row(Kind::Change, 7);
        let writes =
            vec![put(meta, "going"), RowWrite::Clear, put(meta, "gone"), put(later, "new")];
        place.store.write(document(1), writes).await.unwrap();
        let place = place.reopen().await;
        let name = place.name();
        let found = place.store.read(document(1), rows.to_vec()).await.unwrap();
        assert!(found.iter().all(Option::is_none), "{name}");
        let stored = place.store.load(document(1)).await.unwrap();
        assert_eq!((stored.meta, stored.changes.len()), (Some("gone".into()), 1), "{name}");
        let others = place.store.read(document(2), rows.to_vec()).await.unwrap();
        assert!(others.iter().all(Option::is_some), "{name}: another document");
        let all = vec![RowWrite::Clear, RowWrite::Delete(meta)];
        place.store.write(document(1), all).await.unwrap();
        let documents = place.store.documents(Tenant::default(), None, 10).await.unwrap();
        assert_eq!(documents, [document(2).document], "{name}: nothing is left");
    }
}

#[tokio::test]
async fn load_gives_all_but_snapshots_and_pages() {
    for place in Place::all() {
        let page = RowKey { part: 3, ..row(Kind::IndexPage, 9) };
        let writes = vec![
            put(row(Kind::Snapshot, 9), noise(100_000)),
            put(page, "page"),
            put(row(Kind::IndexRoot, 9), "root"),
            put(row(Kind::Meta, 0), "meta"),
            put(row(Kind::Change, 1), noise(5_000)),
            put(row(Kind::Change, 2), "change"),
            put(row(Kind::Quarantine, 3), "bad"),
        ];
        place.store.write(document(1), writes).await.unwrap();
        place.store.write(document(2), vec![put(row(Kind::Change, 7), "other")]).await.unwrap();
        let place = place.reopen().await;
        let StoredDocument { meta, roots, mut changes, corrupt } =
            place.store.load(document(1)).await.unwrap();
        changes.sort();
        assert_eq!(meta, Some("meta".into()));
        assert_eq!(roots, [([9; 32], "root".into())]);
        let expected =
            [(ChangeHash([1; 32]), noise(5_000)), (ChangeHash([2; 32]), "change".into())];
        assert_eq!(changes, expected, "{}", place.name());
        assert_eq!(corrupt, []);
        assert_eq!(read_one(&*place.store, &document(1), page).await, Some("page".into()));
        let unknown = place.store.load(document(3)).await.unwrap();
        assert!(unknown.meta.is_none() && unknown.roots.is_empty() && unknown.changes.is_empty());
    }
}

#[tokio::test]
async fn documents_come_in_order_and_in_pages() {
    for place in Place::all() {
        let mut expected = Vec::new();
        for n in 0..50 {
            let key = document(n);
            let writes = (0..5).map(|id| put(row(Kind::Change, id), "x")).collect();
            place.store.write(key.clone(), writes).await.unwrap();
            expected.push(key.document);
        }
        expected.sort();
        let mut found = Vec::new();
        loop {
            let after = found.last().cloned();
            let page = place.store.documents(Tenant::default(), after, 7).await.unwrap();
            assert!(page.len() <= 7);
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, expected, "{}", place.name());
        assert_eq!(place.store.documents(Tenant::default(), None, 0).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_read_sees_the_writes_that_were_called_before_it() {
    for place in Place::all() {
        for n in 0..20 {
            let write =
                place.store.write(document(1), vec![put(row(Kind::Change, n), noise(9_000))]);
            let stored = place.store.load(document(1)).await.unwrap();
            assert_eq!(stored.changes.len(), usize::from(n) + 1, "{}", place.name());
            write.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_write_goes_on_when_nobody_waits_for_it() {
    for place in Place::all() {
        drop(place.store.write(document(1), vec![put(row(Kind::Change, 1), "x")]));
        let place = place.reopen().await;
        let found = read_one(&*place.store, &document(1), row(Kind::Change, 1)).await;
        assert_eq!(found, Some("x".into()), "{}", place.name());
    }
}

#[tokio::test]
async fn many_writers_share_flushes() {
    for place in Place::all() {
        let name = place.name();
        let all = (0..400_u32)
            .map(|n| {
                let id = RowKey { kind: Kind::Change, id: [0; 32], part: n };
                place.store.write(document(n.to_be_bytes()[3]), vec![put(id, noise(120))])
            })
            .collect::<Vec<_>>();
        for write in all {
            write.await.unwrap();
        }
        let stats = place.store.stats();
        assert_eq!(stats.writes, 400, "{name}");
        assert_eq!(stats.rows, 400, "{name}");
        if !matches!(place.home, Home::Memory(_)) {
            assert!(stats.flushes < 200, "{name}: {} flushes", stats.flushes);
        }
    }
}

#[tokio::test]
async fn a_row_that_is_there_costs_no_flush() {
    for place in Place::all() {
        let write = || vec![put(row(Kind::Snapshot, 1), noise(50_000))];
        place.store.write(document(1), write()).await.unwrap();
        let before = place.store.stats();
        place.store.write(document(1), write()).await.unwrap();
        let after = place.store.stats();
        assert_eq!(after.flushes, before.flushes, "{}", place.name());
        assert_eq!(after.bytes, before.bytes, "{}", place.name());
    }
}

#[tokio::test]
async fn a_closed_store_refuses() {
    for place in Place::all() {
        place.store.close().await.unwrap();
        place.store.close().await.unwrap();
        let write = place.store.write(document(1), vec![put(row(Kind::Change, 1), "x")]).await;
        assert_eq!(write, Err(StoreError::Closed));
        assert_eq!(place.store.load(document(1)).await.unwrap_err(), StoreError::Closed);
    }
}

/// One step of the model test.
#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8, u8, usize),
    Delete(u8, u8, u8),
    Reopen,
}

const KINDS: [Kind; 4] = [Kind::Meta, Kind::IndexRoot, Kind::Snapshot, Kind::Change];

impl Arbitrary for Step {
    fn arbitrary(g: &mut Gen) -> Self {
        let (document, kind, id) =
            (u8::arbitrary(g) % 3, u8::arbitrary(g) % 4, u8::arbitrary(g) % 4);
        let lens = [0, 3, 4_075, 4_076, 12_000, 1_100_000];
        match u8::arbitrary(g) % 16 {
            0 => Self::Reopen,
            1..5 => Self::Delete(document, kind, id),
            _ => Self::Put(document, kind, id, *g.choose(&lens).unwrap()),
        }
    }
}

fn model_agrees(start: fn() -> Place, steps: Vec<Step>) -> bool {
    type Model = std::collections::BTreeMap<(u8, RowKey), Bytes>;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut place = start();
        let mut model = Model::new();
        let mut waiting = Vec::new();
        let key = |kind: u8, id: u8| {
            let kind = KINDS[usize::from(kind)];
            row(kind, if kind == Kind::Meta { 0 } else { id })
        };
        for step in steps.into_iter().chain([Step::Reopen]) {
            match step {
                Step::Put(on, kind, id, len) => {
                    let row = key(kind, id);
                    model.insert((on, row), noise(len));
                    waiting.push(place.store.write(document(on), vec![put(row, noise(len))]));
                }
                Step::Delete(on, kind, id) => {
                    let row = key(kind, id);
                    model.remove(&(on, row));
                    waiting.push(place.store.write(document(on), vec![RowWrite::Delete(row)]));
                }
                Step::Reopen => {
                    for write in waiting.drain(..) {
                        write.await.unwrap();
                    }
                    place = place.reopen().await;
                }
            }
        }
        for on in 0..3 {
            for kind in 0..4 {
                for id in 0..4 {
                    let row = key(kind, id);
                    let found = read_one(&*place.store, &document(on), row).await;
                    if found.as_ref() != model.get(&(on, row)) {
                        return false;
                    }
                }
            }
            let stored = place.store.load(document(on)).await.unwrap();
            let changes =
                model.keys().filter(|(d, row)| *d == on && row.kind == Kind::Change).count();
            if stored.changes.len() != changes || !stored.corrupt.is_empty() {
                return false;
            }
        }
        true
    })
}

#[test]
fn any_sequence_of_writes_is_as_a_map_in_memory() {
    let check: fn(Vec<Step>) -> bool = |steps| model_agrees(Place::memory, steps);
    QuickCheck::new().tests(100).quickcheck(check);
}

#[test]
fn any_sequence_of_writes_is_as_a_map_in_sled() {
    let check: fn(Vec<Step>) -> bool = |steps| model_agrees(|| Place::disk(Engine::Sled), steps);
    QuickCheck::new().tests(20).quickcheck(check);
}

#[test]
fn any_sequence_of_writes_is_as_a_map_in_fjall() {
    let check: fn(Vec<Step>) -> bool = |steps| model_agrees(|| Place::disk(Engine::Fjall), steps);
    QuickCheck::new().tests(20).quickcheck(check);
}
