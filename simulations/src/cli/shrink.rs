//! `shrink`: the smallest world that still breaks the rule.

use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Args;
use concord_simulations::{ledger::Failure, plan::Plan, regression::Regression, shrink};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Error, Outcome, cores, replay::heading, source::Source, text::count};

/// How often what is found so far is written, for those who do not wait for the end.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// Which world, and where to.
#[derive(Debug, Args)]
pub(crate) struct ShrinkArgs {
    #[command(flatten)]
    source: Source,
    /// Worlds that are tried at a time [default: as many as there are cores]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Where the smaller world goes [default: simulations/regressions/INVARIANT-SEED.json]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What it shows, for whoever meets it again [default: what the failure says]
    #[arg(long, value_name = "TEXT")]
    found: Option<String>,
    /// Only failures whose words hold this count as the same
    #[arg(long, value_name = "TEXT")]
    saying: Option<String>,
}

pub(crate) fn run(args: &ShrinkArgs) -> Result<Outcome, Error> {
    let plan = args.source.plan()?;
    let mut out = io::stdout().lock();
    let Some(failure) = args.source.run(&plan, false).failure else {
        writeln!(out, "{}\n\nkeeps every rule: there is nothing to cut down", heading(&plan))?;
        return Ok(Outcome::Broken);
    };
    let words = args.saying.as_deref().unwrap_or_default();
    if !failure.detail.contains(words) {
        let said = format!("the failure does not say \"{words}\": {}", failure.detail);
        return Err(Error::Usage(said));
    }
    let is_same =
        |other: &Failure| other.invariant == failure.invariant && other.detail.contains(words);
    let path = match &args.output {
        Some(path) => path.clone(),
        None if args.source.making.mutant.is_some() => {
            let text = "with --mutant say where the smaller world goes (-o): it is no regression";
            return Err(Error::Usage(text.to_owned()));
        }
        None => directory().join(format!("{}-{}.json", failure.invariant.as_str(), plan.seed)),
    };
    let write = |plan: &Plan, failure: &Failure| {
        let regression = Regression {
            invariant: failure.invariant.as_str().to_owned(),
            found: args.found.clone().unwrap_or_else(|| failure.detail.clone()),
            plan: plan.clone(),
        };
        let written = regression.write(&path);
        written.map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
    };
    // Now, so that a path that cannot be written is not found out after an hour.
    write(&plan, &failure)?;
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
        bar.set_style(style);
    }
    let mut written = Instant::now();
    let smallest = shrink::shrink(
        &plan,
        args.jobs.unwrap_or_else(cores),
        |plan| args.source.run(plan, false).failure.as_ref().is_some_and(is_same),
        |progress| {
            let (actions, tried) = (progress.plan.actions.len() as u64, progress.tried);
            bar.set_message(format!(
                "{} actions left, {} worlds tried",
                count(actions),
                count(tried)
            ));
            bar.tick();
            if written.elapsed() > SAVE_EVERY {
                written = Instant::now();
                // If it fails now, it fails at the end too, and is told of.
                let _ = write(progress.plan, &failure);
            }
        },
    );
    bar.finish_and_clear();
    let Some(left) = args.source.run(&smallest, false).failure else {
        // Only a world that is not determined by its plan comes here.
        let text = "the smaller world does not fail again: see `run --check-determinism`";
        return Err(Error::Usage(text.to_owned()));
    };
    write(&smallest, &left)?;
    tell(&mut out, &plan, &smallest, &left, &path)?;
    for command in ["replay", "explain"] {
        let command_line = args.source.making.command(command, &shown(&path));
        writeln!(out, "  {command}: {command_line}")?;
    }
    Ok(Outcome::Kept)
}

/// Where regressions are kept, from wherever cargo was called.
fn directory() -> PathBuf {
    match env::var_os("CARGO_MANIFEST_DIR") {
        Some(directory) => PathBuf::from(directory).join("regressions"),
        None => PathBuf::from("simulations/regressions"),
    }
}

fn tell(
    out: &mut impl io::Write,
    before: &Plan,
    after: &Plan,
    failure: &Failure,
    path: &Path,
) -> io::Result<()> {
    writeln!(out, "{}\n", heading(after))?;
    for action in &after.actions {
        writeln!(out, "{:>9} ms  {:?}", action.at_ms, action.what)?;
    }
    writeln!(
        out,
        "\n{} at {} ms: {}\n{} of {} actions are left, in {}",
        failure.invariant.as_str(),
        failure.at_ms,
        failure.detail,
        count(after.actions.len() as u64),
        count(before.actions.len() as u64),
        shown(path),
    )
}

/// A path as people would write it here.
fn shown(path: &Path) -> String {
    let here = env::current_dir().ok();
    let short = here.and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path);
    short.display().to_string()
}
