//! One connection to a relay, from dialling to its end, and the check of a relay that is not in use.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use concord_protocol::{CloseCode, Feature, Features, Limits, PeerId, PeerMetadata};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    dialer::Ended,
    engine::Told,
    links::Shared,
    pulse::Sign,
    random_number,
    relays::RelayKey,
    schema::Schemas,
    socket::{self, Line, Outgoing},
    traffic::Traffic,
    transport::{self, Opened, RelayUrl, Transport},
};
use crate::{
    frames::Takes,
    replica::{ConnectionId, Event, PeerInfo},
    tls::Trust,
};

/// Milliseconds that a relay waits for what this disk has of a schema.
const RECALL_MS: u64 = 1_000;
/// Milliseconds for what is on its way to a relay that is left for another.
const LEAVE_MS: u64 = 2_000;
/// Milliseconds that a check may take.
const CHECK_MS: u64 = 5_000;

/// What every link of a peer shares.
pub(super) struct LinkContext {
    pub(super) us: PeerId,
    pub(super) metadata: PeerMetadata,
    pub(super) limits: Limits,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) trust: Trust,
    pub(super) engine: mpsc::Sender<Told>,
    pub(super) next_connection: AtomicU64,
    pub(super) schemas: Arc<Schemas>,
}

/// What is wanted of a connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    /// Another relay could take its place: silence is to be noticed soon.
    pub(super) is_watched: bool,
    /// It is to end.
    pub(super) leaves: bool,
}

/// How it ended.
enum Outcome {
    Ended(Ended),
    /// As was wished.
    Left,
}

/// Dials a relay and stays connected until the connection ends, or is to end.
pub(super) async fn keep(
    context: Arc<LinkContext>,
    shared: Arc<Shared>,
    key: RelayKey,
    url: RelayUrl,
    traffic: Arc<Traffic>,
    mut wish: watch::Receiver<Wish>,
) {
    let opened = tokio::select! {
        opened = open(&context, &url, &traffic) => opened,
        () = is_to_leave(&mut wish) => {
            return shared.report(|relays, now_ms| relays.left(now_ms, key, random_number()));
        }
    };
    let outcome = match opened {
        Ok((socket, info)) => {
            carry(&context, &shared, key, &url, &traffic, wish, socket, info).await
        }
        Err(ended) => Outcome::Ended(ended),
    };
    let random = random_number();
    shared.report(|relays, now_ms| match outcome {
        Outcome::Ended(ended) => {
            tracing::info!(relay = url.as_str(), reason = ended.reason, "offline");
            relays.ended(now_ms, key, ended, random);
        }
        Outcome::Left => {
            tracing::info!(relay = url.as_str(), "left for another relay");
            relays.left(now_ms, key, random);
        }
    });
}

/// Dials, and says who we are.
async fn open(
    context: &LinkContext,
    url: &RelayUrl,
    traffic: &Arc<Traffic>,
) -> Result<(transport::Socket, PeerInfo), Ended> {
    let LinkContext { transport, trust, limits, .. } = context;
    let opened = transport::open(&**transport, trust, url, limits, traffic).await?;
    let mut metadata = context.metadata.clone();
    if opened.concord {
        // A disk that is slow costs being told once more.
        let held = timeout(Duration::from_millis(RECALL_MS), context.schemas.held());
        metadata.schema = held.await.ok().flatten();
    } else {
        // Of no use to whoever does not know them.
        (metadata.features, metadata.session) = (Features::NONE, None);
    }
    socket::greet(opened, &context.us, &metadata, limits).await
}

/// Carries messages until the end.
#[allow(clippy::too_many_arguments, reason = "one call, and most of it is passed on")]
async fn carry(
    context: &LinkContext,
    shared: &Shared,
    key: RelayKey,
    url: &RelayUrl,
    traffic: &Traffic,
    mut wish: watch::Receiver<Wish>,
    socket: transport::Socket,
    info: PeerInfo,
) -> Outcome {
    let id = ConnectionId(context.next_connection.fetch_add(1, Ordering::Relaxed));
    let agreed = info.metadata.features.and(context.metadata.features);
    let takes = Takes { batches: info.concord, zstd: info.concord && agreed.has(Feature::Zstd) };
    let (outgoing, to_send) = mpsc::unbounded_channel();
    // The engine has the only strong one: without it there is nobody to carry for.
    let goodbye = outgoing.downgrade();
    if context.engine.send(Told::Connected(id, info, outgoing)).await.is_err() {
        return Outcome::Ended(Ended::permanent("the peer is closed"));
    }
    tracing::info!(relay = url.as_str(), "online");
    shared.report(|relays, now_ms| relays.opened(now_ms, key));
    let line = Line {
        id,
        takes,
        limits: &context.limits,
        engine: &context.engine,
        traffic,
        wish: wish.clone(),
        tell: |sign| {
            shared.report(|relays, now_ms| match sign {
                Sign::Answered(trip) => relays.measured(now_ms, key, trip),
                Sign::Silent(is_silent) => relays.silent(key, is_silent),
                Sign::GoingAway { retry_after_ms } => relays.going(key, retry_after_ms),
            });
        },
    };
    let mut carrying = pin!(socket::carry(line, socket, to_send));
    let outcome = tokio::select! {
        ended = &mut carrying => Outcome::Ended(ended),
        () = is_to_leave(&mut wish) => {
            // Behind all that is to be sent already.
            let reason = "another relay is in use".to_owned();
            let goodbye = goodbye.upgrade();
            if goodbye.is_some_and(|to| to.send(Outgoing::Close(CloseCode::Normal, reason)).is_ok()) {
                // What is cut off goes to the other relay.
                let _ = timeout(Duration::from_millis(LEAVE_MS), carrying).await;
            }
            Outcome::Left
        }
    };
    // An engine that is gone needs not be told.
    let _ = context.engine.send(Event::Disconnected(id).into()).await;
    outcome
}

/// Looks whether a relay that is not in use answers, and how fast.
pub(super) async fn check(
    context: Arc<LinkContext>,
    shared: Arc<Shared>,
    key: RelayKey,
    url: RelayUrl,
    traffic: Arc<Traffic>,
) {
    let LinkContext { transport, trust, limits, .. } = &*context;
    let checking = async {
        let opened = transport::open(&**transport, trust, &url, limits, &traffic).await?;
        let Opened { socket, .. } = opened;
        socket::ping(socket).await
    };
    let checked = timeout(Duration::from_millis(CHECK_MS), checking).await;
    let checked = checked
        .unwrap_or_else(|_| Err(Ended::transient(format!("{} does not answer", url.as_str()))));
    let random = random_number();
    shared.report(|relays, now_ms| match checked {
        Ok(trip) => relays.checked(now_ms, key, trip),
        Err(ended) => relays.check_failed(now_ms, key, ended, random),
    });
}

async fn is_to_leave(wish: &mut watch::Receiver<Wish>) {
    if wish.wait_for(|wish| wish.leaves).await.is_err() {
        // Who wishes is gone, and ends this task.
        std::future::pending::<()>().await;
    }
}
