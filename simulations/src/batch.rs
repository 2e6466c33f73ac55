//! Many worlds, in several threads.

use std::{
    ops::{ControlFlow, Range},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    Mutant, Report,
    plan::{Plan, Profile},
    quiet, swarm,
};

/// How often the time of unfinished worlds is looked at.
const TICK: Duration = Duration::from_millis(500);

/// Which worlds.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Their seeds.
    pub seeds: Range<u64>,
    /// What their documents are made of.
    pub profile: Profile,
    /// Threads.
    pub jobs: usize,
    /// Live through each world twice and compare.
    pub twice: bool,
    /// A rule of the engine that is broken on purpose.
    pub mutant: Option<Mutant>,
}

/// One world of a batch, lived through.
#[derive(Debug)]
pub struct Lived {
    /// Its seed.
    pub seed: u64,
    /// What came of it, the first time.
    pub report: Report,
    /// How the second time differed from the first, if there was one and it did.
    pub difference: Option<String>,
    /// How long it took in all, of the time of this machine.
    pub took: Duration,
}

/// What a batch says while it runs.
#[derive(Debug)]
pub enum News {
    /// A world is over.
    Lived(Box<Lived>),
    /// This world has been running for so long.
    Slow(u64, Duration),
}

impl Batch {
    /// Lives through the worlds and tells of each. After a `Break` no further world is begun; those
    /// that are under way are told of nevertheless.
    pub fn run(&self, told: impl FnMut(News) -> ControlFlow<()> + Send) {
        let next = AtomicU64::new(self.seeds.start);
        let is_over = AtomicBool::new(false);
        let jobs = self.jobs.max(1);
        let under_way: Vec<Mutex<Option<(u64, Instant)>>> =
            (0..jobs).map(|_| Mutex::new(None)).collect();
        let told = Mutex::new(told);
        // Who lived through a world tells of it, and knows what came of that before it goes on.
        let tell = |news: News| {
            let flow = locked(&told)(news);
            is_over.fetch_or(flow.is_break(), Ordering::Relaxed);
        };
        let (at_work, all_done) = mpsc::channel::<()>();
        thread::scope(|scope| {
            for slot in &under_way {
                let at_work = at_work.clone();
                let (next, is_over, tell) = (&next, &is_over, &tell);
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if !self.seeds.contains(&seed) {
                            break;
                        }
                        *locked(slot) = Some((seed, Instant::now()));
                        let lived = self.live(seed);
                        *locked(slot) = None;
                        tell(News::Lived(Box::new(lived)));
                    }
                    drop(at_work);
                });
            }
            drop(at_work);
            while let Err(mpsc::RecvTimeoutError::Timeout) = all_done.recv_timeout(TICK) {
                let slow: Vec<_> = under_way.iter().filter_map(|slot| *locked(slot)).collect();
                for (seed, since) in slow {
                    tell(News::Slow(seed, since.elapsed()));
                }
            }
        });
    }

    fn live(&self, seed: u64) -> Lived {
        let started = Instant::now();
        let plan = swarm::draw(seed, self.profile);
        let live = || quiet::run_with(&plan, false, self.mutant);
        let report = live();
        let difference = if self.twice { compare(&report, &live()) } else { None };
        Lived { seed, report, difference, took: started.elapsed() }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lives through a plan once more and says how that differed from the first time.
pub fn difference(plan: &Plan, first: &Report, trace: bool) -> Option<String> {
    compare(first, &quiet::run(plan, trace))
}

fn compare(first: &Report, second: &Report) -> Option<String> {
    let pairs = [
        ("events", first.events, second.events),
        ("milliseconds", first.simulated_ms, second.simulated_ms),
        ("changes", first.changes, second.changes),
        ("messages", first.messages, second.messages),
        ("digest", first.digest, second.digest),
    ];
    for (what, one, two) in pairs {
        if one != two {
            return Some(format!("{what}: {one} the first time, {two} the second"));
        }
    }
    if first.failure != second.failure {
        return Some(format!("failure: {:?}, then {:?}", first.failure, second.failure));
    }
    if first.faults != second.faults {
        return Some(format!("faults: {:?}, then {:?}", first.faults, second.faults));
    }
    (first.coverage != second.coverage)
        .then(|| format!("rare states: {:?}, then {:?}", first.coverage, second.coverage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_told_of_once() {
        let batch =
            Batch { seeds: 5..15, profile: Profile::Opaque, jobs: 3, twice: false, mutant: None };
        let mut seeds = Vec::new();
        batch.run(|news| {
            if let News::Lived(lived) = news {
                assert!(lived.report.events > 0);
                seeds.push(lived.seed);
            }
            ControlFlow::Continue(())
        });
        seeds.sort_unstable();
        assert_eq!(seeds, (5..15).collect::<Vec<_>>());
    }

    #[test]
    fn a_batch_can_be_ended() {
        let batch = Batch {
            seeds: 0..u64::MAX,
            profile: Profile::Opaque,
            jobs: 2,
            twice: false,
            mutant: None,
        };
        let mut count = 0;
        batch.run(|_| {
            count += 1;
            ControlFlow::Break(())
        });
        assert!((1..=50).contains(&count), "{count}");
    }

    #[test]
    fn two_different_worlds_differ() {
        let report = quiet::run(&swarm::draw(1, Profile::Opaque), false);
        assert_eq!(difference(&swarm::draw(1, Profile::Opaque), &report, false), None);
        assert!(difference(&swarm::draw(2, Profile::Opaque), &report, false).is_some());
    }
}
