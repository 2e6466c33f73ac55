//! A WebSocket client that says and reads what it is told to, and no more.

use bytes::Bytes;
use concord_protocol::{
    DocumentId, Limits, Message, PeerId, PeerMetadata, codec,
    handshake::{join, welcomed},
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, protocol::CloseFrame},
};
use turmoil::net::TcpStream;

use crate::world::URL;

/// An Automerge sync message of somebody who has nothing.
const NOTHING: &[u8] = &[0x42, 0, 0, 1, 0, 0, 0, 2, 2, 0x84];

pub(crate) struct Raw {
    pub(crate) socket: WebSocketStream<TcpStream>,
    name: PeerId,
    relay: Option<PeerId>,
}

impl Raw {
    /// Opens the WebSocket and says nothing.
    pub(crate) async fn connect(name: &str) -> Self {
        let stream = TcpStream::connect(("relay", 3030)).await.unwrap();
        let (socket, _) = client_async(URL, stream).await.unwrap();
        Self { socket, name: name.parse().unwrap(), relay: None }
    }

    pub(crate) async fn join(name: &str) -> Self {
        let mut client = Self::connect(name).await;
        let hello = join(&client.name, &PeerMetadata::default());
        client.send(&hello).await;
        let Some(Ok(reply)) = client.hear().await else { panic!("expected to be welcomed") };
        client.relay = Some(welcomed(&reply, &client.name).unwrap().0);
        client
    }

    /// Asks for a document.
    pub(crate) async fn request(&mut self, document: &DocumentId) {
        let request = Message::Request {
            document: document.clone(),
            sender: self.name.clone(),
            target: self.relay.clone().unwrap(),
            data: Bytes::from_static(NOTHING),
        };
        self.send(&request).await;
    }

    async fn send(&mut self, message: &Message) {
        let frame = tungstenite::Message::Binary(codec::encode(message));
        self.socket.send(frame).await.unwrap();
    }

    /// The next message; the code of a close; nothing where the connection ended without one.
    pub(crate) async fn hear(&mut self) -> Option<Result<Message, u16>> {
        loop {
            match self.socket.next().await? {
                Ok(tungstenite::Message::Binary(frame)) => {
                    let messages = codec::decode(&frame, &Limits::default()).unwrap();
                    let [message] = <[Message; 1]>::try_from(messages).unwrap();
                    return Some(Ok(message));
                }
                Ok(tungstenite::Message::Close(Some(CloseFrame { code, .. }))) => {
                    return Some(Err(code.into()));
                }
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }

    /// Reads until the end, and gives its code.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.hear().await? {
                Ok(_) => {}
                Err(code) => return Some(code),
            }
        }
    }
}
