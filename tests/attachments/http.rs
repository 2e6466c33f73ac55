//! `/v1/blobs/HASH` as a program without our socket sees it.

use std::{fmt::Write as _, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::world::{SOON, bytes_of, home, noise, relay_with};

struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

async fn send(to: SocketAddr, head: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(to).await.unwrap();
    let mut request = format!("{head} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n");
    for (name, value) in headers {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    if !head.starts_with("GET") && !headers.iter().any(|(name, _)| *name == "content-length") {
        write!(request, "content-length: {}\r\n", body.len()).unwrap();
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    // Who is refused may not read it.
    let _ = stream.write_all(body).await;
    if headers.iter().any(|(name, _)| *name == "content-length") {
        stream.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: answer[end + 4..].to_vec() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_is_put_and_got_in_whole_and_in_part() {
    let relay = relay_with(|_| ()).await;
    let to = relay.addr();
    let bytes = noise(200_000, 9);
    let path = format!("/v1/blobs/{}", blake3::hash(&bytes));
    assert_eq!(send(to, &format!("GET {path}"), &[], &[]).await.status, 404);
    assert_eq!(send(to, "GET /v1/blobs/nonsense", &[], &[]).await.status, 400);
    let put = send(to, &format!("PUT {path}"), &[], &bytes).await;
    assert_eq!(put.status, 201, "{}", String::from_utf8_lossy(&put.body));
    assert_eq!(send(to, &format!("PUT {path}"), &[], &bytes).await.status, 200);

    let got = send(to, &format!("GET {path}"), &[], &[]).await;
    assert_eq!((got.status, got.header("content-length")), (200, Some("200000")));
    assert_eq!(got.header("content-type"), Some("application/octet-stream"));
    assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
    assert!(got.body == bytes);
    let head = send(to, &format!("HEAD {path}"), &[], &[]).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("200000")));
    assert!(head.body.is_empty());
    let tag = head.header("etag").unwrap();
    let same = send(to, &format!("GET {path}"), &[("if-none-match", tag)], &[]).await;
    assert_eq!(same.status, 304);
    for (range, from, end) in [
        ("bytes=0-9", 0, 10),
        ("bytes=65530-131080", 65_530, 131_081),
        ("bytes=-5", 199_995, 200_000),
    ] {
        let part = send(to, &format!("GET {path}"), &[("range", range)], &[]).await;
        let said = format!("bytes {from}-{}/200000", end - 1);
        assert_eq!((part.status, part.header("content-range")), (206, Some(&*said)));
        assert!(part.body == bytes[from..end], "{range}");
    }
    let beyond = send(to, &format!("GET {path}"), &[("range", "bytes=200000-")], &[]).await;
    assert_eq!(beyond.status, 416);

    let alice = home(&format!("ws://{to}"));
    let hash = path.rsplit('/').next().unwrap().parse().unwrap();
    let attachment = concord::entity::Attachment::new(hash, 200_000);
    assert!(bytes_of(&alice.peer, &attachment).await.unwrap() == bytes, "it is the same one");
    let more = alice.peer.attach(&noise(70_000, 10)[..]).await.unwrap();
    alice.peer.flush(SOON).await.unwrap();
    let got = send(to, &format!("GET /v1/blobs/{}", more.hash), &[], &[]).await;
    assert!(got.body == noise(70_000, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_goes_on_where_it_was_cut() {
    let relay = relay_with(|config| config.limits.blob_bytes = 500_000).await;
    let to = relay.addr();
    let bytes = noise(200_000, 11);
    let put = format!("PUT /v1/blobs/{}", blake3::hash(&bytes));
    let where_to = [("content-range", "bytes */200000")];
    let asked = send(to, &put, &where_to, &[]).await;
    assert_eq!((asked.status, asked.header("upload-offset")), (202, Some("0")));
    // Cut in the middle of a piece: whole pieces are kept.
    let cut = [("content-length", "200000")];
    send(to, &put, &cut, &bytes[..150_000]).await;
    let asked = send(to, &put, &where_to, &[]).await;
    assert_eq!((asked.status, asked.header("upload-offset")), (202, Some("131072")));
    let gap = [("content-range", "bytes 196608-199999/200000")];
    let gap = send(to, &put, &gap, &bytes[196_608..]).await;
    assert_eq!((gap.status, gap.header("upload-offset")), (409, Some("131072")));
    let rest = [("content-range", "bytes 131072-199999/200000")];
    assert_eq!(send(to, &put, &rest, &bytes[131_072..]).await.status, 201);
    let got = send(to, &put.replace("PUT", "GET"), &[], &[]).await;
    assert!(got.body == bytes);

    let wrong = format!("PUT /v1/blobs/{}", blake3::hash(b"other"));
    assert_eq!(send(to, &wrong, &[], &bytes).await.status, 422);
    assert_eq!(send(to, &wrong, &[], b"other").await.status, 201, "nothing wrong was kept");
    let large = [("content-range", "bytes */600000")];
    assert_eq!(send(to, &wrong.replace('0', "1"), &large, &[]).await.status, 413);
    let nonsense = [("content-range", "bytes 5-1/10")];
    assert_eq!(send(to, &wrong.replace('0', "1"), &nonsense, &[]).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_may_connect_may_also_fetch() {
    let relay = relay_with(|_| ()).await;
    let to = relay.addr();
    let path = format!("/v1/blobs/{}", blake3::hash(b"x"));
    let origin = [("origin", "http://localhost:8080")];
    let asked = send(to, &format!("OPTIONS {path}"), &origin, &[]).await;
    assert_eq!(asked.status, 204);
    assert_eq!(asked.header("access-control-allow-origin"), Some("http://localhost:8080"));
    assert!(asked.header("access-control-allow-methods").unwrap().contains("put"));
    let foreign = [("origin", "https://evil.example")];
    let refused = send(to, &format!("PUT {path}"), &foreign, b"x").await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None));
}
