//! A process at work: it takes in what waits, and what it asks for is done.

use concord::{
    peer::simulation::PeerInput,
    replica::{Event, LocalError, RowWrite, StorageFailure, Ticket},
    store::DocumentKey,
};
use concord_protocol::DocumentId;

use super::{
    Happening, MS, NodeId, World,
    brain::{News, Wish},
    node::{Operation, Writing},
};
use crate::{
    coverage::State,
    ledger::{Fate, Invariant},
    random::fate,
};

impl World<'_> {
    /// Takes in what waits, and does what comes of it.
    pub(super) fn wake(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        if node.paused_until_us > self.now_us {
            let at_us = node.paused_until_us;
            self.schedule(at_us, Happening::Wake(id));
            return;
        }
        node.is_woken = false;
        let now = node.now(self.now_us);
        let events = std::mem::take(&mut node.inbox);
        let Some(process) = &mut node.process else {
            return;
        };
        self.trace.mix(events.len() as u64);
        for event in events {
            if let News::Event(Event::Disconnected(connection)) = &event {
                process.connections.remove(connection);
            }
            process.brain.handle(now, event);
        }
        self.carry_out(id);
    }

    /// Does what the engine asks for, until it asks for nothing.
    pub(super) fn carry_out(&mut self, id: NodeId) {
        loop {
            let Some(process) = &mut self.nodes[id].process else {
                return;
            };
            let Some(wish) = process.brain.poll() else {
                if self.is_author(id) {
                    self.hear_author(id);
                    self.check_recalled_outbox(id);
                }
                return;
            };
            match wish {
                Wish::Send(to, bytes) => self.send(id, to, &bytes),
                Wish::Close(to, code, reason) => self.close(id, to, code, reason),
                Wish::Load(ticket, document) => {
                    let future = process.store.load(super::storage::key(document));
                    self.operation(id, Operation::Load(ticket, future));
                }
                Wish::Read(ticket, document, rows) => {
                    let future = process.store.read(super::storage::key(document), rows);
                    self.operation(id, Operation::Read(ticket, future));
                }
                Wish::Write(ticket, document, rows) => self.write(id, ticket, document, rows),
                Wish::Work(ticket, document, job) => {
                    self.operation(id, Operation::Job(ticket, document, job));
                }
                Wish::SetTimer(at_ms) => {
                    process.timer_ms = Some(at_ms);
                    let at_us = process.started_us + at_ms.saturating_sub(1) * MS;
                    let life = self.nodes[id].life;
                    self.schedule(at_us, Happening::Timer(id, life, at_ms));
                }
                Wish::LocalDone(ticket, result) => self.local_done(id, ticket, result),
                Wish::Publish(document, published) => self.published(id, &document, published),
                Wish::Count(counted) => self.counted(id, counted),
                Wish::List(connection, after) => {
                    self.operation(id, Operation::List(connection, after));
                }
                Wish::Note(document, rows) => self.write_note(id, document, rows),
                Wish::Journal(rows, journal) => self.write_journal(id, rows, journal),
                Wish::ReadNotes(after) => self.operation(id, Operation::Notes(after)),
                Wish::ListForOutbox(after) => {
                    self.operation(id, Operation::ListForOutbox(after));
                }
                Wish::Apply(apply) => {
                    process.applying.push_back(apply);
                    self.operation(id, Operation::Apply);
                }
            }
            if self.failure.is_some() {
                return;
            }
        }
    }

    fn write_note(&mut self, id: NodeId, document: Option<DocumentId>, rows: Vec<RowWrite>) {
        if self.is_earlier_version(id) {
            // It kept no outbox.
            return self.tell_news(id, News::Peer(PeerInput::Noted(document, Ok(()))));
        }
        let Some(process) = &mut self.nodes[id].process else { return };
        let future = process.store.write(DocumentKey::outbox(document.clone()), rows);
        process.writes.push_back((Writing::Note(document), future));
        self.flush(id);
    }

    pub(super) fn timer(&mut self, id: NodeId, life: u32, at_ms: u64) {
        let node = &mut self.nodes[id];
        let current = node.life == life;
        if let Some(process) = &mut node.process
            && current
            && process.timer_ms == Some(at_ms)
        {
            process.timer_ms = None;
            self.tell(id, Event::TimerFired);
        }
    }

    fn local_done(&mut self, id: NodeId, ticket: Ticket, result: Result<(), LocalError>) {
        let Some(process) = &mut self.nodes[id].process else {
            return;
        };
        let Some((document, hash)) = process.user.answered(ticket) else {
            self.broken(Invariant::AtMostOnce, "a call returned twice".to_owned());
            return;
        };
        match result {
            Ok(()) => {
                if !process.on_disk.contains(&hash) {
                    let detail =
                        format!("a call returned for {} which is not on disk", super::short(&hash));
                    return self.broken(Invariant::Durability, detail);
                }
                self.ledger.settle(hash, Fate::Promised);
            }
            Err(LocalError::Storage(reason)) => {
                self.ledger.settle(hash, Fate::Unknown);
                self.met(State::UserToldOfDisk);
                self.store_failed(id, &reason);
            }
            Err(LocalError::Refused { code, reason }) => {
                self.ledger.settle(hash, Fate::Refused);
                if process.has_failed || self.nodes[id].is_rotten {
                    // It builds on what could not be written or is damaged, and its user was told.
                    self.met(State::RefusedAtHome);
                    self.shut_document(id, document);
                    self.open_document(id, document);
                    return;
                }
                let detail = format!(
                    "an honest change of document {document} was refused at home ({}): {reason}",
                    code.as_str()
                );
                self.broken(Invariant::NoSilentLoss, detail);
            }
            Err(other) => self.broken(Invariant::NoSilentLoss, other.to_string()),
        }
    }

    /// After a failed write nothing can be promised any more: the process is started again.
    pub(super) fn store_failed(&mut self, id: NodeId, reason: &StorageFailure) {
        self.did(id, || format!("ends because its store failed: {reason}"));
        self.met(State::StoreFailed);
        let life = self.nodes[id].life;
        let down_us = 2_000 * MS;
        // Until it has ended, it goes on with a store that refuses everything.
        let ends_us = 1 + fate(self.plan.seed, 0xE2D + id as u64, self.now_us) % (20 * MS);
        self.schedule(self.now_us + ends_us, Happening::Stop(id, life, down_us));
    }
}
