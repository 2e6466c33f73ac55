//! `concord put`, `get`, `ls` and `query`: entities by their type and key.

mod live;
pub(super) mod words;

use std::{path::PathBuf, time::Duration};

use clap::Args;
use concord::{
    entity::{Attachment, EntityType, Kind, Schema, Value},
    peer::{Behind, Cursor, PAGE, Page, Peer, PutError, Query, ReadError, Row, Status},
};
use concord_protocol::AutomergeUrl;
use indicatif::HumanBytes;
use serde_json::{Map, Value as Json, json};
use tokio::time::sleep;

use super::{
    Failure,
    open::{self, Common},
    output, schema, sync, waiting,
};

/// Characters of a value that are shown where nothing else bounds them.
const SHOWN: usize = 60;

/// How long a relay that is connected may take to tell of its schema: it does so as it greets.
const TOLD: Duration = Duration::from_secs(1);

/// Where types are declared.
#[derive(Debug, Args)]
pub(super) struct SchemaFile {
    /// The schema that declares the types [default: the one that a relay told of last]
    #[arg(long, env = "CONCORD_SCHEMA", value_name = "FILE")]
    schema: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct PutArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    schema: SchemaFile,
    /// The type of the entity, or TYPE/KEY
    of: String,
    /// Its key, if that is not said yet, and then what to write, as in title=Shopping due=2026-12-01
    /// labels=home,shop; a reference by the key of what it refers to; FIELD= clears
    #[arg(value_name = "KEY FIELD=VALUE")]
    rest: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    schema: SchemaFile,
    /// The type of the entity, or TYPE/KEY
    of: String,
    /// Its key, if that is not said yet
    key: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    schema: SchemaFile,
    /// The type to list; without it, the types and how many there are of each
    of: Option<String>,
    #[command(flatten)]
    page: PageArgs,
}

#[derive(Debug, Args)]
pub(super) struct QueryArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    schema: SchemaFile,
    /// The type of the entities
    of: String,
    /// What must hold of each: status=open status=open|done status!=done 'due<2026-12-01' 'votes>=3'
    /// title~red (has it in it) title^=The (begins so) due? (is there) 'due!' (is not there)
    filters: Vec<String>,
    /// A field to sort by, -FIELD for the greatest first; several are sorted by in turn
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true, value_delimiter = ',')]
    sort: Vec<String>,
    /// Only say how many there are
    #[arg(long, conflicts_with = "live")]
    count: bool,
    /// Go on and tell what becomes different; Ctrl-C ends
    #[arg(long)]
    live: bool,
    /// End after so many of those
    #[arg(long, requires = "live", value_name = "N")]
    events: Option<usize>,
    #[command(flatten)]
    page: PageArgs,
}

#[derive(Debug, Args)]
struct PageArgs {
    /// So many at most
    #[arg(long, default_value_t = PAGE, value_name = "N")]
    limit: usize,
    /// Those after a page: what it said comes next
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// Those that are deleted, too
    #[arg(long)]
    deleted: bool,
}

impl PageArgs {
    fn of(&self, query: Query) -> Result<Query, Failure> {
        let query = query.limit(self.limit);
        let query = if self.deleted { query.with_deleted() } else { query };
        match &self.after {
            None => Ok(query),
            Some(after) => Ok(query.after(after.parse::<Cursor>()?)),
        }
    }
}

pub(super) async fn opened(common: &Common, file: &SchemaFile) -> Result<Peer, Failure> {
    let schema = file.schema.as_deref().map(schema::read).transpose()?;
    open::peer_under(common, schema).await
}

/// The schema in force; a replica that is new has it from the relay. Without one there are no types.
pub(super) async fn types(peer: &Peer, common: &Common) -> Result<std::sync::Arc<Schema>, Failure> {
    let mut schema = peer.watch_schema();
    if peer.schema().await.in_force.is_none() && common.has_relay() {
        let mut status = peer.status();
        let told = async {
            tokio::select! {
                _ = schema.wait_for(|schema| schema.in_force.is_some()) => {}
                status = status.wait_for(|status| !matches!(status, Status::Connecting)) => {
                    let is_online = status.is_ok_and(|status| status.is_online());
                    if is_online {
                        sleep(TOLD).await;
                    }
                }
                () = sleep(common.within()) => {}
            }
        };
        waiting::for_relay(peer, common, told).await;
    }
    peer.schema().await.in_force.ok_or_else(|| {
        Failure::usage(
            "no schema declares any type: give --schema FILE or CONCORD_SCHEMA, or sync once with a \
             relay that has one",
        )
    })
}

pub(super) fn declared<'s>(schema: &'s Schema, name: &str) -> Result<&'s EntityType, Failure> {
    schema.types.get(name).ok_or_else(|| {
        let known = schema.types.keys().cloned().collect();
        ReadError::NoType { type_name: name.to_owned(), known }.into()
    })
}

fn no_key(command: &str, of: &str) -> Failure {
    Failure::usage(format!(
        "say which {of}: concord {command} {of} KEY, or {of}/KEY; concord ls {of} lists what is here"
    ))
}

pub(super) async fn put(args: PutArgs) -> Result<(), Failure> {
    let PutArgs { common, schema, of, mut rest } = args;
    let (of, key) = match of.split_once('/') {
        Some((of, key)) => (of.to_owned(), key.to_owned()),
        None if rest.is_empty() => return Err(no_key("put", &of)),
        None => (of, rest.remove(0)),
    };
    let peer = opened(&common, &schema).await?;
    let done = async {
        let types = types(&peer, &common).await?;
        let of = declared(&types, &of)?;
        let new = words::assignments(of, &rest)?;
        let change = |entity: &mut Map<String, Json>| entity.extend(new);
        let (document, changed) = peer.put(of, &key, change).await?;
        let confirmed = sync::confirm(&peer, &common, &document).await;
        if common.json {
            output::json(&json!({
                "type": of.name,
                "key": key,
                "document": document.id().as_str(),
                "change": changed.change.map(|hash| hash.to_string()),
                "durable": true,
                "confirmed": confirmed.as_ref().map(Result::is_ok),
            }))?;
        } else {
            let what = if changed.change.is_some() { "" } else { ", as it was" };
            let where_it_is = sync::where_it_is(confirmed.as_ref());
            output::line(format_args!("{} {key}{what}: {where_it_is}", of.name))?;
        }
        confirmed.unwrap_or(Ok(()))
    };
    let done = done.await;
    peer.close().await?;
    done
}

pub(super) async fn get(args: GetArgs) -> Result<(), Failure> {
    let GetArgs { common, schema, of, key } = args;
    let (of, key) = match (of.split_once('/'), key) {
        (_, Some(key)) => (of, key),
        (Some((of, key)), None) => (of.to_owned(), key.to_owned()),
        (None, None) => return Err(no_key("get", &of)),
    };
    let peer = opened(&common, &schema).await?;
    let done = async {
        let types = types(&peer, &common).await?;
        let of = declared(&types, &of)?;
        let got = peer.get(of, &key).await?.ok_or_else(|| {
            Failure::not_found(format!(
                "{} {key} is not stored here: concord ls {} lists what is",
                of.name, of.name
            ))
        })?;
        let entity = got.document.read(|doc| of.read(doc).to_json())?;
        if common.json {
            return output::json(&json!({
                "type": of.name,
                "key": key,
                "document": got.document.id().as_str(),
                "deleted": got.is_deleted,
                "fields": entity,
                "unconfirmed": got.unconfirmed,
            }));
        }
        // It knows the keys of what is referred to. What it has not read in time is shown by its document.
        let _ = tokio::time::timeout(super::status::INDEXED_MAX, peer.indexed()).await;
        let deleted = if got.is_deleted { " (deleted)" } else { "" };
        output::line(format_args!("{} {key}{deleted}  {}", of.name, got.document.url()))?;
        let room = output::width().map_or(SHOWN, |width| width.saturating_sub(40).max(20));
        let rows: Vec<Vec<String>> = of
            .fields
            .iter()
            .map(|(name, field)| {
                let value =
                    got.values.get(name).map(|value| shown(&peer, Some(&field.kind), value));
                let value = value.unwrap_or_default();
                let confirmed = if got.unconfirmed.contains(name) { "not confirmed" } else { "" };
                vec![name.clone(), output::short(&value, room), confirmed.to_owned()]
            })
            .collect();
        output::table(&["FIELD", "VALUE", ""], &rows)
    };
    let done = done.await;
    peer.close().await?;
    done
}

pub(super) async fn ls(args: LsArgs) -> Result<(), Failure> {
    let LsArgs { common, schema, of, page } = args;
    let peer = opened(&common, &schema).await?;
    let done = async {
        let Some(of) = of else { return counts(&peer, &common).await };
        let query = page.of(Query::of(of))?;
        let found = peer.query(&query).await?;
        let types = peer.schema().await.in_force;
        let declared = types.as_ref().and_then(|types| types.types.get(query.type_name()));
        show(&peer, &common, &query, declared, &found)
    };
    let done = done.await;
    peer.close().await?;
    done
}

async fn counts(peer: &Peer, common: &Common) -> Result<(), Failure> {
    let (counts, behind) = peer.types().await?;
    if common.json {
        let counts = counts
            .iter()
            .map(|of| json!({ "type": of.type_name, "entities": of.live, "deleted": of.deleted }));
        return output::json(&json!({
            "types": counts.collect::<Vec<_>>(),
            "behind": behind_json(behind),
        }));
    }
    if counts.is_empty() {
        return output::line("no entities here yet: concord put TYPE KEY FIELD=VALUE");
    }
    let row = |of: &concord::peer::TypeCount| {
        let name = if of.type_name.is_empty() { "(no type)" } else { &of.type_name };
        vec![output::short(name, SHOWN), of.live.to_string(), of.deleted.to_string()]
    };
    output::table(&["TYPE", "ENTITIES", "DELETED"], &counts.iter().map(row).collect::<Vec<_>>())?;
    say_behind(behind)
}

pub(super) async fn query(args: QueryArgs) -> Result<(), Failure> {
    let QueryArgs { common, schema, of, filters, sort, count, live, events, page } = args;
    let peer = opened(&common, &schema).await?;
    let done = async {
        let types = types(&peer, &common).await?;
        let of = declared(&types, &of)?;
        let mut query = Query::of(&of.name);
        for filter in &filters {
            let (field, test) = words::filter(of, filter)?;
            query = query.filter(field, test);
        }
        for field in sort {
            query = match field.strip_prefix('-') {
                Some(field) => query.descending(field),
                None => query.ascending(field),
            };
        }
        let query = page.of(query)?;
        if count {
            let count = peer.count(&query).await?;
            return if common.json {
                output::json(&json!({ "count": count }))
            } else {
                output::line(count)
            };
        }
        if live {
            return live::follow(&peer, &common, query, of, events).await;
        }
        let found = peer.query(&query).await?;
        show(&peer, &common, &query, Some(of), &found)
    };
    let done = tokio::select! {
        done = done => done,
        interrupted = tokio::signal::ctrl_c(), if live => interrupted.map_err(Failure::from),
    };
    peer.close().await?;
    done
}

fn show(
    peer: &Peer,
    common: &Common,
    query: &Query,
    of: Option<&EntityType>,
    page: &Page,
) -> Result<(), Failure> {
    if common.json {
        return output::json(&json!({
            "rows": page.rows.iter().map(row_json).collect::<Vec<_>>(),
            "next": page.next.as_ref().map(ToString::to_string),
            "behind": behind_json(page.behind),
        }));
    }
    if page.rows.is_empty() {
        let words = match query.type_name() {
            "" => "no documents without a type found here".to_owned(),
            // A replica has what was made or asked for on it.
            name if common.has_relay() => {
                format!("no {name} found here: concord collection add {name} fetches the relay's")
            }
            name => format!("no {name} found here"),
        };
        output::line(words)?;
    } else {
        table(peer, of, &page.rows)?;
    }
    if let Some(next) = &page.next {
        output::line(format_args!("more: --after {next}"))?;
    }
    say_behind(page.behind)
}

/// Rows as wide as the terminal, with the fields that any of them has.
fn table(peer: &Peer, of: Option<&EntityType>, rows: &[Row]) -> Result<(), Failure> {
    let has = |name: &String| {
        rows.iter().any(|row| row.values.contains_key(name) || row.partial.contains(name))
    };
    let declared = of.iter().flat_map(|of| &of.fields);
    let fields: Vec<_> = declared.filter(|(name, _)| has(name)).collect();
    let mut headings = vec!["KEY".to_owned()];
    headings.extend(fields.iter().map(|(name, _)| name.to_uppercase()));
    headings.push("CHANGED".to_owned());
    let now = output::now();
    let cells = rows.iter().map(|row| {
        let deleted = if row.is_deleted { " (deleted)" } else { "" };
        let mut cells = vec![format!("{}{deleted}", row.name())];
        cells.extend(fields.iter().map(|(name, field)| match row.values.get(*name) {
            Some(value) => shown(peer, Some(&field.kind), value),
            None if row.partial.contains(name) => "…".to_owned(),
            None => String::new(),
        }));
        cells.push(output::ago(row.changed, now));
        cells
    });
    output::fitted_table(&headings, &cells.collect::<Vec<_>>())
}

fn row_json(row: &Row) -> Json {
    let values = row.values.iter().map(|(name, value)| (name.clone(), value.to_json()));
    json!({
        "type": row.type_name,
        "key": row.key,
        "document": row.document.as_str(),
        "deleted": row.is_deleted,
        "changed": row.changed,
        "fields": values.collect::<Map<_, _>>(),
        "partial": row.partial,
    })
}

/// A value as people read it.
fn shown(peer: &Peer, kind: Option<&Kind>, value: &Value) -> String {
    match (kind, value) {
        (Some(Kind::Reference { to, .. }), Value::String(text)) => {
            let named = text.parse::<AutomergeUrl>().ok();
            match named.and_then(|url| peer.entity_name(&url.0)) {
                Some((of, key)) if of == *to => key,
                Some((of, key)) => format!("{of}/{key}"),
                None => text.clone(),
            }
        }
        (Some(Kind::Attachment { .. }), Value::String(text)) => match text.parse::<Attachment>() {
            Ok(Attachment { name: Some(name), length, .. }) => {
                format!("{name} ({})", HumanBytes(length))
            }
            _ => text.clone(),
        },
        (_, Value::String(text)) => text.clone(),
        (_, Value::Timestamp(ms)) => words::moment_shown(*ms),
        (Some(Kind::Set { .. }), Value::Set(members)) => {
            members.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        }
        (_, other) => other.to_json().to_string(),
    }
}

fn behind_json(behind: Behind) -> Json {
    json!({
        "building": behind.building,
        "total": behind.total,
        "changed": behind.changed,
        "unreadable": behind.unreadable,
    })
}

fn say_behind(behind: Behind) -> Result<(), Failure> {
    if behind.building > 0 {
        let done = behind.total.saturating_sub(behind.building);
        output::line(format_args!(
            "not all is known yet: read {done} of {} documents",
            behind.total
        ))?;
    }
    if behind.changed > 0 {
        output::line(format_args!("{} documents changed just now", behind.changed))?;
    }
    if behind.unreadable > 0 {
        output::line(format_args!("{} documents cannot be read", behind.unreadable))?;
    }
    Ok(())
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Find(error) => error.into(),
            error @ (ReadError::Closed | ReadError::NoIndex) => Self::failed(error.to_string()),
            error => Self::usage(error.to_string()),
        }
    }
}

impl From<PutError> for Failure {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Entity(error) => error.into(),
            PutError::Change(error) => error.into(),
            error => Self::usage(error.to_string()),
        }
    }
}
