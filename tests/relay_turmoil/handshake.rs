//! Who connects and does not say who it is.

use std::time::Duration;

use concord_protocol::CloseCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{sleep, timeout},
};
use turmoil::net::TcpStream;

use crate::{
    raw::Raw,
    world::{LATENCY, World, ms, secs},
};

/// What the relay gives everybody, its default.
const DEADLINE: Duration = secs(10);
/// Packets there and back, and the steps in which they are looked at.
const SLACK: Duration = ms(200);

/// More than it gets to send in the time.
const SLOW_HEAD: &str =
    "GET / HTTP/1.1\r\nhost: relay\r\nx-padding: abcdefghijklmnopqrstuvwxyz\r\n";

/// What a stranger saw: the time until the end, and the close code if there was one.
type Seen = (Duration, Option<u16>);

/// Connects, completes the WebSocket, and waits.
async fn says_nothing() -> Seen {
    let mut client = Raw::connect("nobody").await;
    let start = turmoil::elapsed();
    let code = client.closed().await;
    (turmoil::elapsed() - start, code)
}

/// Sends the first bytes of a frame one at a time: never silent, and never done.
async fn dribbles_a_join() -> Seen {
    let mut client = Raw::connect("dribbler").await;
    let start = turmoil::elapsed();
    let stream = client.socket.get_mut();
    // A masked binary frame of 100 bytes.
    let frame = [&[0x82, 0x80 + 100, 0, 0, 0, 0][..], &[0; 100]].concat();
    let mut bytes = frame.iter();
    let mut heard = [0; 2];
    // A close, after pings perhaps.
    while heard[0] != 0x88 {
        match timeout(ms(500), stream.read_exact(&mut heard)).await {
            Err(_) => stream.write_all(&[*bytes.next().unwrap()]).await.unwrap(),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => panic!("ended without a close: {error}"),
        }
    }
    let mut code = [0; 2];
    stream.read_exact(&mut code).await.unwrap();
    (turmoil::elapsed() - start, Some(u16::from_be_bytes(code)))
}

/// Connects and sends what it has of a request, slowly; then waits for the end.
async fn sends(head: &'static str) -> Seen {
    let stream = TcpStream::connect(("relay", 3030)).await.unwrap();
    let start = turmoil::elapsed();
    let (mut reader, mut writer) = stream.into_split();
    let writing = async {
        for byte in head.bytes() {
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(ms(300)).await;
        }
        std::future::pending::<()>().await;
    };
    let reading = async {
        let mut answer = Vec::new();
        // However it ends, it ends.
        let _ = reader.read_to_end(&mut answer).await;
    };
    tokio::select! { () = writing => {}, () = reading => {} }
    (turmoil::elapsed() - start, None)
}

#[test]
fn who_says_nothing_is_closed_at_the_deadline() {
    let mut world = World::new(1, |_| {});
    world.start_relay();
    world.host("strangers");
    let tasks = [
        ("nothing", world.start("strangers", says_nothing()), Some(CloseCode::HandshakeTimeout)),
        (
            "dribbled",
            world.start("strangers", dribbles_a_join()),
            Some(CloseCode::HandshakeTimeout),
        ),
        ("no HTTP", world.start("strangers", sends("")), None),
        ("slow HTTP", world.start("strangers", sends(SLOW_HEAD)), None),
    ];
    for (who, task, code) in tasks {
        let (took, closed) = world.finish(task, secs(30));
        assert_eq!(closed, code.map(CloseCode::code), "{who}");
        assert!((DEADLINE - LATENCY..DEADLINE + SLACK).contains(&took), "{who}: {took:?}");
    }
    // Closes wait 2 s at most for those who do not answer them.
    world.pass(secs(3));
    let metrics = world.metrics();
    assert_eq!(metrics.closed(CloseCode::HandshakeTimeout.code()), 2);
    assert_eq!(metrics.get("concord_connections"), 0);
}
