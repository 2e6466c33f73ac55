//! A socket that counts what came in, and stops reading at a cap.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Counts the bytes that are read from `S`.
#[derive(Debug)]
pub(super) struct Metered<S> {
    stream: S,
    read: u64,
    cap: u64,
}

impl<S> Metered<S> {
    /// Reads from `stream`, at most about `cap` bytes until [`Metered::lift`].
    pub(super) fn new(stream: S, cap: u64) -> Self {
        Self { stream, read: 0, cap }
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
