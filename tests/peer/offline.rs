//! A peer without a relay: durable, always writable, honest about what it does not have.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::time::Duration;

use automerge::{AutomergeError, ObjType, ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::peer::{ChangeError, Document, DocumentEvent, FindError, Peer, PeerError, Status};

const ABSENT: &str = "automerge:2akvofn6L1o4RMUEMQi7qzwRjKWZ";

fn number(document: &Document, key: &str) -> Option<i64> {
    document.read(|doc| doc.get(ROOT, key).unwrap().and_then(|(value, _)| value.as_i64())).unwrap()
}

#[tokio::test]
async fn edits_outlive_a_restart_and_go_on_under_a_new_actor() {
    let directory = tempfile::tempdir().unwrap();
    let peer = Peer::open(directory.path()).unwrap();
    let document = peer.create().await.unwrap();
    let url = document.url().to_string();
    for n in 0..20_i64 {
        let changed = document.change(|tx| Ok(tx.put(ROOT, "n", n)?)).await.unwrap();
        assert!(changed.change.is_some());
    }
    let actor = document.read(|doc| doc.get_actor().clone()).unwrap();
    let heads = document.heads().unwrap();
    peer.close().await.unwrap();
    let closed = document.change(|tx| Ok(tx.put(ROOT, "n", 99)?)).await;
    assert!(matches!(closed, Err(ChangeError::Closed)));
    drop((peer, document));

    let peer = Peer::open(directory.path()).unwrap();
    assert_eq!(peer.documents().await.unwrap().len(), 1);
    let document = peer.find(&url).await.unwrap();
    assert_eq!(number(&document, "n"), Some(19));
    assert_eq!(document.heads().unwrap(), heads);
    assert_ne!(document.read(|doc| doc.get_actor().clone()).unwrap(), actor);
    document.change(|tx| Ok(tx.put(ROOT, "n", 20)?)).await.unwrap();
    peer.close().await.unwrap();
}

#[tokio::test]
async fn a_handle_that_is_let_go_and_taken_again_shows_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let peer = Peer::open(directory.path()).unwrap();
    let document = peer.create().await.unwrap();
    let id = document.id().clone();
    document.change(|tx| Ok(tx.put(ROOT, "n", 1)?)).await.unwrap();
    drop(document);
    for n in 2..10_i64 {
        let document = peer.find(id.as_str()).await.unwrap();
        assert_eq!(number(&document, "n"), Some(n - 1));
        document.change(|tx| Ok(tx.put(ROOT, "n", n)?)).await.unwrap();
    }
    peer.close().await.unwrap();
}

#[tokio::test]
async fn nothing_is_written_where_nothing_changed() {
    let directory = tempfile::tempdir().unwrap();
    let peer = Peer::open(directory.path()).unwrap();
    let document = peer.create().await.unwrap();
    document.change(|tx| Ok(tx.put(ROOT, "n", 1)?)).await.unwrap();
    let heads = document.heads().unwrap();

    let same = document.change(|tx| Ok(tx.put(ROOT, "n", 1)?)).await.unwrap();
    assert_eq!(same.change, None);
    let failed = document
        .change(|tx| {
            tx.put(ROOT, "n", 2)?;
            Err::<(), _>(AutomergeError::Fail.into())
        })
        .await;
    assert!(matches!(failed, Err(ChangeError::Edit(_))));
    assert_eq!(document.heads().unwrap(), heads);
    assert_eq!(number(&document, "n"), Some(1));
    peer.close().await.unwrap();
}

#[tokio::test]
async fn a_closure_that_panics_leaves_the_document_as_stored() {
    let directory = tempfile::tempdir().unwrap();
    let peer = Peer::open(directory.path()).unwrap();
    let document = peer.create().await.unwrap();
    document.change(|tx| Ok(tx.put(ROOT, "n", 1)?)).await.unwrap();
    let other = document.clone();
    let panicked = tokio::spawn(async move {
        other
            .change(|tx| {
                tx.put(ROOT, "n", 2)?;
                panic!("the application's own fault");
                #[allow(unreachable_code)]
                Ok(())
            })
            .await
    });
    assert!(panicked.await.is_err_and(|error| error.is_panic()));
    document.change(|tx| Ok(tx.put(ROOT, "m", 3)?)).await.unwrap();
    assert_eq!((number(&document, "n"), number(&document, "m")), (Some(1), Some(3)));
    peer.close().await.unwrap();
}

#[tokio::test]
async fn a_change_over_the_limits_is_refused_and_rolled_back() {
    let directory = tempfile::tempdir().unwrap();
    let peer = Peer::open(directory.path()).unwrap();
    let document = peer.create().await.unwrap();
    let text =
        document.change(|tx| Ok(tx.put_object(ROOT, "text", ObjType::Text)?)).await.unwrap().value;
    let large = "x".repeat(1_000_001);
    let refused = document.change(|tx| Ok(tx.splice_text(&text, 0, 0, &large)?)).await;
    assert!(matches!(refused, Err(ChangeError::Refused { .. })), "{refused:?}");
    document.change(|tx| Ok(tx.splice_text(&text, 0, 0, "small")?)).await.unwrap();
    assert_eq!(document.read(|doc| doc.text(&text).unwrap()).unwrap(), "small");
    peer.close().await.unwrap();
}

#[tokio::test]
async fn a_second_process_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let peer = Peer::open(directory.path()).unwrap();
    let error = Peer::open(directory.path()).unwrap_err();
    assert!(matches!(error, PeerError::Store { .. }));
    assert!(error.to_string().contains("another process"), "{error}");
    peer.close().await.unwrap();
    Peer::open(directory.path()).unwrap().close().await.unwrap();
}

#[tokio::test]
async fn what_is_not_here_is_said_at_once_without_a_relay() {
    let directory = tempfile::tempdir().unwrap();
    let peer = Peer::open(directory.path()).unwrap();
    let offline = peer.find(ABSENT).await.unwrap_err();
    assert!(matches!(offline, FindError::Offline { .. }), "{offline}");
    assert!(matches!(peer.find("automerge:nonsense").await, Err(FindError::Id(_))));
    assert!(matches!(peer.connect("http://x"), Err(PeerError::RelayUrl { .. })));
    assert!(matches!(*peer.status().borrow(), Status::Offline { next_try: None, .. }));
    peer.close().await.unwrap();
    assert!(matches!(peer.find(ABSENT).await, Err(FindError::Closed)));
}

#[tokio::test]
async fn a_relay_that_is_not_there_is_tried_again_and_edits_go_on() {
    let directory = tempfile::tempdir().unwrap();
    // Nothing listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let peer =
        Peer::builder(directory.path()).relay(format!("ws://127.0.0.1:{port}")).open().unwrap();
    let mut status = peer.status();
    let offline = |status: &Status| matches!(status, Status::Offline { next_try: Some(_), .. });
    status.wait_for(offline).await.unwrap();
    let document = peer.create().await.unwrap();
    document.change(|tx| Ok(tx.put(ROOT, "n", 1)?)).await.unwrap();
    let error = peer.flush(Duration::from_millis(50)).await.unwrap_err();
    assert!(error.to_string().contains("1 of 1 documents not confirmed"), "{error}");
    let missing = peer.find_within(ABSENT, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(missing, FindError::Offline { .. }), "{missing}");
    peer.close().await.unwrap();
}

#[tokio::test]
async fn watchers_hear_of_local_changes_with_time_and_message() {
    let directory = tempfile::tempdir().unwrap();
    let peer = Peer::open(directory.path()).unwrap();
    let document = peer.create().await.unwrap();
    let mut watcher = document.watch();
    let edit = document.change_with(Some("first"), |tx| Ok(tx.put(ROOT, "n", 1)?));
    let hash = edit.await.unwrap().change.unwrap();
    let changed = loop {
        if let DocumentEvent::Changed { changes, local } = watcher.next().await {
            assert!(local);
            break changes;
        }
    };
    assert_eq!(changed.len(), 1);
    assert_eq!((changed[0].hash, changed[0].message.as_deref()), (hash, Some("first")));
    assert!(changed[0].time > 1_700_000_000);
    loop {
        if let DocumentEvent::Durable { heads } = watcher.next().await
            && heads == [hash]
        {
            break;
        }
    }
    peer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn blocking_code_can_edit_too() {
    let directory = tempfile::tempdir().unwrap();
    let peer = Peer::open(directory.path()).unwrap();
    let document = peer.create().await.unwrap();
    document.change_blocking(|tx| Ok(tx.put(ROOT, "n", 1)?)).unwrap();
    let other = document.clone();
    std::thread::spawn(move || other.change_blocking(|tx| Ok(tx.put(ROOT, "n", 2)?)).unwrap())
        .join()
        .unwrap();
    assert_eq!(number(&document, "n"), Some(2));
    peer.close().await.unwrap();
}

#[tokio::test]
async fn blocking_is_refused_where_it_would_stop_the_peer() {
    let directory = tempfile::tempdir().unwrap();
    let peer = Peer::open(directory.path()).unwrap();
    let document = peer.create().await.unwrap();
    let refused = document.change_blocking(|tx| Ok(tx.put(ROOT, "n", 1)?));
    assert!(matches!(refused, Err(ChangeError::WouldBlock)));
    peer.close().await.unwrap();
}

#[tokio::test]
async fn an_import_keeps_the_history() {
    let directory = tempfile::tempdir().unwrap();
    let mut source = automerge::AutoCommit::new();
    for n in 0..30_i64 {
        source.put(ROOT, "n", n).unwrap();
        source.commit();
    }
    let peer = Peer::open(directory.path()).unwrap();
    let document = peer.import(source.save().into()).await.unwrap();
    assert_eq!(number(&document, "n"), Some(29));
    let changes = document.read(|doc| doc.get_changes(&[]).len()).unwrap();
    assert_eq!(changes, 30);
    assert!(matches!(
        peer.import(b"nonsense".to_vec().into()).await,
        Err(PeerError::NotADocument(_))
    ));
    peer.close().await.unwrap();
}

#[tokio::test]
async fn a_relay_that_is_being_dialled_is_not_dialled_once_more() {
    let directory = tempfile::tempdir().unwrap();
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", relay.local_addr().unwrap());
    let peer = Peer::open(directory.path()).unwrap();
    peer.connect(&url).unwrap();
    // It takes its time to answer; whoever asks again meanwhile gets this very connection.
    let (dialled, _) = relay.accept().await.unwrap();
    peer.connect(&url).unwrap();
    let another = tokio::time::timeout(Duration::from_millis(300), relay.accept()).await;
    assert!(another.is_err(), "two connections to one relay");

    // Cut, it waits before it tries again, and who asks does not.
    drop(dialled);
    let mut status = peer.status();
    for _ in 0..20 {
        status.wait_for(|status| matches!(status, Status::Offline { .. })).await.unwrap();
        peer.connect(&url).unwrap();
        assert_eq!(*peer.status().borrow(), Status::Connecting);
        drop(relay.accept().await.unwrap());
    }
    peer.close().await.unwrap();
}
