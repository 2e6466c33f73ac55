//! The shrinker finds what a failure needs, whatever the failure is: here it is planted.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests, and quickcheck")]

use std::sync::atomic::{AtomicU64, Ordering};

use concord_simulations::{
    coverage::State,
    plan::{Name, Plan, Profile, What},
    quiet,
    shrink::shrink,
    swarm,
};
use quickcheck::{Arbitrary, Gen, QuickCheck};

/// The same plans in every run.
fn quickcheck(size: usize, tests: u64) -> QuickCheck {
    QuickCheck::new().rng(Gen::from_size_and_seed(size, 0x5EED)).tests(tests)
}

fn is_edit_of(what: &What, of: u8) -> bool {
    matches!(what, What::Edit { peer, .. } if *peer == of)
}

fn is_relay_crash(what: &What) -> bool {
    matches!(what, What::Crash { node: Name::Relay(_), .. })
}

/// A relay crashes some time after somebody other than the hub wrote.
fn is_planted(plan: &Plan) -> bool {
    plan.actions.iter().any(|edit| {
        (1..plan.peers).any(|peer| is_edit_of(&edit.what, peer))
            && plan.actions.iter().any(|c| is_relay_crash(&c.what) && c.at_ms > edit.at_ms)
    })
}

#[test]
fn two_actions_are_found_among_hundreds() {
    let mut found = 0;
    for seed in 0..60 {
        let plan = swarm::draw(seed, Profile::Opaque);
        if !is_planted(&plan) {
            continue;
        }
        found += 1;
        let small = shrink(&plan, 1, is_planted, |_| {});
        assert!(is_planted(&small) && small.validate().is_ok());
        assert_eq!(small.actions.len(), 2, "seed {seed}: {:?}", small.actions);
        assert_eq!((small.peers, small.relays, small.documents), (2, 1, 1), "seed {seed}");
        assert!(small.actions.last().unwrap().at_ms <= 20, "seed {seed}: {:?}", small.actions);
        assert!(small.calm_ms <= 60_000, "seed {seed}: calm at {}", small.calm_ms);
        assert_eq!((small.settings.lag_us, small.settings.job_failures), (1, 0), "seed {seed}");
    }
    assert!(found > 20, "only {found} plans hold what is looked for");
}

#[test]
fn hundreds_of_actions_are_left_if_all_are_needed() {
    let plan = swarm::draw(3, Profile::Opaque);
    let needed = plan.actions.len();
    let small = shrink(&plan, 2, |plan| plan.actions.len() == needed, |_| {});
    assert_eq!(small.actions.len(), needed);
    assert!(small.validate().is_ok());
}

#[test]
fn every_try_is_told_of_and_every_plan_that_is_tried_is_valid() {
    let plan = swarm::draw(7, Profile::Opaque);
    let tried = AtomicU64::new(0);
    let mut told = 0;
    let small = shrink(
        &plan,
        1,
        |plan| {
            assert_eq!(plan.validate(), Ok(()));
            tried.fetch_add(1, Ordering::Relaxed);
            plan.actions.iter().any(|action| matches!(action.what, What::Edit { .. }))
        },
        |progress| told = progress.tried,
    );
    assert_eq!(small.actions.len(), 1);
    assert_eq!(told, tried.into_inner());
    assert!(told < 1_000, "{told} plans were tried");
}

#[test]
fn the_outcome_is_the_same_with_any_number_of_jobs() {
    for seed in 0..5 {
        let plan = swarm::draw(seed, Profile::Opaque);
        let is_full = |plan: &Plan| {
            let edits = plan.actions.iter().filter(|action| is_edit_of(&action.what, 0));
            edits.count() >= 3 && plan.settings.latency_us + plan.settings.job_us >= 5_000
        };
        let mut tried = [0; 2];
        let one = shrink(&plan, 1, is_full, |progress| tried[0] = progress.tried);
        let many = shrink(&plan, 7, is_full, |progress| tried[1] = progress.tried);
        assert_eq!((one, tried[0]), (many, tried[1]));
    }
}

#[test]
fn a_world_is_cut_down_to_what_a_rare_state_needs() {
    let meets = |plan: &Plan| quiet::run(plan, false).coverage.of(State::CrashDuringWrites) > 0;
    let plan = (0..100).map(|seed| swarm::draw(seed, Profile::Opaque)).find(meets).unwrap();
    let small = shrink(&plan, 2, meets, |_| {});
    assert!(meets(&small));
    // Somebody opens a document, writes and crashes; a few more where the crash has to hit a moment
    // that depends on what came before.
    assert!(small.actions.len() <= 12, "{:?}", small.actions);
}

#[test]
fn plans_that_quickcheck_makes_and_shrinks_are_valid() {
    fn property(plan: Plan) -> bool {
        plan.validate().is_ok()
            && plan.shrink().all(|smaller| smaller.validate().is_ok() && smaller != plan)
    }
    quickcheck(60, 200).quickcheck(property as fn(Plan) -> bool);
}

#[test]
fn quickcheck_ends_with_nothing_if_everything_fails() {
    let mut plan = Plan::arbitrary(&mut Gen::from_size_and_seed(60, 1));
    let mut steps = 0;
    while let Some(smaller) = plan.shrink().next() {
        plan = smaller;
        steps += 1;
        assert!(steps < 1_000, "there is no end to {plan:?}");
    }
    assert!(plan.actions.is_empty() && plan.calm_ms <= 2);
    assert_eq!((plan.peers, plan.relays, plan.documents), (1, 1, 1));
}

#[test]
fn small_worlds_keep_every_rule() {
    fn property(plan: Plan) -> Result<bool, String> {
        match quiet::run(&plan, false).failure {
            None => Ok(true),
            Some(failure) => Err(format!("{failure:?}")),
        }
    }
    quickcheck(60, 200).quickcheck(property as fn(Plan) -> Result<bool, String>);
}
