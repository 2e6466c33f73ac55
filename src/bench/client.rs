//! One WebSocket connection that joined a server.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use concord_protocol::{Message, PeerId, PeerMetadata, codec, handshake};
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{self, Message as Frame, protocol::WebSocketConfig},
};

use super::{BenchError, Context};
use crate::tls;

/// Bytes of the largest message taken: what the JavaScript servers send at most.
const MESSAGE_BYTES_MAX: usize = 100 * 1024 * 1024;
/// Bytes read at once. Small, so that thousands of idle connections fit.
const READ_BUFFER_BYTES: usize = 8 * 1024;

/// What all clients sent and received.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) messages_in: AtomicU64,
    pub(super) messages_out: AtomicU64,
}

/// A joined connection.
pub(super) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    context: Context,
    /// Who we are.
    pub(super) us: PeerId,
    /// Who answered.
    pub(super) server: PeerId,
}

impl Client {
    /// Connects and joins, within the time limit.
    pub(super) async fn open(context: &Context) -> Result<Self, BenchError> {
        // Boxed: the WebSocket handshake would make every future that awaits this 20 KB larger.
        context.within("joining", Box::pin(Self::connect(context))).await
    }

    async fn connect(context: &Context) -> Result<Self, BenchError> {
        let target = &context.target;
        let refused = |source| BenchError::Connect { url: target.url.clone(), source };
        let stream = TcpStream::connect(target.address).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .max_message_size(Some(MESSAGE_BYTES_MAX))
            .max_frame_size(Some(MESSAGE_BYTES_MAX));
        let connector = Some(context.trust.connector());
        let opening =
            client_async_tls_with_config(target.url.as_str(), stream, Some(config), connector);
        let (socket, _) = opening.await.map_err(|error| match &error {
            tungstenite::Error::Io(source) => match tls::explain(source) {
                Some(reason) => BenchError::Tls { url: target.url.clone(), reason },
                None => error.into(),
            },
            _ => error.into(),
        })?;
        let us = random_peer_id()?;
        let mut client = Self { socket, context: context.clone(), server: us.clone(), us };
        let metadata = PeerMetadata { is_ephemeral: Some(true), ..PeerMetadata::default() };
        client.feed(&handshake::join(&client.us, &metadata)).await?;
        client.flush().await?;
        let mut replies = Vec::new();
        client.receive(&mut replies).await?;
        let reply = replies.first().ok_or(handshake::HandshakeError::Unexpected)?;
        (client.server, _) = handshake::welcomed(reply, &client.us)?;
        Ok(client)
    }

    /// Puts a message in the buffer.
    pub(super) async fn feed(&mut self, message: &Message) -> Result<(), BenchError> {
        let bytes = codec::encode(message);
        let traffic = &self.context.traffic;
        traffic.bytes_out.fetch_add(u64::try_from(bytes.len()).unwrap_or(0), Relaxed);
        traffic.messages_out.fetch_add(1, Relaxed);
        Ok(self.socket.feed(Frame::Binary(bytes)).await?)
    }

    /// Sends what is in the buffer.
    pub(super) async fn flush(&mut self) -> Result<(), BenchError> {
        Ok(self.socket.flush().await?)
    }

    /// Waits for the next message. May be dropped while it waits without losing anything.
    pub(super) async fn receive(&mut self, into: &mut Vec<Message>) -> Result<(), BenchError> {
        loop {
            let frame = self.socket.next().await;
            if self.take(frame, into)? {
                return Ok(());
            }
        }
    }

    /// Takes what has come already, if anything. `true` if it was a message.
    pub(super) fn receive_ready(&mut self, into: &mut Vec<Message>) -> Result<bool, BenchError> {
        match self.socket.next().now_or_never() {
            Some(frame) => self.take(frame, into),
            None => Ok(false),
        }
    }

    /// Tells the server that we go.
    pub(super) async fn close(mut self) {
        // The server may have gone first.
        let _ = tokio::time::timeout(self.context.timeout, self.socket.close(None)).await;
    }

    fn take(
        &self,
        frame: Option<Result<Frame, tokio_tungstenite::tungstenite::Error>>,
        into: &mut Vec<Message>,
    ) -> Result<bool, BenchError> {
        match frame {
            Some(Ok(Frame::Binary(bytes))) => {
                let traffic = &self.context.traffic;
                traffic.bytes_in.fetch_add(u64::try_from(bytes.len()).unwrap_or(0), Relaxed);
                traffic.messages_in.fetch_add(1, Relaxed);
                into.extend(codec::decode(&bytes, &self.context.limits)?);
                Ok(true)
            }
            Some(Ok(Frame::Close(reason))) => Err(BenchError::Closed(
                reason.map_or_else(String::new, |r| format!(": {} {}", r.code, r.reason)),
            )),
            // Pings are answered by the library when it next reads or writes.
            Some(Ok(_)) => Ok(false),
            Some(Err(error)) => Err(error.into()),
            None => Err(BenchError::Closed(String::new())),
        }
    }
}

fn random_peer_id() -> Result<PeerId, BenchError> {
    let name = format!("bench-{:016x}", getrandom::u64().map_err(BenchError::Random)?);
    name.parse().map_err(|error: concord_protocol::IdError| BenchError::Document(error.to_string()))
}
