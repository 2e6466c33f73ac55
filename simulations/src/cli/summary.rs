//! What a batch of worlds came to, for people and for programs.

use std::{collections::BTreeMap, io, iter::once, time::Duration};

use concord_simulations::{batch::Lived, coverage::Coverage, plan::Profile};
use serde::Serialize;

use super::text::{count, rate, real, table};

/// What a broken determinism is called, which is no rule of a world's own.
const DETERMINISM: &str = "determinism";

/// Seeds that are named of each broken rule.
const SEEDS_MAX: usize = 8;

/// A rule that was broken.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Trouble {
    pub(crate) seed: u64,
    pub(crate) invariant: &'static str,
    pub(crate) at_ms: u64,
    pub(crate) detail: String,
}

impl Trouble {
    /// Those of a world: none, one, or two.
    pub(crate) fn of(lived: &Lived) -> Vec<Self> {
        let seed = lived.seed;
        let broken = lived.report.failure.as_ref().map(|failure| Self {
            seed,
            invariant: failure.invariant.as_str(),
            at_ms: failure.at_ms,
            detail: failure.detail.clone(),
        });
        let differs = lived.difference.as_ref().map(|difference| Self {
            seed,
            invariant: DETERMINISM,
            at_ms: lived.report.simulated_ms,
            detail: difference.clone(),
        });
        broken.into_iter().chain(differs).collect()
    }
}

/// How often a rare state was met.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Met {
    times: u64,
    worlds: u64,
}

/// Sums over worlds.
#[derive(Debug)]
pub(crate) struct Summary {
    profile: Profile,
    jobs: usize,
    twice: bool,
    pub(crate) seeds: u64,
    pub(crate) failed: u64,
    pub(crate) events: u64,
    simulated_ms: u64,
    changes: u64,
    messages: u64,
    faults: BTreeMap<&'static str, u64>,
    states: BTreeMap<&'static str, Met>,
    coverage: Coverage,
    troubles: Vec<Trouble>,
    /// Of all threads.
    busy: Duration,
    /// From the start to the end.
    pub(crate) took: Duration,
}

impl Summary {
    pub(crate) fn new(profile: Profile, jobs: usize, twice: bool) -> Self {
        Self {
            profile,
            jobs,
            twice,
            seeds: 0,
            failed: 0,
            events: 0,
            simulated_ms: 0,
            changes: 0,
            messages: 0,
            faults: BTreeMap::new(),
            states: BTreeMap::new(),
            coverage: Coverage::default(),
            troubles: Vec::new(),
            busy: Duration::ZERO,
            took: Duration::ZERO,
        }
    }

    pub(crate) fn add(&mut self, lived: &Lived) {
        let report = &lived.report;
        // A world that is lived through twice is counted twice where speed is meant.
        let lives = if self.twice { 2 } else { 1 };
        self.seeds += 1;
        self.events += lives * report.events;
        self.simulated_ms += lives * report.simulated_ms;
        self.changes += report.changes;
        self.messages += report.messages;
        self.busy += lived.took;
        for (fault, times) in &report.faults {
            *self.faults.entry(fault).or_default() += times;
        }
        self.coverage.add(&report.coverage);
        for (state, times) in report.coverage.iter() {
            let met = self.states.entry(state).or_default();
            met.times += times;
            met.worlds += 1;
        }
        let troubles = Trouble::of(lived);
        self.failed += u64::from(!troubles.is_empty());
        self.troubles.extend(troubles);
    }

    fn hours(&self) -> f64 {
        real(self.simulated_ms) / 3_600_000.0
    }

    pub(crate) fn print(&self, out: &mut impl io::Write) -> io::Result<()> {
        let (busy, took) = (self.busy.as_secs_f64(), self.took.as_secs_f64());
        let plural = |number: u64| if number == 1 { "" } else { "s" };
        writeln!(
            out,
            "{} seed{}, {} failed, in {took:.1} s with {} thread{}{}\n",
            count(self.seeds),
            plural(self.seeds),
            count(self.failed),
            self.jobs,
            plural(self.jobs as u64),
            if self.twice { ", each world twice" } else { "" },
        )?;
        let speed =
            |what: &str, number| vec![what.to_owned(), rate(number, took), rate(number, busy)];
        let rows = [
            row(["", "in a second", "of one thread"]),
            speed("events", real(self.events)),
            speed("simulated hours", self.hours()),
            speed("seeds", real(self.seeds)),
        ];
        writeln!(out, "{}", table(&rows))?;
        let rows = [
            row(["events", &count(self.events)]),
            row(["simulated hours", &format!("{:.1}", self.hours())]),
            row(["changes", &count(self.changes)]),
            row(["messages", &count(self.messages)]),
        ];
        writeln!(out, "{}", table(&rows))?;
        let faults = self.faults.iter().map(|(name, times)| row([name, &count(*times)]));
        let rows: Vec<_> = once(row(["faults", "times"])).chain(faults).collect();
        writeln!(out, "{}", table(&rows))?;
        let states = self
            .states
            .iter()
            .map(|(state, met)| row([state, &count(met.times), &count(met.worlds)]));
        let rows: Vec<_> = once(row(["rare states", "times", "worlds"])).chain(states).collect();
        write!(out, "{}", table(&rows))?;
        for (number, state) in self.coverage.missing().enumerate() {
            if number == 0 {
                writeln!(out, "\n  never met")?;
            }
            writeln!(out, "  {state}")?;
        }
        self.print_troubles(out)
    }

    fn print_troubles(&self, out: &mut impl io::Write) -> io::Result<()> {
        let mut rules: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for trouble in &self.troubles {
            rules.entry(trouble.invariant).or_default().push(trouble.seed);
        }
        for (number, (rule, mut seeds)) in rules.into_iter().enumerate() {
            if number == 0 {
                writeln!(out, "\n  broken")?;
            }
            seeds.sort_unstable();
            let some: Vec<String> = seeds.iter().take(SEEDS_MAX).map(u64::to_string).collect();
            let more = if seeds.len() > some.len() { ", ..." } else { "" };
            writeln!(out, "  {rule}: {}, seeds {}{more}", seeds.len(), some.join(", "))?;
        }
        Ok(())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        let (busy, took) = (self.busy.as_secs_f64(), self.took.as_secs_f64());
        let per = |number: f64, seconds: f64| if seconds > 0.0 { number / seconds } else { 0.0 };
        serde_json::json!({
            "profile": self.profile,
            "jobs": self.jobs,
            "each_world_twice": self.twice,
            "seeds": self.seeds,
            "failed": self.failed,
            "seconds": took,
            "thread_seconds": busy,
            "events": self.events,
            "events_per_second": per(real(self.events), took),
            "events_per_thread_second": per(real(self.events), busy),
            "simulated_hours": self.hours(),
            "simulated_hours_per_second": per(self.hours(), took),
            "simulated_hours_per_thread_second": per(self.hours(), busy),
            "changes": self.changes,
            "messages": self.messages,
            "faults": self.faults,
            "states": self.states,
            "states_never_met": self.coverage.missing().collect::<Vec<_>>(),
            "failures": self.troubles,
        })
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}
