//! A relay in this process, on ports of its own.

use std::{net::SocketAddr, sync::Arc};

use concord::{
    relay::{Relay, RelayConfig},
    store::{self, MemoryFaults, Store},
    worker::{InProcess, WorkerLimits},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::client::Client;

pub(crate) struct World {
    pub(crate) relay: Relay,
    pub(crate) faults: MemoryFaults,
}

impl World {
    /// A relay with the default configuration but for what is changed.
    pub(crate) async fn with(change: impl FnOnce(&mut RelayConfig)) -> Self {
        let id = "b5c0f1f4-8d1c-4d7e-9a52-3a2b9b9b0001".parse().unwrap();
        let (store, faults) = store::memory_with_faults(id);
        let relay = start(store, change).await;
        Self { relay, faults }
    }

    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.relay.addr())
    }

    pub(crate) async fn join(&self, name: &str) -> Client {
        Client::join(&self.url(), name).await
    }

    /// Fetches a page of the admin listener: status and body.
    pub(crate) async fn admin(&self, path: &str) -> (u16, String) {
        get(self.relay.admin_addr().unwrap(), path).await
    }

    /// The value of a metric, zero where it is not there yet.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        metric(self.relay.admin_addr().unwrap(), name).await.unwrap_or(0.0)
    }
}

/// The value of a metric, if it is there.
pub(crate) async fn metric(admin: SocketAddr, name: &str) -> Option<f64> {
    let (status, text) = get(admin, "/metrics").await;
    assert_eq!(status, 200);
    let mut lines = text.lines().filter_map(|line| line.rsplit_once(' '));
    lines.find(|(there, _)| *there == name).map(|(_, value)| value.parse().unwrap())
}

/// Starts a relay on free ports.
pub(crate) async fn start(store: Arc<dyn Store>, change: impl FnOnce(&mut RelayConfig)) -> Relay {
    let mut config = RelayConfig {
        port: 0,
        admin: Some(("127.0.0.1".to_owned(), 0)),
        shards: 2,
        ..RelayConfig::default()
    };
    change(&mut config);
    let materialiser = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    Relay::start(config, store, materialiser).await.unwrap()
}

/// One HTTP request: status and body.
pub(crate) async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}
