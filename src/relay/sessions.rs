//! Who is connected: `GET /v1/sessions`.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    routing::get,
};
use concord_protocol::PeerId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{api::Problem, hub::Hub};
use crate::replica::{ConnectionId, Open, PeerInfo};

/// Sessions in an answer that does not say how many.
const LIMIT: usize = 100;
/// Sessions in an answer.
const LIMIT_MAX: usize = 1_000;

/// A peer that has joined.
#[derive(Debug, Clone)]
pub(super) struct Here {
    pub(super) connection: ConnectionId,
    pub(super) info: PeerInfo,
    /// Since when, in milliseconds since 1970.
    pub(super) since_ms: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    limit: Option<usize>,
    after: Option<String>,
}

pub(super) fn routes(hub: Arc<Hub>) -> Router {
    Router::new().route("/v1/sessions", get(list)).with_state(hub)
}

async fn list(
    State(hub): State<Arc<Hub>>,
    listing: Result<Query<Listing>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let Query(Listing { limit, after }) =
        listing.map_err(|error| Problem::bad(error.body_text()))?;
    let after: Option<PeerId> = after
        .map(|after| after.parse())
        .transpose()
        .map_err(|_| Problem::bad("after is what an earlier page gave as next"))?;
    let limit = limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let (page, more) = hub.here(after.as_ref(), limit);
    let connections = page.iter().map(|here| here.connection).collect();
    let open = hub.shards.open_over(connections).await;
    let next = page.last().filter(|_| more).map(|here| here.info.peer.as_str().to_owned());
    let sessions: Vec<Value> = page.iter().map(|here| session(here, &open)).collect();
    Ok(Json(json!({ "sessions": sessions, "next": next, "connected": hub.peers() })))
}

fn session(here: &Here, open: &HashMap<ConnectionId, Open>) -> Value {
    let Here { connection, info, since_ms } = here;
    let Open { documents, present } = open.get(connection).copied().unwrap_or_default();
    let who = info.metadata.session.as_ref();
    json!({
        "peer": info.peer.as_str(),
        "user": who.and_then(|who| who.user.as_deref()),
        "device": who.and_then(|who| who.device.as_deref()),
        "session": who.map(|who| who.session.as_str()),
        "concord": info.concord,
        "since_ms": since_ms,
        "documents": documents,
        "present": present,
    })
}
