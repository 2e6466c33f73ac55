//! `concord collection`: documents that are wanted here without being named one by one.

use clap::{Args, Subcommand};
use concord::peer::{
    Collection, CollectionError, CollectionId, CollectionStatus, ConfirmError, Evict, Peer, Query,
};
use concord_protocol::AutomergeUrl;
use serde_json::{Value as Json, json};

use super::{
    Failure,
    entities::{SchemaFile, declared, opened, types, words},
    open::Common,
    output, waiting,
};

#[derive(Debug, Args)]
pub(super) struct CollectionArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    schema: SchemaFile,
    #[command(subcommand)]
    command: CollectionCommand,
}

#[derive(Debug, Subcommand)]
enum CollectionCommand {
    /// Have all entities of a type here from now on, those that filters ask for, or one and what it
    /// refers to; with a relay, fetch them now
    Add(AddArgs),
    /// List the collections of this replica and how far they are
    Ls,
    /// Fetch what is missing, and tell how far it is until Ctrl-C
    Watch {
        /// End as soon as all are up to date
        #[arg(long)]
        once: bool,
    },
    /// Let a collection go
    Rm(RmArgs),
}

#[derive(Debug, Args)]
struct AddArgs {
    /// The type of the entities
    #[arg(required_unless_present_any = ["entity", "document"])]
    of: Option<String>,
    /// What must hold of each, as in `concord query`: status=open 'due<2026-12-01'
    #[arg(conflicts_with_all = ["entity", "document"])]
    filters: Vec<String>,
    /// An entity, as in task/42, with what it refers to
    #[arg(long, value_name = "TYPE/KEY", conflicts_with_all = ["of", "document"])]
    entity: Option<String>,
    /// The same by its document
    #[arg(long, value_name = "DOC", conflicts_with = "of")]
    document: Option<String>,
    /// So many references one after another are followed
    #[arg(long, default_value_t = 1, value_name = "N", conflicts_with = "of")]
    depth: u32,
}

#[derive(Debug, Args)]
struct RmArgs {
    /// The collection, as `ls` names it; the beginning of its name is enough
    id: String,
    /// Remove its documents from this replica that no other collection wants; only what a relay says
    /// that it has
    #[arg(long)]
    evict: bool,
}

pub(super) async fn run(args: CollectionArgs) -> Result<(), Failure> {
    let CollectionArgs { common, schema, command } = args;
    let peer = opened(&common, &schema).await?;
    let done = async {
        match command {
            CollectionCommand::Add(args) => add(&peer, &common, args).await,
            CollectionCommand::Ls => ls(&peer, &common).await,
            CollectionCommand::Watch { once } => watch(&peer, &common, once).await,
            CollectionCommand::Rm(args) => rm(&peer, &common, args).await,
        }
    };
    let done = tokio::select! {
        done = done => done,
        // What was fetched is here, and the rest is fetched the next time.
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::from),
    };
    peer.close().await?;
    done
}

async fn add(peer: &Peer, common: &Common, args: AddArgs) -> Result<(), Failure> {
    let collection = wanted(peer, common, args).await?;
    let id = peer.subscribe(collection).await?;
    let done = if common.has_relay() { fetch(peer, common).await } else { Ok(()) };
    let status = status(peer, id).await?;
    if common.json {
        output::json(&as_json(&status))?;
    } else {
        let how_far = if common.has_relay() {
            how_far(&status)
        } else {
            "nothing is fetched without a relay: give --url ws://host:port".to_owned()
        };
        output::line(format_args!("{id}  {}: {how_far}", status.collection))?;
    }
    done
}

async fn wanted(peer: &Peer, common: &Common, args: AddArgs) -> Result<Collection, Failure> {
    let AddArgs { of, filters, entity, document, depth } = args;
    if let Some(document) = document {
        let AutomergeUrl(document) =
            document.parse().map_err(|error| Failure::usage(format!("{error}")))?;
        return Ok(Collection::document(document, depth));
    }
    if let Some(entity) = entity {
        let (of, key) = entity
            .split_once('/')
            .ok_or_else(|| Failure::usage(format!("{entity:?} is not TYPE/KEY, as in task/42")))?;
        return Ok(Collection::entity(of, key, depth));
    }
    let of = of.unwrap_or_default();
    if filters.is_empty() {
        return Ok(Collection::of_type(of));
    }
    let schema = types(peer, common).await?;
    let of = declared(&schema, &of)?;
    let mut query = Query::of(&of.name);
    for filter in &filters {
        let (field, test) = words::filter(of, filter)?;
        query = query.filter(field, test);
    }
    Ok(Collection::query(query))
}

/// Waits until all collections are up to date, and shows how far they are.
pub(super) async fn fetch(peer: &Peer, common: &Common) -> Result<(), Failure> {
    let statuses = peer.collections().await?;
    let words = || {
        let statuses = statuses.borrow();
        let behind = statuses.iter().find(|status| !status.is_up_to_date());
        match behind {
            None => "fetched".to_owned(),
            Some(status) if status.listed == 0 => waiting::relay(&peer.status().borrow()),
            Some(status) => format!("{}: {}", status.collection, how_far(status)),
        }
    };
    let fetched = peer.collections_up_to_date(common.within());
    waiting::with(common, words, fetched).await.map_err(|error| match error {
        ConfirmError::TimedOut { reason, .. } => Failure::unconfirmed(format!(
            "not all is fetched yet ({reason}); it goes on the next time, and --deadline gives it \
             more than {} s",
            common.deadline
        )),
        other => other.into(),
    })
}

async fn ls(peer: &Peer, common: &Common) -> Result<(), Failure> {
    let statuses = peer.collections().await?.borrow().clone();
    if common.json {
        return output::json(&json!({
            "collections": statuses.iter().map(as_json).collect::<Vec<_>>(),
        }));
    }
    if statuses.is_empty() {
        return output::line("no collections here yet: concord collection add TYPE");
    }
    let row = |status: &CollectionStatus| {
        let left = if status.left == 0 { String::new() } else { status.left.to_string() };
        vec![status.id.to_string(), status.collection.to_string(), left]
    };
    output::table(
        &["ID", "COLLECTION", "NOT FETCHED"],
        &statuses.iter().map(row).collect::<Vec<_>>(),
    )
}

async fn watch(peer: &Peer, common: &Common, once: bool) -> Result<(), Failure> {
    if !common.has_relay() {
        return Err(Failure::usage(
            "no relay to fetch from: give --url ws://host:port or CONCORD_URL",
        ));
    }
    let mut statuses = peer.collections().await?;
    let mut told: Vec<CollectionStatus> = Vec::new();
    loop {
        let now = statuses.borrow_and_update().clone();
        if now.is_empty() {
            return Err(Failure::not_found("no collections here: concord collection add TYPE"));
        }
        for status in now.iter().filter(|status| !told.contains(status)) {
            if common.json {
                output::json(&as_json(status))?;
            } else {
                let line = format!("{}  {}: {}", status.id, status.collection, how_far(status));
                output::line(output::short(&line, output::width().unwrap_or(usize::MAX)))?;
            }
        }
        if once && now.iter().all(CollectionStatus::is_up_to_date) {
            return Ok(());
        }
        told = now;
        if statuses.changed().await.is_err() {
            return Ok(());
        }
        // A line for each document would be too many.
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

async fn rm(peer: &Peer, common: &Common, args: RmArgs) -> Result<(), Failure> {
    let statuses = peer.collections().await?.borrow().clone();
    let found: Vec<CollectionId> = statuses
        .iter()
        .map(|status| status.id)
        .filter(|id| !args.id.is_empty() && id.to_string().starts_with(&args.id.to_lowercase()))
        .collect();
    let id = match found.as_slice() {
        [id] => *id,
        [] => {
            let unknown =
                format!("no collection {}: concord collection ls lists those here", args.id);
            return Err(Failure::not_found(unknown));
        }
        _ => return Err(Failure::usage(format!("{} is the beginning of several", args.id))),
    };
    let evict = if args.evict { Evict::Confirmed } else { Evict::Keep };
    if args.evict && common.has_relay() {
        // Whether it has what is to go is the relay's to say.
        let mut status = peer.status();
        let online = status.wait_for(concord::peer::Status::is_online);
        let online = async { drop(tokio::time::timeout(common.within(), online).await) };
        waiting::for_relay(peer, common, online).await;
    }
    let gone = waiting::here(common, "removing", peer.unsubscribe(id, evict)).await?;
    if common.json {
        return output::json(&json!({
            "id": id.to_string(),
            "evicted": gone.evicted,
            "wanted": gone.wanted,
            "open": gone.open,
            "unconfirmed": gone.unconfirmed,
        }));
    }
    if !args.evict {
        return output::line(format_args!("{id} is gone; its documents stay, and stay in step"));
    }
    output::line(format_args!("{id} is gone, and {} of its documents", gone.evicted))?;
    if gone.wanted > 0 {
        output::line(format_args!("{} stay for another collection", gone.wanted))?;
    }
    if gone.unconfirmed + gone.open > 0 {
        let advice = if common.has_relay() { "" } else { " (no --url was given)" };
        let stay = gone.unconfirmed + gone.open;
        output::line(format_args!(
            "{stay} stay: no relay has said that it has all of them{advice}"
        ))?;
    }
    Ok(())
}

async fn status(peer: &Peer, id: CollectionId) -> Result<CollectionStatus, Failure> {
    let statuses = peer.collections().await?;
    let status = statuses.borrow().iter().find(|status| status.id == id).cloned();
    status.ok_or_else(|| CollectionError::Unknown(id).into())
}

fn how_far(status: &CollectionStatus) -> String {
    let CollectionStatus { listed, done, fetched, not_asked, left, total, .. } = status;
    let mut words = match (status.is_up_to_date(), total) {
        (true, Some(total)) => format!("up to date, {total} at the relay"),
        (true, None) => "up to date".to_owned(),
        (false, Some(total)) => format!("{done} of {listed} listed, {total} at the relay"),
        (false, None) => "not listed by a relay yet".to_owned(),
    };
    for (count, what) in [(fetched, "fetched"), (not_asked, "not asked for"), (left, "left")] {
        if *count > 0 {
            words = format!("{words}, {count} {what}");
        }
    }
    if let Some(why) = status.problem.as_ref().or(status.left_reason.as_ref()) {
        words = format!("{words} ({why})");
    }
    words
}

fn as_json(status: &CollectionStatus) -> Json {
    json!({
        "id": status.id.to_string(),
        "collection": status.collection.to_string(),
        "type": status.collection.type_name(),
        "listed": status.listed,
        "done": status.done,
        "fetched": status.fetched,
        "not_asked": status.not_asked,
        "left": status.left,
        "total": status.total,
        "up_to_date": status.is_up_to_date(),
        "up_to_date_since_ms": status.up_to_date_since_ms,
        "problem": status.problem.as_ref().or(status.left_reason.as_ref()),
    })
}
