//! What is served below `/v1/`, over HTTP and over sockets that speak `concord.v1` alike.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    blobs,
    catalogue::{self, Catalogue},
    hub::{Health, Hub},
    review::{self, Reviewer},
    schema, sessions,
};

/// All of it.
pub(super) fn routes(
    hub: &Arc<Hub>,
    reviewer: Option<Arc<Reviewer>>,
    catalogue: Arc<Catalogue>,
) -> Router {
    let conflicts = reviewer.map(|reviewer| review::routes(hub.clone(), reviewer));
    schema::routes(hub.clone())
        .merge(sessions::routes(hub.clone()))
        .merge(blobs::routes(hub))
        .merge(conflicts.unwrap_or_default())
        .merge(catalogue::routes(hub.clone(), catalogue))
        .layer(middleware::from_fn_with_state(hub.clone(), only_known_pages))
}

/// The same for those who can ask for nothing else.
pub(super) fn alone(routes: Router) -> Router {
    routes.fallback(async || nothing_there())
}

/// What is answered where there is nothing.
pub(super) fn nothing_there() -> Problem {
    let advice = "GET /v1/conflicts, /v1/catalogue and /v1/schema are what there is to begin with";
    Problem::new(StatusCode::NOT_FOUND, "nothing there", advice)
}

/// An error, as RFC 9457 has it.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    title: &'static str,
    detail: String,
    pub(super) more: Option<(&'static str, Value)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, title, detail: detail.into(), more: None }
    }

    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "not understood", detail)
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// What is answered, under a number by which it is found in the log.
    pub(super) fn body(&self) -> String {
        let request = getrandom::u64().unwrap_or_default();
        let mut body = json!({
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "request": format!("{request:016x}"),
        });
        if let Some((key, value)) = &self.more {
            body[key] = value.clone();
        }
        tracing::debug!(
            status = self.status.as_u16(),
            detail = self.detail,
            request = body["request"].as_str(),
            "a request failed"
        );
        body.to_string()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let kind = HeaderValue::from_static("application/problem+json");
        (self.status, [(header::CONTENT_TYPE, kind)], self.body()).into_response()
    }
}

/// Pages of others neither read nor decide: as with sockets.
async fn only_known_pages(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    if let Err(advice) = hub.admits(request.headers()) {
        return Problem::new(StatusCode::FORBIDDEN, "not allowed", advice).into_response();
    }
    if hub.health() != Health::Ready {
        let advice = "the relay is not serving at the moment: try again later";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not serving", advice)
            .into_response();
    }
    next.run(request).await
}
