//! Every rule that is broken on purpose must be noticed: a check that never fails proves nothing.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use concord_simulations::{
    Mutant,
    ledger::Failure,
    plan::{Plan, Profile},
    quiet, swarm,
};

/// Worlds after which a mutant counts as not found.
const SEEDS_MAX: u64 = 400;

/// Worlds that noticed a mutant once, and are tried first: what is looked for among hundreds is
/// found at once, as long as they still do. `run --mutant NAME` gives others.
const KNOWN: &[(Mutant, u64)] = &[
    (Mutant::DeleteCoveredEarly, 251),
    (Mutant::RootFirst, 380),
    (Mutant::LoseAtEviction, 4),
    (Mutant::RepeatPresence, 10),
    (Mutant::OrphansUnbounded, 66),
    (Mutant::ToldWithoutSending, 8),
    (Mutant::RefuseSilently, 25),
    (Mutant::ServeWithheld, 31),
    (Mutant::AckFailedFlush, 17),
    (Mutant::ForgetSide, 4),
    (Mutant::ForgetEditOfDeleted, 38),
    (Mutant::SidesAsTheyCome, 7),
    (Mutant::FirstPieceFirst, 321),
    (Mutant::ReplaceWithoutJournal, 12),
    (Mutant::ForgetDiscarded, 12),
    (Mutant::GrantHeldLease, 2),
    (Mutant::TrustGrantAlone, 101),
];

/// Mutants that only worlds of real documents can notice.
const OF_DOCUMENTS: &[Mutant] = &[
    Mutant::ForgetSide,
    Mutant::ForgetEditOfDeleted,
    Mutant::LastToComeWins,
    Mutant::SidesAsTheyCome,
    Mutant::ForgetDiscarded,
    Mutant::ReplaceWithoutJournal,
    Mutant::TrustGrantAlone,
];

/// A world that noticed a mutant.
struct Found {
    seed: u64,
    /// Worlds that were tried, this one included.
    tried: u64,
    failure: Failure,
}

/// The first world that fails with the mutant and not without it.
fn find(mutant: Mutant) -> Option<Found> {
    let mut tried = 0;
    let profile = if OF_DOCUMENTS.contains(&mutant) { Profile::Automerge } else { Profile::Opaque };
    let known = KNOWN.iter().filter(|(of, _)| *of == mutant).map(|(_, seed)| *seed);
    known.chain(0..SEEDS_MAX).find_map(|seed| {
        let plan: Plan = swarm::draw(seed, profile);
        tried += 1;
        let failure = quiet::run_with(&plan, false, Some(mutant)).failure?;
        // A world that fails by itself says nothing of the mutant.
        quiet::run(&plan, false).failure.is_none().then_some(Found { seed, tried, failure })
    })
}

#[test]
fn every_broken_rule_is_noticed_and_called_by_its_name() {
    let wrong = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let look = || {
        while let Some(&mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = mutant.name();
            let breaks = mutant.what_it_breaks();
            let Some(Found { seed, tried, failure }) = find(mutant) else {
                wrong.lock().unwrap().push(format!("{name}: not noticed in {SEEDS_MAX} worlds"));
                continue;
            };
            let invariant = failure.invariant.as_str();
            println!(
                "{name:<28} {tried:>4} worlds, seed {seed:>3}, {invariant}: {}",
                failure.detail
            );
            if !breaks.invariants.contains(&invariant) {
                wrong.lock().unwrap().push(format!(
                    "{name}: noticed as {invariant}, though it breaks {:?} ({}): {}",
                    breaks.invariants, breaks.how, failure.detail
                ));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(look);
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
