//! What a document says: to its readers, to those who ask for it, to the program in this
//! process. Made when it is polled, so that everything taken in together is said together.

use bytes::{Bytes, BytesMut};
use concord_protocol::{
    Ack, ChangeHash, Message, Refused, codec,
    sync::{SyncMessage, SyncVersion},
};

use super::{
    ConnectionId, Counted, Effect, Published,
    core::{Core, Wake},
    document::Document,
    graph::Graph,
    index::Missing,
    jobs::Adopting,
    reader::{Parcel, Plan, Reader, asks_to_begin_again},
};

/// Milliseconds after which readers who sent nothing are told that more is on disk; a client
/// shows this as "on the server". Every change that is passed on before says it along.
const CONFIRM_MS: u64 = 100;

/// What is to be done for a reader.
#[derive(Debug, Clone)]
enum Outcome {
    Nothing,
    ConfirmLater,
    /// An encoded sync message; `heads_only` when it carries nothing but news of our heads.
    Data {
        data: Bytes,
        heads_only: bool,
        more: bool,
    },
}

/// What has to be there first.
enum Wait {
    Pages(Missing),
    Snapshot,
    Extract(Vec<ChangeHash>),
}

impl From<Missing> for Wait {
    fn from(missing: Missing) -> Self {
        Self::Pages(missing)
    }
}

impl Document {
    /// Writes and says what there is to write and say.
    pub(super) fn flush(&mut self, core: &mut Core) {
        self.write(core);
        if self.accepted > 0 {
            core.count(Counted::ChangesAccepted(std::mem::take(&mut self.accepted)));
        }
        self.publish_news(core);
        if self.graph().is_none() {
            if self.readers.values().any(|reader| reader.dirty || reader.asks) {
                mark!(LoadedForReader, if !self.is_resident());
                self.ensure_loading(core);
            }
            return;
        }
        if self.is_purged() {
            self.readers.values_mut().for_each(|reader| reader.dirty = false);
            return;
        }
        self.answer_askers(core);
        self.tell_confirmed(core);
        if core.held.contains(&self.id) {
            return;
        }
        let dirty: Vec<ConnectionId> =
            self.readers.iter().filter(|(_, reader)| reader.dirty).map(|(c, _)| *c).collect();
        let mut made: Vec<(Reader, Outcome, Reader)> = Vec::new();
        for connection in dirty {
            if !core.has_room(connection) {
                if mutant!(ToldWithoutSending) {
                    self.pretend(connection);
                }
                if let Some(state) = core.connections.get_mut(&connection) {
                    mark!(HeldBack, if !state.closing && !core.draining);
                    state.held_back.insert(self.id.clone());
                }
                continue;
            }
            if let Err(wait) = self.tell(core, connection, &mut made) {
                self.wait(core, connection, wait);
            }
        }
        self.await_word(core);
    }

    /// For `mutant!(ToldWithoutSending)`: the reader is taken to have been told.
    fn pretend(&mut self, connection: ConnectionId) {
        let Some(reader) = self.readers.get(&connection) else { return };
        if let Ok((_, mut after)) = self.make(reader) {
            after.dirty = false;
            if let Some(reader) = self.readers.get_mut(&connection) {
                *reader = after;
            }
        }
    }

    /// Tells one reader what there is to tell.
    fn tell(
        &mut self,
        core: &mut Core,
        connection: ConnectionId,
        made: &mut Vec<(Reader, Outcome, Reader)>,
    ) -> Result<(), Wait> {
        let Some(before) = self.readers.get(&connection) else {
            return Ok(());
        };
        let asks = before.asks;
        let known = made.iter().position(|(like, _, _)| like.alike(before));
        mark!(ToldAlike, if known.is_some_and(|at| matches!(made[at].1, Outcome::Data { .. })));
        let at = if let Some(at) = known {
            at
        } else {
            let (outcome, after) = self.make(before)?;
            made.push((Reader::clone(before), outcome, after));
            made.len() - 1
        };
        let (_, outcome, after) = &made[at];
        let mut after = after.clone();
        after.asks = asks && after.asks;
        after.dirty = matches!(outcome, Outcome::Data { more: true, .. });
        if let Some(graph) = self.graph() {
            after.share(graph);
        }
        if let Some(reader) = self.readers.get_mut(&connection) {
            *reader = after;
        }
        match outcome {
            Outcome::Nothing => {}
            Outcome::ConfirmLater => {
                if !self.confirm_set {
                    self.confirm_set = true;
                    core.wake_at(core.now.mono_ms + CONFIRM_MS, &self.id, Wake::Confirm);
                }
            }
            Outcome::Data { data, heads_only, more } => {
                self.send(core, connection, data, *heads_only);
                if *more {
                    core.dirty.insert(self.id.clone());
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, core: &mut Core, connection: ConnectionId, data: &[u8], heads_only: bool) {
        let Some(state) = core.connections.get(&connection) else {
            return;
        };
        let (us, peer) = (&core.config.us, &state.info.peer);
        let frame = if heads_only && state.info.concord {
            let durable = self.durable();
            codec::encode(&Message::Ack {
                document: self.id.clone(),
                sender: us.clone(),
                target: peer.clone(),
                ack: Ack { applied: durable.clone(), durable, refused: Vec::new() },
            })
        } else if state.info.dialled && self.graph().is_none_or(Graph::is_empty) {
            mark!(RequestSent);
            codec::encode(&Message::Request {
                document: self.id.clone(),
                sender: us.clone(),
                target: peer.clone(),
                data: Bytes::copy_from_slice(data),
            })
        } else {
            codec::encode_sync(&self.id, us, peer, data)
        };
        core.count(Counted::SyncSent);
        core.send(connection, frame);
    }

    /// Makes what one reader is told, and the reader as it is after that.
    fn make(&self, before: &Reader) -> Result<(Outcome, Reader), Wait> {
        let Some(graph) = self.graph() else {
            return Ok((Outcome::Nothing, before.clone()));
        };
        let mut after = before.clone();
        Ok(match before.plan(graph, &self.orphans, &self.refused)? {
            Plan::Nothing => {
                mark!(ToldNothing);
                mark!(ConfirmedNothing, if before.confirm);
                after.confirm = false;
                (Outcome::Nothing, after)
            }
            Plan::ConfirmLater => {
                mark!(ConfirmedLater);
                (Outcome::ConfirmLater, after)
            }
            Plan::Say { mut message, parcel } => {
                after.said(graph, &message, &parcel)?;
                message.changes = self.chunks(graph, &parcel, before.reads_v2())?;
                mark!(ToldChanges, if !parcel.tail.is_empty());
                mark!(ToldSnapshot, if parcel.snapshot);
                mark!(ToldExtract, if !parcel.extract.is_empty());
                mark!(OldReaderExtract, if !parcel.extract.is_empty() && !before.reads_v2());
                mark!(ToldInParts, if parcel.more);
                // An ack has no room for questions.
                let asks = !message.need.is_empty() || asks_to_begin_again(&message);
                let heads_only = message.changes.is_empty() && !asks && before.has_been_told();
                if before.reads_v2() {
                    message = join(message);
                }
                (Outcome::Data { data: message.encode(), heads_only, more: parcel.more }, after)
            }
        })
    }

    /// The chunks of a parcel, as they lie on disk.
    fn chunks(&self, graph: &Graph, parcel: &Parcel, v2: bool) -> Result<Vec<Bytes>, Wait> {
        let mut chunks = Vec::with_capacity(parcel.tail.len() + 1);
        if parcel.snapshot {
            chunks.push(self.jobs.snapshot().ok_or(Wait::Snapshot)?);
        }
        if !parcel.extract.is_empty() {
            let mut hashes = Vec::with_capacity(parcel.extract.len());
            for &position in &parcel.extract {
                hashes.push(graph.hash_at(position)?);
            }
            match self.jobs.extracted(&hashes) {
                Some(Ok(extracted)) => chunks.extend(extracted.iter().cloned()),
                Some(Err(())) if v2 => {
                    chunks.push(self.jobs.snapshot().ok_or(Wait::Snapshot)?);
                    mark!(ExtractFailed);
                }
                Some(Err(())) => {}
                None => return Err(Wait::Extract(hashes)),
            }
        }
        chunks.extend(parcel.tail.iter().filter_map(|at| graph.node(*at)).map(|n| n.bytes.clone()));
        Ok(chunks)
    }

    fn wait(&mut self, core: &mut Core, connection: ConnectionId, wait: Wait) {
        if let Some(reader) = self.readers.get_mut(&connection) {
            reader.dirty = true;
        }
        match wait {
            Wait::Pages(missing) => {
                if self.pages.is_none() {
                    mark!(PagesForReader);
                    self.read_pages(core, missing);
                }
            }
            Wait::Snapshot => self.want_snapshot(core),
            Wait::Extract(hashes) => self.start_extract(core, hashes),
        }
    }

    /// Tells those who ask for a document that there is none, unless it is on its way here.
    fn answer_askers(&mut self, core: &mut Core) {
        if self.graph().is_none_or(|graph| !graph.is_empty())
            || !self.readers.values().any(|reader| reader.asks)
        {
            return;
        }
        if self.is_arriving() {
            if !self.arrival_set {
                mark!(ArrivalAwaited);
                self.arrival_set = true;
                let at_ms = core.now.mono_ms + core.config.arrival_ms;
                core.wake_at(at_ms, &self.id, Wake::Arrival);
            }
            return;
        }
        self.say_unavailable(core);
    }

    pub(super) fn say_unavailable(&mut self, core: &mut Core) {
        if self.graph().is_none_or(|graph| !graph.is_empty()) {
            return;
        }
        for (connection, reader) in &mut self.readers {
            if !std::mem::take(&mut reader.asks) {
                continue;
            }
            let Some(target) = core.peer(*connection).cloned() else {
                continue;
            };
            let sender = core.config.us.clone();
            let document = self.id.clone();
            core.send_message(*connection, &Message::DocUnavailable { document, sender, target });
        }
    }

    /// Whether some connected peer has said that it has the document, and is to send it.
    fn is_arriving(&self) -> bool {
        self.jobs.is_uploading()
            || self.readers.values().any(|reader| {
                reader.uploading || reader.their_heads.as_ref().is_some_and(|h| !h.is_empty())
            })
    }

    /// Gives the program in this process what was accepted of others.
    pub(super) fn publish_news(&mut self, core: &mut Core) {
        if !self.news.is_empty() {
            let news = std::mem::take(&mut self.news);
            core.effect(Effect::Publish(self.id.clone(), Published::Changes(news)));
        }
    }

    /// Gives the program in this process everything there is, if it waits for it. The snapshot is
    /// read here and not by the program, so that a damaged one is found out.
    pub(super) fn publish_opened(&mut self, core: &mut Core) {
        // What somebody uploaded and is on its way to disk belongs to it.
        let uploaded = |adopting: &Adopting| adopting.from.is_some();
        if !self.opening || self.jobs.adopting.as_deref().is_some_and(uploaded) {
            return;
        }
        let snapshot = self.jobs.snapshot();
        let Some(graph) = self.graph() else { return };
        if graph.snapshot.is_some() && snapshot.is_none() {
            return self.want_snapshot(core);
        }
        let tail = graph.tail().iter().filter(|node| !node.withheld);
        let tail = tail.map(|node| node.bytes.clone());
        let chunks = snapshot.into_iter().chain(tail).collect();
        let durable = self.durable();
        self.tell_damage(core);
        self.opening = false;
        self.news.clear();
        core.effect(Effect::Publish(self.id.clone(), Published::Opened(chunks)));
        core.effect(Effect::Publish(self.id.clone(), Published::Durable(durable)));
        // What relays said before the program asked.
        let connections: Vec<ConnectionId> = self.readers.keys().copied().collect();
        for connection in connections {
            self.publish_heard(core, connection);
            self.publish_gone(core, connection);
        }
    }

    /// Tells the program in this process that a relay takes nothing of it any more.
    fn publish_gone(&self, core: &mut Core, connection: ConnectionId) {
        let reader = self.readers.get(&connection);
        let Some(gone) = reader.and_then(|reader| reader.gone.as_deref()) else { return };
        let Refused { hash: Some(hash), code, reason } = gone.clone() else { return };
        let told = Published::Refused { hash, code, reason };
        core.effect(Effect::Publish(self.id.clone(), told));
    }
}

/// The version 2 form: all chunks as one run.
fn join(mut message: SyncMessage) -> SyncMessage {
    message.version = SyncVersion::V2;
    if message.changes.len() > 1 {
        let size = message.changes.iter().map(Bytes::len).sum();
        let mut run = BytesMut::with_capacity(size);
        message.changes.iter().for_each(|chunk| run.extend_from_slice(chunk));
        message.changes = vec![run.freeze()];
    }
    message
}
