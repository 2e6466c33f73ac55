//! A document that several write to, made so that a lost or repeated edit shows: a list to which
//! each edit appends one word that nobody else writes.

use std::{
    collections::BTreeSet,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use automerge::{ObjType, ROOT, ReadDoc as _, ScalarValue, transaction::Transactable as _};
use concord::peer::{ChangeError, Changed, Document};

use crate::world::{Home, World, secs};

type Saving = Pin<Box<dyn Future<Output = Result<Changed<()>, ChangeError>>>>;

/// One peer's copy.
pub(crate) struct Log {
    author: String,
    pub(crate) document: Document,
    written: BTreeSet<String>,
    saving: Vec<Saving>,
}

impl Log {
    /// A new document.
    pub(crate) fn create(world: &mut World, home: &Home) -> Self {
        let peer = home.peer.clone();
        let document = world.run(&home.name, secs(1), async move {
            let document = peer.create().await.unwrap();
            let made = document.change(|tx| Ok(tx.put_object(ROOT, "log", ObjType::List)?)).await;
            made.unwrap();
            document
        });
        Self::of(home, document)
    }

    /// The copy of another peer, from the relay.
    pub(crate) fn find(world: &mut World, home: &Home, other: &Self) -> Self {
        world.until("the relay has it", secs(10), || other.document.confirmed());
        Self::find_stored(world, home, other)
    }

    /// What the relay has of it, whether or not the other peer is there.
    pub(crate) fn find_stored(world: &mut World, home: &Home, other: &Self) -> Self {
        let (peer, id) = (home.peer.clone(), other.document.id().to_string());
        let within = secs(100);
        let finding = async move { peer.find_within(&id, within).await.unwrap() };
        let document = world.run(&home.name, within, finding);
        let log = Self::of(home, document);
        world.until("the list is there", secs(5), || log.list().is_some());
        log
    }

    fn of(home: &Home, document: Document) -> Self {
        let (written, saving) = (BTreeSet::new(), Vec::new());
        Self { author: home.name.clone(), document, written, saving }
    }

    /// One edit.
    pub(crate) fn write(&mut self) {
        self.write_with(&[]);
    }

    /// One edit that brings these bytes along.
    pub(crate) fn write_with(&mut self, bytes: &[u8]) {
        let word = format!("{}-{}", self.author, self.written.len());
        let list = self.list().unwrap();
        let (document, text, bytes) = (self.document.clone(), word.clone(), bytes.to_vec());
        let mut saving: Saving = Box::pin(async move {
            let edit = document.change(|tx| {
                let end = tx.length(&list);
                tx.insert(&list, end, text.as_str())?;
                if !bytes.is_empty() {
                    tx.put(ROOT, "bytes", ScalarValue::Bytes(bytes))?;
                }
                Ok(())
            });
            edit.await
        });
        // The edit is made at the first look, and saved by the steps of the simulation.
        let mut cx = Context::from_waker(Waker::noop());
        assert!(saving.as_mut().poll(&mut cx).is_pending());
        self.saving.push(saving);
        self.written.insert(word);
    }

    /// What this peer wrote; all of it is saved by now.
    pub(crate) fn written(&mut self) -> &BTreeSet<String> {
        let mut cx = Context::from_waker(Waker::noop());
        for mut saving in self.saving.drain(..) {
            match saving.as_mut().poll(&mut cx) {
                Poll::Ready(done) => _ = done.unwrap(),
                Poll::Pending => panic!("an edit is not saved yet"),
            }
        }
        &self.written
    }

    /// All words in this copy, in order.
    pub(crate) fn words(&self) -> Vec<String> {
        let Some(list) = self.list() else { return Vec::new() };
        let read = self.document.read(|doc| {
            let items = doc.list_range(&list, ..);
            items.map(|item| item.value.into_value().into_string().unwrap()).collect()
        });
        read.unwrap()
    }

    /// As [`Log::words`], for a copy that has each once.
    pub(crate) fn set(&self) -> BTreeSet<String> {
        let words = self.words();
        let count = words.len();
        let set: BTreeSet<_> = words.into_iter().collect();
        assert_eq!(set.len(), count, "{}: a word is there twice", self.author);
        set
    }

    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.document.heads().unwrap() == other.document.heads().unwrap()
    }

    fn list(&self) -> Option<automerge::ObjId> {
        self.document.read(|doc| doc.get(ROOT, "log").unwrap().map(|(_, id)| id)).ok().flatten()
    }
}

/// Waits until all copies are alike, confirmed by the relay, and hold every word of every author
/// once; how long that took.
pub(crate) fn converge(world: &mut World, logs: &mut [&mut Log], within: Duration) -> Duration {
    let took = world.until_or(within, || {
        let alike = logs.iter().all(|log| log.is_like(logs[0]));
        alike && logs.iter().all(|log| log.document.confirmed())
    });
    let took = took.unwrap_or_else(|| {
        for log in logs.iter() {
            let (words, heads) = (log.words().len(), log.document.heads());
            eprintln!("{} {words} {heads:?} {}", log.author, log.document.confirmed());
        }
        panic!("not alike and confirmed within {within:?}");
    });
    let all: BTreeSet<String> = logs.iter_mut().flat_map(|log| log.written().clone()).collect();
    for log in logs {
        assert_eq!(log.set(), all, "in the copy of {}", log.author);
    }
    took
}

/// Bytes that do not compress.
pub(crate) fn noise(seed: u32, len: u32) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}
