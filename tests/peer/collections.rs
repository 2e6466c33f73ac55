//! Collections: what is subscribed is fetched through the relay's catalogue and kept in step, from
//! where it was, with whichever relay is there.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use concord::{
    entity::{Schema, Value},
    peer::{
        Collection, CollectionError, CollectionId, CollectionStatus, Document, Evict, Peer, Query,
        Test,
    },
    store::{self, Store},
    worker::{InProcess, WorkerLimits},
};
use concord_protocol::{DocumentId, Limits};
use futures_util::{StreamExt as _, stream};
use serde_json::{Map, Value as Json, json};
use tokio::time::{sleep, timeout};

use crate::{
    http_common::{Http, relay_with},
    support::Relay,
};

const SOON: Duration = Duration::from_mins(1);

const SCHEMA: &str = r#"
[types.task.fields]
title = { kind = "text" }
status = { kind = "enum", values = ["open", "done"], default = "open" }
project = { kind = "reference", to = "project" }

[types.note.fields]
body = "text"

[types.project.fields]
name = "string"
lead = { kind = "reference", to = "person" }

[types.person.fields]
name = "string"
"#;

fn schema() -> Schema {
    Schema::parse(SCHEMA).unwrap_or_else(|errors| panic!("{errors}"))
}

fn peer() -> Peer {
    let store = store::memory().unwrap();
    Peer::builder("memory").store(store).schema(schema()).open().unwrap()
}

async fn put(peer: &Peer, of: &str, key: &str, fields: Json) -> Document {
    let Json::Object(fields) = fields else { panic!("no fields") };
    let change = |entity: &mut Map<String, Json>| entity.extend(fields);
    peer.put(&schema().types[of], key, change).await.unwrap().0
}

/// The keys that a peer has of a type.
async fn keys(peer: &Peer, of: &str) -> BTreeSet<String> {
    let page = peer.query(&Query::of(of).limit(5_000)).await;
    // Of a type of which there never was anything there is nothing to list.
    let rows = page.map(|page| page.rows).unwrap_or_default();
    rows.iter().map(|row| row.name().to_owned()).collect()
}

async fn until(peer: &Peer, what: &str, is_so: impl AsyncFn(&Peer) -> bool) {
    let waiting = async {
        while !is_so(peer).await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

async fn has(peer: &Peer, of: &str, wanted: usize) {
    let waiting = async {
        while keys(peer, of).await.len() != wanted {
            sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(SOON, waiting).await.is_err() {
        let page = peer.query(&Query::of(of)).await;
        panic!("{wanted} of {of}, and not {:?}: {page:?}", keys(peer, of).await);
    }
}

/// Waits until a collection is up to date, and gives how far it is.
async fn up_to_date(peer: &Peer, id: CollectionId) -> CollectionStatus {
    let mut statuses = peer.collections().await.unwrap();
    let find = |all: &Vec<CollectionStatus>| {
        all.iter().find(|status| status.id == id && status.is_up_to_date()).cloned()
    };
    let waiting = statuses.wait_for(|all| find(all).is_some());
    let found = timeout(SOON, waiting).await.ok().and_then(|all| find(&all.unwrap()));
    found.unwrap_or_else(|| panic!("{:?}", statuses.borrow()))
}

async fn relay_of(store: Arc<dyn Store>) -> (concord::relay::Relay, Http, String) {
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let (relay, http) = relay_with(store, worker, |config| {
        config.schema = Some(SCHEMA.to_owned());
    })
    .await;
    let url = format!("ws://{}", http.0);
    (relay, http, url)
}

/// Somebody who writes tasks and notes, and is done when the relay has all of them.
async fn fill(peer: &Peer, tasks: usize, notes: usize) {
    let tasks = (0..tasks).map(|n| {
        let status = if n % 4 == 0 { "done" } else { "open" };
        ("task", format!("t{n:04}"), json!({ "title": "x", "status": status }))
    });
    let notes = (0..notes).map(|n| ("note", format!("n{n:04}"), json!({ "body": "x" })));
    // Many at once, for each waits for the disk.
    stream::iter(tasks.chain(notes))
        .for_each_concurrent(100, async |(of, key, fields)| {
            put(peer, of, &key, fields).await;
        })
        .await;
    peer.flush(SOON).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_a_type_come_and_stay_in_step_and_nothing_else_does() {
    let (_relay, _http, url) = relay_of(store::memory().unwrap()).await;
    let ann = peer();
    ann.connect(&url).unwrap();
    fill(&ann, 700, 300).await;

    let directory = tempfile::tempdir().unwrap();
    let open = || Peer::builder(directory.path()).schema(schema()).open().unwrap();
    let ben = open();
    let id = ben.subscribe(Collection::of_type("task")).await.unwrap();
    assert_eq!(ben.subscribe(Collection::of_type("task")).await.unwrap(), id, "it is the same");
    assert!(ben.collections().await.unwrap().borrow()[0].up_to_date_since_ms.is_none());
    ben.connect(&url).unwrap();
    let status = up_to_date(&ben, id).await;
    assert_eq!((status.fetched, status.left, status.total), (700, 0, Some(700)));
    has(&ben, "task", 700).await;
    assert_eq!(keys(&ben, "note").await.len(), 0);

    // What changes and what is new comes by itself.
    put(&ann, "task", "t0001", json!({ "title": "another" })).await;
    put(&ann, "task", "new", json!({ "title": "new" })).await;
    put(&ann, "note", "new", json!({ "body": "new" })).await;
    has(&ben, "task", 701).await;
    let task = &schema().types["task"];
    until(&ben, "what was changed", async |ben| {
        let got = ben.get(task, "t0001").await.unwrap().unwrap();
        got.values["title"] == Value::String("another".to_owned())
    })
    .await;

    // Away, and back: only what changed meanwhile is asked for.
    ben.close().await.unwrap();
    for n in 0..20 {
        put(&ann, "task", &format!("later{n}"), json!({ "title": "x" })).await;
    }
    ann.flush(SOON).await.unwrap();
    let ben = open();
    ben.connect(&url).unwrap();
    let status = up_to_date(&ben, id).await;
    assert!(status.listed < 100, "it went on where it was: {status:?}");
    has(&ben, "task", 721).await;
    assert_eq!(keys(&ben, "note").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_died_goes_on_where_everybody_was() {
    let directory = tempfile::tempdir().unwrap();
    let schema_file = directory.path().join("schema.toml");
    std::fs::write(&schema_file, SCHEMA).unwrap();
    let data = directory.path().join("data");
    let args = ["--schema", schema_file.to_str().unwrap()];
    let mut relay = Relay::start(&args, &data);
    let ann = peer();
    ann.connect(&relay.url()).unwrap();
    fill(&ann, 150, 50).await;
    let ben = peer();
    ben.connect(&relay.url()).unwrap();
    let id = ben.subscribe(Collection::of_type("task")).await.unwrap();
    up_to_date(&ben, id).await;
    has(&ben, "task", 150).await;

    for round in 0..3 {
        // Some of it is told of before the end, some after the start.
        for n in 0..10 {
            put(&ann, "task", &format!("r{round}-{n}"), json!({ "title": "x" })).await;
        }
        if round > 0 {
            ann.flush(SOON).await.unwrap();
        }
        relay.kill9();
        relay.restart();
        ann.flush(SOON).await.unwrap();
        has(&ben, "task", 150 + 10 * (round + 1)).await;
        up_to_date(&ben, id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_relay_takes_over_and_what_is_here_is_not_fetched_again() {
    let (one, _, one_url) = relay_of(store::memory().unwrap()).await;
    let (_two, _, two_url) = relay_of(store::memory().unwrap()).await;
    // Who is connected to both brings what one has to the other.
    let ann = Peer::builder("memory")
        .store(store::memory().unwrap())
        .schema(schema())
        .relay(&one_url)
        .relay(&two_url)
        .at_once(2)
        .open()
        .unwrap();
    fill(&ann, 100, 20).await;
    ann.in_step(SOON).await.unwrap();
    let ben = peer();
    ben.connect(&one_url).unwrap();
    ben.connect(&two_url).unwrap();
    let id = ben.subscribe(Collection::of_type("task")).await.unwrap();
    up_to_date(&ben, id).await;
    has(&ben, "task", 100).await;
    let before = up_to_date(&ben, id).await.fetched;

    one.shutdown().await.unwrap();
    put(&ann, "task", "after", json!({ "title": "x" })).await;
    has(&ben, "task", 101).await;
    let after = up_to_date(&ben, id).await.fetched;
    assert!(after - before <= 10, "{before} and then {after}: most was here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_keeps_what_it_asks_for() {
    let (_relay, _, url) = relay_of(store::memory().unwrap()).await;
    let ann = peer();
    ann.connect(&url).unwrap();
    fill(&ann, 40, 10).await;
    let ben = peer();
    let open = Query::of("task").filter("status", Test::Is(Value::String("open".to_owned())));
    let wrong = Query::of("task").filter("colour", Test::Set);
    let refused = ben.subscribe(Collection::query(wrong)).await;
    assert!(matches!(refused, Err(CollectionError::Read(_))), "{refused:?}");
    ben.connect(&url).unwrap();
    let id = ben.subscribe(Collection::query(open)).await.unwrap();
    let status = up_to_date(&ben, id).await;
    assert_eq!((status.fetched, status.not_asked), (30, 10), "{status:?}");
    has(&ben, "task", 30).await;
    assert!(!keys(&ben, "task").await.contains("t0000"));
    // One that is reopened comes.
    put(&ann, "task", "t0000", json!({ "status": "open" })).await;
    has(&ben, "task", 31).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_comes_with_what_it_refers_to_as_deep_as_asked() {
    let (_relay, _, url) = relay_of(store::memory().unwrap()).await;
    let ann = peer();
    ann.connect(&url).unwrap();
    let lead = put(&ann, "person", "ann", json!({ "name": "Ann" })).await;
    let other = put(&ann, "person", "ben", json!({ "name": "Ben" })).await;
    let project = json!({ "name": "Moon", "lead": lead.url().to_string() });
    let project = put(&ann, "project", "moon", project).await;
    put(&ann, "task", "1", json!({ "project": project.url().to_string() })).await;
    put(&ann, "task", "2", json!({ "title": "nobody's" })).await;
    ann.flush(SOON).await.unwrap();

    let ben = peer();
    ben.connect(&url).unwrap();
    let shallow = ben.subscribe(Collection::entity("task", "1", 1)).await.unwrap();
    let status = up_to_date(&ben, shallow).await;
    assert_eq!((status.listed, status.done), (2, 2));
    until(&ben, "the task and its project", async |ben| {
        keys(ben, "project").await.len() == 1 && keys(ben, "task").await.len() == 1
    })
    .await;
    assert!(keys(&ben, "person").await.is_empty());
    let deep = ben.subscribe(Collection::entity("task", "1", 2)).await.unwrap();
    up_to_date(&ben, deep).await;
    until(&ben, "its lead", async |ben| keys(ben, "person").await.contains("ann")).await;
    // Another reference is followed, too.
    put(&ann, "project", "moon", json!({ "lead": other.url().to_string() })).await;
    until(&ben, "the new lead", async |ben| keys(ben, "person").await.contains("ben")).await;
    assert_eq!(keys(&ben, "task").await.len(), 1);

    // The one that is gone takes along what the other does not want.
    let gone = ben.unsubscribe(deep, Evict::Confirmed).await.unwrap();
    assert_eq!((gone.evicted, gone.wanted), (1, 2), "{gone:?}");
    until(&ben, "the lead goes", async |ben| !keys(ben, "person").await.contains("ben")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_let_go_is_what_a_relay_has_and_nobody_needs() {
    let (relay, _, url) = relay_of(store::memory().unwrap()).await;
    let ann = peer();
    ann.connect(&url).unwrap();
    fill(&ann, 20, 5).await;
    let ben = peer();
    ben.connect(&url).unwrap();
    let tasks = ben.subscribe(Collection::of_type("task")).await.unwrap();
    let notes = ben.subscribe(Collection::of_type("note")).await.unwrap();
    up_to_date(&ben, tasks).await;
    up_to_date(&ben, notes).await;
    has(&ben, "task", 20).await;
    has(&ben, "note", 5).await;
    let open = ben.entity(&schema().types["task"], "t0003").await.unwrap();
    let gone = ben.unsubscribe(tasks, Evict::Confirmed).await.unwrap();
    assert_eq!((gone.evicted, gone.open, gone.unconfirmed), (19, 1, 0), "{gone:?}");
    has(&ben, "task", 1).await;
    has(&ben, "note", 5).await;
    assert_eq!(
        ben.unsubscribe(tasks, Evict::Keep).await.unwrap_err().to_string(),
        CollectionError::Unknown(tasks).to_string()
    );
    // What is gone is asked for as any other, and comes whole.
    let again = ben.entity(&schema().types["task"], "t0004").await.unwrap();
    timeout(SOON, again.wait_confirmed(SOON)).await.unwrap().unwrap();
    drop((open, again));

    // Without a relay nothing is known to be elsewhere.
    relay.shutdown().await.unwrap();
    put(&ben, "note", "mine", json!({ "body": "written on the train" })).await;
    let kept = ben.unsubscribe(notes, Evict::Confirmed).await.unwrap();
    assert_eq!(kept.evicted, 0, "{kept:?}");
    assert_eq!(keys(&ben, "note").await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_cannot_know_a_type_is_not_taken_for_one_that_has_nothing_of_it() {
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let (_relay, http) = relay_with(store::memory().unwrap(), worker, |_| ()).await;
    let ben = peer();
    ben.connect(&format!("ws://{}", http.0)).unwrap();
    ben.subscribe(Collection::of_type("task")).await.unwrap();
    let mut statuses = ben.collections().await.unwrap();
    let has_problem = |all: &Vec<CollectionStatus>| all.iter().any(|one| one.problem.is_some());
    let told = timeout(SOON, statuses.wait_for(has_problem)).await.unwrap().unwrap().clone();
    let [status] = &told[..] else { panic!("{told:?}") };
    assert!(status.problem.as_deref().unwrap().contains("--schema") && !status.is_up_to_date());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_edited_here_and_not_sent_is_never_let_go() {
    let (_relay, _, url) = relay_of(store::memory().unwrap()).await;
    let ben = peer();
    ben.connect(&url).unwrap();
    let id = ben.subscribe(Collection::of_type("task")).await.unwrap();
    up_to_date(&ben, id).await;
    let ids: Vec<DocumentId> = {
        let mut ids = Vec::new();
        for n in 0..30 {
            ids.push(
                put(&ben, "task", &format!("mine{n}"), json!({ "title": "x" })).await.id().clone(),
            );
        }
        ids
    };
    // Some of it is with the relay by now, some is not.
    let gone = ben.unsubscribe(id, Evict::Confirmed).await.unwrap();
    assert!(gone.evicted + gone.unconfirmed + gone.open <= 30, "{gone:?}");
    // Whoever asks has all of it, from here or from there.
    let cat = peer();
    cat.connect(&url).unwrap();
    ben.flush(SOON).await.unwrap();
    for id in ids {
        let found = cat.find_within(id.as_str(), SOON).await.unwrap();
        let title = found.read(|doc| schema().types["task"].read(doc).values["title"].clone());
        assert_eq!(title.unwrap(), Value::String("x".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_of_more_than_a_relay_takes_of_one_peer_is_fetched_and_kept_in_step() {
    const TASKS: usize = 70;
    let mut limits = Limits::default();
    limits.documents_per_connection = 20;
    let (worker, store) = (InProcess::start(WorkerLimits::default()).unwrap(), store::memory());
    let (_relay, http) = relay_with(store.unwrap(), Arc::new(worker), |config| {
        config.schema = Some(SCHEMA.to_owned());
        config.limits = limits.clone();
    })
    .await;
    let url = format!("ws://{}", http.0);
    let peer = || {
        let store = store::memory().unwrap();
        let peer = Peer::builder("memory").store(store).schema(schema()).limits(limits.clone());
        peer.relay(&url).open().unwrap()
    };
    let ann = peer();
    put(&ann, "project", "p", json!({ "name": "before" })).await;
    for n in 0..TASKS {
        put(&ann, "task", &n.to_string(), json!({ "title": "x" })).await;
    }
    ann.flush(SOON).await.unwrap();

    let ben = peer();
    let project = ben.subscribe(Collection::entity("project", "p", 1)).await.unwrap();
    up_to_date(&ben, project).await;
    let tasks = ben.subscribe(Collection::of_type("task")).await.unwrap();
    let status = up_to_date(&ben, tasks).await;
    assert_eq!((status.fetched, status.left), (TASKS, 0), "{status:?}");
    has(&ben, "task", TASKS).await;
    // What is written in any of them comes, whether the relay was told of it or lists it.
    let is_done = Query::of("task").filter("status", Test::Is(Value::String("done".to_owned())));
    let done = async |peer: &Peer| peer.query(&is_done).await.unwrap().rows.len();
    for n in (0..TASKS).step_by(3) {
        put(&ann, "task", &n.to_string(), json!({ "status": "done" })).await;
    }
    put(&ann, "project", "p", json!({ "name": "after" })).await;
    until(&ben, "the tasks", async |ben| done(ben).await == TASKS.div_ceil(3)).await;
    let after = Query::of("project").filter("name", Test::Is(Value::String("after".to_owned())));
    until(&ben, "the project", async |ben| ben.query(&after).await.unwrap().rows.len() == 1).await;
    // And what is written here goes there.
    for n in (0..TASKS).step_by(3) {
        put(&ben, "task", &n.to_string(), json!({ "status": "open" })).await;
    }
    ben.flush(SOON).await.unwrap();
    let reader = peer();
    let all = reader.subscribe(Collection::of_type("task")).await.unwrap();
    up_to_date(&reader, all).await;
    has(&reader, "task", TASKS).await;
    assert_eq!(done(&reader).await, 0);
}
