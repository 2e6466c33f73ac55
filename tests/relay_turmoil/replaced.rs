//! A client that connects again under its name while its first connection seems to be there.

use concord_protocol::{CloseCode, DocumentId, Message};

use crate::{
    raw::Raw,
    world::{World, ms, secs},
};

/// Whether the relay serves this client.
async fn is_served(client: &mut Raw) -> bool {
    let document = DocumentId::from_bytes(&[7; 16]);
    client.request(&document).await;
    loop {
        match client.hear().await {
            Some(Ok(Message::DocUnavailable { document: there, .. })) => return there == document,
            Some(Ok(Message::Sync { .. })) => {}
            _ => return false,
        }
    }
}

#[test]
fn the_newer_connection_has_the_name() {
    let mut world = World::new(10, |_| {});
    world.start_relay();
    world.host("laptop");
    let first = world.start("laptop", async {
        let mut client = Raw::join("laptop").await;
        assert!(is_served(&mut client).await);
        client.closed().await
    });
    world.pass(secs(1));
    let second = world.run("laptop", ms(300), async {
        let mut client = Raw::join("laptop").await;
        assert!(is_served(&mut client).await);
        client
    });
    let code = world.finish(first, secs(1));
    assert_eq!(code, Some(CloseCode::Replaced.code()));
    world.pass(secs(30));
    let mut client = second;
    assert!(world.run("laptop", secs(1), async move { is_served(&mut client).await }));
    let metrics = world.metrics();
    assert_eq!(metrics.closed(CloseCode::Replaced.code()), 1);
}

#[test]
fn a_first_connection_that_answers_nothing_keeps_nobody_waiting() {
    let mut world = World::new(11, |_| {});
    world.start_relay();
    world.host("train");
    world.host("home");
    let first = world.start("train", async {
        let mut client = Raw::join("laptop").await;
        assert!(is_served(&mut client).await);
        client.closed().await
    });
    world.pass(secs(1));
    // The tunnel: neither the end nor an answer comes out of it.
    world.sim.hold("train", "relay");
    let mut second = world.run("home", ms(300), async {
        let mut client = Raw::join("laptop").await;
        assert!(is_served(&mut client).await);
        client
    });
    // The close of the first is waited for, but not for ever, and not by the second.
    world.pass(secs(5));
    let metrics = world.metrics();
    assert_eq!(metrics.closed(CloseCode::Replaced.code()), 1);
    assert_eq!(metrics.get("concord_connections"), 1);

    // What was on its way reaches the first connection only.
    world.sim.release("train", "relay");
    assert_eq!(world.finish(first, secs(1)), Some(CloseCode::Replaced.code()));
    let is_fine = world.run("home", secs(1), async move { is_served(&mut second).await });
    assert!(is_fine);
}
