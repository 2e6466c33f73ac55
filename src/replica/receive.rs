//! What came from outside: who it is for, whether it is acceptable, and where it goes.

use std::collections::VecDeque;

use bytes::Bytes;
use concord_protocol::{
    ChangeHash, CloseCode, DocumentId, Feature, Message, RefuseCode,
    guard::{self, ChangeHeader, ChunkKind, GuardError},
    sync::SyncMessage,
};

use super::{
    ConnectionId, Counted, Effect, LocalError, Published, Replica, Ticket,
    core::{Core, refused},
    document::{Document, Inbound},
    presence::document_of,
    uploads::Upload,
};

impl Replica {
    pub(super) fn received(&mut self, connection: ConnectionId, message: Message) {
        if self.core.peer(connection).is_none() {
            mark!(HeardWhileClosing, if self.core.connections.contains_key(&connection));
            return;
        }
        let subscribes = matches!(
            message,
            Message::Request { .. } | Message::Sync { .. } | Message::Ephemeral { .. }
        );
        if subscribes && let Some(document) = document_of(&message) {
            let document = document.clone();
            if self.is_pushed(connection, &document) || !self.subscribe(connection, &document) {
                return;
            }
        }
        match message {
            Message::Request { document, data, .. } => self.sync(connection, document, &data, true),
            Message::Sync { document, data, .. } => self.sync(connection, document, &data, false),
            Message::DocUnavailable { document, .. } => self.unavailable(connection, &document),
            Message::Ephemeral { document, sender, count, session, data, .. } => {
                if let Some(document) = self.documents.get_mut(&document) {
                    let from = Some(connection);
                    document.ephemeral(&mut self.core, from, &sender, count, &session, &data);
                }
            }
            Message::RemoteSubscriptionChange { add, remove, .. } => {
                self.follow(connection, add, &remove);
            }
            Message::RemoteHeadsChanged { document, heads, .. } => {
                if let Some(document) = self.documents.get_mut(&document)
                    && document.readers.contains_key(&connection)
                {
                    for remote in heads {
                        let (store, at) = (remote.storage_id, remote.timestamp_ms);
                        // Nobody else speaks for our own store.
                        if Some(&store) == self.core.config.metadata.storage_id.as_ref() {
                            continue;
                        }
                        let from = Some(connection);
                        document.remote_heads_changed(
                            &mut self.core,
                            from,
                            &store,
                            remote.heads,
                            at,
                        );
                    }
                }
            }
            Message::Ack { document, ack, .. } => {
                let Some(document) = self.documents.get_mut(&document) else {
                    return;
                };
                if !document.readers.contains_key(&connection) {
                    return;
                }
                let gone = ack.refused.iter().find(|refused| refused.code == RefuseCode::Deleted);
                if let Some(reader) = document.readers.get_mut(&connection)
                    && let Some(gone) = gone
                {
                    reader.gone = Some(Box::new(gone.clone()));
                }
                let state = self.core.connections.get(&connection);
                let is_told = state.is_some_and(|state| state.info.dialled) || document.opened;
                for refused in ack.refused.iter().filter(|_| is_told) {
                    // What has no name there is among what only we have.
                    let named = refused.hash.map_or_else(|| document.durable(), |hash| vec![hash]);
                    for hash in named.into_iter().filter(|hash| !ack.durable.contains(hash)) {
                        let (code, reason) = (refused.code, refused.reason.clone());
                        let told = Published::Refused { hash, code, reason };
                        self.core.effect(Effect::Publish(document.id.clone(), told));
                    }
                }
                document.push(&mut self.core, Inbound::Acked(connection, ack.durable));
            }
            Message::Lease { document, request, .. } => {
                self.lease_asked(connection, &document, request);
            }
            Message::Unsubscribe { document, .. } => self.unsubscribed(connection, &document),
            Message::Leave { .. } => {
                self.core.close(connection, CloseCode::Normal, "left");
            }
            // Between the ends of a connection, or of a later version: nothing of documents.
            Message::Error { .. }
            | Message::GoAway { .. }
            | Message::Schema { .. }
            | Message::Call(_)
            | Message::Answer(_)
            | Message::Event { .. }
            | Message::HangUp { .. }
            | Message::LeaseState { .. }
            | Message::Unknown { .. } => {}
            _ => {
                self.core
                    .bad_message(connection, "a message that has no place after the handshake");
            }
        }
    }

    /// Whether a relay that we dialled speaks of a document that nobody here ever asked for: it is
    /// told of all that are stored or open here. What it wants us to have besides is not kept.
    fn is_pushed(&self, connection: ConnectionId, document: &DocumentId) -> bool {
        let state = self.core.connections.get(&connection);
        state.is_some_and(|state| state.info.dialled && !state.documents.contains(document))
    }

    /// Subscribes a connection to a document, if it may have one more.
    fn subscribe(&mut self, connection: ConnectionId, document: &DocumentId) -> bool {
        let Some(state) = self.core.connections.get_mut(&connection) else {
            return false;
        };
        if state.documents.contains(document) {
            return true;
        }
        if state.documents.len() >= self.core.config.limits.documents_per_connection {
            // A relay is told of no more than it takes: see `Replica::has_room`.
            if !state.info.dialled {
                self.core.bad_message(connection, "subscribed to too many documents");
            }
            return false;
        }
        mark!(BackAfterSnapshot, after LostWithSnapshot, of (&state.info.peer, document));
        let (core, document) = self.document(document.clone());
        document.readers.add(connection);
        if let Some(state) = core.connections.get_mut(&connection) {
            // The document's own name, which is shared, not another copy of it.
            state.documents.insert(document.id.clone());
        }
        let stores: Vec<_> = document.remote_heads.keys().cloned().collect();
        for store in stores {
            document.tell_remote_heads(core, connection, &store);
        }
        let id = document.id.clone();
        core.tell_if_held(connection, &id);
        true
    }

    /// Whoever dialled us wants to hear nothing more of a document.
    fn unsubscribed(&mut self, connection: ConnectionId, document: &DocumentId) {
        let state = self.core.connections.get_mut(&connection);
        if state.is_some_and(|state| !state.info.dialled && state.documents.remove(document)) {
            self.lost_reader(connection, document);
        }
    }

    /// See [`super::Event::Unsubscribe`]. What the relay says before it hears of it is as if it had
    /// not been said: it says all of it again when it is asked again.
    pub(super) fn unsubscribe(&mut self, connection: ConnectionId, id: &DocumentId) {
        let Some(state) = self.core.connections.get_mut(&connection) else { return };
        let takes = state.info.concord && state.info.metadata.features.has(Feature::Unsubscribe);
        let is_to_come = self.documents.get(id).is_some_and(|document| document.awaits(connection));
        if !state.info.dialled || !takes || is_to_come || !state.documents.remove(id) {
            return;
        }
        self.lost_reader(connection, id);
        let Some(target) = self.core.peer(connection).cloned() else { return };
        let (document, sender) = (id.clone(), self.core.config.us.clone());
        self.core.send_message(connection, &Message::Unsubscribe { document, sender, target });
    }

    fn sync(&mut self, connection: ConnectionId, id: DocumentId, data: &Bytes, request: bool) {
        self.core.count(Counted::SyncReceived);
        let mut message = match SyncMessage::decode(data, &self.core.config.limits) {
            Ok(message) => message,
            Err(error) => {
                return self.core.bad_message(connection, &format!("a bad sync message: {error}"));
            }
        };
        let (core, document) = self.document(id);
        let is_empty_handed = message.changes.is_empty();
        let mut changes = VecDeque::with_capacity(message.changes.len());
        let mut uploaded = Vec::new();
        for run in std::mem::take(&mut message.changes) {
            let chunks = match guard::split(&run, &core.config.limits) {
                Ok(chunks) => chunks,
                Err(error) => {
                    return core.bad_message(connection, &format!("a bad chunk: {error}"));
                }
            };
            for chunk in chunks {
                let checked = match chunk.kind {
                    ChunkKind::Document => guard::check_document(&chunk.bytes, &core.config.limits)
                        .map(|()| {
                            uploaded.push(chunk.bytes.clone());
                        }),
                    _ => guard::check_change(&chunk.bytes, &core.config.limits).map(|header| {
                        changes.push_back((header, chunk.bytes.clone()));
                    }),
                };
                if let Err(error) = checked {
                    // It is not asked for its heads again: what they stand for was just refused.
                    let heads = &message.heads;
                    document.refuse_malformed(core, connection, &chunk.bytes, &error, heads);
                }
            }
        }
        if let Some(reader) = document.readers.get_mut(&connection) {
            reader.asks |= request;
            reader.empty_handed |= is_empty_handed;
        }
        // The changes first: what the peer says of itself counts them as ours.
        if !uploaded.is_empty() {
            let heads = message.heads.clone();
            document
                .upload(core, Upload { from: connection, heads, chunks: uploaded, tail: changes });
        } else if !changes.is_empty() {
            push_changes(core, document, connection, changes);
        }
        document.push(core, Inbound::Said(connection, Box::new(message)));
    }

    /// A relay that we dialled has nothing of a document.
    fn unavailable(&mut self, connection: ConnectionId, id: &DocumentId) {
        let dialled = self.core.connections.get(&connection).is_some_and(|c| c.info.dialled);
        let Some(document) = self.documents.get_mut(id) else {
            return;
        };
        let empty = document.graph().is_none_or(super::graph::Graph::is_empty);
        if dialled && document.opened && empty {
            self.core.effect(Effect::Publish(id.clone(), Published::Unavailable));
        }
    }

    /// A connection wants, or no longer wants, to hear of heads in these stores.
    fn follow(
        &mut self,
        connection: ConnectionId,
        add: Vec<concord_protocol::StorageId>,
        remove: &[concord_protocol::StorageId],
    ) {
        let limit = self.core.config.limits.remote_subscriptions;
        let Some(state) = self.core.connections.get_mut(&connection) else {
            return;
        };
        for store in remove {
            state.remotes.remove(store);
        }
        let mut added = Vec::new();
        for store in add {
            if state.remotes.len() >= limit {
                break;
            }
            if state.remotes.insert(store.clone()) {
                added.push(store);
            }
        }
        let ours = self.core.config.metadata.storage_id.clone();
        let documents: Vec<DocumentId> = state.documents.iter().cloned().collect();
        for document in documents {
            let Some(document) = self.documents.get_mut(&document) else {
                continue;
            };
            for store in &added {
                if Some(store) == ours.as_ref() && !document.durable().is_empty() {
                    document.durable_changed(&mut self.core);
                } else {
                    document.tell_remote_heads(&mut self.core, connection, store);
                }
            }
        }
    }

    /// Tells a relay that we dialled of a document.
    pub(super) fn sync_with(&mut self, connection: ConnectionId, id: DocumentId) {
        let dialled = self.core.connections.get(&connection).is_some_and(|c| c.info.dialled);
        if !dialled || !self.subscribe(connection, &id) {
            return;
        }
        let (core, document) = self.document(id);
        if let Some(reader) = document.readers.get_mut(&connection) {
            reader.dirty = true;
        }
        document.unconfirmed = true;
        document.drive(core);
    }

    /// Sends the relays that we dialled once more what they do not have.
    pub(super) fn resend(&mut self, id: &DocumentId) {
        let connections = self.core.connections.iter();
        let dialled = connections.filter(|(_, state)| state.info.dialled).map(|(id, _)| *id);
        for connection in dialled.collect::<Vec<_>>() {
            self.sync_with(connection, id.clone());
            if let Some(document) = self.documents.get_mut(id)
                && let Some(reader) = document.readers.get_mut(&connection)
            {
                reader.forget_sent();
                reader.is_forgotten = reader.their_heads.is_none();
            }
        }
    }

    /// A program in this process made a change.
    pub(super) fn local_change(&mut self, ticket: Ticket, id: DocumentId, bytes: Bytes) {
        match guard::check_change(&bytes, &self.core.config.limits) {
            Ok(header) => {
                let (core, document) = self.document(id);
                document.push(core, Inbound::Local(ticket, Box::new(header), bytes));
            }
            Err(error) => {
                let (code, reason) = (RefuseCode::Malformed, error.to_string());
                let refusal = LocalError::Refused { code, reason };
                self.core.effect(Effect::LocalDone(ticket, Err(refusal)));
            }
        }
    }
}

impl Document {
    /// Refuses bytes that are no change, by their name where they have one: so its writer knows
    /// which, and what builds on it is refused with it. It stands for these heads, too.
    pub(super) fn refuse_malformed(
        &mut self,
        core: &mut Core,
        from: ConnectionId,
        chunk: &Bytes,
        error: &GuardError,
        heads: &[ChangeHash],
    ) {
        mark!(MalformedRefused);
        let name = guard::name_of_change(chunk, &core.config.limits);
        let refusal = refused(name, RefuseCode::Malformed, error.to_string());
        core.refuse(from, &self.id, refusal, self.durable());
        if let Some(reader) = self.readers.get_mut(&from) {
            reader.refuse(heads.iter().copied().chain(name));
        }
    }
}

fn push_changes(
    core: &mut Core,
    document: &mut Document,
    connection: ConnectionId,
    changes: VecDeque<(ChangeHeader, Bytes)>,
) {
    document.push(core, Inbound::Changes { from: Some(connection), changes, checked: false });
}
