//! HTTP: the WebSocket upgrade on the main port, health and metrics on the admin port.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{
        HeaderMap, Method, StatusCode,
        header::{
            CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
            SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
        },
    },
    response::{IntoResponse as _, Response},
    routing::get,
};
use concord_protocol::handshake::SUBPROTOCOL;
use hyper::{server::conn::http1, upgrade::OnUpgrade};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use crate::frames::FRAGMENT_BYTES;

use super::{
    api, connection,
    hub::{Health, Hub},
    listen::ByteStream,
    metered::Metered,
};

/// Bytes of the read buffer that each connection holds while it is idle.
const READ_BUFFER: usize = 4 * 1024;
/// Bytes of small frames that are joined before they are written.
const WRITE_BUFFER: usize = 8 * 1024;
/// Bytes of the head of an HTTP request: an upgrade has some hundreds.
const HEAD_BYTES: usize = 16 * 1024;
/// Bytes that may be sent before the join is understood; a join has some hundreds.
const JOIN_BYTES: u64 = 64 * 1024;
/// Milliseconds that whoever is turned away has to take the answer.
const TURN_AWAY_MS: u64 = 1_000;
/// Milliseconds that a scrape waits for shards at work.
const SCRAPE_MS: u64 = 2_000;

/// Serves HTTP on one stream until it ends or becomes a WebSocket.
pub(super) async fn serve(stream: Metered<Box<dyn ByteStream>>, router: Router, head_ms: u64) {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(head_ms))
        .max_buf_size(HEAD_BYTES);
    let service = TowerToHyperService::new(router);
    let serving = server.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.with_upgrades().await {
        tracing::debug!(%error, "not HTTP, or too slow");
    }
}

/// Tells a connection from an address that has too many, whatever it asks.
pub(super) async fn turn_away(mut stream: Box<dyn ByteStream>) {
    const ANSWER: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain\r\n\
        retry-after: 30\r\nconnection: close\r\n\r\ntoo many connections from this address\n";
    let answer = async {
        stream.write_all(ANSWER).await?;
        stream.shutdown().await?;
        // A socket that is closed with bytes unread is reset, which may overtake the answer.
        tokio::io::copy(&mut stream.take(HEAD_BYTES as u64), &mut tokio::io::sink()).await
    };
    // Whoever does not take it in time is cut off.
    let _ = tokio::time::timeout(Duration::from_millis(TURN_AWAY_MS), answer).await;
}

/// What clients connect to.
#[derive(Clone)]
struct Door {
    hub: Arc<Hub>,
    /// What is served below `/v1/`, also to those who are connected.
    api: Router,
}

/// What clients see: what is below `/v1/`, and a WebSocket on any other path.
pub(super) fn clients(hub: Arc<Hub>, api: Router) -> Router {
    Router::new().fallback(accept).with_state(Door { hub, api: api::alone(api.clone()) }).merge(api)
}

/// What operators see.
pub(super) fn admin(hub: Arc<Hub>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(hub)
}

async fn accept(State(door): State<Door>, mut request: Request) -> Response {
    let hub = &door.hub;
    let headers = request.headers();
    if request.method() != Method::GET || !has_token(headers, &UPGRADE, "websocket") {
        return plain(&request);
    }
    if let Err(advice) = hub.admits(headers) {
        return (StatusCode::FORBIDDEN, format!("{advice}\n")).into_response();
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).cloned();
    let version = headers.get(SEC_WEBSOCKET_VERSION);
    let concord = has_token(headers, &SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL);
    let (Some(key), true) = (key, version.is_some_and(|version| version == "13")) else {
        let version = [(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))];
        return (StatusCode::UPGRADE_REQUIRED, version, "WebSocket version 13 is needed\n")
            .into_response();
    };
    if hub.health() != Health::Ready {
        return (StatusCode::SERVICE_UNAVAILABLE, "not serving at the moment\n").into_response();
    }
    let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
        return (StatusCode::UPGRADE_REQUIRED, "this connection cannot be upgraded\n")
            .into_response();
    };
    tokio::spawn(upgraded(door, upgrade, concord));

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    // Base64 is always a header value.
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if concord {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    response
}

/// A few words for a browser, and nothing for the rest.
fn plain(request: &Request) -> Response {
    if request.uri().path() != "/" || request.method() != Method::GET {
        return (StatusCode::NOT_FOUND, "only WebSocket here, and a page on /\n").into_response();
    }
    let mut page = format!("Concord {}\n\n", env!("CARGO_PKG_VERSION"));
    let host = request.headers().get("host").and_then(|host| host.to_str().ok());
    let _ = writeln!(
        page,
        "A relay for Automerge documents is running here.\nPoint an automerge-repo client at ws://{}\n",
        host.unwrap_or("this address")
    );
    page.into_response()
}

async fn upgraded(door: Door, upgrade: OnUpgrade, concord: bool) {
    let upgraded = match upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            tracing::debug!(%error, "the upgrade was not completed");
            return;
        }
    };
    // The socket itself, without the layers that HTTP needed.
    let Ok(parts) = upgraded.downcast::<TokioIo<Metered<Box<dyn ByteStream>>>>() else {
        tracing::error!("an upgraded connection is not the stream that was accepted");
        return;
    };
    let Door { hub, api } = door;
    let limits = &hub.config.limits;
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER + 2 * FRAGMENT_BYTES)
        .max_message_size(Some(limits.message_bytes))
        .max_frame_size(Some(limits.message_bytes));
    let mut stream = parts.io.into_inner();
    stream.cap(JOIN_BYTES);
    let early = parts.read_buf;
    let socket = if early.is_empty() {
        WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
    } else {
        WebSocketStream::from_partially_read(stream, early.into(), Role::Server, Some(config)).await
    };
    connection::run(hub, api, socket, concord).await;
}

/// Whether a comma-separated header holds this word.
fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case(wanted))
}

async fn ready(State(hub): State<Arc<Hub>>) -> Response {
    match hub.health() {
        Health::Ready => "ready\n".into_response(),
        Health::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response(),
        Health::Failed(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("failed: {reason}\n")).into_response()
        }
    }
}

async fn metrics(State(hub): State<Arc<Hub>>) -> Response {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let asking = tokio::time::timeout(Duration::from_millis(SCRAPE_MS), hub.shards.stats());
    let Ok(stats) = asking.await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the shards are too busy\n").into_response();
    };
    match hub.metrics.render(hub.peers(), &stats) {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
