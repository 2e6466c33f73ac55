//! `run`: many worlds, and what came of them.

use std::{
    io::{self, Write as _},
    ops::{ControlFlow, Range},
    time::{Duration, Instant},
};

use clap::Args;
use concord_simulations::batch::{Batch, Lived, News};
use indicatif::{ProgressBar, ProgressStyle};

use super::{
    Error, Outcome, cores,
    source::{Making, parse_seed},
    summary::{Summary, Trouble},
    text::{clock, count, rate, real},
};

/// A world that takes longer than this is named while it runs: it may never end.
const SLOW: Duration = Duration::from_mins(1);

/// Which worlds, and how.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Seeds, `FROM..TO` without TO, or one
    #[arg(long, value_name = "FROM..TO", value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// Threads [default: as many as there are cores]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    #[command(flatten)]
    making: Making,
    /// Go on after a broken rule; otherwise no world is begun after the first
    #[arg(long)]
    keep_going: bool,
    /// Live through each world twice; a difference counts as a broken rule
    #[arg(long)]
    check_determinism: bool,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let bad = || format!("`{text}` is no range of seeds such as 0..1000, and no seed");
    let seeds = if let Some((from, to)) = text.split_once("..") {
        parse_seed(from).ok_or_else(bad)?..parse_seed(to).ok_or_else(bad)?
    } else {
        let seed = parse_seed(text).ok_or_else(bad)?;
        seed..seed.checked_add(1).ok_or_else(bad)?
    };
    if seeds.is_empty() { Err(format!("`{text}` holds no seed")) } else { Ok(seeds) }
}

pub(crate) fn run(args: &RunArgs) -> Result<Outcome, Error> {
    let jobs = match args.jobs {
        Some(0) => return Err(Error::Usage("--jobs must be at least 1".to_owned())),
        Some(jobs) => jobs,
        None => cores(),
    };
    let batch = Batch {
        seeds: args.seeds.clone(),
        profile: args.making.profile(),
        jobs,
        twice: args.check_determinism,
        mutant: args.making.mutant,
    };
    let bar = bar(args.seeds.end - args.seeds.start);
    let started = Instant::now();
    let mut summary = Summary::new(batch.profile, jobs, args.check_determinism);
    let mut slow = Vec::new();
    let mut output = Ok(());
    batch.run(|news| {
        match news {
            News::Lived(lived) => {
                summary.add(&lived);
                for trouble in Trouble::of(&lived) {
                    output = bar.suspend(|| tell(args, &lived, &trouble));
                    if output.is_err() || !args.keep_going {
                        return ControlFlow::Break(());
                    }
                }
            }
            News::Slow(seed, time) if time > SLOW && !slow.contains(&seed) => {
                slow.push(seed);
                let text = format!("seed {seed} has been running for {} s", time.as_secs());
                bar.suspend(|| {
                    // Of no consequence if nobody can read it.
                    let _ = writeln!(io::stderr(), "{text}");
                });
            }
            News::Slow(..) => {}
        }
        bar.set_position(summary.seeds);
        let events = rate(real(summary.events), started.elapsed().as_secs_f64());
        bar.set_message(format!("{} failed, {events} events/s", count(summary.failed)));
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    output?;
    summary.took = started.elapsed();
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", summary.json())?;
    } else {
        summary.print(&mut out)?;
    }
    Ok(if summary.failed == 0 { Outcome::Kept } else { Outcome::Broken })
}

/// On a terminal only: indicatif draws nothing elsewhere.
fn bar(seeds: u64) -> ProgressBar {
    let template = "{wide_bar} {human_pos}/{human_len} seeds, {msg}, {eta} left";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(seeds)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message("0 failed")
}

/// A failure, as soon as it is known. With `--json` it goes to the other output.
fn tell(args: &RunArgs, lived: &Lived, trouble: &Trouble) -> io::Result<()> {
    let seed = lived.seed;
    let command = |command| args.making.command(command, &seed.to_string());
    let text = format!(
        "FAILED {} seed {seed} at {} ({} ms)\n  {}\n  replay: {}\n  shrink: {}\n\n",
        trouble.invariant,
        clock(trouble.at_ms),
        trouble.at_ms,
        trouble.detail.replace('\n', "\n  "),
        command("replay"),
        command("shrink"),
    );
    if args.json {
        io::stderr().write_all(text.as_bytes())
    } else {
        io::stdout().write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_or_one() {
        assert_eq!(parse_seeds("3..10").unwrap(), 3..10);
        assert_eq!(parse_seeds("7").unwrap(), 7..8);
        assert_eq!(parse_seeds("0x10..0x20").unwrap(), 16..32);
        for bad in ["", "a", "5..5", "6..5", "..", "1..", "-1..3", "18446744073709551615"] {
            assert!(parse_seeds(bad).is_err(), "{bad}");
        }
    }
}
