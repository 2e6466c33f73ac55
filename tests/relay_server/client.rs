//! A client that says what it is told to say, and no more.

use std::{collections::VecDeque, time::Duration};

use automerge::{
    AutoCommit, ROOT,
    sync::{State, SyncDoc as _},
    transaction::Transactable as _,
};
use bytes::Bytes;
use concord_protocol::{
    DocumentId, Limits, Message, PeerId, PeerMetadata, codec,
    handshake::{self, SUBPROTOCOL},
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        self,
        client::IntoClientRequest as _,
        http::{HeaderValue, Response},
    },
};

/// Longer than anything here takes on a busy machine; reached only by a failure.
const PATIENCE: Duration = Duration::from_secs(20);
/// An Automerge sync message of somebody who has nothing, as JavaScript clients send it.
const NOTHING: &[u8] = &[0x42, 0, 0, 1, 0, 0, 0, 2, 2, 0x84];

/// What a relay said.
#[derive(Debug)]
pub(crate) enum Heard {
    Message(Message),
    Ping,
    Closed(u16, String),
    /// The end, without a close.
    Lost,
}

pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<TcpStream>,
    pub(crate) name: PeerId,
    pub(crate) relay: PeerId,
    pub(crate) response: Response<Option<Vec<u8>>>,
    /// Messages of a frame that were not heard yet.
    rest: VecDeque<Message>,
}

impl Client {
    /// Connects, and says nothing.
    pub(crate) async fn connect(url: &str) -> Self {
        Self::dial(url, None, None).await
    }

    /// Connects with this subprotocol, and with a receive buffer of so many bytes.
    pub(crate) async fn dial(url: &str, subprotocol: Option<&str>, buffer: Option<u32>) -> Self {
        let mut request = url.into_client_request().unwrap();
        if let Some(name) = subprotocol {
            let value = HeaderValue::from_str(name).unwrap();
            request.headers_mut().insert("sec-websocket-protocol", value);
        }
        let addr = request.uri().authority().unwrap().as_str().parse().unwrap();
        let tcp = TcpSocket::new_v4().unwrap();
        if let Some(bytes) = buffer {
            tcp.set_recv_buffer_size(bytes).unwrap();
        }
        let tcp = tcp.connect(addr).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let (socket, response) = client_async(request, tcp).await.unwrap();
        Self {
            socket,
            name: "nobody".parse().unwrap(),
            relay: "unknown".parse().unwrap(),
            response,
            rest: VecDeque::new(),
        }
    }

    pub(crate) async fn join(url: &str, name: &str) -> Self {
        let mut client = Self::connect(url).await;
        client.say_join(name).await;
        client
    }

    pub(crate) async fn join_concord(url: &str, name: &str) -> Self {
        let mut client = Self::dial(url, Some(SUBPROTOCOL), None).await;
        client.say_join(name).await;
        client
    }

    /// Joins and means it: Concord's own messages are spoken.
    pub(crate) async fn join_speaking(url: &str, name: &str, metadata: PeerMetadata) -> Self {
        let mut client = Self::dial(url, Some(SUBPROTOCOL), None).await;
        client.say_join_speaking(name, metadata).await;
        client
    }

    pub(crate) async fn say_join_speaking(&mut self, name: &str, metadata: PeerMetadata) {
        self.name = name.parse().unwrap();
        self.send(&handshake::join_concord(&self.name, &metadata)).await;
        match self.hear().await {
            Heard::Message(reply) => {
                let (relay, _, speaks) = handshake::welcomed_concord(&reply, &self.name).unwrap();
                assert!(speaks);
                self.relay = relay;
            }
            other => panic!("expected to be welcomed, heard {other:?}"),
        }
    }

    pub(crate) async fn say_join(&mut self, name: &str) {
        self.name = name.parse().unwrap();
        let join = handshake::join(&self.name, &PeerMetadata::default());
        self.send(&join).await;
        match self.hear().await {
            Heard::Message(reply) => {
                self.relay = handshake::welcomed(&reply, &self.name).unwrap().0;
            }
            other => panic!("expected to be welcomed, heard {other:?}"),
        }
    }

    pub(crate) async fn send(&mut self, message: &Message) {
        self.send_bytes(codec::encode(message)).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: Bytes) {
        self.send_frame(tungstenite::Message::Binary(bytes)).await;
    }

    pub(crate) async fn send_frame(&mut self, frame: tungstenite::Message) {
        // A relay that closed meanwhile is seen by whoever listens next.
        let _ = timeout(PATIENCE, self.socket.send(frame)).await.expect("the relay reads");
    }

    /// The next thing that the relay says, pings left out.
    pub(crate) async fn hear(&mut self) -> Heard {
        let hearing = async {
            loop {
                match self.hear_all().await {
                    Heard::Ping => {}
                    heard => return heard,
                }
            }
        };
        timeout(PATIENCE, hearing).await.expect("the relay has more to say than pings")
    }

    /// The next thing that the relay says.
    pub(crate) async fn hear_all(&mut self) -> Heard {
        loop {
            if let Some(message) = self.rest.pop_front() {
                return Heard::Message(message);
            }
            let next = timeout(PATIENCE, self.socket.next()).await.expect("the relay speaks");
            return match next {
                Some(Ok(tungstenite::Message::Binary(frame))) => {
                    self.rest.extend(codec::decode(&frame, &Limits::default()).unwrap());
                    continue;
                }
                Some(Ok(tungstenite::Message::Ping(_))) => Heard::Ping,
                Some(Ok(tungstenite::Message::Close(Some(frame)))) => {
                    Heard::Closed(frame.code.into(), frame.reason.to_string())
                }
                Some(Ok(tungstenite::Message::Pong(_))) => continue,
                Some(Ok(other)) => panic!("a relay does not say {other:?}"),
                Some(Err(_)) | None => Heard::Lost,
            };
        }
    }

    /// Listens until the relay closes, and gives code and reason.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.hear().await {
                Heard::Closed(code, reason) => return (code, reason),
                Heard::Message(_) | Heard::Ping => {}
                Heard::Lost => panic!("the relay went without a close"),
            }
        }
    }

    /// A request for a document that we have nothing of.
    pub(crate) fn request(&self, document: &DocumentId) -> Message {
        Message::Request {
            document: document.clone(),
            sender: self.name.clone(),
            target: self.relay.clone(),
            data: Bytes::from_static(NOTHING),
        }
    }

    pub(crate) fn ephemeral(&self, document: &DocumentId, count: u64, data: Bytes) -> Message {
        Message::Ephemeral {
            document: document.clone(),
            sender: self.name.clone(),
            target: self.relay.clone(),
            count,
            session: "session".parse().unwrap(),
            data,
        }
    }

    /// Asks for a document that nobody has, and hears so: the relay works, for us too.
    pub(crate) async fn is_served(&mut self) {
        let document = DocumentId::from_bytes(&[7; 16]);
        let request = self.request(&document);
        self.send(&request).await;
        loop {
            match self.hear().await {
                Heard::Message(Message::DocUnavailable { document: there, .. }) => {
                    assert_eq!(there, document);
                    return;
                }
                Heard::Message(Message::Sync { .. }) => {}
                other => panic!("expected doc-unavailable, heard {other:?}"),
            }
        }
    }

    /// Gives a document to the relay, until it has acknowledged it or closed.
    pub(crate) async fn upload(&mut self, document: &DocumentId) -> Result<(), u16> {
        let mut local = AutoCommit::new();
        local.put(ROOT, "name", "value").unwrap();
        let heads = local.get_heads();
        let mut state = State::new();
        loop {
            while let Some(message) = local.sync().generate_sync_message(&mut state) {
                let message = Message::Sync {
                    document: document.clone(),
                    sender: self.name.clone(),
                    target: self.relay.clone(),
                    data: message.encode().into(),
                };
                self.send(&message).await;
            }
            match self.hear().await {
                Heard::Message(Message::Sync { data, .. }) => {
                    let message = automerge::sync::Message::decode(&data).unwrap();
                    let is_there = message.heads == heads;
                    local.sync().receive_sync_message(&mut state, message).unwrap();
                    if is_there {
                        return Ok(());
                    }
                }
                Heard::Message(_) => {}
                Heard::Closed(code, _) => return Err(code),
                other => panic!("expected an answer to our changes, heard {other:?}"),
            }
        }
    }
}
