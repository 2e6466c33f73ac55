//! `replay`: one world again, and what happened in it.

use std::io::{self, Write as _};

use clap::Args;
use concord_simulations::{
    Report,
    plan::{Plan, Profile},
};

use super::{
    Error, Outcome,
    log::{Filter, KindArg, Log},
    source::Source,
    text::{clock, count, real},
};

/// Which world, and what of it.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    source: Source,
    /// Print what happened, a line each; any of the options below does so too
    #[arg(long)]
    trace: bool,
    /// Only of this node, such as `relay-0`; several, with commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    node: Vec<String>,
    /// Nothing of other documents than this
    #[arg(long, value_name = "N")]
    document: Option<u8>,
    /// Only of this kind; several, with commas
    #[arg(long, value_enum, value_delimiter = ',')]
    kind: Vec<KindArg>,
    /// From this millisecond of the world on
    #[arg(long, value_name = "MS")]
    from: Option<u64>,
    /// Up to this millisecond of the world
    #[arg(long, value_name = "MS")]
    to: Option<u64>,
    /// Only so many lines, the last ones
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

impl ReplayArgs {
    fn filter(&self) -> Option<Filter> {
        let is_asked = self.trace
            || !self.node.is_empty()
            || self.document.is_some()
            || !self.kind.is_empty()
            || self.from.is_some()
            || self.to.is_some()
            || self.last.is_some();
        is_asked.then(|| Filter {
            nodes: self.node.clone(),
            document: self.document,
            kinds: self.kind.clone(),
            from_ms: self.from,
            to_ms: self.to,
            last: self.last,
        })
    }
}

pub(crate) fn run(args: &ReplayArgs) -> Result<Outcome, Error> {
    let plan = args.source.plan()?;
    let filter = args.filter();
    if let Some(document) = args.document.filter(|document| *document >= plan.documents) {
        let there = format!("documents are 0 to {}", plan.documents - 1);
        return Err(Error::Usage(format!("there is no document {document}: {there}")));
    }
    let report = args.source.run(&plan, filter.is_some());
    let lines = match &filter {
        Some(filter) => Some(Log::new(&plan, &report).lines(filter).map_err(Error::Usage)?),
        None => None,
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    writeln!(out, "{}", heading(&plan))?;
    if let Some(lines) = lines {
        writeln!(out)?;
        for line in &lines {
            writeln!(out, "{line}")?;
        }
    }
    writeln!(out)?;
    outcome(&mut out, &report)?;
    if report.failure.is_some() {
        for command in ["shrink", "explain"] {
            writeln!(out, "  {command}: {}", args.source.command(command))?;
        }
    }
    out.flush()?;
    Ok(if report.failure.is_some() { Outcome::Broken } else { Outcome::Kept })
}

/// The world in two lines.
pub(crate) fn heading(plan: &Plan) -> String {
    let profile = match plan.profile {
        Profile::Opaque => "opaque",
        Profile::Automerge => "automerge",
    };
    let many = |number: u64, what: &str| {
        format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
    };
    // `Settings { a: 1, b: 2 }` says all there is to say.
    let settings = format!("{:?}", plan.settings);
    let settings = settings.trim_start_matches("Settings { ").trim_end_matches(" }");
    format!(
        "seed {}, {profile}: {}, {}, {}, {}, calm at {} ({} ms)\n{settings}",
        plan.seed,
        many(plan.relays.into(), "relay"),
        many(plan.peers.into(), "peer"),
        many(plan.documents.into(), "document"),
        many(plan.actions.len() as u64, "action"),
        clock(plan.calm_ms),
        plan.calm_ms,
    )
}

/// What came of it.
fn outcome(out: &mut impl io::Write, report: &Report) -> io::Result<()> {
    writeln!(
        out,
        "{} events, {:.2} simulated hours, {} changes, {} messages",
        count(report.events),
        real(report.simulated_ms) / 3_600_000.0,
        count(report.changes),
        count(report.messages)
    )?;
    let list = |items: Vec<String>| if items.is_empty() { "none".into() } else { items.join(", ") };
    let faults = report.faults.iter().map(|(fault, times)| format!("{fault} {times}"));
    writeln!(out, "faults: {}", list(faults.collect()))?;
    let states = report.coverage.iter().map(|(state, times)| format!("{state} {times}"));
    writeln!(out, "rare states: {}", list(states.collect()))?;
    let Some(failure) = &report.failure else {
        return writeln!(out, "\nkept every rule");
    };
    writeln!(
        out,
        "\nFAILED {} at {} ({} ms)\n  {}",
        failure.invariant.as_str(),
        clock(failure.at_ms),
        failure.at_ms,
        failure.detail.replace('\n', "\n  ")
    )
}
