//! Frames that are no messages, messages that have no place, and handshakes that go wrong.

use std::time::Duration;

use bytes::Bytes;
use concord::peer::Status;
use concord_protocol::{
    Answer, Call, DocumentId, Message, PeerMetadata, SchemaHash, codec, handshake,
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_tungstenite::{accept_async, tungstenite::Message as Frame};

use crate::{
    SOON,
    mallory::{Mallory, us},
    victim::{Victim, new_document},
};

/// Frames that a peer must live through.
fn frames(document: &DocumentId) -> Vec<(&'static str, Frame)> {
    let binary = |bytes: Vec<u8>| Frame::Binary(bytes.into());
    let mut frames = vec![
        ("nothing", binary(vec![])),
        ("null", binary(vec![0xf6])),
        ("not CBOR", binary(vec![0xff, 0xff])),
        ("an endless array", binary(vec![0x9f; 1_000])),
        ("a claim of 2^63 entries", binary(vec![0xbb, 0x7f, 255, 255, 255, 255, 255, 255, 255])),
        ("deep arrays", binary(vec![0x81; 100_000])),
        ("text", Frame::Text("hello".into())),
        ("a ping", Frame::Ping(Bytes::from_static(b"!"))),
        ("a pong", Frame::Pong(Bytes::from_static(b"?"))),
        ("zeros", binary(vec![0; 3_000_000])),
    ];
    let peer = "somebody".parse().unwrap();
    let join = codec::encode(&handshake::join(&us(), &PeerMetadata::default()));
    frames.push(("a join", Frame::Binary(join)));
    let message = |data: Bytes| Message::Sync {
        document: document.clone(),
        sender: us(),
        target: us(),
        data,
    };
    frames.push(("sync without data", Frame::Binary(codec::encode(&message(Bytes::new())))));
    let noise: Bytes =
        (0..5_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    frames.push(("sync of noise", Frame::Binary(codec::encode(&message(noise)))));
    let good = codec::encode(&message(Bytes::from_static(&[0x42, 0, 0, 1, 0, 0, 0])));
    for cut in [1, 10, good.len() / 2, good.len() - 1] {
        frames.push(("half a message", Frame::Binary(good.slice(..cut))));
    }
    let schema = |hash: &str, text: &str| {
        let message = Message::Schema { hash: SchemaHash::of(hash), text: text.to_owned() };
        Frame::Binary(codec::encode(&message))
    };
    let deep = format!("[types.a.fields]\nb = {}", "{ items = ".repeat(50_000));
    let nested = format!("a = {}", "[".repeat(500_000));
    frames.push(("a schema that is none", schema("nonsense", "nonsense")));
    frames.push(("a schema of another name", schema("a", "[types.a.fields]\nb = \"string\"")));
    frames.push(("a schema that goes deep", schema(&deep, &deep)));
    frames.push(("a schema that goes deeper", schema(&nested, &nested)));
    let call = Call { method: "GET".to_owned(), path: "/v1/schema".to_owned(), ..Call::default() };
    let answer = Answer { status: 200, body: "x".repeat(1_000_000), ..Answer::default() };
    let event = Message::Event { id: 7, event: "opened".to_owned(), data: "{".to_owned() };
    for (what, message) in [
        ("a call", Message::Call(call)),
        ("an answer to nothing", Message::Answer(answer)),
        ("a farewell to nothing", Message::HangUp { id: 1 }),
    ] {
        frames.push((what, Frame::Binary(codec::encode(&message))));
    }
    let events = vec![event; 100];
    frames.push(("events that nobody wants", Frame::Binary(codec::encode_many(&events))));
    let many = vec![Message::Leave { sender: peer }; 1_000];
    frames.push(("a thousand farewells", Frame::Binary(codec::encode_many(&many))));
    frames
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_frame_harms_the_peer() {
    let mut mallory = Mallory::start().await;
    let mut victim = Victim::simple(&mallory.url).await;
    for (what, frame) in frames(&victim.document.id().clone()) {
        victim.online(&mallory).await;
        mallory.forget();
        let before = mallory.visits();
        // What was sent before may only now be ending the connection.
        let sent = async {
            while !mallory.send(frame.clone()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
                victim.online(&mallory).await;
            }
        };
        tokio::time::timeout(SOON, sent).await.unwrap_or_else(|_| panic!("{what}: nobody there"));
        victim.edit().await;
        victim.has_only_its_own();
        // Either it stays, or it comes back when it is asked to.
        tokio::time::sleep(Duration::from_millis(50)).await;
        victim.online(&mallory).await;
        println!("{what}: {} visits more", mallory.visits() - before);
    }
    victim.recovers().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_presence_and_questions_holds_up_no_edit() {
    let mallory = Mallory::start().await;
    let mut victim = Victim::simple(&mallory.url).await;
    victim.online(&mallory).await;
    let document = victim.document.id().clone();
    let _slow = victim.document.watch();
    for count in 1..5_000 {
        let (document, other) = (document.clone(), new_document());
        mallory.say(|sender, target| Message::Ephemeral {
            document,
            sender,
            target,
            count,
            session: "session".parse().unwrap(),
            data: Bytes::from(vec![0; 4_000]),
        });
        mallory.say(|sender, target| Message::Request {
            document: other,
            sender,
            target,
            data: Bytes::from_static(&[0x42, 0, 0, 1, 0, 0, 0]),
        });
        if count % 500 == 0 {
            victim.edit().await;
        }
    }
    victim.has_only_its_own();
    victim.recovers().await;
}

/// What a server says or does instead of a relay's welcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_go_wrong_are_said_and_edits_go_on() {
    let other = codec::encode(&Message::Leave { sender: us() });
    let elsewhere = codec::encode(&Message::Peer {
        sender: us(),
        target: "somebody-else".parse().unwrap(),
        metadata: PeerMetadata::default(),
        version: "1".to_owned(),
    });
    let version = codec::encode(&Message::Error {
        sender: us(),
        target: us(),
        message: "unsupported protocol version".to_owned(),
    });
    for (reply, words) in [
        (Some(Bytes::from_static(&[0xf6])), "not a relay"),
        (Some(Bytes::new()), "not a relay"),
        (Some(other), "expected the relay's answer"),
        (Some(elsewhere), "expected the relay's answer"),
        (Some(version), "unsupported protocol version"),
        (None, "the connection broke"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut socket) = accept_async(stream).await else { continue };
                let Some(Ok(_)) = socket.next().await else { continue };
                if let Some(reply) = reply.clone() {
                    let _ = socket.send(Frame::Binary(reply)).await;
                    let _ = socket.next().await;
                }
            }
        });
        let mut victim = Victim::simple(&url).await;
        let mut status = victim.peer.status();
        let offline = status.wait_for(|status| matches!(status, Status::Offline { .. }));
        let offline = tokio::time::timeout(SOON, offline).await.unwrap().unwrap().clone();
        let Status::Offline { reason, .. } = offline else { panic!("waited for it") };
        assert!(reason.contains(words), "{reason} lacks {words}");
        victim.edit().await;
        victim.recovers().await;
        server.abort();
    }
}

/// Bytes that are not WebSocket after a handshake that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_turns_to_noise_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut socket) = accept_async(stream).await else { continue };
            let stream = socket.get_mut();
            let _ = stream.write_all(&[0xff; 10_000]).await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        }
    });
    let mut victim = Victim::simple(&url).await;
    let mut status = victim.peer.status();
    let offline = status.wait_for(|status| matches!(status, Status::Offline { .. }));
    tokio::time::timeout(SOON, offline).await.unwrap().unwrap();
    victim.edit().await;
    victim.has_only_its_own();
    victim.recovers().await;
    server.abort();
}
