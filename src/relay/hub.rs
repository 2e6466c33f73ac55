//! What all connections and shards of one relay share.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use axum::http::HeaderMap;
use concord_protocol::{CloseCode, PeerId, PeerMetadata};
use tokio::sync::{Notify, oneshot, watch};

use crate::{blobs::Shelf, replica::ConnectionId};

use super::{
    addresses::Addresses,
    clock::Clock,
    config::RelayConfig,
    directory::Directory,
    metrics::Metrics,
    outgoing::{Outbox, Outgoing},
    schema::Served,
    sessions::Here,
    shard::Shards,
};

/// How the relay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Health {
    /// Serving.
    Ready,
    /// Shutting down.
    Draining,
    /// The store failed: nothing can be acknowledged any more.
    Failed(String),
}

/// How to end the connection of a peer.
#[derive(Debug)]
pub(super) struct PeerHandle {
    pub(super) outbox: Outbox,
    /// Fires, or is dropped, when every shard was told that the connection is gone.
    pub(super) gone: oneshot::Receiver<()>,
    pub(super) here: Here,
}

/// One relay.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) config: RelayConfig,
    pub(super) us: PeerId,
    pub(super) metadata: PeerMetadata,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) shards: Shards,
    pub(super) addresses: Arc<Addresses>,
    /// The schema that peers are told of.
    pub(super) schema: Option<Served>,
    pub(super) blobs: Arc<Shelf>,
    health: watch::Sender<Health>,
    next_connection: AtomicU64,
    connections: Mutex<Connections>,
    all_gone: Notify,
}

#[derive(Debug, Default)]
struct Connections {
    directory: Directory<PeerHandle>,
    outboxes: HashMap<ConnectionId, Outbox>,
}

impl Hub {
    #[allow(clippy::too_many_arguments, reason = "one call, of what a relay is made of")]
    pub(super) fn new(
        config: RelayConfig,
        us: PeerId,
        metadata: PeerMetadata,
        clock: Clock,
        metrics: Arc<Metrics>,
        shards: Shards,
        health: watch::Sender<Health>,
        blobs: Arc<Shelf>,
    ) -> Self {
        Self {
            addresses: Addresses::new(config.connections_per_address),
            schema: config.schema.as_deref().map(Served::new),
            config,
            us,
            metadata,
            clock,
            metrics,
            shards,
            blobs,
            health,
            next_connection: AtomicU64::new(1),
            connections: Mutex::default(),
            all_gone: Notify::new(),
        }
    }

    /// Names a new connection, unless there are too many or the relay is not serving.
    pub(super) fn enter(&self, outbox: Outbox) -> Option<ConnectionId> {
        let mut connections = self.connections();
        let is_full = connections.outboxes.len() >= self.config.connections;
        if is_full || *self.health.borrow() != Health::Ready {
            return None;
        }
        let id = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        connections.outboxes.insert(id, outbox);
        self.metrics.connections.inc();
        Some(id)
    }

    /// Strikes a connection off; every shard has been told.
    pub(super) fn exit(&self, id: ConnectionId) {
        let mut connections = self.connections();
        connections.outboxes.remove(&id);
        self.metrics.connections.dec();
        if connections.outboxes.is_empty() {
            self.all_gone.notify_waiters();
        }
    }

    /// Takes a peer's name for a connection; what comes back is to be ended first.
    pub(super) fn join(
        &self,
        peer: PeerId,
        id: ConnectionId,
        handle: PeerHandle,
    ) -> Option<PeerHandle> {
        self.connections().directory.join(peer, id, handle)
    }

    /// Gives a peer's name free.
    pub(super) fn leave(&self, peer: &PeerId, id: ConnectionId) {
        self.connections().directory.leave(peer, id);
    }

    /// Ends all connections.
    pub(super) fn close_all(&self, code: CloseCode, reason: &str) {
        for outbox in self.connections().outboxes.values() {
            // A connection that no longer listens is ending already.
            let _ = outbox.send(Outgoing::Close(code, reason.to_owned()));
        }
    }

    /// Waits until no connection is left.
    pub(super) async fn empty(&self) {
        loop {
            let notified = self.all_gone.notified();
            if self.connections().outboxes.is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// A page of those who have joined, by the names of their peers; whether there are more.
    pub(super) fn here(&self, after: Option<&PeerId>, limit: usize) -> (Vec<Here>, bool) {
        let connections = self.connections();
        let later =
            connections.directory.iter().filter(|(peer, _)| after.is_none_or(|a| *peer > a));
        let mut later: Vec<(&PeerId, &PeerHandle)> = later.collect();
        later.sort_unstable_by_key(|(peer, _)| *peer);
        let page = later.iter().take(limit).map(|(_, handle)| handle.here.clone()).collect();
        (page, later.len() > limit)
    }

    /// How many have joined.
    pub(super) fn peers(&self) -> usize {
        self.connections().directory.len()
    }

    /// Whether a web page may talk to this relay; else what to do about it. Who is no page may.
    pub(super) fn admits(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        self.config.allowed_origins.check(headers).map_err(|origin| {
            self.metrics.foreign_pages.inc();
            tracing::info!(origin, "refused a web page that is not in allowed-origins");
            "this page's origin is not allowed here: add it to allowed-origins"
        })
    }

    pub(super) fn health(&self) -> Health {
        self.health.borrow().clone()
    }

    pub(super) fn watch_health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// Refuses new connections from now on.
    pub(super) fn drain(&self) {
        self.health.send_if_modified(|health| {
            let is_ready = *health == Health::Ready;
            if is_ready {
                *health = Health::Draining;
            }
            is_ready
        });
    }

    /// The lock; what it guards is sound after a panic, each change being one call.
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
