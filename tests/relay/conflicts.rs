//! The queue of conflicts of a relay, over HTTP: the same as a peer's, with nothing stored of it.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use automerge::{
    AutomergeError, ObjType, ROOT, ReadDoc as _,
    transaction::{Transactable as _, Transaction},
};
use concord::{
    peer::{ConflictEvent, Document, Peer},
    replica::{JobError, JobOutput},
    review::Choice,
    store::{self, Engine, Options, Store},
    worker::{BoxFuture, InProcess, Materialiser, WorkerJob, WorkerLimits},
};
use concord_protocol::ChangeHash;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::http_common::{Http, SOON, relay, relay_with};

fn on_disk(directory: &Path) -> Arc<dyn Store> {
    store::open(directory, Engine::Sled, &Options::default()).unwrap()
}

fn peer() -> Peer {
    Peer::builder("memory").store(store::memory().unwrap()).open().unwrap()
}

/// Two peers with one document, each of whom writes as if it knew only what was there at first.
struct Two {
    peers: [Peer; 2],
    documents: [Document; 2],
    before: Vec<ChangeHash>,
}

impl Two {
    async fn at(http: &Http) -> Self {
        let url = format!("ws://{}", http.0);
        let (ann, ben) = (peer(), peer());
        ann.connect(&url).unwrap();
        ben.connect(&url).unwrap();
        let hers = ann.create().await.unwrap();
        let fill = |tx: &mut Transaction<'_>| {
            tx.put(ROOT, "title", "Trip")?;
            tx.put(ROOT, "count", 1)?;
            let info = tx.put_object(ROOT, "info", ObjType::Map)?;
            Ok(tx.put(&info, "city", "Rome")?)
        };
        hers.change(fill).await.unwrap();
        hers.wait_confirmed(SOON).await.unwrap();
        let his = ben.find_within(hers.id().as_str(), SOON).await.unwrap();
        let before = hers.heads().unwrap();
        assert_eq!(his.heads().unwrap(), before);
        Self { peers: [ann, ben], documents: [hers, his], before }
    }

    /// One of them writes, not knowing what the other did since the beginning.
    async fn write(
        &self,
        who: usize,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<(), AutomergeError>,
    ) {
        let document = &self.documents[who];
        document.change_at(&self.before, |tx| Ok(edit(tx)?)).await.unwrap();
        document.wait_confirmed(SOON).await.unwrap();
    }

    async fn put(&self, who: usize, key: &str, value: i64) {
        self.write(who, |tx| tx.put(ROOT, key, value)).await;
    }

    /// Until both have what the other has.
    async fn agree(&self) {
        let same = async {
            while self.documents[0].heads().unwrap() != self.documents[1].heads().unwrap() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, same).await.unwrap();
    }

    async fn until(&self, who: usize, key: &str, wanted: i64) {
        let there = || {
            let number = |doc: &automerge::Automerge| doc.get(ROOT, key).unwrap()?.0.as_i64();
            self.documents[who].read(number).unwrap() == Some(wanted)
        };
        let waiting = async {
            while !there() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(SOON, waiting).await.unwrap();
    }

    async fn end(self) {
        for peer in self.peers {
            peer.close().await.unwrap();
        }
    }
}

fn ids(conflicts: &[Value]) -> BTreeSet<String> {
    conflicts.iter().map(|conflict| conflict["id"].as_str().unwrap().to_owned()).collect()
}

fn at<'a>(conflicts: &'a [Value], path: &str) -> &'a Value {
    conflicts.iter().find(|conflict| conflict["path"] == path).unwrap()
}

fn id(conflict: &Value) -> &str {
    conflict["id"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_that_of_a_peer_and_a_decision_reaches_everybody() {
    let (relay, http) = relay(store::memory().unwrap()).await;
    let two = Two::at(&http).await;
    assert!(http.open(0).await.is_empty());
    two.put(0, "count", 5).await;
    two.write(0, |tx| tx.delete(ROOT, "info")).await;
    two.put(1, "count", 7).await;
    let city = |tx: &mut Transaction<'_>| {
        let (_, info) = tx.get(ROOT, "info")?.unwrap();
        tx.put(&info, "city", "Paris")
    };
    two.write(1, city).await;
    two.agree().await;

    let open = http.open(2).await;
    for document in &two.documents {
        let here: BTreeSet<String> =
            document.conflicts().unwrap().iter().map(|open| open.id.to_string()).collect();
        assert_eq!(ids(&open), here, "on a peer as on the relay");
    }
    let count = at(&open, "count");
    assert_eq!((count["code"].as_str(), count["side_count"].as_u64()), (Some("value"), Some(2)));
    let (status, shown) = http.get(&format!("/v1/conflicts/{}", id(count))).await;
    assert_eq!(status, 200);
    assert_eq!(shown["before"], 1);
    let values: BTreeSet<i64> =
        shown["sides"].as_array().unwrap().iter().map(|s| s["value"].as_i64().unwrap()).collect();
    assert_eq!(values, BTreeSet::from([5, 7]));
    let (_, lost) = http.get(&format!("/v1/conflicts/{}", id(at(&open, "info")))).await;
    assert_eq!(lost["now"], Value::Null);
    assert_eq!(
        lost["sides"][0]["value"],
        json!({ "city": "Paris" }),
        "what was lost is shown whole"
    );

    let decision = json!({ "choice": { "value": 6 }, "reason": "in between" });
    let (status, done) = http.resolve(id(count), &decision).await;
    assert_eq!(status, 200, "{done}");
    for who in [0, 1] {
        two.until(who, "count", 6).await;
    }
    let message = two.documents[1]
        .read(|doc| {
            let change = done["change"].as_str().unwrap().parse().unwrap();
            doc.get_change_by_hash(&change).unwrap().message().map(str::to_owned)
        })
        .unwrap();
    assert!(message.unwrap().ends_with("in between"));
    assert_eq!(ids(&http.open(1).await), BTreeSet::from([id(at(&open, "info")).to_owned()]));
    let (status, late) = http.resolve(id(count), &json!({ "choice": { "side": 1 } })).await;
    assert_eq!((status, &late["successor"]), (409, &Value::Null));

    // Taken back, what was shown before is there again; and nothing is open by that.
    let shown_before = shown["now"].as_i64().unwrap();
    let revert = format!("POST /v1/conflicts/{}/revert HTTP/1.1", id(count));
    let (status, _, taken_back) = http.send(&revert, r#"{"reason":"too soon"}"#).await;
    assert_eq!(status, 200, "{taken_back}");
    for who in [0, 1] {
        two.until(who, "count", shown_before).await;
    }
    let log = two.documents[1].decisions().unwrap();
    let said: Vec<(&str, Option<&str>)> =
        log.iter().map(|past| (&*past.decided.choice, past.decided.reason.as_deref())).collect();
    assert_eq!(said, [("value", Some("in between")), ("now", Some("too soon"))]);
    assert_eq!(http.open(1).await.len(), 1);
    // Another side, after all: also on a peer, and without a relay it would be the same.
    let id = id(count).parse().unwrap();
    two.documents[0].decide_again(id, &Choice::Side(0), None).await.unwrap();
    let wanted = shown["sides"][0]["value"].as_i64().unwrap();
    two.until(1, "count", wanted).await;

    // A peer decides the other one, and it leaves the queue of the relay.
    let conflict = two.documents[0].conflicts().unwrap().pop().unwrap();
    two.documents[0].resolve(&conflict, &Choice::Side(0), None).await.unwrap();
    two.documents[0].wait_confirmed(SOON).await.unwrap();
    assert!(http.open(0).await.is_empty());
    two.end().await;
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_told_what_becomes_of_conflicts() {
    let (relay, http) = relay(store::memory().unwrap()).await;
    let two = Two::at(&http).await;
    let mut watcher = two.documents[0].watch_conflicts();
    two.put(0, "count", 5).await;
    let nothing = timeout(Duration::from_millis(50), watcher.next()).await;
    assert!(nothing.is_err(), "nobody disagrees");
    two.put(1, "count", 7).await;
    let mut told = async || timeout(SOON, watcher.next()).await.unwrap().unwrap();
    let ConflictEvent::Opened(first) = told().await else { panic!("one is opened first") };
    two.write(1, |tx| tx.put(ROOT, "count", 9)).await;
    let ConflictEvent::Closed { id, successor } = told().await else { panic!("then closed") };
    let ConflictEvent::Opened(second) = told().await else { panic!("and another opened") };
    assert_eq!((id, successor), (first.id, Some(second.id)));
    // The relay looks a moment later.
    assert_eq!(http.open(1).await[0]["id"], second.id.to_string());
    let (status, _) = http.resolve(&second.id.to_string(), &json!({ "choice": "before" })).await;
    assert_eq!(status, 200);
    assert_eq!(told().await, ConflictEvent::Closed { id: second.id, successor: None });
    assert!(two.documents[0].conflicts().unwrap().is_empty());
    two.end().await;
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_decides_what_has_moved_on_is_told_what_took_its_place() {
    let (relay, http) = relay(store::memory().unwrap()).await;
    let two = Two::at(&http).await;
    two.put(0, "count", 5).await;
    two.put(1, "count", 7).await;
    let first = http.open(1).await;
    let mut told = BufReader::new(TcpStream::connect(http.0).await.unwrap());
    told.write_all(b"GET /v1/conflicts/events HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        told.read_line(&mut line).await.unwrap();
    }
    // A third side: another name for another disagreement.
    two.write(0, |tx| tx.put(ROOT, "count", 9)).await;
    let mut events = Vec::new();
    while events.len() < 2 {
        line.clear();
        timeout(SOON, told.read_line(&mut line)).await.unwrap().unwrap();
        let data = line.strip_prefix("data: ");
        events.extend(data.map(|data| serde_json::from_str::<Value>(data).unwrap()));
    }
    let second = http.open(1).await;
    assert_ne!(id(&first[0]), id(&second[0]));
    assert_eq!(first[0]["slot"], second[0]["slot"]);
    assert_eq!(second[0]["side_count"], 3);
    assert_eq!(events[0]["event"], "closed");
    assert_eq!(events[0]["id"], first[0]["id"]);
    assert_eq!(events[0]["successor"], second[0]["id"]);
    assert_eq!(events[1]["conflict"]["id"], second[0]["id"]);

    let (status, late) = http.resolve(id(&first[0]), &json!({ "choice": "before" })).await;
    assert_eq!((status, &late["successor"]), (409, &second[0]["id"]), "{late}");
    let (status, _) = http.resolve(id(&second[0]), &json!({ "choice": "before" })).await;
    assert_eq!(status, 200);
    two.until(1, "count", 1).await;
    two.end().await;
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_decide_at_once_through_one_relay_do_not_disagree() {
    let (relay, http) = relay(store::memory().unwrap()).await;
    let two = Two::at(&http).await;
    two.put(0, "count", 5).await;
    two.put(1, "count", 7).await;
    let open = http.open(1).await;
    let decide = |side: usize| {
        let decision = json!({ "choice": { "side": side } });
        let (http, id) = (&http, id(&open[0]));
        async move { http.resolve(id, &decision).await.0 }
    };
    let (one, other, third) = tokio::join!(decide(1), decide(2), decide(1));
    let mut statuses = [one, other, third];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409, 409]);
    two.agree().await;
    assert!(http.open(0).await.is_empty());
    two.end().await;
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_all_of_it_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let (relay, http) = relay(on_disk(directory.path())).await;
    let mut before = BTreeSet::new();
    for n in 1..=12 {
        let two = Two::at(&http).await;
        two.put(0, "count", 5).await;
        two.put(1, "count", 7).await;
        before = ids(&http.open(n).await);
        two.end().await;
    }
    relay.shutdown().await.unwrap();

    let (relay, http) = self::relay(on_disk(directory.path())).await;
    assert_eq!(ids(&http.open(12).await), before);
    // In pages, each once.
    let (mut seen, mut next) = (BTreeSet::new(), String::new());
    loop {
        let (_, page) = http.get(&format!("/v1/conflicts?limit=5&code=value{next}")).await;
        let conflicts = page["conflicts"].as_array().unwrap();
        assert!(conflicts.len() <= 5);
        assert!(ids(conflicts).is_disjoint(&seen));
        seen.extend(ids(conflicts));
        let Some(after) = page["next"].as_str() else { break };
        next = format!("&after={after}");
    }
    assert_eq!(seen, before);
    let document = http.open(12).await[3]["document"].as_str().unwrap().to_owned();
    for name in [document.clone(), format!("automerge:{document}")] {
        let (_, one) = http.get(&format!("/v1/conflicts?document={name}")).await;
        assert_eq!(one["conflicts"].as_array().unwrap().len(), 1);
    }
    let (_, none) = http.get("/v1/conflicts?code=twin").await;
    assert_eq!(none["conflicts"], json!([]));
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_understood_or_is_not_allowed_is_said_so() {
    let (relay, http) = relay(store::memory().unwrap()).await;
    let two = Two::at(&http).await;
    two.put(0, "count", 5).await;
    two.put(1, "count", 7).await;
    let open = http.open(1).await;
    let id = id(&open[0]);
    let resolve = format!("POST /v1/conflicts/{id}/resolve HTTP/1.1");
    let unknown = "0".repeat(32);
    let huge = format!("{{\"choice\":{{\"value\":\"{}\"}}}}", "x".repeat(2 << 20));
    for (head, body, status) in [
        ("GET /v1/conflicts?limit=many HTTP/1.1", "", 400),
        ("GET /v1/conflicts?unheard=of HTTP/1.1", "", 400),
        ("GET /v1/conflicts?after=nothing HTTP/1.1", "", 400),
        ("GET /v1/conflicts?document=x HTTP/1.1", "", 400),
        ("GET /v1/conflicts/x HTTP/1.1", "", 400),
        (&format!("GET /v1/conflicts/{unknown} HTTP/1.1"), "", 404),
        (&format!("POST /v1/conflicts/{unknown}/resolve HTTP/1.1"), r#"{"choice":"before"}"#, 404),
        (&resolve, "{", 400),
        (&resolve, r#"{"choice":"neither"}"#, 422),
        (&resolve, r#"{"choice":"before","and":"more"}"#, 422),
        (&resolve, r#"{"choice":{"side":0}}"#, 422),
        (&resolve, r#"{"choice":{"side":3}}"#, 422),
        (&resolve, &huge, 413),
        (&format!("{resolve}\r\norigin: https://evil.example"), r#"{"choice":"before"}"#, 403),
        ("GET /v1/conflicts HTTP/1.1\r\norigin: https://evil.example", "", 403),
        (&format!("{resolve}\r\nif-match: \"{unknown}\""), r#"{"choice":"before"}"#, 409),
    ] {
        let (found, answer, problem) = http.send(head, body).await;
        assert_eq!(found, status, "{head}: {answer} {problem}");
        assert!(answer.contains("application/problem+json"), "{head}: {answer}");
        assert_eq!(problem["status"], status);
        assert!(problem["request"].as_str().is_some_and(|id| id.len() == 16));
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    }
    assert_eq!(http.open(1).await, open, "nothing of that changed anything");
    let head = format!("{resolve}\r\nif-match: \"{id}\"");
    let (status, _, answer) = http.send(&head, r#"{"choice":"delete"}"#).await;
    assert_eq!(status, 200, "{answer}");
    two.end().await;
    relay.shutdown().await.unwrap();

    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let store = store::memory().unwrap();
    let (relay, http) = relay_with(store, worker, |config| config.review = false).await;
    assert_eq!(http.get("/v1/conflicts").await.0, 404);
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_policies_of_a_schema_decide_waits_for_nobody() {
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let schema = r#"
        [types.trip.fields]
        count = { kind = "integer", policy = "max" }
        title = "string"
    "#;
    let store = store::memory().unwrap();
    let (relay, http) =
        relay_with(store, worker, |config| config.schema = Some(schema.to_owned())).await;
    let two = Two::at(&http).await;
    two.write(0, |tx| tx.put(ROOT, "type", "trip")).await;
    for (who, count, title) in [(0, 7, "To Rome"), (1, 5, "To Paris")] {
        two.put(who, "count", count).await;
        two.write(who, |tx| tx.put(ROOT, "title", title)).await;
    }
    let open = http.open(1).await;
    assert_eq!(open[0]["path"], "title");
    for who in [0, 1] {
        two.until(who, "count", 7).await;
    }
    two.agree().await;
    let left = two.documents[1].conflicts().unwrap();
    assert_eq!(ids(&open), left.iter().map(|open| open.id.to_string()).collect());
    let record = two.documents[0].read(|doc| {
        let changes = doc.get_changes(&[]);
        let said = changes.iter().filter_map(|change| change.message().map(str::to_owned));
        said.filter(|said| said.ends_with("policy-max")).count()
    });
    assert_eq!(record.unwrap(), 1, "it is on record");
    two.end().await;
    relay.shutdown().await.unwrap();
}

/// Counts the documents that it is to look at.
struct Counting(InProcess, AtomicUsize);

impl Materialiser for Counting {
    fn run(&self, job: WorkerJob) -> BoxFuture<Result<JobOutput, JobError>> {
        if matches!(job, WorkerJob::Review { .. }) {
            self.1.fetch_add(1, Ordering::Relaxed);
        }
        self.0.run(job)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_in_which_nobody_can_disagree_is_not_opened() {
    let inner = InProcess::start(WorkerLimits::default()).unwrap();
    let worker = Arc::new(Counting(inner, AtomicUsize::new(0)));
    let (relay, http) = relay_with(store::memory().unwrap(), worker.clone(), |_| {}).await;
    let two = Two::at(&http).await;
    for n in 0..5_i64 {
        two.documents[0].change(|tx| Ok(tx.put(ROOT, "count", n)?)).await.unwrap();
        two.agree().await;
        two.documents[1].change(|tx| Ok(tx.put(ROOT, "count", -n)?)).await.unwrap();
        two.agree().await;
    }
    two.documents[0].wait_confirmed(SOON).await.unwrap();
    assert!(http.open(0).await.is_empty());
    sleep(Duration::from_millis(400)).await;
    assert!(http.open(0).await.is_empty());
    assert_eq!(worker.1.load(Ordering::Relaxed), 0);
    two.put(0, "title", 1).await;
    two.put(1, "title", 2).await;
    http.open(1).await;
    assert!(worker.1.load(Ordering::Relaxed) > 0);
    two.end().await;
    relay.shutdown().await.unwrap();
}

/// Cannot look at documents with a certain text in them.
struct Squeamish(InProcess);

impl Materialiser for Squeamish {
    fn run(&self, job: WorkerJob) -> BoxFuture<Result<JobOutput, JobError>> {
        if let WorkerJob::Review { base, .. } = &job {
            let mut chunks = base.iter();
            if chunks.any(|chunk| chunk.windows(6).any(|window| window == b"spider")) {
                return Box::pin(async { Err(JobError::OverLimit("it has legs".to_owned())) });
            }
        }
        self.0.run(job)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_cannot_be_looked_at_is_named_and_hides_no_other_s_conflicts() {
    let worker = Arc::new(Squeamish(InProcess::start(WorkerLimits::default()).unwrap()));
    let (relay, http) = relay_with(store::memory().unwrap(), worker, |_| {}).await;
    let (one, two) = (Two::at(&http).await, Two::at(&http).await);
    one.write(0, |tx| tx.put(ROOT, "count", "spider")).await;
    for two in [&one, &two] {
        two.put(0, "count", 5).await;
        two.put(1, "count", 7).await;
    }
    let open = http.open(1).await;
    assert_eq!(open[0]["document"], two.documents[0].id().as_str());
    let (_, listed) = http.get("/v1/conflicts").await;
    assert_eq!(listed["failed"][0]["document"], one.documents[0].id().as_str());
    assert!(listed["failed"][0]["reason"].as_str().unwrap().contains("legs"));
    one.end().await;
    two.end().await;
    relay.shutdown().await.unwrap();
}
