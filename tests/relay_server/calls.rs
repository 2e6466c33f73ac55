//! Requests over the socket: what they may ask, and what they cannot do to others.

use std::time::{Duration, Instant};

use automerge::{AutoCommit, ROOT, transaction::Transactable as _};
use concord_protocol::{
    Answer, Call, CloseCode, DocumentId, Message, PeerMetadata, codec,
    handshake::SUBPROTOCOL,
    limits::{CALL_BODY_BYTES_MAX, CALLS_MAX},
};
use serde_json::{Value, json};

use crate::{
    client::{Client, Heard},
    world::World,
};

async fn speaking(world: &World, name: &str) -> Client {
    Client::join_speaking(&world.url(), name, PeerMetadata::default()).await
}

fn get(id: u32, path: &str) -> Call {
    Call { id, method: "GET".to_owned(), path: path.to_owned(), ..Call::default() }
}

fn post(id: u32, path: &str, body: &Value) -> Call {
    let body = Some(body.to_string());
    Call { id, method: "POST".to_owned(), path: path.to_owned(), body, ..Call::default() }
}

async fn call(client: &mut Client, call: Call) -> Answer {
    let id = call.id;
    client.send(&Message::Call(call)).await;
    let answer = answer(client).await;
    assert_eq!(answer.id, id);
    answer
}

async fn answer(client: &mut Client) -> Answer {
    loop {
        match client.hear().await {
            Heard::Message(Message::Answer(answer)) => return answer,
            Heard::Message(Message::Sync { .. } | Message::Ack { .. }) => {}
            other => panic!("expected an answer, heard {other:?}"),
        }
    }
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap()
}

/// Gives the relay a document in which two wrote each of so many keys.
async fn quarrel(client: &mut Client, document: &DocumentId, keys: u32) {
    let mut ann = AutoCommit::new();
    ann.put(ROOT, "title", "Trip").unwrap();
    let mut ben = ann.fork();
    for key in 0..keys {
        ann.put(ROOT, format!("key{key}"), 1).unwrap();
        ben.put(ROOT, format!("key{key}"), 2).unwrap();
    }
    ann.merge(&mut ben).unwrap();
    let message = automerge::sync::Message {
        heads: ann.get_heads(),
        need: Vec::new(),
        have: Vec::new(),
        changes: ann
            .get_changes(&[])
            .iter()
            .map(|change| change.raw_bytes().to_vec())
            .collect::<Vec<_>>()
            .into(),
        flags: None,
        version: automerge::sync::MessageVersion::V1,
    };
    let message = Message::Sync {
        document: document.clone(),
        sender: client.name.clone(),
        target: client.relay.clone(),
        data: message.encode().into(),
    };
    client.send(&message).await;
}

/// What is open, once it is as many.
async fn open(client: &mut Client, count: u64) -> Value {
    for _ in 0..1_000 {
        let listed = json_of(&call(client, get(1, "/v1/conflicts?limit=500")).await);
        if listed["open"] == count && listed["complete"] == true {
            return listed["conflicts"].clone();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not {count} conflicts");
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_are_listed_shown_decided_and_told_of() {
    let world = World::new().await;
    let mut watcher = speaking(&world, "watcher").await;
    let told = call(&mut watcher, get(9, "/v1/conflicts/events")).await;
    assert_eq!((told.status, &*told.body), (200, ""));
    let mut ann = speaking(&world, "ann").await;
    quarrel(&mut ann, &DocumentId::from_bytes(b"quarrel"), 1).await;
    let listed = open(&mut ann, 1).await;
    let id = listed[0]["id"].as_str().unwrap().to_owned();
    let event = async |watcher: &mut Client| match watcher.hear().await {
        Heard::Message(Message::Event { id: 9, event, data }) => {
            (event, serde_json::from_str::<Value>(&data).unwrap())
        }
        other => panic!("expected an event, heard {other:?}"),
    };
    let (name, data) = event(&mut watcher).await;
    assert_eq!((&*name, data["conflict"]["id"].as_str()), ("opened", Some(&*id)), "{data}");

    let shown = call(&mut ann, get(2, &format!("/v1/conflicts/{id}"))).await;
    assert_eq!((shown.status, shown.etag.as_deref()), (200, Some(&*format!("\"{id}\""))));
    let path = format!("/v1/conflicts/{id}/resolve");
    let decision = json!({ "choice": { "side": 1 } });
    let stale = Call { if_match: Some("\"0\"".to_owned()), ..post(3, &path, &decision) };
    assert_eq!(call(&mut ann, stale).await.status, 409);
    let meant = Call { if_match: shown.etag, ..post(4, &path, &decision) };
    let decided = call(&mut ann, meant).await;
    assert_eq!(decided.status, 200, "{}", decided.body);
    assert_eq!(json_of(&decided)["resolved"], *id);
    let (name, data) = event(&mut watcher).await;
    assert_eq!((&*name, data["id"].as_str()), ("closed", Some(&*id)), "{data}");
    open(&mut ann, 0).await;

    // Nothing more is told to whoever hung up.
    watcher.send(&Message::HangUp { id: 9 }).await;
    watcher.is_served().await;
    quarrel(&mut ann, &DocumentId::from_bytes(b"another"), 1).await;
    open(&mut ann, 1).await;
    watcher.is_served().await;

    // The end of the relay is the end of the events.
    let told = call(&mut watcher, get(10, "/v1/conflicts/events")).await;
    assert_eq!(told.status, 200);
    tokio::spawn(world.relay.shutdown());
    loop {
        match watcher.hear().await {
            Heard::Message(Message::HangUp { id: 10 }) => break,
            Heard::Message(Message::GoAway { .. }) => {}
            other => panic!("expected the end of the events, heard {other:?}"),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_asked_is_said_so() {
    let world = World::new().await;
    let mut ann = speaking(&world, "ann").await;
    let unknown = "0".repeat(32);
    for (asked, status) in [
        (get(1, "/metrics"), 404),
        (get(1, "/"), 404),
        (get(1, "/v1/"), 404),
        (get(1, "/v1/unheard/of"), 404),
        (get(1, "http://elsewhere/v1/conflicts"), 404),
        (get(1, "/v1/conflicts/../../metrics"), 404),
        (get(1, "not a path"), 400),
        (get(1, "/v1/conflicts?limit=many"), 400),
        (get(1, &format!("/v1/conflicts/{unknown}")), 404),
        (get(1, "/v1/schema"), 404),
        (post(1, "/v1/conflicts", &json!({})), 405),
        (Call { method: "G T".to_owned(), ..get(1, "/v1/conflicts") }, 400),
        (Call { if_match: Some("a\nb".to_owned()), ..get(1, "/v1/conflicts") }, 400),
        (post(1, &format!("/v1/conflicts/{unknown}/resolve"), &json!({"choice": "before"})), 404),
        (post(1, &format!("/v1/conflicts/{unknown}/resolve"), &json!({"choice": 7})), 400),
    ] {
        let answer = call(&mut ann, asked.clone()).await;
        assert_eq!(answer.status, status, "{asked:?}: {}", answer.body);
    }
    assert!((world.metric("concord_calls_total").await - 15.0).abs() < 0.1);
    // One of version 1 asks in vain, with or without the subprotocol.
    let mut old = world.join("old").await;
    old.send(&Message::Call(get(1, "/v1/conflicts"))).await;
    old.is_served().await;
    let mut silent = Client::dial(&world.url(), Some(SUBPROTOCOL), None).await;
    silent.say_join("silent").await;
    silent.send(&Message::Call(get(1, "/v1/conflicts"))).await;
    silent.is_served().await;
    // What is larger than may be is no message.
    let body = "x".repeat(CALL_BODY_BYTES_MAX + 1);
    ann.send(&Message::Call(Call { body: Some(body), ..get(2, "/v1/conflicts") })).await;
    assert_eq!(ann.closed().await.0, CloseCode::Protocol.code());
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_calls_are_under_way_and_those_given_up_are_not() {
    let world = World::new().await;
    let mut ann = speaking(&world, "ann").await;
    let most = u32::try_from(CALLS_MAX).unwrap();
    for id in 0..most {
        assert_eq!(call(&mut ann, get(id, "/v1/conflicts/events")).await.status, 200);
    }
    let refused = call(&mut ann, get(100, "/v1/conflicts")).await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    // The same id again takes the place of the first: there is room for it.
    for _ in 0..100 {
        ann.send(&Message::HangUp { id: 3 }).await;
        ann.send(&Message::HangUp { id: 77 }).await;
        let mut status = 429;
        while status == 429 {
            status = call(&mut ann, get(3, "/v1/conflicts/events")).await.status;
        }
        assert_eq!(status, 200);
    }
    assert_eq!(call(&mut ann, get(100, "/v1/conflicts")).await.status, 429);
    // Others are not concerned, and documents are served.
    let mut ben = speaking(&world, "ben").await;
    assert_eq!(call(&mut ben, get(0, "/v1/conflicts")).await.status, 200);
    ann.is_served().await;
}

/// Answers that nobody takes are so many and no more, and documents of others go on.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_no_answers_holds_little_and_nobody_up() {
    let world = World::with(|config| config.limits.queue_bytes = 256 * 1024).await;
    let mut ben = speaking(&world, "ben").await;
    quarrel(&mut ben, &DocumentId::from_bytes(b"long"), 300).await;
    open(&mut ben, 300).await;
    let one = call(&mut ben, get(2, "/v1/conflicts?limit=500")).await.body.len();
    assert!(one > 60_000, "{one}");

    let mut ann = Client::dial(&world.url(), Some(SUBPROTOCOL), Some(4_096)).await;
    ann.say_join_speaking("ann", PeerMetadata::default()).await;
    let start = Instant::now();
    for id in 0..200 {
        let list = codec::encode(&Message::Call(get(id, "/v1/conflicts?limit=500")));
        // A relay that reads no more is what is expected after a while.
        if tokio::time::timeout(Duration::from_millis(200), ann.send_bytes(list)).await.is_err() {
            break;
        }
    }
    ben.is_served().await;
    assert_eq!(call(&mut ben, get(3, "/v1/conflicts")).await.status, 200);
    assert!(start.elapsed() < Duration::from_secs(15));
    // Ann takes what there is: each call has one answer, and most say that there is no room.
    let (mut listed, mut refused) = (0, 0);
    while listed + refused < 200 {
        match answer(&mut ann).await.status {
            200 => listed += 1,
            429 | 503 => refused += 1,
            other => panic!("{other}"),
        }
    }
    assert!(listed >= 1 && refused >= 100, "{listed} listed, {refused} refused");
    assert_eq!(call(&mut ann, get(500, "/v1/conflicts")).await.status, 200, "there is room again");
}
