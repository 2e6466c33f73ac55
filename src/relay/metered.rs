//! A socket that counts what came in, stops reading at a cap, and keeps its address's place.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::addresses::Place;

/// Counts the bytes that are read from `S`.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    read: u64,
    cap: u64,
    _place: Place,
}

impl<S> Metered<S> {
    /// Reads from `stream`, without a cap.
    pub(super) fn new(stream: S, place: Place) -> Self {
        Self { stream, read: 0, cap: u64::MAX, _place: place }
    }

    /// Reads at most about `bytes` more until [`Metered::lift`].
    pub(super) fn cap(&mut self, bytes: u64) {
        self.cap = self.read.saturating_add(bytes);
    }

    /// Takes the cap away.
    pub(super) fn lift(&mut self) {
        self.cap = u64::MAX;
    }

    /// Bytes read so far.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read
    }

    /// Whether the cap is what stopped it.
    pub(super) fn is_over(&self) -> bool {
        self.read > self.cap
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_over() {
            return Poll::Ready(Err(io::Error::other("more than may be said before a join")));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.read += (buf.filled().len() - before) as u64;
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
