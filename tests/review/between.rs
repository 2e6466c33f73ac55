//! Conflicts between documents: a unique name taken twice, and a reference to what was deleted
//! meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "a test says where it fails"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use automerge::{
    AutoCommit, ObjType, ROOT,
    transaction::{Transactable as _, Transaction},
};
use concord::{
    entity::{self, OnDelete, Schema},
    peer::{Document, Peer},
    relay::Relay,
    review::{
        Detector, Facts,
        between::{Apart, Between, NotSo},
        desk::Wanted,
    },
    store::{self, Engine, Options, Store},
    worker::{InProcess, WorkerLimits},
};
use concord_protocol::DocumentId;
use quickcheck::{Arbitrary, Gen, QuickCheck};
use serde_json::{Value as Json, json};

use crate::{
    entities_common::{has, make, offline, until},
    http_common::{Http, SOON, relay_with},
};

const SCHEMA: &str = r#"
[types.person]
version = 1
unique = ["email"]
fields = { email = "string", name = "string" }

[types.project]
version = 1
fields = { title = "string" }

[types.task]
version = 1
unique = [["project", "number"]]

[types.task.fields]
number = "integer"
project = { kind = "reference", to = "project", on_delete = "restrict" }
parent = { kind = "reference", to = "task", on_delete = "cascade", acyclic = true }
also = { kind = "set", items = { kind = "reference", to = "project", on_delete = "set_null" } }
"#;

fn schema() -> Schema {
    Schema::parse(SCHEMA).unwrap_or_else(|errors| panic!("{errors}"))
}

async fn relay(store: Arc<dyn Store>) -> (Relay, Http) {
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    relay_with(store, worker, |config| config.schema = Some(SCHEMA.to_owned())).await
}

fn id(conflict: &Json) -> &str {
    conflict["id"].as_str().unwrap()
}

async fn show(http: &Http, conflict: &Json) -> Json {
    let (status, shown) = http.get(&format!("/v1/conflicts/{}", id(conflict))).await;
    assert_eq!(status, 200, "{shown}");
    shown
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_two_took_offline_is_in_the_queue_and_one_keeps_it() {
    let directory = tempfile::tempdir().unwrap();
    let on_disk = || store::open(directory.path(), Engine::Sled, &Options::default()).unwrap();
    let (relay, http) = self::relay(on_disk()).await;
    let (ann, ben) = (offline(), offline());
    let hers = make(&ann, "person", json!({"email": "a@x.org", "name": "Ann"})).await;
    let his = make(&ben, "person", json!({"email": "a@x.org", "name": "Abe"})).await;
    make(&ben, "person", json!({"email": "b@x.org", "name": "Ben"})).await;
    make(&ben, "person", json!({"name": "Nobody"})).await;
    make(&ben, "person", json!({"name": "Nobody else"})).await;
    for peer in [&ann, &ben] {
        peer.connect(&format!("ws://{}", http.0)).unwrap();
    }
    let open = http.open(1).await.remove(0);
    assert_eq!((&open["code"], &open["path"]), (&json!("unique"), &json!("email")));
    let shown = show(&http, &open).await;
    let sides = shown["sides"].as_array().unwrap();
    let documents: BTreeSet<&str> =
        sides.iter().map(|side| side["document"].as_str().unwrap()).collect();
    assert_eq!(documents, BTreeSet::from([hers.id().as_str(), his.id().as_str()]));
    assert!(sides.iter().all(|side| side["value"] == json!({"email": "a@x.org"})));
    assert!(sides.iter().all(|side| side["by"][0]["actor"].is_string()), "{shown}");
    for document in documents {
        let (_, listed) = http.get(&format!("/v1/conflicts?document={document}")).await;
        assert_eq!(listed["conflicts"].as_array().unwrap().len(), 1, "{listed}");
    }
    // A restart finds the same, under the same id.
    relay.shutdown().await.unwrap();
    let (relay, http) = self::relay(on_disk()).await;
    assert_eq!(id(&http.open(1).await[0]), id(&open));
    for peer in [&ann, &ben] {
        peer.connect(&format!("ws://{}", http.0)).unwrap();
    }

    let (status, said) = http.resolve(id(&open), &json!({"choice": {"value": "c@x.org"}})).await;
    assert_eq!(status, 422, "{said}");
    assert!(said["detail"].as_str().unwrap().contains("say which side keeps it"), "{said}");
    let keeps = sides.iter().position(|side| side["document"] == his.id().as_str()).unwrap();
    let decision = json!({"choice": {"side": keeps + 1}, "reason": "he was first"});
    let (status, said) = http.resolve(id(&open), &decision).await;
    assert_eq!((status, &said["document"]), (200, &json!(hers.id().as_str())), "{said}");
    assert_eq!(http.open(0).await, Vec::<Json>::new());
    until("it is cleared", || has(&hers, "email").is_none()).await;
    assert_eq!(has(&his, "email").as_deref(), Some("a@x.org"));
    assert_eq!(has(&hers, "name").as_deref(), Some("Ann"));
    let decisions = hers.decisions().unwrap();
    assert_eq!(decisions[0].decided.conflict.to_string(), id(&open));
    assert_eq!(decisions[0].decided.reason.as_deref(), Some("he was first"));
    let (status, _) = http.resolve(id(&open), &decision).await;
    assert_eq!(status, 409);
    for peer in [ann, ben] {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reference_to_what_was_deleted_meanwhile_is_in_the_queue_and_neither_is_lost() {
    let (relay, http) = relay(store::memory().unwrap()).await;
    let (ann, ben) = (offline(), offline());
    let url = format!("ws://{}", http.0);
    ann.connect(&url).unwrap();
    let projects = [
        make(&ann, "project", json!({"title": "Roof"})).await,
        make(&ann, "project", json!({"title": "Wall"})).await,
        make(&ann, "project", json!({"title": "Door"})).await,
    ];
    for project in &projects {
        project.wait_confirmed(SOON).await.unwrap();
    }
    // Ben knows the projects by name alone, and is away, while Ann deletes them.
    let mut tasks = Vec::new();
    for (number, project) in (1..).zip(&projects) {
        let fields = json!({"number": number, "project": project.url().to_string()});
        tasks.push(make(&ben, "task", fields).await);
        project.change(|tx| Ok(entity::delete(tx, 1_700_000_000_000)?)).await.unwrap();
    }
    ben.connect(&url).unwrap();
    let open = http.open(3).await;
    let of = |task: &Document| {
        open.iter().find(|conflict| conflict["document"] == task.id().as_str()).unwrap()
    };
    assert!(open.iter().all(|conflict| conflict["code"] == "dangling"), "{open:?}");
    let shown = show(&http, of(&tasks[0])).await;
    assert_eq!(shown["sides"][0]["kind"], "written");
    assert_eq!(shown["sides"][1]["kind"], "deleted");
    assert_eq!(shown["sides"][1]["document"], projects[0].id().as_str());
    assert!(shown["sides"][1]["by"][0]["time"].is_i64(), "{shown}");

    // The reference stands: what it refers to comes back.
    let (status, said) = http.resolve(id(of(&tasks[0])), &json!({"choice": {"side": 1}})).await;
    assert_eq!((status, &said["document"]), (200, &json!(projects[0].id().as_str())), "{said}");
    // The delete stands: nothing refers to it any more.
    let (status, said) = http.resolve(id(of(&tasks[1])), &json!({"choice": {"side": 2}})).await;
    assert_eq!((status, &said["document"]), (200, &json!(tasks[1].id().as_str())), "{said}");
    // Both stand.
    let (status, said) = http.resolve(id(of(&tasks[2])), &json!({"choice": "now"})).await;
    assert_eq!(status, 200, "{said}");
    assert_eq!(http.open(0).await, Vec::<Json>::new());
    let lives = |project: &Document| !project.read(entity::is_deleted).unwrap();
    until("it is back", || lives(&projects[0])).await;
    until("it is cleared", || has(&tasks[1], "project").is_none()).await;
    assert!(!lives(&projects[1]) && !lives(&projects[2]));
    assert!(has(&tasks[0], "project").is_some() && has(&tasks[2], "project").is_some());
    // Taken back: it refers to what is deleted, and somebody is asked again.
    let (status, said) = http.revert(id(of(&tasks[1]))).await;
    assert_eq!((status, &said["document"]), (200, &json!(tasks[1].id().as_str())), "{said}");
    until("it refers again", || has(&tasks[1], "project").is_some()).await;
    let again = http.open(1).await.remove(0);
    assert_ne!(id(&again), id(of(&tasks[1])), "it is another one");
    let (status, said) = http.resolve(id(&again), &json!({"choice": "now"})).await;
    assert_eq!(status, 200, "{said}");
    http.open(0).await;
    // Not for ever: deleted once more, it is open once more.
    projects[0].change(|tx| Ok(entity::delete(tx, 1_800_000_000_000)?)).await.unwrap();
    assert_eq!(http.open(1).await[0]["document"], tasks[0].id().as_str());
    for peer in [ann, ben] {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_between_documents_is_taken_back_without_a_relay() {
    let memory = Peer::builder("memory").store(store::memory().unwrap());
    let peer = memory.schema(schema()).open().unwrap();
    let mut people = Vec::new();
    for name in ["Ann", "Bea", "Cleo"] {
        people.push(make(&peer, "person", json!({"email": "a@x.org", "name": name})).await);
    }
    let open = peer.conflicts_between().await.unwrap();
    let [conflict] = open.as_slice() else { panic!("{open:?}") };
    peer.resolve_between(conflict, &Wanted::Side(1), None).await.unwrap();
    assert!(peer.conflicts_between().await.unwrap().is_empty());
    let cleared: Vec<&Document> =
        people.iter().filter(|person| has(person, "email").is_none()).collect();
    assert_eq!(cleared.len(), 2);

    let reverted = peer.revert(cleared[0], conflict.view.id, None).await.unwrap();
    assert_eq!(reverted.len(), 2);
    assert!(people.iter().all(|person| has(person, "email").is_some()));
    let again = peer.conflicts_between().await.unwrap();
    assert_eq!(again.len(), 1);

    // Not where somebody wrote since.
    peer.resolve_between(&again[0], &Wanted::Side(1), None).await.unwrap();
    let cleared = people.iter().find(|person| has(person, "email").is_none()).unwrap();
    let write = |tx: &mut Transaction<'_>| Ok(tx.put(ROOT, "email", "new@x.org")?);
    cleared.change(write).await.unwrap();
    let refused = peer.revert(cleared, again[0].view.id, None).await.unwrap_err();
    assert!(refused.to_string().contains("`email` was written since"), "{refused}");
    peer.close().await.unwrap();
}

/// What one of a few documents says from some moment on.
#[derive(Debug, Clone)]
struct Says {
    document: u8,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Nothing,
    Person(u8),
    Project { deleted: bool },
    Task { number: u8, project: u8, parent: u8, also: u8 },
}

impl Arbitrary for Says {
    fn arbitrary(g: &mut Gen) -> Self {
        let small = |g: &mut Gen| u8::arbitrary(g) % 3;
        let what = match u8::arbitrary(g) % 8 {
            0 => What::Nothing,
            1 | 2 => What::Person(small(g)),
            3 | 4 => What::Project { deleted: bool::arbitrary(g) },
            _ => What::Task {
                number: small(g),
                project: u8::arbitrary(g) % 6,
                parent: u8::arbitrary(g) % 6,
                also: u8::arbitrary(g),
            },
        };
        Self { document: u8::arbitrary(g) % 6, what }
    }
}

fn document(number: u8) -> DocumentId {
    DocumentId::from_bytes(&[number; 16])
}

fn facts(what: What) -> Option<Facts> {
    let mut doc = AutoCommit::new();
    let type_name = match what {
        What::Nothing => return None,
        What::Person(email) => {
            doc.put(ROOT, "email", format!("{email}@x.org")).unwrap();
            "person"
        }
        What::Project { deleted } => {
            if deleted {
                entity::delete(&mut doc, 1).unwrap();
            }
            "project"
        }
        What::Task { number, project, parent, also } => {
            doc.put(ROOT, "number", i64::from(number)).unwrap();
            doc.put(ROOT, "project", document(project).as_str()).unwrap();
            doc.put(ROOT, "parent", document(parent).as_str()).unwrap();
            let set = doc.put_object(ROOT, "also", ObjType::Map).unwrap();
            for member in (0..6).filter(|member| also & (1 << member) != 0) {
                doc.put(&set, document(member).as_str(), true).unwrap();
            }
            "task"
        }
    };
    doc.put(ROOT, "type", type_name).unwrap();
    let detector = Detector::of(&doc.get_changes(&[])).unwrap();
    Some(Facts::of(doc.document(), &detector, &schema().types[type_name]))
}

fn ids(between: &Between) -> Vec<String> {
    let mut ids: Vec<String> = between.open().map(|apart| apart.view.id.to_string()).collect();
    ids.sort();
    ids
}

#[test]
fn what_is_open_depends_on_nothing_but_what_the_documents_say() {
    fn law(says: Vec<Says>) -> bool {
        let mut between = Between::default();
        let mut last: BTreeMap<u8, Option<Facts>> = BTreeMap::new();
        let mut told: BTreeMap<_, Apart> = BTreeMap::new();
        for Says { document: number, what } in says {
            let facts = facts(what);
            last.insert(number, facts.clone());
            for (group, apart) in between.update(&document(number), facts) {
                match apart {
                    Some(apart) => told.insert(group, apart),
                    None => told.remove(&group),
                };
            }
        }
        let mut anew = Between::default();
        for (number, facts) in last.into_iter().rev() {
            anew.update(&document(number), facts);
        }
        let mut heard: Vec<String> = told.values().map(|apart| apart.view.id.to_string()).collect();
        heard.sort();
        let found = between.open().all(|apart| between.find(&apart.view.id) == Some(apart));
        // Also of what the schema decides: nobody waits for what is no more.
        let rules = |between: &Between| -> BTreeMap<String, Option<OnDelete>> {
            between.open().map(|apart| (apart.view.id.to_string(), apart.rule)).collect()
        };
        let heard_rules: BTreeMap<String, Option<OnDelete>> =
            told.values().map(|apart| (apart.view.id.to_string(), apart.rule)).collect();
        if heard_rules != rules(&anew) {
            return false;
        }
        found && ids(&between) == ids(&anew) && heard == ids(&between)
    }
    QuickCheck::new().tests(600).quickcheck(law as fn(Vec<Says>) -> bool);
}

#[test]
fn three_who_claim_one_key_are_one_conflict_and_two_lose_it() {
    let mut between = Between::default();
    for number in 1..=3 {
        between.update(&document(number), facts(What::Person(0)));
    }
    let open: Vec<Apart> = between.open().collect();
    assert_eq!((open.len(), open[0].view.sides.len()), (1, 3));
    let (_, steps) = open[0].steps(&Wanted::Side(2)).unwrap();
    assert_eq!(steps.len(), 2);
    assert!(steps.iter().all(|step| step.document != open[0].documents[1]));
    assert!(steps.iter().all(|step| Json::Object(step.fields.clone()) == json!({"email": null})));
    for wrong in [Wanted::Side(0), Wanted::Side(4), Wanted::Before, Wanted::Delete] {
        assert_eq!(open[0].steps(&wrong), Err(NotSo::Claim));
    }
}
