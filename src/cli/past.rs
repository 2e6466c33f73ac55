//! `concord doc log | at | diff | blame | restore | events`: the history of a document.

mod events;
mod words;

use std::path::PathBuf;

use automerge::Automerge;
use clap::Subcommand;
use concord::{
    history::{self, Order},
    peer::{Document, Peer},
};
use concord_protocol::ChangeHash;
use serde_json::json;

pub(super) use self::words::in_words;
use self::words::{blamed, by_people, name, readable, row};
use super::{Failure, open::Common, output, path::DocPath, schema, sync, waiting};

#[derive(Debug, Subcommand)]
pub(super) enum PastCommand {
    /// List the changes of a document: who, when, and what for
    Log {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
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
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
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
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
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
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
        doc: String,
        /// What in it, as in items[0].title
        #[arg(default_value = "")]
        path: DocPath,
    },
    /// Tell what happened to a document, an event on each line, and where to go on from
    Events {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
        doc: String,
        /// Only what came after: the cursor that an earlier call ended with, or a state
        #[arg(long, value_name = "CURSOR")]
        since: Option<String>,
        /// The events of at most so many changes
        #[arg(short = 'n', long, default_value_t = 1_000, value_name = "NUMBER")]
        limit: usize,
        /// The schema that says what the fields are called
        #[arg(long, env = "CONCORD_SCHEMA", value_name = "FILE")]
        schema: Option<PathBuf>,
    },
    /// Make a document, or a part of it, say again what it said, as one more change
    #[command(after_help = STATES)]
    Restore {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
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
        PastCommand::Events { doc, since, limit, schema } => {
            let schema = schema.as_deref().map(schema::read).transpose()?;
            let document = waiting::find(peer, common, &doc).await?;
            events::run(&document, common, schema.as_ref(), since.as_deref(), limit)
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
    let of = if path.is_root() { String::new() } else { format!("{path} of ") };
    let names: Vec<String> = wanted.iter().take(4).map(|head| name(*head)).collect();
    // The beginning has no name.
    let said = if names.is_empty() { state.to_owned() } else { names.join(" ") };
    let said = format!("restored {of}{said}");
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
        output::line(sync::where_it_is(confirmed.as_ref()))?;
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
