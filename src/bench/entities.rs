//! A replica of very many entities: how long it takes to open it and to list and query, what it
//! holds in memory, and how long an entity takes to show. No server takes part.
//!
//! The entities are made in one process and measured in another (`--directory`, twice), so that what
//! making them took is not counted as memory of the replica.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use automerge::{Automerge, Change};
use bytes::Bytes;
use clap::Args;
use concord_protocol::DocumentId;
use serde_json::{Map, Value as Json, json};

use super::{
    BenchError, doing,
    live::failed,
    progress,
    report::Report,
    scratch::Scratch,
    server_usage::Meter,
    stats::{Latencies, to_f64},
};
use crate::{
    entity::{EntityType, Schema, Value, entity_id, note_key},
    peer::{Peer, Query, Test},
    replica::{Kind, RowKey, RowWrite},
    store::{self, DocumentKey, Store, Tenant},
};

const SCHEMA: &str = r#"
[types.task.fields]
title = { kind = "string", max_length = 200 }
status = { kind = "enum", values = ["open", "done"] }
assignee = "string"
due = "timestamp"
votes = "integer"
late = "boolean"
"#;
/// Writes of entities that are made at once.
const AT_ONCE: usize = 512;
/// Pages, and queries, that are timed.
const ROUNDS: usize = 50;
/// Entities that many people edited, and how often.
const EDITED: u32 = 50;
const EDITS: u32 = 100;
/// Entities of a page.
const PAGE: usize = 100;
const PATIENCE: Duration = Duration::from_hours(1);

#[derive(Debug, Args)]
pub(super) struct EntitiesArgs {
    /// Entities of the replica
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    entities: u32,
    /// Where the replica is kept; one that is there is measured and not made
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

fn schema() -> Result<Schema, BenchError> {
    Schema::parse(SCHEMA).map_err(failed)
}

/// What is said of an entity.
fn fields(n: u32) -> Map<String, Json> {
    let fields = json!({
        "title": format!("Task number {n}, which has a title of the usual length"),
        "status": if n.is_multiple_of(3) { "done" } else { "open" },
        "assignee": format!("person{}@example.org", n % 100),
        "due": 1_796_000_000_000_i64 + i64::from(n.wrapping_mul(7_919) % 1_000_000) * 1_000,
        "votes": n % 50,
        "late": n.is_multiple_of(7),
    });
    match fields {
        Json::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// The changes of an entity: what it begins with, and one that says something.
fn changes(of: &EntityType, n: u32) -> Result<Vec<Change>, BenchError> {
    let mut doc = Automerge::new();
    of.begin(&mut doc).map_err(failed)?;
    let mut edit = doc.transaction();
    of.edit(&mut edit, |task: &mut Map<String, Json>| task.extend(fields(n))).map_err(failed)?;
    note_key(&mut edit, &key(n)).map_err(failed)?;
    edit.commit();
    Ok(doc.get_changes(&[]))
}

fn key(n: u32) -> String {
    format!("{n:07}")
}

fn id(n: u32) -> DocumentId {
    entity_id("task", &key(n))
}

/// Puts entities into a store, as a replica leaves them that others filled.
async fn make(store: &Arc<dyn Store>, of: &EntityType, entities: u32) -> Result<(), BenchError> {
    let bar = progress(entities as usize, "making entities");
    let mut writes = Vec::with_capacity(AT_ONCE);
    for n in 0..entities {
        let put = |change: Change| {
            let id = change.hash().0;
            let bytes = Bytes::copy_from_slice(change.raw_bytes());
            RowWrite::Put(RowKey { kind: Kind::Change, id, part: 0 }, bytes)
        };
        let rows = changes(of, n)?.into_iter().map(put).collect();
        let document = DocumentKey { tenant: Tenant::default(), document: id(n) };
        writes.push(store.write(document, rows));
        if writes.len() == AT_ONCE || n + 1 == entities {
            for write in writes.drain(..) {
                write.await.map_err(failed)?;
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Edits some of them, so often each.
async fn edit(peer: &Peer, of: &EntityType, entities: u32) -> Result<(), BenchError> {
    let doing = doing("editing some");
    for n in 0..EDITED.min(entities) {
        for edit in 0..EDITS {
            let change = |task: &mut Map<String, Json>| {
                task.insert("title".to_owned(), json!(format!("Title {edit} of many")));
            };
            peer.put(of, &key(n), change).await.map_err(failed)?;
        }
    }
    drop(doing);
    Ok(())
}

pub(super) async fn run(args: &EntitiesArgs) -> Result<Report, BenchError> {
    let scratch = Scratch::new()?;
    let directory = args.directory.as_deref().unwrap_or_else(|| scratch.path());
    let schema = schema()?;
    let of = schema.types["task"].clone();
    let mut report = Report::new("entities");
    report.setting("entities", args.entities);
    let is_there = directory.read_dir().is_ok_and(|mut entries| entries.next().is_some());
    if !is_there {
        let engine = store::Engine::default();
        let store = store::open(directory, engine, &store::Options::default()).map_err(failed)?;
        make(&store, &of, args.entities).await?;
        store.close().await.map_err(failed)?;
        drop(store);
        let peer = Peer::builder(directory).schema(schema.clone()).open().map_err(failed)?;
        let started = Instant::now();
        let building = doing("building the index");
        tokio::time::timeout(PATIENCE, peer.indexed()).await.map_err(failed)?.map_err(failed)?;
        drop(building);
        report.figure("build_index_s", started.elapsed().as_secs_f64());
        edit(&peer, &of, args.entities).await?;
        peer.close().await.map_err(failed)?;
    }

    let meter = Meter::new(std::process::id())?;
    report.figure("rss_before_mib", meter.look()?.rss_mib);
    let started = Instant::now();
    let peer = Peer::builder(directory).schema(schema).open().map_err(failed)?;
    report.figure("open_ms", ms(started.elapsed()));
    let first = peer.list("task", None, PAGE).await.map_err(failed)?;
    report.figure("open_and_first_page_ms", ms(started.elapsed()));
    report.figure("first_page_behind", count(first.behind.building + first.behind.changed));
    report.figure("rss_after_open_mib", meter.look()?.rss_mib);

    let (mut pages, mut after) = (Latencies::new(), None);
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let page = peer.list("task", after, PAGE).await.map_err(failed)?;
        pages.record(started.elapsed());
        after = page.next;
    }
    let is = |who: usize| Value::String(format!("person{who}@example.org"));
    let mut queries = Latencies::new();
    for round in 0..ROUNDS {
        let query = Query::of("task").filter("assignee", Test::Is(is(round)));
        let query = query.descending("due").limit(PAGE);
        let started = Instant::now();
        peer.query(&query).await.map_err(failed)?;
        queries.record(started.elapsed());
    }
    let mut shown = Latencies::new();
    for n in 0..EDITED.min(args.entities) {
        let started = Instant::now();
        let got = peer.get(&of, &key(n)).await.map_err(failed)?;
        let got = got.ok_or_else(|| failed(format!("entity {n} is not there")))?;
        shown.record(started.elapsed());
        drop(got);
    }
    for (name, times) in [("page", pages), ("sorted_query", queries), ("get_100_changes", shown)] {
        let Some(found) = times.percentiles() else { continue };
        report.figure(&format!("{name}_p50_ms"), found.p50_ms);
        report.figure(&format!("{name}_max_ms"), found.max_ms);
    }
    report.figure("rss_at_the_end_mib", meter.look()?.rss_mib);
    peer.close().await.map_err(failed)?;
    Ok(report)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

fn count(count: usize) -> f64 {
    to_f64(u64::try_from(count).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_small_replica_is_made_and_measured() {
        let args = EntitiesArgs { entities: 150, directory: None };
        let report: Json = serde_json::from_str(&run(&args).await.unwrap().to_json()).unwrap();
        let figure = |name: &str| report["figures"][name].as_f64().unwrap();
        assert!(figure("page_p50_ms") > 0.0 && figure("get_100_changes_p50_ms") > 0.0);
    }
}
