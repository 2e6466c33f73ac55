//! The peer with servers that know automerge-repo version 1 and nothing of Concord: everything
//! works, and confirmed means what such a server can say.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

#[path = "peer_v1/server.rs"]
mod server;
#[path = "peer_v1/wire.rs"]
mod wire;

use std::{net::SocketAddr, time::Duration};

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::peer::{Acknowledged, Document, DocumentEvent, FindError, Peer, Status};
use concord::store;

use server::{JavaScript, Samod};
use wire::Wire;

const ABSENT: &str = "automerge:2akvofn6L1o4RMUEMQi7qzwRjKWZ";
/// Long enough for a busy machine; nothing waits for it where all is well.
const SOON: Duration = Duration::from_secs(30);

struct Home {
    peer: Peer,
    url: String,
    directory: tempfile::TempDir,
}

impl Home {
    fn new(url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { peer: open(&directory, url), url: url.to_owned(), directory }
    }

    /// Closes the peer, and opens it again with what it has on disk.
    async fn restart(&mut self) {
        self.peer.close().await.unwrap();
        self.peer = open(&self.directory, &self.url);
    }

    async fn offline(&self) {
        self.is(|status| !status.is_online()).await;
    }

    /// Dials without the patience that the backoff asks for.
    async fn online(&self) {
        self.peer.connect(&self.url).unwrap();
        self.is(Status::is_online).await;
    }

    async fn is(&self, so: impl FnMut(&Status) -> bool) {
        let mut status = self.peer.status();
        let so = tokio::time::timeout(SOON, status.wait_for(so)).await;
        so.unwrap_or_else(|_| panic!("still {:?}", self.peer.status().borrow())).unwrap();
    }

    async fn find(&self, url: &str) -> Document {
        self.peer.find_within(url, SOON).await.unwrap()
    }
}

fn open(directory: &tempfile::TempDir, url: &str) -> Peer {
    let builder = Peer::builder(directory.path()).engine(store::Engine::Fjall);
    builder.relay(url).open().unwrap()
}

async fn put(document: &Document, key: &str) {
    document.change(|tx| Ok(tx.put(ROOT, key, true)?)).await.unwrap();
}

fn has(document: &Document, keys: &[&str]) -> bool {
    let there = |key: &&str| document.read(|doc| doc.get(ROOT, *key).unwrap().is_some()).unwrap();
    keys.iter().all(there)
}

/// Waits until the document has all of these.
async fn until(document: &Document, keys: &[&str]) {
    let mut watcher = document.watch();
    let waited = async {
        while !has(document, keys) {
            watcher.next().await;
        }
    };
    let waited = tokio::time::timeout(SOON, waited).await;
    waited.unwrap_or_else(|_| panic!("{keys:?} did not come"));
}

/// Two people and a server that is away for a while. Not every server says that it has nothing.
async fn a_story(server: SocketAddr, says_unavailable: bool) {
    let wire = Wire::to(server).await;
    let (mut alice, bob) = (Home::new(&wire.url), Home::new(&wire.url));
    let hers = alice.peer.create().await.unwrap();
    put(&hers, "first").await;
    hers.wait_confirmed(SOON).await.unwrap();
    assert_eq!(hers.acknowledged(), Some(Acknowledged::Applied), "of disks they say nothing");
    let name = hers.url().to_string();
    let his = bob.find(&name).await;
    until(&his, &["first"]).await;

    // Live, both ways.
    put(&his, "from bob").await;
    put(&hers, "from alice").await;
    until(&hers, &["from bob"]).await;
    until(&his, &["from alice"]).await;
    alice.peer.flush(SOON).await.unwrap();
    bob.peer.flush(SOON).await.unwrap();

    // What nobody has.
    let patience = if says_unavailable { SOON } else { Duration::from_secs(1) };
    let error = bob.peer.find_within(ABSENT, patience).await.unwrap_err();
    if says_unavailable {
        assert!(matches!(error, FindError::Unavailable(_)), "{error}");
    } else {
        assert!(matches!(error, FindError::TimedOut(_)), "{error}");
    }

    // Apart: edits go on, none is confirmed, and afterwards everybody has all of them.
    wire.cut();
    alice.offline().await;
    bob.offline().await;
    put(&hers, "alice apart").await;
    put(&his, "bob apart").await;
    let other = alice.peer.create().await.unwrap();
    put(&other, "made apart").await;
    assert!(!hers.confirmed() && !his.confirmed() && !other.confirmed());
    assert!(alice.peer.flush(Duration::from_millis(50)).await.is_err());
    wire.mend(server);
    alice.online().await;
    bob.online().await;
    until(&hers, &["alice apart", "bob apart"]).await;
    until(&his, &["alice apart", "bob apart"]).await;
    alice.peer.flush(SOON).await.unwrap();
    bob.peer.flush(SOON).await.unwrap();
    let made = bob.find(&other.url().to_string()).await;
    until(&made, &["made apart"]).await;

    // Edits of a run that never was online reach the server in the next, unopened.
    wire.cut();
    alice.offline().await;
    alice.restart().await;
    let hers = alice.find(&name).await;
    put(&hers, "an offline run").await;
    drop((hers, other));
    alice.peer.close().await.unwrap();
    // Before it can be online again by itself.
    bob.offline().await;
    wire.mend(server);
    alice.peer = open(&alice.directory, &alice.url);
    bob.online().await;
    until(&his, &["an offline run"]).await;
    alice.peer.flush(SOON).await.unwrap();
    alice.peer.close().await.unwrap();
    bob.peer.close().await.unwrap();
}

/// Connections that end in the middle of traffic, again and again, under the same peer id.
async fn rounds(server: SocketAddr, count: u64) {
    let wire = Wire::to(server).await;
    let (alice, bob) = (Home::new(&wire.url), Home::new(&wire.url));
    let hers = alice.peer.create().await.unwrap();
    put(&hers, "start").await;
    hers.wait_confirmed(SOON).await.unwrap();
    let his = bob.find(&hers.url().to_string()).await;
    until(&his, &["start"]).await;
    for round in 0..count {
        let (from_alice, from_bob) = (format!("alice {round}"), format!("bob {round}"));
        // Who is first, and how far what was said has come, is different each time.
        if round % 2 == 0 {
            put(&hers, &from_alice).await;
            put(&his, &from_bob).await;
        } else {
            put(&his, &from_bob).await;
            put(&hers, &from_alice).await;
        }
        tokio::time::sleep(Duration::from_millis(round % 10)).await;
        wire.cut();
        alice.offline().await;
        bob.offline().await;
        wire.mend(server);
        alice.online().await;
        bob.online().await;
        until(&hers, &[&from_bob]).await;
        until(&his, &[&from_alice]).await;
        hers.wait_confirmed(SOON).await.unwrap();
    }
    assert_eq!(hers.heads().unwrap(), his.heads().unwrap());
    alice.peer.close().await.unwrap();
    bob.peer.close().await.unwrap();
}

/// Servers that took something in, and whose word of it was lost with the connection. Those that
/// believe that it arrived have nothing to say the next time, unless they are asked.
async fn words_lost(server: SocketAddr) {
    let wire = Wire::to(server).await;
    let (alice, bob) = (Home::new(&wire.url), Home::new(&format!("ws://{server}")));
    let again = async || {
        wire.cut();
        alice.offline().await;
        wire.mute(false);
        wire.mend(server);
        alice.online().await;
    };
    let hers = alice.peer.create().await.unwrap();
    put(&hers, "start").await;
    hers.wait_confirmed(SOON).await.unwrap();
    let his = bob.find(&hers.url().to_string()).await;
    for key in ["one", "two", "three"] {
        wire.mute(true);
        put(&hers, key).await;
        // The server has it: others get it from there.
        until(&his, &[key]).await;
        assert!(!hers.confirmed(), "{key}");
        again().await;
        hers.wait_confirmed(SOON).await.unwrap();
    }
    // Nothing was left half said.
    put(&his, "from bob").await;
    until(&hers, &["from bob"]).await;
    put(&hers, "from alice").await;
    until(&his, &["from alice"]).await;
    alice.peer.flush(SOON).await.unwrap();
    bob.peer.flush(SOON).await.unwrap();
    // Nothing was lost, but who asks now has not heard what was said then.
    drop(hers);
    again().await;
    alice.peer.flush(SOON).await.unwrap();
    alice.peer.close().await.unwrap();
    bob.peer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_are_lost_with_a_connection_are_said_again() {
    let directory = tempfile::tempdir().unwrap();
    let server = Samod::start(directory.path(), false).await;
    words_lost(server.addr).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_the_subprotocol_is_as_good() {
    let directory = tempfile::tempdir().unwrap();
    let server = Samod::start(directory.path(), false).await;
    a_story(server.addr, true).await;
    assert_eq!(*server.foreign.lock().unwrap(), []);
    server.stop().await;
}

/// What the `ws` package of JavaScript does with a subprotocol, whatever is behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_any_subprotocol_hears_nothing_but_version_1() {
    let directory = tempfile::tempdir().unwrap();
    let server = Samod::start(directory.path(), true).await;
    a_story(server.addr, true).await;
    assert_eq!(*server.foreign.lock().unwrap(), []);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_leave_nothing_behind_and_no_chatter() {
    let directory = tempfile::tempdir().unwrap();
    let server = Samod::start(directory.path(), false).await;
    rounds(server.addr, 20).await;

    let home = Home::new(&format!("ws://{}", server.addr));
    let document = home.peer.create().await.unwrap();
    put(&document, "quiet").await;
    document.wait_confirmed(SOON).await.unwrap();
    // Quiet is what does not come, so this waits for a time.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = *server.heard.lock().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(*server.heard.lock().unwrap(), before, "all is said");
    home.peer.close().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn confirmed_is_what_the_server_has_received() {
    let directory = tempfile::tempdir().unwrap();
    let server = Samod::start(directory.path(), false).await;
    let wire = Wire::to(server.addr).await;
    let home = Home::new(&wire.url);
    let document = home.peer.create().await.unwrap();
    for n in 0..20 {
        put(&document, &format!("key {n}")).await;
        document.wait_confirmed(SOON).await.unwrap();
        let ours: Vec<_> = document.heads().unwrap().iter().map(|head| head.0).collect();
        let theirs = server.heads(document.id().as_str()).await.unwrap();
        let theirs: Vec<_> = theirs.iter().map(|head| head.0).collect();
        assert_eq!(ours, theirs, "confirmed, and not there");
    }
    // Another server that has never heard of it: nothing is confirmed by what the first one said.
    wire.cut();
    home.offline().await;
    put(&document, "since").await;
    assert!(!document.confirmed());
    let elsewhere = tempfile::tempdir().unwrap();
    let second = Samod::start(elsewhere.path(), false).await;
    wire.mend(second.addr);
    home.online().await;
    document.wait_confirmed(SOON).await.unwrap();
    assert_eq!(second.heads(document.id().as_str()).await.unwrap().len(), 1);
    home.peer.close().await.unwrap();
    server.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let first = Samod::start(directory.path(), false).await;
    let wire = Wire::to(first.addr).await;
    let (alice, bob) = (Home::new(&wire.url), Home::new(&wire.url));
    let hers = alice.peer.create().await.unwrap();
    put(&hers, "before").await;
    hers.wait_confirmed(SOON).await.unwrap();
    let his = bob.find(&hers.url().to_string()).await;
    until(&his, &["before"]).await;
    first.stop().await;
    wire.cut();
    alice.offline().await;
    bob.offline().await;
    put(&hers, "alice meanwhile").await;
    put(&his, "bob meanwhile").await;
    let second = Samod::start(directory.path(), false).await;
    wire.mend(second.addr);
    alice.online().await;
    bob.online().await;
    until(&hers, &["bob meanwhile"]).await;
    until(&his, &["alice meanwhile"]).await;
    alice.peer.close().await.unwrap();
    bob.peer.close().await.unwrap();
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_passes() {
    let directory = tempfile::tempdir().unwrap();
    let server = Samod::start(directory.path(), false).await;
    let url = format!("ws://{}", server.addr);
    let (alice, bob) = (Home::new(&url), Home::new(&url));
    let hers = alice.peer.create().await.unwrap();
    hers.wait_confirmed(SOON).await.unwrap();
    let his = bob.find(&hers.url().to_string()).await;
    his.wait_confirmed(SOON).await.unwrap();
    let mut watcher = his.watch();
    hers.broadcast(&b"\x65hello"[..]);
    let heard = async {
        loop {
            if let DocumentEvent::Ephemeral { data, .. } = watcher.next().await {
                break data;
            }
        }
    };
    assert_eq!(tokio::time::timeout(SOON, heard).await.unwrap(), &b"\x65hello"[..]);
    alice.peer.close().await.unwrap();
    bob.peer.close().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_peers_and_javascript_servers() {
    // 2.6.0-alpha.3 waits for all who are connected, also for those whom it does not ask.
    for (version, says_unavailable) in [("old", true), ("current", true), ("next", false)] {
        let directory = tempfile::tempdir().unwrap();
        let mut server = JavaScript::start(directory.path(), version);
        a_story(server.addr, says_unavailable).await;
        assert!(server.is_alive(), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_cut_connections_to_javascript_servers() {
    for version in ["old", "current", "next"] {
        let directory = tempfile::tempdir().unwrap();
        let mut server = JavaScript::start(directory.path(), version);
        rounds(server.addr, 20).await;
        assert!(server.is_alive(), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interop_words_lost_by_javascript_servers_are_said_again() {
    for version in ["old", "current", "next"] {
        let directory = tempfile::tempdir().unwrap();
        let mut server = JavaScript::start(directory.path(), version);
        words_lost(server.addr).await;
        assert!(server.is_alive(), "{version}");
    }
}
