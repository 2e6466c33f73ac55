//! A relay in this process that has documents of strangers opened in processes of their own, as
//! the program has it, under short limits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use concord::{
    relay::{Relay, RelayConfig},
    store,
    worker::WorkerLimits,
};
use concord_protocol::DocumentId;
use tokio::sync::{Mutex, MutexGuard};

use crate::{honest::Pair, worker_common};

/// One world at a time: the memory of this process is measured.
static ALONE: Mutex<()> = Mutex::const_new(());
/// Less than a relay gives, so that files that hang do not hold up the test.
const INCOMING_MS: u64 = 200;
/// Enough for the stack and every honest document here.
const MEMORY_BYTES: u64 = 512 << 20;

pub(crate) struct World {
    pub(crate) relay: Relay,
    /// Honest clients that have a document open.
    pub(crate) honest: Pair,
    /// What they have open.
    pub(crate) shared: DocumentId,
    started: Instant,
    rss_kib: u64,
    _alone: MutexGuard<'static, ()>,
}

impl World {
    /// The relay as it is by default: what automerge cannot apply is found only after it was
    /// passed on.
    pub(crate) async fn new() -> Self {
        Self::start(false, true).await
    }

    /// Every change is applied before it is passed on.
    pub(crate) async fn strict() -> Self {
        Self::start(true, false).await
    }

    async fn start(strict: bool, is_light: bool) -> Self {
        let alone = ALONE.lock().await;
        let mut limits = WorkerLimits::default();
        limits.incoming_ms = INCOMING_MS;
        limits.incoming_ms_per_kib = 0;
        limits.memory_bytes = MEMORY_BYTES;
        let config = RelayConfig {
            port: 0,
            admin: None,
            // So that whoever holds up one document holds up all, and is seen.
            shards: 1,
            ping_ms: 5_000,
            strict,
            ..RelayConfig::default()
        };
        let pool = Arc::new(worker_common::pool(limits).await);
        let relay = Relay::start(config, store::memory().unwrap(), pool).await.unwrap();
        let shared = DocumentId::from_bytes(&[1; 16]);
        let honest = Pair::start(&url(&relay), &shared, is_light).await;
        honest.round().await;
        Self { relay, honest, shared, started: Instant::now(), rss_kib: rss_kib(), _alone: alone }
    }

    pub(crate) fn url(&self) -> String {
        url(&self.relay)
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// KiB that this process, relay and honest clients included, has grown by.
    pub(crate) fn grown_kib(&self) -> u64 {
        rss_kib().saturating_sub(self.rss_kib)
    }

    /// The honest clients have all they wrote, so has somebody who comes now, and the relay
    /// ends in order.
    pub(crate) async fn end(self) {
        let url = self.url();
        self.honest.end(&url).await;
        self.relay.shutdown().await.unwrap();
    }
}

fn url(relay: &Relay) -> String {
    format!("ws://{}", relay.addr())
}

fn rss_kib() -> u64 {
    worker_common::status_kib(std::process::id(), "VmRSS").unwrap_or(0)
}
