//! Users who keep entities: what a schema says of them, each keeps to it alone, and together they do
//! not. Drawn after the rest and from numbers of its own, as [`crate::pressure`] is. Only where
//! documents are real.

use crate::{
    contention::{add, apart},
    plan::{Edit, Plan, Profile, What},
    random::Rng,
    swarm::one_of,
};

/// Milliseconds for which nobody hears of anybody while they write.
const APART_MS: u64 = 2_000;
/// Before that they agree on what there is.
const AGREED_MS: u64 = 8_000;

/// Adds to a plan that has its users and faults.
pub(crate) fn draw(plan: &mut Plan) {
    let mut rng = Rng::new(plan.seed ^ 0x000F_A311_71E5);
    if plan.profile != Profile::Automerge || !rng.chance(600) {
        return;
    }
    // Few kinds of trouble in one world: what one leaves, another would put away.
    let kinds: Vec<u64> = (0..rng.between(1, 3)).map(|_| rng.below(8)).collect();
    for _ in 0..rng.between(3, 10) {
        let latest_ms = plan.calm_ms.saturating_sub(2 * APART_MS).max(AGREED_MS + 2_001);
        let at_ms = rng.between(AGREED_MS + 2_000, latest_ms);
        let kind = one_of(&mut rng, &kinds);
        trouble(&mut rng, plan, at_ms, kind);
    }
}

/// Some do one thing and others another, and both cannot be.
fn trouble(rng: &mut Rng, plan: &mut Plan, at_ms: u64, kind: u64) {
    let one = rng.small(0, plan.documents - 1);
    let other = match plan.documents {
        1 => one,
        documents => (one + rng.small(1, documents - 1)) % documents,
    };
    let [some, others] = match kind {
        0 => {
            let peer = rng.small(0, plan.peers - 1);
            write(plan, at_ms - AGREED_MS, peer, one, Edit::Supply);
            [(one, Edit::Sell), (one, Edit::Promise)]
        }
        1 => {
            let name = rng.small(0, 2);
            [(one, Edit::Name(name)), (other, Edit::Name(name))]
        }
        2 => [(one, Edit::Under(other)), (other, Edit::Under(one))],
        3 => [(one, Edit::Under(other)), (other, Edit::Bury)],
        4 => {
            let edit = one_of(rng, &[Edit::Supply, Edit::Place, Edit::Level, Edit::Step]);
            [(one, Edit::Bury), (one, edit)]
        }
        5 => [(one, Edit::Place), (one, Edit::Place)],
        6 => {
            let edit = one_of(rng, &[Edit::Level, Edit::Step]);
            [(one, edit), (one, edit)]
        }
        _ => {
            let edit = one_of(rng, &[Edit::Raise, Edit::Supply, Edit::Name(0)]);
            [(one, Edit::Misfit), (other, edit)]
        }
    };
    if rng.chance(800) {
        apart(plan, at_ms - 500, APART_MS);
    }
    let first = rng.small(0, 1);
    for peer in 0..plan.peers {
        let (document, edit) = if peer % 2 == first { some } else { others };
        write(plan, at_ms + rng.between(0, 400), peer, document, edit);
    }
}

fn write(plan: &mut Plan, at_ms: u64, peer: u8, document: u8, edit: Edit) {
    add(plan, at_ms, What::Edit { peer, document, edit });
}
