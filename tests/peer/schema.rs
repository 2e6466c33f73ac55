//! A peer works under the schema that a relay tells of: at once, after a restart without a network,
//! and under the next one as soon as it is told.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{path::Path, sync::Arc, time::Duration};

use automerge::{ROOT, transaction::Transactable as _};
use concord::{
    entity::Schema,
    peer::{ConflictEvent, Document, Peer, SchemaStatus},
    relay::{Relay, RelayConfig},
    store::{self, Engine},
    worker::{InProcess, WorkerLimits},
};
use concord_protocol::SchemaHash;
use tokio::time::timeout;

use crate::{http_common::SOON, pretender::Pretender};

/// A rule under which nothing is wrong with three of something, and one under which there is.
const WIDE: &str = "[types.item]\nversion = 1\ninvariants = { few = \"n <= 5\" }\n\
                    [types.item.fields]\nn = \"integer\"\n";
const NARROW: &str = "[types.item]\nversion = 1\ninvariants = { few = \"n <= 2\" }\n\
                      [types.item.fields]\nn = \"integer\"\n";

async fn relay(port: u16, store: Arc<dyn store::Store>, schema: Option<&str>) -> Relay {
    let schema = schema.map(str::to_owned);
    let config = RelayConfig { port, admin: None, schema, ..RelayConfig::default() };
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    Relay::start(config, store, worker).await.unwrap()
}

fn peer(directory: &Path) -> Peer {
    Peer::builder(directory).engine(Engine::Fjall).at_once(2).open().unwrap()
}

async fn until(peer: &Peer, so: impl Fn(&SchemaStatus) -> bool) -> SchemaStatus {
    let mut status = peer.watch_schema();
    let there = timeout(SOON, status.wait_for(so)).await;
    let there = there.unwrap_or_else(|_| panic!("still {:?}", peer.watch_schema().borrow()));
    there.unwrap().clone()
}

fn keeps(text: &str) -> impl Fn(&SchemaStatus) -> bool {
    let hash = SchemaHash::of(text);
    move |status| status.kept.as_ref().is_some_and(|kept| kept.hash == hash)
}

async fn item(peer: &Peer, n: i64) -> Document {
    let document = peer.create().await.unwrap();
    let fill = document.change(|tx| {
        tx.put(ROOT, "type", "item")?;
        Ok(tx.put(ROOT, "n", n)?)
    });
    fill.await.unwrap();
    document
}

fn codes(document: &Document) -> Vec<String> {
    let open = document.conflicts().unwrap();
    open.iter().map(|conflict| conflict.code.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_s_schema_holds_at_once_offline_and_until_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let memory = store::memory_with_faults("b5c0f1f4-8d1c-4d7e-9a52-3a2b9b9b0002".parse().unwrap());
    let first = relay(0, Arc::clone(&memory.0), Some(NARROW)).await;
    let (port, url) = (first.addr().port(), format!("ws://{}", first.addr()));

    // The document is open, and somebody watches it, before there is a schema.
    let ann = peer(directory.path());
    assert_eq!(ann.schema().await, SchemaStatus::default());
    let document = item(&ann, 3).await;
    let mut conflicts = document.watch_conflicts();
    assert_eq!(codes(&document), [""; 0]);
    ann.connect(&url).unwrap();
    until(&ann, keeps(NARROW)).await;
    assert_eq!(codes(&document), ["invariant"]);
    let told = timeout(SOON, conflicts.next()).await.unwrap().unwrap();
    assert!(matches!(told, ConflictEvent::Opened(_)), "{told:?}");
    assert!(document.wait_confirmed(SOON).await.is_ok());
    let name = document.url().to_string();
    drop((document, conflicts));
    ann.close().await.unwrap();
    first.shutdown().await.unwrap();

    // Without a network it is still so.
    let ann = peer(directory.path());
    let document = ann.find(&name).await.unwrap();
    assert_eq!(codes(&document), ["invariant"]);
    assert_eq!(ann.documents().await.unwrap(), [document.id().clone()], "it is no document");

    // The relay is started with another schema, and what was wrong is not wrong any more.
    let (store, _) = memory.1.after_crash();
    let second = relay(port, store, Some(WIDE)).await;
    let mut conflicts = document.watch_conflicts();
    assert!(matches!(conflicts.next().await.unwrap(), ConflictEvent::Opened(_)));
    ann.connect(&url).unwrap();
    until(&ann, keeps(WIDE)).await;
    assert_eq!(codes(&document), [""; 0]);
    let told = timeout(SOON, conflicts.next()).await.unwrap().unwrap();
    assert!(matches!(told, ConflictEvent::Closed { .. }), "{told:?}");
    ann.close().await.unwrap();
    second.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_s_own_schema_wins_and_the_relay_s_is_kept_for_later() {
    let directory = tempfile::tempdir().unwrap();
    let relay = relay(0, store::memory().unwrap(), Some(NARROW)).await;
    let wide = Schema::parse(WIDE).unwrap();
    let builder = Peer::builder(directory.path()).engine(Engine::Fjall).schema(wide.clone());
    let ann = builder.relay(format!("ws://{}", relay.addr())).open().unwrap();
    let document = item(&ann, 3).await;
    let status = until(&ann, keeps(NARROW)).await;
    assert_eq!(status.in_force.as_deref(), Some(&wide));
    assert_eq!(codes(&document), [""; 0]);
    let name = document.url().to_string();
    drop(document);
    ann.close().await.unwrap();
    relay.shutdown().await.unwrap();
    let ann = peer(directory.path());
    assert_eq!(codes(&ann.find(&name).await.unwrap()), ["invariant"]);
    ann.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_schema_is_said_and_the_last_good_one_stays() {
    let directory = tempfile::tempdir().unwrap();
    let mut pretender = Pretender::start("a").await;
    let ann = peer(directory.path());
    ann.connect(&pretender.url()).unwrap();
    assert_eq!(timeout(SOON, pretender.joined.recv()).await.unwrap(), Some(None));
    pretender.tell(NARROW);
    until(&ann, keeps(NARROW)).await;
    let document = item(&ann, 3).await;
    for (hash, text, word) in [
        (SchemaHash::of("[types.item"), "[types.item", "line 1"),
        (SchemaHash::of("another"), WIDE, "hash"),
    ] {
        pretender.tell_as(hash, text);
        let said = |status: &SchemaStatus| {
            status.problem.as_ref().is_some_and(|problem| problem.contains(word))
        };
        let status = until(&ann, said).await;
        assert!(keeps(NARROW)(&status));
        assert_eq!(codes(&document), ["invariant"]);
    }
    // A thousand of them, as long as may be, hold up nobody: each is overtaken by the next.
    let long = format!("{WIDE}{}", "# and on it goes\n".repeat(50_000));
    for _ in 0..200 {
        pretender.tell_as(SchemaHash::of("another"), &long);
    }
    let edited = async {
        for n in 0..20_i64 {
            document.change(|tx| Ok(tx.put(ROOT, "n", 3 + n)?)).await.unwrap();
        }
    };
    timeout(Duration::from_secs(10), edited).await.unwrap();
    pretender.tell(WIDE);
    let status = until(&ann, keeps(WIDE)).await;
    assert_eq!(status.problem, None);
    ann.close().await.unwrap();

    // It says which one it holds, so that it is not told again; and only who means it is believed.
    let ann = peer(directory.path());
    ann.connect(&pretender.url()).unwrap();
    let held = timeout(SOON, pretender.joined.recv()).await.unwrap().unwrap();
    assert_eq!(held, Some(SchemaHash::of(WIDE)));
    ann.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_relays_with_different_schemas_do_not_take_turns() {
    let versioned = WIDE.replace("version = 1", "version = 2");
    let newer = format!(
        "{versioned}more = \"integer\"\n[[types.item.migrations]]\nversion = 2\nadd = \"more\"\n"
    );
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (Pretender::start("old").await, Pretender::start("new").await);
    let ann = peer(directory.path());
    ann.connect(&old.url()).unwrap();
    ann.connect(&new.url()).unwrap();
    old.tell(WIDE);
    until(&ann, keeps(WIDE)).await;
    new.tell(&newer);
    until(&ann, keeps(&newer)).await;
    let mut status = ann.watch_schema();
    status.mark_unchanged();
    for _ in 0..3 {
        old.tell(NARROW);
        old.tell(WIDE);
    }
    // What is said last of all is heard: all before it was too.
    old.tell("nothing");
    until(&ann, |status| status.problem.is_some()).await;
    assert!(keeps(&newer)(&ann.schema().await));
    ann.close().await.unwrap();
}
