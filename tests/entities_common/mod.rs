//! Entities of people who are away, as a program writes and reads them.
#![allow(dead_code, clippy::needless_pass_by_value, reason = "each test crate uses some of it")]

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::{
    peer::{Document, Peer},
    store,
};
use serde_json::Value as Json;
use tokio::time::{sleep, timeout};

use crate::http_common::SOON;

pub(crate) fn offline() -> Peer {
    Peer::builder("memory").store(store::memory().unwrap()).open().unwrap()
}

pub(crate) async fn make(peer: &Peer, type_name: &str, fields: Json) -> Document {
    let document = peer.create().await.unwrap();
    let fields = fields.as_object().unwrap().clone();
    document
        .change(|tx| {
            tx.put(ROOT, "type", type_name)?;
            for (key, value) in fields {
                match value {
                    Json::Number(number) => tx.put(ROOT, key, number.as_i64().unwrap())?,
                    value => tx.put(ROOT, key, value.as_str().unwrap())?,
                }
            }
            Ok(())
        })
        .await
        .unwrap();
    document
}

pub(crate) fn has(document: &Document, key: &str) -> Option<String> {
    let read = document.read(|doc| {
        let (value, _) = doc.get(ROOT, key).unwrap()?;
        value.as_str().map(str::to_owned)
    });
    read.unwrap()
}

pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}
