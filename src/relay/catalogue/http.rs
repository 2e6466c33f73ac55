//! `/v1/catalogue`: which documents changed, listed in pages and told as they change.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use super::{
    Catalogue,
    feed::{Cursor, Listed, Listing},
    table::Standing,
};
use crate::{
    entity::limits::NAME_BYTES_MAX,
    relay::{
        api::Problem,
        hub::{Health, Hub},
    },
};

/// Documents of a page, unless asked for fewer; one takes about 110 bytes.
const LIMIT_MAX: usize = 1_000;
const LIMIT: usize = 100;
/// How long changes gather before they are told, so that a busy relay tells many at once.
const GATHER: Duration = Duration::from_millis(50);

#[derive(Debug, Clone)]
struct Desk {
    hub: Arc<Hub>,
    catalogue: Arc<Catalogue>,
}

/// What is served below `/v1/catalogue`.
pub(in crate::relay) fn routes(hub: Arc<Hub>, catalogue: Arc<Catalogue>) -> Router {
    Router::new()
        .route("/v1/catalogue", get(list))
        .route("/v1/catalogue/types", get(types))
        .route("/v1/catalogue/events", get(watch))
        .with_state(Desk { hub, catalogue })
}

/// What is asked for, as it stands in the query of the path.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Only of this type; of none, if it is empty.
    #[serde(rename = "type")]
    of: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// The same, checked.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    of: Option<String>,
    after: Option<Cursor>,
    limit: usize,
}

impl Wanted {
    fn read(asked: Result<Query<Asked>, QueryRejection>) -> Result<Self, Problem> {
        let Query(asked) = asked.map_err(|error| Problem::bad(error.body_text()))?;
        if asked.of.as_ref().is_some_and(|of| of.len() > NAME_BYTES_MAX) {
            return Err(Problem::bad("type: longer than any name of a type"));
        }
        let read = |text: String| {
            text.parse().map_err(|()| Problem::bad("after is what an earlier page gave as cursor"))
        };
        let after = asked.after.map(read).transpose()?;
        let limit = asked.limit.unwrap_or(LIMIT).clamp(1, LIMIT_MAX);
        Ok(Self { of: asked.of, after, limit })
    }
}

async fn list(
    State(desk): State<Desk>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let Wanted { of, after, limit } = Wanted::read(asked)?;
    let feed = desk.catalogue.ready().ok_or_else(not_yet)?;
    let listing = feed.list(of.as_deref(), after, limit);
    drop(feed);
    let mut page = page(&listing);
    if let Some(of) = of.filter(|of| !of.is_empty()) {
        // Nothing of a type that nobody declared is not the same as nothing there.
        page["declared"] = json!(desk.catalogue.types.declares(&of));
    }
    Ok(Json(page).into_response())
}

/// The types of which there are documents, with how many there are of each.
async fn types(State(desk): State<Desk>) -> Result<Response, Problem> {
    let feed = desk.catalogue.ready().ok_or_else(not_yet)?;
    let (types, is_complete) = (feed.types(), feed.is_complete());
    drop(feed);
    let types =
        types.iter().map(|(name, count)| json!({ "type": name_of(name), "documents": count }));
    let types: Vec<Value> = types.collect();
    Ok(Json(json!({ "types": types, "complete": is_complete })).into_response())
}

fn not_yet() -> Problem {
    let advice = "the catalogue is being read from disk: ask again in a second";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not yet", advice)
}

fn name_of(type_name: &str) -> Option<&str> {
    Some(type_name).filter(|name| !name.is_empty())
}

pub(super) fn page(listing: &Listing) -> Value {
    json!({
        "documents": listing.documents.iter().map(document).collect::<Vec<_>>(),
        "cursor": listing.cursor.to_string(),
        "has_more": listing.has_more,
        "reset": listing.reset,
        "total": listing.total,
        "complete": listing.is_complete,
    })
}

fn document(listed: &Listed) -> Value {
    let mut said = json!({
        "document": listed.document.as_str(),
        "type": name_of(&listed.type_name),
    });
    if listed.heads != 0 {
        said["version"] = json!(format!("{:016x}", listed.heads));
    }
    match listed.standing {
        Standing::Live => {}
        Standing::Deleted => said["deleted"] = json!(true),
        Standing::Purged => said["purged"] = json!(true),
    }
    said
}

/// What is told next.
struct Telling {
    desk: Desk,
    of: Option<String>,
    after: Option<Cursor>,
    limit: usize,
    changes: watch::Receiver<u64>,
    health: watch::Receiver<Health>,
    is_first: bool,
}

/// What changed since a cursor (without one: from now on) in pages, then what changes, as
/// server-sent events until the relay ends. Nothing is missed, however slowly somebody reads: what
/// is told next is what changed since.
async fn watch(
    State(desk): State<Desk>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Problem> {
    let Wanted { of, after, limit } = Wanted::read(asked)?;
    let feed = desk.catalogue.ready().ok_or_else(not_yet)?;
    let after = Some(after.unwrap_or(feed.end()));
    drop(feed);
    let (changes, health) = (desk.catalogue.changes.subscribe(), desk.hub.watch_health());
    let telling = Telling { desk, of, after, limit, changes, health, is_first: true };
    let events = stream::unfold(telling, |mut telling| async move {
        let event = telling.next().await?;
        Some((Ok::<_, Infallible>(event), telling))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

impl Telling {
    async fn next(&mut self) -> Option<Event> {
        loop {
            // Before it is looked at: what changes meanwhile is looked at once more.
            self.changes.mark_unchanged();
            let listing =
                self.desk.catalogue.feed().list(self.of.as_deref(), self.after, self.limit);
            let has_news = !listing.documents.is_empty() || listing.reset;
            self.after = Some(listing.cursor);
            // The first says where it begins, and one with nothing in it that all was told.
            if has_news || self.is_first {
                self.is_first = false;
                return Some(
                    Event::default().event("page").json_data(page(&listing)).unwrap_or_default(),
                );
            }
            if listing.has_more {
                continue;
            }
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                _ = self.health.wait_for(|health| *health != Health::Ready) => return None,
            }
            sleep(GATHER).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;
    use quickcheck::quickcheck;

    use super::*;

    fn read(query: &str) -> Result<Wanted, StatusCode> {
        let uri: Uri =
            format!("/v1/catalogue?{query}").parse().map_err(|_| StatusCode::IM_A_TEAPOT)?;
        Wanted::read(Query::try_from_uri(&uri)).map_err(|problem| problem.status())
    }

    #[test]
    fn what_is_asked_for_is_read_and_what_is_not_understood_is_said_so() {
        let wanted =
            |of: Option<&str>, limit| Wanted { of: of.map(str::to_owned), after: None, limit };
        assert_eq!(read(""), Ok(wanted(None, LIMIT)));
        assert_eq!(read("type=task&limit=7"), Ok(wanted(Some("task"), 7)));
        assert_eq!(read("type=&limit=0"), Ok(wanted(Some(""), 1)));
        assert_eq!(read("limit=99999999"), Ok(wanted(None, LIMIT_MAX)));
        let cursor = read("after=00000000000000ff.12").unwrap().after.unwrap();
        assert_eq!(cursor.to_string(), "00000000000000ff.12");
        let long = format!("type={}", "x".repeat(NAME_BYTES_MAX + 1));
        for wrong in ["limit=-1", "limit=x", "typo=task", "after=", "after=1.2", &long] {
            assert_eq!(read(wrong), Err(StatusCode::BAD_REQUEST), "{wrong}");
        }
        for cursor in
            ["00000000000000ff", "00000000000000ff.", "00000000000000ff.+1", "+0000000000000ff.1"]
        {
            let asked = format!("after={cursor}").replace('+', "%2B");
            assert_eq!(read(&asked), Err(StatusCode::BAD_REQUEST), "{cursor}");
        }
    }

    quickcheck! {
        fn whatever_is_asked_is_read_or_refused(bytes: Vec<u8>, key: u8) -> bool {
            let key = ["type", "after", "limit", ""][usize::from(key % 4)];
            // As text that a path may have, and as it comes.
            let escaped = bytes.iter().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"));
            let plain = String::from_utf8_lossy(&bytes).into_owned();
            [escaped, plain].iter().all(|text| match read(&format!("{key}={text}")) {
                Ok(wanted) => {
                    let of = wanted.of.is_none_or(|of| of.len() <= NAME_BYTES_MAX);
                    of && (1..=LIMIT_MAX).contains(&wanted.limit)
                }
                Err(status) => status == StatusCode::BAD_REQUEST || status == StatusCode::IM_A_TEAPOT,
            })
        }

        fn a_cursor_is_read_back(run: u64, number: u64) -> bool {
            let text = format!("{run:016x}.{number}");
            text.parse::<Cursor>().is_ok_and(|cursor| cursor.to_string() == text)
        }
    }
}
