//! The calm after the trouble: everything must come together, and then be still.

use concord_protocol::ChangeHash;

use super::{
    MS, NodeId, World,
    author::{contents, counters},
    kept::Kept,
    short,
};
use crate::{
    coverage::State,
    ledger::Invariant,
    opaque::Hashes,
    plan::{Keep, Name, Profile},
};

/// Milliseconds that a world has to come together. Connections that nobody knows to be dead are
/// found out after 75 s, a relay is dialled again after at most 30 s, and work for which a document
/// was too large is tried again after 10 minutes.
const TOGETHER_MS: u64 = 30 * 60_000;
/// Milliseconds until the engine tries again what could not be done for want of room.
const HOPELESS_MS: u64 = 10 * 60_000;
/// Milliseconds without a message after which it is taken to have come together.
const STILL_MS: u64 = 90_000;
/// Milliseconds after that in which nothing may be said.
const QUIET_MS: u64 = 10 * 60_000;

/// Messages about a document between two equal replicas that meet: each says where it is, and
/// each may answer once.
const REUNION_MESSAGES: u64 = 4;

/// More of them where the peer has to ask a server what it has: six questions, where answers take
/// long, each with its answer, and what is said after the first.
const ASKING_MESSAGES: u64 = 13;

impl World<'_> {
    pub(super) fn finish(&mut self) {
        self.strangers_leave();
        self.come_together();
        self.decide_letters();
        if self.failure.is_none() && self.have_rot_found() {
            self.come_together();
        }
        if self.failure.is_none() && self.coverage.of(State::JobPutOff) > 0 {
            self.have_unchecked_found();
            self.come_together();
        }
        if self.failure.is_some() {
            return;
        }
        self.check_calls();
        for document in 0..self.plan.documents {
            self.check_together(document);
        }
        self.check_between();
        self.check_outboxes();
        self.check_letters();
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
        self.check_reunion();
        self.check_power_loss();
    }

    /// Lets everything happen until nothing does any more.
    pub(super) fn come_together(&mut self) {
        let start_us = self.now_us;
        while self.failure.is_none() {
            self.run_until(self.now_us + 1_000 * MS);
            let still = self.now_us.saturating_sub(self.last_message_us.max(start_us));
            let at_rest =
                self.network.is_quiet() && (0..self.nodes.len()).all(|id| self.is_at_rest(id));
            let is_still = still >= STILL_MS * MS;
            // What a worker finds is said to others: a check that is due is not stillness.
            let is_checked = !(is_still && at_rest) || self.all_is_checked();
            if is_still && at_rest && is_checked {
                return;
            }
            if self.now_us - start_us > TOGETHER_MS * MS {
                let what = match (at_rest, is_checked) {
                    (false, _) => "something is never answered",
                    (true, false) => "something is never checked",
                    (true, true) => "messages go on",
                };
                let detail = format!("{what}, {TOGETHER_MS} ms after the last fault");
                self.broken(Invariant::Progress, detail);
            }
        }
    }

    /// A document for which a worker had no room leaves memory unchecked, and is checked when
    /// somebody speaks of it again once that may be tried again.
    fn have_unchecked_found(&mut self) {
        self.run_until(self.now_us.max((self.plan.calm_ms + HOPELESS_MS) * MS));
        for (peer, relay) in self.pairs() {
            self.cut_between(peer, relay, false);
        }
    }

    /// Who dials whom.
    fn pairs(&self) -> Vec<(u8, u8)> {
        (0..self.plan.peers)
            .flat_map(|peer| (0..self.plan.relays).map(move |relay| (peer, relay)))
            .filter(|(peer, relay)| self.dials(self.node_of(Name::Peer(*peer)), *relay))
            .collect()
    }

    /// Whether no node has changes in memory that its workers have yet to look at.
    fn all_is_checked(&self) -> bool {
        let mut running = self.nodes.iter().filter_map(|node| node.process.as_ref());
        running.all(|process| process.brain.stats().unchecked == 0)
    }

    /// Equal replicas that meet again say so in a few messages, and stop.
    fn check_reunion(&mut self) {
        if self.failure.is_some() {
            return;
        }
        let said = self.messages;
        let pairs = self.pairs();
        self.is_reunion = true;
        for (peer, relay) in &pairs {
            self.cut_between(*peer, *relay, false);
        }
        self.run_until(self.now_us + 3 * STILL_MS * MS);
        let asking = pairs.iter().filter(|(peer, _)| !self.speaks_concord(*peer)).count();
        let most = REUNION_MESSAGES * pairs.len() as u64 + ASKING_MESSAGES * asking as u64;
        let most = most * u64::from(self.plan.documents);
        if self.messages - said > most {
            let detail = format!(
                "{} messages when {} pairs of equal replicas met again, at most {most}",
                self.messages - said,
                pairs.len()
            );
            self.broken(Invariant::Quiescence, detail);
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
        let mut all: Hashes = Hashes::default();
        let mut held: Vec<(NodeId, Hashes)> = Vec::new();
        for id in 0..self.nodes.len() {
            match self.kept(id, document) {
                Ok(Kept { sound: found, .. }) => {
                    all.extend(found.iter().copied());
                    held.push((id, found));
                }
                Err(reason) => {
                    let who = self.nodes[id].label();
                    let detail = format!("{who} cannot read document {document}: {reason}");
                    return self.broken(Invariant::Convergence, detail);
                }
            }
        }
        let gone = self.ledger.promised(document).find(|hash| !all.contains(hash));
        if let Some(gone) = gone {
            let detail = format!("{} of document {document} is nowhere", short(&gone));
            return self.broken(Invariant::NoSilentLoss, detail);
        }
        if all.is_empty() {
            return;
        }
        for hash in &all {
            self.note_taken(hash);
        }
        for (id, found) in &held {
            let is_open = self.nodes[*id].wanted[usize::from(document)];
            if found.is_empty() && !is_open && !self.nodes[*id].is_relay() {
                continue;
            }
            let missing: Vec<&ChangeHash> =
                all.iter().filter(|hash| !found.contains(*hash)).collect();
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
        if self.plan.profile == Profile::Automerge {
            return self.check_contents(document, &all, &held);
        }
        for id in 0..self.nodes.len() {
            let Some(process) = &self.nodes[id].process else { continue };
            let Name::Peer(peer) = self.nodes[id].name else { continue };
            if !self.nodes[id].wanted[usize::from(document)] {
                continue;
            }
            let shown = process.user.shows(document).map(Hashes::len);
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

    /// All who have a document open show the same, which is what automerge makes of all changes.
    fn check_contents(&mut self, document: u8, all: &Hashes, held: &[(NodeId, Hashes)]) {
        let mut first: Option<(u8, String)> = None;
        for id in 0..self.nodes.len() {
            let Name::Peer(peer) = self.nodes[id].name else { continue };
            if !self.nodes[id].wanted[usize::from(document)] {
                continue;
            }
            let Some((shown, contents)) = self.author_shows(id, document) else {
                let detail = format!("peer {peer} shows nothing of document {document}");
                return self.broken(Invariant::Convergence, detail);
            };
            if shown.len() != all.len() {
                let detail = format!(
                    "peer {peer} shows {} of {} changes of document {document}",
                    shown.len(),
                    all.len()
                );
                return self.broken(Invariant::Convergence, detail);
            }
            match &first {
                None => first = Some((peer, contents)),
                Some((other, theirs)) if *theirs != contents => {
                    let detail = format!(
                        "peers {other} and {peer} have the same changes of document {document} \
                         and show different contents:\n{theirs}\n{contents}"
                    );
                    return self.broken(Invariant::Convergence, detail);
                }
                Some(_) => {}
            }
        }
        let relay = (0..usize::from(self.plan.relays)).find(|id| !self.nodes[*id].is_rotten);
        let (Some((peer, theirs)), Some(relay)) = (first, relay) else { return };
        let made = match self.assembled(relay, document) {
            Ok(made) => made,
            Err(reason) => {
                let detail = format!("relay {relay} holds what automerge cannot open: {reason}");
                return self.broken(Invariant::Convergence, detail);
            }
        };
        if contents(&made) != theirs {
            let detail = format!(
                "peer {peer} shows of document {document}:\n{theirs}\nautomerge makes of it:\n{}",
                contents(&made)
            );
            return self.broken(Invariant::Convergence, detail);
        }
        let sides = counters(&made);
        let counted: i64 = sides.iter().sum();
        let written = self.ledger.sum(document, all);
        let is_short = counted < written || (sides.len() < 2 && counted > written);
        if is_short {
            let detail =
                format!("the counter of document {document} is {counted}; users added {written}");
            self.broken(Invariant::NoSilentLoss, detail);
        }
        self.check_disputes(document, &made, held);
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
            let stats = process.brain.stats();
            let limits = self.limits();
            let orphans_max = limits.orphans * usize::from(self.plan.documents);
            // One message may lie on top of a queue that is almost full.
            let queue_max = (limits.queue_bytes + self.largest_message) * stats.connections.max(1);
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
            self.check_waiting(id);
            if stats.jobs > self.jobs_under_way(id) {
                let who = self.nodes[id].label();
                let detail = format!("{who}: a job that has ended keeps its slot");
                return self.broken(Invariant::Progress, detail);
            }
            if let Some(over) = over {
                let who = self.nodes[id].label();
                self.broken(Invariant::Bounds, format!("{who}: {over}"));
            }
        }
    }
}
