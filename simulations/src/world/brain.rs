//! What thinks in a node: the engine alone, or the production peer around it.

use std::time::Duration;

use concord::{
    peer::simulation::{Apply, PeerAction, PeerInput, SimulatedPeer},
    replica::{
        Config, ConnectionId, Counted, Effect, Event, Job, LocalError, Now, Published, Replica,
        RowKey, RowWrite, Stats, Ticket,
    },
};
use concord_protocol::{CloseCode, DocumentId};

use bytes::Bytes;

/// See the module.
pub(super) enum Brain {
    /// A relay, or a peer of the opaque profile.
    Engine(Box<Replica>),
    /// A peer of the Automerge profile.
    Peer(Box<SimulatedPeer>),
}

/// What it wants done.
pub(super) enum Wish {
    Send(ConnectionId, Bytes),
    Close(ConnectionId, CloseCode, String),
    Load(Ticket, DocumentId),
    Read(Ticket, DocumentId, Vec<RowKey>),
    Write(Ticket, DocumentId, Vec<RowWrite>),
    Work(Ticket, DocumentId, Job),
    SetTimer(u64),
    Count(Counted),
    /// Of the engine alone.
    LocalDone(Ticket, Result<(), LocalError>),
    /// Of the engine alone.
    Publish(DocumentId, Published),
    /// Of the peer.
    List(ConnectionId, Option<DocumentId>),
    /// Of the peer.
    Note(Option<DocumentId>, Vec<RowWrite>),
    /// Of the peer.
    Journal(Option<(DocumentId, Vec<RowWrite>)>, RowWrite),
    /// Of the peer.
    ReadNotes(Option<DocumentId>),
    /// Of the peer.
    ListForOutbox(Option<DocumentId>),
    /// Of the peer.
    Apply(Apply),
}

/// What a node is told.
#[derive(Debug)]
pub(super) enum News {
    /// For both kinds; of a peer only what its surroundings say.
    Event(Event),
    /// For a peer.
    Peer(PeerInput),
}

impl Brain {
    pub(super) fn engine(config: Config) -> Self {
        Self::Engine(Box::new(Replica::new(config)))
    }

    pub(super) fn peer(config: Config, seed: [u8; 32], debounce: (Duration, Duration)) -> Self {
        Self::Peer(Box::new(SimulatedPeer::with(config, seed, debounce, None)))
    }

    pub(super) fn handle(&mut self, now: Now, news: News) {
        match (self, news) {
            (Self::Engine(engine), News::Event(event)) => engine.handle(now, event),
            (Self::Peer(peer), News::Peer(input)) => peer.handle(now, input),
            (Self::Peer(peer), News::Event(event)) => {
                if let Some(input) = input(event) {
                    peer.handle(now, input);
                }
            }
            (Self::Engine(_), News::Peer(_)) => {}
        }
    }

    pub(super) fn poll(&mut self) -> Option<Wish> {
        match self {
            Self::Engine(engine) => engine.poll_effect().map(Wish::from),
            Self::Peer(peer) => peer.poll().map(Wish::from),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        match self {
            Self::Engine(engine) => engine.stats(),
            Self::Peer(peer) => peer.stats(),
        }
    }

    pub(super) fn as_peer(&mut self) -> Option<&mut SimulatedPeer> {
        match self {
            Self::Engine(_) => None,
            Self::Peer(peer) => Some(peer),
        }
    }
}

/// An event as the peer takes it; it has calls of its own for what programs do.
fn input(event: Event) -> Option<PeerInput> {
    Some(match event {
        Event::Connected(id, info) => PeerInput::Connected(id, info),
        Event::Received(id, message) => PeerInput::Received(id, message),
        Event::Drained(id, bytes) => PeerInput::Drained(id, bytes),
        Event::Disconnected(id) => PeerInput::Disconnected(id),
        Event::Loaded(ticket, loaded) => PeerInput::Loaded(ticket, loaded),
        Event::Read(ticket, read) => PeerInput::Read(ticket, read),
        Event::Stored(ticket, stored) => PeerInput::Stored(ticket, stored),
        Event::WorkDone(ticket, done) => PeerInput::WorkDone(ticket, done),
        Event::TimerFired => PeerInput::TimerFired,
        Event::Broadcast { document, count, session, data } => {
            PeerInput::Broadcast { document, count, session, data }
        }
        _ => return None,
    })
}

impl From<Effect> for Wish {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Send(to, bytes) => Self::Send(to, bytes),
            Effect::Close(to, code, reason) => Self::Close(to, code, reason),
            Effect::Load(ticket, document) => Self::Load(ticket, document),
            Effect::Read(ticket, document, rows) => Self::Read(ticket, document, rows),
            Effect::Write(ticket, document, rows) => Self::Write(ticket, document, rows),
            Effect::Work(ticket, document, job) => Self::Work(ticket, document, job),
            Effect::SetTimer(at_ms) => Self::SetTimer(at_ms),
            Effect::LocalDone(ticket, result) => Self::LocalDone(ticket, result),
            Effect::Publish(document, published) => Self::Publish(document, published),
            Effect::Count(counted) => Self::Count(counted),
        }
    }
}

impl From<PeerAction> for Wish {
    fn from(action: PeerAction) -> Self {
        match action {
            PeerAction::Send(to, bytes) => Self::Send(to, bytes),
            PeerAction::Close(to, code, reason) => Self::Close(to, code, reason),
            PeerAction::Load(ticket, document) => Self::Load(ticket, document),
            PeerAction::Read(ticket, document, rows) => Self::Read(ticket, document, rows),
            PeerAction::Write(ticket, document, rows) => Self::Write(ticket, document, rows),
            PeerAction::Work(ticket, document, job) => Self::Work(ticket, document, job),
            PeerAction::SetTimer(at_ms) => Self::SetTimer(at_ms),
            PeerAction::Count(counted) => Self::Count(counted),
            PeerAction::List(connection, after) => Self::List(connection, after),
            PeerAction::Note(document, rows) => Self::Note(document, rows),
            PeerAction::Journal(rows, journal) => Self::Journal(rows, journal),
            PeerAction::ReadNotes(after) => Self::ReadNotes(after),
            PeerAction::ListForOutbox(after) => Self::ListForOutbox(after),
            PeerAction::Apply(apply) => Self::Apply(apply),
        }
    }
}
