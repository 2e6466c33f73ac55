//! Starting, watching and ending a relay.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use concord_protocol::{CloseCode, Feature, Features, IdError, PeerId, PeerMetadata};
use tokio::{
    net::lookup_host,
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    addresses::Addresses,
    api, blobs,
    catalogue::{self, Catalogue},
    clock::Clock,
    config::RelayConfig,
    gathered::Gathered,
    http,
    hub::{Health, Hub},
    listen::{Listener, Listeners, Tcp},
    metered::Metered,
    metrics::Metrics,
    review::{self, Reviewer},
    shard::{self, Inbound, Surroundings},
    starts,
};
use crate::{
    blobs::Shelf,
    entity::{Schema, SchemaErrors},
    replica::{Config, Event, Replica},
    store::{Store, StoreError},
    worker::Materialiser,
};

/// Milliseconds from the last sync message to the close. automerge-repo 2.5 spoils a document in
/// a client that handles one while its socket closes.
const QUIET_MS: u64 = 150;
/// Milliseconds that writes get to reach the disk at a shutdown.
const SETTLE_MS: u64 = 4_000;
/// Milliseconds that connections get to close at a shutdown.
const PART_MS: u64 = 3_000;
/// Connections that are told at once that their address has too many; more are just closed.
const TURNED_AWAY_AT_ONCE: usize = 64;
/// Milliseconds before the next accept when there are no descriptors left.
const ACCEPT_AGAIN_MS: u64 = 100;

/// Why a relay did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The name of the address is not known.
    #[error("cannot find the address {host:?}: {error}. Give --host an address of this machine")]
    NoAddress {
        /// What was to be looked up.
        host: String,
        /// Why it was not found.
        error: io::Error,
    },
    /// Somebody else has the port, or it is not ours to have.
    #[error("cannot listen on {addr}: {error}. {}", advice(.error))]
    Bind {
        /// What was to be bound.
        addr: SocketAddr,
        /// Why it was not.
        error: io::Error,
    },
    /// Others could reach it, and there are no accounts yet.
    #[error(
        "refused to listen on {0}: anybody who reaches it could read and change every document, \
         because there are no accounts yet. Listen on 127.0.0.1 behind a proxy that knows its \
         users, or say --allow-anonymous"
    )]
    Exposed(IpAddr),
    /// The schema is none.
    #[error("the schema cannot be used: {0}")]
    Schema(#[from] SchemaErrors),
    /// The system has no random numbers to give.
    #[error("cannot make a name for this relay: {0}")]
    NoRandomness(getrandom::Error),
    /// Never: hexadecimal digits are a name.
    #[error(transparent)]
    Name(#[from] IdError),
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "Something is listening there already: stop it, or choose another port (0 for any)"
        }
        io::ErrorKind::PermissionDenied => "Choose a port above 1023",
        io::ErrorKind::AddrNotAvailable => "Choose an address of this machine",
        _ => "Choose another address or port",
    }
}

/// A relay that runs. Dropping it leaves it running until the runtime ends.
#[derive(Debug)]
pub struct Relay {
    hub: Arc<Hub>,
    catalogue: Arc<Catalogue>,
    /// Writes the catalogue.
    keeping: JoinHandle<()>,
    store: StoreHandle,
    addr: SocketAddr,
    admin_addr: Option<SocketAddr>,
    shards: Vec<JoinHandle<()>>,
    listeners: Vec<JoinHandle<()>>,
    storage_id: String,
}

struct StoreHandle(Arc<dyn Store>);

impl std::fmt::Debug for StoreHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

impl Relay {
    /// Starts a relay: once this returns, clients can connect.
    ///
    /// # Errors
    /// [`StartError`] when there is no listening where the configuration says, or it may not be.
    pub async fn start(
        config: RelayConfig,
        store: Arc<dyn Store>,
        materialiser: Arc<dyn Materialiser>,
    ) -> Result<Self, StartError> {
        let is_open = config.allow_anonymous;
        let clients = bind(&config.host, config.port, is_open).await?;
        let admin = match &config.admin {
            Some((host, port)) => Some(bind(host, *port, is_open).await?),
            None => None,
        };
        Self::start_with(config, Listeners { clients, admin }, store, materialiser)
    }

    /// As [`Relay::start`], on listeners that are there already: the configuration's addresses
    /// are not looked at, and who may reach the relay is the caller's to know.
    ///
    /// # Errors
    /// [`StartError::NoRandomness`] and [`StartError::Schema`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start_with(
        config: RelayConfig,
        listeners: Listeners,
        store: Arc<dyn Store>,
        materialiser: Arc<dyn Materialiser>,
    ) -> Result<Self, StartError> {
        let us = random_name()?;
        let metadata = PeerMetadata {
            storage_id: Some(store.storage_id()),
            is_ephemeral: Some(false),
            features: features(&config),
            ..PeerMetadata::default()
        };
        let health = watch::Sender::new(Health::Ready);
        let schema = config.schema.as_deref().map(Schema::parse).transpose()?;
        let leased_types = schema.as_ref().map(Schema::leased).unwrap_or_default();
        let run = getrandom::u64().map_err(StartError::NoRandomness)?;
        let catalogue = Arc::new(Catalogue::new(store.clone(), schema.as_ref(), run));
        let clock = Clock::start();
        let reviewing = || {
            let (store, materialiser) = (Arc::clone(&store), Arc::clone(&materialiser));
            Arc::new(Reviewer::new(
                store,
                materialiser,
                config.schema.clone(),
                clock,
                catalogue.clone(),
            ))
        };
        let reviewer = config.review.then(reviewing);
        let gathered = Gathered::of(&store, &materialiser, reviewer.clone(), catalogue.clone());
        let surroundings = Surroundings {
            clock,
            metrics: Arc::new(Metrics::new(gathered)),
            store: store.clone(),
            materialiser,
            health: health.clone(),
            reviewer: reviewer.clone(),
            catalogue: catalogue.clone(),
        };
        let replica = |_| {
            let config = replica_config(&config, us.clone(), metadata.clone());
            Replica::new(Config { leased_types: leased_types.clone(), ..config })
        };
        let replicas = (0..config.shard_count()).map(replica);
        let (doors, shards) = shard::start(replicas, &surroundings);
        let Surroundings { clock, metrics, .. } = surroundings;
        let head_ms = config.limits.handshake_ms;
        let blobs = Arc::new(Shelf::new(Arc::clone(&store), config.limits.clone()));
        let hub = Hub::new(config, us, metadata, clock, metrics, doors, health, blobs.clone());
        let hub = Arc::new(hub);

        let Listeners { clients, admin } = listeners;
        let (addr, admin_addr) = (clients.addr(), admin.as_ref().map(|admin| admin.addr()));
        if let Some(admin) = admin {
            // Not ended with the others: who watches a shutdown wants to see it.
            let anybody = Addresses::new(0);
            let router = http::admin(hub.clone());
            tokio::spawn(accept_always(hub.clone(), anybody, admin, router, head_ms));
        }
        let api = api::routes(&hub, reviewer.clone(), catalogue.clone());
        let router = http::clients(hub.clone(), api);
        let mut listeners = vec![tokio::spawn(blobs::run(hub.clone(), blobs, reviewer.clone()))];
        if let Some(reviewer) = reviewer {
            listeners.push(tokio::spawn(review::run(hub.clone(), reviewer)));
        }
        listeners.push(tokio::spawn(starts::tell(hub.clone(), Arc::clone(&store))));
        let keeping = tokio::spawn(catalogue::run(catalogue.clone()));
        listeners.push(tokio::spawn(accept(hub.clone(), clients, router, head_ms)));
        listeners.push(tokio::spawn(close_on_failure(hub.clone())));
        Ok(Self {
            storage_id: store.storage_id().to_string(),
            store: StoreHandle(store),
            addr,
            admin_addr,
            hub,
            catalogue,
            keeping,
            shards,
            listeners,
        })
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the admin listener is, if there is one.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_addr
    }

    /// The id of its store.
    pub fn storage_id(&self) -> &str {
        &self.storage_id
    }

    /// Waits until the store fails, which the relay does not outlive, and gives the reason. All
    /// connections are being closed then.
    pub async fn failed(&self) -> String {
        let mut health = self.hub.watch_health();
        let failed = health.wait_for(|health| matches!(health, Health::Failed(_))).await;
        match failed.as_deref() {
            Ok(Health::Failed(reason)) => reason.clone(),
            // Never: the hub holds the sender, and this holds the hub.
            _ => std::future::pending().await,
        }
    }

    /// Ends the relay: no new connections, no more sync messages, everything on disk, connections
    /// closed with 4503 ([`CloseCode::Draining`]), the store closed. Takes less than 10 s.
    ///
    /// # Errors
    /// [`StoreError`] when the store could not be closed.
    pub async fn shutdown(self) -> Result<(), StoreError> {
        let hub = &self.hub;
        hub.drain();
        tracing::info!("draining");
        hub.shards.tell_all(|| Inbound::Event(Event::Drain)).await;
        sleep(Duration::from_millis(QUIET_MS)).await;
        if timeout(Duration::from_millis(SETTLE_MS), hub.shards.settle()).await.is_err() {
            tracing::warn!("writes are still on their way to the disk; they were not acknowledged");
        }
        hub.close_all(CloseCode::Draining, "the relay is shutting down");
        if timeout(Duration::from_millis(PART_MS), hub.empty()).await.is_err() {
            tracing::warn!("some connections did not close in time");
        }
        hub.shards.tell_all(|| Inbound::Stop).await;
        for task in self.shards.into_iter().chain(self.listeners) {
            // Shards end by themselves; listeners have ended with `drain`.
            let abort = task.abort_handle();
            if timeout(Duration::from_millis(ACCEPT_AGAIN_MS * 2), task).await.is_err() {
                abort.abort();
            }
        }
        self.keeping.abort();
        self.catalogue.checkpoint().await;
        self.store.0.close().await
    }

    /// Waits, after [`Relay::failed`], until connections have been told so; not longer than 3 s.
    pub async fn abandon(self) {
        let _ = timeout(Duration::from_millis(PART_MS), self.hub.empty()).await;
    }
}

/// What the relay can do beyond what every `concord.v1` can.
fn features(config: &RelayConfig) -> Features {
    Features::NONE
        .with(Feature::Blobs)
        .with(Feature::Leases)
        .with(Feature::Unsubscribe)
        .with_if(Feature::Zstd, config.compression)
}

fn replica_config(config: &RelayConfig, us: PeerId, metadata: PeerMetadata) -> Config {
    Config {
        limits: config.limits.clone(),
        idle_ms: config.idle_ms,
        stalled_ms: config.stalled_ms,
        strict: config.strict,
        ..Config::new(us, metadata)
    }
}

/// A name for this run, as automerge-repo makes them for its peers.
fn random_name() -> Result<PeerId, StartError> {
    let random = getrandom::u64().map_err(StartError::NoRandomness)?;
    Ok(format!("concord-{random:016x}").parse()?)
}

async fn bind(host: &str, port: u16, is_open: bool) -> Result<Box<dyn Listener>, StartError> {
    let no_address = |error| StartError::NoAddress { host: host.to_owned(), error };
    let found: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(no_address)?.collect();
    if let Some(exposed) = found.iter().find(|addr| !is_open && !addr.ip().is_loopback()) {
        return Err(StartError::Exposed(exposed.ip()));
    }
    let mut failed = no_address(io::ErrorKind::NotFound.into());
    for addr in found {
        match Tcp::bind(addr).await {
            Ok(listener) => return Ok(Box::new(listener)),
            Err(error) => failed = StartError::Bind { addr, error },
        }
    }
    Err(failed)
}

/// Accepts until the relay drains or fails.
async fn accept(hub: Arc<Hub>, listener: Box<dyn Listener>, router: Router, head_ms: u64) {
    let mut health = hub.watch_health();
    tokio::select! {
        () = accept_always(hub.clone(), hub.addresses.clone(), listener, router, head_ms) => {}
        _ = health.wait_for(|health| *health != Health::Ready) => {}
    }
}

async fn accept_always(
    hub: Arc<Hub>,
    addresses: Arc<Addresses>,
    listener: Box<dyn Listener>,
    router: Router,
    head_ms: u64,
) {
    let turning_away = Arc::new(Semaphore::new(TURNED_AWAY_AT_ONCE));
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if let Some(place) = addresses.enter(from.ip()) {
                    let stream = Metered::new(stream, place);
                    tokio::spawn(http::serve(stream, router.clone(), head_ms));
                    continue;
                }
                hub.metrics.turned_away.inc();
                tracing::debug!(%from, "too many connections from this address");
                if let Ok(permit) = turning_away.clone().try_acquire_owned() {
                    tokio::spawn(async move {
                        http::turn_away(stream).await;
                        drop(permit);
                    });
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(ACCEPT_AGAIN_MS)).await;
            }
        }
    }
}

/// Ends all connections when the store fails.
async fn close_on_failure(hub: Arc<Hub>) {
    let mut health = hub.watch_health();
    let ended = health.wait_for(|health| *health != Health::Ready).await;
    if matches!(ended.as_deref(), Ok(Health::Failed(_))) {
        drop(ended);
        hub.close_all(CloseCode::StorageFailed, "the relay cannot store; nothing was acknowledged");
    }
}
