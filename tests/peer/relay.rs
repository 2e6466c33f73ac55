//! Peers and a relay over real sockets: edits travel, survive separation, and are confirmed.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{sync::Arc, time::Duration};

use automerge::{ObjId, ObjType, ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::{
    peer::{Document, DocumentEvent, FindError, Peer, Status},
    relay::{Relay, RelayConfig},
    store::{self, Store},
    worker::{InProcess, WorkerLimits},
};

const ABSENT: &str = "automerge:2akvofn6L1o4RMUEMQi7qzwRjKWZ";
/// Long enough for a busy machine; nothing waits for it where all is well.
const SOON: Duration = Duration::from_secs(20);

async fn relay(store: Arc<dyn Store>, port: u16) -> Relay {
    let config = RelayConfig { port, admin: None, shards: 2, ..RelayConfig::default() };
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    Relay::start(config, store, worker).await.unwrap()
}

fn url(relay: &Relay) -> String {
    format!("ws://{}", relay.addr())
}

struct Home {
    peer: Peer,
    _directory: tempfile::TempDir,
}

fn home(url: &str) -> Home {
    let directory = tempfile::tempdir().unwrap();
    Home { peer: Peer::builder(directory.path()).relay(url).open().unwrap(), _directory: directory }
}

async fn note(peer: &Peer) -> (Document, ObjId) {
    let document = peer.create().await.unwrap();
    let text = document.change(|tx| Ok(tx.put_object(ROOT, "text", ObjType::Text)?)).await.unwrap();
    (document, text.value)
}

fn text(document: &Document) -> String {
    document
        .read(|doc| match doc.get(ROOT, "text").unwrap() {
            Some((_, id)) => doc.text(id).unwrap(),
            None => String::new(),
        })
        .unwrap()
}

/// Waits until the document says so.
async fn until(document: &Document, mut done: impl FnMut(&str) -> bool) {
    let mut watcher = document.watch();
    let waited = async {
        while !done(&text(document)) {
            watcher.next().await;
        }
    };
    tokio::time::timeout(SOON, waited)
        .await
        .unwrap_or_else(|_| panic!("still {:?}", text(document)));
}

#[tokio::test]
async fn two_peers_edit_one_text_live() {
    let relay = relay(store::memory().unwrap(), 0).await;
    let (alice, bob) = (home(&url(&relay)), home(&url(&relay)));
    let (hers, id) = note(&alice.peer).await;
    hers.wait_confirmed(SOON).await.unwrap();
    let his = bob.peer.find_within(&hers.url().to_string(), SOON).await.unwrap();
    until(&his, |_| his.heads().unwrap() == hers.heads().unwrap()).await;

    let ids = (id.clone(), his.read(|doc| doc.get(ROOT, "text").unwrap().unwrap().1).unwrap());
    for _ in 0..20 {
        let (one, two) = tokio::join!(
            hers.change(|tx| Ok(tx.splice_text(&ids.0, 0, 0, "a")?)),
            his.change(|tx| Ok(tx.splice_text(&ids.1, 0, 0, "b")?)),
        );
        one.unwrap();
        two.unwrap();
    }
    until(&hers, |text| text.len() == 40).await;
    until(&his, |text| text.len() == 40).await;
    assert_eq!(text(&hers), text(&his));
    hers.wait_confirmed(SOON).await.unwrap();
    alice.peer.flush(SOON).await.unwrap();
    alice.peer.close().await.unwrap();
    bob.peer.close().await.unwrap();
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn offline_edits_of_an_earlier_run_converge_after_reconnecting() {
    let relay = relay(store::memory().unwrap(), 0).await;
    let directory = tempfile::tempdir().unwrap();
    let peer = Peer::open(directory.path()).unwrap();
    let (document, id) = note(&peer).await;
    peer.connect(&url(&relay)).unwrap();
    document.wait_confirmed(SOON).await.unwrap();
    let name = document.url().to_string();
    peer.close().await.unwrap();
    drop((peer, document));

    let bob = home(&url(&relay));
    let his = bob.peer.find_within(&name, SOON).await.unwrap();
    let his_id = his.read(|doc| doc.get(ROOT, "text").unwrap().unwrap().1).unwrap();
    his.change(|tx| Ok(tx.splice_text(&his_id, 0, 0, "bob")?)).await.unwrap();

    let peer = Peer::open(directory.path()).unwrap();
    let document = peer.find(&name).await.unwrap();
    document.change(|tx| Ok(tx.splice_text(&id, 0, 0, "offline ")?)).await.unwrap();
    drop(document);
    peer.close().await.unwrap();
    drop(peer);

    // Nobody opens the document in this run: it goes to the relay all the same.
    let peer = Peer::open(directory.path()).unwrap();
    peer.connect(&url(&relay)).unwrap();
    until(&his, |text| text.contains("offline") && text.contains("bob")).await;
    peer.flush(SOON).await.unwrap();
    let document = peer.find(&name).await.unwrap();
    until(&document, |text| text.contains("bob")).await;
    assert_eq!(text(&document), text(&his));
    peer.close().await.unwrap();
    bob.peer.close().await.unwrap();
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_relay_that_goes_and_comes_back_is_found_again() {
    let data = tempfile::tempdir().unwrap();
    let open =
        || store::open(data.path(), store::Engine::Fjall, &store::Options::default()).unwrap();
    let first = relay(open(), 0).await;
    let port = first.addr().port();
    let alice = home(&url(&first));
    let (hers, id) = note(&alice.peer).await;
    hers.wait_confirmed(SOON).await.unwrap();
    let mut status = alice.peer.status();
    first.shutdown().await.unwrap();
    status.wait_for(|status| !status.is_online()).await.unwrap();
    hers.change(|tx| Ok(tx.splice_text(&id, 0, 0, "meanwhile")?)).await.unwrap();
    assert!(!hers.confirmed());

    let second = relay(open(), port).await;
    // The draining relay asked for patience; an application that knows better need not wait.
    alice.peer.connect(&url(&second)).unwrap();
    hers.wait_confirmed(SOON).await.unwrap();
    let bob = home(&url(&second));
    let his = bob.peer.find_within(&hers.url().to_string(), SOON).await.unwrap();
    until(&his, |text| text == "meanwhile").await;
    assert!(matches!(&*status.borrow(), Status::Online { .. }));
    alice.peer.close().await.unwrap();
    bob.peer.close().await.unwrap();
    second.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_no_relay_has_is_unavailable_until_somebody_brings_it() {
    let relay = relay(store::memory().unwrap(), 0).await;
    let (alice, bob) = (home(&url(&relay)), home(&url(&relay)));
    bob.peer.status().wait_for(Status::is_online).await.unwrap();
    let error = bob.peer.find_within(ABSENT, SOON).await.unwrap_err();
    assert!(matches!(error, FindError::Unavailable(_)), "{error}");

    let (hers, _) = note(&alice.peer).await;
    hers.wait_confirmed(SOON).await.unwrap();
    bob.peer.find_within(&hers.url().to_string(), SOON).await.unwrap();
    alice.peer.close().await.unwrap();
    bob.peer.close().await.unwrap();
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn presence_reaches_those_who_have_the_document_open() {
    let relay = relay(store::memory().unwrap(), 0).await;
    let (alice, bob) = (home(&url(&relay)), home(&url(&relay)));
    let (hers, _) = note(&alice.peer).await;
    hers.wait_confirmed(SOON).await.unwrap();
    let his = bob.peer.find_within(&hers.url().to_string(), SOON).await.unwrap();
    his.wait_confirmed(SOON).await.unwrap();
    let mut watcher = his.watch();
    hers.broadcast(&b"\x65hello"[..]);
    let heard = async {
        loop {
            if let DocumentEvent::Ephemeral { data, .. } = watcher.next().await {
                break data;
            }
        }
    };
    assert_eq!(tokio::time::timeout(SOON, heard).await.unwrap(), &b"\x65hello"[..]);
    alice.peer.close().await.unwrap();
    bob.peer.close().await.unwrap();
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_thousand_changes_made_offline_arrive() {
    let relay = relay(store::memory().unwrap(), 0).await;
    let directory = tempfile::tempdir().unwrap();
    let peer = Peer::builder(directory.path()).engine(store::Engine::Fjall).open().unwrap();
    let (document, id) = note(&peer).await;
    for _ in 0..1_000 {
        document.change(|tx| Ok(tx.splice_text(&id, 0, 0, "x")?)).await.unwrap();
    }
    peer.connect(&url(&relay)).unwrap();
    document.wait_confirmed(SOON).await.unwrap();
    let bob = home(&url(&relay));
    let his = bob.peer.find_within(&document.url().to_string(), SOON).await.unwrap();
    until(&his, |text| text.len() == 1_000).await;
    peer.close().await.unwrap();
    bob.peer.close().await.unwrap();
    relay.shutdown().await.unwrap();
}
