//! Frames of several messages, and compressed ones: between those who agreed on them, and nobody else.

use std::fmt::Write as _;

use bytes::Bytes;
use concord_protocol::{
    CloseCode, DocumentId, Feature, Features, Limits, Message, PeerMetadata, codec,
    handshake::{self, SUBPROTOCOL},
    limits::INFLATED_BYTES_MAX,
};
use futures_util::StreamExt as _;
use tokio_tungstenite::tungstenite;

use crate::{client::Client, world::World};

const ZSTD: Features = Features::NONE.with(Feature::Zstd);

async fn speaking(world: &World, name: &str, features: Features) -> Client {
    let metadata = PeerMetadata { features, ..PeerMetadata::default() };
    Client::join_speaking(&world.url(), name, metadata).await
}

/// The next frame as it is.
async fn frame(client: &mut Client) -> Bytes {
    loop {
        match client.socket.next().await.unwrap().unwrap() {
            tungstenite::Message::Binary(frame) => return frame,
            tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_) => {}
            other => panic!("expected a frame, got {other:?}"),
        }
    }
}

fn zstd_of(frame: &[u8]) -> Bytes {
    let mut out = Vec::new();
    // One block that is not compressed, written by hand: magic, a header without a checksum, with the
    // content's size in four bytes, and the last block.
    out.extend([0x28, 0xb5, 0x2f, 0xfd, 0xa0]);
    out.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
    let head = u32::try_from(frame.len() << 3).unwrap() | 1;
    out.extend_from_slice(&head.to_le_bytes()[..3]);
    out.extend_from_slice(frame);
    out.into()
}

fn wrapped(length: usize, data: Bytes) -> Bytes {
    codec::encode(&Message::Compressed { length: u32::try_from(length).unwrap(), data })
}

fn hang_ups(count: u32) -> Bytes {
    let messages: Vec<_> = (0..count).map(|id| Message::HangUp { id }).collect();
    codec::encode_many(&messages)
}

#[tokio::test]
async fn what_waits_together_comes_in_one_frame() {
    let world = World::new().await;
    let mut client = speaking(&world, "ann", Features::NONE).await;
    for round in 0..50_u8 {
        let ask = |n: u8| client.request(&DocumentId::from_bytes(&[round, n]));
        let asked: Vec<_> = (0..60).map(ask).collect();
        client.send_bytes(codec::encode_many(&asked)).await;
        let (mut answers, mut largest) = (0, 0);
        while answers < 60 {
            let messages = codec::decode(&frame(&mut client).await, &Limits::default()).unwrap();
            largest = largest.max(messages.len());
            let is_answer = |message: &&Message| matches!(message, Message::DocUnavailable { .. });
            answers += messages.iter().filter(is_answer).count();
        }
        if largest > 1 {
            return;
        }
    }
    panic!("each of 3000 answers came in a frame of its own");
}

#[tokio::test]
async fn a_frame_of_more_than_a_hundred_messages_is_refused() {
    let world = World::new().await;
    let mut client = speaking(&world, "ann", Features::NONE).await;
    client.send_bytes(hang_ups(100)).await;
    client.is_served().await;
    client.send_bytes(hang_ups(101)).await;
    let (code, reason) = client.closed().await;
    assert_eq!(code, CloseCode::Protocol.code());
    assert!(reason.contains("101 messages") && reason.contains("100"), "{reason}");
}

#[tokio::test]
async fn a_compressed_frame_is_read_where_that_was_agreed_on() {
    let world = World::new().await;
    let inner =
        |client: &Client| codec::encode(&client.request(&DocumentId::from_bytes(b"compressed")));
    let mut ann = speaking(&world, "ann", ZSTD).await;
    let message = inner(&ann);
    ann.send_bytes(wrapped(message.len(), zstd_of(&message))).await;
    let answer = codec::decode(&frame(&mut ann).await, &Limits::default()).unwrap();
    assert!(matches!(answer[..], [Message::DocUnavailable { .. } | Message::Sync { .. }, ..]));

    let plain = World::with(|config| config.compression = false).await;
    let others =
        [speaking(&world, "ben", Features::NONE).await, speaking(&plain, "cat", ZSTD).await];
    for mut other in others {
        let message = inner(&other);
        other.send_bytes(wrapped(message.len(), zstd_of(&message))).await;
        let (code, reason) = other.closed().await;
        assert_eq!(code, CloseCode::Protocol.code());
        assert!(reason.contains("not agreed"), "{reason}");
    }
}

#[tokio::test]
async fn bombs_and_wrappers_in_wrappers_are_refused_and_others_are_served() {
    let world = World::new().await;
    let mut bystander = speaking(&world, "bystander", ZSTD).await;
    let one = hang_ups(1);
    let nested = wrapped(one.len(), zstd_of(&one));
    let many = hang_ups(101);
    let among = codec::encode_many(&[
        Message::HangUp { id: 1 },
        Message::Compressed { length: 1, data: Bytes::from_static(b"x") },
    ]);
    // A block that says of one byte that it is there 128 KiB times, as often as one likes.
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
    bomb.extend((64_u64 << 20).to_le_bytes());
    for block in 1..=512_u32 {
        let head = ((128 * 1024) << 3) | (1 << 1) | u32::from(block == 512);
        bomb.extend_from_slice(&head.to_le_bytes()[..3]);
        bomb.push(0);
    }
    let bomb = Bytes::from(bomb);
    let cases = [
        ("large", wrapped(INFLATED_BYTES_MAX + 1, bomb.clone())),
        ("a bomb", wrapped(1_000, bomb.clone())),
        ("a bomb that fills the room", wrapped(INFLATED_BYTES_MAX, bomb)),
        ("nested", wrapped(nested.len(), zstd_of(&nested))),
        ("101 messages", wrapped(many.len(), zstd_of(&many))),
        ("among others", among),
        ("more than is there", wrapped(one.len() + 1, zstd_of(&one))),
        ("no zstd", wrapped(10, Bytes::from_static(b"not zstd"))),
    ];
    for (name, case) in cases {
        let mut client = speaking(&world, "stranger", ZSTD).await;
        client.send_bytes(case).await;
        let (code, reason) = client.closed().await;
        assert_eq!(code, CloseCode::Protocol.code(), "{name}");
        assert!(!reason.is_empty(), "{name}");
        bystander.is_served().await;
    }
}

#[tokio::test]
async fn who_takes_compressed_frames_gets_them_and_nobody_else() {
    let mut schema = String::from("[types.note.fields]\n");
    for n in 0..400 {
        writeln!(schema, "field_number_{n} = \"string\"").unwrap();
    }
    let long = schema.len();
    let world = World::with(|config| config.schema = Some(schema)).await;
    for (features, is_compressed) in [(ZSTD, true), (Features::NONE, false)] {
        let mut client = speaking(&world, "ann", features).await;
        let news = frame(&mut client).await;
        let messages = codec::decode(&news, &Limits::default()).unwrap();
        match messages.as_slice() {
            [Message::Compressed { length, .. }] => {
                assert!(is_compressed && *length as usize > long && news.len() < long / 4);
            }
            [Message::Schema { text, .. }] => assert!(!is_compressed && text.len() == long),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn who_does_not_speak_concord_is_not_told_of_features() {
    let world = World::new().await;
    // The subprotocol alone says little: a JavaScript client may offer whatever it is told.
    for subprotocol in [None, Some(SUBPROTOCOL)] {
        let mut client = Client::dial(&world.url(), subprotocol, None).await;
        let name = "plain".parse().unwrap();
        let metadata = PeerMetadata { features: ZSTD, ..PeerMetadata::default() };
        client.send(&handshake::join(&name, &metadata)).await;
        let reply = codec::decode(&frame(&mut client).await, &Limits::default()).unwrap();
        let (_, metadata) = handshake::welcomed(&reply[0], &name).unwrap();
        assert!(metadata.features.is_empty());
    }
    let mut client = Client::dial(&world.url(), Some(SUBPROTOCOL), None).await;
    let name = "ann".parse().unwrap();
    client.send(&handshake::join_concord(&name, &PeerMetadata::default())).await;
    let reply = codec::decode(&frame(&mut client).await, &Limits::default()).unwrap();
    let (_, metadata, speaks) = handshake::welcomed_concord(&reply[0], &name).unwrap();
    assert!(speaks && metadata.features.has(Feature::Zstd));
}
