//! `/v1/conflicts`: what is open, listed, shown, decided and watched.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use concord_protocol::{AutomergeUrl, DocumentId, limits::CALL_BODY_BYTES_MAX};
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::{
    Change, NoAnswer, Reviewer, acts, bulk,
    decide::{Decided, Undecided, now_s},
    index::{Filter, Mark},
    standings::Wanted as WantedState,
};
use crate::{
    relay::{
        api::Problem,
        hub::{Health, Hub},
    },
    replica::JobError,
    review::{
        ConflictId,
        desk::{Answer, Decision, Question},
        triage::{Shown, State as Triaged, Triage},
    },
};

/// Conflicts of a page, unless asked for fewer.
const LIMIT_MAX: usize = 500;
const LIMIT: usize = 50;
/// Documents that cannot be looked at and are named in a listing.
const FAILED_MAX: usize = 10;

#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) hub: Arc<Hub>,
    pub(super) reviewer: Arc<Reviewer>,
}

/// What is served below `/v1/conflicts`.
pub(in crate::relay) fn routes(hub: Arc<Hub>, reviewer: Arc<Reviewer>) -> Router {
    let desk = Desk { hub, reviewer };
    Router::new()
        .route("/v1/conflicts", get(list))
        .route("/v1/conflicts/events", get(watch))
        .route("/v1/conflicts/bulk", post(bulk::decide))
        .route("/v1/conflicts/bulk/revert", post(bulk::revert))
        .route("/v1/conflicts/{id}", get(show))
        .route("/v1/conflicts/{id}/resolve", post(resolve))
        .route("/v1/conflicts/{id}/revert", post(revert))
        .route("/v1/conflicts/{id}/{act}", post(acts::act))
        .layer(DefaultBodyLimit::max(CALL_BODY_BYTES_MAX))
        .with_state(desk)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    code: Option<String>,
    document: Option<String>,
    state: Option<String>,
    assignee: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

async fn list(
    State(desk): State<Desk>,
    listing: Result<Query<Listing>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(listing) = listing.map_err(|error| Problem::bad(error.body_text()))?;
    let document = listing.document.map(|name| document(&name)).transpose()?;
    let after = listing.after.map(|mark| read_mark(&mark)).transpose()?;
    let limit = listing.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
    let wanted =
        listing.state.map_or(Some(WantedState::default()), |state| WantedState::parse(&state));
    let wanted = wanted.ok_or_else(|| {
        Problem::bad("state is pending, all, open, claimed, snoozed or dismissed")
    })?;
    let (code, assignee, now_s) = (listing.code, listing.assignee, now_s(&desk.hub));
    let filter = Filter { code, document, state: wanted, assignee, now_s };
    let state = desk.reviewer.state();
    let page = state.index.list(&filter, &state.standings, after, limit);
    let states = state.standings.count(&state.index, now_s);
    let dismissed = states.get(&Triaged::Dismissed).copied().unwrap_or_default();
    let (open, unlisted) = (state.index.count() - dismissed, state.index.unlisted());
    let failed: Vec<Value> = (state.index.failures(FAILED_MAX).into_iter())
        .map(|(document, reason)| json!({ "document": document.as_str(), "reason": reason }))
        .collect();
    let (waiting, is_complete) = (state.queue.len(), state.is_swept);
    drop(state);
    let rest = json!({
        "next": page.next.map(|(time, id)| format!("{time}.{id}")),
        "open": open,
        "states": states,
        "unlisted": unlisted,
        "waiting": waiting,
        "complete": is_complete && waiting == 0,
        "failed": failed,
    });
    // What is listed is JSON already.
    let body = format!("{{\"conflicts\":[{}],{}", page.conflicts.join(","), &rest.to_string()[1..]);
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

pub(super) fn document(name: &str) -> Result<DocumentId, Problem> {
    match name.parse() {
        Ok(AutomergeUrl(id)) => Ok(id),
        Err(error) => Err(Problem::bad(format!("document: {error}"))),
    }
}

pub(super) fn read_mark(text: &str) -> Result<Mark, Problem> {
    let mark =
        text.split_once('.').and_then(|(time, id)| Some((time.parse().ok()?, id.parse().ok()?)));
    mark.ok_or_else(|| Problem::bad("after is what an earlier page gave as next"))
}

pub(super) fn read_id(text: &str) -> Result<ConflictId, Problem> {
    text.parse().map_err(Problem::bad)
}

async fn show(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = read_id(&id)?;
    let apart = desk.reviewer.state().apart(&id);
    let (view, likeness) = if let Some(apart) = apart {
        (apart.view, None)
    } else {
        let found = desk.reviewer.state().index.find(&id);
        let (document, _) = found.ok_or(Undecided::Unknown)?;
        let asking = desk.reviewer.ask(&desk.hub.shards, &document, Question::Show(id));
        match asking.await.map_err(Undecided::from)? {
            Answer::Shown { view, likeness } => (*view, likeness),
            _ => return Err(Undecided::NotOpen(None).into()),
        }
    };
    // What it is about is shown, also where it is not known who looks after it.
    let triage = desk.reviewer.triage(&desk.hub.shards, id).await.unwrap_or_else(|error| {
        tracing::warn!(%id, %error, "cannot read who looks after a conflict");
        Triage::default()
    });
    let mut shown = Shown::of(view, triage, now_s(&desk.hub));
    shown.suggestion = likeness.and_then(|like| desk.reviewer.state().past.suggest(&like));
    Ok(([(header::ETAG, format!("\"{id}\""))], Json(shown)).into_response())
}

async fn resolve(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    headers: HeaderMap,
    decision: Result<Json<Decision>, JsonRejection>,
) -> Result<Response, Problem> {
    let id = read_id(&id)?;
    let Json(decision) = decision.map_err(|error| {
        Problem::new(error.status(), "not understood", format!(
            "{}; expected {{\"choice\": {{\"side\": 1}}}}, or {{\"value\": ...}}, \"before\", \"now\" \
             or \"delete\" as the choice, and a \"reason\" if there is one",
            error.body_text()
        ))
    })?;
    // The name of a conflict says what its sides are: whoever saw other sides saw another one.
    if let Some(seen) = headers.get(header::IF_MATCH)
        && *seen != format!("\"{id}\"")
        && seen != "*"
    {
        return Err(Undecided::NotOpen(None).into());
    }
    let decided = desk.reviewer.decide(&desk.hub, id, decision).await?;
    Ok(Json(to_json(id, &decided)).into_response())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reverting {
    reason: Option<String>,
}

/// Takes a decision back: what was shown before is there again.
async fn revert(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    why: Result<Json<Reverting>, JsonRejection>,
) -> Result<Response, Problem> {
    let id = read_id(&id)?;
    let Json(Reverting { reason }) = match why {
        // Nobody has to say why.
        Err(JsonRejection::MissingJsonContentType(_)) => Json::default(),
        why => {
            why.map_err(|error| Problem::new(error.status(), "not understood", error.body_text()))?
        }
    };
    let reverted = desk.reviewer.revert(&desk.hub, id, reason).await?;
    Ok(Json(to_json(id, &reverted)).into_response())
}

/// What was decided: the first change by itself too, for of most conflicts there is one.
fn to_json(id: ConflictId, decided: &[Decided]) -> Value {
    let change = |decided: &Decided| json!({ "document": decided.document.as_str(), "change": decided.change.to_string() });
    let changes: Vec<Value> = decided.iter().map(change).collect();
    let mut said = changes.first().cloned().unwrap_or_else(|| json!({}));
    said["resolved"] = json!(id);
    said["durable"] = json!(true);
    said["changes"] = Value::Array(changes);
    said
}

impl From<Undecided> for Problem {
    fn from(why: Undecided) -> Self {
        let detail = why.to_string();
        match why {
            Undecided::Unknown => Self::new(
                StatusCode::NOT_FOUND,
                "no such conflict",
                format!("{detail}: GET /v1/conflicts lists what is open"),
            ),
            Undecided::NotOpen(successor) => {
                let advice = match successor {
                    Some(next) => format!("{detail}: look at {next}, which took its place"),
                    None => format!("{detail}: somebody decided it, or more was written there"),
                };
                let mut problem = Self::new(StatusCode::CONFLICT, "not open", advice);
                problem.more = Some(("successor", json!(successor)));
                problem
            }
            Undecided::Held(_) => Self::new(StatusCode::CONFLICT, "claimed already", detail),
            Undecided::Refused(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "cannot be decided so", detail)
            }
            Undecided::NoAnswer(
                NoAnswer::Job(JobError::Unavailable(_)) | NoAnswer::Unreadable(_),
            )
            | Undecided::Ending
            | Undecided::NoRandomness(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "not now", detail)
            }
            Undecided::NoAnswer(_) | Undecided::NotStored(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", detail)
            }
        }
    }
}

/// What is opened and closed from now on, as server-sent events, until the relay ends.
async fn watch(State(desk): State<Desk>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (told, health) = (desk.reviewer.told.subscribe(), desk.hub.watch_health());
    let events = stream::unfold((told, health), |(mut told, mut health)| async move {
        let next = tokio::select! {
            next = told.recv() => next,
            _ = health.wait_for(|health| *health != Health::Ready) => return None,
        };
        let event = match next {
            Ok(change) => {
                let name = match &*change {
                    Change::Opened { .. } => "opened",
                    Change::Closed { .. } => "closed",
                    Change::Triaged { .. } => "triaged",
                };
                Event::default().event(name).json_data(&*change).unwrap_or_default()
            }
            // Whoever reads too slowly is told to list again.
            Err(RecvError::Lagged(missed)) => {
                Event::default().event("missed").data(missed.to_string())
            }
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(event), (told, health)))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}
