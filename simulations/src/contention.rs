//! Users who are in each other's way: several write in one place without having seen each other,
//! and some of them decide what became of that. Drawn after the rest and from numbers of its own,
//! as [`crate::pressure`] is. Only where documents are real.

use crate::{
    plan::{Action, Edit, Plan, Profile, Way, What},
    random::Rng,
    swarm::one_of,
};

/// Milliseconds of a quarrel, after which some decide.
const QUARREL_MS: u64 = 2_000;

/// Adds to a plan that has its users and faults.
pub(crate) fn draw(plan: &mut Plan) {
    let mut rng = Rng::new(plan.seed ^ 0xD15_A62EE);
    if plan.profile != Profile::Automerge || !rng.chance(600) {
        return;
    }
    // Each world has a part of the ways to get in each other's way.
    let all = [
        Edit::Clash,
        Edit::Clash,
        Edit::Drop,
        Edit::Dig,
        Edit::Dig,
        Edit::Raze,
        Edit::Tick,
        Edit::Reset,
    ];
    let some: Vec<Edit> = all.into_iter().filter(|_| rng.chance(700)).collect();
    let kinds = if some.is_empty() { &all[..] } else { &some };
    let quarrels = rng.between(1, 6);
    for _ in 0..quarrels {
        let latest_ms = plan.calm_ms.saturating_sub(3 * QUARREL_MS).max(2_001);
        let at_ms = rng.between(2_000, latest_ms);
        quarrel(&mut rng, plan, kinds, at_ms);
    }
    if rng.chance(400) {
        // What is decided last stays decided, or in dispute.
        let document = rng.small(0, plan.documents - 1);
        let at_ms = plan.calm_ms.saturating_sub(QUARREL_MS);
        write(
            &mut rng,
            plan,
            &[Edit::Clash, Edit::Dig, Edit::Raze],
            document,
            at_ms - 3 * QUARREL_MS,
        );
        decide(&mut rng, plan, document, at_ms);
    }
}

fn quarrel(rng: &mut Rng, plan: &mut Plan, kinds: &[Edit], at_ms: u64) {
    let document = rng.small(0, plan.documents - 1);
    write(rng, plan, kinds, document, at_ms);
    if rng.chance(600) {
        let at_ms = at_ms + QUARREL_MS + rng.between(0, 90_000);
        decide(rng, plan, document, at_ms.min(plan.calm_ms.saturating_sub(1_000)));
    }
}

/// Several write at the same time.
fn write(rng: &mut Rng, plan: &mut Plan, kinds: &[Edit], document: u8, at_ms: u64) {
    if rng.chance(500) {
        apart(plan, at_ms - 500, QUARREL_MS);
    }
    // All of one kind, or what comes.
    let only = one_of(rng, kinds);
    let is_mixed = rng.chance(700);
    for peer in 0..plan.peers {
        for _ in 0..rng.between(0, 3) {
            let edit = if is_mixed { one_of(rng, kinds) } else { only };
            add(plan, at_ms + rng.between(0, 400), What::Edit { peer, document, edit });
        }
    }
}

/// One decides, or several do at the same time.
fn decide(rng: &mut Rng, plan: &mut Plan, document: u8, at_ms: u64) {
    if rng.chance(300) {
        apart(plan, at_ms.saturating_sub(300), QUARREL_MS);
    }
    let edit = Edit::Decide(rng.small(0, 255));
    let is_alone = rng.chance(400);
    let first = rng.small(0, plan.peers - 1);
    for peer in 0..plan.peers {
        if peer == first || !is_alone {
            add(plan, at_ms, What::Edit { peer, document, edit });
        }
    }
}

/// Nobody hears of anybody for a while.
pub(crate) fn apart(plan: &mut Plan, at_ms: u64, for_ms: u64) {
    let for_ms = u32::try_from(for_ms).unwrap_or(u32::MAX);
    for peer in 0..plan.peers {
        for relay in 0..plan.relays {
            add(plan, at_ms, What::Partition { peer, relay, way: Way::Both, for_ms });
        }
    }
}

pub(crate) fn add(plan: &mut Plan, at_ms: u64, what: What) {
    plan.actions.push(Action { at_ms, what });
}
