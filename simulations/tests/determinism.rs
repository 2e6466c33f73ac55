//! A world is determined by its plan: lived through twice, it is the same to the last message.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::ops::ControlFlow;

use concord_simulations::{
    batch::{Batch, News, difference},
    plan::Profile,
    quiet, swarm,
};

/// The differences within a batch whose worlds are lived through twice, and the rules that they
/// broke.
fn differences(seeds: std::ops::Range<u64>, profile: Profile) -> Vec<String> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let count = seeds.end - seeds.start;
    let batch = Batch { seeds, profile, jobs, twice: true, mutant: None };
    let (mut lived, mut found) = (0, Vec::new());
    batch.run(|news| {
        if let News::Lived(world) = news {
            lived += 1;
            found.extend(world.difference.map(|what| format!("seed {}: {what}", world.seed)));
            found.extend(world.report.failure.map(|what| format!("seed {}: {what:?}", world.seed)));
        }
        ControlFlow::Continue(())
    });
    assert_eq!(lived, count);
    found
}

#[test]
fn opaque_worlds_are_the_same_twice() {
    assert_eq!(differences(0..200, Profile::Opaque), [""; 0]);
}

#[test]
fn automerge_worlds_are_the_same_twice() {
    assert_eq!(differences(0..12, Profile::Automerge), [""; 0]);
}

#[test]
fn a_world_that_is_watched_is_the_same() {
    for (profile, seeds) in [(Profile::Opaque, 200..220), (Profile::Automerge, 20..23)] {
        for seed in seeds {
            let plan = swarm::draw(seed, profile);
            let unseen = quiet::run(&plan, false);
            assert_eq!(difference(&plan, &unseen, true), None, "seed {seed}, {profile:?}");
        }
    }
}

#[test]
fn other_seeds_are_other_worlds() {
    let digest = |seed| quiet::run(&swarm::draw(seed, Profile::Opaque), false).digest;
    let mut digests: Vec<u64> = (0..20).map(digest).collect();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 20);
}
