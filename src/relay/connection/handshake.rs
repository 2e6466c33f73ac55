//! The first message of a connection, and the place it takes.

use concord_protocol::{
    CloseCode, Feature, codec,
    handshake::{self, Answer},
};
use tokio::sync::oneshot;

use super::{Connection, End, Joined, Step};
use crate::{
    frames::Takes,
    relay::{hub::PeerHandle, outgoing::Outgoing, sessions::Here, shard::Inbound},
    replica::PeerInfo,
};

impl Connection {
    /// Waits for a join, answers it, and tells the shards who is there.
    pub(super) async fn handshake(&mut self) -> Result<(), End> {
        let frame = loop {
            match self.step().await {
                Step::Frame(frame) => break frame,
                Step::Timer => self.on_timer()?,
                Step::End(end) => return Err(end),
            }
        };
        let (mut messages, _) = self.decode(&frame)?;
        let (Some(first), true) = (messages.pop(), messages.is_empty()) else {
            self.hub.metrics.bad_frame("not-a-join");
            return Err(End::protocol("expected one join before anything else"));
        };
        match handshake::answer(&first, &self.hub.us, &self.hub.metadata, self.concord) {
            Answer::Refuse { reply, code, reason } => {
                self.hub.metrics.bad_frame("not-a-join");
                if let Some(reply) = reply {
                    self.answer(codec::encode(&reply));
                }
                Err(End::Close(code, reason))
            }
            Answer::Welcome { reply, peer, metadata } => {
                let version = handshake::version_of(&reply);
                self.speaks = version == Some(handshake::SUBPROTOCOL);
                let shared = metadata.features.and(self.hub.metadata.features);
                self.blobs.speaks = self.speaks && shared.has(Feature::Blobs);
                let held = metadata.schema;
                let agreed = metadata.features.and(self.hub.metadata.features);
                self.zstd = self.speaks && agreed.has(Feature::Zstd);
                let info = PeerInfo { peer, metadata, concord: self.concord, dialled: false };
                self.join(info).await?;
                self.answer(codec::encode(&reply));
                self.queue.set_takes(Takes { batches: self.speaks, zstd: self.zstd });
                let schema = self.hub.schema.as_ref().filter(|_| self.speaks);
                if let Some(news) = schema.and_then(|schema| schema.news_for(held)) {
                    self.answer(news);
                }
                self.socket.get_mut().lift();
                self.times.deadline = None;
                self.set_timer();
                Ok(())
            }
        }
    }

    /// Takes the peer's place: a connection that has it is ended first, and every shard hears
    /// that it is gone before it hears of this one.
    async fn join(&mut self, info: PeerInfo) -> Result<(), End> {
        let (gone, is_gone) = oneshot::channel();
        let since_ms = self.hub.clock.now().wall_ms;
        let here = Here { connection: self.id, info: info.clone(), since_ms };
        let handle = PeerHandle { outbox: self.outbox.clone(), gone: is_gone, here };
        let before = self.hub.join(info.peer.clone(), self.id, handle);
        let joined =
            self.joined.insert(Joined { peer: info.peer.clone(), is_known: false, _gone: gone });
        if let Some(before) = before {
            let reason = "a newer connection has the same peer id".to_owned();
            let _ = before.outbox.send(Outgoing::Close(CloseCode::Replaced, reason));
            // It is dropped, which is an error, as soon as the shards know.
            let _ = before.gone.await;
        }
        // Told to end meanwhile: then the shards need not hear of it.
        if let Ok(Outgoing::Close(code, reason)) = self.inbox.try_recv() {
            return Err(End::Close(code, reason));
        }
        joined.is_known = true;
        let id = self.id;
        let outbox = &self.outbox;
        self.hub.shards.tell_all(|| Inbound::Connected(id, info.clone(), outbox.clone())).await;
        tracing::debug!(connection = id.0, peer = %info.peer, concord = info.concord, "joined");
        Ok(())
    }
}
