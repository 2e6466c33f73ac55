//! Many conflicts decided at once over HTTP: shown before, decided by a rule, and taken back by
//! their common name, also after a restart.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use automerge::{Automerge, ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::{
    peer::{Document, Peer},
    review::{Choice, bulk::BulkId},
    store::{self, Engine, Options, Store},
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::http_common::{Http, SOON, relay};

fn on_disk(directory: &Path) -> Arc<dyn Store> {
    store::open(directory, Engine::Sled, &Options::default()).unwrap()
}

fn peer(name: &str) -> Peer {
    Peer::builder("memory").store(store::memory().unwrap()).author(name).open().unwrap()
}

/// Ann and Ben disagree about the count of so many documents: Ann wants 100 and more, Ben 200 and
/// more, and writes later. Of the last they disagree about the title, too.
async fn disagree(http: &Http, many: i64) -> ([Peer; 2], Vec<[Document; 2]>) {
    let (ann, ben) = (peer("ann"), peer("ben"));
    let url = format!("ws://{}", http.0);
    ann.connect(&url).unwrap();
    ben.connect(&url).unwrap();
    let mut documents = Vec::new();
    for n in 0..many {
        let hers = ann.create().await.unwrap();
        hers.change(|tx| {
            tx.put(ROOT, "type", if n % 2 == 0 { "trip" } else { "note" })?;
            Ok(tx.put(ROOT, "count", n)?)
        })
        .await
        .unwrap();
        hers.wait_confirmed(SOON).await.unwrap();
        let his = ben.find_within(hers.id().as_str(), SOON).await.unwrap();
        let before = his.heads().unwrap();
        hers.change_at(&before, |tx| Ok(tx.put(ROOT, "count", 100 + n)?)).await.unwrap();
        if n == many - 1 {
            hers.change_at(&before, |tx| Ok(tx.put(ROOT, "title", "hers")?)).await.unwrap();
            his.change_at(&before, |tx| Ok(tx.put(ROOT, "title", "his")?)).await.unwrap();
        }
        documents.push(([hers, his], before));
    }
    // Times are seconds.
    sleep(Duration::from_millis(1_100)).await;
    for ([_, his], before) in &documents {
        let n = count(his) % 100;
        his.change_at(before, |tx| Ok(tx.put(ROOT, "count", 200 + n)?)).await.unwrap();
    }
    for ([hers, his], _) in &documents {
        hers.wait_confirmed(SOON).await.unwrap();
        his.wait_confirmed(SOON).await.unwrap();
        until(|| hers.heads().unwrap() == his.heads().unwrap()).await;
    }
    ([ann, ben], documents.into_iter().map(|(both, _)| both).collect())
}

fn count(document: &Document) -> i64 {
    let count = |doc: &Automerge| doc.get(ROOT, "count").unwrap().unwrap().0.as_i64().unwrap();
    document.read(count).unwrap()
}

async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap();
}

async fn post(http: &Http, path: &str, body: &Value) -> (u16, Value) {
    let head = format!("POST /v1/conflicts/{path} HTTP/1.1");
    let (status, _, body) = http.send(&head, &body.to_string()).await;
    (status, body)
}

fn list<'a>(body: &'a Value, key: &str) -> &'a Vec<Value> {
    body[key].as_array().unwrap_or_else(|| panic!("{key} in {body}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_shown_decided_and_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let (first, http) = relay(on_disk(directory.path())).await;
    let (peers, documents) = disagree(&http, 6).await;
    let shown: Vec<i64> = documents.iter().map(|[hers, _]| count(hers)).collect();
    http.open(7).await;

    let filter = json!({ "code": "value", "field": "count" });
    let ask = json!({ "filter": filter, "choice": "latest", "dry_run": true });
    let (status, preview) = post(&http, "bulk", &ask).await;
    assert_eq!((status, &preview["matching"], &preview["decidable"]), (200, &json!(6), &json!(6)));
    let becomes: BTreeSet<&str> =
        list(&preview, "conflicts").iter().map(|one| one["becomes"].as_str().unwrap()).collect();
    assert_eq!(becomes, BTreeSet::from(["200", "201", "202", "203", "204", "205"]));
    http.open(7).await;
    for (filter, matching) in [
        (json!({ "type": "trip" }), 3),
        (json!({ "type": "note", "field": "count" }), 3),
        (json!({ "author": "ann" }), 7),
        (json!({ "author": "dora" }), 0),
        (json!({ "older_than_s": 1_000 }), 0),
        (json!({ "older_than_s": 0 }), 7),
        (json!({ "code": "twin" }), 0),
        (json!({ "document": documents[5][0].url().to_string() }), 2),
        (json!({ "ids": [list(&preview, "conflicts")[2]["id"]] }), 1),
    ] {
        let ask = json!({ "filter": filter, "choice": "now", "dry_run": true });
        let (_, preview) = post(&http, "bulk", &ask).await;
        assert_eq!(preview["matching"], matching, "{filter}");
    }
    // What cannot be decided so says why.
    let ask = json!({ "choice": { "author": "dora" }, "dry_run": true });
    let (_, preview) = post(&http, "bulk", &ask).await;
    assert_eq!((&preview["matching"], &preview["decidable"]), (&json!(7), &json!(0)));
    let refused = list(&preview, "conflicts")[0]["refused"].as_str().unwrap();
    assert!(refused.contains("dora"), "{refused}");

    // Decided in parts, under one name.
    let decide = json!({ "filter": filter, "choice": "latest", "reason": "all late", "limit": 4 });
    let (status, done) = post(&http, "bulk", &decide).await;
    assert_eq!((status, list(&done, "decided").len(), list(&done, "failed").len()), (200, 4, 0));
    let mut more = decide.clone();
    more["bulk"] = done["bulk"].clone();
    more["after"] = done["next"].clone();
    let (_, rest) = post(&http, "bulk", &more).await;
    assert_eq!((list(&rest, "decided").len(), &rest["bulk"]), (2, &done["bulk"]));
    assert_eq!(rest["next"], Value::Null, "{rest}");
    for [hers, his] in &documents {
        // The value may have been shown before.
        until(|| [hers, his].iter().all(|both| both.decisions().unwrap().len() == 1)).await;
        assert!(count(hers) >= 200 && count(his) >= 200);
    }
    let left = http.open(1).await;
    assert_eq!(left[0]["path"], "title");
    let bulk: BulkId = done["bulk"].as_str().unwrap().parse().unwrap();
    let log = documents[0][1].decisions().unwrap();
    assert_eq!(log[0].decided.bulk, Some(bulk));
    assert_eq!(log[0].decided.reason.as_deref(), Some("all late"));
    assert_eq!(documents[0][1].bulks().unwrap(), [(bulk, log[0].decided.conflict)]);

    // Somebody decides one of them otherwise since: that stands.
    let [hers, _] = &documents[0];
    let again = hers.decide_again(log[0].decided.conflict, &Choice::Before, None);
    again.await.unwrap();
    hers.wait_confirmed(SOON).await.unwrap();
    assert_eq!(count(hers), 0);
    first.shutdown().await.unwrap();

    // After a restart it is all found in the documents.
    let (relay, http) = relay(on_disk(directory.path())).await;
    http.open(1).await;
    let mut back = json!({ "bulk": bulk, "limit": 3 });
    let (status, taken) = post(&http, "bulk/revert", &back).await;
    assert_eq!((status, list(&taken, "reverted").len()), (200, 3), "{taken}");
    back["after"] = taken["next"].clone();
    let (_, rest) = post(&http, "bulk/revert", &back).await;
    assert_eq!((list(&rest, "reverted").len(), &rest["next"]), (2, &Value::Null), "{rest}");
    for peer in &peers {
        peer.connect(&format!("ws://{}", http.0)).unwrap();
    }
    for ([hers, his], before) in documents.iter().zip(&shown).skip(1) {
        until(|| [hers, his].iter().all(|both| both.bulks().unwrap().is_empty())).await;
        assert_eq!((count(hers), count(his)), (*before, *before));
    }
    assert_eq!(count(&documents[0][0]), 0);
    let (status, gone) = post(&http, "bulk/revert", &json!({ "bulk": bulk })).await;
    assert_eq!(status, 404, "{gone}");
    for peer in peers {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn by_whom_a_side_is_can_be_said_of_one_conflict_too() {
    let (relay, http) = relay(store::memory().unwrap()).await;
    let (peers, documents) = disagree(&http, 2).await;
    let open = http.open(3).await;
    let counts: Vec<&str> = (open.iter().filter(|open| open["path"] == "count"))
        .map(|open| open["id"].as_str().unwrap())
        .collect();
    for (id, choice) in counts.iter().zip([json!({ "author": "ann" }), json!("latest")]) {
        let (status, done) = http.resolve(id, &json!({ "choice": choice })).await;
        assert_eq!(status, 200, "{done}");
    }
    until(|| {
        let counts: BTreeSet<i64> = documents.iter().map(|[hers, _]| count(hers) / 100).collect();
        counts == BTreeSet::from([1, 2])
    })
    .await;
    let title = http.open(1).await[0]["id"].as_str().unwrap().to_owned();
    let choice = json!({ "choice": { "author": "dora" } });
    assert_eq!(http.resolve(&title, &choice).await.0, 422);

    // Those that somebody put off or dismissed are left alone.
    let dismiss = json!({ "who": "ann" });
    assert_eq!(post(&http, &format!("{title}/dismiss"), &dismiss).await.0, 200);
    let (_, done) = post(&http, "bulk", &json!({ "choice": "now" })).await;
    assert!(list(&done, "decided").is_empty(), "{done}");
    for (path, body, status) in [
        ("bulk", json!({}), 422),
        ("bulk", json!({ "choice": "newest" }), 422),
        ("bulk", json!({ "choice": "now", "filter": { "colour": "red" } }), 422),
        ("bulk", json!({ "choice": "now", "filter": { "document": "x" } }), 400),
        ("bulk", json!({ "choice": "now", "after": "x" }), 400),
        ("bulk", json!({ "choice": "now", "bulk": "x" }), 422),
        ("bulk/revert", json!({}), 422),
        ("bulk/revert", json!({ "bulk": "0".repeat(16) }), 404),
        ("bulk/revert", json!({ "bulk": "0".repeat(16), "after": "x" }), 400),
    ] {
        let (found, problem) = post(&http, path, &body).await;
        assert_eq!(found, status, "{path} {body}: {problem}");
    }
    for peer in peers {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_chosen_before_is_told_and_done_by_nobody() {
    let (relay, http) = relay(store::memory().unwrap()).await;
    let (peers, documents) = disagree(&http, 5).await;
    let open = http.open(6).await;
    let counts: Vec<&str> = (open.iter().filter(|open| open["path"] == "count"))
        .map(|open| open["id"].as_str().unwrap())
        .collect();
    // Of trips there are three, and two of them are decided.
    let show = async |id: &str| http.get(&format!("/v1/conflicts/{id}")).await.1;
    assert_eq!(show(counts[0]).await["suggestion"], Value::Null);
    let trips = json!({ "type": "trip", "field": "count" });
    let ask = json!({ "filter": trips, "choice": "latest", "limit": 2 });
    assert_eq!(list(&post(&http, "bulk", &ask).await.1, "decided").len(), 2);
    // Two are too few; what was decided about notes says nothing of trips.
    let notes = json!({ "filter": { "type": "note", "field": "count" }, "choice": "before" });
    assert_eq!(list(&post(&http, "bulk", &notes).await.1, "decided").len(), 2);
    let left = http.open(2).await;
    let trip = left.iter().find(|open| open["path"] == "count").unwrap()["id"].as_str().unwrap();
    assert_eq!(show(trip).await["suggestion"], Value::Null);
    // One more trip, of the same two.
    let (others, more) = disagree(&http, 1).await;
    let ids: BTreeSet<String> =
        left.iter().map(|open| open["id"].as_str().unwrap().to_owned()).collect();
    let open = http.open(4).await;
    let new = open
        .iter()
        .find(|open| open["path"] == "count" && !ids.contains(open["id"].as_str().unwrap()));
    let new = new.unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(http.resolve(trip, &json!({ "choice": "latest" })).await.0, 200);
    let waiting = async {
        loop {
            let shown = show(&new).await;
            if shown["suggestion"] != Value::Null {
                return shown["suggestion"].clone();
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let said = timeout(SOON, waiting).await.unwrap();
    assert_eq!(
        said,
        json!({ "take": "latest", "times": 3, "of": 3, "field": "trip.count", "alike": "all" })
    );
    // On a peer, of what is stored there: it has the same documents.
    let [hers, _] = &documents[1];
    let here = more[0][0].conflicts().unwrap();
    let count = here.iter().find(|open| open.id.to_string() == new).unwrap();
    assert_eq!(others[0].suggestion(&more[0][0], count).await.unwrap(), None, "she knows of none");
    until(|| hers.conflicts().unwrap().is_empty()).await;
    until(|| documents.iter().all(|[hers, _]| hers.decisions().unwrap().len() == 1)).await;
    let mine = peers[0].find_within(more[0][0].id().as_str(), SOON).await.unwrap();
    let said = peers[0].suggestion(&mine, count).await.unwrap().unwrap();
    assert_eq!((said.times, said.of), (3, 3));
    http.open(3).await;
    for peer in peers.into_iter().chain(others) {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}
