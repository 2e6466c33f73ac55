//! More documents than a relay takes of one connection: what is edited goes to it all the same, and
//! what is opened comes.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{path::Path, sync::Arc, time::Duration};

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::{
    peer::{Document, Peer},
    relay::{Relay, RelayConfig},
    store,
    worker::{InProcess, WorkerLimits},
};
use concord_protocol::Limits;
use tokio::time::{sleep, timeout};

const TAKEN: usize = 20;
const STORED: usize = 90;
const PATIENCE: Duration = Duration::from_mins(1);

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.documents_per_connection = TAKEN;
    limits
}

async fn relay() -> (Relay, String) {
    let config = RelayConfig { port: 0, admin: None, limits: limits(), ..RelayConfig::default() };
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let relay = Relay::start(config, store::memory().unwrap(), worker).await.unwrap();
    let url = format!("ws://{}", relay.addr());
    (relay, url)
}

fn peer(directory: &Path, relay: Option<&str>) -> Peer {
    let peer = Peer::builder(directory).limits(limits());
    let peer = peer.debounce(Duration::ZERO, Duration::ZERO);
    let peer = match relay {
        Some(relay) => peer.relay(relay),
        None => peer,
    };
    peer.open().unwrap()
}

async fn write(document: &Document, n: i64) {
    document.change(|tx| Ok(tx.put(ROOT, "n", n)?)).await.unwrap();
}

fn number(document: &Document) -> Option<i64> {
    document.read(|doc| doc.get(ROOT, "n").unwrap().and_then(|(value, _)| value.as_i64())).unwrap()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not {what}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outbox_that_is_longer_than_a_relay_takes_is_confirmed_and_the_rest_comes_when_opened() {
    let (relay, url) = relay().await;
    let home = tempfile::tempdir().unwrap();
    let offline = peer(home.path(), None);
    let mut urls = Vec::new();
    for n in 0..STORED {
        let document = offline.create().await.unwrap();
        write(&document, i64::try_from(n).unwrap()).await;
        urls.push(document.url().to_string());
    }
    offline.close().await.unwrap();
    drop(offline);

    let here = peer(home.path(), Some(&url));
    here.flush(PATIENCE).await.unwrap();
    until("told of as many as there is room for", || here.overview().left_out > 0).await;
    let left_out = here.overview().left_out;
    assert!((STORED - TAKEN..STORED).contains(&left_out), "{left_out}");

    // Some are edited by somebody who, one by one, has them open.
    let elsewhere = tempfile::tempdir().unwrap();
    let there = peer(elsewhere.path(), Some(&url));
    for (n, url) in urls.iter().enumerate().step_by(10) {
        let document = there.find(url).await.unwrap();
        assert_eq!(number(&document), Some(i64::try_from(n).unwrap()));
        write(&document, 1_000).await;
        document.wait_confirmed(PATIENCE).await.unwrap();
    }
    // What was left out comes when it is opened, and what is edited here goes there.
    for url in urls.iter().step_by(10) {
        let document = here.find(url).await.unwrap();
        until("what the other wrote", || number(&document) == Some(1_000)).await;
        write(&document, 2_000).await;
        document.wait_confirmed(PATIENCE).await.unwrap();
    }
    let last = there.find(&urls[80]).await.unwrap();
    until("what was written here", || number(&last) == Some(2_000)).await;
    here.close().await.unwrap();
    there.close().await.unwrap();
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_more_open_than_a_relay_takes_the_others_go_on() {
    let (relay, url) = relay().await;
    let home = tempfile::tempdir().unwrap();
    let here = peer(home.path(), Some(&url));
    let mut open = Vec::new();
    for n in 0..TAKEN + 5 {
        let document = here.create().await.unwrap();
        write(&document, i64::try_from(n).unwrap()).await;
        open.push(document);
    }
    until("as many confirmed as there is room for", || {
        open.iter().filter(|document| document.confirmed()).count() >= TAKEN
    })
    .await;
    // Let go of some: there is room for the others.
    open.drain(..10);
    here.flush(PATIENCE).await.unwrap();
    here.close().await.unwrap();
    relay.shutdown().await.unwrap();
}
