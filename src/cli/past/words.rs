//! A history in words: rows of tables, and differences, each on one line.

use std::sync::Arc;

use automerge::Prop;
use concord::{
    history::{self, Blame, Difference, Entry, Shown, Stamp, What},
    json as paths,
    peer::Document,
};
use concord_protocol::ChangeHash;
use serde_json::{Value as Json, json};

use super::{super::output, Failure, past};

/// Characters of a change's name that people are shown.
const NAME_SHOWN: usize = 8;
/// Characters of an author that are shown.
const BY_SHOWN: usize = 20;
/// Characters of what is last in a row of the log, so that a row has up to a hundred.
const MESSAGE: usize = 44;
/// Characters of a path and of a value in a row of blame, likewise.
const WHERE: usize = 20;
const WHAT: usize = 28;
/// Characters of a value that are shown where there are two in a line.
const SHORT: usize = 32;
/// Characters of a value that are shown where there is one in a line.
const LONG: usize = 64;
/// Unchanged characters between two edits of a text that are shown as part of one.
const BETWEEN: usize = 4;

pub(super) fn row(entry: &Entry) -> Vec<String> {
    let Entry { stamp, operations, is_behind, .. } = entry;
    let behind = if *is_behind { "(its clock was behind) " } else { "" };
    let message = stamp.message.as_deref().unwrap_or_default();
    let message = output::short(message, MESSAGE - behind.len());
    vec![
        name(stamp.change),
        output::when(stamp.time_s),
        by(stamp),
        operations.to_string(),
        format!("{behind}{message}"),
    ]
}

/// What people want to see of who wrote a text: what one of them typed in a row, often a change for
/// each letter, as one, with the last of the changes; and not who began it, where somebody wrote.
pub(super) fn by_people(found: Vec<Blame>) -> Vec<Blame> {
    let mut out: Vec<Blame> = Vec::with_capacity(found.len());
    for blame in found {
        match (&blame.shown, out.last_mut()) {
            (
                Shown::Run { text, .. },
                Some(Blame { path, shown: Shown::Run { text: all, .. }, by }),
            ) if *path == blame.path && is_same_person(by.as_deref(), blame.by.as_deref()) => {
                all.push_str(text);
                let time = |by: &Option<Arc<Stamp>>| by.as_ref().map(|by| by.time_s);
                if time(&blame.by) > time(by) {
                    *by = blame.by;
                }
            }
            (Shown::Run { .. }, Some(last)) if last.shown == Shown::Text => *last = blame,
            _ => out.push(blame),
        }
    }
    out
}

fn is_same_person(one: Option<&Stamp>, other: Option<&Stamp>) -> bool {
    one.map(|stamp| (&stamp.author, stamp.name())) == other.map(|it| (&it.author, it.name()))
}

pub(super) fn blamed(blame: &Blame) -> Vec<String> {
    let path = output::short(&paths::path(blame.path.iter()), WHERE);
    let (place, what) = match &blame.shown {
        Shown::Value { value } => (path, output::short(&value.to_string(), WHAT)),
        Shown::Counter { value } => (path, format!("{value} (counted)")),
        Shown::Map => (path, "made this map".to_owned()),
        Shown::List => (path, "made this list".to_owned()),
        Shown::Text => (path, "made this text".to_owned()),
        Shown::Run { start, text } => {
            (format!("{path} @{start}"), output::short(&json!(text).to_string(), WHAT))
        }
    };
    match &blame.by {
        Some(stamp) => vec![name(stamp.change), output::when(stamp.time_s), by(stamp), place, what],
        None => vec![String::new(), String::new(), String::new(), place, what],
    }
}

pub(super) fn name(change: ChangeHash) -> String {
    change.to_string().chars().take(NAME_SHOWN).collect()
}

/// The author, else as much of the writer as tells writers apart.
pub(super) fn by(stamp: &Stamp) -> String {
    match &stamp.author {
        Some(author) => output::short(author, BY_SHOWN),
        None => stamp.actor.chars().take(NAME_SHOWN).collect(),
    }
}

/// Edits of a text that are next to each other as one, so that words are read as words.
pub(super) fn readable(
    document: &Document,
    after: &[ChangeHash],
    found: Vec<Difference>,
) -> Result<Vec<Difference>, Failure> {
    let mut out: Vec<Difference> = Vec::with_capacity(found.len());
    let mut text: (Vec<Prop>, Vec<char>) = Default::default();
    for difference in found {
        let Difference { path, what } = &difference;
        if let (
            What::Splice { index, removed, inserted },
            Some(Difference {
                path: last_path,
                what: What::Splice { index: at, removed: last_removed, inserted: last_inserted },
            }),
        ) = (what, out.last_mut())
            && path == last_path
        {
            let end = *at + last_inserted.chars().count();
            if *index >= end && index - end <= BETWEEN {
                if text.0 != *path {
                    let json = document.read(|doc| history::json_at(doc, after, path))?;
                    let chars = json.map_err(past)?.as_str().unwrap_or_default().chars().collect();
                    text = (path.clone(), chars);
                }
                // All before an edit is as it is after all of them.
                let between: String = text.1.iter().skip(end).take(index - end).collect();
                for (all, this) in [(last_removed, removed), (last_inserted, inserted)] {
                    all.push_str(&between);
                    all.push_str(this);
                }
                continue;
            }
        }
        out.push(difference);
    }
    Ok(out)
}

/// A difference on one line.
pub(in crate::cli) fn in_words(difference: &Difference) -> String {
    let Difference { path, what } = difference;
    let at = if path.is_empty() { "(all)".to_owned() } else { paths::path(path.iter()) };
    let at = output::short(&at, LONG);
    let value = |value: &Json, max| output::short(&value.to_string(), max);
    match what {
        What::Put { before: Some(before), after } => {
            format!("{at}: {} -> {}", value(before, SHORT), value(after, SHORT))
        }
        What::Put { before: None, after } => format!("{at}: added {}", value(after, LONG)),
        What::Delete { before } => {
            format!("{at}: removed {}", value(before.as_ref().unwrap_or(&Json::Null), LONG))
        }
        What::Insert { values } => format!("{at}: added {}", several(values)),
        What::Remove { values } => format!("{at}: removed {}", several(values)),
        What::Splice { index, removed, inserted } => {
            let (removed, inserted) = (json!(removed), json!(inserted));
            match (removed == "", inserted == "") {
                (true, _) => format!("{at} @{index}: added {}", value(&inserted, LONG)),
                (_, true) => format!("{at} @{index}: removed {}", value(&removed, LONG)),
                _ => {
                    format!(
                        "{at} @{index}: {} -> {}",
                        value(&removed, SHORT),
                        value(&inserted, SHORT)
                    )
                }
            }
        }
        What::Increment { by } => format!("{at}: {by:+}"),
        What::Conflict => format!("{at}: another value was written at the same time"),
        What::Mark { name, value: mark, start, end } => {
            format!("{at} @{start} to {end}: {} {}", output::short(name, SHORT), value(mark, SHORT))
        }
    }
}

fn several(values: &[Json]) -> String {
    let shown: Vec<String> = values.iter().take(8).map(ToString::to_string).collect();
    output::short(&shown.join(", "), LONG)
}
