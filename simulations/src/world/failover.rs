//! Peers that have all relays to choose from: they use one, go on with another when it fails, and
//! come back. What decides is the peer's own.

use concord::peer::simulation::{Failover, Order};
use concord_protocol::CloseCode;

use super::{Happening, MS, NodeId, World};
use crate::{coverage::State, ledger::Invariant, plan::Name, random::fate};

impl World<'_> {
    /// Whether this node is a peer that may use any relay.
    pub(super) fn may_move(&self, id: NodeId) -> bool {
        let node = &self.nodes[id];
        let Name::Peer(peer) = node.name else { return false };
        let chosen = self.plan.settings.failover & (1 << (peer % 32)) != 0;
        chosen && peer > 0 && self.plan.relays > 1 && node.dials_only.is_none()
    }

    /// The relay that a peer uses if it can.
    pub(super) fn preferred(&self, peer: u8) -> u8 {
        peer % self.plan.relays
    }

    /// A peer that may use any relay has started.
    pub(super) fn begin_to_move(&mut self, id: NodeId) {
        let preferred = self.preferred(self.peer_number(id));
        self.nodes[id].failover = Some(Failover::new(self.plan.relays, preferred));
    }

    /// Does what is to be done about relays.
    pub(super) fn fail_over(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        let life = node.life;
        let Some(failover) = &mut node.failover else { return };
        for order in failover.decide(self.now_us / MS) {
            match order {
                Order::Dial(relay) => self.dial(id, life, relay),
                Order::Check(relay) => {
                    let way_us = u64::from(self.plan.settings.latency_us);
                    let at_us = self.now_us + 4 * way_us;
                    self.schedule(at_us, Happening::Checked(id, life, relay));
                }
                Order::Leave(relay) => self.leave(id, relay),
            }
        }
        // As it is after all that: an attempt that was left has ended, and that was decided upon.
        let wakes_at_ms = self.nodes[id].failover.as_ref().and_then(Failover::wakes_at);
        if let Some(at_ms) = wakes_at_ms
            && self.nodes[id].decides_at_ms != wakes_at_ms
        {
            self.nodes[id].decides_at_ms = wakes_at_ms;
            let at_us = (at_ms * MS).max(self.now_us + 100);
            self.schedule(at_us, Happening::Decide(id, life));
        }
    }

    /// Time to decide again.
    pub(super) fn decide(&mut self, id: NodeId, life: u32) {
        let node = &mut self.nodes[id];
        if node.life == life && node.is_up() {
            node.decides_at_ms = None;
            self.fail_over(id);
        }
    }

    /// A relay has answered to a check, or not.
    pub(super) fn checked(&mut self, id: NodeId, life: u32, relay: u8) {
        if self.nodes[id].life != life || !self.nodes[id].is_up() {
            return;
        }
        let answers = self.can_reach(id, relay);
        let random = fate(self.plan.seed, 0xC4EC + id as u64, self.now_us);
        let now_ms = self.now_us / MS;
        if let Some(failover) = &mut self.nodes[id].failover {
            failover.checked(now_ms, relay, answers, random);
        }
        self.fail_over(id);
    }

    /// Whether a peer is connected to a relay that it may use: it is told so.
    pub(super) fn moved(&mut self, id: NodeId, relay: u8) {
        let now_ms = self.now_us / MS;
        let preferred = self.preferred(self.peer_number(id));
        let node = &mut self.nodes[id];
        let Some(failover) = &mut node.failover else { return };
        failover.opened(now_ms, relay);
        let before = node.used.replace(relay);
        if relay != preferred {
            self.met(State::FailedOver);
        } else if before.is_some_and(|before| before != preferred) {
            self.met(State::CameBack);
        }
        self.fail_over(id);
    }

    /// An attempt of a peer that may use any relay has failed, or a connection ended.
    pub(super) fn moving_ended(&mut self, id: NodeId, relay: u8, how: (Option<u16>, Option<u64>)) {
        let random = fate(self.plan.seed, 0xBAC0 + id as u64, self.now_us);
        let now_ms = self.now_us / MS;
        let Some(failover) = &mut self.nodes[id].failover else { return };
        failover.ended(now_ms, relay, how, random);
        if failover.is_stopped(relay) {
            let detail = format!("{} gave relay {relay} up ({:?})", self.nodes[id].label(), how.0);
            return self.broken(Invariant::Progress, detail);
        }
        self.fail_over(id);
    }

    /// A peer leaves a relay, or does not go on dialling it.
    fn leave(&mut self, id: NodeId, relay: u8) {
        if let Some(connection) = self.connection_to(id, relay) {
            let reason = "another relay is in use".to_owned();
            return self.close(id, connection, CloseCode::Normal, reason);
        }
        self.abandon(id, relay);
        self.moving_ended(id, relay, (None, None));
    }
}
