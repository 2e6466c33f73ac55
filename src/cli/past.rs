//! `concord doc log | at | diff | blame | restore`: the history of a document.

use std::sync::Arc;

use automerge::{Automerge, Prop};
use clap::Subcommand;
use concord::{
    history::{self, Blame, Difference, Entry, Order, Shown, Stamp, What},
    json as paths,
    peer::{Document, Peer},
};
use concord_protocol::ChangeHash;
use serde_json::{Value as Json, json};

use super::{Failure, open::Common, output, path::DocPath, sync, waiting};

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

#[derive(Debug, Subcommand)]
pub(super) enum PastCommand {
    /// List the changes of a document: who, when, and what for
    Log {
        /// The document's id or automerge: URL
        doc: String,
        /// Only what came after this state
        #[arg(long, value_name = "STATE")]
        after: Option<String>,
        /// At most so many changes
        #[arg(short = 'n', long, default_value_t = 50, value_name = "NUMBER")]
        limit: usize,
        /// The oldest first
        #[arg(long)]
        oldest: bool,
        /// First check every change against its hash, and that none is missing
        #[arg(long)]
        verify: bool,
    },
    /// Show a document, or a part of it, as it was
    #[command(after_help = STATES)]
    At {
        /// The document's id or automerge: URL
        doc: String,
        /// The state: a change, or a time (see below)
        state: String,
        /// What in it, as in items[0].title
        #[arg(default_value = "")]
        path: DocPath,
    },
    /// Show what is different between two states of a document
    #[command(after_help = STATES)]
    Diff {
        /// The document's id or automerge: URL
        doc: String,
        /// The state before
        before: String,
        /// The state after
        #[arg(default_value = "now")]
        after: String,
        /// Only what is in this part, as in items[0]
        #[arg(long, default_value = "", hide_default_value = true)]
        path: DocPath,
    },
    /// Show who wrote what a document says
    Blame {
        /// The document's id or automerge: URL
        doc: String,
        /// What in it, as in items[0].title
        #[arg(default_value = "")]
        path: DocPath,
    },
    /// Make a document, or a part of it, say again what it said, as one more change
    #[command(after_help = STATES)]
    Restore {
        /// The document's id or automerge: URL
        doc: String,
        /// The state to restore
        state: String,
        /// What in it, as in items[0].title
        #[arg(default_value = "")]
        path: DocPath,
        /// What the change is for, kept with it
        #[arg(short, long)]
        message: Option<String>,
    },
}

/// How states are named.
const STATES: &str = "\
A state is named by
  1a2b3c4d             a change, with all that it builds on: as much of its hash as is needed
  1a2b3c4d^            what a change builds on, without it
  1a2b3c4d,99aabbcc    several changes
  '2026-11-21 18:30'   what was there at the end of that minute or day, by the writers' clocks
  now, start           the document as it is; the empty document";

pub(super) async fn run(peer: &Peer, common: &Common, command: PastCommand) -> Result<(), Failure> {
    match command {
        PastCommand::Log { doc, after, limit, oldest, verify } => {
            let document = waiting::find(peer, common, &doc).await?;
            log(&document, common, after.as_deref(), limit, oldest, verify)
        }
        PastCommand::At { doc, state, path } => {
            let document = waiting::find(peer, common, &doc).await?;
            let heads = heads(&document, &state)?;
            let json = document.read(|doc| history::json_at(doc, &heads, path.steps()))?;
            let json = json.map_err(past)?;
            if common.json { output::json(&json) } else { output::line(format_args!("{json:#}")) }
        }
        PastCommand::Diff { doc, before, after, path } => {
            let document = waiting::find(peer, common, &doc).await?;
            let (before, after) = (heads(&document, &before)?, heads(&document, &after)?);
            let mut found = document.diff(&before, &after)?;
            found.retain(|difference| difference.path.starts_with(path.steps()));
            if common.json {
                return output::json(&json!(found));
            }
            if found.is_empty() {
                return output::line("nothing is different");
            }
            let found = readable(&document, &after, found)?;
            found.iter().try_for_each(|difference| output::line(in_words(difference)))
        }
        PastCommand::Blame { doc, path } => {
            let document = waiting::find(peer, common, &doc).await?;
            let found = document.blame(path.steps())?;
            if common.json {
                return output::json(&json!(found));
            }
            if found.is_empty() {
                return output::line("nothing is in the document");
            }
            let rows: Vec<_> = by_people(found).iter().map(blamed).collect();
            output::table(&["CHANGE", "WHEN", "BY", "WHERE", "WHAT"], &rows)
        }
        PastCommand::Restore { doc, state, path, message } => {
            let document = waiting::find(peer, common, &doc).await?;
            restore(peer, common, &document, &state, &path, message.as_deref()).await
        }
    }
}

fn log(
    document: &Document,
    common: &Common,
    after: Option<&str>,
    limit: usize,
    oldest: bool,
    verify: bool,
) -> Result<(), Failure> {
    if verify {
        document.verify()?;
    }
    let after = after.map(|after| heads(document, after)).transpose()?.unwrap_or_default();
    let order = if oldest { Order::OldestFirst } else { Order::NewestFirst };
    // One more, to say whether there are more.
    let mut entries = document.history(&after, order, limit.saturating_add(1))?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    if common.json {
        return output::json(&json!(entries));
    }
    if entries.is_empty() {
        return output::line("no changes");
    }
    let rows: Vec<_> = entries.iter().map(row).collect();
    output::table(&["CHANGE", "WHEN", "BY", "OPS", "WHAT FOR"], &rows)?;
    if more {
        let which = if oldest { "newer" } else { "older" };
        output::line(format_args!("and {which} ones: -n shows more"))?;
    }
    if verify {
        output::line("every change has the hash that it is named by, and none is missing")?;
    }
    Ok(())
}

fn row(entry: &Entry) -> Vec<String> {
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
fn by_people(found: Vec<Blame>) -> Vec<Blame> {
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

fn blamed(blame: &Blame) -> Vec<String> {
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

async fn restore(
    peer: &Peer,
    common: &Common,
    document: &Document,
    state: &str,
    path: &DocPath,
    message: Option<&str>,
) -> Result<(), Failure> {
    let wanted = heads(document, state)?;
    let before = document.heads()?;
    let said = format!("restored {}{}{state}", path, if path.is_root() { "" } else { " of " });
    let restored = document.restore(&wanted, path.steps(), Some(message.unwrap_or(&said))).await?;
    let found = match restored.change {
        Some(change) => document.diff(&before, &[change])?,
        None => Vec::new(),
    };
    let confirmed = sync::confirm(peer, common, document).await;
    if common.json {
        output::json(&json!({
            "document": document.id().as_str(),
            "path": path.to_string(),
            "change": restored.change.map(|change| change.to_string()),
            "differences": found,
            "durable": true,
            "confirmed": confirmed.as_ref().map(Result::is_ok),
        }))?;
    } else if found.is_empty() {
        output::line("nothing is different: nothing was written")?;
    } else {
        let found = readable(document, restored.change.as_slice(), found)?;
        found.iter().try_for_each(|difference| output::line(in_words(difference)))?;
        match &confirmed {
            None => output::line("on this disk")?,
            Some(Ok(())) => output::line("on this disk, and confirmed by the relay")?,
            // The reason follows on standard error.
            Some(Err(_)) => output::line("on this disk; not yet confirmed by the relay")?,
        }
    }
    confirmed.unwrap_or(Ok(()))
}

/// The heads of the state that people name so.
fn heads(document: &Document, state: &str) -> Result<Vec<ChangeHash>, Failure> {
    match state {
        "now" => return Ok(document.heads()?),
        "start" => return Ok(Vec::new()),
        _ => {}
    }
    if let Some(time) = output::time(state) {
        return Ok(document.read(|doc| history::heads_when(doc, time))?);
    }
    document.read(|doc| {
        let mut heads = Vec::new();
        for one in state.split(',') {
            let (prefix, is_before) = match one.strip_suffix('^') {
                Some(prefix) => (prefix, true),
                None => (one, false),
            };
            let change = change(doc, prefix)?;
            if is_before {
                heads.extend(history::builds_on(doc, change).map_err(past)?);
            } else {
                heads.push(change);
            }
        }
        Ok(heads)
    })?
}

/// The change whose name begins so.
fn change(doc: &Automerge, prefix: &str) -> Result<ChangeHash, Failure> {
    let wanted = prefix.to_ascii_lowercase();
    if wanted.is_empty() || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!(
            "{prefix:?} names no state: give a change's hash, a time like '2026-11-21 18:30', now \
             or start"
        )));
    }
    let changes = doc.get_changes_meta(&[]).into_iter();
    let names = changes.map(|change| ChangeHash(change.hash.0));
    let mut matching = names.filter(|hash| hash.to_string().starts_with(&wanted));
    match (matching.next(), matching.next()) {
        (Some(change), None) => Ok(change),
        (Some(_), Some(_)) => Err(Failure::usage(format!(
            "more than one change begins with {prefix}: give more of the hash (concord doc log \
             --json has all of it)"
        ))),
        (None, _) => Err(Failure::not_found(format!(
            "no change of the document begins with {prefix}: concord doc log lists them"
        ))),
    }
}

fn past(error: concord::history::HistoryError) -> Failure {
    concord::peer::PastError::from(error).into()
}

fn name(change: ChangeHash) -> String {
    change.to_string().chars().take(NAME_SHOWN).collect()
}

/// The author, else as much of the writer as tells writers apart.
fn by(stamp: &Stamp) -> String {
    match &stamp.author {
        Some(author) => output::short(author, BY_SHOWN),
        None => stamp.actor.chars().take(NAME_SHOWN).collect(),
    }
}

/// Edits of a text that are next to each other as one, so that words are read as words.
fn readable(
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
fn in_words(difference: &Difference) -> String {
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
