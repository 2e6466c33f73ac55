//! One document as a light client sees it: its heads, and which changes came. No contents.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use concord_protocol::{
    ChangeHash, Limits,
    guard::{self, ChunkKind},
    sync::{Have, SyncFlags, SyncMessage, SyncVersion},
};

use super::{
    BenchError,
    changes::{Document, Run},
};

/// Follows one document through the sync protocol.
#[derive(Debug, Default)]
pub(super) struct LightDocument {
    heads: BTreeSet<ChangeHash>,
    /// Changes that are here, the run left out.
    known: HashSet<ChangeHash>,
    /// Changes that came before one that they depend on.
    orphans: Vec<(ChangeHash, Vec<ChangeHash>)>,
    /// Changes that are expected, so that they need no hashing when they come.
    run: Option<Arc<Run>>,
    /// How many of the run are here, from its start.
    delivered: usize,
    /// What the server last said it has.
    theirs: Option<BTreeSet<ChangeHash>>,
    /// What the server was last told: heads and need.
    said: Option<(Vec<ChangeHash>, Vec<ChangeHash>)>,
    /// What the server may still ask for.
    upload: Option<Bytes>,
}

impl LightDocument {
    /// Nothing yet; the changes of `run` are expected.
    pub(super) fn expecting(run: Option<Arc<Run>>) -> Self {
        Self { run, ..Self::default() }
    }

    /// A document that the server does not have yet.
    pub(super) fn holding(document: &Document, run: Option<Arc<Run>>) -> Self {
        Self {
            heads: document.heads.iter().copied().collect(),
            known: document.heads.iter().copied().collect(),
            upload: Some(document.chunk.clone()),
            run,
            ..Self::default()
        }
    }

    /// How many changes of the run are here.
    pub(super) fn delivered(&self) -> usize {
        self.delivered
    }

    /// Whether exactly this was reached.
    pub(super) fn is_at(&self, heads: &[ChangeHash]) -> bool {
        self.heads.len() == heads.len() && heads.iter().all(|head| self.heads.contains(head))
    }

    /// Whether the server said that it has what we have.
    pub(super) fn is_settled(&self) -> bool {
        self.theirs.as_ref() == Some(&self.heads)
    }

    /// The first message of a connection about this document.
    pub(super) fn opening(&mut self) -> SyncMessage {
        self.say()
    }

    /// Writes the next change of the run.
    pub(super) fn write(&mut self) -> Option<SyncMessage> {
        let run = self.run.clone()?;
        let chunk = run.chunks.get(self.delivered)?.clone();
        self.take_next_of_run(&run);
        let mut message = self.say();
        message.changes.push(chunk);
        Some(message)
    }

    /// Takes a message in.
    pub(super) fn receive(
        &mut self,
        message: &SyncMessage,
        limits: &Limits,
    ) -> Result<(), BenchError> {
        let mut whole_document = false;
        for element in &message.changes {
            match message.version {
                SyncVersion::V1 => self.take_change(element, limits)?,
                SyncVersion::V2 => {
                    for chunk in guard::split(element, limits)? {
                        match chunk.kind {
                            ChunkKind::Document => whole_document = true,
                            ChunkKind::Change | ChunkKind::CompressedChange => {
                                self.take_change(&chunk.bytes, limits)?;
                            }
                            ChunkKind::Bundle => {}
                        }
                    }
                }
            }
        }
        if whole_document {
            self.reach(&message.heads);
        }
        self.theirs = Some(message.heads.iter().copied().collect());
        Ok(())
    }

    /// What is to be said after messages were taken in, if anything.
    pub(super) fn answer(&mut self) -> Option<SyncMessage> {
        let theirs = self.theirs.as_ref()?;
        let upload = self.upload.take();
        if let Some(chunk) = upload
            && !self.heads.iter().all(|head| theirs.contains(head))
        {
            let mut message = self.say();
            message.version = SyncVersion::V2;
            message.changes.push(chunk);
            return Some(message);
        }
        let (heads, need) = self.status();
        match &self.said {
            Some((said_heads, said_need)) if *said_heads == heads && *said_need == need => None,
            _ => Some(self.say()),
        }
    }

    fn say(&mut self) -> SyncMessage {
        let (heads, need) = self.status();
        self.said = Some((heads.clone(), need.clone()));
        SyncMessage {
            version: SyncVersion::V1,
            have: vec![Have { last_sync: self.shared(), ..Have::default() }],
            heads,
            need,
            changes: Vec::new(),
            flags: Some(SyncFlags { supports_reset: true, ..SyncFlags::default() }),
        }
    }

    fn status(&self) -> (Vec<ChangeHash>, Vec<ChangeHash>) {
        let waiting = |hash: &ChangeHash| self.orphans.iter().any(|(orphan, _)| orphan == hash);
        let missing = |hash: &&ChangeHash| !self.knows(hash) && !waiting(hash);
        let deps = self.orphans.iter().flat_map(|(_, deps)| deps);
        let need: BTreeSet<ChangeHash> =
            self.theirs.iter().flatten().chain(deps).filter(missing).copied().collect();
        (self.heads.iter().copied().collect(), need.into_iter().collect())
    }

    /// What both sides are known to have. With an upload pending the server has none of it, and
    /// a name that it does not know would make it start over.
    fn shared(&self) -> Vec<ChangeHash> {
        if self.upload.is_some() { Vec::new() } else { self.heads.iter().copied().collect() }
    }

    fn knows(&self, hash: &ChangeHash) -> bool {
        let in_run = |run: &Arc<Run>| run.position(hash).is_some_and(|at| at < self.delivered);
        self.known.contains(hash) || self.run.as_ref().is_some_and(in_run)
    }

    fn take_change(&mut self, chunk: &Bytes, limits: &Limits) -> Result<(), BenchError> {
        if let Some(run) = self.run.clone()
            && run.chunks.get(self.delivered) == Some(chunk)
            && self.holds_base_of_next(&run)
        {
            self.take_next_of_run(&run);
        } else {
            let header = guard::check_change(chunk, limits)?;
            self.take_named(header.hash, header.deps);
        }
        if !self.orphans.is_empty() {
            self.adopt_orphans();
        }
        Ok(())
    }

    /// The run is a chain: its next change builds on the one before, which is here; the first
    /// builds on the document that it is about, which is here once there are heads.
    fn holds_base_of_next(&self, run: &Run) -> bool {
        match self.delivered.checked_sub(1).and_then(|last| run.hashes.get(last)) {
            Some(last) => self.heads.contains(last),
            None => self.heads.len() == 1,
        }
    }

    fn take_next_of_run(&mut self, run: &Run) {
        if let Some(hash) = run.hashes.get(self.delivered) {
            self.heads.clear();
            self.heads.insert(*hash);
            self.delivered += 1;
        }
    }

    fn take_named(&mut self, hash: ChangeHash, deps: Vec<ChangeHash>) {
        if self.knows(&hash) || self.orphans.iter().any(|(orphan, _)| *orphan == hash) {
            return;
        }
        if !deps.iter().all(|dep| self.knows(dep)) {
            self.orphans.push((hash, deps));
            return;
        }
        for dep in &deps {
            self.heads.remove(dep);
        }
        self.heads.insert(hash);
        match self.run.as_ref().and_then(|run| run.position(&hash)) {
            // In a chain, one whose dependency is here is the next.
            Some(position) => self.delivered = position + 1,
            None => {
                self.known.insert(hash);
            }
        }
    }

    fn adopt_orphans(&mut self) {
        while let Some(at) =
            self.orphans.iter().position(|(_, deps)| deps.iter().all(|dep| self.knows(dep)))
        {
            let (hash, deps) = self.orphans.swap_remove(at);
            self.take_named(hash, deps);
        }
    }

    /// A whole document came: what is in it shows only by the heads that came with it.
    fn reach(&mut self, heads: &[ChangeHash]) {
        if heads.iter().all(|head| self.knows(head)) {
            return;
        }
        self.heads = heads.iter().copied().collect();
        self.known.extend(heads);
        if let Some(run) = &self.run {
            let latest = heads.iter().filter_map(|head| run.position(head)).max();
            self.delivered = self.delivered.max(latest.map_or(0, |at| at + 1));
        }
        self.orphans.clear();
    }
}

#[cfg(test)]
mod tests {
    use automerge::{
        Automerge, ReadDoc,
        sync::{Message, State, SyncDoc},
    };

    use super::*;
    use crate::bench::changes::{Typist, typed_document};

    /// A real server: Automerge itself.
    struct Server {
        document: Automerge,
        state: State,
    }

    impl Server {
        fn new() -> Self {
            Self { document: Automerge::new(), state: State::new() }
        }

        fn exchange(&mut self, light: &mut LightDocument, first: SyncMessage) {
            let limits = Limits::default();
            let mut to_server = Some(first);
            for _ in 0..20 {
                if let Some(message) = to_server.take() {
                    let message = Message::decode(&message.encode()).unwrap();
                    self.document.receive_sync_message(&mut self.state, message).unwrap();
                }
                let Some(answer) = self.document.generate_sync_message(&mut self.state) else {
                    return;
                };
                let answer = Bytes::from(answer.encode());
                light.receive(&SyncMessage::decode(&answer, &limits).unwrap(), &limits).unwrap();
                to_server = light.answer();
                if to_server.is_none() {
                    return;
                }
            }
            panic!("no end of messages");
        }
    }

    fn setup(count: usize) -> (Document, Arc<Run>) {
        let (mut typist, document): (Typist, Document) = typed_document(&[3; 16], 20).unwrap();
        (document, Arc::new(Run::generate(&mut typist, count, || ())))
    }

    #[test]
    fn uploads_then_writes() {
        let (document, run) = setup(5);
        let mut server = Server::new();
        let mut light = LightDocument::holding(&document, Some(run.clone()));
        let opening = light.opening();
        server.exchange(&mut light, opening);
        assert!(light.is_settled());
        for hash in &run.hashes {
            let message = light.write().unwrap();
            server.exchange(&mut light, message);
            assert_eq!(server.document.get_heads()[0].0, hash.0);
            assert!(light.is_settled());
        }
        assert!(light.write().is_none());
        let (_, text) = server.document.get(automerge::ROOT, "text").unwrap().unwrap();
        assert_eq!(server.document.length(&text), 25);
    }

    #[test]
    fn fetches_a_document_and_follows_it() {
        let (document, run) = setup(3);
        let mut server = Server::new();
        server.document = Automerge::load(&document.chunk).unwrap();
        let mut light = LightDocument::expecting(Some(run.clone()));
        let opening = light.opening();
        server.exchange(&mut light, opening);
        assert!(light.is_at(&document.heads));
        for (count, chunk) in (1..).zip(&run.chunks) {
            let change = automerge::Change::from_bytes(chunk.to_vec()).unwrap();
            server.document.apply_changes([change]).unwrap();
            let limits = Limits::default();
            let message = server.document.generate_sync_message(&mut server.state).unwrap();
            let message = SyncMessage::decode(&message.encode().into(), &limits).unwrap();
            light.receive(&message, &limits).unwrap();
            assert_eq!(light.delivered(), count);
            let answer = light.answer().unwrap();
            server.exchange(&mut light, answer);
        }
        assert!(light.is_at(&run.hashes[2..]));
    }

    #[test]
    fn changes_out_of_order_wait_and_are_asked_for() {
        let (document, run) = setup(3);
        let limits = Limits::default();
        let mut light = LightDocument::holding(&document, Some(run.clone()));
        light.upload = None;
        let message = |changes: &[usize], heads: usize| SyncMessage {
            version: SyncVersion::V1,
            heads: vec![run.hashes[heads]],
            need: Vec::new(),
            have: Vec::new(),
            changes: changes.iter().map(|at| run.chunks[*at].clone()).collect(),
            flags: None,
        };
        light.receive(&message(&[2, 1], 2), &limits).unwrap();
        assert_eq!(light.delivered(), 0);
        assert_eq!(light.answer().unwrap().need, vec![run.hashes[0]]);
        light.receive(&message(&[0], 2), &limits).unwrap();
        assert_eq!(light.delivered(), 3);
        // Once more changes nothing and needs no answer after the one that is due.
        assert!(light.answer().is_some());
        light.receive(&message(&[0, 1, 2], 2), &limits).unwrap();
        assert_eq!(light.delivered(), 3);
        assert!(light.answer().is_none());
    }
}
