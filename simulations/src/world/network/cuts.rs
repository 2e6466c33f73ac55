//! What stands between nodes: links that are cut, walls, and sides that learn of it.

use concord::replica::Event;

use crate::{
    coverage::State,
    plan::Way,
    random::fate,
    world::{Happening, LinkId, MS, NodeId, World},
};

/// Microseconds of silence after which a side takes the other for dead (the relay's and the
/// peer's own constant), and what a ping may add to it.
const DEAD_US: u64 = 60_000 * MS;
const PING_US: u64 = 15_000 * MS;

impl World<'_> {
    /// The way between the two is gone; what was on it is lost. Each side learns of it on its
    /// own, from silence if nothing tells it.
    pub(in crate::world) fn cut(&mut self, id: LinkId, silent: bool) {
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
    pub(in crate::world) fn lost(&mut self, id: LinkId, side: usize) {
        let end = &mut self.network.links[id].ends[side];
        let Some(connection) = end.connection.take() else { return };
        let (node, life) = (end.node, end.life);
        if self.nodes[node].life != life || !self.nodes[node].is_up() {
            return;
        }
        self.network.links[id].is_whole = false;
        self.did(node, || format!("lost {connection}"));
        self.ledger.tenures.lost(node, connection, self.now_us);
        self.tell(node, Event::Disconnected(connection));
        if side == 0 {
            let link = &self.network.links[id];
            let (relay, code, after_ms) = (link.relay, link.closed, link.retry_after_ms);
            self.dial_again(node, relay, code, after_ms);
        }
    }

    /// Every connection of a node is cut; the others learn of it at once, or by silence.
    pub(in crate::world) fn cut_all(&mut self, id: NodeId, silent: bool) {
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

    pub(in crate::world) fn cut_between(&mut self, peer: u8, relay: u8, silent: bool) {
        for link in self.network.between(peer, relay) {
            if self.network.links[link].is_joined {
                self.cut(link, silent);
            }
        }
    }

    /// Nothing passes this way until then.
    pub(in crate::world) fn wall(&mut self, peer: u8, relay: u8, way: Way, until_us: u64) {
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
    pub(in crate::world) fn unstall(&mut self, id: NodeId) {
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
}
