//! What the plan says happens.

use concord::replica::Event;

use super::{Happening, MS, NodeId, World};
use crate::{
    coverage::State,
    plan::{DiskFault, Keep, Name, What},
    random::fate,
    trace::Kind,
};

/// A microsecond more than nothing: a relay that drains has so long to end what it does.
const DRAIN_US: u64 = 500 * MS;

impl World<'_> {
    pub(super) fn act(&mut self, number: usize) {
        let plan = self.plan;
        let Some(action) = plan.actions.get(number) else { return };
        if self.is_calm {
            return;
        }
        self.trace.mix(number as u64);
        match action.what {
            What::Edit { peer, document, edit } => self.edit(peer, document, edit),
            What::Open { peer, document } => {
                let id = self.node_of(Name::Peer(peer));
                self.nodes[id].wanted[usize::from(document)] = true;
                self.open_document(id, document);
            }
            What::Shut { peer, document } => {
                let id = self.node_of(Name::Peer(peer));
                self.nodes[id].wanted[usize::from(document)] = false;
                self.shut_document(id, document);
            }
            What::Broadcast { peer, document } => self.broadcast(peer, document),
            What::Lease { peer, relay, document, act } => {
                self.lease(peer, relay, document, act);
            }
            What::Cut { peer, relay, silent } => {
                self.fault(
                    if silent { "half-open" } else { "cut" },
                    &[peer_name(peer), relay_name(relay)],
                    0,
                );
                self.cut_between(peer, relay, silent);
            }
            What::Partition { peer, relay, way, for_ms } => {
                let until_us = self.now_us + u64::from(for_ms) * MS;
                self.fault("partition", &[peer_name(peer), relay_name(relay)], until_us);
                self.wall(peer, relay, way, until_us);
            }
            What::Stall { node, for_ms } => {
                let until_us = self.now_us + u64::from(for_ms) * MS;
                self.fault("slow reader", &[node], until_us);
                self.stall(node, until_us);
            }
            What::Pause { node, for_ms } => {
                let until_us = self.now_us + u64::from(for_ms) * MS;
                self.fault("pause", &[node], until_us);
                self.stall(node, until_us);
                let id = self.node_of(node);
                self.nodes[id].paused_until_us = until_us;
            }
            What::Crash { node, keep, down_ms } => {
                let until_us = self.now_us + u64::from(down_ms) * MS;
                self.fault("crash", &[node], until_us);
                self.crash(node, keep, until_us);
            }
            What::Drain { relay, down_ms } => {
                let id = self.node_of(relay_name(relay));
                let life = self.nodes[id].life;
                let until_us = self.now_us + u64::from(down_ms) * MS + DRAIN_US;
                self.fault("drain", &[relay_name(relay)], until_us);
                if let Some(process) = &mut self.nodes[id].process {
                    process.is_draining = true;
                    self.tell(id, Event::Drain);
                    let stop = Happening::Stop(id, life, u64::from(down_ms) * MS);
                    self.schedule(self.now_us + DRAIN_US, stop);
                }
            }
            What::Disk { node, fault, for_ms } => {
                let until_us = self.now_us + u64::from(for_ms) * MS;
                self.break_disk(node, fault, until_us);
            }
            What::Rot { node, choice } => self.rot(node, choice),
            What::Clock { node, by_ms } => {
                self.fault("clock jump", &[node], 0);
                let id = self.node_of(node);
                let skew = &mut self.nodes[id].skew_ms;
                *skew = skew.saturating_add(by_ms);
            }
            What::Bytes { relay, document, wrapping, ref bytes } => {
                self.inject(relay, document, wrapping, &bytes.0);
            }
            What::Attack { relay, document, attack, choice } => {
                self.attack(relay, document, attack, choice);
            }
            What::Discard { peer, which } => self.discard(peer, which),
            What::Retry { peer, which } => self.retry(peer, which),
            What::Away { peer, for_ms } => {
                let until_us = self.now_us + for_ms * MS;
                self.fault("away", &[peer_name(peer)], until_us);
                let id = self.node_of(peer_name(peer));
                self.nodes[id].away_until_us = until_us;
                self.cut_all(id, false);
            }
        }
    }

    /// Takes note of a fault.
    pub(super) fn fault(&mut self, what: &'static str, names: &[Name], until_us: u64) {
        self.struck(what);
        if self.trace.is_on() {
            let nodes = names.iter().map(|name| self.node_of(*name)).collect();
            let what = what.to_owned();
            self.trace.note(self.now_us, || Kind::Fault { nodes, what, until_us });
        }
    }

    fn stall(&mut self, name: Name, until_us: u64) {
        let id = self.node_of(name);
        let node = &mut self.nodes[id];
        node.stalled_until_us = node.stalled_until_us.max(until_us);
        let until_us = node.stalled_until_us;
        self.schedule(until_us, Happening::Unstall(id));
    }

    fn crash(&mut self, name: Name, keep: Keep, until_us: u64) {
        let id = self.node_of(name);
        let Some(process) = &self.nodes[id].process else { return };
        let (has_jobs, is_sending) = (!process.operations.is_empty(), self.queued(id) > 0);
        if has_jobs {
            self.met(State::CrashDuringJobs);
        }
        if is_sending {
            self.met(State::CrashDuringSends);
        }
        // A process that dies closes its sockets; a machine that loses power does not.
        let silent = fate(self.plan.seed, 0xC4A5 + id as u64, self.now_us).is_multiple_of(2);
        self.end(id, keep);
        self.cut_all(id, silent);
        self.schedule(until_us, Happening::Start(id));
    }

    /// A process ends by its own will.
    pub(super) fn stop(&mut self, id: NodeId, life: u32, down_us: u64) {
        if self.nodes[id].life != life || !self.nodes[id].is_up() {
            return;
        }
        // What was not flushed may be on the disk nevertheless, when the disk itself is well.
        self.end(id, Keep::Prefix(500));
        self.cut_all(id, false);
        self.schedule(self.now_us + down_us, Happening::Start(id));
    }

    fn break_disk(&mut self, name: Name, fault: DiskFault, until_us: u64) {
        let id = self.node_of(name);
        let what = match fault {
            DiskFault::Hang => "flushes hang",
            DiskFault::FailWrites => "writes fail",
            DiskFault::FailFlushes => "flushes fail",
            DiskFault::FailReads => "reads fail",
            DiskFault::Full => "disk full",
            DiskFault::Tight => "disk almost full",
        };
        self.fault(what, &[name], until_us);
        let node = &mut self.nodes[id];
        node.disk_was_ill_us = node.disk_was_ill_us.max(until_us);
        match fault {
            DiskFault::Hang => {
                node.disk_hangs_until_us = until_us;
                return;
            }
            DiskFault::FailWrites => node.disk.fail_writes(true),
            DiskFault::FailFlushes => node.disk.fail_flushes(true),
            DiskFault::FailReads => node.disk.fail_reads(true),
            DiskFault::Full => node.disk.set_full(true),
            DiskFault::Tight => node.disk.set_tight(true),
        }
        node.disk_fault_until_us = node.disk_fault_until_us.max(until_us);
        self.schedule(until_us, Happening::Heal(id, until_us));
    }

    pub(super) fn heal(&mut self, id: NodeId, until_us: u64) {
        let node = &mut self.nodes[id];
        if node.disk_fault_until_us == until_us {
            node.disk_fault_until_us = 0;
            node.disk.heal();
        }
    }

    /// Faults end: what is down starts, what is broken is mended, who is away comes back.
    pub(super) fn calm(&mut self) {
        self.is_calm = true;
        self.network.tear_down_walls();
        for id in 0..self.nodes.len() {
            let node = &mut self.nodes[id];
            node.disk.heal();
            node.disk_fault_until_us = 0;
            node.disk_hangs_until_us = 0;
            node.away_until_us = 0;
            node.stalled_until_us = 0;
            node.paused_until_us = node.paused_until_us.min(self.now_us);
            let life = node.life;
            let is_flushing = node.process.as_ref().is_some_and(|process| process.is_flushing);
            let is_woken = node.is_woken;
            self.schedule(self.now_us, Happening::Start(id));
            self.schedule(self.now_us, Happening::Unstall(id));
            if is_flushing {
                self.schedule(self.now_us, Happening::Flushed(id, life));
            }
            if is_woken {
                self.schedule(self.now_us, Happening::Wake(id));
            }
        }
        self.widen();
        self.give_back_leases();
    }
}

const fn peer_name(peer: u8) -> Name {
    Name::Peer(peer)
}

const fn relay_name(relay: u8) -> Name {
    Name::Relay(relay)
}
