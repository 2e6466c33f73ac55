//! A server that speaks `concord.v1` and says what the test says.

#![allow(dead_code, reason = "each test crate uses some of it")]

use std::net::SocketAddr;

use concord_protocol::{
    Limits, Message, PeerId, PeerMetadata, SchemaHash, codec,
    handshake::{self, Answer, SUBPROTOCOL},
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message as Frame,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

/// Something that speaks like a relay and says what it is told to say.
pub(crate) struct Pretender {
    addr: SocketAddr,
    say: mpsc::UnboundedSender<Message>,
    /// The schema that each who joined said to hold.
    pub(crate) joined: mpsc::UnboundedReceiver<Option<SchemaHash>>,
    /// What they say later.
    pub(crate) heard: mpsc::UnboundedReceiver<Message>,
}

impl Pretender {
    pub(crate) async fn start(store: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (say, mut to_say) = mpsc::unbounded_channel();
        let (tell, joined) = mpsc::unbounded_channel();
        let (hear_of, heard) = mpsc::unbounded_channel();
        let us: PeerId = format!("pretender-{store}").parse().unwrap();
        let storage_id = Some(store.parse().unwrap());
        let metadata = PeerMetadata { storage_id, ..PeerMetadata::default() };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Some(mut socket) = subprotocol(stream).await else { continue };
                let Some(first) = hear(&mut socket).await else { continue };
                let [first] = &first[..] else { panic!("{first:?}") };
                let Answer::Welcome { reply, metadata: theirs, .. } =
                    handshake::answer(first, &us, &metadata, true)
                else {
                    panic!("{first:?}");
                };
                socket.send(Frame::Binary(codec::encode(&reply))).await.unwrap();
                tell.send(theirs.schema).unwrap();
                loop {
                    tokio::select! {
                        message = to_say.recv() => {
                            let Some(message) = message else { return };
                            socket.send(Frame::Binary(codec::encode(&message))).await.unwrap();
                        }
                        heard = hear(&mut socket) => match heard {
                            // Nobody may want to know.
                            Some(heard) => heard.into_iter().for_each(|message| {
                                _ = hear_of.send(message);
                            }),
                            None => break,
                        },
                    }
                }
            }
        });
        Self { addr, say, joined, heard }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.addr)
    }

    pub(crate) fn tell(&self, text: &str) {
        self.tell_as(SchemaHash::of(text), text);
    }

    pub(crate) fn tell_as(&self, hash: SchemaHash, text: &str) {
        self.say.send(Message::Schema { hash, text: text.to_owned() }).unwrap();
    }
}

#[expect(clippy::result_large_err, reason = "the library's type")]
async fn subprotocol(stream: TcpStream) -> Option<WebSocketStream<TcpStream>> {
    let accept = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let header = SUBPROTOCOL.parse().unwrap();
        response.headers_mut().insert("sec-websocket-protocol", header);
        Ok(response)
    };
    accept_hdr_async(stream, accept).await.ok()
}

async fn hear(socket: &mut WebSocketStream<TcpStream>) -> Option<Vec<Message>> {
    loop {
        if let Frame::Binary(frame) = socket.next().await?.ok()? {
            return Some(codec::decode(&frame, &Limits::default()).unwrap());
        }
    }
}
