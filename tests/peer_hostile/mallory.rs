//! A relay that says whatever it is told to say.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use concord_protocol::{
    DocumentId, Message, PeerId, PeerMetadata, codec,
    handshake::{self, Answer, SUBPROTOCOL},
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message as Frame,
        handshake::server::{ErrorResponse, Request, Response},
        http::HeaderValue,
    },
};

/// What it heard.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(Message),
    /// The peer closed with this code, or was gone (1006).
    Closed(u16),
}

type Line = Mutex<Option<(mpsc::UnboundedSender<Frame>, PeerId)>>;

pub(crate) struct Mallory {
    pub(crate) url: String,
    pub(crate) heard: mpsc::UnboundedReceiver<Heard>,
    /// To the connection of the moment, and the peer's name on it.
    line: Arc<Line>,
    /// How many connections have joined.
    joined: watch::Receiver<usize>,
}

impl Mallory {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let (hears, heard) = mpsc::unbounded_channel();
        let line = Arc::<Line>::default();
        let joins = watch::Sender::new(0);
        let joined = joins.subscribe();
        let current = line.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // One at a time: there is one peer.
                let code = speak(stream, &current, &joins, &hears).await;
                *current.lock().unwrap() = None;
                let _ = hears.send(Heard::Closed(code));
            }
        });
        Self { url, heard, line, joined }
    }

    /// How often the peer has come so far.
    pub(crate) fn visits(&self) -> usize {
        *self.joined.borrow()
    }

    /// Sends a frame, if the peer is there.
    pub(crate) fn send(&self, frame: Frame) -> bool {
        let line = self.line.lock().unwrap();
        line.as_ref().is_some_and(|(line, _)| line.send(frame).is_ok())
    }

    /// Says something to the peer, which needs its name.
    pub(crate) fn say(&self, message: impl FnOnce(PeerId, PeerId) -> Message) -> bool {
        let peer = self.line.lock().unwrap().as_ref().map(|(_, peer)| peer.clone());
        peer.is_some_and(|peer| self.send(Frame::Binary(codec::encode(&message(us(), peer)))))
    }

    pub(crate) fn sync(&self, document: &DocumentId, data: Bytes) -> bool {
        let document = document.clone();
        self.say(|sender, target| Message::Sync { document, sender, target, data })
    }

    /// Listens until it hears what is waited for.
    pub(crate) async fn until<T>(&mut self, mut wanted: impl FnMut(Heard) -> Option<T>) -> T {
        let waited = async {
            loop {
                let heard = self.heard.recv().await.expect("the relay is at work");
                if let Some(found) = wanted(heard) {
                    return found;
                }
            }
        };
        tokio::time::timeout(crate::SOON, waited).await.expect("heard in time")
    }

    /// Forgets what it heard so far.
    pub(crate) fn forget(&mut self) {
        while self.heard.try_recv().is_ok() {}
    }
}

pub(crate) fn us() -> PeerId {
    "mallory".parse().unwrap()
}

#[expect(clippy::result_large_err, reason = "the library's type")]
async fn speak(
    stream: TcpStream,
    line: &Line,
    joins: &watch::Sender<usize>,
    hears: &mpsc::UnboundedSender<Heard>,
) -> u16 {
    const LOST: u16 = 1006;
    let answer = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let chosen = HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert("sec-websocket-protocol", chosen);
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, answer).await else { return LOST };
    let Some(Ok(Frame::Binary(hello))) = socket.next().await else { return LOST };
    let hello = codec::decode(&hello, &concord_protocol::Limits::default()).unwrap();
    let welcome = handshake::answer(&hello[0], &us(), &PeerMetadata::default(), true);
    let Answer::Welcome { reply, peer, .. } = welcome else { return LOST };
    // Before the peer can know that it is online: whoever waits for that speaks at once.
    let (says, mut said) = mpsc::unbounded_channel();
    *line.lock().unwrap() = Some((says, peer));
    joins.send_modify(|count| *count += 1);
    if socket.send(Frame::Binary(codec::encode(&reply))).await.is_err() {
        return LOST;
    }
    loop {
        tokio::select! {
            Some(frame) = said.recv() => if socket.send(frame).await.is_err() {
                return LOST;
            },
            frame = socket.next() => match frame {
                Some(Ok(Frame::Binary(bytes))) => {
                    let limits = concord_protocol::Limits::default();
                    for message in codec::decode(&bytes, &limits).unwrap() {
                        let _ = hears.send(Heard::Message(message));
                    }
                }
                Some(Ok(Frame::Close(frame))) => {
                    let _ = socket.flush().await;
                    return frame.map_or(1005, |frame| frame.code.into());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return LOST,
            },
        }
    }
}
