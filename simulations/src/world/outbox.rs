//! What a peer's outbox must say: at a start that something is on its way whatever of it outlived
//! the end before, and in the calm that nothing is.

use concord::peer::OutboxState;

use super::{NodeId, World, kept::Kept, short};
use crate::{
    coverage::State,
    ledger::Invariant,
    opaque::Hashes,
    plan::{Name, Profile},
};

impl World<'_> {
    /// Whether a node runs a version that wrote meta rows in the first format and kept no outbox.
    pub(super) fn is_earlier_version(&self, id: NodeId) -> bool {
        self.nodes[id].life <= self.plan.settings.first_format_lives
    }

    /// A peer has read what its outbox was: what no relay has on its disk is in it.
    pub(super) fn check_recalled_outbox(&mut self, id: NodeId) {
        let Name::Peer(peer) = self.nodes[id].name else { return };
        let Some(listed) = self.outbox_documents(id).filter(|_| self.nodes[id].is_outbox_due)
        else {
            return;
        };
        self.nodes[id].is_outbox_due = false;
        if self.nodes.iter().any(|node| node.is_rotten) || self.ledger.attacked > 0 {
            return;
        }
        for document in 0..self.plan.documents {
            if listed.contains(&self.documents[usize::from(document)]) {
                self.met(State::OutboxRecalled);
                continue;
            }
            let Ok(Kept { sound: ours, .. }) = self.kept(id, document) else { continue };
            let relays = 0..usize::from(self.plan.relays);
            let theirs: Result<Vec<Hashes>, String> =
                relays.map(|relay| self.kept(relay, document).map(|kept| kept.sound)).collect();
            // A relay that is down or busy may have it.
            let Ok(theirs) = theirs else { continue };
            let is_nowhere =
                |hash: &_| ours.contains(hash) && theirs.iter().all(|r| !r.contains(hash));
            let is_own = |hash: &_| self.ledger.who(hash).is_some_and(|made| made.peer == peer);
            let forgotten =
                self.ledger.promised(document).find(|hash| is_own(hash) && is_nowhere(hash));
            if let Some(hash) = forgotten {
                let detail = format!(
                    "peer {peer} has forgotten that no relay has {} of document {document}",
                    short(&hash)
                );
                return self.broken(Invariant::NoSilentLoss, detail);
            }
        }
    }

    /// All is the same everywhere: nothing is on its way, and outboxes know it.
    pub(super) fn check_outboxes(&mut self) {
        if self.plan.profile != Profile::Automerge || self.ledger.attacked > 0 {
            return;
        }
        for id in 0..self.nodes.len() {
            let Some(peer) = self.nodes[id].process.as_mut().and_then(|p| p.brain.as_peer()) else {
                continue;
            };
            let is_left = |state: &_| matches!(state, OutboxState::Pending | OutboxState::Sending);
            let outbox = peer.outbox();
            let waiting = outbox.iter().flatten().find(|entry| is_left(&entry.state)).cloned();
            if outbox.is_none() {
                let detail = format!("{} does not know its outbox", self.nodes[id].label());
                return self.broken(Invariant::Progress, detail);
            }
            if let Some(entry) = waiting {
                let who = self.nodes[id].label();
                let detail = format!(
                    "{who} still takes {:.6} for {:?}, and all have it",
                    entry.document, entry.state
                );
                return self.broken(Invariant::Convergence, detail);
            }
        }
    }

    fn outbox_documents(&mut self, id: NodeId) -> Option<Vec<concord_protocol::DocumentId>> {
        let peer = self.nodes[id].process.as_mut()?.brain.as_peer()?;
        Some(peer.outbox()?.into_iter().map(|entry| entry.document).collect())
    }
}
