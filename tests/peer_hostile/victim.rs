//! A peer with a document that is edited all the time, and what must be true of it.

use std::{sync::Arc, time::Duration};

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::{
    peer::{Document, Peer, Status},
    relay::{Relay, RelayConfig},
    store::{self, Store},
    worker::{InProcess, Materialiser, WorkerLimits},
};
use concord_protocol::{ChangeHash, DocumentId};

use crate::{SOON, made_up::number, mallory::Mallory};

/// How long an edit may take next to anything that a relay does: longer is a hang.
const EDIT_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Victim {
    pub(crate) peer: Peer,
    pub(crate) document: Document,
    store: Arc<dyn Store>,
    edits: usize,
}

impl Victim {
    pub(crate) async fn new(url: &str, materialiser: Arc<dyn Materialiser>) -> Self {
        let store = store::memory().unwrap();
        let builder = Peer::builder("memory").store(store.clone()).materialiser(materialiser);
        let peer = builder.relay(url).at_once(2).open().unwrap();
        let document = peer.create().await.unwrap();
        let mut victim = Self { peer, document, store, edits: 0 };
        victim.edit().await;
        victim
    }

    /// Opens documents in this process.
    pub(crate) async fn simple(url: &str) -> Self {
        Self::new(url, Arc::new(InProcess::start(WorkerLimits::default()).unwrap())).await
    }

    /// Makes an edit of its own, which must come to the disk in time.
    pub(crate) async fn edit(&mut self) {
        self.edits += 1;
        let (key, n) = (format!("mine {}", self.edits), self.edits as u64);
        let editing = self.document.change(|tx| Ok(tx.put(ROOT, key, n)?));
        let edited = tokio::time::timeout(EDIT_MAX, editing).await.expect("an edit in time");
        edited.unwrap();
    }

    /// All of its edits are there, and nothing else.
    pub(crate) fn has_only_its_own(&self) {
        let keys = self.document.read(|doc| doc.keys(ROOT).collect::<Vec<_>>()).unwrap();
        let foreign: Vec<_> = keys.iter().filter(|key| !key.starts_with("mine ")).collect();
        assert_eq!(foreign, Vec::<&String>::new());
        assert_eq!(keys.len(), self.edits);
    }

    /// Online with whoever it is connected to, whatever it takes.
    pub(crate) async fn online(&self, mallory: &Mallory) {
        let mut status = self.peer.status();
        if !status.borrow_and_update().is_online() {
            self.peer.connect(&mallory.url).unwrap();
        }
        let online = tokio::time::timeout(SOON, status.wait_for(Status::is_online)).await;
        online.unwrap_or_else(|_| panic!("{:?}", self.peer.status().borrow())).unwrap();
    }

    /// Starts again with what is on disk, connects to an honest relay, and has somebody else get
    /// everything from there. Gives that somebody's view.
    pub(crate) async fn recovers(self) -> Vec<ChangeHash> {
        let relay = honest().await;
        let url = format!("ws://{}", relay.addr());
        self.syncs_with(&url, "before a restart").await;
        let (name, edits) = (self.document.url().to_string(), self.edits);
        let Self { peer, document, store, .. } = self;
        let heads = document.heads().unwrap();
        drop(document);
        peer.close().await.unwrap();
        // A memory store is closed with its peer; what it held is with the relay, as it must be.
        drop(store);
        let reader = Peer::builder("memory").store(store::memory().unwrap()).open().unwrap();
        reader.connect(&url).unwrap();
        let document = reader.find_within(&name, SOON).await.unwrap();
        let mut watcher = document.watch();
        // There may be more by now: what somebody uploaded is opened when there is a worker.
        let all = async {
            while !heads.iter().all(|head| document.holds(*head).unwrap_or(false)) {
                watcher.next().await;
            }
        };
        tokio::time::timeout(SOON, all).await.expect("an honest relay passes all of it on");
        let mine =
            document.read(|doc| doc.keys(ROOT).filter(|key| key.starts_with("mine ")).count());
        assert_eq!(mine.unwrap(), edits);
        reader.close().await.unwrap();
        relay.shutdown().await.unwrap();
        heads
    }

    async fn syncs_with(&self, url: &str, when: &str) {
        self.peer.connect(url).unwrap();
        let confirmed = self.document.wait_confirmed(SOON).await;
        confirmed.unwrap_or_else(|error| panic!("{when}: {error}"));
    }
}

async fn honest() -> Relay {
    honest_with(Arc::new(InProcess::start(WorkerLimits::default()).unwrap())).await
}

pub(crate) async fn honest_with(materialiser: Arc<dyn Materialiser>) -> Relay {
    let config = RelayConfig { port: 0, admin: None, shards: 1, ..RelayConfig::default() };
    Relay::start(config, store::memory().unwrap(), materialiser).await.unwrap()
}

/// A document that nobody has used.
pub(crate) fn new_document() -> DocumentId {
    let mut id = [2; 16];
    id[..8].copy_from_slice(&number().to_le_bytes());
    DocumentId::from_random(id)
}
