//! Entities that were edited while no relay could be reached: how long it takes, once one can be,
//! until it has confirmed all of it to be on its disk.

use std::time::Instant;

use clap::Args;
use serde_json::{Map, Value as Json, json};

use super::{BenchError, Context, live::failed, progress, report::Report, scratch::Scratch};
use crate::{entity::Schema, peer::Peer};

const SCHEMA: &str = r#"
[types.task.fields]
title = { kind = "string", max_length = 200 }
votes = "integer"
"#;

#[derive(Debug, Args)]
pub(super) struct OutboxArgs {
    /// Entities that are edited
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    entities: u32,
    /// Edits, all together
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    edits: u32,
}

pub(super) async fn run(
    args: &OutboxArgs,
    url: &str,
    context: &Context,
) -> Result<Report, BenchError> {
    let directory = Scratch::new()?;
    let schema = Schema::parse(SCHEMA).map_err(failed)?;
    let of = schema.types["task"].clone();
    let peer = Peer::builder(directory.path()).schema(schema).open().map_err(failed)?;
    // Of this run alone, so that a relay which was used before has none of them.
    let run = getrandom::u64().map_err(BenchError::Random)?;

    let bar = progress(args.edits as usize, "editing");
    let started = Instant::now();
    for edit in 0..args.edits {
        let entity = edit % args.entities;
        let change = |task: &mut Map<String, Json>| {
            task.insert("title".to_owned(), json!(format!("Task {entity}, edited {edit} times")));
            task.insert("votes".to_owned(), json!(edit));
        };
        peer.put(&of, &format!("{run:016x}-{entity}"), change).await.map_err(failed)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let made = started.elapsed();
    let waiting = peer.outbox().await.map_err(failed)?.len();

    let started = Instant::now();
    peer.connect(url).map_err(failed)?;
    peer.flush(context.timeout).await.map_err(failed)?;
    let confirmed = started.elapsed();
    peer.close().await.map_err(failed)?;

    let mut report = Report::new("outbox");
    report.setting("entities", args.entities);
    report.setting("edits", args.edits);
    report.figure("waiting_documents", f64::from(u32::try_from(waiting).unwrap_or(u32::MAX)));
    report.figure("made_s", made.as_secs_f64());
    report.figure("confirmed_s", confirmed.as_secs_f64());
    Ok(report)
}
