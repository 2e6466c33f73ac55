//! The history of a document as two programs see it: who wrote what and when, how it was, and how
//! to have that again.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{sync::Arc, time::Duration};

use automerge::{
    Automerge, ObjType, Prop, ROOT, ReadDoc as _, ScalarValue,
    transaction::{CommitOptions, Transactable as _},
};
use concord::{
    history::{AHEAD_S_MAX, AuthorError, Order, Relation, Shown},
    peer::{Document, PastError, Peer, PeerError},
    relay::{Relay, RelayConfig},
    store,
    worker::{InProcess, WorkerLimits},
};
use concord_protocol::ChangeHash;

const SOON: Duration = Duration::from_secs(20);

fn peer(author: &str) -> Peer {
    let builder = Peer::builder("memory").store(store::memory().unwrap());
    builder.author(author).open().unwrap()
}

async fn relay() -> Relay {
    let config = RelayConfig { port: 0, admin: None, ..RelayConfig::default() };
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    Relay::start(config, store::memory().unwrap(), worker).await.unwrap()
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

/// Waits until the document is what both wrote.
async fn until(document: &Document, is_so: impl Fn(&Automerge) -> bool) {
    let waiting = async {
        let mut watcher = document.watch();
        while !document.read(&is_so).unwrap() {
            watcher.next().await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap();
}

fn status(doc: &Automerge) -> String {
    let found = doc.get(ROOT, "status").unwrap();
    found.map(|(value, _)| value.as_str().unwrap_or_default().to_owned()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_see_who_wrote_what_and_either_restores_it() {
    let relay = relay().await;
    let url = format!("ws://{}", relay.addr());
    let (ann, bob) = (peer("ann@example.org"), peer("bob@example.org"));
    ann.connect(&url).unwrap();
    bob.connect(&url).unwrap();
    let started = now();

    let task = ann.create().await.unwrap();
    task.change_with(Some("begun"), |tx| {
        tx.put(ROOT, "type", "task")?;
        tx.put(ROOT, "status", "todo")?;
        tx.put(ROOT, "likes", ScalarValue::counter(0))?;
        let notes = tx.put_object(ROOT, "notes", ObjType::Text)?;
        Ok(tx.splice_text(&notes, 0, 0, "Milk and bread")?)
    })
    .await
    .unwrap();
    let begun = task.heads().unwrap();
    task.wait_confirmed(SOON).await.unwrap();
    let there = bob.find_within(&task.url().to_string(), SOON).await.unwrap();
    until(&there, |doc| status(doc) == "todo").await;
    there
        .change_with(Some("half of it"), |tx| {
            tx.put(ROOT, "status", "doing")?;
            tx.increment(ROOT, "likes", 2)?;
            let (_, notes) = tx.get(ROOT, "notes")?.unwrap();
            Ok(tx.splice_text(&notes, 9, 5, "cheese")?)
        })
        .await
        .unwrap();
    until(&task, |doc| status(doc) == "doing").await;

    // The log is the same on both, and says who, when and what for.
    let log = |document: &Document| document.history(&[], Order::OldestFirst, 99).unwrap();
    assert_eq!(log(&task), log(&there));
    let said: Vec<_> = log(&task)
        .iter()
        .map(|entry| {
            let stamp = &entry.stamp;
            assert!(stamp.time_s >= started && stamp.time_s <= now());
            (stamp.author.clone().unwrap(), stamp.message.clone(), entry.operations)
        })
        .collect();
    let said: Vec<_> = said.iter().map(|(by, what, ops)| (&**by, what.as_deref(), *ops)).collect();
    let expected = [
        ("ann@example.org", None, 0),
        ("ann@example.org", Some("begun"), 18),
        ("bob@example.org", Some("half of it"), 13),
    ];
    assert_eq!(said, expected);

    // Who wrote what is shown.
    let wrote = |path: &[Prop]| -> Vec<(String, String)> {
        let blame = task.blame(path).unwrap().into_iter();
        let named = blame.map(|blame| {
            let shown = match blame.shown {
                Shown::Value { value } => value.to_string(),
                Shown::Counter { value } => value.to_string(),
                Shown::Run { text, .. } => text,
                other => format!("{other:?}"),
            };
            (shown, blame.by.unwrap().name().to_owned())
        });
        named.collect()
    };
    let by = |what: &str, name: &str| (what.to_owned(), format!("{name}@example.org"));
    assert_eq!(wrote(&["status".into()]), [by("\"doing\"", "bob")]);
    assert_eq!(wrote(&["likes".into()]), [by("2", "bob")]);
    let notes = [by("Text", "ann"), by("Milk and ", "ann"), by("cheese", "bob")];
    assert_eq!(wrote(&["notes".into()]), notes);

    // How it was, what is different, and what happened.
    let was = task.at(&begun).unwrap();
    assert_eq!(status(&was), "todo");
    let last = task.heads().unwrap();
    assert_eq!(task.compare(&begun, &last).unwrap(), Relation::Before);
    assert_eq!(task.clock().unwrap(), there.clock_at(&last).unwrap());
    assert_eq!(task.diff(&begun, &last).unwrap(), there.diff(&begun, &last).unwrap());
    let events = task.events(None, &begun, 99).unwrap();
    let names: Vec<_> = events.events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["task.likes_counted", "task.status_changed", "task.notes_edited"]);
    assert_eq!(events.cursor, last);
    assert_eq!(task.verify().unwrap(), 3);

    // One field is restored, and then all of it, for both.
    there.restore(&begun, &["status".into()], None).await.unwrap();
    until(&task, |doc| status(doc) == "todo").await;
    assert_eq!(wrote(&["notes".into()]), notes);
    let message = log(&task).pop().unwrap().stamp.message.unwrap();
    assert!(message.starts_with("restored "), "{message}");
    let restored = task.restore(&begun, &[], Some("as it was")).await.unwrap();
    let change = restored.change.unwrap();
    until(&there, |doc| doc.get_heads() == [automerge::ChangeHash(change.0)]).await;
    assert!(there.diff(&begun, &[change]).unwrap().is_empty());
    assert_eq!(log(&there).len(), 5, "nothing is gone from the history");
    let again = task.restore(&begun, &[], None).await.unwrap();
    assert_eq!(again.change, None, "there is nothing to restore");
}

#[tokio::test]
async fn what_is_not_in_the_history_is_an_error() {
    let peer = peer("ann");
    let document = peer.create().await.unwrap();
    let unknown = [ChangeHash([7; 32])];
    let is_unknown = |error: PastError| {
        error.to_string().ends_with("is not in the document: take hashes from its log")
    };
    assert!(is_unknown(document.at(&unknown).unwrap_err()));
    assert!(is_unknown(document.history(&unknown, Order::NewestFirst, 1).unwrap_err()));
    assert!(is_unknown(document.diff(&unknown, &[]).unwrap_err()));
    assert!(is_unknown(document.events(None, &unknown, 1).unwrap_err()));
    assert!(is_unknown(document.clock_at(&unknown).unwrap_err()));
    assert!(is_unknown(document.compare(&[], &unknown).unwrap_err()));
    assert!(is_unknown(document.restore(&unknown, &[], None).await.unwrap_err()));
    let nowhere = document.blame(&["nowhere".into()]).unwrap_err();
    assert_eq!(nowhere.to_string(), "nowhere is not in the document as it is now");
    let nothing = document.restore(&[], &["nowhere".into()], None).await.unwrap_err();
    assert_eq!(nothing.to_string(), "nowhere is not in the document as it was then");
}

#[tokio::test]
async fn an_author_is_a_name() {
    let open = |name: &str| {
        let store = store::memory().unwrap();
        Peer::builder("memory").store(store).author(name).open().unwrap_err()
    };
    assert!(matches!(open(""), PeerError::Author(AuthorError::Blank)));
    assert!(matches!(open("a\tb"), PeerError::Author(AuthorError::Control)));
    assert!(matches!(open(&"a".repeat(300)), PeerError::Author(AuthorError::Long(300))));
}

/// A document with a change of this time.
fn written_at(time: i64) -> Vec<u8> {
    let mut doc = Automerge::new();
    let mut tx = doc.transaction();
    tx.put(ROOT, "a", 1).unwrap();
    tx.commit_with(CommitOptions::default().with_time(time));
    doc.save()
}

#[tokio::test]
async fn time_does_not_run_backwards_and_is_not_carried_away() {
    let peer = peer("ann");
    let made = async |time: i64| {
        let document = peer.import(written_at(time).into()).await.unwrap();
        document.change(|tx| Ok(tx.put(ROOT, "a", 2)?)).await.unwrap();
        let last = document.history(&[], Order::NewestFirst, 1).unwrap().remove(0);
        (last.stamp.time_s, last.is_behind, last.stamp.author)
    };
    let author = Some("ann".to_owned());
    // A clock that is an hour ahead is followed.
    let ahead = now() + 3_600;
    assert_eq!(made(ahead).await, (ahead, false, author.clone()));
    // One that is a year ahead is not, and the log says so; the write is there all the same.
    let before = now();
    let (time, is_behind, by) = made(before + 365 * AHEAD_S_MAX).await;
    assert!(time >= before && time <= now() && is_behind && by == author);
    // Nor is one that nobody wrote.
    assert!(made(0).await.0 >= before);
    assert!(made(i64::MAX).await.1);
}

/// Where writers change, authors go with them.
#[tokio::test]
async fn an_author_is_named_after_a_restart_too() {
    let directory = tempfile::tempdir().unwrap();
    let mut id: Option<String> = None;
    for (author, value) in [("ann", 1), ("bob", 2), ("ann", 3)] {
        let peer = Peer::builder(directory.path()).author(author).open().unwrap();
        let document = match &id {
            None => peer.create().await.unwrap(),
            Some(id) => peer.find(id).await.unwrap(),
        };
        document.change(|tx| Ok(tx.put(ROOT, "n", value)?)).await.unwrap();
        document.change(|tx| Ok(tx.put(ROOT, "n", value + 10)?)).await.unwrap();
        // At heads that are not the last: another writer of the same author.
        let first = document.history(&[], Order::OldestFirst, 1).unwrap().remove(0);
        let at = [first.stamp.change];
        document.change_at(&at, |tx| Ok(tx.put(ROOT, "m", value)?)).await.unwrap();
        id = Some(document.url().to_string());
        let log = document.history(&[], Order::NewestFirst, 3).unwrap();
        let authors: Vec<_> = log.iter().filter_map(|entry| entry.stamp.author.clone()).collect();
        let of_this = authors.iter().filter(|name| *name == author).count();
        assert!(of_this >= 2 && authors.len() == 3, "{authors:?}");
        peer.close().await.unwrap();
    }
    let peer = Peer::open(directory.path()).unwrap();
    let document = peer.find(&id.unwrap()).await.unwrap();
    let log = document.history(&[], Order::OldestFirst, 99).unwrap();
    let count =
        |name: &str| log.iter().filter(|entry| entry.stamp.author.as_deref() == Some(name)).count();
    assert_eq!((log.len(), count("ann"), count("bob")), (10, 7, 3));
    assert_eq!(document.verify().unwrap(), 10);
    // A peer without an author names none.
    document.change(|tx| Ok(tx.put(ROOT, "n", 99)?)).await.unwrap();
    let last = document.history(&[], Order::NewestFirst, 1).unwrap().remove(0);
    assert_eq!(last.stamp.author, None);
    peer.close().await.unwrap();
}
