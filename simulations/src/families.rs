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
    let mut rng = Rng::new(plan.seed ^ 0xFA_3117_1E5);
    if plan.profile != Profile::Automerge || !rng.chance(600) {
        return;
    }
    for _ in 0..rng.between(1, 6) {
        let latest_ms = plan.calm_ms.saturating_sub(2 * APART_MS).max(AGREED_MS + 2_001);
        let at_ms = rng.between(AGREED_MS + 2_000, latest_ms);
        trouble(&mut rng, plan, at_ms);
    }
}

/// Two or more do what cannot both be.
fn trouble(rng: &mut Rng, plan: &mut Plan, at_ms: u64) {
    let (one, other) = (rng.small(0, plan.documents - 1), rng.small(0, plan.documents - 1));
    let first = rng.small(0, plan.peers - 1);
    let second = (first + rng.small(0, plan.peers - 1)) % plan.peers;
    let both = |edits: [(u8, u8, Edit); 2]| edits;
    let edits = match rng.below(8) {
        0 => {
            write(plan, at_ms - AGREED_MS, first, one, Edit::Supply);
            both([(first, one, Edit::Sell), (second, one, Edit::Promise)])
        }
        1 => {
            let name = rng.small(0, 2);
            both([(first, one, Edit::Name(name)), (second, other, Edit::Name(name))])
        }
        2 => both([(first, one, Edit::Under(other)), (second, other, Edit::Under(one))]),
        3 => both([(first, one, Edit::Under(other)), (second, other, Edit::Bury)]),
        4 => {
            let edit = one_of(rng, &[Edit::Supply, Edit::Place, Edit::Level, Edit::Step]);
            both([(first, one, Edit::Bury), (second, one, edit)])
        }
        5 => both([(first, one, Edit::Place), (second, one, Edit::Place)]),
        6 => {
            let edit = one_of(rng, &[Edit::Level, Edit::Step]);
            both([(first, one, edit), (second, one, edit)])
        }
        _ => {
            let edit = one_of(rng, &[Edit::Raise, Edit::Supply, Edit::Name(0)]);
            both([(first, one, Edit::Misfit), (second, other, edit)])
        }
    };
    if rng.chance(800) {
        apart(plan, at_ms - 500, APART_MS);
    }
    for (peer, document, edit) in edits {
        write(plan, at_ms + rng.between(0, 400), peer, document, edit);
    }
}

fn write(plan: &mut Plan, at_ms: u64, peer: u8, document: u8, edit: Edit) {
    add(plan, at_ms, What::Edit { peer, document, edit });
}
