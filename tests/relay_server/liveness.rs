//! Who is there, who is slow, and who sends too much.

use std::time::{Duration, Instant};

use bytes::Bytes;
use concord_protocol::{CloseCode, DocumentId, Message};

use crate::{
    client::{Client, Heard},
    world::World,
};

/// The next presence message that comes: its number and its bytes.
async fn presence(reader: &mut Client) -> (u64, Bytes) {
    loop {
        match reader.hear().await {
            Heard::Message(Message::Ephemeral { count, data, .. }) => return (count, data),
            Heard::Message(Message::Sync { .. }) => {}
            other => panic!("expected presence, heard {other:?}"),
        }
    }
}

#[tokio::test]
async fn who_answers_pings_stays_and_who_does_not_goes() {
    let world = World::with(|config| {
        config.ping_ms = 100;
        config.pong_timeout_ms = 1_500;
    })
    .await;
    let mut silent = world.join("silent").await;
    let mut alive = world.join("alive").await;
    let start = Instant::now();
    let mut pings = 0;
    while start.elapsed() < Duration::from_millis(2_500) {
        // Reading is what sends pongs.
        match alive.hear_all().await {
            Heard::Ping => pings += 1,
            other => panic!("expected nothing but pings, heard {other:?}"),
        }
    }
    assert!(pings > 5, "{pings} pings in 2.5 s at 100 ms each");
    assert_eq!(silent.closed().await.0, CloseCode::Dead.code());
    alive.is_served().await;
}

#[tokio::test]
async fn a_reader_that_stops_is_cut_off_and_the_others_go_on() {
    let world = World::with(|config| {
        config.limits.queue_bytes = 256 * 1024;
        config.stalled_ms = 500;
    })
    .await;
    let document = DocumentId::from_bytes(b"presence");
    let mut stuck = Client::dial(&world.url(), None, Some(4_096)).await;
    stuck.say_join("stuck").await;
    let mut reader = world.join("reader").await;
    for client in [&mut stuck, &mut reader] {
        let request = client.request(&document);
        client.send(&request).await;
        while !matches!(client.hear().await, Heard::Message(Message::DocUnavailable { .. })) {}
    }
    let mut writer = world.join("writer").await;
    let data = Bytes::from(vec![0; 60_000]);
    // More than the socket buffers of this machine hold for one who does not read.
    for count in 1..=200 {
        let message = writer.ephemeral(&document, count, data.clone());
        writer.send(&message).await;
        assert_eq!(presence(&mut reader).await, (count, data.clone()));
    }
    writer.is_served().await;
    let cut = "concord_closes_total{code=\"1013\"}";
    let start = Instant::now();
    while world.metric(cut).await < 1.0 {
        assert!(start.elapsed() < Duration::from_secs(15), "the reader was never cut off");
        // Anything that happens lets the relay look at its timers, this too.
        reader.is_served().await;
    }
    reader.is_served().await;
}

#[tokio::test]
async fn a_burst_is_read_later_and_abuse_is_closed() {
    let world = World::with(|config| {
        config.rates.frames = 50;
        config.rates.frame_burst = 20;
        config.rates.sustained_ms = 1_500;
    })
    .await;
    let mut burst = world.join("burst").await;
    let start = Instant::now();
    for _ in 0..40 {
        burst.is_served().await;
    }
    assert!(start.elapsed() >= Duration::from_millis(300), "40 frames cost 20 at 50 a second");
    assert!(world.metric("concord_read_pauses_total").await >= 1.0);

    let mut abuser = world.join("abuser").await;
    let request = abuser.request(&DocumentId::from_bytes(b"again"));
    for _ in 0..300 {
        abuser.send(&request).await;
    }
    assert_eq!(abuser.closed().await.0, CloseCode::RateLimited.code());
}

#[tokio::test]
async fn a_large_message_comes_whole() {
    // Larger than a fragment, a read buffer and what is copied.
    let world = World::with(|config| config.limits.ephemeral_bytes = 2_000_000).await;
    let document = DocumentId::from_bytes(b"large");
    let mut reader = Client::connect(&world.url()).await;
    reader.say_join("reader").await;
    let request = reader.request(&document);
    reader.send(&request).await;
    while !matches!(reader.hear().await, Heard::Message(Message::DocUnavailable { .. })) {}
    let mut writer = world.join("writer").await;
    for (count, len) in [(1, 100), (2, 16_000), (3, 60_000)] {
        let sent: Bytes = (0..len).map(|n: u32| n.to_le_bytes()[0]).collect();
        let message = writer.ephemeral(&document, count, sent.clone());
        writer.send(&message).await;
        let heard = presence(&mut reader).await;
        assert!(heard == (count, sent), "{len} bytes came otherwise");
    }
}
