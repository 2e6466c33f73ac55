//! samod, the Rust sibling of automerge-repo, as a client of the relay.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::convert::Infallible;
use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use automerge::transaction::Transactable;
use automerge::{Automerge, ReadDoc, ScalarValue};
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use samod::{BackoffConfig, DialError, Dialer, DocHandle, Repo, Transport, Url};
use support::Relay;
use tokio_tungstenite::tungstenite::{Error, Message};

/// How long anything may take.
const WAIT: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_samod_clients_converge() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(&[], dir.path());
    let (alice, bob) = (client(&relay).await, client(&relay).await);

    let hers = alice.create(titled("hello")).await.unwrap();
    let his = find(&bob, &hers).await;
    assert_eq!(value(&his, "title").as_deref(), Some("hello"));

    put(&his, "from bob", "1");
    put(&hers, "from alice", "2");
    converged(&[&hers, &his], &["from bob", "from alice"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn samod_clients_converge_through_a_polite_restart_and_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut relay = Relay::start(&[], dir.path());
    let (alice, bob) = (client(&relay).await, client(&relay).await);
    let hers = alice.create(titled("session")).await.unwrap();
    let his = find(&bob, &hers).await;

    for (round, kill) in [("polite", false), ("killed", true)] {
        if kill {
            relay.kill9();
        } else {
            let status = relay.terminate();
            assert!(status.success(), "ended with {status} on SIGTERM");
        }
        let (from_alice, from_bob) = (format!("alice {round}"), format!("bob {round}"));
        put(&hers, &from_alice, "offline");
        put(&his, &from_bob, "offline");
        relay.restart();
        converged(&[&hers, &his], &[&from_alice, &from_bob]).await;
    }

    // A third client has what the relay has.
    let third = find(&client(&relay).await, &hers).await;
    converged(&[&hers, &his, &third], &["alice killed", "bob polite"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_nobody_has_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::start(&[], dir.path());
    let elsewhere = Repo::build_tokio().load().await;
    let unknown = elsewhere.create(titled("not here")).await.unwrap();
    let alice = client(&relay).await;
    let found = within("an answer", alice.find(unknown.document_id().clone())).await;
    assert!(found.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_was_deleted_and_purged_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let schema = dir.path().join("schema.toml");
    let text =
        "[types.task]\npurge_deleted_after = \"1s\"\n[types.task.fields]\ntitle = \"string\"\n";
    std::fs::write(&schema, text).unwrap();
    let relay = Relay::start(&["--schema", schema.to_str().unwrap()], &dir.path().join("data"));
    let (alice, bob) = (client(&relay).await, client(&relay).await);
    let hers = alice.create(titled("Tiles")).await.unwrap();
    find(&bob, &hers).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = ScalarValue::Timestamp(i64::try_from(now.as_millis()).unwrap());
    hers.with_document(|doc| {
        doc.transact(|tx| {
            tx.put(automerge::ROOT, "type", "task")?;
            tx.put(automerge::ROOT, "concord:deleted", now)
        })
        .unwrap();
    });
    // Until it is purged it is found, by everybody who asks anew.
    let id = hers.document_id().clone();
    within("the purge", async {
        loop {
            let carol = client(&relay).await;
            let asked = std::time::Instant::now();
            if carol.find(id.clone()).await.unwrap().is_none() {
                assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    // Whoever has it goes on with what they have, and with other documents.
    put(&hers, "from alice", "1");
    let next = alice.create(titled("Slates")).await.unwrap();
    find(&bob, &next).await;
    assert_eq!(value(&hers, "from alice").as_deref(), Some("1"));
    let dora = client(&relay).await;
    assert!(within("an answer", dora.find(id)).await.unwrap().is_none(), "nothing came back");
}

/// A repo that is connected to the relay and reconnects when it goes away.
async fn client(relay: &Relay) -> Repo {
    let repo = Repo::build_tokio().load().await;
    let backoff = BackoffConfig {
        initial_delay: Duration::from_millis(50),
        max_delay: Duration::from_millis(200),
        max_retries: None,
    };
    let url = Url::parse(&relay.url()).unwrap();
    let dialer = repo.dial(backoff, Arc::new(WebSocketDialer(url))).unwrap();
    within("the handshake", dialer.established()).await.unwrap();
    repo
}

/// The document, also when the search overtakes its upload.
async fn find(repo: &Repo, original: &DocHandle) -> DocHandle {
    let id = original.document_id().clone();
    within("the document", async {
        loop {
            if let Some(handle) = repo.find(id.clone()).await.unwrap() {
                return handle;
            }
            // Nothing tells when an upload that is on its way has arrived.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

fn titled(title: &str) -> Automerge {
    let mut doc = Automerge::new();
    doc.transact(|tx| tx.put(automerge::ROOT, "title", title)).unwrap();
    doc
}

fn put(handle: &DocHandle, key: &str, value: &str) {
    handle.with_document(|doc| {
        doc.transact(|tx| tx.put(automerge::ROOT, key, value)).unwrap();
    });
}

fn value(handle: &DocHandle, key: &str) -> Option<String> {
    handle.with_document(|doc| match doc.get(automerge::ROOT, key).unwrap()?.0 {
        automerge::Value::Scalar(scalar) => match scalar.as_ref() {
            ScalarValue::Str(text) => Some(text.to_string()),
            _ => None,
        },
        automerge::Value::Object(_) => None,
    })
}

/// Until all have these keys and the same heads.
async fn converged(handles: &[&DocHandle], keys: &[&str]) {
    let mut changes = futures_util::stream::select_all(
        handles.iter().map(|handle| Box::pin(handle.changes().map(|_| ()))),
    );
    let complete = || {
        let heads = |handle: &DocHandle| handle.with_document(|doc| doc.get_heads());
        handles.iter().all(|handle| {
            keys.iter().all(|key| value(handle, key).is_some())
                && heads(handle) == heads(handles[0])
        })
    };
    within("convergence", async {
        while !complete() {
            changes.next().await.expect("the documents are still open");
        }
    })
    .await;
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WAIT, future)
        .await
        .unwrap_or_else(|_| panic!("waited {WAIT:?} for {what}"))
}

/// samod's own dialer brings another TLS stack; the relay under test is on the loopback interface.
struct WebSocketDialer(Url);

impl Dialer for WebSocketDialer {
    type Error = Infallible;

    fn url(&self) -> Url {
        self.0.clone()
    }

    fn connect(&self) -> BoxFuture<'static, Result<Transport, DialError<Infallible>>> {
        let url = self.0.to_string();
        Box::pin(async move {
            let (socket, _) =
                tokio_tungstenite::connect_async(url).await.map_err(DialError::transient)?;
            let (sink, stream) = socket.split();
            let stream = stream.filter_map(|message| {
                ready(match message {
                    Ok(Message::Binary(bytes)) => Some(Ok(bytes.to_vec())),
                    Ok(_) => None,
                    Err(error) => Some(Err(error)),
                })
            });
            let sink = sink.with(|bytes: Vec<u8>| ready(Ok::<_, Error>(Message::binary(bytes))));
            Ok(Transport::new(stream, sink))
        })
    }
}
