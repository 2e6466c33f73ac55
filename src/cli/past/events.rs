//! `concord doc events`: what happened to a document, for people and for programs that follow it.

use concord::{
    entity::Schema,
    history::{Event, Events, Order},
    json as paths,
    peer::Document,
};
use concord_protocol::ChangeHash;
use serde_json::{Value as Json, json};

use super::{
    super::{Failure, open::Common, output},
    heads,
    words::{by, name},
};

/// Characters of an event's name, of what was there, and of what a change was for, that are shown.
const EVENT: usize = 40;
const VALUE: usize = 24;
const MESSAGE: usize = 32;

pub(super) fn run(
    document: &Document,
    common: &Common,
    schema: Option<&Schema>,
    since: Option<&str>,
    limit: usize,
) -> Result<(), Failure> {
    let since = since.map(|since| heads(document, since)).transpose()?.unwrap_or_default();
    let Events { events, cursor } = document.events(schema, &since, limit)?;
    let more = !document.history(&cursor, Order::OldestFirst, 1)?.is_empty();
    if common.json {
        return output::json(&json!({
            "document": document.id().as_str(),
            "events": events,
            "cursor": said(&cursor),
            "more": more,
        }));
    }
    if events.is_empty() {
        output::line("nothing happened")?;
    } else {
        let rows: Vec<_> = events.iter().map(row).collect();
        output::table(&["EVENT", "WHAT", "WHEN", "BY", "CHANGE", "WHAT FOR"], &rows)?;
    }
    let later = if more { "there is more: " } else { "" };
    output::line(format_args!("{later}go on with --since {}", said(&cursor)))
}

/// A cursor as `--since` takes it.
fn said(cursor: &[ChangeHash]) -> String {
    if cursor.is_empty() {
        return "start".to_owned();
    }
    cursor.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn row(event: &Event) -> Vec<String> {
    let cause = &event.cause;
    vec![
        output::short(&event.name, EVENT),
        what(event),
        output::when(cause.time_s),
        by(cause),
        name(cause.change),
        output::short(cause.message.as_deref().unwrap_or_default(), MESSAGE),
    ]
}

/// What was there and what is there now; where, if that is inside the field.
fn what(event: &Event) -> String {
    let value =
        |value: &Option<Json>| value.as_ref().map(|value| output::short(&value.to_string(), VALUE));
    let values = match (value(&event.before), value(&event.after)) {
        (Some(before), Some(after)) => format!("{before} -> {after}"),
        (None, Some(after)) => after,
        (Some(before), None) => format!("was {before}"),
        (None, None) => String::new(),
    };
    match event.path.as_slice() {
        [] | [_] => values,
        path => format!("{}: {values}", output::short(&paths::path(path.iter()), VALUE)),
    }
}
