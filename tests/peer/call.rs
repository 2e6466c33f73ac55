//! A Rust program that asks its relay over the connection that it has: the answers are those of HTTP.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{sync::Arc, time::Duration};

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::{
    peer::{Answer, CallError, Peer, Request, Status},
    relay::RelayConfig,
    store,
    worker::{InProcess, WorkerLimits},
};
use concord_protocol::Message;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::{
    http_common::{Http, SOON, relay_with},
    pretender::Pretender,
};

const SCHEMA: &str = "[types.trip.fields]\ncount = \"integer\"\n";

async fn started(configure: impl FnOnce(&mut RelayConfig)) -> (concord::relay::Relay, Http) {
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    relay_with(store::memory().unwrap(), worker, configure).await
}

async fn peer(http: &Http) -> Peer {
    connected(&format!("ws://{}", http.0)).await
}

async fn connected(url: &str) -> Peer {
    let peer = Peer::builder("memory").store(store::memory().unwrap()).open().unwrap();
    peer.connect(url).unwrap();
    timeout(SOON, peer.status().wait_for(Status::is_online)).await.unwrap().unwrap();
    peer
}

async fn ask(peer: &Peer, request: Request) -> (u16, Value) {
    let answer = peer.call(request).await.unwrap();
    (answer.status, answer.json().unwrap_or_default())
}

/// What is open, once it is one.
async fn one(peer: &Peer) -> Value {
    let listed = async {
        loop {
            let (status, body) = ask(peer, Request::get("/v1/conflicts")).await;
            assert_eq!(status, 200, "{body}");
            if body["complete"] == true && body["open"] == 1 {
                return body["conflicts"][0].clone();
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, listed).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_seen_and_decided_over_the_connection() {
    let (relay, http) = started(|config| config.schema = Some(SCHEMA.to_owned())).await;
    let ann = peer(&http).await;
    let document = ann.create().await.unwrap();
    document.change(|tx| Ok(tx.put(ROOT, "count", 1)?)).await.unwrap();
    let before = document.heads().unwrap();
    let write = async |n: i64| {
        document.change_at(&before, |tx| Ok(tx.put(ROOT, "count", n)?)).await.unwrap();
    };
    write(5).await;
    write(7).await;
    let first = one(&ann).await;
    let path = |conflict: &Value, what: &str| {
        format!("/v1/conflicts/{}{what}", conflict["id"].as_str().unwrap())
    };
    let shown = ann.call(Request::get(path(&first, ""))).await.unwrap();
    assert!(shown.is_ok());
    let tag = shown.etag.clone().unwrap();
    assert_eq!(shown.json().unwrap()["sides"].as_array().unwrap().len(), 2);
    let (_, over_http) = http.get(&path(&first, "")).await;
    assert_eq!(over_http, shown.json().unwrap());

    write(9).await;
    let second = loop {
        let now = one(&ann).await;
        if now["id"] != first["id"] {
            break now;
        }
    };
    let decision = json!({ "choice": { "value": 6 }, "reason": "in between" });
    let late = Request::post(path(&first, "/resolve"), decision.clone()).if_match(tag);
    let (status, problem) = ask(&ann, late).await;
    assert_eq!((status, &problem["successor"]), (409, &second["id"]), "{problem}");
    let other = Request::post(path(&second, "/resolve"), decision.clone()).if_match("\"other\"");
    assert_eq!(ask(&ann, other).await.0, 409);
    let (status, decided) = ask(&ann, Request::post(path(&second, "/resolve"), decision)).await;
    assert_eq!((status, &decided["resolved"]), (200, &second["id"]), "{decided}");
    let mut changes = document.watch();
    let there = async {
        let count = || document.read(|doc| doc.get(ROOT, "count").unwrap().unwrap().0.as_i64());
        while count().unwrap() != Some(6) {
            changes.next().await;
        }
    };
    timeout(SOON, there).await.unwrap();

    let schema = ann.call(Request::get("/v1/schema")).await.unwrap();
    assert_eq!((schema.status, &*schema.body), (200, SCHEMA));
    let again = Request::get("/v1/schema").if_none_match(schema.etag.clone().unwrap());
    let same = ann.call(again).await.unwrap();
    assert_eq!(same, Answer { status: 304, etag: schema.etag, body: String::new() });
    assert_eq!(ask(&ann, Request::get("/metrics")).await.0, 404);
    // Many at once: each is answered, and nothing is mixed up.
    let many = (0..50).map(|n| {
        let (ann, path) = (&ann, format!("/v1/conflicts/nonsense{n}"));
        async move { ask(ann, Request::get(path)).await.0 }
    });
    let statuses = futures_util::future::join_all(many).await;
    assert!(statuses.iter().all(|status| [400, 429].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&400));

    // Events are not for this: they are hung up on, and there is room for others.
    for _ in 0..20 {
        let told = ann.call(Request::get("/v1/conflicts/events")).await.unwrap();
        assert!(told.is_ok() || told.status == 429);
    }
    ann.close().await.unwrap();
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_be_asked_is_not_waited_for() {
    let alone = Peer::builder("memory").store(store::memory().unwrap()).open().unwrap();
    let ask = Request::get("/v1/conflicts");
    assert_eq!(alone.call(ask.clone()).await, Err(CallError::Offline));
    let long = Request::get(format!("/v1/{}", "x".repeat(5_000)));
    assert_eq!(alone.call(long).await, Err(CallError::TooLarge));
    alone.close().await.unwrap();
    assert_eq!(alone.call(ask.clone()).await, Err(CallError::Closed));

    // One that is silent is told when nobody waits any more; one that ends leaves nobody waiting.
    let mut silent = Pretender::start("silent").await;
    let ann = connected(&silent.url()).await;
    let within = Duration::from_millis(100);
    assert_eq!(ann.call_within(ask.clone(), within).await, Err(CallError::TimedOut));
    let mut heard = Vec::new();
    while heard.len() < 2 {
        match timeout(SOON, silent.heard.recv()).await.unwrap().unwrap() {
            Message::Call(call) => heard.push(call.id),
            Message::HangUp { id } => heard.push(id),
            _ => {}
        }
    }
    assert_eq!(heard[0], heard[1]);
    let asking = ann.call(ask.clone());
    let ending = async {
        while !matches!(silent.heard.recv().await.unwrap(), Message::Call(_)) {}
        drop(silent);
    };
    assert_eq!(
        timeout(SOON, futures_util::future::join(asking, ending)).await.unwrap().0,
        Err(CallError::Lost)
    );
    timeout(SOON, ann.status().wait_for(|status| !status.is_online())).await.unwrap().unwrap();
    assert_eq!(ann.call(ask).await, Err(CallError::Offline));
    ann.close().await.unwrap();
}
