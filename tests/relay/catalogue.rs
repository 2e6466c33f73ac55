//! The relay's catalogue over HTTP: pages, cursors, types, and changes as they are told.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{path::Path, sync::Arc, time::Duration};

use automerge::{ROOT, transaction::Transactable as _};
use concord::{
    entity::Schema,
    peer::Peer,
    relay::Relay,
    store::{self, Engine, Options, Store},
    worker::{InProcess, WorkerLimits},
};
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::http_common::{Http, SOON, relay_with};

const SCHEMA: &str = r#"
[types.task.fields]
title = "string"

[types.note.fields]
body = "string"
"#;

async fn relay(store: Arc<dyn Store>, schema: Option<&str>) -> (Relay, Http) {
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    relay_with(store, worker, |config| config.schema = schema.map(str::to_owned)).await
}

fn on_disk(directory: &Path) -> Arc<dyn Store> {
    store::open(directory, Engine::Sled, &Options::default()).unwrap()
}

fn writer(http: &Http) -> Peer {
    let schema = Schema::parse(SCHEMA).unwrap_or_else(|errors| panic!("{errors}"));
    let peer = Peer::builder("memory").store(store::memory().unwrap()).schema(schema);
    let peer = peer.open().unwrap();
    peer.connect(&format!("ws://{}", http.0)).unwrap();
    peer
}

async fn put(peer: &Peer, of: &str, key: &str) {
    let schema = peer.schema().await.in_force.unwrap();
    let nothing = |_: &mut Map<String, Value>| ();
    peer.put(&schema.types[of], key, nothing).await.unwrap();
}

/// All documents from a cursor on in pages, with the last page.
async fn all(http: &Http, of: &str, mut after: String, limit: usize) -> (Vec<Value>, Value) {
    let mut documents = Vec::new();
    loop {
        let (status, page) = http.get(&format!("/v1/catalogue?limit={limit}{of}{after}")).await;
        if status == 503 {
            // It is being read from disk.
            sleep(Duration::from_millis(10)).await;
            continue;
        }
        assert_eq!(status, 200, "{page}");
        let listed = page["documents"].as_array().unwrap();
        assert!(listed.len() <= limit);
        documents.extend(listed.iter().cloned());
        after = format!("&after={}", page["cursor"].as_str().unwrap());
        if page["has_more"] == false {
            return (documents, page);
        }
    }
}

async fn until_listed(http: &Http, of: &str, count: usize) -> (Vec<Value>, Value) {
    let waiting = async {
        loop {
            let found = all(http, of, String::new(), 7).await;
            if found.0.len() == count {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{count} of {of}"))
}

/// The last page, once nothing was news for a moment: each change of a document is.
async fn until_quiet(http: &Http, of: &str, mut page: Value) -> Value {
    loop {
        sleep(Duration::from_millis(200)).await;
        let (news, last) = all(http, of, after(&page), 7).await;
        page = last;
        if news.is_empty() {
            return page;
        }
    }
}

fn after(page: &Value) -> String {
    format!("&after={}", page["cursor"].as_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_are_listed_by_type_in_pages_and_only_news_after_a_cursor() {
    let (_relay, http) = relay(store::memory().unwrap(), Some(SCHEMA)).await;
    let ann = writer(&http);
    for n in 0..25 {
        put(&ann, if n % 5 == 0 { "note" } else { "task" }, &n.to_string()).await;
    }
    let plain = ann.create().await.unwrap();
    plain.change(|tx| Ok(tx.put(ROOT, "a", 1)?)).await.unwrap();
    ann.flush(SOON).await.unwrap();
    let (tasks, page) = until_listed(&http, "&type=task", 20).await;
    assert!(tasks.iter().all(|task| task["type"] == "task" && task["version"].is_string()));
    assert_eq!((&page["total"], &page["reset"]), (&json!(20), &json!(false)));
    assert_eq!(until_listed(&http, "&type=note", 5).await.0.len(), 5);
    let (untyped, _) = until_listed(&http, "&type=", 1).await;
    assert_eq!(untyped[0]["document"], plain.id().as_str());
    assert_eq!(untyped[0]["type"], Value::Null);
    assert_eq!(until_listed(&http, "", 26).await.1["total"], 26);
    let (status, types) = http.get("/v1/catalogue/types").await;
    assert_eq!((status, types["types"].as_array().unwrap().len()), (200, 3), "{types}");

    // The reviewer has looked at all, and nothing of it is news.
    let (_, page) = all(&http, "&type=task", String::new(), 7).await;
    assert!(all(&http, "&type=task", after(&page), 7).await.0.is_empty());
    put(&ann, "task", "25").await;
    ann.flush(SOON).await.unwrap();
    let news = async {
        loop {
            let (news, _) = all(&http, "&type=task", after(&page), 7).await;
            if !news.is_empty() {
                return news;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert_eq!(timeout(SOON, news).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_holds_over_a_restart_and_not_over_a_loss() {
    let directory = tempfile::tempdir().unwrap();
    let (first, http) = relay(on_disk(directory.path()), Some(SCHEMA)).await;
    let ann = writer(&http);
    for n in 0..10 {
        put(&ann, "task", &n.to_string()).await;
    }
    ann.flush(SOON).await.unwrap();
    let (_, page) = until_listed(&http, "&type=task", 10).await;
    let page = until_quiet(&http, "&type=task", page).await;
    ann.close().await.unwrap();
    first.shutdown().await.unwrap();

    let (second, http) = relay(on_disk(directory.path()), Some(SCHEMA)).await;
    let again = all(&http, "&type=task", after(&page), 7);
    let (news, last) = timeout(SOON, again).await.unwrap();
    assert_eq!((news.len(), &last["reset"]), (0, &json!(false)), "{news:?}");
    assert_eq!(all(&http, "&type=task", String::new(), 7).await.0.len(), 10);
    second.shutdown().await.unwrap();

    let (_other, http) = relay(store::memory().unwrap(), Some(SCHEMA)).await;
    let (_, other) = all(&http, "", after(&page), 1).await;
    assert_eq!(other["reset"], true, "{other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_the_catalogue_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    // Written by somebody who keeps no catalogue.
    let peer = Peer::open(directory.path()).unwrap();
    for n in 0..3 {
        let document = peer.create().await.unwrap();
        document.change(|tx| Ok(tx.put(ROOT, "n", n)?)).await.unwrap();
    }
    peer.close().await.unwrap();
    let (_relay, http) = relay(on_disk(directory.path()), None).await;
    let (documents, _) = until_listed(&http, "", 3).await;
    assert!(documents.iter().all(|it| it["type"].is_null() && it.get("version").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_as_they_come_and_none_is_missed() {
    let (_relay, http) = relay(store::memory().unwrap(), Some(SCHEMA)).await;
    let ann = writer(&http);
    put(&ann, "task", "before").await;
    ann.flush(SOON).await.unwrap();
    let (_, page) = until_listed(&http, "&type=task", 1).await;
    let stream = TcpStream::connect(http.0).await.unwrap();
    let (read, mut write) = stream.into_split();
    let path = format!("/v1/catalogue/events?type=task{}", after(&page));
    let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", http.0);
    write.write_all(request.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(read).lines();
    let mut next = async || {
        loop {
            let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
            if let Some(data) = line.strip_prefix("data: ") {
                return serde_json::from_str::<Value>(data).unwrap();
            }
        }
    };
    assert_eq!(next().await["documents"], json!([]), "the beginning");
    for n in 0..30 {
        put(&ann, "task", &format!("t{n}")).await;
        put(&ann, "note", &format!("n{n}")).await;
    }
    let mut told = std::collections::BTreeSet::new();
    while told.len() < 30 {
        for document in next().await["documents"].as_array().unwrap() {
            assert_eq!(document["type"], "task");
            told.insert(document["document"].as_str().unwrap().to_owned());
        }
    }
    drop(write);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_is_said_so() {
    let (_relay, http) = relay(store::memory().unwrap(), None).await;
    for wrong in ["limit=-1", "after=x", "after=0.0", "colour=red", "type=a&type=b"] {
        let (status, problem) = http.get(&format!("/v1/catalogue?{wrong}")).await;
        assert_eq!(status, 400, "{wrong}: {problem}");
        assert!(problem["detail"].is_string());
    }
}
