//! The schema in force, for whoever is to work under it: told to peers, and served as
//! `/v1/schema`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use bytes::Bytes;
use concord_protocol::{Message, SchemaHash, codec};

use super::{api::Problem, hub::Hub};

/// A schema as it is told.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) hash: SchemaHash,
    text: Bytes,
    /// The message to peers, which all of them share.
    message: Bytes,
}

impl Served {
    pub(super) fn new(text: &str) -> Self {
        let hash = SchemaHash::of(text);
        let message = codec::encode(&Message::Schema { hash, text: text.to_owned() });
        Self { hash, text: Bytes::copy_from_slice(text.as_bytes()), message }
    }

    /// What to say to a peer that holds this schema of a relay, or none.
    pub(super) fn news_for(&self, held: Option<SchemaHash>) -> Option<Bytes> {
        (held != Some(self.hash)).then(|| self.message.clone())
    }
}

pub(super) fn routes(hub: Arc<Hub>) -> Router {
    Router::new().route("/v1/schema", get(show)).with_state(hub)
}

async fn show(State(hub): State<Arc<Hub>>, headers: HeaderMap) -> Result<Response, Problem> {
    const TOML: (HeaderName, &str) = (header::CONTENT_TYPE, "text/toml; charset=utf-8");
    let schema = hub.schema.as_ref().ok_or_else(|| {
        let advice = "the relay was started without one: concord serve --schema FILE";
        Problem::new(StatusCode::NOT_FOUND, "no schema", advice)
    })?;
    let tag = format!("\"{}\"", schema.hash);
    let tagged = [(header::ETAG, tag.clone())];
    if headers.get_all(header::IF_NONE_MATCH).iter().any(|held| is_among(&tag, held.as_bytes())) {
        return Ok((StatusCode::NOT_MODIFIED, tagged).into_response());
    }
    Ok((tagged, [TOML], schema.text.clone()).into_response())
}

/// Whether a tag is one of those that are held, which may be weak, and be all there are.
fn is_among(tag: &str, held: &[u8]) -> bool {
    let held = std::str::from_utf8(held).unwrap_or_default();
    held.split(',').map(str::trim).any(|held| held == "*" || held.trim_start_matches("W/") == tag)
}
