//! What a relay refuses of honest users, and what they do about it.

use concord::{
    peer::{
        DeadLetter, LetterError, LetterState,
        simulation::{self, TakenOut},
    },
    replica::{Kind, RowKey, RowWrite, StorageFailure},
    store::DocumentKey,
};
use concord_protocol::{ChangeHash, DocumentId};
use futures_util::FutureExt as _;

use super::{MS, NodeId, World, node::Writing, short};
use crate::{
    coverage::State,
    ledger::Invariant,
    plan::{Keep, Name},
    random::fate,
};

/// Times that all who have letters decide one of them, at the end.
const ROUNDS_MAX: u32 = 300;

/// Milliseconds after a disk was ill in which an edit may wait for it to be tried again.
const ILL_MS: u64 = 30_000;

impl World<'_> {
    /// What a relay refused of a user and is in the document.
    fn open_letters(&mut self, id: NodeId) -> Vec<DeadLetter> {
        let peer = self.nodes[id].process.as_mut().and_then(|process| process.brain.as_peer());
        let letters = peer.map(|peer| peer.dead_letters()).unwrap_or_default().into_iter();
        letters.filter(|letter| matches!(letter.state, LetterState::Open { .. })).collect()
    }

    /// A user takes one of them out.
    pub(super) fn discard(&mut self, peer: u8, which: u8) {
        let id = self.node_of(Name::Peer(peer));
        if self.nodes[id].paused_until_us > self.now_us {
            return;
        }
        let letters = self.open_letters(id);
        if let Some(letter) = letters.get(usize::from(which) % letters.len().max(1)) {
            self.take_out(id, letter);
        }
    }

    fn take_out(&mut self, id: NodeId, letter: &DeadLetter) {
        let now = self.nodes[id].now(self.now_us);
        let Some(process) = &mut self.nodes[id].process else { return };
        let Some(peer) = process.brain.as_peer() else { return };
        let begun = peer.discard(now, &letter.document, letter.change);
        self.did(id, || format!("takes out {}: {begun:?}", short(&letter.change)));
        self.carry_out(id);
    }

    /// A user has the relay asked once more.
    pub(super) fn retry(&mut self, peer: u8, which: u8) {
        let id = self.node_of(Name::Peer(peer));
        if self.nodes[id].paused_until_us > self.now_us {
            return;
        }
        let now = self.nodes[id].now(self.now_us);
        let letters = self.open_letters(id);
        let Some(letter) = letters.get(usize::from(which) % letters.len().max(1)) else { return };
        let Some(process) = &mut self.nodes[id].process else { return };
        let Some(peer) = process.brain.as_peer() else { return };
        peer.retry(now, letter.document.clone());
        self.carry_out(id);
    }

    /// What is to become of a document is put down before it is done.
    pub(super) fn write_journal(
        &mut self,
        id: NodeId,
        rows: Option<(DocumentId, Vec<RowWrite>)>,
        journal: RowWrite,
    ) {
        let Some(process) = &mut self.nodes[id].process else { return };
        let store = std::sync::Arc::clone(&process.store);
        let first =
            rows.map(|(document, rows)| store.write(DocumentKey::outbox(Some(document)), rows));
        let is_begun = matches!(journal, RowWrite::Put(..));
        let then = store.write(DocumentKey::outbox(None), vec![journal]);
        let both = async move {
            let first = match first {
                Some(first) => first.await,
                None => Ok(()),
            };
            then.await.and(first)
        };
        process.writes.push_back((Writing::Journal, Box::pin(both)));
        if is_begun {
            let taking_out = process.brain.as_peer().and_then(|peer| peer.taking_out());
            self.nodes[id].taking_out =
                taking_out.map(|(document, out)| (self.document_number(&document), out));
        }
        self.flush(id);
    }

    /// Takes in what the peer says of changes that were taken out.
    pub(super) fn hear_of_taken_out(&mut self, id: NodeId) {
        loop {
            let Some(process) = &mut self.nodes[id].process else { return };
            let Some(peer) = process.brain.as_peer() else { return };
            let Some((change, result)) = peer.poll_discard() else { return };
            match result {
                Ok(out) => {
                    let taking_out = &mut self.nodes[id].taking_out;
                    let taken = taking_out.take_if(|(_, out)| out.change == change);
                    let Some((document, _)) = taken else {
                        let detail =
                            format!("{} is out, and nobody wrote that down", short(&change));
                        return self.broken(Invariant::Durability, detail);
                    };
                    self.is_out(id, document, &out);
                }
                Err(LetterError::NotNow { reason, .. }) => {
                    self.nodes[id].taking_out.take_if(|(_, out)| out.change == change);
                    self.did(id, || format!("{} stays: {reason}", short(&change)));
                }
                // The next start looks at what became of it.
                Err(error) => {
                    self.met(State::UserToldOfDisk);
                    self.store_failed(id, &StorageFailure::Passing(error.to_string()));
                }
            }
        }
    }

    /// A change is out of a document, what was made after it is written again, and what it was is kept.
    fn is_out(&mut self, id: NodeId, document: u8, out: &TakenOut) {
        self.met(State::TakenOut);
        self.did(id, || format!("{} is out of document {document}", short(&out.change)));
        self.ledger.took_out(id, out.change);
        let is_again = |hash: &ChangeHash| out.rewritten.iter().any(|(was, _)| was == hash);
        // All that they did is gone with it, and their user was told how much that is.
        for hash in out.lost.keys().filter(|hash| !is_again(hash)) {
            self.ledger.took_out(id, *hash);
        }
        for (was, now) in &out.rewritten {
            self.met(State::WrittenAgain);
            self.ledger.wrote_again(id, *was, *now);
        }
        self.ledger.letters.push((id, document, out.change));
    }

    /// What was taken out of documents is kept beside them, and it is known that it is.
    pub(super) fn check_letters(&mut self) {
        for (id, document, change) in self.ledger.letters.clone() {
            let name = self.documents[usize::from(document)].clone();
            let Some(process) = &mut self.nodes[id].process else { continue };
            let row = RowKey { kind: Kind::Change, id: change.0, part: 0 };
            let read = process.store.read(DocumentKey::outbox(Some(name)), vec![row]);
            let is_kept =
                matches!(read.now_or_never(), Some(Ok(rows)) if rows.iter().any(Option::is_some));
            let letters = process.brain.as_peer().map(|peer| peer.dead_letters());
            let is_listed = letters.iter().flatten().any(|letter| letter.change == change);
            if !is_kept || !is_listed {
                let detail = format!(
                    "{} was taken out of document {document}, and what it was is not {}",
                    short(&change),
                    if is_kept { "listed" } else { "kept" }
                );
                return self.broken(Invariant::NoSilentLoss, detail);
            }
        }
    }

    /// Before anything else a start does what an earlier one put down. Gives whether it could.
    pub(super) fn finish_taking_out(&mut self, id: NodeId) -> bool {
        let Some(process) = &mut self.nodes[id].process else { return false };
        let store = std::sync::Arc::clone(&process.store);
        let mut finishing = Box::pin(async move { simulation::finish(&*store).await });
        let finished = loop {
            match finishing.as_mut().now_or_never() {
                Some(finished) => break finished,
                None => process.committer.commit(usize::MAX),
            }
        };
        if let Err(error) = finished {
            self.store_failed(id, &StorageFailure::from(error));
            return false;
        }
        let Some((document, out)) = self.nodes[id].taking_out.take() else { return true };
        let Ok(found) = self.stored(id, document) else { return true };
        if !found.contains(&out.change) {
            self.met(State::TakenOutByStart);
            self.is_out(id, document, &out);
        }
        true
    }

    /// In some worlds relays take everything in the end.
    pub(super) fn widen(&mut self) {
        if self.plan.settings.narrow_bytes == 0 || fate(self.plan.seed, 0x1DE, 0).is_multiple_of(2)
        {
            return;
        }
        self.is_wide = true;
        for relay in 0..self.plan.relays {
            let id = self.node_of(Name::Relay(relay));
            if self.nodes[id].is_up() {
                self.end(id, Keep::Everything);
                self.cut_all(id, false);
                self.schedule(self.now_us, super::Happening::Start(id));
            }
        }
    }

    /// Whoever has something in a document that no relay takes decides, until nobody has.
    pub(super) fn decide_letters(&mut self) {
        if self.plan.settings.narrow_bytes == 0 {
            return;
        }
        for _ in 0..ROUNDS_MAX {
            let mut is_open = false;
            for id in 0..self.nodes.len() {
                let Some(letter) = self.open_letters(id).into_iter().next() else { continue };
                if self.is_wide {
                    let detail = format!("{letter:?} is not taken, and could be");
                    return self.broken(Invariant::Progress, detail);
                }
                is_open = true;
                let document = self.document_number(&letter.document);
                self.open_document(id, document);
                self.run_until(self.now_us + 1_000 * MS);
                self.take_out(id, &letter);
            }
            if !is_open || self.failure.is_some() {
                return;
            }
            self.run_until(self.now_us + 5_000 * MS);
            self.come_together();
        }
        self.broken(Invariant::Progress, "somebody could never take a change out".to_owned());
    }

    /// An edit that has not returned waits for its own disk, and for nothing else.
    pub(super) fn check_waiting(&mut self, id: NodeId) {
        let node = &self.nodes[id];
        let is_ill = self.now_us < node.disk_was_ill_us + ILL_MS * MS || node.is_rotten;
        let Some(process) = &node.process else { return };
        let calls = process.author.calls.len() + process.user.calls();
        let is_at_work = !process.writes.is_empty()
            || !process.operations.is_empty()
            || !node.inbox.is_empty()
            || node.taking_out.is_some();
        if calls > 0 && !is_at_work && !is_ill && !process.has_failed {
            let who = node.label();
            let detail = format!("{calls} edits of {who} wait, and its disk has nothing to do");
            self.broken(Invariant::LocalFirst, detail);
        }
    }

    /// Whether what was refused once was taken in the end.
    pub(super) fn note_taken(&mut self, hash: &ChangeHash) {
        if self.ledger.was_large(hash) {
            self.met(State::LetterTaken);
        }
    }
}
