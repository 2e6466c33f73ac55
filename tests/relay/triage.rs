//! Who looks after conflicts, across a relay and peers: said anywhere, offline too, and seen
//! everywhere.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{sync::Arc, time::Duration};

use automerge::{Automerge, ROOT, transaction::Transactable as _};
use concord::{
    peer::{Document, Peer, TriageError},
    relay::Relay,
    review::{
        ConflictId,
        triage::{Act, Entry, State, begin, read, review_document_id, standings, write},
    },
    store::{self, Engine, Options, Store},
    worker::{InProcess, WorkerLimits},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::http_common::{Http, SOON, relay, relay_with};

fn peer(name: &str) -> Peer {
    Peer::builder("memory").store(store::memory().unwrap()).author(name).open().unwrap()
}

/// Two who disagree about the count of a document, through a relay.
async fn disagree(http: &Http, ann: &Peer, ben: &Peer) -> [Document; 2] {
    let url = format!("ws://{}", http.0);
    ann.connect(&url).unwrap();
    ben.connect(&url).unwrap();
    let hers = ann.create().await.unwrap();
    hers.change(|tx| Ok(tx.put(ROOT, "count", 1)?)).await.unwrap();
    hers.wait_confirmed(SOON).await.unwrap();
    let his = ben.find_within(hers.id().as_str(), SOON).await.unwrap();
    let before = his.heads().unwrap();
    for (document, count) in [(&hers, 5), (&his, 7)] {
        document.change_at(&before, |tx| Ok(tx.put(ROOT, "count", count)?)).await.unwrap();
        document.wait_confirmed(SOON).await.unwrap();
    }
    until(async || hers.heads().unwrap() == his.heads().unwrap()).await;
    [hers, his]
}

async fn until(is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap();
}

async fn act(http: &Http, id: &str, name: &str, said: &Value) -> (u16, Value) {
    let head = format!("POST /v1/conflicts/{id}/{name} HTTP/1.1");
    let (status, _, body) = http.send(&head, &said.to_string()).await;
    (status, body)
}

async fn listed(http: &Http, query: &str) -> Vec<Value> {
    let (status, body) = http.get(&format!("/v1/conflicts?{query}")).await;
    assert_eq!(status, 200, "{body}");
    body["conflicts"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_peer_says_offline_is_seen_everywhere_once_it_is_connected() {
    let (relay, http) = relay(store::memory().unwrap()).await;
    let (ann, ben) = (peer("ann"), peer("ben"));
    let [hers, _] = disagree(&http, &ann, &ben).await;
    let open = http.open(1).await;
    assert_eq!((&open[0]["state"], &open[0]["triage"]), (&json!("open"), &Value::Null));
    let id: ConflictId = open[0]["id"].as_str().unwrap().parse().unwrap();

    // Carl has a peer of his own that no relay knows of yet.
    let carl = peer("carl");
    let triage = carl.act(id, &Act::Claim { take: false }).await.unwrap();
    assert_eq!(triage.holder(), Some("carl"));
    carl.act(id, &Act::Comment("I know that one".to_owned())).await.unwrap();
    assert_eq!(ben.triage(id).await.unwrap().holder(), None);
    carl.connect(&format!("ws://{}", http.0)).unwrap();
    until(async || ben.triage(id).await.unwrap() == carl.triage(id).await.unwrap()).await;
    assert_eq!(ben.triages().await.unwrap()[&id].claimed_by, ["carl"]);
    until(async || listed(&http, "state=claimed").await.len() == 1).await;
    let claimed = listed(&http, "state=claimed").await;
    assert_eq!(claimed[0]["triage"]["claimed_by"], json!(["carl"]));
    assert_eq!(claimed[0]["triage"]["comments"], 1);
    assert!(listed(&http, "state=open").await.is_empty());
    let (_, shown) = http.get(&format!("/v1/conflicts/{id}")).await;
    assert_eq!(shown["triage"]["comments"][0]["text"], "I know that one");
    assert_eq!((&shown["state"], &shown["now"].is_i64()), (&json!("claimed"), &true));

    // A name is needed, and who comes second is told.
    let nobody = Peer::builder("memory").store(store::memory().unwrap()).open().unwrap();
    let refused = nobody.act(id, &Act::Release).await.unwrap_err();
    assert!(matches!(refused, TriageError::NoAuthor), "{refused}");
    let refused = ben.act(id, &Act::Claim { take: false }).await.unwrap_err();
    assert!(refused.to_string().contains("carl"), "{refused}");

    // Through the relay, and back to the peers, which are told as of any document.
    let mut watcher = ann.review_document().await.unwrap().watch();
    let (status, done) =
        act(&http, &id.to_string(), "dismiss", &json!({ "who": "dora", "why": "same" })).await;
    assert_eq!((status, &done["state"]), (200, &json!("dismissed")), "{done}");
    timeout(SOON, watcher.next()).await.unwrap();
    for peer in [&ann, &ben, &carl] {
        let is_dismissed = async || peer.triage(id).await.unwrap().state(0) == State::Dismissed;
        until(is_dismissed).await;
    }
    assert!(http.open(0).await.is_empty());
    assert_eq!(hers.conflicts().unwrap().len(), 1, "it is not decided");
    // What is decided leaves the list of those that are dismissed, too.
    assert_eq!(listed(&http, "state=dismissed").await.len(), 1);
    let (status, _) = http.resolve(&id.to_string(), &json!({ "choice": "now" })).await;
    assert_eq!(status, 200);
    assert!(listed(&http, "state=all").await.is_empty());
    let (status, late) = act(&http, &id.to_string(), "claim", &json!({ "who": "ann" })).await;
    assert_eq!(status, 409, "{late}");
    for peer in [ann, ben, carl, nobody] {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}

async fn metrics(relay: &Relay) -> String {
    let mut scraped = TcpStream::connect(relay.admin_addr().unwrap()).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    scraped.write_all(request.as_bytes()).await.unwrap();
    let mut metrics = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut scraped, &mut metrics).await.unwrap();
    metrics
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_counted_how_conflicts_end_and_how_many_were_none() {
    let home = tempfile::tempdir().unwrap();
    let start = async || {
        let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
        let store = store::open(home.path(), Engine::Sled, &Options::default()).unwrap();
        relay_with(store, worker, |config| {
            config.admin = Some(("127.0.0.1".to_owned(), 0));
        })
        .await
    };
    let (relay, http) = start().await;
    let (ann, ben) = (peer("ann"), peer("ben"));
    let mut pairs = Vec::new();
    for _ in 0..4 {
        pairs.push(disagree(&http, &ann, &ben).await);
    }
    let open = http.open(4).await;
    let ids: Vec<&str> = open.iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert!(!metrics(&relay).await.contains("conflicts_false_ratio"), "nothing was decided");

    let dismissed = act(&http, ids[0], "dismiss", &json!({ "who": "ann" })).await;
    assert_eq!(dismissed.0, 200);
    for id in [ids[1], ids[2]] {
        assert_eq!(http.resolve(id, &json!({ "choice": "now" })).await.0, 200);
    }
    // The last one is written over by somebody who did not know of it: another takes its place.
    let last = &open[3]["document"];
    let [hers, his] = pairs.iter().find(|pair| *last == pair[0].id().as_str()).unwrap();
    hers.change_at(&[], |tx| Ok(tx.put(ROOT, "count", 9)?)).await.unwrap();
    until(async || hers.heads().unwrap() == his.heads().unwrap()).await;
    until(async || http.open(1).await[0]["id"] != open[3]["id"]).await;
    let counted = metrics(&relay).await;
    for line in [
        "concord_conflicts_closed_total{code=\"value\",how=\"dismissed\"} 1",
        "concord_conflicts_closed_total{code=\"value\",how=\"resolved\"} 2",
        "concord_conflicts_closed_total{code=\"value\",how=\"superseded\"} 1",
        "concord_conflicts_false_ratio 0.3333333333333333",
    ] {
        assert!(counted.lines().any(|there| there == line), "{line} is not in\n{counted}");
    }
    for peer in [ann, ben] {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();

    // What was dismissed before a relay starts is not dismissed once more.
    let (relay, http) = start().await;
    until(async || listed(&http, "state=dismissed").await.len() == 1).await;
    assert!(!metrics(&relay).await.contains("conflicts_closed_total"));
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_work_on_it_over_http() {
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let (relay, http) = relay_with(store::memory().unwrap(), worker, |config| {
        config.admin = Some(("127.0.0.1".to_owned(), 0));
    })
    .await;
    let (ann, ben) = (peer("ann"), peer("ben"));
    disagree(&http, &ann, &ben).await;
    disagree(&http, &ann, &ben).await;
    let open = http.open(2).await;
    let [one, other] = [0, 1].map(|n: usize| open[n]["id"].as_str().unwrap());

    let mut told = BufReader::new(TcpStream::connect(http.0).await.unwrap());
    told.write_all(b"GET /v1/conflicts/events HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        told.read_line(&mut line).await.unwrap();
    }
    let (status, done) = act(&http, one, "claim", &json!({ "who": "ann" })).await;
    assert_eq!((status, &done["durable"]), (200, &json!(true)), "{done}");
    assert!(done["change"].as_str().is_some_and(|change| change.len() == 64));
    while !line.starts_with("data: ") {
        line.clear();
        timeout(SOON, told.read_line(&mut line)).await.unwrap().unwrap();
    }
    let event: Value = serde_json::from_str(&line["data: ".len()..]).unwrap();
    assert_eq!((&event["event"], &event["id"]), (&json!("triaged"), &json!(one)));
    assert_eq!(
        (&event["state"], &event["triage"]["claimed_by"]),
        (&json!("claimed"), &json!(["ann"]))
    );

    let (status, again) = act(&http, one, "claim", &json!({ "who": "ann" })).await;
    assert_eq!((status, &again["change"]), (200, &Value::Null), "she has it");
    let (status, held) = act(&http, one, "claim", &json!({ "who": "ben" })).await;
    assert_eq!(status, 409);
    assert!(held["detail"].as_str().unwrap().contains("ann"), "{held}");
    let (status, taken) = act(&http, one, "claim", &json!({ "who": "ben", "take": true })).await;
    assert_eq!((status, &taken["triage"]["claims"][0]["who"]), (200, &json!("ben")));
    assert_eq!(act(&http, one, "release", &json!({ "who": "ben" })).await.1["state"], "open");

    assert_eq!(act(&http, one, "assign", &json!({ "who": "ann", "to": "carl" })).await.0, 200);
    assert_eq!(listed(&http, "assignee=carl").await[0]["id"], one);
    assert!(listed(&http, "assignee=dora").await.is_empty());
    assert_eq!(act(&http, one, "assign", &json!({ "who": "ann" })).await.0, 200);
    assert!(listed(&http, "assignee=carl").await.is_empty());

    let (status, _) = act(&http, one, "comment", &json!({ "who": "ann", "text": "which?" })).await;
    assert_eq!(status, 200);
    let far = 4_000_000_000_i64;
    assert_eq!(act(&http, one, "snooze", &json!({ "who": "ann", "until": far })).await.0, 200);
    assert_eq!(act(&http, other, "dismiss", &json!({ "who": "ben" })).await.0, 200);
    assert!(listed(&http, "").await.is_empty());
    assert_eq!(listed(&http, "state=snoozed").await[0]["triage"]["snoozed_until"], far);
    assert_eq!(listed(&http, "state=dismissed").await[0]["id"], other);
    assert_eq!(listed(&http, "state=all").await.len(), 2);
    let (_, counted) = http.get("/v1/conflicts").await;
    assert_eq!(counted["open"], 1, "what is put off is open");
    assert_eq!(counted["states"], json!({ "open": 0, "claimed": 0, "snoozed": 1, "dismissed": 1 }));
    let metrics = metrics(&relay).await;
    assert!(metrics.contains("conflicts_undecided{state=\"dismissed\"} 1"), "{metrics}");

    for id in [one, other] {
        let (_, done) = act(&http, id, "reopen", &json!({ "who": "ann" })).await;
        assert_eq!(done["state"], "open");
    }
    assert_eq!(listed(&http, "").await.len(), 2);

    let long = "x".repeat(9_000);
    for (id, name, said, status) in [
        (one, "comment", json!({ "who": "ann", "text": long }), 422),
        (one, "comment", json!({ "who": "ann", "text": " " }), 422),
        (one, "comment", json!({ "who": "ann" }), 422),
        (one, "comment", json!({ "text": "who?" }), 422),
        (one, "claim", json!({ "who": "" }), 422),
        (one, "claim", json!({ "who": "ann", "text": "mine" }), 422),
        (one, "claim", json!(["ann"]), 422),
        (one, "snooze", json!({ "who": "ann", "until": 5 }), 422),
        (one, "snooze", json!({ "who": "ann", "until": "soon" }), 422),
        (one, "praise", json!({ "who": "ann" }), 404),
        ("x", "claim", json!({ "who": "ann" }), 400),
        (&"0".repeat(32), "claim", json!({ "who": "ann" }), 404),
    ] {
        let (found, problem) = act(&http, id, name, &said).await;
        assert_eq!(found, status, "{name} {said}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
    assert_eq!(http.get("/v1/conflicts?state=strange").await.0, 400);
    for peer in [ann, ben] {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_all_of_it_is_known_and_what_is_long_over_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let on_disk = || -> Arc<dyn Store> {
        store::open(directory.path(), store::Engine::Sled, &store::Options::default()).unwrap()
    };
    let (relay, http) = relay(on_disk()).await;
    let (ann, ben) = (peer("ann"), peer("ben"));
    disagree(&http, &ann, &ben).await;
    let id = http.open(1).await[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(act(&http, &id, "claim", &json!({ "who": "ann" })).await.0, 200);
    // What somebody said long ago about what is over, what is from far in the future, and what was
    // just said about something that the relay does not know of.
    let [old, far, new]: [ConflictId; 3] = ["1", "2", "3"].map(|n| n.repeat(32).parse().unwrap());
    let review = ben.review_document().await.unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    let said = |tx: &mut automerge::transaction::Transaction<'_>| {
        for (n, (conflict, time_s)) in
            (0_u8..).zip([(old, 1_000), (far, now + 400 * 86_400), (new, now)])
        {
            let text = Act::Comment("well".to_owned());
            write(tx, &Entry { conflict, act: &text, who: "ben", time_s, unique: [n; 16] })?;
        }
        Ok(())
    };
    review.change(said).await.unwrap();
    review.wait_confirmed(SOON).await.unwrap();
    until(async || ben.triage(id.parse().unwrap()).await.unwrap().holder() == Some("ann")).await;
    relay.shutdown().await.unwrap();

    let (relay, http) = self::relay(on_disk()).await;
    assert_eq!(http.open(1).await[0]["triage"]["claimed_by"], json!(["ann"]));
    ben.connect(&format!("ws://{}", http.0)).unwrap();
    until(async || review.read(|doc| standings(doc).len()).unwrap() == 2).await;
    let left =
        review.read(|doc| [old, far, new].map(|conflict| read(doc, conflict).comments.len()));
    assert_eq!(left.unwrap(), [0, 0, 1]);
    for peer in [ann, ben] {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}

#[test]
fn the_review_document_is_one_for_everybody() {
    let mut docs = [Automerge::new(), Automerge::new()];
    for doc in &mut docs {
        begin(doc).unwrap();
    }
    assert_eq!(docs[0].get_heads(), docs[1].get_heads());
    assert_eq!(review_document_id("default"), review_document_id("default"));
    assert_ne!(review_document_id("default"), review_document_id("other"));
}
