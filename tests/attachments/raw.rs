//! A peer that says what it is told to say: what a relay does not take.

use std::collections::VecDeque;

use concord_protocol::{
    BlobHash, BlobMessage, Feature, Features, Limits, Message, PeerId, PeerMetadata, codec,
    handshake::{self, SUBPROTOCOL},
    limits::BLOB_CHUNK_BYTES,
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, client::IntoClientRequest as _, http::HeaderValue},
};

use crate::world::{SOON, noise, relay_with};

const PIECE: usize = BLOB_CHUNK_BYTES;

/// The socket, and what came over it and was not looked at yet.
struct Raw(WebSocketStream<MaybeTlsStream<TcpStream>>, VecDeque<Message>);

impl Raw {
    async fn join(url: &str, features: Features) -> Self {
        let mut request = url.into_client_request().unwrap();
        let value = HeaderValue::from_static(SUBPROTOCOL);
        request.headers_mut().insert("sec-websocket-protocol", value);
        let mut raw = Self(connect_async(request).await.unwrap().0, VecDeque::new());
        let us: PeerId = "raw".parse().unwrap();
        let metadata = PeerMetadata { features, ..PeerMetadata::default() };
        raw.say(&handshake::join_concord(&us, &metadata)).await;
        let welcome = raw.hear().await;
        let (_, metadata, speaks) = handshake::welcomed_concord(&welcome, &us).unwrap();
        assert!(speaks && metadata.features.has(Feature::Blobs));
        raw
    }

    async fn say(&mut self, message: &Message) {
        self.0.send(tungstenite::Message::Binary(codec::encode(message))).await.unwrap();
    }

    async fn hear(&mut self) -> Message {
        let hearing = async {
            loop {
                if let Some(message) = self.1.pop_front() {
                    return message;
                }
                if let tungstenite::Message::Binary(bytes) = self.0.next().await.unwrap().unwrap() {
                    self.1.extend(codec::decode(&bytes, &Limits::default()).unwrap());
                }
            }
        };
        timeout(SOON, hearing).await.unwrap()
    }

    /// What is answered: the status, and how many pieces are there.
    async fn ask(&mut self, message: BlobMessage) -> (u16, u32) {
        let id = message.id();
        self.say(&Message::Blob(message)).await;
        loop {
            if let Message::Blob(answer) = self.hear().await {
                assert_eq!(answer.id(), id);
                return match answer {
                    BlobMessage::State { status, have, .. } => (status, have),
                    other => panic!("{other:?}"),
                };
            }
        }
    }
}

/// The name of bytes of two pieces, and their outline.
fn outline(bytes: &[u8]) -> (BlobHash, bytes::Bytes) {
    use blake3::hazmat::HasherExt as _;
    let node = |at: usize| {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset((at * PIECE) as u64);
        hasher.update(&bytes[at * PIECE..(at + 1) * PIECE]).finalize_non_root()
    };
    let list = [node(0), node(1)].concat();
    (BlobHash(*blake3::hash(bytes).as_bytes()), list.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_refused_and_what_came_before_is_kept() {
    let relay = relay_with(|config| config.limits.blob_bytes = 1_000_000).await;
    let url = format!("ws://{}", relay.addr());
    let mut raw = Raw::join(&url, Features::NONE.with(Feature::Blobs)).await;
    let bytes = noise(2 * PIECE, 7);
    let (hash, list) = outline(&bytes);
    let length = bytes.len() as u64;
    let piece = |at: usize| bytes::Bytes::copy_from_slice(&bytes[at * PIECE..(at + 1) * PIECE]);
    let chunk = |id, at, data| BlobMessage::Chunk { id, hash, at, data };

    assert_eq!(raw.ask(chunk(1, 0, piece(0))).await, (409, 0), "it was not offered");
    let other = BlobMessage::Offer { id: 2, hash, length, outline: vec![0; 64].into() };
    assert_eq!(raw.ask(other).await, (422, 0));
    let short = BlobMessage::Offer { id: 3, hash, length, outline: list.slice(..32) };
    assert_eq!(raw.ask(short).await, (422, 0));
    let huge = BlobMessage::Offer { id: 4, hash, length: 1 << 40, outline: list.clone() };
    assert_eq!(raw.ask(huge).await, (422, 0));
    let large = vec![0; 16 * 32].into();
    let large = BlobMessage::Offer { id: 5, hash, length: 16 * PIECE as u64, outline: large };
    assert_eq!(raw.ask(large).await.0, 422, "it is the outline of nothing");

    let offer = |id| BlobMessage::Offer { id, hash, length, outline: list.clone() };
    assert_eq!(raw.ask(offer(6)).await, (202, 0));
    assert_eq!(raw.ask(chunk(7, 1, piece(1))).await, (409, 0), "the first is wanted first");
    assert_eq!(raw.ask(chunk(8, 0, piece(1))).await, (422, 0));
    assert_eq!(raw.ask(chunk(9, 0, piece(0))).await, (202, 1));
    assert_eq!(raw.ask(chunk(10, 1, piece(0))).await, (422, 1));
    let ask = |id, at| BlobMessage::Ask { id, hash, at };
    assert_eq!(raw.ask(ask(11, None)).await, (404, 0), "there is no half of one");
    assert_eq!(raw.ask(ask(12, Some(0))).await, (404, 0));
    drop(raw);
    let mut raw = Raw::join(&url, Features::NONE.with(Feature::Blobs)).await;
    assert_eq!(raw.ask(offer(13)).await, (202, 1), "what came before is there");
    assert_eq!(raw.ask(chunk(14, 1, piece(1))).await, (200, 2));
    assert_eq!(raw.ask(offer(15)).await, (200, 2));
    assert_eq!(raw.ask(ask(16, Some(2))).await, (404, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_a_limit_to_one_and_to_all_and_to_what_is_under_way() {
    let relay = relay_with(|config| {
        (config.limits.blob_bytes, config.limits.blob_total_bytes) = (150_000, 140_000);
    })
    .await;
    let url = format!("ws://{}", relay.addr());
    let mut raw = Raw::join(&url, Features::NONE.with(Feature::Blobs)).await;
    let bytes = noise(2 * PIECE, 8);
    let (hash, list) = outline(&bytes);
    let offer = BlobMessage::Offer { id: 1, hash, length: 2 * PIECE as u64, outline: list };
    assert_eq!(raw.ask(offer).await, (202, 0));
    let small = |n: u8, length: u64| BlobMessage::Offer {
        id: 2,
        hash: BlobHash([n; 32]),
        length,
        outline: bytes::Bytes::new(),
    };
    assert_eq!(raw.ask(small(1, 60_000)).await, (507, 0), "what is coming counts as all of it");
    assert_eq!(raw.ask(small(1, 8_000)).await, (202, 0));

    // Far more than may be under way: each is answered, and some are refused for now.
    for id in 0..200 {
        raw.say(&Message::Blob(BlobMessage::Ask { id, hash, at: Some(0) })).await;
    }
    let (mut refused, mut answered) = (0, 0);
    while answered < 200 {
        if let Message::Blob(BlobMessage::State { status, .. }) = raw.hear().await {
            answered += 1;
            refused += usize::from(status == 429);
            assert!(matches!(status, 404 | 429), "{status}");
        }
    }
    assert!(refused < 200, "{refused}");
}

/// Who did not say that it speaks of attachments is not spoken to of them.
#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_know_of_attachments_hears_nothing_of_them() {
    let relay = relay_with(|_| ()).await;
    let mut raw = Raw::join(&format!("ws://{}", relay.addr()), Features::NONE).await;
    let ask = BlobMessage::Ask { id: 1, hash: BlobHash([1; 32]), at: None };
    raw.say(&Message::Blob(ask)).await;
    let call = concord_protocol::Call {
        id: 2,
        method: "GET".to_owned(),
        path: "/v1/schema".to_owned(),
        ..concord_protocol::Call::default()
    };
    raw.say(&Message::Call(call)).await;
    assert!(matches!(raw.hear().await, Message::Answer(_)), "the call came second");
}
