//! `POST /v1/conflicts/bulk` and `/v1/conflicts/bulk/revert`: many decisions of one kind, shown
//! before they are made, and taken back by their common name.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use concord_protocol::DocumentId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Reviewer,
    bulks::Made,
    decide::{Undecided, now_s},
    http::{Desk, document, read_id, read_mark},
    index::Matching,
};
use crate::{
    relay::{api::Problem, hub::Hub},
    review::{
        ConflictId,
        bulk::{BULK_MAX, BulkId, Filter, Preview},
        desk::{Answer, Decision, Question, Wanted},
    },
};

/// What is to be decided, and how.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Many {
    #[serde(default)]
    filter: Filter,
    choice: Wanted,
    reason: Option<String>,
    /// Only show what would become of them.
    #[serde(default)]
    dry_run: bool,
    limit: Option<usize>,
    after: Option<String>,
    /// What it goes on with.
    bulk: Option<BulkId>,
}

/// What is to be taken back.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Back {
    bulk: BulkId,
    reason: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// Decides, or shows what that would be.
pub(super) async fn decide(
    State(desk): State<Desk>,
    many: Result<Json<Many>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(many) = many.map_err(|error| {
        let detail = format!(
            "{}; expected {{\"filter\": {{\"code\": \"value\", \"field\": \"title\"}}, \"choice\": \
             \"latest\"}}, with \"dry_run\": true to see what would be decided; filters are ids, \
             code, document, type, field, author and older_than_s",
            error.body_text()
        );
        Problem::new(error.status(), "not understood", detail)
    })?;
    let Many { mut filter, choice, reason, dry_run, limit, after, bulk } = many;
    filter.document =
        filter.document.map(|name| document(&name)).transpose()?.map(|id| id.to_string());
    let after = after.map(|mark| read_mark(&mark)).transpose()?;
    let limit = limit.unwrap_or(BULK_MAX).clamp(1, BULK_MAX);
    let Matching { conflicts, next } = {
        let state = desk.reviewer.state();
        let now_s = now_s(&desk.hub);
        state.index.matching(&filter, &state.standings, now_s, (after, limit))
    };
    let next = next.map(|(time, id)| format!("{time}.{id}"));
    if dry_run {
        let previews = previews(&desk, &conflicts, &choice).await;
        let refused = previews.iter().filter(|preview| preview.refused.is_some()).count();
        return Ok(Json(json!({
            "dry_run": true,
            "matching": previews.len(),
            "decidable": previews.len() - refused,
            "conflicts": previews,
            "next": next,
        }))
        .into_response());
    }
    let bulk = bulk.map_or_else(new_bulk, Ok)?;
    let (mut decided, mut failed) = (Vec::new(), Vec::new());
    for (id, document) in conflicts {
        let decision = Decision { choice: choice.clone(), reason: reason.clone() };
        match desk.reviewer.decide_in_bulk(&desk.hub, id, decision, bulk).await {
            Ok(done) => decided.push(said(id, &document, "change", &done.change.to_string())),
            Err(error) => failed.push(said(id, &document, "reason", &ending(error)?)),
        }
    }
    let body = json!({ "bulk": bulk, "decided": decided, "failed": failed, "next": next });
    Ok(Json(body).into_response())
}

/// Takes all of it back that stands.
pub(super) async fn revert(
    State(desk): State<Desk>,
    back: Result<Json<Back>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(Back { bulk, reason, limit, after }) = back.map_err(|error| {
        let detail = format!("{}; expected {{\"bulk\": \"its id\"}}", error.body_text());
        Problem::new(error.status(), "not understood", detail)
    })?;
    let after = after.map(|mark| read_made(&mark)).transpose()?;
    let limit = limit.unwrap_or(BULK_MAX).clamp(1, BULK_MAX);
    let found = desk.reviewer.state().bulks.of(bulk, after.as_ref(), limit);
    let (made, is_more) = found.unwrap_or_default();
    if made.is_empty() && after.is_none() {
        let detail = "no decision stands that was made with it, as far as is known yet: GET \
                      /v1/conflicts says how many documents wait to be looked at";
        return Err(Problem::new(StatusCode::NOT_FOUND, "no such bulk", detail));
    }
    let last = made.last().filter(|_| is_more);
    let next = last.map(|(document, id)| format!("{document}.{id}"));
    let reason = reason.unwrap_or_else(|| format!("taken back with all of bulk {bulk}"));
    let (mut reverted, mut failed) = (Vec::new(), Vec::new());
    for (document, id) in made {
        let (hub, why) = (&desk.hub, Some(reason.clone()));
        match desk.reviewer.revert_of_bulk(hub, id, document.clone(), why, bulk).await {
            Ok(done) => reverted.push(said(id, &document, "change", &done.change.to_string())),
            Err(error) => failed.push(said(id, &document, "reason", &ending(error)?)),
        }
    }
    let body = json!({ "bulk": bulk, "reverted": reverted, "failed": failed, "next": next });
    Ok(Json(body).into_response())
}

fn said(id: ConflictId, document: &DocumentId, what: &str, is: &str) -> Value {
    json!({ "id": id, "document": document.as_str(), what: is })
}

/// Why one was not decided; an error if that is why no other can be, either.
fn ending(error: Undecided) -> Result<String, Problem> {
    match error {
        Undecided::Ending | Undecided::NoRandomness(_) => Err(error.into()),
        other => Ok(other.to_string()),
    }
}

fn new_bulk() -> Result<BulkId, Problem> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(Undecided::from)?;
    Ok(BulkId::new(bytes))
}

fn read_made(text: &str) -> Result<Made, Problem> {
    let bad = || Problem::bad("after is what an earlier answer gave as next");
    let (document, id) = text.split_once('.').ok_or_else(bad)?;
    Ok((document.parse().map_err(|_| bad())?, read_id(id)?))
}

/// What would become of each, in the order in which they are given.
async fn previews(
    desk: &Desk,
    conflicts: &[(ConflictId, DocumentId)],
    wanted: &Wanted,
) -> Vec<Preview> {
    let mut by_document: BTreeMap<&DocumentId, Vec<ConflictId>> = BTreeMap::new();
    for (id, document) in conflicts {
        by_document.entry(document).or_default().push(*id);
    }
    let mut found: BTreeMap<ConflictId, Preview> = BTreeMap::new();
    for (document, ids) in by_document {
        let all = of_one(&desk.reviewer, &desk.hub, document, ids, wanted).await;
        found.extend(all.into_iter().map(|preview| (preview.id, preview)));
    }
    conflicts.iter().filter_map(|(id, _)| found.remove(id)).collect()
}

async fn of_one(
    reviewer: &Reviewer,
    hub: &Hub,
    document: &DocumentId,
    conflicts: Vec<ConflictId>,
    wanted: &Wanted,
) -> Vec<Preview> {
    let asked = Question::Preview { conflicts: conflicts.clone(), wanted: wanted.clone() };
    let reason = match reviewer.ask(&hub.shards, document, asked).await {
        Ok(Answer::Previewed(previews)) => return previews,
        Ok(_) => "another question was answered".to_owned(),
        Err(error) => error.to_string(),
    };
    let refused = |id| Preview {
        id,
        document: document.as_str().to_owned(),
        path: None,
        becomes: None,
        refused: Some(reason.clone()),
    };
    conflicts.into_iter().map(refused).collect()
}
