//! Users who edit alone: what they ask of relays, and whether what relays say is true.

use concord::replica::ConnectionId;
use concord_protocol::{LeaseAction, LeaseRequest, Message, SessionId, codec};

use super::{NodeId, World};
use crate::{
    ledger::Invariant,
    plan::{Name, Tenure},
};

/// Milliseconds of a lease in a world: some run out before they are renewed.
const LEASE_MS: u32 = 20_000;

impl World<'_> {
    /// A user asks a relay for something, if there is a connection that can be asked.
    pub(super) fn lease(&mut self, peer: u8, relay: u8, document: u8, act: Tenure) {
        let id = self.node_of(Name::Peer(peer));
        let Some(over) = self.connection_to(id, relay).filter(|_| self.speaks_concord(peer)) else {
            return;
        };
        let target = self.node_of(Name::Relay(relay));
        let Some(target) = self.nodes[target].process.as_ref().map(|there| there.peer.clone())
        else {
            return;
        };
        let Some(process) = &mut self.nodes[id].process else { return };
        process.asked += 1;
        let fence = process.fences.get(&(relay, document)).copied().unwrap_or_default();
        let (action, fence) = match act {
            Tenure::Acquire => (LeaseAction::Acquire, 0),
            Tenure::Renew => (LeaseAction::Renew, fence),
            Tenure::Release => (LeaseAction::Release, fence),
            Tenure::TakeOver => (LeaseAction::TakeOver, 0),
        };
        let request = LeaseRequest { id: process.asked, action, for_ms: LEASE_MS, fence };
        let sender = process.peer.clone();
        let document = self.documents[usize::from(document)].clone();
        let message = Message::Lease { document, sender, target, request };
        self.send(id, over, &codec::encode(&message));
    }

    /// What a relay says of a lease must agree with all that was said before.
    pub(super) fn examine_lease(&mut self, id: NodeId, to: ConnectionId, message: &Message) {
        let Message::LeaseState { document, target, state, .. } = message else { return };
        let Some(holder) = &state.holder else { return };
        let document = self.document_number(document);
        let theirs: Option<SessionId> = target.as_str().parse().ok();
        let told =
            self.ledger.tenures.told((id, document), self.now_us, (to, theirs.as_ref()), holder);
        if let Err(detail) = told {
            let who = self.nodes[id].label();
            self.broken(Invariant::OneLease, format!("{who}, document {document}: {detail}"));
        }
    }

    /// A message about a lease has come to a node.
    pub(super) fn lease_came(&mut self, id: NodeId, message: &Message) {
        match message {
            Message::Lease { document, sender, request, .. } => {
                let place = (id, self.document_number(document));
                let session: Option<SessionId> = sender.as_str().parse().ok();
                match request.action {
                    LeaseAction::TakeOver => self.ledger.tenures.ended(place, None),
                    // One that held it before the relay started may come back for it.
                    LeaseAction::Renew if request.fence > 0 && self.has_just_started(id) => {
                        self.ledger.tenures.ended(place, None);
                    }
                    LeaseAction::Release => self.ledger.tenures.ended(place, session.as_ref()),
                    _ => {}
                }
            }
            Message::LeaseState { document, sender, state, .. } => {
                let Some(holder) = &state.holder else { return };
                let document = self.document_number(document);
                let mut relays = self.nodes.iter().filter_map(|node| match node.name {
                    Name::Relay(relay) => Some((relay, node.process.as_ref()?.peer.clone())),
                    Name::Peer(_) => None,
                });
                let relay = relays.find(|(_, peer)| peer == sender).map(|(relay, _)| relay);
                drop(relays);
                let Some((relay, process)) = relay.zip(self.nodes[id].process.as_mut()) else {
                    return;
                };
                if holder.who.session.as_str() == process.peer.as_str() {
                    process.fences.insert((relay, document), holder.fence);
                }
            }
            _ => {}
        }
    }

    /// Whether a relay still waits for those who held leases before it started.
    fn has_just_started(&self, id: NodeId) -> bool {
        let grace_us = u64::from(concord_protocol::limits::LEASE_GRACE_MS) * super::MS;
        let started_us = self.nodes[id].process.as_ref().map(|process| process.started_us);
        started_us.is_some_and(|at_us| self.now_us < at_us + grace_us)
    }
}
