//! Reads of the embedded peer: get, list, query, count and live queries, from an index that is kept
//! on disk and is true after a crash.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use automerge::{ROOT, transaction::Transactable as _};
use concord::{
    entity::{EntityType, Schema, Value},
    peer::{Document, LiveEvent, LiveQuery, Page, Peer, PutError, Query, ReadError, Row, Test},
    relay::{Relay, RelayConfig},
    review::Choice,
    store::{self, Store},
    worker::{InProcess, WorkerLimits},
};
use serde_json::{Map, Value as Json, json};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

const SCHEMA: &str = r#"
[types.task.fields]
title = { kind = "text" }
status = { kind = "enum", values = ["open", "done"], default = "open" }
due = "timestamp"
votes = "counter"
labels = { kind = "set", items = "string" }

[types.note.fields]
body = "text"
"#;

fn schema() -> Schema {
    Schema::parse(SCHEMA).unwrap_or_else(|errors| panic!("{errors}"))
}

fn task() -> EntityType {
    schema().types.remove("task").unwrap()
}

fn peer_on(store: &Arc<dyn Store>) -> Peer {
    Peer::builder("memory").store(Arc::clone(store)).schema(schema()).open().unwrap()
}

fn peer() -> Peer {
    peer_on(&store::memory().unwrap())
}

async fn put(peer: &Peer, key: &str, fields: Json) -> Document {
    let Json::Object(fields) = fields else { panic!("no fields") };
    let change = |task: &mut Map<String, Json>| task.extend(fields);
    peer.put(&task(), key, change).await.unwrap().0
}

fn names(page: &Page) -> Vec<&str> {
    page.rows.iter().map(Row::name).collect()
}

/// All names, once nothing of what relays bring is behind.
async fn all(peer: &Peer) -> Vec<String> {
    let listed = async {
        loop {
            let page = peer.list("task", None, 1_000).await.unwrap();
            if page.behind.is_nothing() {
                return names(&page).into_iter().map(str::to_owned).collect();
            }
        }
    };
    timeout(SOON, listed).await.unwrap()
}

fn string(text: &str) -> Value {
    Value::String(text.to_owned())
}

async fn relay() -> (Relay, String) {
    let config = RelayConfig { port: 0, admin: None, ..RelayConfig::default() };
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let relay = Relay::start(config, store::memory().unwrap(), worker).await.unwrap();
    let url = format!("ws://{}", relay.addr());
    (relay, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_is_got_listed_and_queried_at_once() {
    let peer = peer();
    for (key, due) in [("b", 3), ("a", 1), ("c", 2)] {
        put(&peer, key, json!({ "title": format!("Task {key}"), "due": due })).await;
        assert!(all(&peer).await.contains(&key.to_owned()), "one reads what one wrote");
    }
    put(&peer, "c", json!({ "status": "done" })).await;
    assert_eq!(all(&peer).await, ["a", "b", "c"]);

    let open = Query::of("task").filter("status", Test::Is(string("open"))).descending("due");
    let page = peer.query(&open).await.unwrap();
    assert_eq!(names(&page), ["b", "a"]);
    assert_eq!(page.rows[0].values["title"], string("Task b"));
    assert_eq!(page.rows[0].values["due"], Value::Timestamp(3));
    assert_eq!(peer.count(&open.clone().limit(1)).await.unwrap(), 2);

    let first = peer.query(&open.clone().limit(1)).await.unwrap();
    assert_eq!(names(&first), ["b"]);
    let second = peer.query(&open.clone().limit(1).after(first.next.unwrap())).await.unwrap();
    assert_eq!(names(&second), ["a"]);
    assert_eq!(second.next, None);

    let got = peer.get(&task(), "c").await.unwrap().unwrap();
    assert_eq!(got.values["status"], string("done"));
    assert!(peer.get(&task(), "d").await.unwrap().is_none(), "nothing is begun by asking");
    assert!(peer.get(&task(), "d").await.unwrap().is_none());

    peer.delete_entity(&got.document).await.unwrap();
    assert_eq!(all(&peer).await, ["a", "b"]);
    let with_deleted = peer.query(&Query::of("task").with_deleted()).await.unwrap();
    assert!(with_deleted.rows[2].is_deleted);
    peer.purge(&got.document, true).await.unwrap();
    let with_deleted = peer.query(&Query::of("task").with_deleted()).await.unwrap();
    assert_eq!(names(&with_deleted), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_index_has_not_is_read_from_the_document() {
    let peer = peer();
    let long = "x".repeat(200);
    put(&peer, "1", json!({ "title": format!("{long} red"), "labels": ["a", "b"] })).await;
    put(&peer, "2", json!({ "title": format!("{long} blue"), "labels": ["b"] })).await;
    put(&peer, "3", json!({ "title": "short red" })).await;
    let found = async |query: Query| -> Vec<String> {
        let page = peer.query(&query).await.unwrap();
        assert_eq!(page.rows.len(), peer.count(&query).await.unwrap());
        names(&page).into_iter().map(str::to_owned).collect()
    };
    let tasks = || Query::of("task");
    assert_eq!(found(tasks().filter("title", Test::Contains("red".to_owned()))).await, ["1", "3"]);
    let exact = string(&format!("{long} blue"));
    assert_eq!(found(tasks().filter("title", Test::Is(exact))).await, ["2"]);
    assert_eq!(found(tasks().filter("labels", Test::Contains("a".to_owned()))).await, ["1"]);
    assert_eq!(found(tasks().filter("labels", Test::Set)).await, ["1", "2"]);
    assert_eq!(found(tasks().filter("labels", Test::Unset)).await, ["3"]);
    let page = peer.list("task", None, 10).await.unwrap();
    assert_eq!(page.rows[0].partial, ["labels", "title"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_does_not_fit_says_what_would() {
    let peer = peer();
    let is = |field: &str, value| Query::of("task").filter(field, Test::Is(value));
    for (query, says) in [
        (Query::of("person"), "the types are `note`, `task`"),
        (Query::of("tsk"), "did you mean `task`?"),
        (is("subject", string("x")), "its fields are `due`, `labels`, `status`, `title`, `votes`"),
        (is("titel", string("x")), "did you mean `title`?"),
        (is("due", string("x")), "`due=\"x\"` cannot be asked"),
        (Query::of("task").ascending("labels"), "no order to sort by"),
        (Query::of("task").filter("due", Test::StartsWith("x".to_owned())), "cannot be asked"),
    ] {
        let error = peer.query(&query).await.unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    put(&peer, "1", json!({})).await;
    put(&peer, "2", json!({})).await;
    let cursor = peer.list("task", None, 1).await.unwrap().next.unwrap();
    assert_eq!(cursor, cursor.to_string().parse().unwrap());
    let other = peer.query(&Query::of("task").ascending("due").after(cursor)).await;
    assert!(matches!(other, Err(ReadError::OtherCursor)));
    for wrong in ["", "0", "zz", "01ff", "é€"] {
        assert!(matches!(wrong.parse::<concord::peer::Cursor>(), Err(ReadError::NoCursor)));
    }
    peer.close().await.unwrap();
    assert!(matches!(peer.list("task", None, 1).await, Err(ReadError::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_without_a_type_and_of_no_declared_type_are_listed() {
    let peer = peer();
    let plain = peer.create().await.unwrap();
    let other = peer.create().await.unwrap();
    other.change(|tx| Ok(tx.put(ROOT, "type", "ghost")?)).await.unwrap();
    put(&peer, "1", json!({})).await;
    let (counts, behind) = peer.types().await.unwrap();
    let counts: Vec<_> = counts.iter().map(|of| (of.type_name.as_str(), of.live)).collect();
    assert_eq!(counts, [("", 1), ("ghost", 1), ("task", 1)]);
    assert!(behind.is_nothing());
    assert_eq!(peer.list("", None, 9).await.unwrap().rows[0].document, *plain.id());
    assert_eq!(peer.list("ghost", None, 9).await.unwrap().rows[0].document, *other.id());
}

/// Does what the events say until the rows are as wanted.
async fn until(live: &mut LiveQuery, rows: &mut Vec<Row>, is_so: impl Fn(&[Row]) -> bool) {
    while !is_so(rows) {
        let event = timeout(SOON, live.next()).await.unwrap_or_else(|_| panic!("{rows:?}"));
        match event.unwrap() {
            LiveEvent::Page(page) => *rows = page.rows,
            LiveEvent::Removed { at, document } => assert_eq!(rows.remove(at).document, document),
            LiveEvent::Added { at, row } => rows.insert(at, row),
            LiveEvent::Moved { from, to, row } => {
                assert_eq!(rows.remove(from).document, row.document);
                rows.insert(to, row);
            }
            LiveEvent::Changed { at, row } => {
                assert_eq!(rows[at].document, row.document);
                rows[at] = row;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn are<'a>(wanted: &'a [&'a str]) -> impl Fn(&[Row]) -> bool + 'a {
    move |rows| rows.iter().map(Row::name).eq(wanted.iter().copied())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_query_tells_what_becomes_different_here_and_elsewhere() {
    let (relay, url) = relay().await;
    let (ann, ben) = (peer(), peer());
    put(&ann, "a", json!({ "due": 1 })).await;
    put(&ann, "b", json!({ "due": 2 })).await;
    let query = Query::of("task").filter("status", Test::Is(string("open"))).ascending("due");
    let mut live = ann.live(query.limit(3));
    let mut rows = Vec::new();
    until(&mut live, &mut rows, are(&["a", "b"])).await;
    put(&ann, "c", json!({ "due": 0 })).await;
    until(&mut live, &mut rows, are(&["c", "a", "b"])).await;
    put(&ann, "c", json!({ "due": 9 })).await;
    until(&mut live, &mut rows, are(&["a", "b", "c"])).await;
    put(&ann, "b", json!({ "status": "done" })).await;
    until(&mut live, &mut rows, are(&["a", "c"])).await;
    // Another type is none of its business.
    assert!(timeout(Duration::from_millis(100), live.next()).await.is_err());

    ann.connect(&url).unwrap();
    ben.connect(&url).unwrap();
    ann.flush(SOON).await.unwrap();
    let id = concord::entity::document_id("default", "task", "a");
    let hers = ben.find(id.as_str()).await.unwrap();
    let rename = |task: &mut Map<String, Json>| task.insert("title".to_owned(), json!("Ben's"));
    hers.change(|tx| Ok(task().edit(tx, rename)?)).await.unwrap();
    let is_bens = |rows: &[Row]| rows[0].values.get("title") == Some(&string("Ben's"));
    until(&mut live, &mut rows, is_bens).await;
    assert_eq!(all(&ben).await, ["a"], "the key went with the document");
    drop(relay);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_begins_no_entity() {
    let peer = peer();
    let wrong = |task: &mut Map<String, Json>| task.insert("due".to_owned(), json!("soon"));
    let refused = peer.put(&task(), "a", wrong).await.unwrap_err();
    assert!(matches!(refused, PutError::Typed(_)), "{refused}");
    assert!(peer.get(&task(), "a").await.unwrap().is_none());
    assert!(peer.documents().await.unwrap().is_empty());
    assert!(peer.outbox().await.unwrap().is_empty());
    put(&peer, "a", json!({ "due": 1 })).await;
    let refused = peer.put(&task(), "a", wrong).await.unwrap_err();
    assert!(matches!(refused, PutError::Typed(_)), "{refused}");
    let values = peer.get(&task(), "a").await.unwrap().unwrap().values;
    assert_eq!(values.get("due"), Some(&Value::Timestamp(1)));
    assert_eq!(all(&peer).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_nobody_has_open_is_indexed_when_a_relay_brings_it() {
    let (_relay, url) = relay().await;
    let (ann, ben) = (peer(), peer());
    let hers = put(&ann, "a", json!({ "title": "one" })).await;
    ann.connect(&url).unwrap();
    ben.connect(&url).unwrap();
    ann.flush(SOON).await.unwrap();
    let his = ben.find(hers.id().as_str()).await.unwrap();
    assert_eq!(all(&ben).await, ["a"]);
    drop(his);
    let mut live = ben.live(Query::of("task"));
    let mut rows = Vec::new();
    put(&ann, "a", json!({ "title": "two" })).await;
    let is_two = |rows: &[Row]| {
        rows.first().is_some_and(|row| row.values.get("title") == Some(&string("two")))
    };
    until(&mut live, &mut rows, is_two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_put_by_two_offline_is_no_conflict() {
    let (_relay, url) = relay().await;
    let (ann, ben) = (peer(), peer());
    let hers = put(&ann, "a", json!({ "due": 1 })).await;
    let his = put(&ben, "a", json!({ "votes": 1 })).await;
    for peer in [&ann, &ben] {
        peer.connect(&url).unwrap();
    }
    ann.flush(SOON).await.unwrap();
    ben.flush(SOON).await.unwrap();
    ann.flush(SOON).await.unwrap();
    let converge = async {
        while hers.heads().unwrap() != his.heads().unwrap() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, converge).await.unwrap();
    assert_eq!(hers.conflicts().unwrap(), []);
    assert_eq!(all(&ann).await, ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mine_and_not_confirmed_is_known_by_field() {
    let (relay, url) = relay().await;
    let (ann, ben) = (peer(), peer());
    let of = task();
    let unconfirmed = async |peer: &Peer| -> Vec<String> {
        let got = peer.get(&of, "a").await.unwrap().unwrap();
        got.unconfirmed.into_iter().collect()
    };
    let hers = put(&ann, "a", json!({ "title": "x", "votes": 1, "labels": ["l"] })).await;
    assert_eq!(unconfirmed(&ann).await, ["labels", "title", "votes"]);
    ann.connect(&url).unwrap();
    hers.wait_confirmed(SOON).await.unwrap();
    assert_eq!(unconfirmed(&ann).await, [""; 0]);

    ben.connect(&url).unwrap();
    let his = ben.find(hers.id().as_str()).await.unwrap();
    his.wait_confirmed(SOON).await.unwrap();
    assert_eq!(unconfirmed(&ben).await, [""; 0], "what others wrote is not mine");
    relay.shutdown().await.unwrap();
    put(&ann, "a", json!({ "due": 5, "labels": ["l", "m"] })).await;
    assert_eq!(unconfirmed(&ann).await, ["due", "labels"]);
    put(&ann, "a", json!({ "due": null, "title": "xy" })).await;
    assert_eq!(unconfirmed(&ann).await, ["due", "labels", "title"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_before_a_restart_is_known_without_a_relay() {
    let (relay, url) = relay().await;
    let (store, faults) = store::memory_with_faults("store-confirmed".parse().unwrap());
    let of = task();
    let unconfirmed = async |peer: &Peer, key: &str| -> Vec<String> {
        let got = peer.get(&of, key).await.unwrap().unwrap();
        got.unconfirmed.into_iter().collect()
    };
    let ann = peer_on(&store);
    ann.connect(&url).unwrap();
    for key in ["a", "b", "c"] {
        put(&ann, key, json!({ "title": "x", "votes": 1 })).await;
    }
    ann.flush(SOON).await.unwrap();
    relay.shutdown().await.unwrap();
    put(&ann, "a", json!({ "title": "y" })).await;
    ann.close().await.unwrap();

    let (store, faults) = faults.after_crash();
    let ann = peer_on(&store);
    // Perhaps before it is known what was in the outbox.
    put(&ann, "b", json!({ "due": 5 })).await;
    assert_eq!(unconfirmed(&ann, "a").await, ["title"]);
    assert_eq!(unconfirmed(&ann, "b").await, ["due"]);
    assert_eq!(unconfirmed(&ann, "c").await, [""; 0]);
    ann.close().await.unwrap();

    let (store, _faults) = faults.after_crash();
    let ann = peer_on(&store);
    put(&ann, "a", json!({ "votes": 2 })).await;
    put(&ann, "d", json!({ "due": 1 })).await;
    assert_eq!(unconfirmed(&ann, "a").await, ["title", "votes"]);
    assert_eq!(unconfirmed(&ann, "b").await, ["due"]);
    assert_eq!(unconfirmed(&ann, "c").await, [""; 0]);
    // With the objects that hold what is not written yet.
    assert_eq!(unconfirmed(&ann, "d").await, ["due", "labels", "title", "votes"]);
    ann.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_reads_no_document_and_another_schema_all_that_it_says_otherwise() {
    let (store, faults) = store::memory_with_faults("store-restart".parse().unwrap());
    let peer = peer_on(&store);
    for n in 0..20 {
        put(&peer, &format!("{n:02}"), json!({ "due": n })).await;
    }
    let before = peer.list("task", None, 100).await.unwrap();
    peer.close().await.unwrap();

    let (store, faults) = faults.after_crash();
    let peer = peer_on(&store);
    let after = peer.list("task", None, 100).await.unwrap();
    assert_eq!((before.rows.len(), &after), (20, &before));
    let statistics = store.stats();
    assert!(statistics.corrupt.is_empty());
    peer.close().await.unwrap();

    let (store, faults) = faults.after_crash();
    let other =
        SCHEMA.replace("due = ", "color = { kind = \"string\", default = \"red\" }\ndue = ");
    let other = Schema::parse(&other).unwrap_or_else(|errors| panic!("{errors}"));
    let peer = Peer::builder("memory").store(store).schema(other).open().unwrap();
    peer.indexed().await.unwrap();
    let anew = peer.list("task", None, 100).await.unwrap();
    assert!(anew.rows.iter().all(|row| row.values["color"] == string("red")));
    assert_eq!(anew.rows.len(), 20);
    peer.close().await.unwrap();

    // Without an index none is kept, and it is made anew later.
    let (store, faults) = faults.after_crash();
    let peer = Peer::builder("memory").store(store).schema(schema()).index(false).open().unwrap();
    put(&peer, "00", json!({ "due": 100 })).await;
    assert!(matches!(peer.list("task", None, 1).await, Err(ReadError::NoIndex)));
    peer.close().await.unwrap();
    let peer = peer_on(&faults.after_crash().0);
    peer.indexed().await.unwrap();
    let rebuilt = peer.list("task", None, 100).await.unwrap();
    assert_eq!(rebuilt.rows[0].values["due"], Value::Timestamp(100));
    assert_eq!(rebuilt.rows[1..], before.rows[1..], "a rebuilt index is as a kept one");
}

fn index(rows: &[Row]) -> BTreeMap<String, Row> {
    rows.iter().map(|row| (row.document.to_string(), row.clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_at_any_moment_the_index_is_what_a_rebuild_gives() {
    let id = "store-crash".parse().unwrap();
    let (store, faults) = store::memory_with_faults(id);
    let mut store = store;
    let mut faults = faults;
    for round in 0..12_u64 {
        let peer = peer_on(&store);
        faults.fail_flushes(false);
        peer.indexed().await.unwrap();
        let mut rebuilt = Vec::new();
        for of in ["task", ""] {
            let page = peer.list(of, None, 1_000).await.unwrap();
            assert!(page.behind.is_nothing(), "round {round}: {:?}", page.behind);
            for row in page.rows {
                let document = peer.find(row.document.as_str()).await.unwrap();
                let values = document.read(|doc| task().read(doc).values).unwrap();
                for (field, value) in &row.values {
                    assert_eq!(values.get(field), Some(value), "round {round}: {field}");
                }
                rebuilt.push(row);
            }
        }
        assert_eq!(index(&rebuilt).len(), peer.documents().await.unwrap().len(), "round {round}");
        for n in 0..8 {
            put(&peer, &format!("{}", (round * 5 + n) % 17), json!({ "due": round * 100 + n }))
                .await;
            if (n + round) % 3 == 0 {
                // So that some entries are on disk, and some only marks.
                tokio::time::sleep(Duration::from_millis(90 * round)).await;
            }
        }
        // From here on nothing reaches the disk; edits fail or hang, and are lost.
        faults.fail_flushes(true);
        let change = |task: &mut Map<String, Json>| task.insert("due".to_owned(), json!(-1));
        let lost = timeout(Duration::from_millis(200), peer.put(&task(), "3", change)).await;
        assert!(!matches!(lost, Ok(Ok(_))), "it cannot be on disk");
        (store, faults) = faults.after_crash();
        drop(peer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn open_conflicts_are_counted_also_after_a_start_and_not_once_they_are_decided() {
    let (store, faults) = store::memory_with_faults("store-conflicts".parse().unwrap());
    let peer = peer_on(&store);
    let document = put(&peer, "1", json!({ "due": 1_000 })).await;
    put(&peer, "2", json!({ "due": 1_000 })).await;
    peer.indexed().await.unwrap();
    assert_eq!(peer.overview().conflicts, Some(0));

    let heads = document.heads().unwrap();
    for due in [2_000_i64, 3_000] {
        let put = document.change_at(&heads, |tx| {
            let due = automerge::ScalarValue::Timestamp(due);
            Ok(tx.put(ROOT, "due", due)?)
        });
        put.await.unwrap();
    }
    let mut overview = peer.watch_overview();
    while overview.now().conflicts != Some(1) {
        timeout(SOON, overview.changed()).await.unwrap().unwrap();
    }
    drop((document, overview));
    peer.close().await.unwrap();

    let peer = peer_on(&faults.after_crash().0);
    peer.indexed().await.unwrap();
    assert_eq!(peer.overview().conflicts, Some(1));
    let document = peer.get(&task(), "1").await.unwrap().unwrap().document;
    let conflict = document.conflicts().unwrap().remove(0);
    document.resolve(&conflict, &Choice::Side(0), None).await.unwrap();
    peer.indexed().await.unwrap();
    assert_eq!(peer.overview().conflicts, Some(0));

    let without = Peer::builder("memory").store(store::memory().unwrap()).index(false).open();
    assert_eq!(without.unwrap().overview().conflicts, None);
}
