//! `concord query --live`: the page, then a line for each thing that becomes different in it.

use concord::{
    entity::{EntityType, Field},
    peer::{LiveEvent, Peer, Query, Row},
};
use serde_json::{Value as Json, json};

use super::{super::open::Common, Failure, SHOWN, behind_json, output, row_json, show, shown};

pub(super) async fn follow(
    peer: &Peer,
    common: &Common,
    query: Query,
    of: &EntityType,
    events: Option<usize>,
) -> Result<(), Failure> {
    let mut live = peer.live(query.clone());
    let mut names: Vec<String> = Vec::new();
    let mut left = events;
    loop {
        let event = live.next().await?;
        if let LiveEvent::Page(page) = &event {
            names = page.rows.iter().map(|row| row.name().to_owned()).collect();
            if !common.json {
                show(peer, common, &query, Some(of), page)?;
            }
        }
        if common.json {
            output::json(&as_json(&event))?;
        } else if let Some(line) = in_words(peer, &event, of, &names) {
            output::line(output::short(&line, output::width().unwrap_or(usize::MAX)))?;
        }
        let is_page = matches!(event, LiveEvent::Page(_));
        follow_names(&mut names, event);
        if !is_page {
            left = left.map(|left| left.saturating_sub(1));
        }
        if left == Some(0) {
            return Ok(());
        }
    }
}

fn as_json(event: &LiveEvent) -> Json {
    match event {
        LiveEvent::Page(page) => json!({
            "event": "page",
            "rows": page.rows.iter().map(row_json).collect::<Vec<_>>(),
            "next": page.next.as_ref().map(ToString::to_string),
            "behind": behind_json(page.behind),
        }),
        LiveEvent::Removed { at, document } => {
            json!({ "event": "removed", "at": at, "document": document.as_str() })
        }
        LiveEvent::Added { at, row } => json!({ "event": "added", "at": at, "row": row_json(row) }),
        LiveEvent::Moved { from, to, row } => {
            json!({ "event": "moved", "from": from, "to": to, "row": row_json(row) })
        }
        LiveEvent::Changed { at, row } => {
            json!({ "event": "changed", "at": at, "row": row_json(row) })
        }
        // Later versions may tell more.
        _ => json!({ "event": "other" }),
    }
}

fn in_words(peer: &Peer, event: &LiveEvent, of: &EntityType, names: &[String]) -> Option<String> {
    let values = |row: &Row| {
        let value = |(name, field): (&String, &Field)| {
            let value = shown(peer, Some(&field.kind), row.values.get(name)?);
            Some(format!("  {name}: {}", output::short(&value, SHOWN)))
        };
        of.fields.iter().filter_map(value).collect::<String>()
    };
    Some(match event {
        LiveEvent::Removed { at, .. } => format!("- {}", names.get(*at)?),
        LiveEvent::Added { row, .. } => format!("+ {}{}", row.name(), values(row)),
        LiveEvent::Moved { from, to, row } => {
            let way = if to < from { "↑" } else { "↓" };
            format!("{way} {}{}", row.name(), values(row))
        }
        LiveEvent::Changed { row, .. } => format!("~ {}{}", row.name(), values(row)),
        _ => return None,
    })
}

fn follow_names(names: &mut Vec<String>, event: LiveEvent) {
    match event {
        LiveEvent::Removed { at, .. } if at < names.len() => drop(names.remove(at)),
        LiveEvent::Added { at, row } => names.insert(at.min(names.len()), row.name().to_owned()),
        LiveEvent::Moved { from, to, row } if from < names.len() => {
            names.remove(from);
            names.insert(to.min(names.len()), row.name().to_owned());
        }
        _ => {}
    }
}
