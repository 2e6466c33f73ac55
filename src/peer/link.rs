//! Keeps one relay connected: dials, carries, waits, dials again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use concord_protocol::{Limits, PeerId, PeerMetadata};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    dialer::{Dialer, Ended, State},
    engine::Told,
    random_number,
    socket::{self},
    status::{Status, StatusBoard},
    transport::{self, RelayUrl, Transport},
};
use crate::{
    replica::{ConnectionId, Event},
    tls::Trust,
};

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
}

/// Keeps the relay connected until it says that it will never have us, or the task is ended.
pub(super) async fn keep(context: Arc<LinkContext>, url: RelayUrl) {
    let started = Instant::now();
    let mut dialer = Dialer::default();
    loop {
        match dialer.state().clone() {
            State::Dialling | State::Online { .. } => {
                context.status.set(url.as_str(), Status::Connecting);
                let ended = connection(&context, &url, &mut dialer, started).await;
                tracing::info!(relay = url.as_str(), reason = ended.reason, "offline");
                let now_ms = elapsed_ms(started);
                dialer.ended(now_ms, ended, random_number());
            }
            State::Waiting { until_ms, reason } => {
                let wait = Duration::from_millis(until_ms.saturating_sub(elapsed_ms(started)));
                let next_try = SystemTime::now().checked_add(wait);
                context.status.set(url.as_str(), Status::Offline { reason, next_try });
                sleep_until(started + Duration::from_millis(until_ms)).await;
                dialer.tick(until_ms);
            }
            State::Stopped { reason } => {
                context.status.set(url.as_str(), Status::Offline { reason, next_try: None });
                return;
            }
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
    let greeted = socket::greet(opened, &context.us, &context.metadata, &context.limits).await;
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
