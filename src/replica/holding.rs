//! What comes of leases: who is told, and whose changes are refused.

use concord_protocol::{
    ChangeHash, DocumentId, Feature, LeaseRequest, LeaseState, Message, RefuseCode, SessionId,
    guard::ChangeHeader,
};

use super::{
    ConnectionId, Replica,
    admission::Verdict,
    core::{Core, refused},
    document::Document,
    index::Missing,
    leases::Outcome,
};

impl Replica {
    /// Somebody asks something about a lease.
    pub(super) fn lease_asked(
        &mut self,
        connection: ConnectionId,
        document: &DocumentId,
        request: LeaseRequest,
    ) {
        let state = self.core.connections.get(&connection);
        let Some(state) = state.filter(|_| self.core.may_hold_leases(connection)) else {
            return;
        };
        let Some(who) = state.info.metadata.session.clone() else {
            return;
        };
        let now_ms = self.core.now.mono_ms;
        let outcome = self.core.leases.asked(now_ms, document, (connection, &who), request);
        self.lease_came_to(document, Some(connection), outcome);
    }

    /// Looks at the leases whose time may be up.
    pub(super) fn look_at_leases(&mut self) {
        let now_ms = self.core.now.mono_ms;
        while let Some(document) = self.core.leases.due(now_ms) {
            let outcome = self.core.leases.look(now_ms, &document);
            self.lease_came_to(&document, None, outcome);
        }
    }

    fn lease_came_to(&mut self, id: &DocumentId, asker: Option<ConnectionId>, outcome: Outcome) {
        let Outcome { answer, changed, lost, freed } = outcome;
        if let Some((asker, answer)) = asker.zip(answer) {
            self.core.tell_lease(asker, id, answer);
        }
        let document = self.documents.get_mut(id);
        if changed {
            let readers = document.iter().flat_map(|document| document.readers.keys().copied());
            let mut told: Vec<ConnectionId> = readers.chain(lost).collect();
            told.sort_unstable();
            told.dedup();
            let state = self.core.leases.state(self.core.now.mono_ms, id);
            for connection in told.into_iter().filter(|told| Some(*told) != asker) {
                self.core.tell_lease(connection, id, state.clone());
            }
        }
        let Some(document) = document else { return };
        for (connection, change) in freed {
            // Who speaks `concord.v1` has it among its dead letters, for somebody to decide.
            let state = self.core.connections.get(&connection);
            if state.is_some_and(|state| !state.info.concord)
                && let Some(reader) = document.readers.get_mut(&connection)
            {
                reader.take_back(&change);
                self.core.dirty.insert(id.clone());
            }
        }
    }
}

impl Core {
    /// Whether whoever is there may ask for leases, and is told of them.
    fn may_hold_leases(&self, connection: ConnectionId) -> bool {
        self.config.metadata.features.has(Feature::Leases)
            && self.connections.get(&connection).is_some_and(|state| {
                let info = &state.info;
                info.concord && !info.dialled && info.metadata.features.has(Feature::Leases)
            })
    }

    /// Tells one connection how a lease stands.
    fn tell_lease(&mut self, connection: ConnectionId, document: &DocumentId, state: LeaseState) {
        if !self.may_hold_leases(connection) {
            return;
        }
        let Some(target) = self.peer(connection).cloned() else { return };
        let (document, sender) = (document.clone(), self.config.us.clone());
        let message = Message::LeaseState { document, sender, target, state };
        self.send_message(connection, &message);
    }

    /// Tells somebody who opens a document that it is held, if it is.
    pub(super) fn tell_if_held(&mut self, connection: ConnectionId, document: &DocumentId) {
        if self.leases.is_held(self.now.mono_ms, document) {
            let state = self.leases.state(self.now.mono_ms, document);
            self.tell_lease(connection, document, state);
        }
    }

    /// The session at the other end of a connection, if it said one.
    fn session(&self, connection: ConnectionId) -> Option<&SessionId> {
        let state = self.connections.get(&connection)?;
        state.info.metadata.session.as_ref().map(|who| &who.session)
    }
}

impl Document {
    /// Decides about a change of whoever is there.
    pub(super) fn judge_of(
        &self,
        core: &Core,
        from: Option<ConnectionId>,
        header: &ChangeHeader,
    ) -> Result<Verdict, Missing> {
        let verdict = self.judge(header)?;
        if verdict == Verdict::Known {
            return Ok(verdict);
        }
        let kept_off = self.kept_off(core, from)?;
        Ok(kept_off.map_or(verdict, |reason| Verdict::Refuse(RefuseCode::Leased, reason)))
    }

    /// Why a change of whoever is there is not to be taken now, if its type requires a lease and
    /// somebody else holds it. Documents are of a type by the change that they begin with.
    fn kept_off(&self, core: &Core, from: Option<ConnectionId>) -> Result<Option<String>, Missing> {
        let (Some(from), Some(graph), false) =
            (from, self.graph(), core.config.leased_types.is_empty())
        else {
            return Ok(None);
        };
        let session = core.session(from);
        let Some(holder) = core.leases.keeps_off(core.now.mono_ms, &self.id, session) else {
            return Ok(None);
        };
        for begins in &core.config.leased_types {
            if graph.position(begins)?.is_some() {
                let who = holder.user.as_deref().unwrap_or("somebody");
                let device = holder.device.as_deref().map(|device| format!(" on {device}"));
                let device = device.unwrap_or_default();
                let reason = format!(
                    "{who}{device} holds the lease of it, which its type requires: try again when \
                     that is over, or take it over"
                );
                return Ok(Some(reason));
            }
        }
        Ok(None)
    }

    /// Says no to a change because of a lease. It is not held against the change later.
    pub(super) fn refuse_leased(
        &mut self,
        core: &mut Core,
        from: Option<ConnectionId>,
        change: ChangeHash,
        reason: String,
    ) {
        let Some(from) = from else { return };
        if let Some(reader) = self.readers.get_mut(&from) {
            reader.refuse([change]);
        }
        core.leases.refused(&self.id, from, change);
        let refusal = refused(Some(change), RefuseCode::Leased, reason);
        core.refuse(from, &self.id, refusal, self.durable());
    }
}
