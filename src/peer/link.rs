//! Keeps one relay connected: dials, carries, waits, dials again.

use std::{
    future::pending,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use concord_protocol::{Limits, PeerId, PeerMetadata};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
    task::AbortHandle,
    time::{Instant, sleep_until, timeout},
};

use super::{
    dialer::{Dialer, Ended, State},
    engine::Told,
    random_number,
    schema::Schemas,
    socket::{self},
    status::{Status, StatusBoard},
    transport::{self, RelayUrl, Transport},
};
use crate::{
    replica::{ConnectionId, Event},
    tls::Trust,
};

/// Milliseconds that a relay waits for what this disk has of a schema.
const RECALL_MS: u64 = 1_000;

/// What every link of a peer shares.
pub(super) struct LinkContext {
    pub(super) us: PeerId,
    pub(super) metadata: PeerMetadata,
    pub(super) limits: Limits,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) trust: Trust,
    pub(super) engine: mpsc::Sender<Told>,
    pub(super) status: Arc<StatusBoard>,
    pub(super) next_connection: AtomicU64,
    pub(super) schemas: Arc<Schemas>,
}

/// The task that keeps one relay connected.
pub(super) struct Link {
    url: RelayUrl,
    status: Arc<StatusBoard>,
    /// Somebody wants it dialled now.
    asked: Arc<Notify>,
    task: AbortHandle,
}

impl Link {
    /// Dials it, and keeps it connected until it is ended.
    pub(super) fn start(runtime: &Handle, context: &Arc<LinkContext>, url: RelayUrl) -> Self {
        let asked = Arc::new(Notify::new());
        context.status.set(url.as_str(), Status::Connecting);
        let keeping = keep(Arc::clone(context), url.clone(), Arc::clone(&asked));
        let task = runtime.spawn(keeping).abort_handle();
        Self { url, status: Arc::clone(&context.status), asked, task }
    }

    pub(super) fn url(&self) -> &RelayUrl {
        &self.url
    }

    /// Ends the wait before the next attempt, if it is waiting: an attempt or a connection that
    /// there is goes on.
    pub(super) fn dial_now(&self) {
        self.status.asked(self.url.as_str());
        self.asked.notify_waiters();
    }

    /// Ends it, and its connection.
    pub(super) fn end(&self) {
        self.task.abort();
    }
}

async fn keep(context: Arc<LinkContext>, url: RelayUrl, asked: Arc<Notify>) {
    let started = Instant::now();
    let mut dialer = Dialer::default();
    loop {
        let (until_ms, reason) = match dialer.state().clone() {
            State::Dialling | State::Online { .. } => {
                context.status.set(url.as_str(), Status::Connecting);
                let ended = connection(&context, &url, &mut dialer, started).await;
                tracing::info!(relay = url.as_str(), reason = ended.reason, "offline");
                dialer.ended(elapsed_ms(started), ended, random_number());
                continue;
            }
            State::Waiting { until_ms, reason } => (Some(until_ms), reason),
            State::Stopped { reason } => (None, reason),
        };
        let mut asked = pin!(asked.notified());
        // Who reads the status and asks because of it is heard.
        asked.as_mut().enable();
        let wait = |until: u64| Duration::from_millis(until.saturating_sub(elapsed_ms(started)));
        let next_try = until_ms.and_then(|until| SystemTime::now().checked_add(wait(until)));
        context.status.set(url.as_str(), Status::Offline { reason, next_try });
        let over = async {
            match until_ms {
                Some(until) => sleep_until(started + Duration::from_millis(until)).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = over => dialer.tick(until_ms.unwrap_or_default()),
            () = asked => dialer.dial_now(),
        }
    }
}

/// One connection, from dialling to its end.
async fn connection(
    context: &LinkContext,
    url: &RelayUrl,
    dialer: &mut Dialer,
    started: Instant,
) -> Ended {
    let opening = transport::open(&*context.transport, &context.trust, url, &context.limits);
    let opened = match opening.await {
        Ok(opened) => opened,
        Err(ended) => return ended,
    };
    let mut metadata = context.metadata.clone();
    if opened.concord {
        // A disk that is slow costs being told once more.
        let held = timeout(Duration::from_millis(RECALL_MS), context.schemas.held());
        metadata.schema = held.await.ok().flatten();
    }
    let greeted = socket::greet(opened, &context.us, &metadata, &context.limits).await;
    let (socket, info) = match greeted {
        Ok(greeted) => greeted,
        Err(ended) => return ended,
    };
    let id = ConnectionId(context.next_connection.fetch_add(1, Ordering::Relaxed));
    let (outgoing, to_send) = mpsc::unbounded_channel();
    if context.engine.send(Told::Connected(id, info, outgoing)).await.is_err() {
        return Ended::permanent("the peer is closed");
    }
    dialer.connected(elapsed_ms(started));
    tracing::info!(relay = url.as_str(), "online");
    context.status.set(url.as_str(), Status::Online { relay: url.as_str().to_owned() });
    let ended = socket::carry(id, socket, &context.limits, &context.engine, to_send).await;
    // An engine that is gone needs not be told.
    let _ = context.engine.send(Event::Disconnected(id).into()).await;
    ended
}

fn elapsed_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}
