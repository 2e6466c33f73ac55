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

#[test]
fn worlds_keep_every_rule_and_meet_every_rare_state() {
    let jobs = thread::available_parallelism().map_or(1, usize::from);
    let batch =
        Batch { seeds: 0..SEEDS, profile: Profile::Opaque, jobs, twice: false, mutant: None };
    let mut coverage = Coverage::default();
    let mut broken = Vec::new();
    batch.run(|news| {
        if let News::Lived(lived) = news {
            coverage.add(&lived.report.coverage);
            broken.extend(lived.report.failure.map(|failure| (lived.seed, failure)));
        }
        ControlFlow::Continue(())
    });
    assert!(broken.is_empty(), "{broken:#?}");
    for (state, times) in coverage.iter() {
        println!("{times:>9} {state}");
    }
    let missing: Vec<&str> = coverage.missing().collect();
    assert!(missing.is_empty(), "never met in {SEEDS} worlds:\n{}", missing.join("\n"));
}
