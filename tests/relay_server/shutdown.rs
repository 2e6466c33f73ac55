//! The end of a relay, wanted and not.

use std::time::{Duration, Instant};

use concord::store::{self, Engine, Options};
use concord_protocol::{CloseCode, DocumentId, Message};

use crate::{
    client::{Client, Heard},
    world::{World, start},
};

#[tokio::test]
async fn a_shutdown_says_so_stores_all_and_gives_the_directory_free() {
    let directory = tempfile::tempdir().unwrap();
    let engine = Engine::Sled;
    let open = || store::open(directory.path(), engine, &Options::default()).unwrap();
    let relay = start(open(), |_| {}).await;
    let (url, admin) = (format!("ws://{}", relay.addr()), relay.admin_addr().unwrap());
    let document = DocumentId::from_bytes(b"kept");
    let mut writer = Client::join(&url, "writer").await;
    writer.upload(&document).await.unwrap();
    let mut concord = Client::join_concord(&url, "concord").await;
    assert_eq!(crate::world::get(admin, "/readyz").await.0, 200);

    let begun = Instant::now();
    let ending = tokio::spawn(relay.shutdown());
    let mut said = false;
    loop {
        match concord.hear().await {
            Heard::Message(Message::GoAway { .. }) => said = true,
            Heard::Closed(code, _) => {
                assert_eq!(code, CloseCode::Draining.code());
                break;
            }
            other => panic!("expected to be sent away, heard {other:?}"),
        }
    }
    assert!(said, "who speaks concord.v1 is told before the close");
    assert!(begun.elapsed() >= Duration::from_millis(100), "clients get time to settle");
    assert_eq!(writer.closed().await.0, CloseCode::Draining.code());
    ending.await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    let (status, reason) = crate::world::get(admin, "/readyz").await;
    assert_eq!((status, reason.as_str()), (503, "draining\n"));

    // The directory is free, and what was acknowledged is in it.
    let relay = start(open(), |_| {}).await;
    let mut reader = Client::join(&format!("ws://{}", relay.addr()), "reader").await;
    let request = reader.request(&document);
    reader.send(&request).await;
    loop {
        match reader.hear().await {
            Heard::Message(Message::Sync { data, .. }) => {
                let message = automerge::sync::Message::decode(&data).unwrap();
                if !message.heads.is_empty() {
                    break;
                }
            }
            other => panic!("expected the document, heard {other:?}"),
        }
    }
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_failed_write_ends_the_relay_and_is_never_acknowledged() {
    let world = World::new().await;
    let mut bystander = world.join("bystander").await;
    let mut writer = world.join("writer").await;
    world.faults.fail_flushes(true);
    let document = DocumentId::from_bytes(b"lost");
    let code = writer.upload(&document).await.unwrap_err();
    assert_eq!(code, CloseCode::StorageFailed.code());
    assert_eq!(bystander.closed().await.0, CloseCode::StorageFailed.code());
    let reason = world.relay.failed().await;
    assert!(reason.contains("restart"), "{reason}");
    let (status, told) = world.admin("/readyz").await;
    assert_eq!(status, 503);
    assert!(told.starts_with("failed: "), "{told}");
    assert_eq!(world.admin("/healthz").await.0, 200);
    world.relay.abandon().await;
}
