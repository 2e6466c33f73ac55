//! The calm after the trouble: everything must come together, and then be still.

use concord_protocol::ChangeHash;

use super::{MS, NodeId, World, short};
use crate::{
    ledger::Invariant,
    opaque::ByHash,
    plan::{Keep, Name},
};

/// Milliseconds that a world has to come together. Connections that nobody knows to be dead are
/// found out after 75 s, a relay is dialled again after at most 30 s.
const TOGETHER_MS: u64 = 30 * 60_000;
/// Milliseconds without a message after which it is taken to have come together.
const STILL_MS: u64 = 90_000;
/// Milliseconds after that in which nothing may be said.
const QUIET_MS: u64 = 10 * 60_000;

impl World<'_> {
    pub(super) fn finish(&mut self) {
        self.strangers_leave();
        self.come_together();
        if self.failure.is_none() && self.have_rot_found() {
            self.come_together();
        }
        if self.failure.is_some() {
            return;
        }
        self.check_calls();
        for document in 0..self.plan.documents {
            self.check_together(document);
        }
        if self.failure.is_some() {
            return;
        }
        let said = self.messages;
        self.run_until(self.now_us + QUIET_MS * MS);
        if self.messages > said && self.failure.is_none() {
            let detail = format!(
                "{} messages in {QUIET_MS} ms after all was the same everywhere",
                self.messages - said
            );
            self.broken(Invariant::Quiescence, detail);
        }
        self.look();
        self.check_power_loss();
    }

    /// Lets everything happen until nothing does any more.
    fn come_together(&mut self) {
        let start_us = self.now_us;
        while self.failure.is_none() {
            self.run_until(self.now_us + 1_000 * MS);
            let still = self.now_us.saturating_sub(self.last_message_us.max(start_us));
            let at_rest = (0..self.nodes.len()).all(|id| self.is_at_rest(id));
            if still >= STILL_MS * MS && at_rest {
                return;
            }
            if self.now_us - start_us > TOGETHER_MS * MS {
                let what = if at_rest { "messages go on" } else { "something is never answered" };
                let detail = format!("{what}, {TOGETHER_MS} ms after the last fault");
                self.broken(Invariant::Progress, detail);
            }
        }
    }

    /// Every call has returned.
    fn check_calls(&mut self) {
        let left = self.ledger.pending().next();
        if let Some((hash, written)) = left {
            let detail = format!(
                "the call that wrote {} at peer {} has not returned",
                short(&hash),
                written.peer
            );
            self.broken(Invariant::Progress, detail);
        }
    }

    /// All who hold a document hold the same.
    fn check_together(&mut self, document: u8) {
        let mut all: ByHash<ChangeHash, ()> = ByHash::default();
        let mut held: Vec<(NodeId, ByHash<ChangeHash, ()>)> = Vec::new();
        for id in 0..self.nodes.len() {
            match self.stored(id, document) {
                Ok(found) => {
                    all.extend(found.keys().map(|hash| (*hash, ())));
                    held.push((id, found));
                }
                Err(reason) => {
                    let who = self.nodes[id].label();
                    let detail = format!("{who} cannot read document {document}: {reason}");
                    return self.broken(Invariant::Convergence, detail);
                }
            }
        }
        let gone = self.ledger.promised(document).find(|hash| !all.contains_key(hash));
        if let Some(gone) = gone {
            let detail = format!("{} of document {document} is nowhere", short(&gone));
            return self.broken(Invariant::NoSilentLoss, detail);
        }
        if all.is_empty() {
            return;
        }
        for (id, found) in &held {
            let is_open = self.nodes[*id].wanted[usize::from(document)];
            if found.is_empty() && !is_open && !self.nodes[*id].is_relay() {
                continue;
            }
            let missing: Vec<&ChangeHash> =
                all.keys().filter(|hash| !found.contains_key(*hash)).collect();
            if let Some(first) = missing.first() {
                let who = self.nodes[*id].label();
                let detail = format!(
                    "{who} lacks {} of {} changes of document {document}, {} among them",
                    missing.len(),
                    all.len(),
                    short(first)
                );
                return self.broken(Invariant::Convergence, detail);
            }
        }
        for id in 0..self.nodes.len() {
            let Some(process) = &self.nodes[id].process else { continue };
            let Name::Peer(peer) = self.nodes[id].name else { continue };
            if !self.nodes[id].wanted[usize::from(document)] {
                continue;
            }
            let shown = process.user.shows(document).map(std::collections::HashMap::len);
            if shown != Some(all.len()) {
                let shown = shown.map_or("nothing".to_owned(), |shown| shown.to_string());
                let detail = format!(
                    "peer {peer} shows {shown} of {} changes of document {document}",
                    all.len()
                );
                return self.broken(Invariant::Convergence, detail);
            }
        }
    }

    /// All lights go out at once: what was promised is there when they come on again.
    fn check_power_loss(&mut self) {
        if self.failure.is_some() {
            return;
        }
        for id in 0..self.nodes.len() {
            self.end(id, Keep::Nothing);
        }
        for id in 0..self.nodes.len() {
            self.start(id);
        }
    }

    /// What is in memory must be within its limits.
    pub(super) fn look(&mut self) {
        for id in 0..self.nodes.len() {
            let Some(process) = &self.nodes[id].process else { continue };
            let stats = process.replica.stats();
            let limits = self.limits();
            let orphans_max = limits.orphans * usize::from(self.plan.documents);
            let queue_max = (limits.queue_bytes + limits.change_bytes) * stats.connections.max(1);
            let queued = self.queued(id);
            // What is stored and waits for something damaged is not limited.
            let over = if stats.orphans > orphans_max && !self.nodes[id].is_rotten {
                Some(format!("{} changes wait for others, at most {orphans_max}", stats.orphans))
            } else if stats.queued_bytes > queue_max || queued > queue_max {
                Some(format!("{} bytes wait to be sent, at most {queue_max}", stats.queued_bytes))
            } else if stats.jobs > concord::replica::JOBS_MAX {
                Some(format!("{} background jobs at once", stats.jobs))
            } else {
                None
            };
            if let Some(over) = over {
                let who = self.nodes[id].label();
                self.broken(Invariant::Bounds, format!("{who}: {over}"));
            }
        }
    }
}
