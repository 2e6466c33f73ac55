//! What is passed on and not kept: ephemeral messages, and news of heads in other stores.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use concord_protocol::{
    Ack, ChangeHash, DocumentId, Message, PeerId, RemoteHeads, SessionId, StorageId, codec,
};

use super::{ConnectionId, Counted, Effect, Published, core::Core, document::Document};

/// Stores whose heads are remembered, a document.
const STORES_MAX: usize = 256;

/// Heads that are believed of another store.
const REMOTE_HEADS_MAX: usize = 64;

/// Sessions that are remembered in open documents, each in each.
const HEARD_MAX: usize = 4_096;

/// What a program has heard of presence in the documents that it has open, over whatever connection:
/// who uses two relays hears most of it twice, and what was said before what is known as well.
#[derive(Debug, Default)]
pub(super) struct Heard {
    counts: BTreeMap<(DocumentId, SessionId), u64>,
    /// Those that came first, first.
    order: VecDeque<(DocumentId, SessionId)>,
}

impl Heard {
    /// Whether this is newer than all that is known of its session in this document.
    fn is_news(&mut self, document: &DocumentId, session: &SessionId, count: u64) -> bool {
        let key = (document.clone(), session.clone());
        if let Some(last) = self.counts.get_mut(&key) {
            let is_news = count > *last || mutant!(RepeatPresence);
            *last = count.max(*last);
            return is_news;
        }
        if self.counts.len() >= HEARD_MAX
            && let Some(first) = self.order.pop_front()
        {
            self.counts.remove(&first);
        }
        self.order.push_back(key.clone());
        self.counts.insert(key, count);
        true
    }
}

impl Document {
    /// Passes an ephemeral message on to everybody else who holds the document.
    pub(super) fn ephemeral(
        &mut self,
        core: &mut Core,
        from: Option<ConnectionId>,
        origin: &PeerId,
        count: u64,
        session: &SessionId,
        data: &Bytes,
    ) {
        if let Some(from) = from
            && (!core.fresh_ephemeral(from, session, count)
                || self.opened && !core.heard.is_news(&self.id, session, count))
        {
            core.count(Counted::EphemeralDropped(1));
            return;
        }
        if let Some(from) = from {
            core.showed_itself(from, &self.id);
        }
        if self.opened && from.is_some() {
            let told = Published::Ephemeral { sender: origin.clone(), data: data.clone() };
            core.effect(Effect::Publish(self.id.clone(), told));
        }
        let (mut forwarded, mut dropped) = (0, 0);
        for connection in self.readers.keys().filter(|connection| Some(**connection) != from) {
            let Some(target) = core.peer(*connection).cloned() else {
                continue;
            };
            if !core.has_room_for_presence(*connection) {
                dropped += 1;
                continue;
            }
            forwarded += 1;
            core.send_message(
                *connection,
                &Message::Ephemeral {
                    document: self.id.clone(),
                    sender: origin.clone(),
                    target,
                    count,
                    session: session.clone(),
                    data: data.clone(),
                },
            );
        }
        if forwarded > 0 {
            core.count(Counted::EphemeralForwarded(forwarded));
        }
        if dropped > 0 {
            core.count(Counted::EphemeralDropped(dropped));
        }
    }

    /// A peer said what its heads are: those who follow its store hear of it.
    pub(super) fn heard(&mut self, core: &mut Core, connection: ConnectionId) {
        let Some(state) = core.connections.get(&connection) else {
            return;
        };
        let metadata = &state.info.metadata;
        let reader = self.readers.get(&connection);
        let heads = reader.and_then(|reader| reader.their_heads.as_ref());
        let Some(heads) = heads.map(|heads| heads.to_vec()) else { return };
        if let Some(storage) = metadata.storage_id.clone()
            && metadata.is_ephemeral != Some(true)
        {
            self.remote_heads_changed(core, Some(connection), &storage, heads, now_ms(core));
        }
        self.publish_heard(core, connection);
    }

    /// Tells the program what a relay that we dialled last said of its heads.
    pub(super) fn publish_heard(&self, core: &mut Core, connection: ConnectionId) {
        let state = core.connections.get(&connection);
        if !self.opened || !state.is_some_and(|state| state.info.dialled) {
            return;
        }
        let reader = self.readers.get(&connection);
        let heads = reader.and_then(|reader| reader.their_heads.as_ref());
        let Some(heads) = heads.map(|heads| heads.to_vec()) else { return };
        let ack = Ack { applied: heads.clone(), durable: heads, refused: Vec::new() };
        core.effect(Effect::Publish(self.id.clone(), Published::RelayHas { connection, ack }));
    }

    /// Heads of a store changed: remembers them and tells those who follow the store.
    pub(super) fn remote_heads_changed(
        &mut self,
        core: &mut Core,
        from: Option<ConnectionId>,
        storage: &StorageId,
        mut heads: Vec<ChangeHash>,
        timestamp_ms: f64,
    ) {
        heads.truncate(REMOTE_HEADS_MAX);
        let newer = self
            .remote_heads
            .get(storage)
            .is_none_or(|(known, at)| timestamp_ms > *at && *known != heads);
        if !newer || !timestamp_ms.is_finite() {
            return;
        }
        if self.remote_heads.len() >= STORES_MAX && !self.remote_heads.contains_key(storage) {
            self.remote_heads.pop_first();
        }
        self.remote_heads.insert(storage.clone(), (heads, timestamp_ms));
        for connection in self.readers.keys().filter(|connection| Some(**connection) != from) {
            self.tell_remote_heads(core, *connection, storage);
        }
    }

    /// Tells one connection of one store's heads, if it follows that store.
    pub(super) fn tell_remote_heads(
        &self,
        core: &mut Core,
        connection: ConnectionId,
        storage: &StorageId,
    ) {
        let Some((heads, timestamp_ms)) = self.remote_heads.get(storage) else {
            return;
        };
        let Some(state) = core.connections.get(&connection) else {
            return;
        };
        if !state.remotes.contains(storage) || !core.has_room(connection) {
            return;
        }
        let message = Message::RemoteHeadsChanged {
            document: self.id.clone(),
            sender: core.config.us.clone(),
            target: state.info.peer.clone(),
            heads: vec![RemoteHeads {
                storage_id: storage.clone(),
                heads: heads.clone(),
                timestamp_ms: *timestamp_ms,
            }],
        };
        core.send(connection, codec::encode(&message));
    }

    /// More of ours is on disk: those who follow our store hear of it, as does the program in
    /// this process.
    pub(super) fn durable_changed(&mut self, core: &mut Core) {
        let durable = self.durable();
        if self.opened {
            core.effect(Effect::Publish(self.id.clone(), Published::Durable(durable.clone())));
        }
        let Some(ours) = core.config.metadata.storage_id.clone() else {
            return;
        };
        let followed = |connection: &ConnectionId| {
            core.connections.get(connection).is_some_and(|state| state.remotes.contains(&ours))
        };
        if self.readers.keys().any(followed) {
            // Ours only move forward, whatever the clock says.
            let at = self.remote_heads.get(&ours).map_or(0.0, |(_, at)| at + 1.0).max(now_ms(core));
            self.remote_heads_changed(core, None, &ours, durable, at);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit a float's 53 bits")]
fn now_ms(core: &Core) -> f64 {
    core.now.wall_ms as f64
}

/// The document of a message, if it is about one.
pub(super) fn document_of(message: &Message) -> Option<&DocumentId> {
    match message {
        Message::Request { document, .. }
        | Message::Sync { document, .. }
        | Message::DocUnavailable { document, .. }
        | Message::Ephemeral { document, .. }
        | Message::RemoteHeadsChanged { document, .. }
        | Message::Ack { document, .. } => Some(document),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: usize) -> SessionId {
        format!("session-{number}").parse().unwrap()
    }

    #[test]
    fn what_comes_over_two_connections_is_news_once_and_what_is_older_never() {
        let mut heard = Heard::default();
        let [one, other] = [1, 2].map(|n| DocumentId::from_bytes(&[n; 16]));
        assert!(heard.is_news(&one, &session(1), 5));
        for old in [5, 4] {
            assert!(!heard.is_news(&one, &session(1), old));
        }
        // Another document may have come over one of them alone.
        assert!(heard.is_news(&other, &session(1), 4));
        assert!(heard.is_news(&one, &session(2), 1));
        assert!(heard.is_news(&one, &session(1), 6));
    }

    #[test]
    fn what_is_remembered_has_an_end() {
        let mut heard = Heard::default();
        let document = DocumentId::from_bytes(&[1; 16]);
        for number in 0..HEARD_MAX + 10 {
            assert!(heard.is_news(&document, &session(number), 1));
        }
        assert_eq!((heard.counts.len(), heard.order.len()), (HEARD_MAX, HEARD_MAX));
        assert!(!heard.is_news(&document, &session(10), 1));
        assert!(heard.is_news(&document, &session(9), 1), "forgotten");
    }
}
