//! Deterministic simulations of whole worlds of relays and peers.
//!
//! The engine has no clock, socket, disk or randomness of its own, so a world of any number of
//! nodes runs in one thread, in virtual time, as fast as the processor allows, and the same seed
//! gives the same world, to the last message. The replica and the store are the production ones;
//! network, disks, clocks, users and strangers are simulated.
//!
//! A [`plan::Plan`] says what users do and what goes wrong; [`swarm::draw`] draws one from a
//! seed; [`run`] lives through it and gives a [`Report`]: whether a rule was broken, and which
//! rare states were met.

pub mod batch;
mod checks;
mod contention;
pub mod coverage;
mod disk;
mod families;
pub mod ledger;
mod opaque;
pub mod plan;
mod pressure;
pub mod quiet;
pub mod random;
mod refusals;
pub mod regression;
pub mod shrink;
pub mod swarm;
mod tenure;
pub mod trace;
mod world;

pub use concord::mutant::Mutant;
pub use world::Report;

/// Engines allocate much and for a short time, and a world does little else.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Lives through a plan, to its end or to the first broken rule. With `trace`, keeps all that
/// happens, which takes memory and several times as long.
pub fn run(plan: &plan::Plan, trace: bool) -> Report {
    run_with(plan, trace, None)
}

/// As [`run`], with one rule of the engine broken on purpose: the report must say so.
pub fn run_with(plan: &plan::Plan, trace: bool, mutant: Option<Mutant>) -> Report {
    let _broken = concord::mutant::set(mutant);
    concord::probe::drain();
    let mut report = world::World::run(plan, trace);
    report.coverage.add_marks(&concord::probe::drain());
    report
}
