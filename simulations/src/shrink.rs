//! Cuts a plan down to what a failure needs: delta debugging (Zeller, Hildebrandt, 2002), first in
//! large pieces, then in small ones, then the rest made plain.
//!
//! What fails is the caller's to say, so that this can be tested without a fault in the engine.

mod steps;

use std::thread;

use quickcheck::{Arbitrary, Gen};

use self::steps::Pass;
use crate::{
    plan::{Plan, Profile, What},
    random::Rng,
    swarm,
};

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'p> {
    /// The smallest plan so far.
    pub plan: &'p Plan,
    /// Plans that were tried.
    pub tried: u64,
}

/// The smallest plan that is found in this way and still `fails`; the one that was given, if
/// nothing can be left out. So many `jobs` plans are tried at a time; the outcome is the same with
/// any number. `told` hears of each plan that was tried.
pub fn shrink(
    plan: &Plan,
    jobs: usize,
    fails: impl Fn(&Plan) -> bool + Sync,
    mut told: impl FnMut(Progress<'_>),
) -> Plan {
    let mut plan = plan.clone();
    let mut tried = 0;
    // The order of a world's actions is that of their times.
    let mut sorted = plan.clone();
    sorted.actions.sort_by_key(|action| action.at_ms);
    if sorted != plan {
        if !fails(&sorted) {
            return plan;
        }
        plan = sorted;
    }
    loop {
        let before = plan.clone();
        for pass in Pass::all(&plan) {
            // After a success the steps are others; those before this place were in vain a moment
            // ago, and the next round tries them again.
            let mut at = 0;
            let mut steps = pass.steps(&plan);
            while at < steps.len() {
                let next = steps.iter().enumerate().skip(at);
                let next = next.filter_map(|(at, step)| Some((at, step.apply(&plan)?)));
                let next: Vec<(usize, Plan)> = next.take(jobs.max(1)).collect();
                let Some((last, _)) = next.last() else { break };
                at = last + 1;
                let failed = first(&next, &fails);
                for _ in 0..failed.map_or(next.len(), |first| first + 1) {
                    tried += 1;
                    told(Progress { plan: &plan, tried });
                }
                if let Some((place, smaller)) = failed.and_then(|first| next.into_iter().nth(first))
                {
                    (plan, at) = (smaller, place);
                    steps = pass.steps(&plan);
                }
            }
        }
        if plan == before {
            return plan;
        }
    }
}

/// The first of these plans that fails.
fn first(plans: &[(usize, Plan)], fails: &(impl Fn(&Plan) -> bool + Sync)) -> Option<usize> {
    if let [(_, plan)] = plans {
        return fails(plan).then_some(0);
    }
    thread::scope(|scope| {
        let tries = plans.iter().map(|(_, plan)| scope.spawn(|| fails(plan)));
        let tries: Vec<_> = tries.collect();
        // A predicate that panics is its own caller's fault: it goes on there.
        let failed = tries
            .into_iter()
            .map(|this| this.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        failed.collect::<Vec<_>>().into_iter().position(|failed| failed)
    })
}

/// Plans like those of [`swarm::draw`], with about as many actions as the generator's size.
impl Arbitrary for Plan {
    fn arbitrary(g: &mut Gen) -> Self {
        let seed = u64::arbitrary(g);
        let profile =
            if u8::arbitrary(g).is_multiple_of(8) { Profile::Automerge } else { Profile::Opaque };
        let mut plan = swarm::draw(seed, profile);
        let mut rng = Rng::new(seed);
        let (all, some) = (plan.actions.len() as u64, g.size() as u64);
        // Without the hub a world of several relays makes no sense.
        let is_of_hub = |what: &What| matches!(what, What::Open { peer: 0, .. });
        plan.actions.retain(|action| is_of_hub(&action.what) || rng.below(all) < some);
        plan
    }

    /// The steps of [`shrink`].
    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        let plan = self.clone();
        let steps = Pass::all(self).into_iter().flat_map({
            let plan = plan.clone();
            move |pass| pass.steps(&plan)
        });
        Box::new(steps.filter_map(move |step| step.apply(&plan)))
    }
}
