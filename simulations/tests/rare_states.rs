//! A run over the standard budget of seeds breaks no rule, and meets every rare state: worlds in
//! which something never happens prove nothing about it.

#![allow(clippy::print_stdout, reason = "tests")]

use std::{ops::ControlFlow, thread};

use concord_simulations::{
    batch::{Batch, News},
    coverage::Coverage,
    plan::Profile,
};

/// Worlds of a test run.
const SEEDS: u64 = 400;

/// Worlds of real documents: what has to do with their content is met in those only.
const REAL_SEEDS: u64 = 24;

#[test]
fn worlds_keep_every_rule_and_meet_every_rare_state() {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let mut coverage = Coverage::default();
    let mut broken = Vec::new();
    for (profile, seeds) in [(Profile::Opaque, SEEDS), (Profile::Automerge, REAL_SEEDS)] {
        let batch = Batch { seeds: 0..seeds, profile, jobs, twice: false, mutant: None };
        batch.run(|news| {
            if let News::Lived(lived) = news {
                coverage.add(&lived.report.coverage);
                broken.extend(lived.report.failure.map(|failure| (profile, lived.seed, failure)));
            }
            ControlFlow::Continue(())
        });
    }
    assert!(broken.is_empty(), "{broken:#?}");
    for (state, times) in coverage.iter() {
        println!("{times:>9} {state}");
    }
    let missing: Vec<&str> = coverage.missing().collect();
    assert!(
        missing.is_empty(),
        "never met in {SEEDS} and {REAL_SEEDS} worlds:\n{}",
        missing.join("\n")
    );
}
