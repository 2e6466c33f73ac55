//! The outbox over real sockets and disks: what no relay has is known, also after a crash; what a
//! relay refuses is somebody's to decide, and the rest goes on.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{fs, path::Path, time::Duration};

use crate::cli_common::{fails, json_of, ok, run};
use crate::support::Relay;
use automerge::{ObjType, ROOT, transaction::Transactable as _};
use concord::entity::Schema;
use concord::peer::{
    ConfirmError, DeadLetter, Document, DocumentEvent, LetterError, LetterState, OutboxState, Peer,
};
use concord_protocol::RefuseCode;
use serde_json::{Value as Json, json};

const SOON: Duration = Duration::from_secs(20);

/// A relay that takes no change of more than so many bytes.
fn narrow(directory: &Path, change_bytes: usize) -> Relay {
    let config = directory.join("concord.toml");
    fs::write(&config, format!("[limits]\nchange-bytes = {change_bytes}\n")).unwrap();
    Relay::start(&["--config", config.to_str().unwrap()], &directory.join("data"))
}

async fn put(document: &Document, key: &str, value: &str) {
    document.change(|tx| Ok(tx.put(ROOT, key, value)?)).await.unwrap();
}

fn shown(document: &Document) -> Json {
    document
        .read(|doc| {
            let root = automerge::Value::Object(ObjType::Map);
            concord::json::to_json(doc, &root, &ROOT).unwrap()
        })
        .unwrap()
}

async fn states(peer: &Peer) -> Vec<OutboxState> {
    peer.outbox().await.unwrap().into_iter().map(|entry| entry.state).collect()
}

async fn open_letters(peer: &Peer) -> Vec<DeadLetter> {
    let letters = peer.dead_letters().await.unwrap();
    letters.into_iter().filter(|l| matches!(l.state, LetterState::Open { .. })).collect()
}

/// Waits for what somebody else wrote.
async fn until_shown(document: &Document, field: &str, value: &str) {
    let mut watcher = document.watch();
    let waiting = async {
        while shown(document)[field] != value {
            watcher.next().await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.unwrap();
}

/// Waits until a relay has refused something.
async fn refused(peer: &Peer) {
    let mut counts = peer.outbox_counts();
    let refused = counts.wait_for(|counts| counts.refused > 0);
    tokio::time::timeout(SOON, refused).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_was_edited_alone_is_pending_over_restarts_until_a_relay_has_it() {
    let (home, relay_home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let peer = Peer::open(home.path()).unwrap();
    let (one, two) = (peer.create().await.unwrap(), peer.create().await.unwrap());
    for n in 0..50 {
        put(&one, "n", &n.to_string()).await;
    }
    put(&two, "n", "0").await;
    assert_eq!(states(&peer).await, [OutboxState::Pending, OutboxState::Pending]);
    let error = peer.flush(Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, ConfirmError::TimedOut { pending: 2, .. }), "{error}");
    peer.close().await.unwrap();
    drop((one, two, peer));

    let relay = Relay::start(&[], relay_home.path());
    let peer = Peer::open(home.path()).unwrap();
    assert_eq!(peer.outbox().await.unwrap().len(), 2, "known without opening anything");
    peer.connect(&relay.url()).unwrap();
    peer.flush(SOON).await.unwrap();
    assert_eq!(states(&peer).await, []);
    peer.close().await.unwrap();

    let peer = Peer::open(home.path()).unwrap();
    assert_eq!(states(&peer).await, [], "also after the next start, alone");
    peer.flush(SOON).await.unwrap();
    peer.close().await.unwrap();
}

#[tokio::test]
async fn what_came_from_others_is_not_in_the_outbox() {
    let homes = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let relay = Relay::start(&[], homes[0].path());
    let ann = Peer::builder(homes[1].path()).relay(relay.url()).open().unwrap();
    let document = ann.create().await.unwrap();
    put(&document, "n", "1").await;
    ann.flush(SOON).await.unwrap();
    let ben = Peer::builder(homes[2].path()).relay(relay.url()).open().unwrap();
    ben.find(&document.url().to_string()).await.unwrap();
    assert_eq!(states(&ben).await, []);
    ann.close().await.unwrap();
    ben.close().await.unwrap();
}

#[tokio::test]
async fn a_change_that_is_refused_among_others_waits_for_somebody_and_the_rest_goes_on() {
    let homes = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let relay = narrow(homes[0].path(), 2_000);
    let peer = Peer::builder(homes[1].path()).author("ann").relay(relay.url()).open().unwrap();
    let other = peer.create().await.unwrap();
    let document = peer.create().await.unwrap();
    put(&document, "title", "Shopping").await;
    peer.flush(SOON).await.unwrap();
    let large = "x".repeat(3_000);
    put(&document, "text", &large).await;
    // Whoever waits for it hears of it, and does not wait on.
    let error = document.wait_confirmed(SOON).await.unwrap_err();
    assert!(matches!(error, ConfirmError::Refused { code: RefuseCode::Malformed, .. }), "{error}");
    put(&document, "done", "no").await;
    put(&other, "n", "1").await;
    refused(&peer).await;
    let error = peer.flush(SOON).await.unwrap_err();
    assert!(matches!(error, ConfirmError::Refused { code: RefuseCode::Malformed, .. }), "{error}");
    assert!(other.confirmed(), "the rest goes on");

    let letters = open_letters(&peer).await;
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(&letter.document, document.id());
    assert_eq!(letter.state, LetterState::Open { behind: 1 });
    assert!(letter.reason.contains("2000"), "{}", letter.reason);
    assert_eq!(letter.stamp.as_ref().unwrap().author.as_deref(), Some("ann"));
    let effect = peer.letter_effect(letter).await.unwrap();
    assert_eq!(effect.len(), 1, "{effect:?}");

    let mut watcher = document.watch();
    let discarded = peer.discard(document.id(), letter.change).await.unwrap();
    assert_eq!((discarded.rewritten, discarded.lost), (1, 0));
    let rolled_back = async {
        loop {
            if let DocumentEvent::RolledBack { hash, code, .. } = watcher.next().await {
                return (hash, code);
            }
        }
    };
    let rolled_back = tokio::time::timeout(SOON, rolled_back).await.unwrap();
    assert_eq!(rolled_back, (letter.change, RefuseCode::Malformed));
    assert!(document.read(|_| ()).is_ok(), "who is told can look");
    assert_eq!(shown(&document), json!({ "title": "Shopping", "done": "no" }));
    peer.flush(SOON).await.unwrap();

    // Others see what is left, and who wrote it.
    let ben = Peer::builder(homes[2].path()).relay(relay.url()).open().unwrap();
    let theirs = ben.find(&document.url().to_string()).await.unwrap();
    assert_eq!(shown(&theirs), json!({ "title": "Shopping", "done": "no" }));
    put(&theirs, "seen", "yes").await;
    ben.flush(SOON).await.unwrap();
    until_shown(&document, "seen", "yes").await;
    peer.in_step(SOON).await.unwrap();
    ben.close().await.unwrap();

    // What was taken out is kept, over restarts.
    peer.close().await.unwrap();
    drop((document, other, watcher, peer));
    let peer = Peer::open(homes[1].path()).unwrap();
    let letters = peer.dead_letters().await.unwrap();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert!(matches!(&letter.state, LetterState::Discarded { by, .. } if by == "ann"));
    let payload = peer.letter_payload(letter).await.unwrap();
    assert!(payload.len() > 3_000);
    assert_eq!(peer.letter_effect(letter).await.unwrap().len(), 1);
    let again = peer.discard(&letter.document, letter.change).await;
    assert!(matches!(again, Err(LetterError::IsDiscarded(_))));
    assert_eq!(states(&peer).await, []);
    peer.close().await.unwrap();
}

#[tokio::test]
async fn what_was_refused_is_taken_when_the_reason_is_gone() {
    let homes = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut relay = narrow(homes[0].path(), 2_000);
    let peer = Peer::builder(homes[1].path()).relay(relay.url()).open().unwrap();
    let document = peer.create().await.unwrap();
    let letter = "y".repeat(3_000);
    put(&document, "text", &letter).await;
    put(&document, "n", "1").await;
    refused(&peer).await;
    peer.retry(document.id()).unwrap();
    assert!(matches!(peer.flush(SOON).await, Err(ConfirmError::Refused { .. })));
    let letters = open_letters(&peer).await;
    let [letter] = &letters[..] else { panic!("it is still too large: {letters:?}") };
    assert!(letter.times >= 2, "{letter:?}");
    assert!(letter.first_ms <= letter.last_ms);

    relay.terminate();
    fs::write(homes[0].path().join("concord.toml"), "[limits]\nchange-bytes = 10000\n").unwrap();
    relay.restart();
    let taken = document.wait_confirmed(SOON).await;
    assert_eq!(taken, Ok(()));
    peer.flush(SOON).await.unwrap();
    assert_eq!(peer.dead_letters().await.unwrap(), []);
    peer.close().await.unwrap();
}

#[tokio::test]
async fn a_relay_that_comes_back_is_heard_by_who_waits_for_everything() {
    let homes = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let mut relay = Relay::start(&[], homes[0].path());
    let peer = Peer::builder(homes[1].path()).relay(relay.url()).open().unwrap();
    let document = peer.create().await.unwrap();
    put(&document, "n", "1").await;
    peer.flush(SOON).await.unwrap();
    relay.pause();
    put(&document, "n", "2").await;
    let waiting = peer.in_step(SOON);
    let restarting = async {
        // So that it waits by then.
        tokio::time::sleep(Duration::from_millis(300)).await;
        relay.kill9();
        relay.restart();
    };
    assert_eq!(tokio::join!(waiting, restarting).0, Ok(()));
    assert!(document.confirmed());
    peer.close().await.unwrap();
}

/// Who asks for it may stop waiting at any moment: the document can be read and edited all the same,
/// and the change is out or is not.
#[tokio::test]
async fn a_discard_goes_on_though_nobody_waits_for_it() {
    let homes = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let relay = narrow(homes[0].path(), 2_000);
    let peer = Peer::builder(homes[1].path()).relay(relay.url()).open().unwrap();
    for micros in [0, 100, 500, 1_000, 2_000, 5_000, 10_000, 20_000] {
        let document = peer.create().await.unwrap();
        put(&document, "text", &"w".repeat(3_000)).await;
        put(&document, "n", "1").await;
        refused(&peer).await;
        let letter = open_letters(&peer).await.remove(0);
        let patience = Duration::from_micros(micros);
        let discarded =
            tokio::time::timeout(patience, peer.discard(document.id(), letter.change)).await;
        put(&document, "later", "2").await;
        if open_letters(&peer).await.iter().any(|open| open.change == letter.change) {
            assert!(discarded.is_err(), "{discarded:?}");
            peer.discard(document.id(), letter.change).await.unwrap();
        }
        assert_eq!(shown(&document), json!({ "n": "1", "later": "2" }), "after {patience:?}");
        peer.flush(SOON).await.unwrap();
    }
    peer.close().await.unwrap();
}

#[tokio::test]
async fn another_change_is_made_in_place_of_one_that_is_refused() {
    let homes = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let relay = narrow(homes[0].path(), 2_000);
    let peer = Peer::builder(homes[1].path()).relay(relay.url()).open().unwrap();
    let document = peer.create().await.unwrap();
    put(&document, "text", &"z".repeat(3_000)).await;
    put(&document, "n", "1").await;
    refused(&peer).await;
    let letter = open_letters(&peer).await.remove(0);
    let unknown = peer.discard(other_document(), letter.change).await;
    assert!(matches!(unknown, Err(LetterError::Unknown { .. })));
    peer.retry_with(document.id(), letter.change, |tx| Ok(tx.put(ROOT, "text", "short")?))
        .await
        .unwrap();
    assert_eq!(shown(&document), json!({ "n": "1", "text": "short" }), "{letter:?}");
    peer.flush(SOON).await.unwrap();
    assert!(document.confirmed());
    peer.close().await.unwrap();
}

fn other_document() -> &'static concord_protocol::DocumentId {
    static OTHER: std::sync::LazyLock<concord_protocol::DocumentId> =
        std::sync::LazyLock::new(|| concord_protocol::DocumentId::from_bytes(&[9; 16]));
    &OTHER
}

#[tokio::test]
async fn ten_thousand_edits_made_alone_all_arrive() {
    let homes = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let peer = Peer::open(homes[1].path()).unwrap();
    let mut documents = Vec::new();
    for _ in 0..100 {
        documents.push(peer.create().await.unwrap());
    }
    let mut waiting = Vec::new();
    for n in 0..10_000_i64 {
        let document = documents[usize::try_from(n % 100).unwrap()].clone();
        waiting.push(tokio::spawn(async move {
            document.change(|tx| Ok(tx.put(ROOT, format!("k{}", n % 7), n)?)).await.unwrap();
        }));
    }
    for edit in waiting {
        edit.await.unwrap();
    }
    assert_eq!(peer.outbox_counts().borrow().pending, 100);
    let relay = Relay::start(&[], homes[0].path());
    peer.connect(&relay.url()).unwrap();
    peer.flush(Duration::from_mins(1)).await.unwrap();
    let ben = Peer::builder(homes[2].path()).relay(relay.url()).open().unwrap();
    for document in &documents {
        let theirs = ben.find(&document.url().to_string()).await.unwrap();
        assert_eq!(shown(&theirs), shown(document));
        let changes = theirs.read(|doc| doc.get_changes_meta(&[]).len()).unwrap();
        assert_eq!(changes, 101);
    }
    peer.close().await.unwrap();
    ben.close().await.unwrap();
}

#[test]
fn the_command_says_what_is_on_its_way_and_what_was_refused() {
    let homes = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let home = homes[1].path();
    assert!(ok(home, &["outbox"]).starts_with("nothing is on its way"));
    assert_eq!(ok(home, &["dead-letters", "ls"]), "nothing was refused");
    let doc = ok(home, &["doc", "create", r#"{"title":"Shopping"}"#]);
    let listed = json_of(home, &["outbox", "--json"]);
    assert_eq!(listed[0]["state"], "pending");
    assert!(doc.ends_with(listed[0]["document"].as_str().unwrap()));

    let relay = narrow(homes[0].path(), 2_000);
    let url = relay.url();
    ok(home, &["edit", &doc, "text", &"x".repeat(3_000)]);
    ok(home, &["edit", &doc, "done", "false"]);
    let synced = run(home, &["sync", "--url", &url, "--deadline", "3"]);
    assert!(!synced.status.success(), "one of them cannot arrive");
    let listed = json_of(home, &["outbox", "--json"]);
    assert_eq!((&listed[0]["state"], &listed[0]["code"]), (&json!("refused"), &json!("malformed")));
    let table = ok(home, &["outbox"]);
    assert!(table.contains("refused") && table.contains("at most 2000"), "{table}");

    let letters = json_of(home, &["dead-letters", "ls", "--json"]);
    let change = letters[0]["change"].as_str().unwrap();
    assert_eq!((&letters[0]["behind"], letters.as_array().unwrap().len()), (&json!(1), 1));
    let shown = ok(home, &["dead-letters", "show", &change[..8]]);
    assert!(shown.contains("why       malformed: a change of"), "{shown}");
    assert!(shown.contains("behind it 1") && shown.contains("text"), "{shown}");
    let (code, words) = fails(home, &["dead-letters", "retry", change]);
    assert_eq!((code, words.contains("--url")), (2, true), "{words}");
    let again = fails(home, &["dead-letters", "retry", change, "--url", &url, "--deadline", "3"]);
    assert!(again.1.contains("refused again (malformed)"), "{again:?}");
    let (code, words) = fails(home, &["dead-letters", "show", "ffffffff"]);
    assert_eq!((code, words.contains("no relay has refused")), (3, true), "{words}");

    let file = home.join("refused.change");
    ok(home, &["dead-letters", "export", change, "-o", file.to_str().unwrap()]);
    assert!(fs::metadata(&file).unwrap().len() > 3_000);
    let set = ["dead-letters", "retry", change, "--set", "text=shorter", "--url", &url];
    let made = ok(home, &set);
    assert!(made.ends_with("made anew; on this disk, and confirmed by the relay"), "{made}");
    let now = json_of(home, &["doc", "get", &doc, "--json"]);
    assert_eq!(now, json!({ "title": "Shopping", "done": false, "text": "shorter" }));
    assert!(ok(home, &["outbox"]).starts_with("nothing is on its way"));
    assert_eq!(ok(home, &["dead-letters", "ls"]), "nothing was refused");
    let kept = json_of(home, &["dead-letters", "ls", "--all", "--json"]);
    assert_eq!((&kept[0]["state"], &kept[0]["change"]), (&json!("discarded"), &json!(change)));
    let (code, words) = fails(home, &["dead-letters", "discard", change]);
    assert_eq!((code, words.contains("taken out already")), (1, true), "{words}");
    let (code, words) = fails(home, &["dead-letters", "forget", change]);
    assert_eq!((code, words.contains("--yes")), (2, true), "{words}");
    assert!(ok(home, &["dead-letters", "forget", change, "--yes"]).ends_with("thrown away"));
    assert_eq!(ok(home, &["dead-letters", "ls", "--all"]), "nothing was refused");
}

/// Edits that rest for an hour are on a relay when somebody asks for it, and at once if they are critical.
#[tokio::test]
async fn edits_rest_until_somebody_waits_for_relays_unless_they_are_critical() {
    let (home, relay_home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let relay = Relay::start(&[], relay_home.path());
    let schema = Schema::parse(
        r#"
[types.task.fields]
title = "string"
status = { kind = "enum", values = ["todo", "done"] }
"#,
    )
    .unwrap();
    let task = schema.types["task"].clone();
    let hour = Duration::from_hours(1);
    let builder = Peer::builder(home.path()).relay(relay.url()).schema(schema);
    let peer = builder.debounce(hour, hour).open().unwrap();
    let mut status = peer.status();
    let online = status.wait_for(concord::peer::Status::is_online);
    tokio::time::timeout(SOON, online).await.unwrap().unwrap();
    let is_sent = async || {
        let mut counts = peer.outbox_counts();
        let empty = counts.wait_for(|counts| counts.waiting() == 0);
        tokio::time::timeout(SOON, empty).await.unwrap().unwrap();
    };

    // To make one is critical, as is its status.
    let one = peer.entity(&task, "1").await.unwrap();
    is_sent().await;
    put(&one, "status", "done").await;
    is_sent().await;

    put(&one, "title", "rests").await;
    assert_eq!(peer.outbox_counts().borrow().by_level, [0, 1, 0, 0, 0]);
    peer.sync_now();
    is_sent().await;
    put(&one, "title", "rests too").await;
    one.wait_confirmed(SOON).await.unwrap();
    put(&one, "title", "rests again").await;
    peer.flush(SOON).await.unwrap();

    // What is critical takes along what rests, and a peer that closes keeps nothing back.
    put(&one, "title", "rests still").await;
    put(&one, "status", "todo").await;
    is_sent().await;
    put(&one, "title", "is the last").await;
    peer.close().await.unwrap();
    let there = tempfile::tempdir().unwrap();
    let other = Peer::builder(there.path()).relay(relay.url()).open().unwrap();
    let found = other.find(one.id().as_str()).await.unwrap();
    let mut watcher = found.watch();
    let arrived = async {
        while shown(&found)["title"] != "is the last" {
            watcher.next().await;
        }
    };
    tokio::time::timeout(SOON, arrived).await.unwrap();
    other.close().await.unwrap();
}
