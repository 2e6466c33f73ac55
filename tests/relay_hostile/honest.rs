//! Two honest clients, with automerge itself, who edit one document and wait for each other.

use std::time::{Duration, Instant};

use automerge::{
    Automerge, ROOT, ReadDoc as _,
    sync::{self, SyncDoc as _},
    transaction::Transactable as _,
};
use concord_protocol::{DocumentId, Message};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use crate::client::{Client, Heard};

/// How long an edit may take to the other client, on a busy machine: longer is a hang.
const EDIT_MAX: Duration = Duration::from_secs(10);

/// A client that has the document open.
struct Honest {
    client: Client,
    document: DocumentId,
    doc: Automerge,
    state: sync::State,
}

impl Honest {
    async fn join(url: &str, name: &str, document: &DocumentId) -> Self {
        let mut honest = Self {
            client: Client::join(url, name).await,
            document: document.clone(),
            doc: Automerge::new(),
            state: sync::State::new(),
        };
        honest.speak().await;
        honest
    }

    async fn edit(&mut self, key: &str) {
        self.doc
            .transact(|tx| tx.put(ROOT, key, key))
            .expect("an honest document can be edited");
        self.speak().await;
    }

    fn has(&self, key: &str) -> bool {
        let values = self.doc.get_all(ROOT, key).unwrap();
        values
            .iter()
            .any(|(value, _)| value == &automerge::Value::from(key))
    }

    async fn hear(&mut self) {
        match self.client.hear_all().await {
            Heard::Message(Message::Sync { document, data, .. }) => {
                assert_eq!(document, self.document);
                let message = sync::Message::decode(&data).expect("the relay speaks automerge");
                self.doc
                    .receive_sync_message(&mut self.state, message)
                    .expect("what the relay passes on can be applied");
                self.speak().await;
            }
            Heard::Ping | Heard::Message(Message::DocUnavailable { .. }) => {}
            other => panic!("an honest client hears {other:?}"),
        }
    }

    async fn speak(&mut self) {
        while let Some(message) = self.doc.generate_sync_message(&mut self.state) {
            let message = Message::Sync {
                document: self.document.clone(),
                sender: self.client.name.clone(),
                target: self.client.relay.clone(),
                data: message.encode().into(),
            };
            self.client.send(&message).await;
        }
    }
}

/// The two of them at work.
pub(crate) struct Pair {
    orders: mpsc::Sender<oneshot::Sender<Duration>>,
    task: JoinHandle<(Honest, usize)>,
}

impl Pair {
    pub(crate) async fn start(url: &str, document: &DocumentId) -> Self {
        let alice = Honest::join(url, "alice", document).await;
        let bob = Honest::join(url, "bob", document).await;
        let (orders, taken) = mpsc::channel(1);
        let task = tokio::spawn(work(alice, bob, taken));
        Self { orders, task }
    }

    /// One edits, the other sees it: how long that took.
    pub(crate) async fn round(&self) -> Duration {
        let (answer, answered) = oneshot::channel();
        let sent = self.orders.send(answer).await;
        assert!(sent.is_ok(), "the honest clients are at work");
        answered.await.expect("the honest clients are at work")
    }

    /// Ends their work; somebody who comes now gets all of it.
    pub(crate) async fn end(self, url: &str) {
        drop(self.orders);
        let (old, rounds) = self.task.await.expect("the honest clients noticed nothing");
        let mut fresh = Honest::join(url, "fresh", &old.document).await;
        let keys: Vec<String> = (0..rounds).map(key).collect();
        let caught_up = async {
            while !keys.iter().all(|key| fresh.has(key)) {
                fresh.hear().await;
            }
        };
        timeout(EDIT_MAX, caught_up)
            .await
            .expect("a new client gets all that honest clients wrote");
        assert!(keys.iter().all(|key| old.has(key)));
        let copy = Automerge::load(&fresh.doc.save()).expect("what it got loads again");
        assert_eq!(copy.get_heads(), fresh.doc.get_heads());
    }
}

fn key(round: usize) -> String {
    format!("honest-{round}")
}

async fn work(
    mut writer: Honest,
    mut reader: Honest,
    mut orders: mpsc::Receiver<oneshot::Sender<Duration>>,
) -> (Honest, usize) {
    let mut rounds = 0;
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = writer.hear() => continue,
            () = reader.hear() => continue,
        };
        let Some(order) = order else {
            return (writer, rounds);
        };
        let start = Instant::now();
        let key = key(rounds);
        rounds += 1;
        writer.edit(&key).await;
        let arrives = async {
            while !reader.has(&key) {
                tokio::select! {
                    () = writer.hear() => {}
                    () = reader.hear() => {}
                }
            }
        };
        timeout(EDIT_MAX, arrives)
            .await
            .expect("an honest edit arrives");
        // Nobody waits for it any more only where a test failed already.
        let _ = order.send(start.elapsed());
        // Both of them write.
        std::mem::swap(&mut writer, &mut reader);
    }
}
