//! Strangers: what they send to relays.

mod attacks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use concord::replica::{ConnectionId, Event, PeerInfo};
use concord_protocol::{
    ChangeHash, DocumentId, Limits, Message, PeerMetadata, codec, sync::SyncMessage,
};

use super::{MS, NodeId, World, short};
use crate::{
    checks::answers::Answers,
    coverage::State,
    ledger::Invariant,
    plan::{Name, Plan},
};

/// Numbers of strangers' connections, out of the way of honest ones.
const FIRST_CONNECTION: u64 = 1 << 40;
/// Microseconds that relays have to answer strangers, once faults have ended.
const ANSWER_US: u64 = 60_000 * MS;
/// Messages of others that are kept to be sent again.
const REMEMBERED_MAX: usize = 64;

/// A change that breaks its document.
#[derive(Debug)]
struct Poison {
    hash: ChangeHash,
    /// What a stranger made on top of it.
    on_top: Vec<ChangeHash>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Strangers {
    /// The connection of the stranger at each relay, with the relay's life.
    connections: BTreeMap<NodeId, (ConnectionId, u32)>,
    next_connection: u64,
    remembered: VecDeque<Message>,
    pub(super) answers: Answers,
    /// Connections of those who read nothing any more.
    deaf: BTreeSet<ConnectionId>,
    /// Changes that break a document, by relay and document: each with those that build on it.
    poisons: BTreeMap<(NodeId, u8), Vec<Poison>>,
}

impl Strangers {
    pub(super) fn new(_: &Plan) -> Self {
        Self {
            connections: BTreeMap::new(),
            next_connection: FIRST_CONNECTION,
            remembered: VecDeque::new(),
            answers: Answers::default(),
            deaf: BTreeSet::new(),
            poisons: BTreeMap::new(),
        }
    }

    pub(super) fn labels(&self) -> Option<String> {
        (self.next_connection > FIRST_CONNECTION).then(|| "stranger".to_owned())
    }
}

impl World<'_> {
    /// Keeps what honest nodes say, for replays.
    pub(super) fn remember_frame(&mut self, to: NodeId, message: &Message) {
        if !self.nodes[to].is_relay() || !matches!(message, Message::Sync { .. }) {
            return;
        }
        let remembered = &mut self.strangers.remembered;
        if remembered.len() == REMEMBERED_MAX {
            remembered.pop_front();
        }
        remembered.push_back(message.clone());
    }

    /// What is sent to a stranger is read, and must be true for it too.
    pub(super) fn send_to_stranger(&mut self, id: NodeId, to: ConnectionId, bytes: &Bytes) {
        if to.0 >= FIRST_CONNECTION {
            for message in codec::decode(bytes, &Limits::default()).unwrap_or_default() {
                self.examine(id, &message);
                self.strangers.answers.told(id, &message);
            }
            if !self.strangers.deaf.contains(&to) {
                self.tell(id, Event::Drained(to, bytes.len()));
            }
        }
    }

    pub(super) fn close_stranger(&mut self, id: NodeId, to: ConnectionId) {
        if to.0 >= FIRST_CONNECTION {
            self.met(State::StrangerClosed);
            self.strangers.connections.remove(&id);
            self.strangers.answers.gone(id);
            self.tell(id, Event::Disconnected(to));
        }
    }

    /// Strangers leave.
    pub(super) fn strangers_leave(&mut self) {
        self.run_until(self.now_us + ANSWER_US);
        self.check_answers();
        for (id, (connection, life)) in std::mem::take(&mut self.strangers.connections) {
            if self.nodes[id].life == life {
                self.tell(id, Event::Disconnected(connection));
            }
        }
    }

    /// Each change of a stranger was taken, waits, or was refused; or there was no room to wait, and
    /// it is to be asked for again.
    fn check_answers(&mut self) {
        for id in (0..self.nodes.len()).filter(|id| self.is_at_rest(*id)) {
            let node = &self.nodes[id];
            let Some(process) = &node.process else { continue };
            let owed = self.strangers.answers.owed(id, node.life);
            let owed = owed.filter(|hash| !process.on_disk.contains(*hash)).count();
            let waiting = process.brain.stats().orphans;
            let has_room = waiting < self.limits().orphans / 2;
            if node.inbox.is_empty() && owed > waiting && has_room {
                let detail = format!(
                    "of a stranger's changes {} neither took nor refused {owed}, and {waiting} wait",
                    node.label()
                );
                return self.broken(Invariant::NoSilentLoss, detail);
            }
            let untold = self
                .withheld_at(id)
                .into_iter()
                .find(|hash| self.strangers.answers.owed(id, node.life).any(|owed| owed == hash));
            if let (Some(hash), false) = (untold, node.is_rotten) {
                let detail = format!(
                    "{} withholds {}, and has not told the stranger who sent it",
                    node.label(),
                    short(&hash)
                );
                return self.broken(Invariant::NoSilentLoss, detail);
            }
        }
    }

    /// Whether a change breaks its document, or builds on one that does.
    pub(super) fn is_spoiled(&self, hash: &ChangeHash) -> bool {
        let poisons = self.strangers.poisons.values().flatten();
        poisons.into_iter().any(|poison| poison.hash == *hash || poison.on_top.contains(hash))
    }

    /// Changes of strangers that a relay withholds, as its disk says.
    fn withheld_at(&self, id: NodeId) -> Vec<ChangeHash> {
        let mut withheld = Vec::new();
        for ((_, document), poisons) in
            self.strangers.poisons.iter().filter(|((relay, _), _)| *relay == id)
        {
            for Poison { hash, on_top } in poisons {
                if self.is_quarantined(id, *document, hash) {
                    withheld.extend(on_top.iter().chain([hash]));
                }
            }
        }
        withheld
    }

    /// A stranger is about to do harm to a relay; where, if it is up.
    fn strike(&mut self, relay: u8, what: &'static str) -> Option<(NodeId, ConnectionId)> {
        let id = self.node_of(Name::Relay(relay));
        if !self.nodes[id].is_up() {
            return None;
        }
        self.fault(what, &[Name::Relay(relay)], 0);
        self.ledger.attacked += 1;
        Some((id, self.stranger_at(id)))
    }

    fn stranger_at(&mut self, id: NodeId) -> ConnectionId {
        let life = self.nodes[id].life;
        if let Some((connection, of)) = self.strangers.connections.get(&id)
            && *of == life
        {
            return *connection;
        }
        self.strangers.next_connection += 1;
        let connection = ConnectionId(self.strangers.next_connection);
        self.strangers.connections.insert(id, (connection, life));
        if let Ok(peer) = format!("stranger-{}", connection.0).parse() {
            let metadata = PeerMetadata::default();
            let concord = connection.0.is_multiple_of(2);
            let info = PeerInfo { peer, metadata, concord, dialled: false };
            self.tell(id, Event::Connected(connection, info));
        }
        connection
    }

    fn say(
        &mut self,
        id: NodeId,
        connection: ConnectionId,
        document: DocumentId,
        message: &SyncMessage,
    ) {
        let life = self.nodes[id].life;
        for change in message.changes.iter().filter_map(|chunk| self.library.read(chunk).ok()) {
            self.strangers.answers.sent(id, life, change.hash);
        }
        let (Ok(sender), Ok(target)) = ("stranger".parse(), "relay".parse()) else { return };
        let message = Message::Sync { document, sender, target, data: message.encode() };
        self.tell(id, Event::Received(connection, message));
    }

    /// As a relay's connection does: what cannot be read ends it; document chunks of a stranger
    /// would be opened by a worker, which says no.
    fn say_raw(&mut self, id: NodeId, connection: ConnectionId, bytes: &Bytes) {
        if let Ok(messages) = codec::decode(bytes, &Limits::default()) {
            for message in messages {
                self.tell(id, Event::Received(connection, message));
            }
        } else {
            self.met(State::FrameUnreadable);
            self.strangers.connections.remove(&id);
            self.strangers.answers.gone(id);
            self.tell(id, Event::Disconnected(connection));
        }
    }
}
