//! `wss://` end to end: a proxy that ends TLS before a real relay, as operators have it, and what
//! people are told when it does not work.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{
    net::SocketAddr,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
use concord::{
    peer::{Peer, PeerBuilder, PeerError, Status},
    relay::{Relay, RelayConfig},
    store,
    worker::{InProcess, WorkerLimits},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// Long enough for a busy machine; nothing waits for it where all is well.
const SOON: Duration = Duration::from_secs(20);

/// An authority that nobody knows, and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn signs(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Identity { certificate, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) }
    }
}

/// What a server shows.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// Ends TLS on a port of its own, and passes on what is in it.
async fn proxy(identity: Identity, to: SocketAddr) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate], identity.key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Whoever does not speak TLS, or does not trust us, is hung up on.
                let Ok(mut inside) = acceptor.accept(stream).await else { return };
                let mut outside = TcpStream::connect(to).await.unwrap();
                let _ = copy_bidirectional(&mut inside, &mut outside).await;
            });
        }
    });
    addr
}

async fn relay() -> Relay {
    let config = RelayConfig { port: 0, admin: None, shards: 1, ..RelayConfig::default() };
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    Relay::start(config, store::memory().unwrap(), worker).await.unwrap()
}

fn builder(directory: &tempfile::TempDir) -> PeerBuilder {
    Peer::builder(directory.path()).store(store::memory().unwrap())
}

/// Why the peer is not online, and whether it goes on trying.
async fn reason(builder: PeerBuilder) -> (String, bool) {
    let peer = builder.open().unwrap();
    let mut status = peer.status();
    let offline = tokio::time::timeout(SOON, async {
        status.wait_for(|status| matches!(status, Status::Offline { .. })).await.unwrap().clone()
    });
    let Status::Offline { reason, next_try } = offline.await.unwrap() else {
        panic!("waited for it");
    };
    peer.close().await.unwrap();
    (reason, next_try.is_some())
}

#[tokio::test]
async fn peers_sync_through_a_proxy_that_ends_tls() {
    let relay = relay().await;
    let authority = Authority::new();
    let by_name = proxy(authority.signs("localhost", |_| {}), relay.addr()).await;
    let by_number = proxy(authority.signs("127.0.0.1", |_| {}), relay.addr()).await;
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let url = format!("wss://localhost:{}", by_name.port());
    let alice = builder(&homes[0]).trust(authority.pem.as_str()).relay(url).open().unwrap();
    let url = format!("wss://127.0.0.1:{}", by_number.port());
    // Several authorities, in one text or more.
    let others = format!("{}\n{}", Authority::new().pem, authority.pem);
    let bob = builder(&homes[1]).trust(others).trust(Authority::new().pem).relay(url).open();
    let bob = bob.unwrap();

    let hers = alice.create().await.unwrap();
    hers.change(|tx| Ok(tx.put(ROOT, "large", "x".repeat(300_000))?)).await.unwrap();
    hers.wait_confirmed(SOON).await.unwrap();
    let his = bob.find_within(&hers.url().to_string(), SOON).await.unwrap();
    his.change(|tx| Ok(tx.put(ROOT, "from bob", 1)?)).await.unwrap();
    his.wait_confirmed(SOON).await.unwrap();
    let mut watcher = hers.watch();
    let came = async {
        while hers.read(|doc| doc.get(ROOT, "from bob").unwrap().is_none()).unwrap() {
            watcher.next().await;
        }
    };
    tokio::time::timeout(SOON, came).await.unwrap();
    alice.close().await.unwrap();
    bob.close().await.unwrap();
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_and_what_to_do() {
    let relay = relay().await;
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let at = async |identity| format!("wss://{}", proxy(identity, relay.addr()).await);
    let trusting = |url: String| builder(&home).trust(authority.pem.as_str()).relay(url);

    let unknown = at(authority.signs("127.0.0.1", |_| {})).await;
    let (words, again) = reason(builder(&home).relay(&unknown)).await;
    assert!(words.starts_with(&unknown), "{words}");
    assert!(words.contains("not known here") && words.contains("--ca FILE"), "{words}");
    assert!(again, "the certificate may be replaced");
    // Another authority, of the same name.
    let stranger = builder(&home).trust(Authority::new().pem).relay(&unknown);
    let (words, _) = reason(stranger).await;
    assert!(words.contains("made anew") && words.contains("--ca FILE"), "{words}");

    let other = at(authority.signs("other.example", |_| {})).await;
    let (words, _) = reason(trusting(other)).await;
    assert!(words.contains("for another name") && words.contains("other.example"), "{words}");

    let old = |params: &mut CertificateParams| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    };
    let (words, _) = reason(trusting(at(authority.signs("127.0.0.1", old)).await)).await;
    assert!(words.contains("has expired") && words.contains("clock"), "{words}");
    let new = |params: &mut CertificateParams| params.not_before = date_time_ymd(3001, 1, 1);
    let (words, _) = reason(trusting(at(authority.signs("127.0.0.1", new)).await)).await;
    assert!(words.contains("not valid yet") && words.contains("clock"), "{words}");

    let ca = |params: &mut CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    };
    let (words, _) = reason(trusting(at(authority.signs("127.0.0.1", ca)).await)).await;
    assert!(words.contains("CA:FALSE"), "{words}");
    relay.shutdown().await.unwrap();
}

/// A certificate that signs itself and is for a server is its own authority.
#[tokio::test]
async fn a_server_s_own_certificate_can_be_trusted() {
    let relay = relay().await;
    let home = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let identity = Identity {
        certificate: certificate.der().clone(),
        key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
    };
    let url = format!("wss://localhost:{}", proxy(identity, relay.addr()).await.port());
    let peer = builder(&home).trust(certificate.pem()).relay(url).open().unwrap();
    tokio::time::timeout(SOON, peer.status().wait_for(Status::is_online)).await.unwrap().unwrap();
    peer.close().await.unwrap();
    relay.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_wrong_scheme_is_said() {
    let relay = relay().await;
    let home = tempfile::tempdir().unwrap();
    let tls = proxy(Authority::new().signs("127.0.0.1", |_| {}), relay.addr()).await;
    let (words, again) = reason(builder(&home).relay(format!("ws://{tls}"))).await;
    assert!(words.contains(&tls.to_string()) && words.contains("give wss://"), "{words}");
    assert!(again);
    let (words, _) = reason(builder(&home).relay(format!("wss://{}", relay.addr()))).await;
    assert!(words.contains("does not speak TLS") && words.contains("ws://"), "{words}");
    relay.shutdown().await.unwrap();
}

/// What servers of HTTPS say to plain HTTP, and what anything else does.
#[tokio::test]
async fn other_answers_than_a_relay_s_are_said() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let home = tempfile::tempdir().unwrap();
    for (answer, parts, again) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\nHTTP to an HTTPS port", ["HTTP 400", "wss://"], false),
        (
            "HTTP/1.1 308 Permanent Redirect\r\nlocation: https://x/\r\n\r\n",
            ["308", "https://x/"],
            true,
        ),
        ("HTTP/1.1 404 Not Found\r\n\r\n", ["HTTP 404", "is the path right?"], false),
        ("HTTP/1.1 429 Too Many Requests\r\n\r\n", ["HTTP 429", "ws://"], true),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", ["HTTP 502", "ws://"], true),
        ("\x15\x03\x01\x00\x02\x02\x16", ["not HTTP", "wss://"], true),
        ("SSH-2.0-OpenSSH_9.2\r\n", ["not HTTP", "wss://"], true),
        ("", ["hung up", "wss://"], true),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let (words, tries) = reason(builder(&home).relay(url)).await;
        assert!(parts.iter().all(|part| words.contains(part)), "{answer:?}: {words}");
        assert_eq!(tries, again, "{answer:?}: {words}");
        server.abort();
    }
}

#[tokio::test]
async fn what_is_no_certificate_is_not_trusted() {
    let home = tempfile::tempdir().unwrap();
    let error = builder(&home).trust("hello").open().unwrap_err();
    assert!(matches!(error, PeerError::Certificate(_)));
    assert!(error.to_string().contains("PEM"), "{error}");
}

async fn concord(directory: &Path, args: Vec<String>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_concord"));
    command.args(args).env_remove("CONCORD_URL").env_remove("CONCORD_CA");
    command.env("CONCORD_DIR", directory).stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_takes_the_certificate_from_a_file() {
    let relay = relay().await;
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let identity = authority.signs("localhost", |_| {});
    let url = format!("wss://localhost:{}", proxy(identity, relay.addr()).await.port());
    let file = home.path().join("ca.pem");
    std::fs::write(&file, &authority.pem).unwrap();
    let (file, data) = (file.to_str().unwrap(), home.path().join("data"));
    let run =
        async |line: String| concord(&data, line.split(' ').map(str::to_owned).collect()).await;
    let said = |output: &Output| {
        let bytes = [output.stdout.as_slice(), &output.stderr].concat();
        String::from_utf8(bytes).unwrap()
    };

    let created = run(format!("doc create --url {url} --ca {file} --json")).await;
    assert!(said(&created).contains("\"confirmed\":true"), "{}", said(&created));
    let synced = run(format!("sync --url {url} --ca {file}")).await;
    assert!(said(&synced).contains("1 of 1 document confirmed"), "{}", said(&synced));
    let unknown = run(format!("sync --url {url} --deadline 1")).await;
    assert_eq!(unknown.status.code(), Some(4), "{}", said(&unknown));
    assert!(said(&unknown).contains("--ca FILE"), "{}", said(&unknown));
    for (wrong, word) in [("missing.pem", "missing.pem"), (env!("CARGO_MANIFEST_PATH"), "PEM")] {
        let output = run(format!("doc ls --ca {wrong}")).await;
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(word), "{}", said(&output));
    }

    let bench = format!("bench fanout --readers 1 --changes 3 --rate 100 --url {url} --json");
    let measured = run(format!("{bench} --ca {file}")).await;
    assert!(said(&measured).contains("\"undelivered\":0"), "{}", said(&measured));
    let refused = run(bench).await;
    assert!(said(&refused).contains("--ca FILE"), "{}", said(&refused));
    let trace = format!("bench trace --transactions 20 --url {url} --ca {file}");
    assert!(run(trace).await.status.success());
    relay.shutdown().await.unwrap();
}
