//! Attachments over the socket, asked for and brought: by a task of the connection's own, so that
//! documents do not wait for it.
//!
//! What one connection takes up is bounded: so many messages wait for the task, and so many answers
//! for the network; more are refused. A piece has its place in the order of the store when it is taken
//! in, so several are on their way to the disk at once, and each is answered when it is there.

use std::{collections::VecDeque, sync::Arc};

use concord_protocol::{
    BlobHash, BlobMessage, Message, codec,
    limits::{BLOB_OUTLINE_BYTES_MAX, BLOB_PIECES_MAX},
};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::AbortHandle,
};

use super::Connection;
use crate::{
    blobs::{Coming, Outline, Shelf, ShelfError, pieces},
    relay::{
        blobs::status,
        outgoing::{Outbox, Outgoing},
    },
};

/// Attachments that one connection brings at once.
const COMING_MAX: usize = 4;

/// The desk of a connection.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    /// Whether the other side said that it speaks of attachments.
    pub(super) speaks: bool,
    /// Nothing before the first message: most connections have no attachments.
    desk: Option<(mpsc::Sender<BlobMessage>, AbortHandle)>,
}

impl Drop for Blobs {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.desk {
            task.abort();
        }
    }
}

impl Connection {
    /// Has a message about an attachment answered.
    pub(super) fn blob(&mut self, message: BlobMessage) {
        let (hub, outbox) = (&self.hub, &self.outbox);
        let (desk, _) = self.blobs.desk.get_or_insert_with(|| {
            let (desk, asked) = mpsc::channel(BLOB_PIECES_MAX);
            let serving = serve(Arc::clone(&hub.blobs), asked, outbox.clone());
            (desk, tokio::spawn(serving).abort_handle())
        });
        let id = message.id();
        if desk.try_send(message).is_err() {
            let reason = format!("more than {BLOB_PIECES_MAX} pieces are under way: wait for some");
            // It is counted among the connection's own, of which there are only so many before no
            // more is read.
            self.answer(encoded(State { status: 429, reason: Some(reason), ..State::new(id) }));
        }
    }
}

/// What is answered, but for pieces.
struct State {
    id: u32,
    status: u16,
    reason: Option<String>,
    length: Option<u64>,
    have: u32,
    outline: Option<bytes::Bytes>,
}

impl State {
    fn new(id: u32) -> Self {
        Self { id, status: 200, reason: None, length: None, have: 0, outline: None }
    }

    fn failed(id: u32, have: u32, error: &ShelfError) -> Self {
        let have = if let ShelfError::OutOfOrder { have } = error { *have } else { have };
        let (status, reason) = (status(error).as_u16(), Some(error.to_string()));
        Self { status, reason, have, ..Self::new(id) }
    }

    fn message(self) -> BlobMessage {
        let Self { id, status, reason, length, have, outline } = self;
        BlobMessage::State { id, status, reason, length, have, outline }
    }
}

fn encoded(state: State) -> bytes::Bytes {
    codec::encode(&Message::Blob(state.message()))
}

type Answering = BoxFuture<'static, (OwnedSemaphorePermit, BlobMessage)>;

async fn serve(shelf: Arc<Shelf>, mut asked: mpsc::Receiver<BlobMessage>, outbox: Outbox) {
    let places = Arc::new(Semaphore::new(BLOB_PIECES_MAX));
    let mut under_way: FuturesUnordered<Answering> = FuturesUnordered::new();
    let mut desk = Desk { shelf, coming: VecDeque::new() };
    loop {
        let next = async {
            // One that is taken up until its answer has left.
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            Some((place, asked.recv().await?))
        };
        tokio::select! {
            Some((place, answer)) = under_way.next(), if !under_way.is_empty() => {
                if let BlobMessage::State { status: 200, .. } = answer {
                    desk.coming.retain(|coming| coming.have() < coming.pieces);
                }
                let answer = codec::encode(&Message::Blob(answer));
                // A connection that has ended wants no answer.
                let _ = outbox.send(Outgoing::Answer(answer, Box::new(place)));
            }
            next = next => {
                let Some((place, message)) = next else { return };
                let answering = desk.answer(message).await;
                under_way.push(answering.map(|answer| (place, answer)).boxed());
            }
        }
    }
}

struct Desk {
    shelf: Arc<Shelf>,
    /// What is brought over this connection, the last offered last.
    coming: VecDeque<Arc<Coming>>,
}

impl Desk {
    /// Takes a message in; what comes of it may take longer.
    async fn answer(&mut self, message: BlobMessage) -> BoxFuture<'static, BlobMessage> {
        let id = message.id();
        match message {
            BlobMessage::Ask { hash, at, .. } => {
                let shelf = Arc::clone(&self.shelf);
                give(shelf, id, hash, at).boxed()
            }
            BlobMessage::Offer { hash, length, outline, .. } => {
                let state = match self.offered(hash, length, &outline).await {
                    Ok(None) => {
                        let have = pieces(length).unwrap_or(0);
                        State { length: Some(length), have, ..State::new(id) }
                    }
                    Ok(Some(have)) => State { status: 202, have, ..State::new(id) },
                    Err(error) => State::failed(id, 0, &error),
                };
                std::future::ready(state.message()).boxed()
            }
            BlobMessage::Chunk { hash, at, data, .. } => {
                let coming = self.coming.iter().find(|coming| coming.hash == hash);
                let Some(coming) = coming.cloned() else {
                    let reason = Some("offer it first".to_owned());
                    let state = State { status: 409, reason, ..State::new(id) };
                    return std::future::ready(state.message()).boxed();
                };
                // It takes its place in the order here, and is waited for elsewhere.
                let adding = self.shelf.add(&coming, at, data);
                let answering = async move {
                    let state = match adding.await {
                        Ok(have) if have == coming.pieces => {
                            State { length: Some(coming.length), have, ..State::new(id) }
                        }
                        Ok(have) => State { status: 202, have, ..State::new(id) },
                        Err(error) => State::failed(id, coming.have(), &error),
                    };
                    state.message()
                };
                answering.boxed()
            }
            _ => {
                let reason = Some("this is for a relay to say".to_owned());
                let state = State { status: 400, reason, ..State::new(id) };
                std::future::ready(state.message()).boxed()
            }
        }
    }

    /// Somebody has an attachment to give. `None`: it is here.
    async fn offered(
        &mut self,
        hash: BlobHash,
        length: u64,
        outline: &[u8],
    ) -> Result<Option<u32>, ShelfError> {
        debug_assert!(outline.len() <= BLOB_OUTLINE_BYTES_MAX, "the codec looks at it");
        let outline = Outline::read(hash, length, outline)?;
        let Some(coming) = self.shelf.begin(hash, length, Some(outline)).await? else {
            return Ok(None);
        };
        let have = coming.have();
        if have == coming.pieces {
            // The last step was not done.
            self.shelf.finish(&coming).await?;
            return Ok(None);
        }
        self.coming.retain(|before| before.hash != hash);
        if self.coming.len() == COMING_MAX {
            self.coming.pop_front();
        }
        self.coming.push_back(coming);
        Ok(Some(have))
    }
}

async fn give(shelf: Arc<Shelf>, id: u32, hash: BlobHash, at: Option<u32>) -> BlobMessage {
    let given = async {
        let Some(at) = at else {
            let outline = shelf.outline(&hash).await?;
            let length = outline.length();
            let have = pieces(length).unwrap_or(0);
            let outline = Some(outline.to_bytes());
            return Ok(State { length: Some(length), have, outline, ..State::new(id) }.message());
        };
        let data = shelf.piece(&hash, at).await?;
        Ok(BlobMessage::Chunk { id, hash, at, data })
    };
    given.await.unwrap_or_else(|error: ShelfError| State::failed(id, 0, &error).message())
}
