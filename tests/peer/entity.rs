//! Entities of the embedded peer: opened by their key, begun alike by everybody, edited by their
//! type.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use automerge::{Automerge, ROOT, ReadDoc as _};
use concord::{
    entity::{EntityType, Schema},
    peer::{ChangeError, Document, Peer},
    relay::{Relay, RelayConfig},
    store,
    worker::{InProcess, WorkerLimits},
};
use serde::{Deserialize, Serialize};

const SOON: Duration = Duration::from_secs(20);

const SCHEMA: &str = r#"
[types.task]
version = 1
invariants = { dates = "start <= end" }

[types.task.fields]
title = { kind = "string", required = true, max_length = 20 }
details = "text"
labels = { kind = "set", items = "string" }
votes = "counter"
start = "integer"
end = "integer"
"#;

#[derive(Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
struct Task {
    title: String,
    details: String,
    labels: BTreeSet<String>,
    votes: i64,
    start: Option<i64>,
    end: Option<i64>,
}

fn task() -> EntityType {
    Schema::parse(SCHEMA).unwrap_or_else(|errors| panic!("{errors}")).types.remove("task").unwrap()
}

fn peer() -> Peer {
    Peer::builder("memory").store(store::memory().unwrap()).open().unwrap()
}

async fn edit(of: &EntityType, document: &Document, edit: impl FnOnce(&mut Task)) {
    document.change(|tx| Ok(of.edit(tx, edit)?)).await.unwrap();
}

fn see(of: &EntityType, document: &Document) -> Task {
    document.read(|doc| of.read(doc).decode().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_begun_by_two_offline_is_one_entity() {
    let config = RelayConfig { port: 0, admin: None, ..RelayConfig::default() };
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let relay = Relay::start(config, store::memory().unwrap(), worker).await.unwrap();
    let url = format!("ws://{}", relay.addr());
    let (of, ann, ben) = (task(), peer(), peer());

    let hers = ann.entity(&of, "42").await.unwrap();
    let his = ben.entity(&of, "42").await.unwrap();
    assert_eq!(hers.id(), his.id());
    assert_eq!(hers.heads().unwrap(), his.heads().unwrap(), "begun alike");
    assert_ne!(ann.entity(&of, "43").await.unwrap().id(), hers.id());
    edit(&of, &hers, |task| {
        task.title = "Trip".to_owned();
        task.details = "We go.".to_owned();
        task.labels.insert("rome".to_owned());
        task.votes += 1;
    })
    .await;
    edit(&of, &his, |task| {
        task.title = "Trip".to_owned();
        task.details = "By train. ".to_owned();
        task.labels.insert("spring".to_owned());
        task.votes += 2;
    })
    .await;

    for (peer, document) in [(&ann, &hers), (&ben, &his), (&ann, &hers)] {
        peer.connect(&url).unwrap();
        document.wait_confirmed(SOON).await.unwrap();
    }
    let same = async {
        while hers.heads().unwrap() != his.heads().unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, same).await.unwrap();
    let both = see(&of, &hers);
    assert_eq!(both, see(&of, &his));
    assert_eq!(both.votes, 3);
    assert_eq!(both.labels, BTreeSet::from(["rome".to_owned(), "spring".to_owned()]));
    assert!(both.details.contains("We go.") && both.details.contains("By train."), "{both:?}");
    assert!(hers.conflicts().unwrap().is_empty(), "nothing was made twice");

    // A third who never met them gets theirs, and adds nothing of its own.
    let third = peer();
    third.connect(&url).unwrap();
    let document = third.entity(&of, "42").await.unwrap();
    let there = async {
        while see(&of, &document) != both {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, there).await.unwrap();
    assert_eq!(document.heads().unwrap(), hers.heads().unwrap());
    for peer in [ann, ben, third] {
        peer.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_edit_that_does_not_fit_is_refused_with_the_field_and_leaves_no_trace() {
    let (of, peer) = (task(), peer());
    let document = peer.entity(&of, "42").await.unwrap();
    edit(&of, &document, |task| task.title = "Trip".to_owned()).await;
    let before = (document.heads().unwrap(), see(&of, &document));
    for (field, wrong) in [
        ("title", (|task| task.title = "x".repeat(21)) as fn(&mut Task)),
        ("title", |task| task.title.clear()),
        ("dates", |task| (task.start, task.end) = (Some(2), Some(1))),
    ] {
        let refused = document.change(|tx| Ok(of.edit(tx, wrong)?)).await.unwrap_err();
        assert!(matches!(refused, ChangeError::Edit(_)), "{refused}");
        assert!(refused.to_string().contains(field), "{refused}");
        assert_eq!((document.heads().unwrap(), see(&of, &document)), before);
    }
    peer.close().await.unwrap();
}

#[tokio::test]
async fn what_is_stored_is_found_again_and_a_later_version_adds_what_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let of = task();
    let peer = Peer::open(directory.path()).unwrap();
    let document = peer.entity(&of, "42").await.unwrap();
    edit(&of, &document, |task| task.title = "Trip".to_owned()).await;
    let heads = document.heads().unwrap();
    drop(document);
    peer.close().await.unwrap();

    let peer = Peer::open(directory.path()).unwrap();
    let document = peer.entity(&of, "42").await.unwrap();
    assert_eq!(document.heads().unwrap(), heads, "nothing is begun twice");
    let newer = SCHEMA.replace("version = 1", "version = 2")
        + "notes = { kind = \"list\", items = \"string\" }\n\
           [[types.task.migrations]]\nversion = 2\nadd = \"notes\"\n";
    let newer = Schema::parse(&newer).unwrap_or_else(|errors| panic!("{errors}"));
    let document = peer.entity(&newer.types["task"], "42").await.unwrap();
    let notes =
        |doc: &Automerge| doc.get(ROOT, "notes").unwrap().is_some_and(|(v, _)| v.is_object());
    assert!(document.read(notes).unwrap());
    assert_eq!(see(&of, &document).title, "Trip");
    peer.close().await.unwrap();
}
