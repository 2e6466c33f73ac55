//! A relay in this process, and its HTTP interface as a program sees it.
#![allow(dead_code, reason = "each test crate uses some of it")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use concord::{
    relay::{Relay, RelayConfig},
    store::Store,
    worker::{InProcess, Materialiser, WorkerLimits},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

/// Long enough for a busy machine; nothing waits for it where all is well.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Http(pub(crate) SocketAddr);

impl Http {
    pub(crate) async fn send(&self, head: &str, body: &str) -> (u16, String, Value) {
        let mut stream = TcpStream::connect(self.0).await.unwrap();
        let length = body.len();
        let request = format!(
            "{head}\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}",
            self.0
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), serde_json::from_str(body).unwrap_or(Value::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, body) = self.send(&format!("GET {path} HTTP/1.1"), "").await;
        (status, body)
    }

    pub(crate) async fn resolve(&self, id: &str, decision: &Value) -> (u16, Value) {
        let head = format!("POST /v1/conflicts/{id}/resolve HTTP/1.1");
        let (status, _, body) = self.send(&head, &decision.to_string()).await;
        (status, body)
    }

    pub(crate) async fn revert(&self, id: &str) -> (u16, Value) {
        let head = format!("POST /v1/conflicts/{id}/revert HTTP/1.1");
        let (status, _, body) = self.send(&head, "{}").await;
        (status, body)
    }

    /// What is open, once it is as many.
    pub(crate) async fn open(&self, count: usize) -> Vec<Value> {
        let listed = async {
            loop {
                let (status, body) = self.get("/v1/conflicts?limit=500").await;
                assert_eq!(status, 200, "{body}");
                let conflicts = body["conflicts"].as_array().unwrap();
                if conflicts.len() == count && body["complete"] == true {
                    assert_eq!(body["open"], count);
                    return conflicts.clone();
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, listed).await.unwrap_or_else(|_| panic!("{count} conflicts in time"))
    }
}

pub(crate) async fn relay(store: Arc<dyn Store>) -> (Relay, Http) {
    relay_with(store, Arc::new(InProcess::start(WorkerLimits::default()).unwrap()), |_| {}).await
}

pub(crate) async fn relay_with(
    store: Arc<dyn Store>,
    worker: Arc<dyn Materialiser>,
    configure: impl FnOnce(&mut RelayConfig),
) -> (Relay, Http) {
    let mut config = RelayConfig { port: 0, admin: None, ..RelayConfig::default() };
    configure(&mut config);
    let relay = Relay::start(config, store, worker).await.unwrap();
    let http = Http(relay.addr());
    (relay, http)
}
