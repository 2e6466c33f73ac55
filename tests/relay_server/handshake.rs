//! The first message, and what it gives.

use concord::relay::{Relay, StartError};
use concord_protocol::{CloseCode, Message, PeerMetadata, handshake::SUBPROTOCOL};

use crate::{
    client::{Client, Heard},
    world::{World, get},
};

#[tokio::test]
async fn a_join_is_answered_on_any_path() {
    let world = World::new().await;
    let mut clients = Vec::new();
    for (n, path) in ["", "/", "/sync", "/any/path?with=query"].into_iter().enumerate() {
        let mut client = Client::connect(&format!("{}{path}", world.url())).await;
        assert!(client.response.headers().get("sec-websocket-protocol").is_none());
        client.say_join(&format!("peer-{n}")).await;
        client.is_served().await;
        clients.push(client);
    }
    assert!((world.metric("concord_peers").await - 4.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn the_answer_names_a_lasting_store() {
    let world = World::new().await;
    let mut client = Client::connect(&world.url()).await;
    let join = Message::Join {
        sender: "ann".parse().unwrap(),
        metadata: PeerMetadata::default(),
        versions: vec!["0".to_owned(), "1".to_owned()],
    };
    client.send(&join).await;
    let Heard::Message(Message::Peer { metadata, target, version, .. }) = client.hear().await
    else {
        panic!("expected a welcome");
    };
    assert_eq!(metadata.storage_id.unwrap().as_str(), world.relay.storage_id());
    assert_eq!(metadata.is_ephemeral, Some(false));
    assert_eq!((target.as_str(), version.as_str()), ("ann", "1"));
}

#[tokio::test]
async fn concord_is_spoken_with_those_who_offer_it() {
    let world = World::new().await;
    let offer = format!("other.v2, {SUBPROTOCOL}");
    let mut client = Client::dial(&world.url(), Some(&offer), None).await;
    let chosen = client.response.headers().get("sec-websocket-protocol").unwrap();
    assert_eq!(chosen, SUBPROTOCOL);
    client.say_join("ann").await;
    client.is_served().await;
}

#[tokio::test]
async fn another_version_hears_why_it_is_refused() {
    let world = World::new().await;
    let mut client = Client::connect(&world.url()).await;
    let join = Message::Join {
        sender: "ann".parse().unwrap(),
        metadata: PeerMetadata::default(),
        versions: vec!["2".to_owned()],
    };
    client.send(&join).await;
    assert!(matches!(client.hear().await, Heard::Message(Message::Error { .. })));
    assert_eq!(client.closed().await.0, CloseCode::Protocol.code());
}

#[tokio::test]
async fn who_does_not_join_first_is_refused() {
    let world = World::new().await;
    let mut client = Client::connect(&world.url()).await;
    let request = client.request(&concord_protocol::DocumentId::from_bytes(b"early"));
    client.send(&request).await;
    assert_eq!(client.closed().await.0, CloseCode::Protocol.code());
}

#[tokio::test]
async fn who_says_nothing_is_refused_after_a_while() {
    let world = World::with(|config| config.limits.handshake_ms = 200).await;
    let mut client = Client::connect(&world.url()).await;
    assert_eq!(client.closed().await.0, CloseCode::HandshakeTimeout.code());
    assert!((world.metric("concord_closes_total{code=\"4408\"}").await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn nobody_says_much_before_a_join() {
    let world = World::new().await;
    let mut client = Client::connect(&world.url()).await;
    client.send_bytes(vec![0xf6; 300_000].into()).await;
    assert_eq!(client.closed().await.0, CloseCode::TooBig.code());
}

#[tokio::test]
async fn a_second_join_replaces_the_first() {
    let world = World::new().await;
    let mut old = world.join("ann").await;
    let mut other = world.join("bob").await;
    for _ in 0..3 {
        let mut new = world.join("ann").await;
        assert_eq!(old.closed().await.0, CloseCode::Replaced.code());
        new.is_served().await;
        old = new;
    }
    other.is_served().await;
    assert!((world.metric("concord_peers").await - 2.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn many_joins_of_one_peer_at_once_leave_one() {
    let world = World::new().await;
    let url = world.url();
    let joining: Vec<_> = (0..20)
        .map(|_| {
            let url = url.clone();
            tokio::spawn(async move {
                let mut client = Client::connect(&url).await;
                let join = Message::Join {
                    sender: "ann".parse().unwrap(),
                    metadata: PeerMetadata::default(),
                    versions: vec!["1".to_owned()],
                };
                client.send(&join).await;
                client
            })
        })
        .collect();
    let mut clients = Vec::new();
    for joined in joining {
        clients.push(joined.await.unwrap());
    }
    let mut last = world.join("ann").await;
    last.is_served().await;
    for mut client in clients {
        assert_eq!(client.closed().await.0, CloseCode::Replaced.code());
    }
    last.is_served().await;
}

#[tokio::test]
async fn a_browser_gets_a_page_and_nobody_else_anything() {
    let world = World::new().await;
    let (status, page) = get(world.relay.addr(), "/").await;
    assert_eq!(status, 200);
    assert!(page.contains("automerge-repo"));
    for path in ["/metrics", "/healthz", "/readyz", "/other"] {
        assert_eq!(get(world.relay.addr(), path).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn beyond_this_machine_is_refused_without_accounts() {
    let store = concord::store::memory().unwrap();
    let limits = concord::worker::WorkerLimits::default();
    let materialiser = std::sync::Arc::new(concord::worker::InProcess::start(limits).unwrap());
    let config = concord::relay::RelayConfig {
        host: "0.0.0.0".to_owned(),
        port: 0,
        admin: None,
        ..concord::relay::RelayConfig::default()
    };
    let refused = Relay::start(config, store, materialiser).await;
    assert!(matches!(refused, Err(StartError::Exposed(_))));
}
