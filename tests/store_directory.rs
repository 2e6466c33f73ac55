//! Which directories a store opens, which it refuses, and how it says so.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use concord::{
    replica::{Kind, RowKey, RowWrite},
    store::{self, DocumentKey, Engine, FORMAT, Options, Store, StoreError, Tenant},
};
use concord_protocol::DocumentId;
use tempfile::TempDir;

const ENGINES: [Engine; 2] = [Engine::Sled, Engine::Fjall];

fn open(path: &Path, engine: Engine) -> Result<Arc<dyn Store>, StoreError> {
    let options = Options { cache_bytes: 4 << 20, reserve_bytes: 1 << 20, ..Options::default() };
    store::open(path, engine, &options)
}

fn refusal(path: &Path, engine: Engine) -> StoreError {
    match open(path, engine) {
        Ok(_) => panic!("{engine}: it was opened"),
        Err(error) => error,
    }
}

fn document() -> DocumentKey {
    DocumentKey { tenant: Tenant::default(), document: DocumentId::from_bytes(&[1; 16]) }
}

fn row(id: u8) -> RowKey {
    RowKey { kind: Kind::Change, id: [id; 32], part: 0 }
}

/// A closed store with two changes, `first` and `second`.
async fn written(engine: Engine) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), engine).unwrap();
    let writes =
        vec![RowWrite::Put(row(1), "first".into()), RowWrite::Put(row(2), "second".into())];
    store.write(document(), writes).await.unwrap();
    store.close().await.unwrap();
    dir
}

fn edit_marker(dir: &Path, from: &str, to: &str) {
    let path = dir.join("CONCORD");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[tokio::test]
async fn the_marker_says_what_it_is() {
    let dir = written(Engine::Sled).await;
    let store = open(dir.path(), Engine::Sled).unwrap();
    let id = store.storage_id();
    let text = fs::read_to_string(dir.path().join("CONCORD")).unwrap();
    assert_eq!(text, format!("concord store\nformat 1\nengine sled\nid {id}\nstate ready\n"));
    let shape = id.as_str().split('-').map(str::len).collect::<Vec<_>>();
    assert_eq!(shape, [8, 4, 4, 4, 12], "{id}");
    assert_eq!(&id.as_str()[14..15], "4", "{id}");
}

#[tokio::test]
async fn two_at_once_are_refused() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path(), engine).unwrap();
        assert_eq!(
            refusal(dir.path(), engine),
            StoreError::Locked { directory: dir.path().into() }
        );
        store.close().await.unwrap();
        open(dir.path(), engine).unwrap();
    }
}

#[test]
fn a_dropped_store_frees_its_directory() {
    for engine in ENGINES {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            drop(open(dir.path(), engine).unwrap());
        }
    }
}

#[tokio::test]
async fn a_newer_format_is_refused_whatever_follows() {
    for engine in ENGINES {
        let dir = written(engine).await;
        fs::write(dir.path().join("CONCORD"), "concord store\nformat 7\nsomething=else").unwrap();
        let error = refusal(dir.path(), engine);
        let directory = dir.path().into();
        assert_eq!(error, StoreError::Newer { directory, found: 7, known: FORMAT });
        assert!(error.to_string().contains("use a newer concord"), "{error}");
    }
}

#[tokio::test]
async fn the_other_engine_is_refused() {
    let dir = written(Engine::Sled).await;
    let error = refusal(dir.path(), Engine::Fjall);
    assert!(error.to_string().contains("--store sled"), "{error}");
    assert!(!dir.path().join("fjall").exists());
}

#[tokio::test]
async fn vanished_data_is_never_served_as_empty() {
    for engine in ENGINES {
        let dir = written(engine).await;
        let data = dir.path().join(engine.as_str());
        fs::remove_dir_all(&data).unwrap();
        assert!(matches!(refusal(dir.path(), engine), StoreError::Vanished { .. }), "{engine}");
        assert!(!data.exists(), "{engine}: nothing was made in its place");
        fs::create_dir(&data).unwrap();
        for _ in 0..2 {
            let error = refusal(dir.path(), engine);
            assert!(matches!(error, StoreError::Vanished { .. }), "{engine}: {error}");
        }
    }
}

#[tokio::test]
async fn another_stores_data_is_refused() {
    for engine in ENGINES {
        let (dir, other) = (written(engine).await, written(engine).await);
        let data = dir.path().join(engine.as_str());
        fs::remove_dir_all(&data).unwrap();
        fs::rename(other.path().join(engine.as_str()), &data).unwrap();
        assert!(matches!(refusal(dir.path(), engine), StoreError::Vanished { .. }), "{engine}");
    }
}

#[tokio::test]
async fn sled_that_starts_afresh_over_a_damaged_file_is_noticed() {
    for (file, bytes) in [("db", &b""[..]), ("db", &[0; 4096]), ("conf", b"garbage")] {
        let dir = written(Engine::Sled).await;
        fs::write(dir.path().join("sled").join(file), bytes).unwrap();
        match open(dir.path(), Engine::Sled) {
            Err(StoreError::Vanished { .. } | StoreError::Io { .. }) => {}
            Err(error) => panic!("{file}: {error}"),
            Ok(store) => {
                let stored = store.load(document()).await.unwrap();
                assert_eq!(stored.changes.len(), 2, "{file}: opened, but with less");
            }
        }
    }
}

#[tokio::test]
async fn sled_that_was_killed_while_it_opened_opens_again() {
    let dir = written(Engine::Sled).await;
    // The beginning of a snapshot, newer than any.
    let unfinished = dir.path().join("sled").join("snap.7FFFFFFFFFFFFFFF.generating");
    fs::write(&unfinished, [7; 100]).unwrap();
    let store = open(dir.path(), Engine::Sled).unwrap();
    assert!(!unfinished.exists());
    assert!(!store.load(document()).await.unwrap().changes.is_empty());
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    for name in ["sled", "fjall", "db", "conf"] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(name)).unwrap();
        for engine in ENGINES {
            let error = refusal(dir.path(), engine);
            assert!(matches!(error, StoreError::NotOurs { .. }), "{name}: {error}");
        }
        assert!(!dir.path().join("CONCORD").exists());
    }
    for text in
        ["", "concord store", "concord store\nformat x\n", "concord store\nformat 0\n", "\u{0}"]
    {
        let dir = written(Engine::Sled).await;
        fs::write(dir.path().join("CONCORD"), text).unwrap();
        let error = refusal(dir.path(), Engine::Sled);
        assert!(matches!(error, StoreError::NotOurs { .. }), "{text:?}: {error}");
    }
    let dir = written(Engine::Sled).await;
    edit_marker(dir.path(), "engine sled", "engine redb");
    assert!(matches!(refusal(dir.path(), Engine::Sled), StoreError::NotOurs { .. }));
}

#[test]
fn a_file_in_the_way_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "x").unwrap();
    let error = refusal(&path, Engine::Sled).to_string();
    assert!(error.contains("could not make the directory") && error.contains("file"), "{error}");
}

#[tokio::test]
async fn unrelated_files_do_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    fs::write(dir.path().join("concord.toml"), "").unwrap();
    open(dir.path(), Engine::Sled).unwrap();
}

#[tokio::test]
async fn a_crash_while_it_was_made_is_made_good() {
    for engine in ENGINES {
        let dir = written(engine).await;
        edit_marker(dir.path(), "state ready", "state creating");
        let data = dir.path().join(engine.as_str());
        fs::remove_dir_all(&data).unwrap();
        fs::create_dir(&data).unwrap();
        fs::write(data.join("db"), "half a file").unwrap();
        let store = open(dir.path(), engine).unwrap();
        let writes = vec![RowWrite::Put(row(1), "x".into())];
        store.write(document(), writes).await.unwrap();
        store.close().await.unwrap();
        let stored = open(dir.path(), engine).unwrap().load(document()).await.unwrap();
        assert_eq!(stored.changes.len(), 1, "{engine}");
    }
}

/// Flips the last bit of the value that ends with `end`, through the engine itself.
fn rot(engine: Engine, data: PathBuf, end: &[u8]) {
    let flipped = |value: &[u8]| {
        let mut value = value.to_vec();
        *value.last_mut().unwrap() ^= 1;
        value
    };
    match engine {
        Engine::Sled => {
            let db = loop {
                // The store's sled lets go of its files a little after it was closed.
                if let Ok(db) = sled::open(&data) {
                    break db;
                }
                std::thread::yield_now();
            };
            let found = db.iter().map(Result::unwrap).find(|(_, value)| value.ends_with(end));
            let (key, value) = found.unwrap();
            db.insert(key, flipped(&value)).unwrap();
            db.flush().unwrap();
        }
        Engine::Fjall => {
            let db = fjall::Database::builder(data).open().unwrap();
            let rows = db.keyspace("rows", fjall::KeyspaceCreateOptions::default).unwrap();
            let found =
                rows.iter().map(|item| item.into_inner().unwrap()).find(|(_, v)| v.ends_with(end));
            let (key, value) = found.unwrap();
            rows.insert(key, flipped(&value)).unwrap();
            db.persist(fjall::PersistMode::SyncAll).unwrap();
        }
    }
}

#[tokio::test]
async fn a_corrupt_row_is_reported_and_hurts_no_other() {
    for engine in ENGINES {
        let dir = written(engine).await;
        rot(engine, dir.path().join(engine.as_str()), b"second");
        let store = open(dir.path(), engine).unwrap();
        for _ in 0..2 {
            let stored = store.load(document()).await.unwrap();
            assert_eq!(stored.corrupt, [row(2)], "{engine}");
            assert_eq!(stored.changes.len(), 1, "{engine}");
            assert_eq!(stored.changes[0].1, "first");
        }
        let error = store.read(document(), vec![row(1), row(2)]).await.unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt { row: found, .. } if *found == row(2)));
        assert!(error.to_string().contains("change 0202"), "{error}");
        let first = store.read(document(), vec![row(1)]).await.unwrap();
        assert_eq!(first, [Some("first".into())]);
        let stats = store.stats();
        assert_eq!((stats.corrupt.len(), stats.corrupt_reads), (1, 3), "{engine}");

        // A peer sends it again: the row is whole again.
        let again = vec![RowWrite::Put(row(2), "second".into())];
        store.write(document(), again).await.unwrap();
        let stored = store.load(document()).await.unwrap();
        assert_eq!((stored.corrupt.len(), stored.changes.len()), (0, 2), "{engine}");
    }
}

#[tokio::test]
async fn a_rotten_first_row_is_refused() {
    for engine in ENGINES {
        let dir = written(engine).await;
        let id = open(dir.path(), engine).unwrap().storage_id();
        rot(engine, dir.path().join(engine.as_str()), id.as_str().as_bytes());
        assert!(matches!(refusal(dir.path(), engine), StoreError::Vanished { .. }), "{engine}");
    }
}

#[tokio::test]
async fn sled_makes_no_blob_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Engine::Sled).unwrap();
    for id in 0..8 {
        let writes = vec![RowWrite::Put(row(id), vec![id; 2 << 20].into())];
        store.write(document(), writes).await.unwrap();
    }
    store.close().await.unwrap();
    // They are never synced.
    let blobs = fs::read_dir(dir.path().join("sled/blobs")).unwrap().count();
    assert_eq!(blobs, 0);
}

#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_writes_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { reserve_bytes: u64::MAX, ..Options::default() };
    let store = store::open(dir.path(), Engine::Fjall, &options).unwrap();
    let error = store.write(document(), vec![RowWrite::Put(row(1), "x".into())]).await.unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert_eq!(store.load(document()).await.unwrap().changes, []);
}
