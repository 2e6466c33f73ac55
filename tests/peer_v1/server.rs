//! Servers that speak automerge-repo version 1 and nothing else.

use std::{
    env,
    future::ready,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener as StdListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use concord_protocol::{Limits, Message, codec};
use futures_util::{SinkExt as _, StreamExt as _};
use samod::{Repo, ShareConfig, Transport, storage::TokioFilesystemStorage};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Error, Message as Frame,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

const SUBPROTOCOL: &str = "sec-websocket-protocol";

/// samod, behind a WebSocket library of either kind.
pub(crate) struct Samod {
    pub(crate) repo: Repo,
    pub(crate) addr: SocketAddr,
    /// What was heard that version 1 does not have.
    pub(crate) foreign: Arc<Mutex<Vec<Message>>>,
    /// How many messages were heard.
    pub(crate) heard: Arc<Mutex<usize>>,
    listening: JoinHandle<()>,
}

impl Samod {
    /// With its documents in a directory. With `echo`, it takes the first subprotocol that is
    /// offered, as servers in JavaScript do, which does not mean that it knows it.
    pub(crate) async fn start(directory: &Path, echo: bool) -> Self {
        let repo = Repo::build_tokio()
            .with_storage(TokioFilesystemStorage::new(directory))
            .with_share_policy(ShareConfig::read_write().with_announce(false))
            .load()
            .await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (foreign, heard) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<Mutex<usize>>::default());
        let acceptor = repo.make_acceptor(format!("ws://{addr}").parse().unwrap()).unwrap();
        let (strange, count) = (foreign.clone(), heard.clone());
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A peer may find out in the handshake that it wants another.
                if let Some(transport) =
                    transport(stream, echo, strange.clone(), count.clone()).await
                {
                    acceptor.accept(transport).unwrap();
                }
            }
        });
        Self { repo, addr, foreign, heard, listening }
    }

    pub(crate) async fn stop(self) {
        self.listening.abort();
        self.repo.stop().await;
    }

    /// The document's heads there, once it is there.
    pub(crate) async fn heads(&self, document: &str) -> Option<Vec<automerge::ChangeHash>> {
        let id: samod::DocumentId = document.parse().unwrap();
        let handle = self.repo.find(id).await.unwrap()?;
        Some(handle.with_document(|doc| doc.get_heads()))
    }
}

#[expect(clippy::result_large_err, reason = "the library's type")]
async fn transport(
    stream: TcpStream,
    echo: bool,
    foreign: Arc<Mutex<Vec<Message>>>,
    heard: Arc<Mutex<usize>>,
) -> Option<Transport> {
    let answer = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        if let Some(offered) = request.headers().get(SUBPROTOCOL).filter(|_| echo) {
            response.headers_mut().insert(SUBPROTOCOL, offered.clone());
        }
        Ok(response)
    };
    let socket = accept_hdr_async(stream, answer).await.ok()?;
    let (sink, stream) = socket.split();
    let stream = stream.filter_map(move |message| {
        ready(match message {
            Ok(Frame::Binary(bytes)) => {
                *heard.lock().unwrap() += 1;
                let messages = codec::decode(&bytes, &Limits::default()).unwrap();
                assert_eq!(messages.len(), 1, "version 1 has one message a frame");
                let strange = messages.into_iter().filter(|message| {
                    matches!(message, Message::Ack { .. } | Message::GoAway { .. })
                });
                foreign.lock().unwrap().extend(strange);
                Some(Ok(bytes.to_vec()))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    });
    let sink = sink.with(|bytes: Vec<u8>| ready(Ok::<_, Error>(Frame::binary(bytes))));
    Some(Transport::new(stream, sink))
}

/// automerge-repo in JavaScript, as the interop tests have it.
pub(crate) struct JavaScript {
    child: Child,
    pub(crate) addr: SocketAddr,
}

impl JavaScript {
    /// `version` is `old`, `current` or `next`, as in `tests/interop`.
    pub(crate) fn start(directory: &Path, version: &str) -> Self {
        let interop = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
        assert!(
            interop.join("node_modules").is_dir(),
            "the JavaScript packages are not installed: run `cargo xtask test`, or `npm ci` in tests/interop"
        );
        let addr = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut child = Command::new("node")
            .arg("lib/reference-server.mjs")
            .current_dir(interop)
            .env("PORT", addr.port().to_string())
            .env("DATA_DIR", directory)
            .env("CONCORD_REFERENCE", version)
            .env_remove("DEBUG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        assert!(first.starts_with("listening"), "{first}");
        // Read on, so that it never finds its output closed.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { child, addr }
    }

    /// Whether it still runs: JavaScript servers die of what they do not understand.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for JavaScript {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
