//! Who may connect: web pages by their origin, and so many from one address.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{client::Client, world::World};

/// Asks for a WebSocket as a browser does; the connection, the status and the rest of the answer.
async fn upgrade(addr: SocketAddr, host: &str, headers: &str) -> (TcpStream, u16, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).await.unwrap(), 1, "the answer has a head");
        answer.extend(byte);
    }
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (stream, status, answer)
}

async fn status(world: &World, host: &str, origin: &str) -> u16 {
    upgrade(world.relay.addr(), host, &format!("origin: {origin}\r\n")).await.1
}

#[tokio::test]
async fn a_page_of_another_site_is_refused() {
    let world = World::new().await;
    let host = world.relay.addr().to_string();
    for origin in ["https://evil.example", "null", "http://localhost.evil.example"] {
        assert_eq!(status(&world, &host, origin).await, 403, "{origin}");
    }
    assert!((world.metric("concord_foreign_page_requests_total").await - 3.0).abs() < 0.1);
    // A developer's page, a page of the same host behind a proxy, and a program.
    assert_eq!(status(&world, &host, "http://localhost:5173").await, 101);
    assert_eq!(status(&world, "notes.example", "https://notes.example").await, 101);
    world.join("program").await.is_served().await;
}

#[tokio::test]
async fn listed_pages_are_let_in() {
    let world = World::with(|config| {
        config.allowed_origins = "https://app.example.com".parse().unwrap();
    })
    .await;
    let host = world.relay.addr().to_string();
    assert_eq!(status(&world, &host, "https://app.example.com").await, 101);
    assert_eq!(status(&world, &host, "https://evil.example").await, 403);
    let world = World::with(|config| config.allowed_origins = "*".parse().unwrap()).await;
    assert_eq!(status(&world, &host, "https://evil.example").await, 101);
}

/// An address of this machine that others could reach it at.
fn own_address() -> Option<IpAddr> {
    // Nothing is sent: this only looks up which address would be used. It is one of those that
    // are kept for documentation.
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_loopback() && !ip.is_unspecified()).then_some(ip)
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_others_are_not_touched() {
    let Some(ip) = own_address() else {
        println!("skipped: this machine has no address but loopback, which is not counted");
        return;
    };
    let world = World::with(|config| {
        config.host = "0.0.0.0".to_owned();
        config.allow_anonymous = true;
        config.connections_per_address = 3;
    })
    .await;
    let port = world.relay.addr().port();
    let far = SocketAddr::new(ip, port);
    let url = format!("ws://{far}");
    let mut three = Vec::new();
    for name in ["one", "two", "three"] {
        three.push(Client::join(&url, name).await);
    }
    let (mut stream, status, head) = upgrade(far, "relay", "").await;
    assert_eq!(status, 429, "{head}");
    let mut words = String::new();
    stream.read_to_string(&mut words).await.unwrap();
    assert!(words.contains("too many connections"), "{words}");
    assert!((world.metric("concord_connections_turned_away_total").await - 1.0).abs() < 0.1);

    // This machine is not counted, and those who are in stay.
    let near = format!("ws://127.0.0.1:{port}");
    for n in 0..5 {
        Client::join(&near, &format!("near-{n}")).await.is_served().await;
    }
    for client in &mut three {
        client.is_served().await;
    }
    drop(three.pop());
    // The relay notices that it is gone in its own time.
    for attempt in 0.. {
        if upgrade(far, "relay", "").await.1 == 101 {
            break;
        }
        assert!(attempt < 1_000, "there is never room again");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
