//! One connection: one task from the WebSocket upgrade to the last byte.
//!
//! It frames, decodes and routes. It holds little, since most connections are idle: one timer,
//! one small read buffer, and what is queued.

mod blobs;
mod calls;
mod closing;
mod handshake;
mod route;
mod step;

use std::{pin::Pin, sync::Arc, time::Duration};

use axum::Router;
use bytes::Bytes;
use concord_protocol::{CloseCode, PeerId};
use tokio::{
    sync::{mpsc, oneshot},
    time::Sleep,
};
use tokio_tungstenite::WebSocketStream;

use super::{
    hub::Hub,
    listen::ByteStream,
    metered::Metered,
    outgoing::{Outbox, Outgoing, Queue},
    rate::{Limiter, Verdict},
    shard::Inbound,
};
use crate::replica::{ConnectionId, Event};
use blobs::Blobs;
use calls::Calls;
use step::Step;

/// The socket under a connection.
pub(super) type Socket = WebSocketStream<Metered<Box<dyn ByteStream>>>;

/// Milliseconds that a connection gets to send what is queued before a close, and again for the
/// close itself.
const CLOSE_MS: u64 = 2_000;
/// Bytes that count as a sign of life though no frame is whole yet: a slow upload.
const PROGRESS_BYTES: u64 = 4 * 1024;
/// Frames up to this many bytes are copied to their exact size, so that a change that is kept
/// does not keep a read buffer, and the buffer is used again.
const COPIED_BYTES: usize = 16 * 1024;

/// How a connection ends.
#[derive(Debug)]
enum End {
    /// The other side is gone without a word.
    Lost,
    /// The other side closed, and gave this code.
    Closed(u16),
    /// We close.
    Close(CloseCode, String),
}

impl End {
    fn protocol(reason: impl Into<String>) -> Self {
        Self::Close(CloseCode::Protocol, reason.into())
    }
}

/// Who joined, and who waits for it to be gone.
#[derive(Debug)]
struct Joined {
    peer: PeerId,
    /// Whether the shards know of it.
    is_known: bool,
    /// Dropped once they know that it is gone.
    _gone: oneshot::Sender<()>,
}

struct Connection {
    hub: Arc<Hub>,
    id: ConnectionId,
    /// Whether `concord.v1` was negotiated.
    concord: bool,
    /// Whether both sides said in their first messages that they mean it.
    speaks: bool,
    /// Whether both said that they take compressed frames.
    zstd: bool,
    calls: Calls,
    blobs: Blobs,
    socket: Socket,
    outbox: Outbox,
    inbox: mpsc::UnboundedReceiver<Outgoing>,
    queue: Queue,
    /// Something was written since the last flush.
    is_dirty: bool,
    is_ping_due: bool,
    /// What to close with once the queue is sent.
    closing: Option<(CloseCode, String)>,
    joined: Option<Joined>,
    limiter: Limiter,
    timer: Pin<Box<Sleep>>,
    times: Times,
}

/// What happens when, in `mono_ms`.
#[derive(Debug)]
struct Times {
    /// When something was last heard.
    heard: u64,
    /// Bytes read by then.
    heard_bytes: u64,
    ping_at: u64,
    /// Nothing is read before this.
    paused_until: Option<u64>,
    /// The handshake's end, or that of a close.
    deadline: Option<u64>,
}

/// Speaks with whoever connected until it ends.
pub(super) async fn run(hub: Arc<Hub>, api: Router, mut socket: Socket, concord: bool) {
    let (outbox, inbox) = mpsc::unbounded_channel();
    let Some(id) = hub.enter(outbox.clone()) else {
        hub.metrics.turned_away.inc();
        closing::turn_away(&mut socket).await;
        return;
    };
    hub.metrics.accepted.inc();
    let now = hub.clock.mono_ms();
    // Connections that came together, after a restart say, are not pinged together.
    let ping_at = now + hub.config.ping_ms - (id.0.wrapping_mul(7_919) % hub.config.ping_ms.max(1));
    let deadline = now + hub.config.limits.handshake_ms;
    let connection = Connection {
        id,
        concord,
        speaks: false,
        zstd: false,
        calls: Calls::new(api),
        blobs: Blobs::default(),
        socket,
        outbox,
        inbox,
        queue: Queue::default(),
        is_dirty: false,
        is_ping_due: false,
        closing: None,
        joined: None,
        limiter: Limiter::new(&hub.config.rates, now),
        timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        times: Times {
            heard: now,
            heard_bytes: 0,
            ping_at,
            paused_until: None,
            deadline: Some(deadline),
        },
        hub,
    };
    connection.run().await;
}

impl Connection {
    async fn run(mut self) {
        self.set_timer();
        let end = self.live().await;
        tracing::debug!(connection = self.id.0, ?end, "connection ends");
        self.part().await;
        let code = match &end {
            End::Lost => 1006,
            End::Closed(code) => *code,
            End::Close(code, _) => code.code(),
        };
        self.hub.metrics.closed(code);
        self.end(end).await;
        self.hub.exit(self.id);
    }

    async fn live(&mut self) -> End {
        if let Err(end) = self.handshake().await {
            return end;
        }
        loop {
            match self.step().await {
                Step::Frame(frame) => {
                    if let Err(end) = self.take(frame).await {
                        return end;
                    }
                }
                Step::Timer => {
                    if let Err(end) = self.on_timer() {
                        return end;
                    }
                }
                Step::End(end) => return end,
            }
        }
    }

    /// Tells every shard that this connection is gone, and gives its name free.
    async fn part(&mut self) {
        let Some(joined) = self.joined.take() else {
            return;
        };
        self.hub.leave(&joined.peer, self.id);
        if joined.is_known {
            let id = self.id;
            self.hub.shards.tell_all(|| Inbound::Event(Event::Disconnected(id))).await;
        }
    }

    /// Takes in one frame of a peer that has joined.
    async fn take(&mut self, frame: Bytes) -> Result<(), End> {
        let (messages, bytes) = self.decode(&frame)?;
        self.charge(bytes)?;
        // What is kept of it is in the messages.
        drop(frame);
        for message in messages {
            self.route(message).await?;
        }
        Ok(())
    }

    /// Pays for a frame, if need be with time.
    fn charge(&mut self, bytes: usize) -> Result<(), End> {
        let now = self.hub.clock.mono_ms();
        match self.limiter.charge(&self.hub.config.rates, now, bytes) {
            Verdict::Go => Ok(()),
            Verdict::PauseUntil(then) => {
                self.hub.metrics.pauses.inc();
                self.times.paused_until = Some(then);
                self.set_timer();
                Ok(())
            }
            Verdict::Abuse => Err(End::Close(
                CloseCode::RateLimited,
                "more frames or bytes than the limit, without a pause".to_owned(),
            )),
        }
    }

    /// Whatever is due by now.
    fn on_timer(&mut self) -> Result<(), End> {
        let now = self.hub.clock.mono_ms();
        if self.times.deadline.is_some_and(|at| at <= now) {
            let overdue = self.closing.take();
            let (code, reason) = overdue.unwrap_or((
                CloseCode::HandshakeTimeout,
                "no join within the time given".to_owned(),
            ));
            return Err(End::Close(code, reason));
        }
        let read = self.socket.get_ref().read_bytes();
        let is_paused = self.times.paused_until.is_some();
        if is_paused || read.saturating_sub(self.times.heard_bytes) >= PROGRESS_BYTES {
            // While nothing is read, no pong can be.
            self.times.heard = now;
            self.times.heard_bytes = read;
        }
        if self.times.paused_until.is_some_and(|at| at <= now) {
            self.times.paused_until = None;
        }
        if now.saturating_sub(self.times.heard) >= self.hub.config.pong_timeout_ms {
            return Err(End::Close(CloseCode::Dead, "no answer to pings".to_owned()));
        }
        if self.times.ping_at <= now {
            self.is_ping_due = self.closing.is_none();
            self.times.ping_at = now + self.hub.config.ping_ms;
        }
        self.set_timer();
        Ok(())
    }

    /// Sets the timer to whatever is due first.
    fn set_timer(&mut self) {
        let dead_at = self.times.heard.saturating_add(self.hub.config.pong_timeout_ms);
        let others = [self.times.paused_until, self.times.deadline];
        let first = others.into_iter().flatten().fold(self.times.ping_at.min(dead_at), u64::min);
        let at = self.hub.clock.instant(first);
        self.timer.as_mut().reset(at);
    }
}
