//! A peer that is killed a hundred times, in the middle of edits and of syncing, with a relay that is
//! killed too now and then: what returned before is there after each start, once, and in the end
//! everybody has it.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use automerge::{ObjType, ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::{
    peer::{Document, Peer},
    store,
};
use support::Relay;

/// Where somebody keeps their replica, which relay they use, and the number of their first edit.
const HOME: &str = "CONCORD_TEST_KILLED_HOME";
const RELAY: &str = "CONCORD_TEST_KILLED_RELAY";
const FIRST: &str = "CONCORD_TEST_KILLED_FIRST";

const KILLS: i64 = 100;
/// The relay is killed as well, each so many kills.
const RELAY_EVERY: i64 = 9;
/// Documents that are edited at the same time.
const DOCUMENTS: usize = 4;
/// Edits that are acknowledged before the kill, at most.
const EDITS_MAX: u64 = 24;
/// Milliseconds that somebody lives who is killed before they said that they are ready, at most.
const EARLY_MS: u64 = 60;

/// Long enough for a busy machine; nothing waits for it where all is well.
const SOON: Duration = Duration::from_mins(1);

/// What this program is when it is started by itself.
#[test]
fn somebody() {
    let Some(home) = env::var_os(HOME) else { return };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all();
    runtime.build().unwrap().block_on(edit(Path::new(&home)));
}

fn say(words: &str) {
    // One write a line: the end may come between two.
    std::io::stdout().write_all(format!("\n{words}\n").as_bytes()).unwrap();
}

/// Says what is there, and then edits until the end; says each edit that has returned.
async fn edit(home: &Path) {
    let first = env::var(FIRST).unwrap().parse().unwrap();
    let peer = Peer::builder(home).relay(env::var(RELAY).unwrap()).open().unwrap();
    let mut documents = Vec::new();
    for id in peer.documents().await.unwrap() {
        let document = peer.find(id.as_str()).await.unwrap();
        let made = numbers(&document).into_iter().map(|n| n.to_string()).collect::<Vec<_>>();
        say(&format!("has {id} {}", made.join(",")));
        documents.push(document);
    }
    say("opened");
    while documents.len() < DOCUMENTS {
        let document = peer.create().await.unwrap();
        say(&format!("made {}", document.id()));
        documents.push(document);
    }
    let next = Arc::new(AtomicI64::new(first));
    for document in documents {
        let next = Arc::clone(&next);
        tokio::spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                append(&document, n).await;
                say(&format!("edited {} {n}", document.id()));
            }
        });
    }
    std::future::pending::<()>().await;
}

/// Puts a number at the end of the list, which is made if there is none.
async fn append(document: &Document, n: i64) {
    let made = document.change(|tx| {
        let list = match tx.get(ROOT, "list")? {
            Some((_, list)) => list,
            None => tx.put_object(ROOT, "list", ObjType::List)?,
        };
        Ok(tx.insert(&list, tx.length(&list), n)?)
    });
    made.await.unwrap();
}

/// What is in the list.
fn numbers(document: &Document) -> Vec<i64> {
    document
        .read(|doc| {
            let Some((_, list)) = doc.get(ROOT, "list").unwrap() else { return Vec::new() };
            let at = |n| doc.get(&list, n).unwrap().unwrap().0.as_i64().unwrap();
            (0..doc.length(&list)).map(at).collect()
        })
        .unwrap()
}

/// A process that edits.
struct Somebody {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Somebody {
    fn start(home: &Path, relay: &Relay, first: i64) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "somebody", "--nocapture", "--test-threads=1"])
            .env(HOME, home)
            .env(RELAY, relay.url())
            .env(FIRST, first.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (told, lines) = mpsc::channel();
        let said = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                // Whoever reads may have seen enough.
                let _ = told.send(line);
            }
        });
        Self { child, lines }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The next that they said; `None`: they are dead, and that was all.
    fn says(&self) -> Option<String> {
        match self.lines.recv_timeout(SOON) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("nothing is said any more"),
        }
    }
}

impl Drop for Somebody {
    fn drop(&mut self) {
        // Fails only where it has ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What returned, by document.
#[derive(Default)]
struct Returned(BTreeMap<String, BTreeSet<i64>>);

impl Returned {
    /// Takes in a line; gives whether it says that an edit has returned.
    fn hears(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["made", id] => _ = self.0.entry(id.to_owned()).or_default(),
            ["edited", id, n] => {
                self.0.get_mut(id).unwrap().insert(n.parse().unwrap());
                return true;
            }
            _ => {}
        }
        false
    }

    /// All that returned of a document is among these numbers, and each of them is there once.
    fn check(&self, id: &str, found: &[i64], when: &str) {
        let once: BTreeSet<i64> = found.iter().copied().collect();
        assert_eq!(once.len(), found.len(), "{when}, document {id}: something is there twice");
        if let Some(lost) = self.0[id].iter().find(|n| !once.contains(n)) {
            panic!("{when}, document {id}: {lost} had returned and is not there");
        }
    }

    /// The same of a line that says what was found, if it is one; gives the document.
    fn check_line(&self, line: &str, when: &str) -> Option<String> {
        let rest = line.strip_prefix("has ")?;
        let (id, found) = rest.split_once(' ').unwrap();
        let found = found.split(',').filter(|n| !n.is_empty()).map(|n| n.parse().unwrap());
        // Of a document whose making had not returned nothing was promised.
        if self.0.contains_key(id) {
            self.check(id, &found.collect::<Vec<i64>>(), when);
        }
        Some(id.to_owned())
    }
}

/// `xorshift64*`: the moments of kills.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}

#[test]
fn what_returned_outlives_a_hundred_kills_of_the_peer_and_some_of_its_relay() {
    let (home, relay_home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut relay = Relay::start(&["--store", "fjall"], relay_home.path());
    let mut returned = Returned::default();
    let mut random = Random(0x5EED);
    let mut early = 0;
    for kill in 0..KILLS {
        let when = format!("start {kill}");
        let mut somebody = Somebody::start(home.path(), &relay, kill * 1_000_000);
        let mut found = BTreeSet::new();
        if kill % 4 == 3 {
            // In the middle of opening, or of what is done first.
            thread::sleep(Duration::from_millis(random.below(EARLY_MS)));
            somebody.kill();
            early += 1;
        } else {
            let mut left = 1 + random.below(EDITS_MAX);
            while left > 0 {
                let line = somebody.says().unwrap_or_else(|| panic!("{when}: it ended by itself"));
                found.extend(returned.check_line(&line, &when));
                left -= u64::from(returned.hears(&line));
                if line == "opened" {
                    let missing = returned.0.keys().find(|id| !found.contains(*id));
                    assert_eq!(missing, None, "{when}: a document is gone");
                }
            }
            somebody.kill();
        }
        // What was said before the end counts.
        while let Some(line) = somebody.says() {
            returned.check_line(&line, &when);
            returned.hears(&line);
        }
        if kill % RELAY_EVERY == RELAY_EVERY - 1 {
            relay.kill9();
            relay.restart();
        }
    }
    assert_eq!(returned.0.values().filter(|edits| !edits.is_empty()).count(), DOCUMENTS);
    let edits: usize = returned.0.values().map(BTreeSet::len).sum();
    assert!(edits > 200 && early == KILLS / 4, "{edits} edits, {early} early kills");

    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(meet(home.path(), &relay, &returned));
}

/// In the end the relay has all of it, and so has somebody who asks the relay alone.
async fn meet(home: &Path, relay: &Relay, returned: &Returned) {
    let ann = Peer::builder(home).relay(relay.url()).open().unwrap();
    ann.flush(SOON).await.unwrap();
    ann.in_step(SOON).await.unwrap();
    assert_eq!(ann.outbox().await.unwrap(), []);
    let memory = store::memory().unwrap();
    let ben = Peer::builder("memory").store(memory).relay(relay.url()).open().unwrap();
    for id in returned.0.keys() {
        let ours = numbers(&ann.find(id).await.unwrap());
        returned.check(id, &ours, "in the end");
        let theirs = ben.find_within(id, SOON).await.unwrap();
        theirs.wait_confirmed(SOON).await.unwrap();
        assert_eq!(numbers(&theirs), ours, "document {id}");
    }
    ann.close().await.unwrap();
    ben.close().await.unwrap();
}
