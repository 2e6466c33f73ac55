//! A peer with several relays, which are processes of their own: one that dies, falls silent or goes
//! away has another take its place in time, nothing is lost, and the preferred one is returned to.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::peer::{
    Breaker, Document, Peer, PeerBuilder, RelayOptions, RelayState, RelayStatus, Status,
};
use concord::store;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::support::Relay;

/// Long enough for a busy machine; nothing waits for it where all is well.
const SOON: Duration = Duration::from_secs(40);
/// What is promised.
const FAILOVER: Duration = Duration::from_secs(3);
/// How long a relay is well before it is returned to, at least.
const RETURN: Duration = Duration::from_secs(10);

struct Two {
    first: Relay,
    second: Relay,
    _directories: [tempfile::TempDir; 2],
}

impl Two {
    fn start() -> Self {
        let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let start = |at: usize| Relay::start(&["--store", "fjall"], directories[at].path());
        Self { first: start(0), second: start(1), _directories: directories }
    }
}

fn builder() -> PeerBuilder {
    Peer::builder("memory").store(store::memory().unwrap())
}

/// Prefers the first.
fn with_both(two: &Two) -> PeerBuilder {
    let relay = |url, priority| RelayOptions::new(url).priority(priority);
    builder().relay_with(relay(two.second.url(), 2)).relay_with(relay(two.first.url(), 1))
}

async fn put(document: &Document, key: &str) {
    document.change(|tx| Ok(tx.put(ROOT, key, true)?)).await.unwrap();
}

/// Waits until the document has all of these.
async fn until(document: &Document, keys: &[String]) {
    let missing = || {
        let absent = |key: &&String| {
            document.read(|doc| doc.get(ROOT, key.as_str()).unwrap().is_none()).unwrap()
        };
        keys.iter().filter(absent).count()
    };
    let mut watcher = document.watch();
    let waited = async {
        while missing() > 0 {
            watcher.next().await;
        }
    };
    timeout(SOON, waited).await.unwrap_or_else(|_| panic!("{} did not come", missing()));
}

/// Waits until this relay is the one in use.
async fn uses(peer: &Peer, relay: &Relay) {
    let url = relay.url();
    let mut status = peer.status();
    let used = status.wait_for(|status| *status == Status::Online { relay: url.clone() });
    let used = timeout(SOON, used).await.map(drop);
    used.unwrap_or_else(|_| panic!("{:?}", peer.relays().borrow()));
}

async fn relay_is(peer: &Peer, relay: &Relay, so: impl Fn(&RelayStatus) -> bool) -> RelayStatus {
    let url = relay.url();
    let mut relays = peer.relays();
    let is = |relay: &&RelayStatus| relay.url == url && so(relay);
    let there = timeout(SOON, relays.wait_for(|relays| relays.iter().any(|it| is(&it)))).await;
    let there = there.unwrap_or_else(|_| panic!("{:?}", peer.relays().borrow())).unwrap();
    there.iter().find(is).unwrap().clone()
}

/// Edits all the time, until it is told to stop; gives what was written.
fn edits(document: Document, stop: Arc<AtomicBool>) -> JoinHandle<Vec<String>> {
    tokio::spawn(async move {
        let mut keys = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let key = format!("edit {}", keys.len());
            let began = Instant::now();
            put(&document, &key).await;
            assert!(began.elapsed() < Duration::from_secs(1), "an edit waited for the network");
            keys.push(key);
            sleep(Duration::from_millis(10)).await;
        }
        keys
    })
}

/// What the status was, one after another.
fn statuses(peer: &Peer) -> JoinHandle<Vec<Status>> {
    let mut status = peer.status();
    tokio::spawn(async move {
        let mut seen = vec![status.borrow_and_update().clone()];
        while status.changed().await.is_ok() {
            seen.push(status.borrow_and_update().clone());
        }
        seen
    })
}

/// While Alice edits, the relay in use is lost by `lose`: how long it takes until what she writes
/// after that is confirmed by the other. Bob, who only knows the other, has all of it in the end.
async fn loses(two: &mut Two, alice: &Peer, lose: impl FnOnce(&mut Relay)) -> Duration {
    uses(alice, &two.first).await;
    // Nobody has it open when the relay is lost.
    let idle = alice.create().await.unwrap();
    put(&idle, "idle").await;
    let (idle, idle_name) = (idle.wait_confirmed(SOON).await, idle.url().to_string());
    idle.unwrap();
    let document = alice.create().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let editing = edits(document.clone(), Arc::clone(&stop));
    sleep(Duration::from_millis(1_300)).await;

    let lost = Instant::now();
    lose(&mut two.first);
    uses(alice, &two.second).await;
    // Of the first relay's word nothing covers this.
    put(&document, "after").await;
    stop.store(true, Ordering::Relaxed);
    let mut keys = editing.await.unwrap();
    document.wait_confirmed(SOON).await.unwrap();
    let took = lost.elapsed();

    keys.push("after".to_owned());
    assert!(keys.len() > 50, "{}", keys.len());
    let bob = builder().relay(two.second.url()).open().unwrap();
    let his = bob.find_within(&document.url().to_string(), SOON).await.unwrap();
    until(&his, &keys).await;
    let his = bob.find_within(&idle_name, SOON).await.unwrap();
    until(&his, &["idle".to_owned()]).await;
    bob.close().await.unwrap();
    eprintln!("confirmed by the other relay after {took:?}");
    took
}

/// The preferred relay is back, and returned to, without a moment without a relay.
async fn returns(two: &Two, alice: &Peer, back: Instant) {
    let seen = statuses(alice);
    uses(alice, &two.first).await;
    assert!(back.elapsed() >= RETURN, "after {:?}", back.elapsed());
    let left = relay_is(alice, &two.second, |it| it.state == RelayState::Standby).await;
    assert!(!left.in_use && left.received_bytes > 0 && left.latency.is_some(), "{left:?}");
    let used = relay_is(alice, &two.first, |it| it.in_use).await;
    assert_eq!((used.breaker, used.priority), (Breaker::Closed, 1));
    // What is written now is with the first again.
    let document = alice.create().await.unwrap();
    put(&document, "back").await;
    document.wait_confirmed(SOON).await.unwrap();
    let carol = builder().relay(two.first.url()).open().unwrap();
    let hers = carol.find_within(&document.url().to_string(), SOON).await.unwrap();
    until(&hers, &["back".to_owned()]).await;
    carol.close().await.unwrap();
    seen.abort();
    let online = |status: &Status| status.is_online();
    if let Ok(seen) = seen.await {
        assert!(seen.iter().all(online), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_killed_has_another_in_its_place_and_is_returned_to() {
    let mut two = Two::start();
    let alice = with_both(&two).open().unwrap();
    let took = loses(&mut two, &alice, Relay::kill9).await;
    assert!(took < FAILOVER, "{took:?}");
    let dead = relay_is(&alice, &two.first, |it| it.state != RelayState::Online).await;
    assert!(!dead.in_use, "{dead:?}");
    let back = Instant::now();
    two.first.restart();
    returns(&two, &alice, back).await;
    alice.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_falls_silent_has_another_in_its_place_and_is_returned_to() {
    let mut two = Two::start();
    let alice = with_both(&two).open().unwrap();
    let took = loses(&mut two, &alice, |relay| relay.pause()).await;
    assert!(took < FAILOVER, "{took:?}");
    let back = Instant::now();
    two.first.resume();
    returns(&two, &alice, back).await;
    alice.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_drains_is_left_for_another() {
    let mut two = Two::start();
    let alice = with_both(&two).open().unwrap();
    let seen = statuses(&alice);
    let took = loses(&mut two, &alice, |relay| assert!(relay.terminate().success())).await;
    assert!(took < FAILOVER, "{took:?}");
    let left = relay_is(&alice, &two.first, |it| !it.in_use).await;
    assert_ne!(left.state, RelayState::Online);
    alice.close().await.unwrap();
    drop(alice);
    let seen = seen.await.unwrap();
    let online: Vec<_> = seen.iter().filter(|status| status.is_online()).collect();
    assert_eq!(online.len(), 2, "{seen:?}");
}

/// Two relays know nothing of each other: what was written on each meets when somebody moves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_on_two_relays_meets_when_somebody_moves() {
    let mut two = Two::start();
    let alice = with_both(&two).open().unwrap();
    uses(&alice, &two.first).await;
    let hers = alice.create().await.unwrap();
    put(&hers, "begin").await;
    hers.wait_confirmed(SOON).await.unwrap();
    // Bob has a copy, and goes to the other relay with it.
    let directory = tempfile::tempdir().unwrap();
    let bob = Peer::builder(directory.path()).relay(two.first.url()).open().unwrap();
    let his = bob.find_within(&hers.url().to_string(), SOON).await.unwrap();
    until(&his, &["begin".to_owned()]).await;
    let name = hers.url().to_string();
    bob.close().await.unwrap();
    drop((bob, his));
    let bob = Peer::builder(directory.path()).relay(two.second.url()).open().unwrap();
    let his = bob.find(&name).await.unwrap();
    put(&his, "from bob").await;
    his.wait_confirmed(SOON).await.unwrap();
    put(&hers, "from alice").await;
    hers.wait_confirmed(SOON).await.unwrap();
    let both = ["from alice".to_owned(), "from bob".to_owned()];
    assert!(hers.read(|doc| doc.get(ROOT, "from bob").unwrap().is_none()).unwrap());

    two.first.kill9();
    until(&his, &both).await;
    until(&hers, &both).await;
    assert_eq!(hers.heads().unwrap(), his.heads().unwrap());
    alice.close().await.unwrap();
    bob.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_at_once_are_both_kept_in_step() {
    let mut two = Two::start();
    // Others look for it at once, at both.
    let at_once = with_both(&two).debounce(Duration::ZERO, Duration::ZERO);
    let alice = at_once.at_once(2).open().unwrap();
    for relay in [&two.first, &two.second] {
        relay_is(&alice, relay, |it| it.in_use).await;
    }
    uses(&alice, &two.first).await;
    let hers = alice.create().await.unwrap();
    put(&hers, "begin").await;
    let name = hers.url().to_string();
    let bob = builder().relay(two.first.url()).open().unwrap();
    let carol = builder().relay(two.second.url()).open().unwrap();
    let his = bob.find_within(&name, SOON).await.unwrap();
    let carols = carol.find_within(&name, SOON).await.unwrap();
    // What comes from one relay goes to the other.
    put(&his, "from bob").await;
    put(&carols, "from carol").await;
    let both = ["from bob".to_owned(), "from carol".to_owned()];
    for document in [&hers, &his, &carols] {
        until(document, &both).await;
    }
    // One that dies is of no consequence.
    two.first.kill9();
    relay_is(&alice, &two.first, |it| !it.in_use).await;
    uses(&alice, &two.second).await;
    put(&hers, "after").await;
    until(&carols, &["after".to_owned()]).await;
    for peer in [alice, bob, carol] {
        peer.close().await.unwrap();
    }
}

/// Closes whatever comes with this code.
async fn refusing(code: u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { continue };
            let frame = CloseFrame { code: CloseCode::from(code), reason: "not you".into() };
            let _ = socket.send(Message::Close(Some(frame))).await;
            while let Some(Ok(_)) = socket.next().await {}
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_refuses_us_for_good_is_left_alone_and_another_used() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(&["--store", "fjall"], directory.path());
    for code in [4401, 4403] {
        let refusing = refusing(code).await;
        let peer = builder()
            .relay_with(RelayOptions::new(&refusing).priority(1))
            .relay(relay.url())
            .open()
            .unwrap();
        uses(&peer, &relay).await;
        let mut relays = peer.relays();
        let relays = timeout(SOON, relays.wait_for(|relays| {
            matches!(&relays[0].state, RelayState::Stopped { reason } if reason.contains("not you"))
        }));
        assert_eq!(relays.await.unwrap().unwrap()[0].url, refusing);
        peer.close().await.unwrap();
    }
}

/// The command goes by the order in which relays are given.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_takes_several_relays() {
    let two = Two::start();
    // Nothing listens on a port that was just given back.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("ws://127.0.0.1:{port}");
    let directory = tempfile::tempdir().unwrap();
    let run = |urls: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_concord"));
        command.args(args).env("CONCORD_DIR", directory.path()).env("CONCORD_URL", urls);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (first, second) = (two.first.url(), two.second.url());
    let (code, said) = run(&format!("{nobody},{second}"), &["doc", "create", "--json"]);
    assert!(code == Some(0) && said.contains("\"confirmed\":true"), "{said}");
    let (code, said) = run(&format!("{first},{second}"), &["sync"]);
    let confirmed = format!("1 of 1 document confirmed by {first}");
    assert!(code == Some(0) && said.contains(&confirmed), "{said}");
    let flags = ["sync", "--json", "--url", &nobody, "--url", &second];
    let (code, said) = run(&first, &flags);
    let relay = format!("\"relay\":\"{second}\"");
    assert!(code == Some(0) && said.contains(&relay), "{said}");
    let (code, said) = run(&nobody, &["sync", "--deadline", "1"]);
    assert!(code == Some(4) && said.contains("nothing listens"), "{said}");
    let (code, said) = run(&format!("{first},http://x"), &["sync"]);
    assert!(code == Some(2) && said.contains("http://x"), "{said}");
}
