//! `concord conflicts`: what could not be merged without losing somebody's intent, and decisions.

mod bulk;
mod columns;
mod decisions;
mod list;
mod review;
mod triage;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use concord::{
    entity::ROOT_KEY,
    peer::{Document, Peer},
    review::{
        By, Choice, Conflict, ConflictId, SideView, View, between::Apart,
        desk::Wanted as WantedValue, triage::Shown,
    },
};
use concord_protocol::{AutomergeUrl, DocumentId};
use serde_json::{Value as Json, json};

use self::{
    bulk::BulkArgs,
    triage::{ActCommand, Wanted},
};
use super::{
    Failure,
    open::{self, Common},
    output, schema, sync, waiting,
};

/// Characters of an id that people are shown: enough to tell a few thousand apart.
const ID_SHOWN: usize = 8;
/// Characters of a value in a list, and of one alone.
const SHORT: usize = 28;
const LONG: usize = 200;
#[derive(Debug, Args)]
pub(super) struct ConflictsArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// The schema in force: what it says and is not so is a conflict, too [default: what a relay
    /// told of last]
    #[arg(long, global = true, env = "CONCORD_SCHEMA", value_name = "FILE")]
    schema: Option<PathBuf>,
    #[command(subcommand)]
    command: ConflictsCommand,
}

#[derive(Debug, Subcommand)]
enum ConflictsCommand {
    /// List the conflicts that are open
    Ls {
        /// Only of these documents (ids, automerge: URLs, or TYPE/KEY); of all that are stored here
        /// otherwise
        docs: Vec<String>,
        /// Which of them
        #[arg(long, value_enum, default_value = "pending")]
        state: Wanted,
        /// Those that need no decision; as --state dismissed
        #[arg(long, conflicts_with = "state")]
        dismissed: bool,
        /// Only those that this person should look after
        #[arg(long, value_name = "NAME")]
        assignee: Option<String>,
    },
    /// Show a conflict: what was there, what each side wants, and who wrote it
    Show {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
        doc: String,
        /// The conflict's id, or as many of its first characters as are needed
        id: String,
    },
    /// Decide a conflict; the decision is on disk when this returns, and goes to everybody
    Resolve {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
        doc: String,
        /// The conflict's id, or as many of its first characters as are needed
        id: String,
        #[command(flatten)]
        chosen: Chosen,
        /// Why, for those who look later
        #[arg(long)]
        reason: Option<String>,
    },
    /// Go through the open conflicts at a terminal: each with its sides beside each other, and one
    /// key for each choice
    Review {
        /// Only those of these documents (ids, automerge: URLs, or TYPE/KEY); of all that are stored
        /// here otherwise
        docs: Vec<String>,
    },
    /// Decide many conflicts in one way: shows what would become of them, and asks; those between
    /// documents are left alone
    Bulk(BulkArgs),
    #[command(flatten)]
    Act(ActCommand),
    /// List the decisions that people and policies made
    Log {
        /// Only of these documents (ids, automerge: URLs, or TYPE/KEY); of all that are stored here
        /// otherwise
        docs: Vec<String>,
    },
    /// Take a decision back: what was shown before it is there again
    Revert {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
        doc: String,
        /// The conflict's id, or as many of its first characters as are needed
        id: String,
        /// Why, for those who look later
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Chosen {
    /// Take what this side wants, by its number
    #[arg(long, value_name = "N")]
    side: Option<usize>,
    /// Take what was written last
    #[arg(long)]
    latest: bool,
    /// Take what this person wants
    #[arg(long, value_name = "NAME")]
    of: Option<String>,
    /// Take what was there before
    #[arg(long)]
    before: bool,
    /// Take what is shown now
    #[arg(long)]
    now: bool,
    /// Take something else: JSON, or any other text as it is
    #[arg(long, allow_hyphen_values = true)]
    value: Option<String>,
    /// Take nothing: it stays or becomes deleted
    #[arg(long)]
    delete: bool,
}

pub(super) async fn run(args: ConflictsArgs) -> Result<(), Failure> {
    let ConflictsArgs { common, schema, command } = args;
    let schema = schema.as_deref().map(schema::read).transpose()?;
    let peer = open::peer_under(&common, schema).await?;
    let in_force = peer.schema().await.in_force;
    let root_key = in_force.map_or_else(|| ROOT_KEY.to_owned(), |it| it.root_key.clone());
    let done = match command {
        ConflictsCommand::Review { docs } => review::run(&peer, &common, docs).await,
        ConflictsCommand::Ls { docs, state, dismissed, assignee } => {
            let state = if dismissed { Wanted::Dismissed } else { state };
            list::list(&peer, &common, docs, state, assignee).await
        }
        ConflictsCommand::Show { doc, id } => show(&peer, &common, &doc, &id).await,
        ConflictsCommand::Resolve { doc, id, chosen, reason } => {
            resolve(&peer, &common, &doc, &id, chosen, reason).await
        }
        ConflictsCommand::Bulk(args) => bulk::run(&peer, &common, &root_key, args).await,
        ConflictsCommand::Act(command) => triage::run(&peer, &common, command).await,
        ConflictsCommand::Log { docs } => decisions::log(&peer, &common, docs).await,
        ConflictsCommand::Revert { doc, id, reason } => {
            decisions::revert(&peer, &common, &doc, &id, reason).await
        }
    };
    peer.close().await?;
    done
}

fn view(document: &Document, conflict: &Conflict) -> Result<View, Failure> {
    Ok(document.read(|content| View::of(content, document.id(), conflict))??)
}

async fn show(peer: &Peer, common: &Common, doc: &str, id: &str) -> Result<(), Failure> {
    let (view, suggestion) = match find(peer, common, doc, id).await? {
        Found::In(document, conflict) => {
            let looking = peer.suggestion(&document, &conflict);
            let suggestion = waiting::here(common, "looking at past decisions", looking).await?;
            (view(&document, &conflict)?, suggestion)
        }
        Found::Between(apart) => (apart.view, None),
    };
    let now = output::now();
    let said = triage::of(peer, &[view.id]).await.pop().unwrap_or_default();
    let shown = Shown { suggestion, ..Shown::of(view, said, now) };
    if common.json {
        return output::json(&json!(shown));
    }
    let Shown { view, triage: said, suggestion, .. } = shown;
    output::line(format_args!(
        "conflict {} ({}) at {}",
        short_id(view.id),
        view.code,
        output::short(place(&view), LONG)
    ))?;
    if let Some(problem) = &view.problem {
        output::line(format_args!("  problem  {}", output::short(problem, LONG)))?;
    }
    let term = console::Term::stdout();
    let width = usize::from(term.size().1);
    let beside =
        term.is_term().then(|| columns::render(&view, width, console::colors_enabled(), now));
    match beside.flatten() {
        Some(shown) => output::line(shown)?,
        None => in_lines(&view)?,
    }
    if let Some(suggestion) = suggestion {
        let suggestion = output::short(&suggestion.to_string(), LONG);
        output::line(format_args!("  so far   {suggestion}"))?;
    }
    triage::lines(&said)?;
    let others = if view.is_between() { "--now" } else { "--now, --before, --delete, --value" };
    output::line(format_args!(
        "decide with: concord conflicts resolve {doc} {} --side 1 (or {others})",
        short_id(view.id),
    ))
}

/// A conflict from top to bottom.
fn in_lines(view: &View) -> Result<(), Failure> {
    let now = output::now();
    let is_between = view.is_between();
    if !is_between {
        output::line(format_args!("  before   {}", words(view.before.as_ref(), LONG)))?;
    }
    for (number, side) in (1..).zip(&view.sides) {
        output::line(format_args!("  side {number}   {}", in_words(side, LONG)))?;
        if let Some(document) = &side.document {
            output::line(format_args!("           in automerge:{document}"))?;
        }
        for who in &side.by {
            output::line(format_args!("           {}", by_whom(who, now)))?;
        }
    }
    if !is_between {
        output::line(format_args!("  now      {}", words(view.now.as_ref(), LONG)))?;
    }
    Ok(())
}

/// Who wanted something, when, and what they said of it.
fn by_whom(who: &By, now: i64) -> String {
    let name = output::short(who.author.as_deref().unwrap_or(&who.actor), 16);
    let said = output::short(who.message.as_deref().unwrap_or_default(), 60);
    let when = output::ago(who.time, now);
    format!("by {name}, {when}  {said}").trim_end().to_owned()
}

/// What is said of a side that wants nothing to be there.
fn deleted_or(side: &SideView) -> Option<&'static str> {
    (side.kind == "deleted").then_some("deleted")
}

async fn resolve(
    peer: &Peer,
    common: &Common,
    doc: &str,
    id: &str,
    chosen: Chosen,
    reason: Option<String>,
) -> Result<(), Failure> {
    let (document, conflict) = match find(peer, common, doc, id).await? {
        Found::In(document, conflict) => (document, *conflict),
        Found::Between(apart) => {
            return resolve_between(peer, common, &apart, chosen, reason).await;
        }
    };
    let choice = choice_of(&document, &conflict, &chosen.wanted())?;
    document.resolve(&conflict, &choice, reason).await?;
    let confirmed = sync::confirm(peer, common, &document).await;
    let (now, left) = (
        document.read(|content| conflict.provisional(content)?.to_json())??,
        document.conflicts()?.len(),
    );
    if common.json {
        output::json(&json!({
            "document": document.id().as_str(),
            "resolved": conflict.id.to_string(),
            "now": now,
            "open": left,
            "durable": true,
            "confirmed": confirmed.as_ref().map(Result::is_ok),
        }))?;
    } else {
        let id = short_id(conflict.id);
        output::line(format_args!("resolved {id}: {}", words(now.as_ref(), LONG)))?;
        match left {
            0 => output::line("no conflict is left in the document")?,
            1 => output::line("1 conflict is left in the document")?,
            left => output::line(format_args!("{left} conflicts are left in the document"))?,
        }
    }
    confirmed.unwrap_or(Ok(()))
}

async fn resolve_between(
    peer: &Peer,
    common: &Common,
    apart: &Apart,
    chosen: Chosen,
    reason: Option<String>,
) -> Result<(), Failure> {
    peer.resolve_between(apart, &chosen.wanted(), reason).await?;
    let mut changed = Vec::with_capacity(apart.documents.len());
    for document in &apart.documents {
        changed.push(waiting::find(peer, common, document.as_str()).await?);
    }
    let confirmed = sync::confirm_all(peer, common, changed).await;
    let id = apart.view.id;
    if common.json {
        let documents: Vec<&str> = apart.documents.iter().map(DocumentId::as_str).collect();
        output::json(&json!({
            "resolved": id.to_string(),
            "documents": documents,
            "durable": true,
            "confirmed": confirmed.as_ref().map(Result::is_ok),
        }))?;
    } else {
        output::line(format_args!(
            "resolved {} between {} documents",
            short_id(id),
            apart.documents.len()
        ))?;
    }
    confirmed.unwrap_or(Ok(()))
}

/// What somebody wants, of this conflict.
fn choice_of(
    document: &Document,
    conflict: &Conflict,
    wanted: &WantedValue,
) -> Result<Choice, Failure> {
    let choice = document.read(|doc| wanted.choice(doc, conflict))?;
    choice.map_err(|error| Failure::usage(error.to_string()))
}

/// What somebody typed for a value: JSON, or any other text as it is.
fn typed(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| Json::String(text.to_owned()))
}

/// The documents that were named, else all.
async fn all_unless(peer: &Peer, docs: Vec<String>) -> Result<Vec<String>, Failure> {
    if docs.is_empty() {
        return Ok(peer.documents().await?.iter().map(|id| id.as_str().to_owned()).collect());
    }
    Ok(docs.iter().map(|doc| waiting::named(peer, doc).into_owned()).collect())
}

/// A conflict: in a document, or between several.
enum Found {
    In(Document, Box<Conflict>),
    Between(Box<Apart>),
}

/// The id that a document was named by.
fn id_of(peer: &Peer, doc: &str) -> Option<DocumentId> {
    waiting::named(peer, doc).parse::<AutomergeUrl>().ok().map(|AutomergeUrl(id)| id)
}

/// A conflict by the first characters of its id.
async fn find(peer: &Peer, common: &Common, doc: &str, id: &str) -> Result<Found, Failure> {
    let document = waiting::find(peer, common, doc).await?;
    let wanted = id.to_ascii_lowercase();
    let mut found = document.conflicts()?;
    found.retain(|conflict| conflict.id.to_string().starts_with(&wanted));
    let is_wanted = |apart: &Apart| {
        apart.documents.contains(document.id()) && apart.view.id.to_string().starts_with(&wanted)
    };
    let mut between = peer.conflicts_between().await?;
    between.retain(is_wanted);
    match (found.pop(), between.pop(), found.len() + between.len()) {
        (Some(conflict), None, 0) => Ok(Found::In(document, Box::new(conflict))),
        (None, Some(apart), 0) => Ok(Found::Between(Box::new(apart))),
        (Some(_), ..) | (_, Some(_), _) => Err(Failure::usage(format!(
            "more than one conflict begins with {id:?}: give more of the id"
        ))),
        (None, None, _) => Err(Failure::not_found(format!(
            "no open conflict of the document begins with {id:?}: concord conflicts ls {doc} lists \
             them"
        ))),
    }
}

impl Chosen {
    /// As it is asked.
    fn wanted(self) -> WantedValue {
        let Self { side, latest, of, before, now, value, delete: _ } = self;
        match (side, of, value) {
            (Some(side), ..) => WantedValue::Side(side),
            (_, Some(author), _) => WantedValue::Author(author),
            (.., Some(text)) => WantedValue::Value(typed(&text)),
            _ if latest => WantedValue::Latest,
            _ if before => WantedValue::Before,
            _ if now => WantedValue::Now,
            _ => WantedValue::Delete,
        }
    }
}

fn place(view: &View) -> &str {
    view.path.as_deref().unwrap_or("(gone)")
}

fn in_words(side: &SideView, max: usize) -> String {
    match side.kind.as_str() {
        "edited" => format!("edited: {}", words(side.value.as_ref(), max)),
        "deleted" => "deleted".to_owned(),
        _ => words(side.value.as_ref(), max),
    }
}

/// As much of an id as people are shown.
pub(super) fn short_id(id: ConflictId) -> String {
    id.to_string()[..ID_SHOWN].to_owned()
}

fn words(value: Option<&Json>, max: usize) -> String {
    value.map_or_else(|| "nothing".to_owned(), |value| output::short(&value.to_string(), max))
}
