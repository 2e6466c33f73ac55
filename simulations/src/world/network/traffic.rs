//! What is sent over a link, and what comes of it.

use bytes::Bytes;
use concord::replica::{ConnectionId, Event};
use concord_protocol::{CloseCode, Limits, Message, codec};

use crate::{
    coverage::State,
    ledger::Invariant,
    trace::Kind,
    world::{Frame, Happening, LinkId, MS, NodeId, World, spoken::describe},
};

/// Bytes of a message from which it is sent in pieces, each reported when it has left (the relay's
/// and the peer's own constant).
const FRAGMENT_BYTES: usize = 16 * 1024;

impl World<'_> {
    /// An engine sends.
    pub(in crate::world) fn send(&mut self, id: NodeId, to: ConnectionId, bytes: &Bytes) {
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
            self.examine_lease(id, to, message);
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

    /// Puts what waits on the line, as far as there is room.
    pub(in crate::world) fn transmit(&mut self, id: LinkId, side: usize) {
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
    pub(in crate::world) fn arrive(&mut self, id: LinkId, side: usize) {
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
                        let after_ms = u64::from(*retry_after_ms);
                        self.network.links[id].retry_after_ms = Some(after_ms);
                        let relay = self.network.links[id].relay;
                        if let Some(failover) = &mut self.nodes[to].failover {
                            failover.going(relay, after_ms);
                            self.fail_over(to);
                        }
                    }
                    self.remember_frame(to, &message);
                    self.lease_came(to, &message);
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
    pub(in crate::world) fn close(
        &mut self,
        id: NodeId,
        to: ConnectionId,
        code: CloseCode,
        reason: String,
    ) {
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

    /// Bytes that wait to be sent, all links of a node.
    pub(in crate::world) fn queued(&self, id: NodeId) -> usize {
        let Some(process) = &self.nodes[id].process else { return 0 };
        let mut bytes = 0;
        for (link, side) in process.connections.values() {
            let pipe = &self.network.links[*link].pipes[*side];
            bytes += pipe.outbox.iter().map(|(_, frame)| frame.len()).sum::<usize>();
        }
        bytes
    }
}
