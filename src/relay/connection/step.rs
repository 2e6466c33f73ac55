//! Waiting for whatever comes first: room to write, a frame, the timer.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use concord_protocol::CloseCode;
use futures_util::{Sink as _, Stream as _};
use tokio_tungstenite::tungstenite::{Error, Message, error::CapacityError};

use super::{CLOSE_MS, COPIED_BYTES, Connection, End};
use crate::relay::outgoing::Outgoing;

/// Answers of our own that may wait before no more is read: whoever asks for many must take them.
const ANSWERS_MAX: usize = 64;
/// Bytes fed to the socket after which the replica is told, though there is more to send.
const REPORT_BYTES: usize = 64 * 1024;

/// What came first.
#[derive(Debug)]
pub(super) enum Step {
    Frame(Bytes),
    Timer,
    End(End),
}

impl Connection {
    pub(super) async fn step(&mut self) -> Step {
        poll_fn(|cx| self.poll_step(cx)).await
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        if let Poll::Ready(end) = self.poll_inbox(cx) {
            return Poll::Ready(Step::End(end));
        }
        match self.poll_write(cx) {
            Poll::Ready(Err(_)) => return Poll::Ready(Step::End(End::Lost)),
            Poll::Ready(Ok(())) => {
                if let Some((code, reason)) = self.closing.take() {
                    return Poll::Ready(Step::End(End::Close(code, reason)));
                }
            }
            Poll::Pending => {}
        }
        if self.may_read()
            && let Poll::Ready(step) = self.poll_read(cx)
        {
            return Poll::Ready(step);
        }
        self.timer.as_mut().poll(cx).map(|()| Step::Timer)
    }

    /// Takes over all that was queued by shards, also while the socket takes nothing: a close
    /// may be behind it.
    fn poll_inbox(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        while self.closing.is_none() {
            let (code, reason) = match self.inbox.poll_recv(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Outgoing::Frame(shard, bytes))) => {
                    self.queue.push(Some(shard), bytes);
                    continue;
                }
                Poll::Ready(Some(Outgoing::Answer(bytes, place))) => {
                    self.queue.push_answer(bytes, place);
                    continue;
                }
                Poll::Ready(Some(Outgoing::Close(code, reason))) => (code, reason),
                // Never: we hold an outbox of our own.
                Poll::Ready(None) => (CloseCode::Draining, String::new()),
            };
            if is_abrupt(code) {
                self.queue.clear();
                return Poll::Ready(End::Close(code, reason));
            }
            self.times.deadline = Some(self.hub.clock.mono_ms() + CLOSE_MS);
            self.closing = Some((code, reason));
            self.set_timer();
        }
        Poll::Pending
    }

    /// Writes what is queued, and flushes once at the end.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut fed = 0;
        loop {
            let polled = Pin::new(&mut self.socket).poll_ready(cx);
            if polled.is_pending() {
                self.report();
            }
            ready!(polled)?;
            let message = if self.is_ping_due {
                self.is_ping_due = false;
                Message::Ping(Bytes::new())
            } else if let Some((bytes, message)) = self.queue.next_piece() {
                self.hub.metrics.messages_sent.inc_by(u64::from(!self.queue.is_begun()));
                self.hub.metrics.sent.inc_by(bytes as u64);
                fed += bytes;
                message
            } else {
                break;
            };
            Pin::new(&mut self.socket).start_send(message)?;
            self.is_dirty = true;
            if fed >= REPORT_BYTES {
                fed = 0;
                self.report();
            }
        }
        if self.is_dirty {
            ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
            self.is_dirty = false;
        }
        self.report();
        Poll::Ready(Ok(()))
    }

    /// Tells the shards what left for the network.
    fn report(&mut self) {
        let (hub, id) = (&self.hub, self.id);
        self.queue.report(|shard, bytes| hub.shards.drained(shard, id, bytes));
    }

    fn may_read(&self) -> bool {
        self.closing.is_none()
            && self.times.paused_until.is_none()
            && self.queue.own() < ANSWERS_MAX
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            let read = ready!(Pin::new(&mut self.socket).poll_next(cx));
            self.times.heard = self.hub.clock.mono_ms();
            let end = match read {
                Some(Ok(Message::Binary(frame))) => {
                    self.hub.metrics.messages_received.inc();
                    self.hub.metrics.received.inc_by(frame.len() as u64);
                    return Poll::Ready(Step::Frame(exact(frame)));
                }
                // The pong to a ping is made underneath, and flushed at the next read.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Text(_))) => {
                    self.hub.metrics.bad_frame("text");
                    End::protocol("a text frame: messages are binary")
                }
                Some(Ok(Message::Close(frame))) => {
                    // 1005: it gave none.
                    End::Closed(frame.map_or(1005, |frame| frame.code.into()))
                }
                Some(Err(error)) => self.read_failed(error),
                None => End::Lost,
            };
            return Poll::Ready(Step::End(end));
        }
    }

    fn read_failed(&self, error: Error) -> End {
        match error {
            Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                self.hub.metrics.bad_frame("too-big");
                let reason = format!("a message of {size} bytes: the limit is {max_size}");
                End::Close(CloseCode::TooBig, reason)
            }
            Error::Io(_) if self.socket.get_ref().is_over() => {
                self.hub.metrics.bad_frame("too-big");
                End::Close(CloseCode::TooBig, "more than a join before the join".to_owned())
            }
            Error::Protocol(
                tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )
            | Error::Io(_)
            | Error::ConnectionClosed
            | Error::AlreadyClosed => End::Lost,
            other => {
                self.hub.metrics.bad_frame("websocket");
                End::protocol(format!("not WebSocket: {other}"))
            }
        }
    }
}

/// Whether a close does not wait for what is queued, because that cannot be, or must not be,
/// delivered.
fn is_abrupt(code: CloseCode) -> bool {
    matches!(
        code,
        CloseCode::Backpressure | CloseCode::Dead | CloseCode::Replaced | CloseCode::StorageFailed
    )
}

fn exact(frame: Bytes) -> Bytes {
    if frame.len() <= COPIED_BYTES { Bytes::copy_from_slice(&frame) } else { frame }
}
