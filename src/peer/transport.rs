//! Reaching a relay: a URL, the byte stream under the WebSocket, and the WebSocket's opening.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use concord_protocol::{Limits, handshake::SUBPROTOCOL};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{
        self,
        client::IntoClientRequest as _,
        error::{Error, ProtocolError, SubProtocolError},
        http::{HeaderValue, Response, StatusCode, Uri, header},
        protocol::WebSocketConfig,
    },
};

use super::{
    dialer::Ended,
    error::PeerError,
    traffic::{Metered, Traffic},
};
use crate::tls::{self, Trust};

/// Read buffer of a connection, in bytes; it is allocated at once.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Largest frame read, in bytes. Browsers and native clients send a message as one frame.
const FRAME_BYTES_MAX: usize = concord_protocol::limits::MESSAGE_BYTES_MAX;

/// A byte stream that a WebSocket can run over.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for S {}

/// A connection attempt under way.
pub type Dialling = Pin<Box<dyn Future<Output = io::Result<Box<dyn ByteStream>>> + Send>>;

/// How byte streams to relays are made. The default is TCP; tests use pipes in memory.
pub trait Transport: Send + Sync + 'static {
    /// Opens a stream to the host and port of a relay.
    fn dial(&self, host: &str, port: u16) -> Dialling;
}

/// TCP, without Nagle's delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Transport for Tcp {
    fn dial(&self, host: &str, port: u16) -> Dialling {
        let host = host.trim_matches(['[', ']']).to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }
}

/// The URL of a relay, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayUrl {
    text: String,
    host: String,
    port: u16,
    /// `wss://`.
    secure: bool,
}

impl RelayUrl {
    /// Reads `ws://host[:port][/path]` or `wss://...`.
    ///
    /// # Errors
    /// [`PeerError::RelayUrl`] for anything else.
    pub fn parse(text: &str) -> Result<Self, PeerError> {
        let wrong = |reason: String| PeerError::RelayUrl { url: text.to_owned(), reason };
        let uri: Uri = text.parse().map_err(|error| wrong(format!("{error}")))?;
        let (secure, default_port) = match uri.scheme_str() {
            Some("ws") => (false, 80),
            Some("wss") => (true, 443),
            Some(other) => return Err(wrong(format!("the scheme {other} is not ws or wss"))),
            None => return Err(wrong("it has no scheme".to_owned())),
        };
        let host = uri
            .host()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| wrong("it has no host".to_owned()))?;
        Ok(Self {
            text: text.to_owned(),
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(default_port),
            secure,
        })
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// A WebSocket over any stream.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<Box<dyn ByteStream>>>;

/// An open WebSocket, before the first message.
pub(super) struct Opened {
    pub(super) socket: Socket,
    /// Whether `concord.v1` was negotiated.
    pub(super) concord: bool,
}

/// Dials and opens the WebSocket: with `concord.v1` if the relay takes it, else without.
pub(super) async fn open(
    transport: &dyn Transport,
    trust: &Trust,
    url: &RelayUrl,
    limits: &Limits,
    traffic: &Arc<Traffic>,
) -> Result<Opened, Ended> {
    let attempt = async |offer| attempt(transport, trust, url, limits, traffic, offer).await;
    match attempt(true).await {
        Err(Failure::NoSubprotocol) => match attempt(false).await {
            Err(Failure::NoSubprotocol) => {
                Err(Ended::permanent("the relay insists on a subprotocol"))
            }
            Err(Failure::Ended(ended)) => Err(ended),
            Ok(opened) => Ok(opened),
        },
        Err(Failure::Ended(ended)) => Err(ended),
        Ok(opened) => Ok(opened),
    }
}

enum Failure {
    /// The server does not know the subprotocol, which the client library takes for an error.
    NoSubprotocol,
    Ended(Ended),
}

async fn attempt(
    transport: &dyn Transport,
    trust: &Trust,
    url: &RelayUrl,
    limits: &Limits,
    traffic: &Arc<Traffic>,
    offer: bool,
) -> Result<Opened, Failure> {
    let mut request = url
        .as_str()
        .into_client_request()
        .map_err(|error| Failure::Ended(Ended::permanent(error.to_string())))?;
    if offer {
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", HeaderValue::from_static(SUBPROTOCOL));
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_message_size(Some(limits.message_bytes))
        .max_frame_size(Some(FRAME_BYTES_MAX));
    let opening = async {
        let stream = transport.dial(&url.host, url.port).await.map_err(Error::Io)?;
        let stream: Box<dyn ByteStream> = Box::new(Metered::new(stream, Arc::clone(traffic)));
        let connector = Some(trust.connector());
        client_async_tls_with_config(request, stream, Some(config), connector).await
    };
    match timeout(Duration::from_millis(limits.handshake_ms), opening).await {
        Err(_) => {
            Err(Failure::Ended(Ended::transient(format!("{} does not answer", url.as_str()))))
        }
        Ok(Ok((socket, response))) => {
            let chosen = response.headers().get("Sec-WebSocket-Protocol");
            let concord = chosen.is_some_and(|name| name.as_bytes() == SUBPROTOCOL.as_bytes());
            Ok(Opened { socket, concord })
        }
        Ok(Err(Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(
            SubProtocolError::NoSubProtocol,
        )))) => Err(Failure::NoSubprotocol),
        Ok(Err(error)) => Err(Failure::Ended(ended(url, &error))),
    }
}

/// In words that help: what the operating system says, and to what.
fn ended(url: &RelayUrl, error: &tungstenite::Error) -> Ended {
    let at = url.as_str();
    // What a server that expects TLS makes of plain text: an alert, a hang-up, or words in HTTP.
    let hint = if url.secure { "" } else { ". If it speaks TLS, give wss:// and not ws://" };
    match error {
        Error::Http(response) => refused(at, hint, response),
        Error::Io(error) => match tls::explain(error) {
            Some(words) => Ended::transient(format!("{at}: {words}")),
            None if error.kind() == io::ErrorKind::ConnectionRefused => {
                Ended::transient(format!("nothing listens at {at}"))
            }
            None if is_hang_up(error.kind()) => Ended::transient(format!("{at}: {error}{hint}")),
            None => Ended::transient(format!("{at}: {error}")),
        },
        Error::Protocol(ProtocolError::HttparseError(_)) => {
            Ended::transient(format!("{at} answers with something that is not HTTP{hint}"))
        }
        Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            Ended::transient(format!("{at} hung up before it answered{hint}"))
        }
        other => Ended::transient(format!("{at}: {other}")),
    }
}

fn refused(at: &str, hint: &str, response: &Response<Option<Vec<u8>>>) -> Ended {
    let status = response.status();
    if status.is_redirection() {
        let to = response.headers().get(header::LOCATION);
        let to = to.map_or("elsewhere".into(), |to| String::from_utf8_lossy(to.as_bytes()));
        return Ended::transient(format!("{at} answered HTTP {status}, and sends us to {to}"));
    }
    let hint = if status == StatusCode::BAD_REQUEST { hint } else { "" };
    let said = format!("{at} answered HTTP {status}: is it a relay, and is the path right?{hint}");
    match status {
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {}
        status if status.is_client_error() => return Ended::permanent(said),
        _ => {}
    }
    // Where it is a date, the wait that is drawn has to do.
    let after = response.headers().get(header::RETRY_AFTER);
    let seconds = after.and_then(|after| after.to_str().ok()?.trim().parse::<u64>().ok());
    let retry_after_ms = seconds.map(|seconds| seconds.saturating_mul(1_000));
    Ended { retry_after_ms, ..Ended::transient(format!("{at} answered HTTP {status}")) }
}

fn is_hang_up(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_names_a_time_is_not_asked_before_it() {
        let answer = |status: u16, after: &str| {
            let response = Response::builder().status(status).header("retry-after", after);
            refused("ws://x", "", &response.body(None).unwrap())
        };
        for status in [429, 502, 503] {
            let ended = answer(status, "120");
            assert_eq!((ended.permanent, ended.retry_after_ms), (false, Some(120_000)));
        }
        for odd in ["", "-1", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(answer(503, odd).retry_after_ms, None);
        }
        assert!(answer(403, "120").permanent);
    }

    #[test]
    fn urls_are_checked_before_anything_is_dialled() {
        let url = RelayUrl::parse("ws://localhost:3030/sync").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("localhost", 3030));
        assert_eq!(RelayUrl::parse("wss://example.org").unwrap().port, 443);
        assert_eq!(RelayUrl::parse("ws://[::1]").unwrap().port, 80);
        for wrong in ["", "localhost:3030", "http://x", "ws://", "ws:///x", "not a url"] {
            let error = RelayUrl::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("expected ws://"), "{error}");
        }
    }
}
