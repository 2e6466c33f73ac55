//! The policy `role`: whose write stands is said by the schema, and decided by the relay.

#![allow(clippy::unwrap_used, reason = "a test says where it fails")]

use std::sync::Arc;

use automerge::{
    ROOT,
    transaction::{Transactable as _, Transaction},
};
use concord::{
    peer::{Document, Peer},
    store,
    worker::{InProcess, WorkerLimits},
};
use serde_json::{Value as Json, json};

use crate::{
    entities_common::{has, make, until},
    http_common::{SOON, relay_with},
};

const SCHEMA: &str = r#"
[roles]
owner = ["ann@example.org"]
editor = ["*@example.org"]

[types.task.fields]
state = { kind = "string", policy = "role", roles = ["owner", "editor"] }
"#;

fn away(author: &str) -> Peer {
    let memory = Peer::builder("memory").store(store::memory().unwrap());
    memory.author(author).open().unwrap()
}

async fn put(document: &Document, state: &str) {
    let write = |tx: &mut Transaction<'_>| Ok(tx.put(ROOT, "state", state)?);
    document.change(write).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stronger_role_stands_and_who_has_none_is_not_overruled() {
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let set = |config: &mut concord::relay::RelayConfig| config.schema = Some(SCHEMA.to_owned());
    let (relay, http) = relay_with(store::memory().unwrap(), worker, set).await;
    let url = format!("ws://{}", http.0);
    let people = ["ann@example.org", "ben@example.org", "eve@else.org"].map(away);
    let first = {
        people[0].connect(&url).unwrap();
        let first = make(&people[0], "task", json!({"state": "new"})).await;
        first.wait_confirmed(SOON).await.unwrap();
        first
    };
    let mut documents = vec![first];
    for person in &people[1..] {
        person.connect(&url).unwrap();
        documents.push(person.find(documents[0].id().as_str()).await.unwrap());
        until("it is there", || has(documents.last().unwrap(), "state").is_some()).await;
    }
    // Nobody hears of anybody.
    relay.shutdown().await.unwrap();
    put(&documents[1], "ben's").await;
    put(&documents[0], "ann's").await;

    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let (relay, http) = relay_with(store::memory().unwrap(), worker, set).await;
    let url = format!("ws://{}", http.0);
    people[1].connect(&url).unwrap();
    people[0].connect(&url).unwrap();
    let all = |value: &str| {
        documents[..2].iter().all(|document| has(document, "state").as_deref() == Some(value))
    };
    until("ann's stands", || all("ann's")).await;
    until("it is on record", || {
        let decisions = documents[1].decisions().unwrap();
        decisions.iter().any(|past| past.decided.choice == "policy-role")
    })
    .await;
    assert_eq!(http.open(0).await, Vec::<Json>::new());

    // Eve has neither role: a person decides.
    put(&documents[2], "eve's").await;
    people[2].connect(&url).unwrap();
    let open = http.open(1).await;
    assert_eq!((&open[0]["code"], &open[0]["path"]), (&json!("value"), &json!("state")));
    for person in people {
        person.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}
