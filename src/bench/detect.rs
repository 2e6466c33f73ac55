//! What it costs to know the conflicts of a document, without a server: of small entities that two
//! people edit at once, and of a long text that is open all the time.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use automerge::{
    ActorId, AutoCommit, Automerge, Change, ROOT, ReadDoc as _, transaction::Transactable as _,
};
use bytes::Bytes;
use clap::Args;
use concord_protocol::DocumentId;

use super::{
    BenchError, changes::typed_document, doing, live::failed, progress, report::Report,
    stats::Latencies,
};
use crate::{
    review::{
        Detector, Follower,
        desk::{Asked, Question},
    },
    worker::{InProcess, Materialiser as _, WorkerJob, WorkerLimits},
};

/// Fields of an entity.
const FIELDS: usize = 12;
/// Each of two people's changes to an entity.
const EDITS: usize = 10;

#[derive(Debug, Args)]
pub(super) struct DetectArgs {
    /// Entities, each with 21 changes of two people and a few conflicts
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    entities: u32,
    /// Characters of the long text, each typed with its own change
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    operations: u32,
    /// Changes that come in for the long text, one after the other
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    changes: u32,
}

/// Looks for conflicts, and reports what that took.
pub(super) async fn run(args: &DetectArgs) -> Result<Report, BenchError> {
    let mut report = Report::new("detect");
    report.setting("entities", args.entities);
    report.setting("operations", args.operations);
    report.setting("changes", args.changes);
    entities(args, &mut report)?;
    text(args, &mut report)?;
    looks(args, &mut report).await?;
    Ok(report)
}

fn entities(args: &DetectArgs, report: &mut Report) -> Result<(), BenchError> {
    let bar = progress(args.entities as usize, "entities");
    let (mut took, mut count, mut found) = (Duration::ZERO, 0, 0);
    for n in 0..args.entities {
        // As they come: in the form in which they are sent.
        let chunks: Vec<Vec<u8>> =
            entity(n)?.iter().map(|change| change.raw_bytes().to_vec()).collect();
        let id = DocumentId::from_bytes(&n.to_be_bytes());
        let started = Instant::now();
        let mut detector = Detector::default();
        for chunk in &chunks {
            let change = Change::from_bytes(chunk.clone()).map_err(failed)?;
            detector.take_in(&change).map_err(failed)?;
        }
        found += black_box(detector.open(&id)).len();
        took += started.elapsed();
        count += chunks.len();
        bar.inc(1);
    }
    bar.finish_and_clear();
    #[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are small")]
    {
        report.figure("entity_changes_per_s", count as f64 / took.as_secs_f64());
        report.figure("entity_conflicts", found as f64);
    }
    Ok(())
}

/// The history of an entity that two people edit, not knowing of each other.
fn entity(n: u32) -> Result<Vec<Change>, BenchError> {
    let actor = |who: u8| {
        let mut id = [who; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        ActorId::from(id)
    };
    let mut one = AutoCommit::new().with_actor(actor(1));
    for field in 0..FIELDS {
        one.put(ROOT, format!("field {field}"), 0).map_err(failed)?;
    }
    one.commit();
    let mut other = one.fork().with_actor(actor(2));
    for edit in 0..EDITS {
        // They meet in about every tenth field.
        let field = |by: usize| format!("field {}", (edit * 7 + by + n as usize) % FIELDS);
        one.put(ROOT, field(0), 1).map_err(failed)?;
        one.commit();
        other.put(ROOT, field(5), 2).map_err(failed)?;
        other.commit();
    }
    one.merge(&mut other).map_err(failed)?;
    Ok(one.get_changes(&[]).into_iter().collect())
}

fn text(args: &DetectArgs, report: &mut Report) -> Result<(), BenchError> {
    let preparing = doing("making the text");
    let (_, made) = typed_document(&[0xED; 16], args.operations as usize)?;
    let mut doc = Automerge::load(&made.chunk).map_err(failed)?;
    let mut author = doc.fork().with_actor(ActorId::from([7; 16]));
    let id = DocumentId::from_bytes(b"text");
    drop(preparing);

    let looking = doing("looking at the text for the first time");
    let mut follower = Follower::default();
    let started = Instant::now();
    let news = follower.news(&doc);
    follower.take_in(news).map_err(failed)?;
    report.figure("text_first_ms", started.elapsed().as_secs_f64() * 1_000.0);
    drop(looking);

    let (_, text) = doc.get(ROOT, "text").map_err(failed)?.ok_or_else(|| failed("no text"))?;
    let mut times = Latencies::new();
    let bar = progress(args.changes as usize, "changes");
    for n in 0..args.changes as usize {
        let mut tx = author.transaction();
        tx.splice_text(&text, (n * 7_919) % args.operations as usize, 0, "x").map_err(failed)?;
        let (change, _) = tx.commit();
        let change = change.and_then(|hash| author.get_change_by_hash(&hash));
        doc.apply_changes(change).map_err(failed)?;
        let started = Instant::now();
        let news = follower.news(&doc);
        follower.take_in(news).map_err(failed)?;
        black_box(follower.open(&id));
        times.record(started.elapsed());
        bar.inc(1);
    }
    bar.finish_and_clear();
    percentiles(report, "text_change", &times);
    Ok(())
}

fn percentiles(report: &mut Report, what: &str, times: &Latencies) {
    if let Some(found) = times.percentiles() {
        for (which, ms) in [("p50", found.p50_ms), ("p99", found.p99_ms), ("max", found.max_ms)] {
            report.figure(&format!("{what}_{which}_ms"), ms);
        }
    }
}

/// The same text as a relay has it looked at: all that is stored goes to whoever looks.
async fn looks(args: &DetectArgs, report: &mut Report) -> Result<(), BenchError> {
    let preparing = doing("making the text");
    let (mut typist, made) = typed_document(&[0xED; 16], args.operations as usize)?;
    let materialiser = InProcess::start(WorkerLimits { workers: 1, ..WorkerLimits::default() });
    let materialiser = materialiser.map_err(failed)?;
    let document = DocumentId::from_bytes(b"text").as_str().to_owned();
    let asked = Asked { document, schema: None, question: Question::List };
    let asked = Bytes::from(serde_json::to_vec(&asked).map_err(failed)?);
    let mut base = vec![made.chunk];
    drop(preparing);

    let mut times = Latencies::new();
    let bar = progress(args.changes as usize, "looks");
    for n in 0..=args.changes {
        let started = Instant::now();
        let job = WorkerJob::Review { base: base.clone(), asked: asked.clone() };
        black_box(materialiser.run(job).await.map_err(failed)?);
        match n {
            0 => report.figure("look_first_ms", started.elapsed().as_secs_f64() * 1_000.0),
            _ => times.record(started.elapsed()),
        }
        base.push(Bytes::copy_from_slice(typist.type_one().raw_bytes()));
        bar.inc(1);
    }
    bar.finish_and_clear();
    percentiles(report, "look", &times);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn conflicts_are_found_and_times_reported() {
        let args = DetectArgs { entities: 20, operations: 50, changes: 10 };
        let report: serde_json::Value =
            serde_json::from_str(&run(&args).await.unwrap().to_json()).unwrap();
        let figure = |name: &str| report["figures"][name].as_f64().unwrap();
        assert!(figure("entity_conflicts") >= 20.0);
        assert!(figure("entity_changes_per_s") > 0.0);
        for what in ["text_change", "look"] {
            let [least, most] = ["p50", "max"].map(|which| figure(&format!("{what}_{which}_ms")));
            assert!(least <= most);
        }
    }
}
