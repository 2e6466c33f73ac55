//! Shared while somebody names it, and removed some time after nobody does.

use std::time::Duration;

use concord::{
    entity::{Attachment, Schema},
    peer::Peer,
};
use serde_json::{Map, Value as Json, json};

use crate::world::{SOON, bytes_of, home_with, noise, relay_with, until};

const SCHEMA: &str = r#"
[types.task.fields]
title = "string"
photo = { kind = "attachment", max_length = 1000000 }
"#;

async fn put(peer: &Peer, key: &str, fields: &[(&str, Json)]) {
    let schema = Schema::parse(SCHEMA).unwrap();
    let of = &schema.types["task"];
    let change = |entity: &mut Map<String, Json>| {
        entity.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    };
    peer.put(of, key, change).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_entities_share_one_and_it_goes_after_both_let_it_go() {
    // Longer than a change takes to be looked at on a busy machine.
    let grace = Duration::from_secs(5);
    let relay = relay_with(|config| {
        config.schema = Some(SCHEMA.to_owned());
        config.blob_grace_ms = 5_000;
    })
    .await;
    let url = format!("ws://{}", relay.addr());
    let alice = home_with(|builder| {
        builder.relay(&url).schema(Schema::parse(SCHEMA).unwrap()).attachment_grace(grace)
    });
    let bytes = noise(100_000, 12);
    let attachment = alice.peer.attach(&bytes[..]).await.unwrap().named("a.png");
    let same = alice.peer.attach(&bytes[..]).await.unwrap();
    assert_eq!(same.hash, attachment.hash);
    for key in ["one", "two"] {
        put(&alice.peer, key, &[("photo", json!(attachment.to_string()))]).await;
    }
    assert_eq!(alice.peer.attachments().await.unwrap().len(), 1);
    alice.peer.flush(SOON).await.unwrap();
    put(&alice.peer, "one", &[("photo", Json::Null)]).await;
    alice.peer.flush(SOON).await.unwrap();
    // Longer than the grace, and than the time between two looks: one still names it.
    tokio::time::sleep(grace * 3).await;
    assert_eq!(alice.peer.attachments().await.unwrap().len(), 1);
    let bob = home_with(|builder| builder.relay(&url));
    assert_eq!(bytes_of(&bob.peer, &attachment).await.as_ref(), Ok(&bytes), "the relay has it");

    put(&alice.peer, "two", &[("photo", Json::Null)]).await;
    alice.peer.flush(SOON).await.unwrap();
    until("removed here", || async { alice.peer.attachments().await.unwrap().is_empty() }).await;
    until("removed at the relay", || async {
        let carol = home_with(|builder| builder.relay(&url));
        let opened = carol.peer.open_attachment(&attachment).await;
        carol.peer.close().await.unwrap();
        opened.is_err()
    })
    .await;
    assert_eq!(bytes_of(&bob.peer, &attachment).await.as_ref(), Ok(&bytes), "he has his own");

    // It may come again.
    let again = alice.peer.attach(&bytes[..]).await.unwrap();
    put(&alice.peer, "two", &[("photo", json!(again.to_string()))]).await;
    alice.peer.flush(SOON).await.unwrap();
    let carol = home_with(|builder| builder.relay(&url));
    assert_eq!(bytes_of(&carol.peer, &again).await, Ok(bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_schema_a_relay_removes_nothing() {
    let relay = relay_with(|config| config.blob_grace_ms = 100).await;
    let url = format!("ws://{}", relay.addr());
    let alice = home_with(|builder| builder.relay(&url));
    let attachment = alice.peer.attach(&b"kept"[..]).await.unwrap();
    alice.peer.flush(SOON).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let bob = home_with(|builder| builder.relay(&url));
    assert_eq!(bytes_of(&bob.peer, &attachment).await, Ok(b"kept".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_takes_attachments_that_fit_and_nothing_else() {
    let alice = home_with(|builder| builder.schema(Schema::parse(SCHEMA).unwrap()));
    let schema = Schema::parse(SCHEMA).unwrap();
    let of = &schema.types["task"];
    let attachment = alice.peer.attach(&b"bytes"[..]).await.unwrap().of_type("image/png");
    put(&alice.peer, "one", &[("photo", json!(attachment.to_string()))]).await;
    let got = alice.peer.get(of, "one").await.unwrap().unwrap();
    let shown = got.document.read(|doc| of.read(doc).to_json()).unwrap();
    let shown: Attachment = serde_json::from_value(shown["photo"].clone()).unwrap();
    assert_eq!(shown, attachment);
    let large = Attachment::new(attachment.hash, 1_000_001).to_string();
    for wrong in [json!("photo.png"), json!(7), json!(large)] {
        let fields = [("photo".to_owned(), wrong.clone())];
        let change = |entity: &mut Map<String, Json>| entity.extend(fields.clone());
        assert!(alice.peer.put(of, "two", change).await.is_err(), "{wrong}");
    }
}
