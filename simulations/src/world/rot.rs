//! Bit rot, and what is asked of a node whose disk rotted: no promise of what it had, but that it
//! finds out when it is asked, has all again that others have, and told its user.

use super::{NodeId, World, node::Node, user};
use crate::{
    coverage::State,
    plan::{Keep, Name},
};

/// The kinds of rows, by the number in their keys.
const KINDS: [&str; 7] =
    ["row", "meta row", "index root", "index page", "snapshot", "change", "quarantined row"];
/// Where the kind is in a key, from its end.
const KIND_FROM_END: usize = 41;

impl World<'_> {
    pub(super) fn rot(&mut self, name: Name, choice: u64) {
        let id = self.node_of(name);
        let Some(key) = self.nodes[id].disk.rot(choice) else { return };
        self.fault("bit rot", &[name], 0);
        let kind = key.len().checked_sub(KIND_FROM_END).and_then(|at| key.get(at));
        let kind = kind.and_then(|kind| KINDS.get(usize::from(*kind))).unwrap_or(&KINDS[0]);
        self.did(id, || format!("has a {kind} rot on its disk"));
        self.nodes[id].is_rotten = true;
        self.ledger.forgive(id);
    }

    /// The engine tells the program that a document lost a part: what is shown may be more than
    /// what is stored, which follows.
    pub(super) fn damaged(&mut self, id: NodeId, document: u8, reason: &str) {
        let Some(process) = &mut self.nodes[id].process else { return };
        if user::begin_again(&mut process.user, document) {
            self.told_of_damage(id, document, reason);
        }
    }

    /// A user was told that a part of a document is gone from their disk.
    pub(super) fn told_of_damage(&mut self, id: NodeId, document: u8, reason: &str) {
        self.did(id, || format!("is told that document {document} is damaged: {reason}"));
        let Name::Peer(peer) = self.nodes[id].name else { return };
        self.met(State::ToldOfDamage);
        let left = self.stored(id, document).unwrap_or_default();
        self.ledger.told(peer, document, &left);
    }

    /// Has everything read that rotted: damage that nobody meets is damage all the same. Gives
    /// whether there was any.
    pub(super) fn have_rot_found(&mut self) -> bool {
        let rotten: Vec<NodeId> =
            (0..self.nodes.len()).filter(|id| self.nodes[*id].is_rotten).collect();
        for id in &rotten {
            self.end(*id, Keep::Everything);
            self.cut_all(*id, false);
            if let Name::Peer(_) = self.nodes[*id].name {
                self.nodes[*id].wanted.fill(true);
            }
            self.start(*id);
        }
        // Somebody who has nothing asks each relay for everything.
        for id in &rotten {
            if let Name::Relay(relay) = self.nodes[*id].name {
                let joiners = self.nodes.len() - usize::from(self.plan.relays + self.plan.peers);
                let number = self.plan.peers.saturating_add(u8::try_from(joiners).unwrap_or(0));
                let mut joiner = Node::new(Name::Peer(number), self.plan);
                joiner.dials_only = Some(relay);
                joiner.wanted.fill(true);
                self.nodes.push(joiner);
                self.start(self.nodes.len() - 1);
            }
        }
        !rotten.is_empty()
    }
}
