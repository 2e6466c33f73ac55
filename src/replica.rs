//! The replica: a sans-I/O engine that relays documents at the level of their change graph.
//!
//! Events go in, effects come out; time is an argument. Any number of calls of
//! [`Replica::handle`], then [`Replica::poll_effect`] until it gives `None`: what is to be sent
//! is made when it is polled, so that everything that was handled together is sent together.
//!
//! No clock, socket, file, thread, randomness or hash-map order is in here, so the same code
//! runs in production and in a simulation. Two rules hold everywhere:
//! - Heads that are named to anybody are on disk.
//! - Nothing is dropped in silence: what is not taken is refused to its writer, and what cannot
//!   be stored closes the connection, so that its writer sends it again.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod admission;
mod config;
mod confirmed;
mod core;
mod document;
mod event;
mod graph;
mod heads;
mod holding;
pub mod index;
mod jobs;
mod leases;
mod loading;
mod meta;
mod orphans;
mod outgoing;
mod presence;
mod purge;
mod reader;
mod readers;
mod receive;
mod refused;
mod salvage;
mod silence;
mod snapshots;
mod strict;
mod uploads;
mod writers;

/// What earlier versions did, for simulations.
#[cfg(feature = "simulation")]
pub mod simulation {
    pub use super::meta::in_first_format;
}

use std::collections::BTreeMap;

use concord_protocol::{ChangeHash, DocumentId, Message};
pub use config::*;
pub use event::*;

use self::{
    core::{Core, Wake},
    document::{Document, Inbound},
};

/// The engine.
#[derive(Debug)]
pub struct Replica {
    core: Core,
    /// Boxed, so that the map's nodes, which have room for eleven, stay small.
    documents: BTreeMap<DocumentId, Box<Document>>,
}

/// What a replica holds in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Documents in memory.
    pub documents: usize,
    /// Connections.
    pub connections: usize,
    /// Bytes of chunks in memory.
    pub chunk_bytes: usize,
    /// Bytes sent but not yet drained, all connections.
    pub queued_bytes: usize,
    /// Changes waiting for their dependencies.
    pub orphans: usize,
    /// Background jobs at work.
    pub jobs: usize,
    /// Documents in memory with changes that were passed on and that no worker has checked yet.
    pub unchecked: usize,
}

/// What a connection has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Open {
    /// Documents that it subscribed to.
    pub documents: usize,
    /// Those of them in which it showed itself in the last [`PRESENT_MS`].
    pub present: usize,
}

impl Replica {
    /// A replica with nothing in memory.
    pub fn new(config: Config) -> Self {
        Self { core: Core::new(config), documents: BTreeMap::new() }
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Now, event: Event) {
        self.core.now = now;
        match event {
            Event::Connected(connection, info) => self.core.connect(connection, info),
            Event::Received(connection, message) => self.received(connection, message),
            Event::Drained(connection, bytes) => {
                let ready = self.core.drained(connection, bytes);
                self.core.dirty.extend(ready);
            }
            Event::Disconnected(connection) => self.disconnected(connection),
            Event::Loaded(ticket, stored) => self.answered(ticket, |document, core| {
                document.loaded(core, ticket, stored);
            }),
            Event::Read(ticket, rows) => self.answered(ticket, |document, core| {
                if document.jobs.snapshot_read.is_some_and(|(read, _)| read == ticket) {
                    document.snapshot_read(core, rows);
                } else if let Some(read) =
                    document.pages.take_if(|read| read.ticket == Some(ticket))
                {
                    document.pages_read(core, read, rows);
                }
            }),
            Event::Stored(ticket, result) => self.answered(ticket, |document, core| {
                document.stored(core, ticket, result);
            }),
            Event::WorkDone(ticket, result) => self.answered(ticket, |document, core| {
                document.work_done(core, ticket, result);
            }),
            Event::LocalChange(ticket, document, bytes) => {
                self.local_change(ticket, document, bytes);
            }
            Event::Purge { ticket, document, heads, leaving } => {
                let (core, document) = self.document(document);
                document.push(core, Inbound::Purge(ticket, heads, leaving));
            }
            Event::SyncWith(connection, document) => self.sync_with(connection, document),
            Event::Unsubscribe(connection, document) => self.unsubscribe(connection, &document),
            Event::Resend(document) => self.resend(&document),
            Event::Hold(document) => _ = self.core.held.insert(document),
            Event::Release(document) => {
                if self.core.held.remove(&document) {
                    self.core.dirty.insert(document);
                }
            }
            Event::Broadcast { document, count, session, data } => {
                let us = self.core.config.us.clone();
                if let Some(document) = self.documents.get_mut(&document) {
                    document.ephemeral(&mut self.core, None, &us, count, &session, &data);
                }
            }
            Event::Open(document) => {
                let dialled: Vec<ConnectionId> = self
                    .core
                    .connections
                    .iter()
                    .filter(|(_, connection)| connection.info.dialled)
                    .map(|(connection, _)| *connection)
                    .collect();
                for connection in dialled {
                    self.sync_with(connection, document.clone());
                }
                let (core, document) = self.document(document);
                document.push(core, Inbound::Open);
            }
            Event::Shut(document) => {
                if let Some(document) = self.documents.get_mut(&document) {
                    document.shut();
                }
            }
            Event::Numbered(number) => self.core.leases.numbered(now.mono_ms, number),
            Event::TimerFired => self.core.timer_fired(),
            Event::Drain => self.drain(),
        }
        self.wake();
    }

    /// Gives the next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        loop {
            if let Some(effect) = self.core.next_effect() {
                return Some(effect);
            }
            let Some(document) = self.core.dirty.pop_first() else {
                return self.core.arm();
            };
            if let Some(document) = self.documents.get_mut(&document) {
                document.flush(&mut self.core);
            }
        }
    }

    /// Whether a connection has a document.
    pub fn follows(&self, connection: ConnectionId, document: &DocumentId) -> bool {
        let state = self.core.connections.get(&connection);
        state.is_some_and(|state| state.documents.contains(document))
    }

    /// Whether a connection has a document, or may have one more. Of others, a relay that we dialled
    /// is told nothing.
    pub fn has_room(&self, connection: ConnectionId, document: &DocumentId) -> bool {
        let documents_max = self.core.config.limits.documents_per_connection;
        self.documents_of(connection) < documents_max || self.follows(connection, document)
    }

    /// How many documents a connection has.
    pub fn documents_of(&self, connection: ConnectionId) -> usize {
        self.core.connections.get(&connection).map_or(0, |state| state.documents.len())
    }

    /// Whether a change is in a document, where that is known without reading: `None` if it is not.
    pub fn holds(&self, document: &DocumentId, change: &ChangeHash) -> Option<bool> {
        let graph = self.documents.get(document)?.graph()?;
        graph.position(change).ok().map(|position| position.is_some())
    }

    /// What a connection has open, for whoever wants to know who is here.
    pub fn open_over(&self, connection: ConnectionId) -> Option<Open> {
        let state = self.core.connections.get(&connection)?;
        let documents = state.documents.len();
        Some(Open { documents, present: self.core.present(state) })
    }

    /// The heads of a document that are on disk, if it is in memory.
    pub fn durable_heads(&self, document: &DocumentId) -> Option<Vec<ChangeHash>> {
        let graph = self.documents.get(document)?.graph()?;
        Some(graph.durable_heads().iter().copied().collect())
    }

    /// What is in memory, for metrics.
    pub fn stats(&self) -> Stats {
        Stats {
            documents: self.documents.values().filter(|document| document.is_resident()).count(),
            connections: self.core.connections.len(),
            chunk_bytes: self.documents.values().map(|document| document.chunk_bytes()).sum(),
            queued_bytes: self.core.queued_bytes(),
            orphans: self.documents.values().map(|document| document.orphans.len()).sum(),
            jobs: self.core.jobs,
            unchecked: self.documents.values().filter(|document| document.is_unchecked()).count(),
        }
    }

    /// The document of this name, made if it was not known, and what all documents share.
    fn document(&mut self, id: DocumentId) -> (&mut Core, &mut Document) {
        let document =
            self.documents.entry(id).or_insert_with_key(|id| Box::new(Document::new(id.clone())));
        (&mut self.core, document)
    }

    fn answered(&mut self, ticket: Ticket, answer: impl FnOnce(&mut Document, &mut Core)) {
        let Some(id) = self.core.redeem(ticket) else {
            return;
        };
        let Some(document) = self.documents.get_mut(&id) else {
            return;
        };
        answer(document, &mut self.core);
        if document.is_forgotten() {
            self.documents.remove(&id);
        }
    }

    fn disconnected(&mut self, connection: ConnectionId) {
        let Some(state) = self.core.disconnect(connection) else {
            return;
        };
        for id in state.documents {
            let Some(document) = self.documents.get_mut(&id) else {
                continue;
            };
            mark!(LostDuringRead, if document.jobs.snapshot_read.is_some()
                || document.jobs.extract.as_ref().is_some_and(|extract| extract.ticket.is_some()));
            mark!(LostWithSnapshot, of (&state.info.peer, &id), if document
                .jobs
                .snapshot
                .as_ref()
                .is_some_and(|sent| state.queued_bytes >= sent.len()));
            document.readers.remove(&connection);
            self.has_fewer_readers(&id);
        }
    }

    /// A connection has a document no more.
    fn lost_reader(&mut self, connection: ConnectionId, id: &DocumentId) {
        if let Some(state) = self.core.connections.get_mut(&connection) {
            state.held_back.remove(id);
        }
        if let Some(document) = self.documents.get_mut(id) {
            document.readers.remove(&connection);
            self.has_fewer_readers(id);
        }
    }

    fn has_fewer_readers(&mut self, id: &DocumentId) {
        if self.documents.get(id).is_some_and(|document| document.is_forgotten()) {
            self.documents.remove(id);
        } else {
            // Somebody may wait for what it was about to send.
            self.core.dirty.insert(id.clone());
        }
    }

    /// Stops saying anything of documents, so that no client is in the middle of a message when
    /// its socket closes.
    fn drain(&mut self) {
        self.core.draining = true;
        mark!(DrainedBusy, if self.core.queued_bytes() > 0 || self.core.jobs > 0);
        let concord: Vec<ConnectionId> = self
            .core
            .connections
            .iter()
            .filter(|(_, connection)| connection.info.concord)
            .map(|(connection, _)| *connection)
            .collect();
        for connection in concord {
            let sender = self.core.config.us.clone();
            let message = Message::GoAway { sender, retry_after_ms: GO_AWAY_RETRY_MS };
            self.core.send_message(connection, &message);
        }
    }

    /// Does what the time has come for.
    fn wake(&mut self) {
        self.core.close_stalled();
        self.look_at_leases();
        while let Some((id, wake)) = self.core.due() {
            let Some(document) = self.documents.get_mut(&id) else {
                self.core.pass_on();
                continue;
            };
            match wake {
                Wake::Confirm => {
                    document.confirm_set = false;
                    for reader in document.readers.values_mut() {
                        reader.dirty = true;
                        reader.confirm = true;
                    }
                }
                Wake::Arrival => {
                    document.arrival_set = false;
                    mark!(ArrivalTimedOut, if document.graph().is_some_and(graph::Graph::is_empty)
                        && document.readers.values().any(|reader| reader.asks));
                    mark!(ArrivalCame, if document.graph().is_some_and(|graph| !graph.is_empty()));
                    document.say_unavailable(&mut self.core);
                }
                Wake::Check => {
                    document.try_again(&mut self.core);
                    document.start_upload(&mut self.core);
                    document.check_due(&mut self.core);
                    document.consider_background(&mut self.core);
                    if !document.inbox.is_empty() {
                        document.drive(&mut self.core);
                    }
                    self.core.pass_on();
                }
                Wake::Silence => document.break_silence(&self.core),
                Wake::Idle => document.idle(&mut self.core),
            }
            if document.is_forgotten() {
                self.documents.remove(&id);
            } else {
                self.core.dirty.insert(id);
            }
        }
    }
}
