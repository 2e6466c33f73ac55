//! A peer whose disk fails, fills up, rots or forgets: an edit that may not be on disk is told to
//! whoever made it, what was acknowledged comes back, and the other documents go on.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{sync::Arc, time::Duration};

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::{
    peer::{ChangeError, ConfirmError, Document, DocumentEvent, Peer, PeerError, Status},
    relay::{Relay, RelayConfig},
    replica::{Kind, RowKey},
    store::{self, DocumentKey, MemoryFaults, Store, Tenant},
    worker::{InProcess, WorkerLimits},
};
use concord_protocol::ChangeHash;

/// Long enough for a busy machine; nothing waits for it where all is well.
const SOON: Duration = Duration::from_secs(20);

fn memory() -> (Arc<dyn Store>, MemoryFaults) {
    store::memory_with_faults("b5c0f1f4-8d1c-4d7e-9a52-3a2b9b9b0002".parse().unwrap())
}

fn open(store: &Arc<dyn Store>) -> Peer {
    Peer::builder("memory").store(store.clone()).open().unwrap()
}

async fn relay() -> Relay {
    let config = RelayConfig { port: 0, admin: None, shards: 1, ..RelayConfig::default() };
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    Relay::start(config, store::memory().unwrap(), worker).await.unwrap()
}

fn url(relay: &Relay) -> String {
    format!("ws://{}", relay.addr())
}

fn key(document: &Document) -> DocumentKey {
    DocumentKey { tenant: Tenant::default(), document: document.id().clone() }
}

fn row(change: ChangeHash) -> RowKey {
    RowKey { kind: Kind::Change, id: change.0, part: 0 }
}

async fn put(document: &Document, n: i64) -> Result<ChangeHash, ChangeError> {
    let changed = document.change(|tx| Ok(tx.put(ROOT, "n", n)?)).await?;
    Ok(changed.change.unwrap())
}

fn number(document: &Document) -> Option<i64> {
    document.read(|doc| doc.get(ROOT, "n").unwrap().and_then(|(value, _)| value.as_i64())).unwrap()
}

/// Waits until the document says so.
async fn until(document: &Document, n: i64) {
    let mut watcher = document.watch();
    let waited = async {
        while number(document) != Some(n) {
            watcher.next().await;
        }
    };
    let waited = tokio::time::timeout(SOON, waited).await;
    waited.unwrap_or_else(|_| panic!("{:?} and not {n}", number(document)));
}

async fn online(peer: &Peer) {
    let online = tokio::time::timeout(SOON, async {
        peer.status().wait_for(Status::is_online).await.unwrap();
    });
    online.await.unwrap();
}

#[tokio::test]
async fn an_edit_that_may_not_be_on_disk_is_told_and_what_was_acknowledged_comes_back() {
    for fails_at_flush in [false, true] {
        let (store, faults) = memory();
        let peer = open(&store);
        let (document, other) = (peer.create().await.unwrap(), peer.create().await.unwrap());
        put(&document, 1).await.unwrap();
        put(&other, 1).await.unwrap();
        let mut watcher = document.watch();
        if fails_at_flush {
            faults.fail_flushes(true);
        } else {
            faults.fail_writes(true);
        }
        let error = put(&document, 2).await.unwrap_err();
        assert!(matches!(error, ChangeError::NotDurable(_)), "{error}");
        assert!(error.to_string().contains("restart"), "{error}");
        let failed = async {
            loop {
                if let DocumentEvent::Failed { reason } = watcher.next().await {
                    break reason;
                }
            }
        };
        tokio::time::timeout(SOON, failed).await.unwrap();

        // The disk is well again, but what is on it is not known: nothing more is written.
        faults.fail_flushes(false);
        faults.fail_writes(false);
        let error = put(&document, 3).await.unwrap_err();
        assert!(matches!(error, ChangeError::Failed(_)), "{error}");
        let error = document.wait_confirmed(SOON).await.unwrap_err();
        assert!(matches!(error, ConfirmError::Broken { .. }), "{error}");
        assert!(document.read(|_| ()).is_err(), "what it shows may never have been");

        // Of others what is certain is there to be read; a new edit is refused too.
        assert_eq!(number(&other), Some(1));
        let again = peer.find(&other.url().to_string()).await.unwrap();
        assert_eq!(number(&again), Some(1));
        let error = put(&other, 2).await.unwrap_err();
        assert!(matches!(error, ChangeError::NotDurable(_)), "{error}");
        assert!(peer.create().await.is_err());
        let urls = (document.url().to_string(), other.url().to_string());
        peer.close().await.unwrap();

        let (store, _) = faults.after_crash();
        let peer = open(&store);
        for url in [urls.0, urls.1] {
            let document = peer.find(&url).await.unwrap();
            assert_eq!(number(&document), Some(1));
            put(&document, 9).await.unwrap();
        }
        peer.close().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_that_is_not_on_our_disk_is_confirmed() {
    let relay = relay().await;
    let (store, faults) = memory();
    let peer = open(&store);
    peer.connect(&url(&relay)).unwrap();
    let document = peer.create().await.unwrap();
    put(&document, 1).await.unwrap();
    document.wait_confirmed(SOON).await.unwrap();

    faults.fail_flushes(true);
    put(&document, 2).await.unwrap_err();
    let error = document.wait_confirmed(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, ConfirmError::Broken { .. }), "{error}");
    let error = peer.flush(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, ConfirmError::Broken { .. }), "{error}");
    let url_of = document.url().to_string();
    peer.close().await.unwrap();

    // Whether the relay got it or not: what was acknowledged is here, and everybody agrees.
    let (store, _) = faults.after_crash();
    let peer = open(&store);
    peer.connect(&url(&relay)).unwrap();
    let document = peer.find(&url_of).await.unwrap();
    assert!(number(&document) >= Some(1));
    document.wait_confirmed(SOON).await.unwrap();
    put(&document, 3).await.unwrap();
    document.wait_confirmed(SOON).await.unwrap();
    let reader = open(&memory().0);
    reader.connect(&url(&relay)).unwrap();
    until(&reader.find_within(&url_of, SOON).await.unwrap(), 3).await;
    peer.close().await.unwrap();
    reader.close().await.unwrap();
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_and_the_other_documents_go_on_when_there_is_room() {
    let relay = relay().await;
    let (store, faults) = memory();
    let peer = open(&store);
    peer.connect(&url(&relay)).unwrap();
    let (document, other) = (peer.create().await.unwrap(), peer.create().await.unwrap());
    put(&document, 1).await.unwrap();
    put(&other, 1).await.unwrap();
    peer.flush(SOON).await.unwrap();

    faults.set_free_bytes(Some(1_000));
    let error = put(&document, 2).await.unwrap_err();
    assert!(matches!(error, ChangeError::NotDurable(_)), "{error}");
    assert!(error.to_string().contains("1000 bytes"), "{error}");
    assert!(peer.create().await.is_err());
    let imported = peer.import(automerge::AutoCommit::new().save().into()).await;
    assert!(matches!(imported, Err(PeerError::Change(_))));

    faults.set_free_bytes(None);
    put(&other, 2).await.unwrap();
    other.wait_confirmed(SOON).await.unwrap();
    let third = peer.create().await.unwrap();
    put(&third, 7).await.unwrap();
    third.wait_confirmed(SOON).await.unwrap();
    let urls = [&document, &other, &third].map(|document| document.url().to_string());
    peer.close().await.unwrap();

    let (store, _) = faults.after_crash();
    let peer = open(&store);
    // What was refused may be there, by way of the relay; what was acknowledged is.
    for (url, n) in urls.iter().zip([1, 2, 7]) {
        assert!(number(&peer.find(url).await.unwrap()) >= Some(n), "{url}");
    }
    peer.close().await.unwrap();
    relay.shutdown().await.unwrap();
}

/// A row that rots is not shown, is not fatal, and comes back from a relay that has it.
#[tokio::test]
async fn a_rotten_row_is_healed_by_a_relay_and_hurts_no_other_document() {
    let relay = relay().await;
    let (store, faults) = memory();
    let peer = open(&store);
    peer.connect(&url(&relay)).unwrap();
    let (document, other) = (peer.create().await.unwrap(), peer.create().await.unwrap());
    let mut changes = Vec::new();
    for n in 0..5 {
        changes.push(put(&document, n).await.unwrap());
        put(&other, n).await.unwrap();
    }
    peer.flush(SOON).await.unwrap();
    let (name, others) = (document.url().to_string(), other.url().to_string());
    let at = key(&document);
    peer.close().await.unwrap();

    // Without a relay: what does not build on it is there, and the rest is not shown.
    let (store, faults) = faults.after_crash();
    assert!(faults.corrupt(&at, &row(changes[2])));
    let peer = open(&store);
    let document = peer.find(&name).await.unwrap();
    assert_eq!(number(&document), Some(1));
    assert_eq!(number(&peer.find(&others).await.unwrap()), Some(4));
    assert_eq!(store.stats().corrupt.len(), 1, "and it is reported");
    // Edits go on.
    let fork = put(&document, 100).await.unwrap();

    peer.connect(&url(&relay)).unwrap();
    document.wait_confirmed(SOON).await.unwrap();
    assert!(document.holds(changes[4]).unwrap() && document.holds(fork).unwrap());
    peer.flush(SOON).await.unwrap();
    peer.close().await.unwrap();

    // It is whole again, without the relay.
    let (store, _) = faults.after_crash();
    let peer = open(&store);
    let document = peer.find(&name).await.unwrap();
    assert!(document.holds(changes[4]).unwrap() && document.holds(fork).unwrap());
    assert_eq!(store.stats().corrupt, []);
    peer.close().await.unwrap();
    relay.shutdown().await.unwrap();
}

/// A document whose snapshot is lost is there again with the help of a relay, and one whose index
/// is lost also without. The others sync all the same.
#[tokio::test]
async fn a_document_that_lost_rows_does_not_keep_the_others_from_syncing() {
    let relay = relay().await;
    let kinds = [Kind::Snapshot, Kind::IndexPage, Kind::IndexRoot];
    for (kind, relay_has_it) in kinds.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let (store, faults) = memory();
        let peer = open(&store);
        let mut source = automerge::AutoCommit::new();
        for n in 0..3_000_i64 {
            source.put(ROOT, "n", n).unwrap();
            source.commit();
        }
        let large = peer.import(source.save().into()).await.unwrap();
        let at = key(&large);
        let name = large.url().to_string();
        let other = peer.create().await.unwrap();
        put(&other, 1).await.unwrap();
        let others = other.url().to_string();
        // A snapshot is made in the background.
        let snapshot = tokio::time::timeout(SOON, async {
            loop {
                if let Some((id, _)) = store.load(at.clone()).await.unwrap().roots.pop() {
                    break id;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let snapshot = snapshot.await.unwrap();
        if relay_has_it {
            peer.connect(&url(&relay)).unwrap();
            large.wait_confirmed(SOON).await.unwrap();
        }
        drop((large, other));
        peer.close().await.unwrap();

        let (store, faults_) = faults.after_crash();
        assert!(faults_.corrupt(&at, &RowKey { kind, id: snapshot, part: 0 }), "{kind:?}");
        let peer = open(&store);
        peer.connect(&url(&relay)).unwrap();
        online(&peer).await;
        let other = peer.find(&others).await.unwrap();
        for n in 2..20 {
            put(&other, n).await.unwrap();
        }
        other.wait_confirmed(SOON).await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        let reader = open(&memory().0);
        reader.connect(&url(&relay)).unwrap();
        until(&reader.find_within(&others, SOON).await.unwrap(), 19).await;
        let found = peer.find_within(&name, Duration::from_secs(2)).await;
        match (kind, relay_has_it) {
            (Kind::Snapshot, false) => assert!(found.is_err(), "{found:?}"),
            (_, _) => until(&found.unwrap_or_else(|e| panic!("{kind:?}: {e}")), 2_999).await,
        }
        assert!(peer.status().borrow().is_online(), "{kind:?}");
        peer.close().await.unwrap();
        reader.close().await.unwrap();
    }
    relay.shutdown().await.unwrap();
}

/// The disk fails at every moment of some editing of three documents: what returned is there.
#[tokio::test]
async fn whenever_the_disk_fails_all_that_was_acknowledged_is_there_afterwards() {
    const EDITS: usize = 24;
    for fails_at in 0..EDITS {
        for by_flush in [false, true] {
            let (store, faults) = memory();
            let peer = open(&store);
            let mut documents = Vec::new();
            for _ in 0..3 {
                documents.push(peer.create().await.unwrap());
            }
            let mut acknowledged = Vec::new();
            for n in 0..EDITS {
                if n == fails_at {
                    faults.fail_flushes(by_flush);
                    faults.fail_writes(!by_flush);
                }
                let document = &documents[n % 3];
                if let Ok(change) = put(document, i64::try_from(n).unwrap()).await {
                    assert!(n < fails_at, "acknowledged by a disk that fails");
                    acknowledged.push((document.url().to_string(), change));
                }
            }
            assert_eq!(acknowledged.len(), fails_at);
            peer.close().await.unwrap();
            let (store, _) = faults.after_crash();
            let peer = open(&store);
            for (url, change) in acknowledged {
                assert!(peer.find(&url).await.unwrap().holds(change).unwrap(), "{url}");
            }
            peer.close().await.unwrap();
        }
    }
}
