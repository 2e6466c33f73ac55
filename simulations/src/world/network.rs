//! Links as a `WebSocket` has them: in order, reliable, then cut. What a side sends waits for room,
//! travels, waits behind what a partition holds up, and waits to be read.

mod cuts;
mod traffic;

use std::collections::{BTreeMap, VecDeque};

use concord::replica::{ConnectionId, Event, PeerInfo};
use concord_protocol::{Feature, Features, PeerMetadata};

use super::{Frame, Happening, LinkId, MS, NodeId, World, node::session};
use crate::{
    coverage::State,
    ledger::Invariant,
    plan::{Name, Plan},
    random::{delay, fate},
};

/// One direction of a link.
#[derive(Debug, Default)]
struct Pipe {
    /// Given to the socket, not yet on its way.
    outbox: VecDeque<(u64, Frame)>,
    /// On its way: when it arrives, its number, what it is.
    in_flight: VecDeque<(u64, u64, Frame)>,
    in_flight_bytes: usize,
    /// When the line is free.
    free_us: u64,
    last_arrival_us: u64,
    sent: u64,
    is_arriving: bool,
    is_transmitting: bool,
    /// Nothing is sent after a close.
    is_closed: bool,
}

/// One side of a link.
#[derive(Debug)]
struct End {
    node: NodeId,
    life: u32,
    /// While this side takes the connection for open.
    connection: Option<ConnectionId>,
}

#[derive(Debug)]
struct Link {
    ends: [End; 2],
    pipes: [Pipe; 2],
    relay: u8,
    peer: u8,
    /// The way between them is there.
    is_whole: bool,
    is_joined: bool,
    /// Who dialled does not want it any more.
    is_abandoned: bool,
    stream: u64,
    /// What the relay said last.
    retry_after_ms: Option<u64>,
    closed: Option<u16>,
}

/// All links there ever were, and what stands between nodes.
#[derive(Debug)]
pub(super) struct Network {
    links: Vec<Link>,
    /// Until when nothing passes, by peer, relay and side.
    walls: BTreeMap<(u8, u8, usize), u64>,
    made: BTreeMap<(u8, u8), u64>,
}

impl Network {
    pub(super) fn new(_: &Plan) -> Self {
        Self { links: Vec::new(), walls: BTreeMap::new(), made: BTreeMap::new() }
    }

    fn wall_us(&self, link: &Link, side: usize) -> u64 {
        self.walls.get(&(link.peer, link.relay, side)).copied().unwrap_or(0)
    }

    /// Links between the two whose way is there.
    fn between(&self, peer: u8, relay: u8) -> Vec<LinkId> {
        let live = self.links.iter().enumerate().rev().take(256);
        live.filter(|(_, link)| link.peer == peer && link.relay == relay && link.is_whole)
            .map(|(id, _)| id)
            .collect()
    }

    /// Links between the two that the relay takes for open.
    fn taken_for_open(&self, peer: u8, relay: u8) -> Vec<LinkId> {
        let latest = self.links.iter().enumerate().rev().take(256);
        latest
            .filter(|(_, link)| link.peer == peer && link.relay == relay)
            .filter(|(_, link)| link.ends[1].connection.is_some())
            .map(|(id, _)| id)
            .collect()
    }

    /// Whether nothing is on its way between two who take their connection for open.
    pub(super) fn is_quiet(&self) -> bool {
        let live = self.links.iter().filter(|link| link.is_whole);
        live.flat_map(|link| &link.pipes)
            .all(|pipe| pipe.outbox.is_empty() && pipe.in_flight.is_empty())
    }

    /// Nothing is held up any more.
    pub(super) fn tear_down_walls(&mut self) {
        self.walls.clear();
    }
}

impl World<'_> {
    /// Whether this peer has this relay among those that it dials.
    pub(super) fn dials(&self, id: NodeId, relay: u8) -> bool {
        match (self.nodes[id].name, self.nodes[id].dials_only) {
            (Name::Relay(_), _) => false,
            (_, Some(only)) => only == relay,
            (Name::Peer(0), _) => true,
            (Name::Peer(peer), _) => self.may_move(id) || self.preferred(peer) == relay,
        }
    }

    /// Whether a peer speaks `concord.v1` with relays.
    pub(super) fn speaks_concord(&self, peer: u8) -> bool {
        self.plan.settings.concord & (1 << (peer % 32)) != 0
    }

    /// The connection of a peer to a relay, if it takes one for open.
    pub(super) fn connection_to(&self, id: NodeId, relay: u8) -> Option<ConnectionId> {
        let process = self.nodes[id].process.as_ref()?;
        let mut open = process.connections.iter().rev();
        let (connection, _) = open.find(|(_, (link, side))| {
            *side == 0 && self.network.links.get(*link).is_some_and(|link| link.relay == relay)
        })?;
        Some(*connection)
    }

    pub(super) fn dial(&mut self, id: NodeId, life: u32, relay: u8) {
        let node = &self.nodes[id];
        let Name::Peer(peer) = node.name else { return };
        if node.life != life || !node.is_up() {
            return;
        }
        if node.failover.as_ref().is_some_and(|failover| !failover.is_dialling(relay)) {
            // Another was there sooner.
            return;
        }
        if !self.can_reach(id, relay) {
            self.dial_again(id, relay, None, None);
            return;
        }
        let target = self.node_of(Name::Relay(relay));
        let made = self.network.made.entry((peer, relay)).or_default();
        *made += 1;
        let stream = (u64::from(peer) << 40) | (u64::from(relay) << 32) | *made;
        let handshake_us = 3 * self.latency_us(stream, 0);
        let end = |node: NodeId, life| End { node, life, connection: None };
        let link = Link {
            ends: [end(id, life), end(target, self.nodes[target].life)],
            pipes: [Pipe::default(), Pipe::default()],
            relay,
            peer,
            is_whole: true,
            is_joined: false,
            is_abandoned: false,
            stream,
            retry_after_ms: None,
            closed: None,
        };
        self.network.links.push(link);
        let link = self.network.links.len() - 1;
        self.schedule(self.now_us + handshake_us, Happening::Joined(link));
    }

    /// A peer goes without what it has dialled and is not connected to yet.
    pub(super) fn abandon(&mut self, id: NodeId, relay: u8) {
        for link in self.network.between(self.peer_number(id), relay) {
            let link = &mut self.network.links[link];
            link.is_abandoned |= !link.is_joined;
        }
    }

    /// Whether a relay would answer a peer.
    pub(super) fn can_reach(&self, id: NodeId, relay: u8) -> bool {
        let peer = self.peer_number(id);
        let is_walled = (0..2).any(|side| {
            self.network.walls.get(&(peer, relay, side)).is_some_and(|until| *until > self.now_us)
        });
        let there = &self.nodes[self.node_of(Name::Relay(relay))];
        let is_there = there.process.as_ref().is_some_and(|process| !process.is_draining);
        !is_walled && is_there && self.nodes[id].away_until_us <= self.now_us
    }

    /// Has the peer dial again after a while, as its dialler would.
    fn dial_again(
        &mut self,
        id: NodeId,
        relay: u8,
        code: Option<u16>,
        retry_after_ms: Option<u64>,
    ) {
        if self.nodes[id].failover.is_some() {
            return self.moving_ended(id, relay, (code, retry_after_ms));
        }
        let node = &mut self.nodes[id];
        let life = node.life;
        let random = fate(self.plan.seed, 0xBAC0 + id as u64, self.now_us);
        let dialling = &mut node.dialling[usize::from(relay)];
        let now_ms = self.now_us / MS;
        dialling.ended(now_ms, code, retry_after_ms, random);
        if let Some(at_ms) = dialling.next_dial_ms() {
            let at_us = (at_ms * MS).max(self.now_us + 100);
            self.schedule(at_us, Happening::Dial(id, life, relay));
        } else {
            let detail = format!("{} gave relay {relay} up ({code:?})", self.nodes[id].label());
            self.broken(Invariant::Progress, detail);
        }
    }

    fn latency_us(&self, stream: u64, number: u64) -> u64 {
        delay(u64::from(self.plan.settings.latency_us), fate(self.plan.seed, stream, number))
    }

    /// Both sides know of the connection.
    pub(super) fn joined(&mut self, id: LinkId) {
        let link = &self.network.links[id];
        let (peer, relay) = (link.peer, link.relay);
        if link.is_abandoned {
            self.network.links[id].is_whole = false;
            return;
        }
        let alive = link.is_whole
            && link
                .ends
                .iter()
                .all(|end| self.nodes[end.node].life == end.life && self.nodes[end.node].is_up());
        if !alive {
            let end = &link.ends[0];
            if self.nodes[end.node].life == end.life && self.nodes[end.node].is_up() {
                let node = end.node;
                self.network.links[id].is_whole = false;
                self.dial_again(node, relay, None, None);
            }
            return;
        }
        // A name that comes again takes the place of its earlier connection.
        for older in self.network.taken_for_open(peer, relay) {
            if older != id {
                self.met(State::ConnectionReplaced);
                self.cut(older, false);
                self.lost(older, 1);
            }
        }
        let concord = self.speaks_concord(peer);
        for side in 0..2 {
            let link = &self.network.links[id];
            let (node, other) = (link.ends[side].node, link.ends[1 - side].node);
            let Some(process) = &self.nodes[other].process else { return };
            let info = PeerInfo {
                peer: process.peer.clone(),
                metadata: PeerMetadata {
                    storage_id: Some(process.store.storage_id()),
                    is_ephemeral: Some(false),
                    features: Features::NONE.with(Feature::Leases),
                    session: process.peer.as_str().parse().ok().map(session),
                    ..PeerMetadata::default()
                },
                concord,
                dialled: side == 0,
            };
            let Some(process) = &mut self.nodes[node].process else { return };
            process.next_connection += 1;
            let connection = ConnectionId(process.next_connection);
            process.connections.insert(connection, (id, side));
            self.network.links[id].ends[side].connection = Some(connection);
            self.tell(node, Event::Connected(connection, info));
            if side == 0 {
                self.nodes[node].dialling[usize::from(relay)].connected(self.now_us / MS);
                self.greet(node, connection);
            }
        }
        self.network.links[id].is_joined = true;
        let (from, to) = (self.network.links[id].ends[0].node, self.network.links[id].ends[1].node);
        self.did(from, || format!("is connected to relay {relay}"));
        self.trace.mix((from * 31 + to) as u64);
        self.moved(from, relay);
    }
}
