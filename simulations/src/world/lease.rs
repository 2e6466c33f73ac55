//! Users who edit alone: what they ask of relays, and whether what relays say is true.

use concord::replica::ConnectionId;
use concord_protocol::{LeaseAction, LeaseHolder, LeaseRequest, Message, SessionId, codec};

use super::{NodeId, World};
use crate::{
    ledger::Invariant,
    plan::{Name, Tenure},
};

/// Milliseconds of a lease that a user renews, or not: some run out before.
const LEASE_MS: u32 = 20_000;
/// Milliseconds of a lease of the production peer, which renews it: far more than a relay waits for a
/// holder that it does not hear.
const LONG_LEASE_MS: u32 = 60_000;

impl World<'_> {
    /// A user asks a relay for something, if there is a connection that can be asked.
    pub(super) fn lease(&mut self, peer: u8, relay: u8, document: u8, act: Tenure) {
        let id = self.node_of(Name::Peer(peer));
        if self.is_author(id) {
            return self.author_lease(id, document, act);
        }
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

    /// A program on the production peer, which asks the relay that it has, and renews by itself.
    fn author_lease(&mut self, id: NodeId, document: u8, act: Tenure) {
        let now = self.nodes[id].now(self.now_us);
        let name = self.documents[usize::from(document)].clone();
        let Some(process) = &mut self.nodes[id].process else { return };
        let Some(peer) = process.brain.as_peer() else { return };
        match act {
            Tenure::Acquire => peer.lease(now, &name, false, LONG_LEASE_MS),
            Tenure::TakeOver => peer.lease(now, &name, true, LONG_LEASE_MS),
            Tenure::Release => peer.give_back(now, &name),
            Tenure::Renew => return,
        }
        self.carry_out(id);
    }

    /// Programs have done what they wanted to do alone: as long as one holds a lease, it asks for it
    /// again and again.
    pub(super) fn give_back_leases(&mut self) {
        for id in 0..self.nodes.len() {
            let now = self.nodes[id].now(self.now_us);
            let Some(process) = &mut self.nodes[id].process else { continue };
            let Some(peer) = process.brain.as_peer() else { continue };
            peer.give_back_all(now);
            self.carry_out(id);
        }
    }

    /// What a relay says of a lease must agree with all that was said before.
    pub(super) fn examine_lease(&mut self, id: NodeId, to: ConnectionId, message: &Message) {
        let Message::LeaseState { document, target, state, .. } = message else { return };
        let Some(holder) = &state.holder else { return };
        let document = self.document_number(document);
        let theirs: Option<SessionId> = target.as_str().parse().ok();
        let told =
            self.ledger.tenures.told((id, document), self.now_us, (to, theirs.as_ref()), holder);
        let told = match told {
            Ok(is_new) if is_new => self.examine_others(id, document, holder),
            told => told.map(|_| ()),
        };
        if let Err(detail) = told {
            let who = self.nodes[id].label();
            self.broken(Invariant::OneLease, format!("{who}, document {document}: {detail}"));
        }
    }

    /// A relay grants a lease: nobody else may take it for its own, unless it was taken from them and
    /// they do not know yet.
    fn examine_others(
        &mut self,
        relay: NodeId,
        document: u8,
        holder: &LeaseHolder,
    ) -> Result<(), String> {
        let Name::Relay(number) = self.nodes[relay].name else { return Ok(()) };
        let name = self.documents[usize::from(document)].clone();
        for id in 0..self.nodes.len() {
            let mut now = self.nodes[id].now(self.now_us);
            // Clocks of processes count whole milliseconds, from a start between two.
            now.mono_ms += 2;
            let Some(process) = &mut self.nodes[id].process else { continue };
            let granted = process.fences.get(&(number, document)).copied();
            let session: Option<SessionId> = process.peer.as_str().parse().ok();
            let Some(peer) = process.brain.as_peer() else { continue };
            let Some(session) = session.filter(|session| *session != holder.who.session) else {
                continue;
            };
            let held = peer.holds(now, &name);
            if held.is_some()
                && held == granted
                && !self.ledger.tenures.was_taken((relay, document), &session)
            {
                return Err(format!(
                    "{} was granted fence {} while {session} took it for its own",
                    holder.who.session, holder.fence
                ));
            }
        }
        Ok(())
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
                    if process.brain.as_peer().is_some() {
                        // It has one at a time, of whichever relay answered last.
                        process.fences.retain(|(_, of), _| *of != document);
                    }
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
