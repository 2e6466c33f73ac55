//! An attachment that is here, as a stream of bytes.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use concord_protocol::BlobHash;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    outline::pieces,
    shelf::{Hold, Shelf, ShelfError},
};
use crate::store::BoxFuture;

/// See the module. It is not removed while it is read.
pub(crate) struct BlobReader {
    shelf: Arc<Shelf>,
    hash: BlobHash,
    length: u64,
    pieces: u32,
    /// The piece that is read next.
    at: u32,
    /// What was read and not given yet.
    bytes: Bytes,
    reading: Option<BoxFuture<Result<Bytes, ShelfError>>>,
    _hold: Hold,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader").field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl BlobReader {
    /// Of one that is here whole.
    ///
    /// # Errors
    /// [`ShelfError::NotHere`].
    pub(crate) async fn open(shelf: &Arc<Shelf>, hash: BlobHash) -> Result<Self, ShelfError> {
        // Held first: what is looked at then stays.
        let hold = shelf.hold(hash);
        let entry = shelf.find(&hash).await?.filter(|entry| entry.is_whole);
        let length = entry.ok_or(ShelfError::NotHere(hash))?.length;
        let pieces = pieces(length).unwrap_or(0);
        let bytes = Bytes::new();
        let shelf = Arc::clone(shelf);
        Ok(Self { shelf, hash, length, pieces, at: 0, bytes, reading: None, _hold: hold })
    }

    /// How many bytes there are in all.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }
}

impl AsyncRead for BlobReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        while this.bytes.is_empty() {
            if this.at == this.pieces {
                return Poll::Ready(Ok(()));
            }
            let (shelf, hash, at) = (&this.shelf, this.hash, this.at);
            let reading = this.reading.get_or_insert_with(|| {
                let shelf = Arc::clone(shelf);
                Box::pin(async move { shelf.piece(&hash, at).await })
            });
            let piece = ready!(reading.as_mut().poll(cx));
            this.reading = None;
            this.bytes = piece.map_err(std::io::Error::other)?;
            this.at += 1;
        }
        let len = buf.remaining().min(this.bytes.len());
        buf.put_slice(&this.bytes[..len]);
        this.bytes.advance(len);
        Poll::Ready(Ok(()))
    }
}
