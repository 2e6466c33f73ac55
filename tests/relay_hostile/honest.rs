//! Two honest clients who edit one document and wait for each other.

use std::time::{Duration, Instant};

use automerge::Automerge;
use concord_protocol::{DocumentId, Message};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    client::{Client, Heard},
    replica::{Light, Real, Replica, key},
};

/// How long an edit may take to the other client, on a busy machine: longer is a hang.
const EDIT_MAX: Duration = Duration::from_secs(10);
/// How long a relay that checks changes after it passed them on may serve one that breaks the
/// document, on a busy machine.
const CHECKED_MAX: Duration = Duration::from_secs(20);
/// How often to try whether it still does.
const TRY_AGAIN: Duration = Duration::from_millis(250);

/// A client that has the document open.
struct Honest<R> {
    client: Client,
    document: DocumentId,
    replica: R,
}

impl<R: Replica> Honest<R> {
    async fn join(url: &str, name: &str, document: &DocumentId) -> Self {
        let mut honest = Self {
            client: Client::join(url, name).await,
            document: document.clone(),
            replica: R::default(),
        };
        honest.speak().await;
        honest
    }

    async fn hear(&mut self) {
        match self.client.hear_all().await {
            Heard::Message(Message::Sync { document, data, .. }) => {
                assert_eq!(document, self.document);
                self.replica.receive(&data);
                self.speak().await;
            }
            Heard::Ping | Heard::Message(Message::DocUnavailable { .. }) => {}
            other => panic!("an honest client hears {other:?}"),
        }
    }

    async fn speak(&mut self) {
        while let Some(data) = self.replica.say() {
            let message = Message::Sync {
                document: self.document.clone(),
                sender: self.client.name.clone(),
                target: self.client.relay.clone(),
                data,
            };
            self.client.send(&message).await;
        }
    }
}

/// The two of them at work.
pub(crate) struct Pair {
    orders: mpsc::Sender<oneshot::Sender<Duration>>,
    task: JoinHandle<usize>,
    document: DocumentId,
    is_light: bool,
}

impl Pair {
    /// With automerge itself, or, where that may meet what it cannot apply, without.
    pub(crate) async fn start(url: &str, document: &DocumentId, is_light: bool) -> Self {
        let (orders, taken) = mpsc::channel(1);
        let task = if is_light {
            let (alice, bob) = pair::<Light>(url, document).await;
            tokio::spawn(work(alice, bob, taken))
        } else {
            let (alice, bob) = pair::<Real>(url, document).await;
            tokio::spawn(work(alice, bob, taken))
        };
        Self { orders, task, document: document.clone(), is_light }
    }

    /// One edits, the other sees it: how long that took.
    pub(crate) async fn round(&self) -> Duration {
        let (answer, answered) = oneshot::channel();
        let sent = self.orders.send(answer).await;
        assert!(sent.is_ok(), "the honest clients are at work");
        answered.await.expect("the honest clients are at work")
    }

    /// Ends their work; somebody who comes now, with automerge itself, gets all of it.
    pub(crate) async fn end(self, url: &str) {
        drop(self.orders);
        let rounds = self.task.await.expect("the honest clients noticed nothing");
        let start = Instant::now();
        loop {
            let fresh = catch_up(url.to_owned(), self.document.clone(), rounds);
            let Err(error) = tokio::spawn(fresh).await else {
                return;
            };
            assert!(
                self.is_light && start.elapsed() < CHECKED_MAX,
                "a new client cannot load the document: {error}"
            );
            // There is no event: it gets better by the relay's own check of what it has.
            tokio::time::sleep(TRY_AGAIN).await;
        }
    }
}

async fn pair<R: Replica>(url: &str, document: &DocumentId) -> (Honest<R>, Honest<R>) {
    let alice = Honest::join(url, "alice", document).await;
    (alice, Honest::join(url, "bob", document).await)
}

/// A new client gets all that was written, and can load it again.
async fn catch_up(url: String, document: DocumentId, rounds: usize) {
    let mut fresh = Honest::<Real>::join(&url, "fresh", &document).await;
    let has_all = |replica: &Real| (0..rounds).all(|round| replica.has(&key(round)));
    let caught_up = async {
        while !has_all(&fresh.replica) {
            fresh.hear().await;
        }
    };
    timeout(EDIT_MAX, caught_up).await.expect("a new client gets all that honest clients wrote");
    let doc = &fresh.replica.doc;
    let copy = Automerge::load(&doc.save()).expect("what it got loads again");
    assert_eq!(copy.get_heads(), doc.get_heads());
}

async fn work<R: Replica>(
    mut writer: Honest<R>,
    mut reader: Honest<R>,
    mut orders: mpsc::Receiver<oneshot::Sender<Duration>>,
) -> usize {
    let mut rounds = 0;
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            () = writer.hear() => continue,
            () = reader.hear() => continue,
        };
        let Some(order) = order else {
            assert!((0..rounds).all(|round| writer.replica.has(&key(round))));
            return rounds;
        };
        let start = Instant::now();
        let key = key(rounds);
        rounds += 1;
        writer.replica.edit(&key);
        writer.speak().await;
        let arrives = async {
            while !reader.replica.has(&key) {
                tokio::select! {
                    () = writer.hear() => {}
                    () = reader.hear() => {}
                }
            }
        };
        timeout(EDIT_MAX, arrives).await.expect("an honest edit arrives");
        // Nobody waits for it any more only where a test failed already.
        let _ = order.send(start.elapsed());
        // Both of them write.
        std::mem::swap(&mut writer, &mut reader);
    }
}
