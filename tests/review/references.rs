//! References: what becomes of them when somebody deletes what they are to, and those that lead back to
//! where they began; and things that two people move to two places.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test says where it fails"
)]

use std::sync::Arc;

use automerge::{ObjType, ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::{
    entity::{self, Schema, write::place_between},
    peer::{Document, Peer},
    relay::Relay,
    review::{Conflict, Detector, desk::Wanted},
    store,
    worker::{InProcess, WorkerLimits},
};
use serde_json::{Value as Json, json};

use crate::{
    entities_common::{has, make, offline, until},
    http_common::{Http, SOON, relay_with},
};

const SCHEMA: &str = r#"
[types.project]
version = 1
fields = { title = "string" }

[types.task]
version = 1

[types.task.fields]
title = "string"
place = "position"
keeps = { kind = "reference", to = "project", on_delete = "restrict" }
dies = { kind = "reference", to = "project", on_delete = "cascade" }
clears = { kind = "reference", to = "project", on_delete = "set_null" }
revives = { kind = "reference", to = "project", on_delete = "restore" }
parent = { kind = "reference", to = "task", on_delete = "restrict", acyclic = true }
some = { kind = "set", items = { kind = "reference", to = "project", on_delete = "set_null" } }

[types.task.fields.lines]
kind = "list"
items = { kind = "reference", to = "project", on_delete = "restrict" }
"#;

async fn relay() -> (Relay, Http, Peer, Peer) {
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let store = store::memory().unwrap();
    let set = |config: &mut concord::relay::RelayConfig| config.schema = Some(SCHEMA.to_owned());
    let (relay, http) = relay_with(store, worker, set).await;
    let schema = Schema::parse(SCHEMA).unwrap();
    let ben = Peer::builder("memory").store(store::memory().unwrap()).schema(schema).open();
    (relay, http, offline(), ben.unwrap())
}

fn connect(peers: [&Peer; 2], http: &Http) {
    for peer in peers {
        peer.connect(&format!("ws://{}", http.0)).unwrap();
    }
}

async fn end(relay: Relay, peers: [Peer; 2]) {
    for peer in peers {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}

/// The same document, at another peer that is connected.
async fn at(peer: &Peer, document: &Document) -> Document {
    let found = peer.find_within(document.id().as_str(), SOON).await.unwrap();
    until("it came", || found.read(automerge::Automerge::get_heads).unwrap() == heads(document))
        .await;
    found
}

fn heads(document: &Document) -> Vec<automerge::ChangeHash> {
    document.read(automerge::Automerge::get_heads).unwrap()
}

async fn put(document: &Document, key: &str, value: &str) {
    document.change(|tx| Ok(tx.put(ROOT, key, value)?)).await.unwrap();
}

async fn delete(document: &Document) {
    document.change(|tx| Ok(entity::delete(tx, 1_700_000_000_000)?)).await.unwrap();
}

fn is_deleted(document: &Document) -> bool {
    document.read(entity::is_deleted).unwrap()
}

fn id(conflict: &Json) -> &str {
    conflict["id"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_move_tasks_below_each_other_have_a_conflict_and_one_move_is_undone() {
    let (relay, http, ann, ben) = relay().await;
    let (roof, wall) = (
        make(&ann, "task", json!({"title": "Roof"})).await,
        make(&ben, "task", json!({"title": "Wall"})).await,
    );
    put(&roof, "parent", &wall.url().to_string()).await;
    put(&wall, "parent", &roof.url().to_string()).await;
    connect([&ann, &ben], &http);
    let open = http.open(1).await.remove(0);
    assert_eq!((&open["code"], &open["path"]), (&json!("move"), &json!("parent")), "{open}");
    assert!(open["problem"].as_str().unwrap().contains("goes round in a circle: 2"), "{open}");
    let (_, shown) = http.get(&format!("/v1/conflicts/{}", id(&open))).await;
    let sides = shown["sides"].as_array().unwrap();
    let of_roof = sides.iter().position(|side| side["document"] == roof.id().as_str()).unwrap();
    assert_eq!(sides[of_roof]["value"], wall.id().as_str());
    let (status, said) = http.resolve(id(&open), &json!({"choice": {"side": 3}})).await;
    assert_eq!(status, 422, "{said}");
    assert!(said["detail"].as_str().unwrap().contains("say which side stands"), "{said}");

    // A peer with the schema that has both finds the same.
    at(&ben, &roof).await;
    let here = ben.conflicts_between().await.unwrap();
    assert_eq!(here.len(), 1);
    assert_eq!(here[0].view.id.to_string(), id(&open));

    let decision = json!({"choice": {"side": of_roof + 1}, "reason": "walls hold roofs"});
    let (status, said) = http.resolve(id(&open), &decision).await;
    assert_eq!((status, &said["document"]), (200, &json!(wall.id().as_str())), "{said}");
    assert_eq!(http.open(0).await, Vec::<Json>::new());
    until("it is at the top", || has(&wall, "parent").is_none()).await;
    assert_eq!(has(&roof, "parent"), Some(wall.url().to_string()));
    // One that is its own parent is a conflict of one, and is cleared.
    put(&wall, "parent", &wall.url().to_string()).await;
    let open = http.open(1).await.remove(0);
    let (status, _) = http.resolve(id(&open), &json!({"choice": {"side": 1}})).await;
    assert_eq!(status, 422);
    let (status, said) = http.resolve(id(&open), &json!({"choice": "delete"})).await;
    assert_eq!(status, 200, "{said}");
    until("it is cleared", || has(&wall, "parent").is_none()).await;
    end(relay, [ann, ben]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_people_move_to_two_places_is_a_move_and_in_one_of_them() {
    let (relay, http, ann, ben) = relay().await;
    let task = &Schema::parse(SCHEMA).unwrap().types["task"];
    let next = place_between(None, None, 1).unwrap();
    let last = place_between(Some(&next), None, 1).unwrap();
    let hers = ann.entity(task, "roof").await.unwrap();
    let his = ben.entity(task, "roof").await.unwrap();
    put(&hers, "place", &next).await;
    put(&his, "place", &last).await;
    connect([&ann, &ben], &http);
    let open = http.open(1).await.remove(0);
    assert_eq!((&open["code"], &open["path"]), (&json!("move"), &json!("place")), "{open}");
    // One name for it, also where nobody knows the schema.
    until("they have both", || heads(&hers) == heads(&his)).await;
    let codes = |found: Vec<Conflict>| -> Vec<(String, String)> {
        found.iter().map(|one| (one.code.to_string(), one.id.to_string())).collect()
    };
    // He has the schema of his own, and she has the relay's.
    for document in [&his, &hers] {
        let found = codes(document.conflicts().unwrap());
        assert_eq!(found, [("move".to_owned(), id(&open).to_owned())]);
    }
    let unaware = hers.read(|doc| Detector::of(&doc.get_changes(&[])).unwrap().open(hers.id()));
    assert_eq!(codes(unaware.unwrap()), [("value".to_owned(), id(&open).to_owned())]);
    let (status, said) = http.resolve(id(&open), &json!({"choice": {"value": last}})).await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(http.open(0).await, Vec::<Json>::new());
    until("it is there", || has(&hers, "place").as_deref() == Some(&last)).await;
    end(relay, [ann, ben]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_says_what_becomes_of_references_to_what_is_deleted() {
    let (relay, http, ann, ben) = relay().await;
    let door = make(&ann, "project", json!({"title": "Door"})).await;
    let wall = make(&ann, "project", json!({"title": "Wall"})).await;
    // Ben is away while Ann deletes what he refers to.
    let task = async |key: &str, project: &Document| {
        make(&ben, "task", json!({"title": key, key: project.url().to_string()})).await
    };
    let (dies, clears) = (task("dies", &door).await, task("clears", &door).await);
    let revives = task("revives", &wall).await;
    let some = make(&ben, "task", json!({"title": "some"})).await;
    some.change(|tx| {
        let set = tx.put_object(ROOT, "some", ObjType::Map)?;
        tx.put(&set, door.url().to_string(), true)?;
        Ok(tx.put(&set, wall.url().to_string(), true)?)
    })
    .await
    .unwrap();
    delete(&door).await;
    delete(&wall).await;
    // The relay is to know all that refers to them.
    connect([&ben, &ben], &http);
    ben.flush(SOON).await.unwrap();
    assert_eq!(http.open(0).await, Vec::<Json>::new());
    connect([&ann, &ann], &http);
    let in_set = |project: &Document| {
        let read = some.read(|doc| {
            let (_, set) = doc.get(ROOT, "some").unwrap().unwrap();
            doc.get(&set, project.url().to_string()).unwrap().is_some()
        });
        read.unwrap()
    };
    until("it dies too", || is_deleted(&dies)).await;
    until("it is cleared", || has(&clears, "clears").is_none()).await;
    until("it is taken out", || !in_set(&door)).await;
    until("it comes back", || !is_deleted(&wall)).await;
    assert_eq!(http.open(0).await, Vec::<Json>::new());
    // Because somebody needs it, it never went from where it need not be.
    assert!(in_set(&wall) && has(&revives, "revives").is_some());
    assert!(!is_deleted(&clears) && !is_deleted(&some));
    for (document, rule) in
        [(&dies, "cascade"), (&clears, "set_null"), (&some, "set_null"), (&wall, "restore")]
    {
        let decisions = document.decisions().unwrap();
        let last = &decisions[0].decided;
        assert!(last.is_automatic() && last.choice == format!("policy-{rule}"), "{last:?}");
    }
    end(relay, [ann, ben]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_depends_on_a_decision_waits_for_it() {
    let (relay, http, ann, ben) = relay().await;
    let door = make(&ann, "project", json!({"title": "Door"})).await;
    let dies = make(&ben, "task", json!({"dies": door.url().to_string()})).await;
    let list = make(&ben, "task", json!({"title": "list"})).await;
    list.change(|tx| {
        let lines = tx.put_object(ROOT, "lines", ObjType::List)?;
        tx.insert(&lines, 0, door.url().to_string())?;
        tx.insert(&lines, 1, "automerge:2j9knpCseyhnK8izDmLpGP5WMdZQ")?;
        Ok(tx.insert(&lines, 2, door.url().to_string())?)
    })
    .await
    .unwrap();
    delete(&door).await;
    connect([&ann, &ben], &http);
    let open = http.open(2).await;
    let of = |document: &Document| {
        open.iter().find(|one| one["document"] == document.id().as_str()).unwrap()
    };
    assert!(open.iter().all(|one| one["code"] == "dangling"), "{open:?}");
    assert!(!is_deleted(&dies), "the project may come back");
    let apart = ben.conflicts_between().await.unwrap();
    assert!(apart.iter().all(|apart| apart.steps(&Wanted::Before).is_err()));
    let (status, said) = http.resolve(id(of(&list)), &json!({"choice": {"value": "x"}})).await;
    assert_eq!(status, 422, "{said}");
    let (status, said) = http.resolve(id(of(&list)), &json!({"choice": {"side": 2}})).await;
    assert_eq!(status, 200, "{said}");
    let lines = || -> Vec<String> {
        let read = list.read(|doc| {
            let (_, lines) = doc.get(ROOT, "lines").unwrap().unwrap();
            let values = doc.list_range(&lines, ..);
            values
                .map(|item| item.value.clone().into())
                .map(|value: automerge::Value<'_>| value.as_str().unwrap_or_default().to_owned())
                .collect()
        });
        read.unwrap()
    };
    until("they are taken out", || lines().len() == 1).await;
    assert_eq!(lines(), ["automerge:2j9knpCseyhnK8izDmLpGP5WMdZQ"]);
    until("nobody needs the project any more", || is_deleted(&dies)).await;
    assert_eq!(http.open(0).await, Vec::<Json>::new());
    end(relay, [ann, ben]).await;
}
