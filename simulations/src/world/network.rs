//! Links as a `WebSocket` has them: in order, reliable, then cut. What a side sends waits for room,
//! travels, waits behind what a partition holds up, and waits to be read.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use concord::replica::{ConnectionId, Event, PeerInfo};
use concord_protocol::{CloseCode, Limits, Message, PeerMetadata, codec, sync::SyncMessage};

use super::{Frame, Happening, LinkId, MS, NodeId, World, short};
use crate::{
    coverage::State,
    ledger::Invariant,
    plan::{Name, Plan, Way},
    random::{delay, fate},
    trace::Kind,
};

/// Microseconds of silence after which a side takes the other for dead (the relay's and the
/// peer's own constant), and what a ping may add to it.
const DEAD_US: u64 = 60_000 * MS;
const PING_US: u64 = 15_000 * MS;
/// Bytes of a message from which it is sent in pieces, each reported when it has left (the relay's
/// and the peer's own constant).
const FRAGMENT_BYTES: usize = 16 * 1024;

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
            (Name::Peer(peer), _) => peer % self.plan.relays == relay,
        }
    }

    /// Whether a peer speaks `concord.v1` with relays.
    pub(super) fn speaks_concord(&self, peer: u8) -> bool {
        self.plan.settings.concord & (1 << (peer % 32)) != 0
    }

    pub(super) fn dial(&mut self, id: NodeId, life: u32, relay: u8) {
        let node = &self.nodes[id];
        let Name::Peer(peer) = node.name else { return };
        if node.life != life || !node.is_up() {
            return;
        }
        let target = self.node_of(Name::Relay(relay));
        let walled = (0..2).any(|side| {
            self.network.walls.get(&(peer, relay, side)).is_some_and(|until| *until > self.now_us)
        });
        let away = node.away_until_us > self.now_us;
        let there = &self.nodes[target];
        let is_there = there.process.as_ref().is_some_and(|process| !process.is_draining);
        if walled || away || !is_there {
            self.dial_again(id, relay, None, None);
            return;
        }
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
            stream,
            retry_after_ms: None,
            closed: None,
        };
        self.network.links.push(link);
        let link = self.network.links.len() - 1;
        self.schedule(self.now_us + handshake_us, Happening::Joined(link));
    }

    /// Has the peer dial again after a while, as its dialler would.
    fn dial_again(
        &mut self,
        id: NodeId,
        relay: u8,
        code: Option<u16>,
        retry_after_ms: Option<u64>,
    ) {
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
    }

    /// An engine sends.
    pub(super) fn send(&mut self, id: NodeId, to: ConnectionId, bytes: &Bytes) {
        let Some(process) = &self.nodes[id].process else { return };
        let Some(&(link, side)) = process.connections.get(&to) else {
            self.send_to_stranger(id, to, bytes);
            return;
        };
        self.messages += 1;
        self.largest_message = self.largest_message.max(bytes.len());
        self.last_message_us = self.now_us;
        self.trace.mix(bytes.len() as u64);
        let messages = match codec::decode(bytes, &Limits::default()) {
            Ok(messages) => messages,
            Err(error) => {
                return self
                    .broken(Invariant::NoPanic, format!("sent what cannot be read: {error}"));
            }
        };
        for message in &messages {
            self.examine(id, message);
        }
        let number = self.trace.number();
        if self.trace.is_on() {
            let to = self.network.links[link].ends[1 - side].node;
            let what = messages.iter().map(describe).collect::<Vec<_>>().join("; ");
            let bytes = bytes.len();
            self.trace.note(self.now_us, || Kind::Sent { from: id, to, number, bytes, what });
        }
        let pipe = &mut self.network.links[link].pipes[side];
        if !pipe.is_closed {
            let mut left = bytes.len();
            while left > FRAGMENT_BYTES {
                pipe.outbox.push_back((number, Frame::Part(FRAGMENT_BYTES)));
                left -= FRAGMENT_BYTES;
            }
            pipe.outbox.push_back((number, Frame::Message(messages, left)));
            self.transmit(link, side);
        }
    }

    /// What is said must be true when it is said: heads that are named are on disk.
    pub(super) fn examine(&mut self, id: NodeId, message: &Message) {
        let heads = match message {
            Message::Sync { data, .. } | Message::Request { data, .. } => {
                match SyncMessage::decode(data, &Limits::default()) {
                    Ok(message) => message.heads,
                    Err(error) => {
                        let detail = format!("sent a sync message that cannot be read: {error}");
                        return self.broken(Invariant::NoPanic, detail);
                    }
                }
            }
            Message::Ack { ack, .. } => {
                if ack.refused.iter().any(|refused| {
                    refused.hash.is_some_and(|hash| self.ledger.who(&hash).is_some())
                }) {
                    self.refused_honest(id, &ack.refused);
                }
                ack.durable.clone()
            }
            _ => return,
        };
        let (Message::Sync { document, .. }
        | Message::Request { document, .. }
        | Message::Ack { document, .. }) = message
        else {
            return;
        };
        let document = self.document_number(document);
        if self.nodes[id].is_rotten {
            return;
        }
        let Some(process) = &self.nodes[id].process else { return };
        if let Some(head) = heads.iter().find(|head| !process.on_disk.contains(*head)) {
            let who = self.nodes[id].label();
            let detail =
                format!("{who} named {} of document {document}: not on its disk", short(head));
            return self.broken(Invariant::Durability, detail);
        }
        // Where jobs found no worker, some check may still be waited for.
        if self.is_reunion
            && self.plan.settings.job_failures == 0
            && let Some(head) = heads.iter().find(|head| self.is_spoiled(head))
        {
            let who = self.nodes[id].label();
            let detail = format!(
                "{who} still names {} of document {document}, which breaks it",
                short(head)
            );
            return self.broken(Invariant::Convergence, detail);
        }
        self.ledger.named(id, document, &heads);
    }

    fn refused_honest(&mut self, id: NodeId, refused: &[concord_protocol::Refused]) {
        let Some(refused) =
            refused.iter().find(|r| r.hash.is_some_and(|hash| self.ledger.who(&hash).is_some()))
        else {
            return;
        };
        let excused = self.ledger.attacked > 0;
        if !excused {
            let who = self.nodes[id].label();
            let detail = format!(
                "{who} refused an honest change {} ({}): {}",
                refused.hash.as_ref().map(short).unwrap_or_default(),
                refused.code.as_str(),
                refused.reason
            );
            self.broken(Invariant::NoSilentLoss, detail);
        }
    }

    /// Puts what waits on the line, as far as there is room.
    pub(super) fn transmit(&mut self, id: LinkId, side: usize) {
        let settings = &self.plan.settings;
        let window = settings.window_bytes as usize;
        let link = &mut self.network.links[id];
        link.pipes[side].is_transmitting = false;
        if !link.is_whole || !link.is_joined && link.ends[side].connection.is_none() {
            return;
        }
        let mut drained = 0;
        loop {
            let pipe = &mut self.network.links[id].pipes[side];
            if pipe.outbox.is_empty() || pipe.in_flight_bytes >= window {
                break;
            }
            let Some((number, frame)) = pipe.outbox.pop_front() else { break };
            let len = frame.len();
            drained += if matches!(frame, Frame::Close(..)) { 0 } else { len };
            pipe.sent += 1;
            pipe.free_us = pipe.free_us.max(self.now_us)
                + len as u64 * MS / u64::from(settings.bytes_per_ms.max(1));
            let (free_us, sent) = (pipe.free_us, pipe.sent);
            let link = &self.network.links[id];
            let stream = link.stream * 2 + side as u64;
            let wall_us = self.network.wall_us(link, side);
            let arrives_us = (free_us + self.latency_us(stream, sent)).max(wall_us);
            let pipe = &mut self.network.links[id].pipes[side];
            // In order: nothing overtakes.
            let arrives_us = arrives_us.max(pipe.last_arrival_us);
            pipe.last_arrival_us = arrives_us;
            pipe.in_flight_bytes += len;
            pipe.in_flight.push_back((arrives_us, number, frame));
            if !pipe.is_arriving {
                pipe.is_arriving = true;
                self.schedule(arrives_us, Happening::Arrive(id, side));
            }
        }
        if drained > 0 {
            let end = &self.network.links[id].ends[side];
            if let Some(connection) = end.connection {
                let node = end.node;
                self.tell(node, Event::Drained(connection, drained));
            }
        }
    }

    /// The first on the line is there.
    pub(super) fn arrive(&mut self, id: LinkId, side: usize) {
        let link = &mut self.network.links[id];
        link.pipes[side].is_arriving = false;
        let (from, to) = (link.ends[side].node, link.ends[1 - side].node);
        let Some(connection) = link.ends[1 - side].connection else { return };
        if !link.is_whole {
            return;
        }
        let wall_us = self.network.wall_us(&self.network.links[id], side);
        if wall_us > self.now_us {
            self.network.links[id].pipes[side].is_arriving = true;
            self.schedule(wall_us, Happening::Arrive(id, side));
            return;
        }
        if self.nodes[to].stalled_until_us > self.now_us {
            // Goes on when the node reads again.
            return;
        }
        let pipe = &mut self.network.links[id].pipes[side];
        let Some((_, number, frame)) = pipe.in_flight.pop_front() else { return };
        // What took long to come has its answers still before it.
        self.last_message_us = self.now_us;
        pipe.in_flight_bytes -= frame.len();
        if let Some((next_us, ..)) = pipe.in_flight.front() {
            let next_us = *next_us;
            pipe.is_arriving = true;
            self.schedule(next_us, Happening::Arrive(id, side));
        }
        let pipe = &mut self.network.links[id].pipes[side];
        if !pipe.outbox.is_empty() && !pipe.is_transmitting {
            pipe.is_transmitting = true;
            self.schedule(self.now_us, Happening::Transmit(id, side));
        }
        self.trace.mix(number);
        if !matches!(frame, Frame::Part(_)) {
            self.trace.note(self.now_us, || Kind::Arrived { from, to, number });
        }
        match frame {
            Frame::Part(_) => {}
            Frame::Message(messages, _) => {
                for message in messages {
                    if let Message::GoAway { retry_after_ms, .. } = &message {
                        self.network.links[id].retry_after_ms = Some(u64::from(*retry_after_ms));
                    }
                    self.remember_frame(to, &message);
                    self.tell(to, Event::Received(connection, message));
                }
            }
            Frame::Close(code, reason) => {
                self.did(to, || format!("is told that the connection ends ({code}): {reason}"));
                self.network.links[id].closed = Some(code);
                self.cut(id, false);
                self.lost(id, 1 - side);
                self.lost(id, side);
            }
        }
    }

    /// An engine ends a connection.
    pub(super) fn close(&mut self, id: NodeId, to: ConnectionId, code: CloseCode, reason: String) {
        let Some(process) = &self.nodes[id].process else { return };
        let Some(&(link, side)) = process.connections.get(&to) else {
            self.close_stranger(id, to);
            return;
        };
        self.did(id, || format!("closes a connection ({}): {reason}", code.code()));
        match code {
            CloseCode::Backpressure => self.met(State::ReaderCut),
            CloseCode::StorageFailed => self.met(State::ClosedByFailedWrite),
            _ => {}
        }
        let abrupt = matches!(
            code,
            CloseCode::Backpressure
                | CloseCode::Dead
                | CloseCode::Replaced
                | CloseCode::StorageFailed
        );
        let permanent = (4400..4500).contains(&code.code())
            && !matches!(
                code,
                CloseCode::RateLimited | CloseCode::HandshakeTimeout | CloseCode::Replaced
            );
        if permanent && self.ledger.attacked == 0 {
            let who = self.nodes[id].label();
            let detail = format!("{who} closed on an honest peer ({}): {reason}", code.code());
            return self.broken(Invariant::NoSilentLoss, detail);
        }
        if abrupt {
            self.cut(link, false);
            self.schedule(self.now_us + 1, Happening::Lost(link, side));
            return;
        }
        let pipe = &mut self.network.links[link].pipes[side];
        pipe.is_closed = true;
        pipe.outbox.push_back((0, Frame::Close(code.code(), reason)));
        self.transmit(link, side);
    }

    /// The way between the two is gone; what was on it is lost. Each side learns of it on its
    /// own, from silence if nothing tells it.
    pub(super) fn cut(&mut self, id: LinkId, silent: bool) {
        let link = &mut self.network.links[id];
        if !link.is_whole {
            return;
        }
        link.is_whole = false;
        let is_lost = link.pipes.iter().any(|p| !p.in_flight.is_empty() || !p.outbox.is_empty());
        for pipe in &mut link.pipes {
            pipe.in_flight.clear();
            pipe.outbox.clear();
            pipe.in_flight_bytes = 0;
        }
        let stream = link.stream;
        if is_lost {
            self.met(State::ConnectionLostBusy);
        }
        for side in 0..2 {
            let number = fate(self.plan.seed, stream, 0xC07 + side as u64);
            let wait_us =
                if silent { DEAD_US + number % PING_US } else { 500 + number % (50 * MS) };
            self.schedule(self.now_us + wait_us, Happening::Lost(id, side));
        }
    }

    /// A side learns that its connection is gone.
    pub(super) fn lost(&mut self, id: LinkId, side: usize) {
        let end = &mut self.network.links[id].ends[side];
        let Some(connection) = end.connection.take() else { return };
        let (node, life) = (end.node, end.life);
        if self.nodes[node].life != life || !self.nodes[node].is_up() {
            return;
        }
        self.network.links[id].is_whole = false;
        self.did(node, || format!("lost {connection}"));
        self.tell(node, Event::Disconnected(connection));
        if side == 0 {
            let link = &self.network.links[id];
            let (relay, code, after_ms) = (link.relay, link.closed, link.retry_after_ms);
            self.dial_again(node, relay, code, after_ms);
        }
    }

    /// Every connection of a node is cut; the others learn of it at once, or by silence.
    pub(super) fn cut_all(&mut self, id: NodeId, silent: bool) {
        let links: Vec<LinkId> = self
            .network
            .links
            .iter()
            .enumerate()
            .filter(|(_, link)| link.is_whole && link.ends.iter().any(|end| end.node == id))
            .map(|(link, _)| link)
            .collect();
        for link in links {
            if !self.network.links[link].is_joined {
                self.network.links[link].is_whole = false;
                continue;
            }
            self.cut(link, silent);
        }
    }

    pub(super) fn cut_between(&mut self, peer: u8, relay: u8, silent: bool) {
        for link in self.network.between(peer, relay) {
            if self.network.links[link].is_joined {
                self.cut(link, silent);
            }
        }
    }

    /// Nothing passes this way until then.
    pub(super) fn wall(&mut self, peer: u8, relay: u8, way: Way, until_us: u64) {
        for side in (0..2).filter(|side| way.includes(*side)) {
            let wall = self.network.walls.entry((peer, relay, side)).or_default();
            *wall = (*wall).max(until_us);
        }
        if until_us > self.now_us + DEAD_US {
            // Both find out: one hears nothing, and its goodbye is not heard either.
            for link in self.network.between(peer, relay) {
                let stream = self.network.links[link].stream;
                for side in 0..2 {
                    let more_us = fate(self.plan.seed, stream, 0xDEAD + side as u64) % PING_US;
                    let at_us = self.now_us + DEAD_US + more_us;
                    self.schedule(at_us, Happening::Lost(link, side));
                }
            }
        }
    }

    /// The node reads again what has arrived meanwhile.
    pub(super) fn unstall(&mut self, id: NodeId) {
        if self.nodes[id].stalled_until_us > self.now_us {
            return;
        }
        for link in 0..self.network.links.len() {
            for side in 0..2 {
                let this = &mut self.network.links[link];
                if this.ends[1 - side].node == id
                    && this.is_whole
                    && !this.pipes[side].is_arriving
                    && let Some((at_us, ..)) = this.pipes[side].in_flight.front()
                {
                    let at_us = *at_us;
                    this.pipes[side].is_arriving = true;
                    self.schedule(at_us, Happening::Arrive(link, side));
                }
            }
        }
    }

    /// Bytes that wait to be sent, all links of a node.
    pub(super) fn queued(&self, id: NodeId) -> usize {
        let Some(process) = &self.nodes[id].process else { return 0 };
        let mut bytes = 0;
        for (link, side) in process.connections.values() {
            let pipe = &self.network.links[*link].pipes[*side];
            bytes += pipe.outbox.iter().map(|(_, frame)| frame.len()).sum::<usize>();
        }
        bytes
    }
}

/// A message in short.
pub(super) fn describe(message: &Message) -> String {
    let sync = |data: &Bytes| match SyncMessage::decode(data, &Limits::default()) {
        Ok(message) => format!(
            "heads [{}] need {} changes {} ({} B)",
            message.heads.iter().map(short).collect::<Vec<_>>().join(" "),
            message.need.len(),
            message.changes.len(),
            message.changes.iter().map(Bytes::len).sum::<usize>()
        ),
        Err(error) => error.to_string(),
    };
    match message {
        Message::Sync { document, data, .. } => format!("sync {document:.6} {}", sync(data)),
        Message::Request { document, data, .. } => format!("request {document:.6} {}", sync(data)),
        Message::Ack { document, ack, .. } => format!(
            "ack {document:.6} durable [{}] refused {}",
            ack.durable.iter().map(short).collect::<Vec<_>>().join(" "),
            ack.refused.len()
        ),
        Message::DocUnavailable { document, .. } => format!("unavailable {document:.6}"),
        Message::Ephemeral { document, count, .. } => format!("presence {document:.6} {count}"),
        other => {
            let text = format!("{other:?}");
            text.split([' ', '{', '(']).next().unwrap_or_default().to_lowercase()
        }
    }
}
