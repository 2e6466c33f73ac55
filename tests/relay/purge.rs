//! What is deleted expires and is purged, over real sockets: when, what stops it, and what those
//! are told who were away.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use automerge::{ROOT, transaction::Transactable as _};
use concord::{
    entity,
    peer::{ConfirmError, Document, DocumentEvent, FindError, Peer},
    relay::Relay,
    replica::{Kind, RowKey},
    store::{self, DocumentKey, Engine, Options, Store, Tenant},
    worker::{InProcess, WorkerLimits},
};
use concord_protocol::{DocumentId, RefuseCode};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    entities_common::{has, make},
    http_common::{Http, SOON, relay_with},
};

const SCHEMA: &str = r#"
[types.task]
purge_deleted_after = "1s"
[types.task.fields]
title = "string"
parent = { kind = "reference", to = "task", on_delete = "restrict" }

[types.note.fields]
title = "string"
"#;

/// Several times as long as a task is kept: whatever is not purged by then is kept by something.
const LONG: Duration = Duration::from_millis(3_500);

async fn relay(store: &Arc<dyn Store>) -> (Relay, Http) {
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    relay_with(Arc::clone(store), worker, |config| {
        config.schema = Some(SCHEMA.to_owned());
        config.admin = Some(("127.0.0.1".to_owned(), 0));
    })
    .await
}

fn peer(directory: &Path, name: &str) -> Peer {
    Peer::builder(directory.join(name)).author(name).open().unwrap()
}

fn in_memory(http: &Http) -> Peer {
    let peer = Peer::builder("memory").store(store::memory().unwrap()).open().unwrap();
    peer.connect(&format!("ws://{}", http.0)).unwrap();
    peer
}

/// How many documents a relay says that it purged.
async fn purged(relay: &Relay) -> u64 {
    let mut scraped = TcpStream::connect(relay.admin_addr().unwrap()).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    scraped.write_all(request.as_bytes()).await.unwrap();
    let mut metrics = String::new();
    scraped.read_to_string(&mut metrics).await.unwrap();
    let line =
        metrics.lines().find_map(|line| line.strip_prefix("concord_documents_purged_total "));
    line.unwrap().parse().unwrap()
}

fn title(document: &Document) -> Option<String> {
    has(document, "title")
}

async fn until(is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap();
}

async fn rename(document: &Document, title: &str) {
    document.change(|tx| Ok(tx.put(ROOT, "title", title)?)).await.unwrap();
}

/// Whoever never had it hears that there is none, without waiting.
async fn is_unavailable(http: &Http, document: &DocumentId) {
    let carl = in_memory(http);
    let asked = Instant::now();
    let found = carl.find_within(document.as_str(), SOON).await;
    assert!(matches!(found, Err(FindError::Unavailable(_))), "{found:?}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    carl.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_goes_and_who_was_away_keeps_what_they_wrote() {
    let home = tempfile::tempdir().unwrap();
    let open =
        || store::open(&home.path().join("relay"), Engine::Sled, &Options::default()).unwrap();
    let store = open();
    let (relay_one, http) = relay(&store).await;
    let url = format!("ws://{}", http.0);
    let (ann, ben) = (peer(home.path(), "ann"), peer(home.path(), "ben"));
    ann.connect(&url).unwrap();
    ben.connect(&url).unwrap();
    let hers = make(&ann, "task", json!({ "title": "Tiles" })).await;
    rename(&hers, &"Tiles ".repeat(10_000)).await;
    rename(&hers, "Tiles").await;
    let other = make(&ann, "note", json!({ "title": "Shopping" })).await;
    for document in [&hers, &other] {
        document.wait_confirmed(SOON).await.unwrap();
    }
    let id = hers.id().clone();
    let his = ben.find_within(id.as_str(), SOON).await.unwrap();
    assert_eq!(title(&his).as_deref(), Some("Tiles"));
    drop(his);
    ben.close().await.unwrap();

    // Both are deleted, and one of them says that it goes.
    let key = |id: &DocumentId| DocumentKey { tenant: Tenant::default(), document: id.clone() };
    let before = store.load(key(&id)).await.unwrap();
    assert!(before.changes.len() > 2 || !before.roots.is_empty());
    for document in [&hers, &other] {
        ann.delete_entity(document).await.unwrap();
        document.wait_confirmed(SOON).await.unwrap();
    }
    until(async || purged(&relay_one).await == 1).await;
    let after = store.load(key(&id)).await.unwrap();
    assert!(after.changes.is_empty() && after.roots.is_empty(), "{after:?}");
    let rows: Vec<RowKey> = (before.changes.iter())
        .map(|(change, _)| RowKey { kind: Kind::Change, id: change.0, part: 0 })
        .collect();
    assert!(store.read(key(&id), rows).await.unwrap().iter().all(Option::is_none));
    assert!(after.meta.is_some_and(|meta| meta.len() < 200), "a small record is left");
    assert!(!store.load(key(other.id())).await.unwrap().changes.is_empty());

    // Who never had it hears so at once. Who has it keeps it, and there is nothing of it to lose.
    is_unavailable(&http, &id).await;
    assert_eq!((title(&hers).as_deref(), hers.confirmed()), (Some("Tiles"), true));
    ann.close().await.unwrap();
    drop((hers, other));
    let ann = peer(home.path(), "ann");
    ann.connect(&url).unwrap();
    ann.flush(SOON).await.unwrap();

    // Ben was away, and wrote.
    let ben = peer(home.path(), "ben");
    let his = ben.find(id.as_str()).await.unwrap();
    rename(&his, "Slates").await;
    let mut told = his.watch();
    ben.connect(&url).unwrap();
    let is_refused = |waited: Result<(), ConfirmError>| match waited {
        Err(ConfirmError::Refused { document, code, reason }) => {
            assert_eq!((&document, code), (&id, RefuseCode::Deleted));
            assert!(reason.contains("What you have stays with you"), "{reason}");
        }
        other => panic!("{other:?}"),
    };
    let waited = Instant::now();
    is_refused(his.wait_confirmed(SOON).await);
    assert!(waited.elapsed() < Duration::from_secs(5), "not only at the deadline");
    let event = async {
        loop {
            if let DocumentEvent::Refused { hash, code, .. } = told.next().await {
                return (hash, code);
            }
        }
    };
    let event = timeout(SOON, event).await.unwrap();
    assert_eq!(event, (his.heads().unwrap()[0], RefuseCode::Deleted));
    // He is told of what he writes next, too, and of all documents together.
    rename(&his, "Shingles").await;
    is_refused(his.wait_confirmed(SOON).await);
    is_refused(ben.flush(SOON).await);
    assert_eq!(his.refusal().unwrap().code, RefuseCode::Deleted);
    assert_eq!((title(&his).as_deref(), his.confirmed()), (Some("Shingles"), false));

    // It is the same after a restart.
    relay_one.shutdown().await.unwrap();
    drop(store);
    let store = open();
    let changes = store.load(key(&id)).await.unwrap().changes;
    assert!(changes.is_empty(), "nothing of it came back");
    let (relay_two, http) = relay(&store).await;
    is_unavailable(&http, &id).await;
    ben.connect(&format!("ws://{}", http.0)).unwrap();
    until(async || matches!(his.wait_confirmed(SOON).await, Err(ConfirmError::Refused { .. })))
        .await;
    assert_eq!(title(&his).as_deref(), Some("Shingles"));
    // What it says can go on under another name.
    let copy = ben.import(his.read(automerge::Automerge::save).unwrap().into()).await.unwrap();
    ben.restore_entity(&copy).await.unwrap();
    copy.wait_confirmed(SOON).await.unwrap();
    sleep(LONG).await;
    assert_eq!(purged(&relay_two).await, 0, "once is enough, and the copy lives");
    for peer in [ann, ben] {
        peer.close().await.unwrap();
    }
    relay_two.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_something_keeps_is_not_purged() {
    let store = store::memory().unwrap();
    let (relay, http) = relay(&store).await;
    let ann = in_memory(&http);
    let task = |title: &str| make(&ann, "task", json!({ "title": title }));
    let (referred, disputed, restored) = (task("a").await, task("b").await, task("c").await);
    let content = json!({ "title": "d", "parent": referred.url().to_string() });
    let part = make(&ann, "task", content).await;
    let note = make(&ann, "note", json!({ "title": "e" })).await;

    // Two titles of one task, which nobody decided between.
    let before = disputed.heads().unwrap();
    for title in ["one", "other"] {
        let put = disputed.change_at(&before, |tx| Ok(tx.put(ROOT, "title", title)?));
        put.await.unwrap();
    }
    let open = {
        disputed.wait_confirmed(SOON).await.unwrap();
        http.open(1).await
    };
    for document in [&referred, &disputed, &restored, &note] {
        // Not asked whether something refers to it, as one who does not know the other document.
        document.change(|tx| Ok(entity::delete(tx, now_ms())?)).await.unwrap();
    }
    ann.restore_entity(&restored).await.unwrap();
    ann.flush(SOON).await.unwrap();
    sleep(LONG).await;
    assert_eq!(purged(&relay).await, 0);

    // Once nothing keeps them, they go.
    for conflict in http.open(2).await {
        if conflict["code"] == "value" {
            assert_eq!(conflict["id"], open[0]["id"]);
            let id = conflict["id"].as_str().unwrap();
            assert_eq!(http.resolve(id, &json!({ "choice": "now" })).await.0, 200);
        }
    }
    until(async || purged(&relay).await == 1).await;
    is_unavailable(&http, disputed.id()).await;
    part.change(|tx| Ok(tx.delete(ROOT, "parent")?)).await.unwrap();
    until(async || purged(&relay).await == 2).await;
    is_unavailable(&http, referred.id()).await;
    for document in [&restored, &part, &note] {
        document.wait_confirmed(SOON).await.unwrap();
        let ben = in_memory(&http);
        ben.find_within(document.id().as_str(), SOON).await.unwrap();
        ben.close().await.unwrap();
    }

    // A restore that comes too late is refused like any other write; the copy has it.
    ann.restore_entity(&disputed).await.unwrap();
    let refused = disputed.wait_confirmed(SOON).await;
    assert!(matches!(refused, Err(ConfirmError::Refused { .. })), "{refused:?}");
    assert!(!disputed.read(entity::is_deleted).unwrap());
    ann.close().await.unwrap();
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expired_while_the_relay_was_down_goes_when_it_starts() {
    let home = tempfile::tempdir().unwrap();
    let open = || store::open(home.path(), Engine::Sled, &Options::default()).unwrap();
    let (first, http) = relay(&open()).await;
    let ann = in_memory(&http);
    let task = make(&ann, "task", json!({ "title": "a" })).await;
    task.wait_confirmed(SOON).await.unwrap();
    first.shutdown().await.unwrap();
    task.change(|tx| Ok(entity::delete(tx, now_ms() - 60_000)?)).await.unwrap();
    // The relay hears of the deletion when it is a minute old, but the change is of just now.
    let (second, http) = relay(&open()).await;
    ann.connect(&format!("ws://{}", http.0)).unwrap();
    task.wait_confirmed(SOON).await.unwrap();
    let heard = Instant::now();
    second.shutdown().await.unwrap();
    sleep(Duration::from_secs(2).saturating_sub(heard.elapsed())).await;
    let (third, http) = relay(&open()).await;
    until(async || purged(&third).await == 1).await;
    is_unavailable(&http, task.id()).await;
    ann.close().await.unwrap();
    third.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_removes_its_own_copy_when_it_is_told_to() {
    let store = store::memory().unwrap();
    let (relay, http) = relay(&store).await;
    let ann_store = store::memory().unwrap();
    let ann = Peer::builder("memory").store(Arc::clone(&ann_store)).open().unwrap();
    let note = make(&ann, "note", json!({ "title": "a" })).await;
    let no = ann.purge(&note, true).await.unwrap_err();
    assert!(no.to_string().contains("is not deleted"), "{no}");
    ann.delete_entity(&note).await.unwrap();
    let no = ann.purge(&note, false).await.unwrap_err();
    assert!(no.to_string().contains("no relay has said"), "{no}");
    ann.connect(&format!("ws://{}", http.0)).unwrap();
    note.wait_confirmed(SOON).await.unwrap();
    ann.purge(&note, false).await.unwrap();
    assert!(ann.documents().await.unwrap().is_empty());
    let key = DocumentKey { tenant: Tenant::default(), document: note.id().clone() };
    let left = ann_store.load(key).await.unwrap();
    assert!(left.meta.is_none() && left.changes.is_empty());
    assert!(note.change(|tx| Ok(tx.put(ROOT, "title", "b")?)).await.is_err(), "it is gone here");

    // What others write of it does not bring it back, nor does a relay that comes and goes; asking
    // for it does.
    let ben = in_memory(&http);
    let his = ben.find_within(note.id().as_str(), SOON).await.unwrap();
    rename(&his, "c").await;
    his.wait_confirmed(SOON).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    assert!(ann.documents().await.unwrap().is_empty());
    let id = note.id().clone();
    drop(note);
    let again = ann.find_within(id.as_str(), SOON).await.unwrap();
    assert_eq!(title(&again).as_deref(), Some("c"));
    for peer in [ann, ben] {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}
