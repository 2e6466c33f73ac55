//! A relay's schema: who is told of it, and who asks for it.

use concord::{
    relay::{Relay, RelayConfig, StartError},
    store,
    worker::{InProcess, WorkerLimits},
};
use concord_protocol::{
    Message, PeerMetadata, SchemaHash, handshake::SUBPROTOCOL, limits::SCHEMA_BYTES_MAX,
};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    client::{Client, Heard},
    world::World,
};

const SCHEMA: &str = "[types.task.fields]\ntitle = \"string\"\n";

async fn world() -> World {
    World::with(|config| config.schema = Some(SCHEMA.to_owned())).await
}

#[tokio::test]
async fn whoever_speaks_concord_is_told_once_and_whoever_holds_it_is_not() {
    let world = world().await;
    let hash = SchemaHash::of(SCHEMA);
    let mut ann = Client::join_speaking(&world.url(), "ann", PeerMetadata::default()).await;
    match ann.hear().await {
        Heard::Message(Message::Schema { hash: told, text }) => {
            assert_eq!((told, &*text), (hash, SCHEMA));
        }
        other => panic!("expected the schema, heard {other:?}"),
    }
    // What is heard next is the answer to this.
    ann.is_served().await;

    let holds = |hash| PeerMetadata { schema: Some(hash), ..PeerMetadata::default() };
    let mut ben = Client::join_speaking(&world.url(), "ben", holds(hash)).await;
    ben.is_served().await;
    let other = holds(SchemaHash::of("another"));
    let mut cem = Client::join_speaking(&world.url(), "cem", other).await;
    assert!(matches!(cem.hear().await, Heard::Message(Message::Schema { .. })));

    // Neither who speaks version 1, nor who took the subprotocol without a word of it.
    world.join("dan").await.is_served().await;
    let mut eve = Client::dial(&world.url(), Some(SUBPROTOCOL), None).await;
    eve.say_join("eve").await;
    eve.is_served().await;

    let without = World::new().await;
    let mut fay = Client::join_speaking(&without.url(), "fay", PeerMetadata::default()).await;
    fay.is_served().await;
}

async fn ask(world: &World, more: &str) -> (String, String) {
    let addr = world.relay.addr();
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request =
        format!("GET /v1/schema HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

#[tokio::test]
async fn it_is_served_over_http_with_its_tag() {
    let world = world().await;
    let tag = format!("\"{}\"", SchemaHash::of(SCHEMA));
    let (head, body) = ask(&world, "").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains(&format!("etag: {tag}")) && head.contains("text/toml"), "{head}");
    assert_eq!(body, SCHEMA);
    for held in [tag.clone(), format!("\"a\", W/{tag}"), "*".to_owned()] {
        let (head, body) = ask(&world, &format!("if-none-match: {held}\r\n")).await;
        assert!(head.starts_with("http/1.1 304") && body.is_empty(), "{held}: {head}");
        assert!(head.contains(&tag), "{head}");
    }
    let (head, _) = ask(&world, "if-none-match: \"other\"\r\n").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let (head, _) = ask(&world, "origin: https://evil.example\r\n").await;
    assert!(head.starts_with("http/1.1 403"), "{head}");

    let without = World::with(|config| config.review = false).await;
    let (head, body) = ask(&without, "").await;
    assert!(head.starts_with("http/1.1 404") && body.contains("--schema FILE"), "{head} {body}");
}

#[tokio::test]
async fn a_schema_that_is_too_large_to_be_told_is_refused_at_the_start() {
    let text = format!("{SCHEMA}#{}", "x".repeat(SCHEMA_BYTES_MAX - SCHEMA.len() - 1));
    let start = async |text: String| {
        let config =
            RelayConfig { port: 0, admin: None, schema: Some(text), ..RelayConfig::default() };
        let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
        Relay::start(config, store::memory().unwrap(), worker).await
    };
    let relay = start(text.clone()).await.unwrap();
    let url = format!("ws://{}", relay.addr());
    let mut ann = Client::join_speaking(&url, "ann", PeerMetadata::default()).await;
    assert!(
        matches!(ann.hear().await, Heard::Message(Message::Schema { text: told, .. }) if told == text)
    );
    relay.shutdown().await.unwrap();
    let error = start(text + "x").await.unwrap_err();
    assert!(matches!(error, StartError::Schema(_)));
    assert!(error.to_string().contains(&SCHEMA_BYTES_MAX.to_string()), "{error}");
}
