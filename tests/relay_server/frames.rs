//! Frames that are none: who sends one is closed with a reason, and nobody else notices.

use bytes::Bytes;
use concord_protocol::{CloseCode, DocumentId, Message, PeerMetadata, codec, handshake};
use tokio_tungstenite::tungstenite;

use crate::{
    client::{Client, Heard},
    world::World,
};

/// Sends a frame after a join, gives how the relay closed, and shows that another goes on.
async fn closed_for(world: &World, frame: tungstenite::Message) -> (u16, String) {
    let mut bystander = world.join("bystander").await;
    let mut client = world.join("stranger").await;
    client.send_frame(frame).await;
    let closed = client.closed().await;
    bystander.is_served().await;
    closed
}

fn binary(bytes: impl Into<Bytes>) -> tungstenite::Message {
    tungstenite::Message::Binary(bytes.into())
}

#[tokio::test]
async fn what_ends_the_javascript_servers_ends_only_the_connection() {
    let world = World::new().await;
    for bytes in [&[0xf6_u8][..], &[0xff, 0xff], &[], &[0xa0], &[0x80], b"{}"] {
        let (code, reason) = closed_for(&world, binary(bytes.to_vec())).await;
        assert_eq!(code, CloseCode::Protocol.code(), "{bytes:x?}");
        assert!(!reason.is_empty(), "{bytes:x?}");
        // The same as the first words.
        let mut client = Client::connect(&world.url()).await;
        client.send_bytes(bytes.to_vec().into()).await;
        assert_eq!(client.closed().await.0, CloseCode::Protocol.code(), "{bytes:x?}");
    }
    assert!(world.metric("concord_bad_frames_total{kind=\"undecodable\"}").await >= 10.0);
}

#[tokio::test]
async fn text_is_no_message() {
    let world = World::new().await;
    let (code, reason) = closed_for(&world, tungstenite::Message::Text("{}".into())).await;
    assert_eq!(code, CloseCode::Protocol.code());
    assert!(reason.contains("binary"));
    assert!((world.metric("concord_bad_frames_total{kind=\"text\"}").await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_message_cut_off_anywhere_is_no_message() {
    let world = World::new().await;
    let client = world.join("ann").await;
    let whole = codec::encode(&client.request(&DocumentId::from_bytes(b"cut")));
    for end in (1..whole.len()).step_by(whole.len().div_ceil(12)) {
        let (code, _) = closed_for(&world, binary(whole.slice(..end))).await;
        assert_eq!(code, CloseCode::Protocol.code(), "cut at {end}");
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_too_big() {
    let world = World::with(|config| config.limits.message_bytes = 100_000).await;
    let (code, reason) = closed_for(&world, binary(vec![0; 4_000_000])).await;
    assert_eq!(code, CloseCode::TooBig.code());
    assert!(reason.contains("100000"), "{reason}");
}

#[tokio::test]
async fn random_bytes_are_closed_or_ignored() {
    let world = World::new().await;
    let mut bystander = world.join("bystander").await;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..60 {
        let mut bytes = vec![0; 1 + round * 7];
        for byte in &mut bytes {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8;
        }
        let mut client = world.join("stranger").await;
        client.send_bytes(bytes.into()).await;
        assert_eq!(client.closed().await.0, CloseCode::Protocol.code());
    }
    bystander.is_served().await;
}

#[tokio::test]
async fn a_join_is_said_once_and_several_messages_need_concord() {
    let world = World::new().await;
    let again = handshake::join(&"stranger".parse().unwrap(), &PeerMetadata::default());
    let (code, _) = closed_for(&world, binary(codec::encode(&again))).await;
    assert_eq!(code, CloseCode::Protocol.code());

    let client = world.join("ann").await;
    let one = codec::encode(&client.request(&DocumentId::from_bytes(b"batch")));
    let mut two = vec![0x82];
    two.extend_from_slice(&one);
    two.extend_from_slice(&one);
    let (code, _) = closed_for(&world, binary(two)).await;
    assert_eq!(code, CloseCode::Protocol.code());
}

#[tokio::test]
async fn several_messages_in_a_frame_are_each_answered_in_concord() {
    let world = World::new().await;
    let mut client = Client::join_concord(&world.url(), "ann").await;
    let documents: Vec<_> = (0..5_u8).map(|n| DocumentId::from_bytes(&[n; 16])).collect();
    let mut frame = vec![0x85];
    for document in &documents {
        frame.extend_from_slice(&codec::encode(&client.request(document)));
    }
    client.send_bytes(frame.into()).await;
    let mut told = Vec::new();
    while told.len() < documents.len() {
        match client.hear().await {
            Heard::Message(Message::DocUnavailable { document, .. }) => told.push(document),
            Heard::Message(_) => {}
            other => panic!("expected five answers, heard {other:?}"),
        }
    }
    told.sort();
    let mut documents = documents;
    documents.sort();
    assert_eq!(told, documents);
}

#[tokio::test]
async fn nobody_speaks_for_another() {
    let world = World::new().await;
    let mut client = world.join("ann").await;
    let document = DocumentId::from_bytes(b"foreign");
    let mut foreign = client.request(&document);
    if let Message::Request { sender, .. } = &mut foreign {
        *sender = "bob".parse().unwrap();
    }
    client.send(&foreign).await;
    // Messages are taken in order: the next answer would be to the foreign one.
    client.is_served().await;
    assert!((world.metric("concord_foreign_sender_messages_total").await - 1.0).abs() < 0.1);
}

#[tokio::test]
async fn a_document_that_cannot_be_is_unavailable_at_once() {
    let world = World::new().await;
    let mut client = world.join("ann").await;
    let document = DocumentId::from_bytes(b"no such document");
    let frame = codec::encode(&client.request(&document)).to_vec();
    // The same length, so that the frame stays whole; `0` is no base58 digit.
    let wrong = "0".repeat(document.as_str().len());
    let at =
        frame.windows(wrong.len()).position(|part| part == document.as_str().as_bytes()).unwrap();
    let mut misaddressed = frame;
    misaddressed[at..at + wrong.len()].copy_from_slice(wrong.as_bytes());
    client.send_bytes(misaddressed.into()).await;
    match client.hear().await {
        // It is no document id here either.
        Heard::Message(Message::Misaddressed { document, .. }) => assert_eq!(document, wrong),
        other => panic!("expected doc-unavailable, heard {other:?}"),
    }
    client.is_served().await;
}
