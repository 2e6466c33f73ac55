//! `POST /v1/conflicts/{id}/claim | release | assign | comment | snooze | dismiss | reopen`: what is
//! done about a conflict without deciding it.

use axum::{
    Json,
    extract::{Path, State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    decide::now_s,
    http::{Desk, read_id},
};
use crate::{relay::api::Problem, review::triage::Act};

/// What is sent: who does it, and what belongs to the act.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    who: String,
    take: Option<bool>,
    to: Option<String>,
    text: Option<String>,
    until: Option<i64>,
    why: Option<String>,
}

/// Does it.
pub(super) async fn act(
    State(desk): State<Desk>,
    Path((id, name)): Path<(String, String)>,
    said: Result<Json<serde_json::Value>, JsonRejection>,
) -> Result<Response, Problem> {
    let expected = expected(&name).ok_or_else(|| {
        let advice = "a conflict can be resolved, reverted, claimed, released, assigned, commented \
                      on, snoozed, dismissed and reopened: POST to resolve, revert, claim, ...";
        Problem::new(StatusCode::NOT_FOUND, "not known", advice)
    })?;
    let id = read_id(&id)?;
    let refuse = |status, detail: String| {
        Problem::new(status, "not understood", format!("{detail}; expected {expected}"))
    };
    let Json(said) = said.map_err(|error| refuse(error.status(), error.body_text()))?;
    let of_other = |detail: String| refuse(StatusCode::UNPROCESSABLE_ENTITY, detail);
    let said: Said = serde_json::from_value(said).map_err(|error| of_other(error.to_string()))?;
    let (who, act) = read(&name, said).ok_or_else(|| of_other("too much or too little".into()))?;
    let done = desk.reviewer.act(&desk.hub, id, act, who).await?;
    let body = json!({
        "id": id,
        "state": done.triage.state(now_s(&desk.hub)),
        "triage": done.triage,
        "change": done.change.map(|change| change.to_string()),
        "durable": true,
    });
    Ok(Json(body).into_response())
}

/// What is to be sent; `None` if nothing is called so.
fn expected(name: &str) -> Option<&'static str> {
    Some(match name {
        "claim" => r#"{"who": "ann@example.org"}, and "take": true to take it over"#,
        "release" | "reopen" => r#"{"who": "ann@example.org"}"#,
        "assign" => r#"{"who": "ann@example.org", "to": "ben@example.org"}; without "to": nobody"#,
        "comment" => r#"{"who": "ann@example.org", "text": "which one?"}"#,
        "snooze" => r#"{"who": "ann@example.org", "until": 1795300000}, in seconds since 1970"#,
        "dismiss" => r#"{"who": "ann@example.org"}, and a "why" if there is one"#,
        _ => return None,
    })
}

/// Who does what; `None` if something is missing or does not belong to it.
fn read(name: &str, said: Said) -> Option<(String, Act)> {
    let Said { who, take, to, text, until, why } = said;
    let act = match (name, take, to, text, until, why) {
        ("claim", take, None, None, None, None) => Act::Claim { take: take.unwrap_or_default() },
        ("release", None, None, None, None, None) => Act::Release,
        ("assign", None, to, None, None, None) => Act::Assign(to),
        ("comment", None, None, Some(text), None, None) => Act::Comment(text),
        ("snooze", None, None, None, Some(until), None) => Act::Snooze(until),
        ("dismiss", None, None, None, None, why) => Act::Dismiss(why),
        ("reopen", None, None, None, None, None) => Act::Reopen,
        _ => return None,
    };
    Some((who, act))
}
