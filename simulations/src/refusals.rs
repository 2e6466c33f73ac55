//! Worlds whose relay does not take every change, and users who decide what becomes of those that it
//! refused. Drawn after the rest and from numbers of its own, as [`crate::pressure`] is. Only where
//! documents are real.

use crate::{
    contention::add,
    plan::{Edit, Name, Plan, Profile, What},
    random::Rng,
    swarm::{keep, one_of},
};

/// Bytes of the largest change that the relay takes: more than users write, unless they paste.
const NARROW_BYTES: u32 = 2_500;

/// Adds to a plan that has its users and faults.
pub(crate) fn draw(plan: &mut Plan) {
    let mut rng = Rng::new(plan.seed ^ 0x00DE_AD1E_77E5);
    // What one relay takes as a part of a whole document another may refuse as a change.
    if plan.profile != Profile::Automerge || plan.relays > 1 || !rng.chance(450) {
        return;
    }
    let settings = &mut plan.settings;
    settings.narrow_bytes = NARROW_BYTES;
    // Who speaks the older wire is told of a refusal in words, and earlier versions keep no letters.
    (settings.concord, settings.first_format_lives) = (u32::MAX, 0);
    // Damage and strangers would excuse what must not be lost here.
    plan.actions.retain(|action| !matches!(action.what, What::Rot { .. } | What::Attack { .. }));
    for _ in 0..rng.between(2, 8) {
        let at_ms = rng.between(5_000, plan.calm_ms.saturating_sub(60_000).max(5_001));
        refusal(&mut rng, plan, at_ms);
    }
}

/// A user pastes what the relay does not take, goes on, and decides; perhaps the power goes while that
/// is done.
fn refusal(rng: &mut Rng, plan: &mut Plan, at_ms: u64) {
    let (peer, document) = (rng.small(0, plan.peers - 1), rng.small(0, plan.documents - 1));
    let write = |plan: &mut Plan, at_ms, edit| {
        add(plan, at_ms, What::Edit { peer, document, edit });
    };
    write(plan, at_ms, Edit::Paste(rng.small(3, 6)));
    let edits = [Edit::Type(3), Edit::Put, Edit::Count, Edit::Insert, Edit::Remove, Edit::Paste(4)];
    for _ in 0..rng.between(0, 5) {
        let edit = one_of(rng, &edits);
        write(plan, at_ms + rng.between(1, 2_000), edit);
    }
    let mut at_ms = at_ms + one_of(rng, &[100, 3_000, 20_000]);
    for _ in 0..rng.between(1, 3) {
        let which = rng.small(0, 3);
        if rng.chance(250) {
            add(plan, at_ms, What::Retry { peer, which });
        } else {
            add(plan, at_ms, What::Discard { peer, which });
            // While it is taken out somebody writes, or the power goes.
            let soon_us = u64::from(plan.settings.flush_us.max(1_000));
            let soon_ms = at_ms + rng.below(1 + 6 * soon_us / 1_000);
            if rng.chance(450) {
                let node = Name::Peer(peer);
                let down_ms = one_of(rng, &[10, 1_000]);
                add(plan, soon_ms, What::Crash { node, keep: keep(rng), down_ms });
            } else {
                let peer = rng.small(0, plan.peers - 1);
                add(plan, soon_ms, What::Edit { peer, document, edit: Edit::Type(1) });
            }
        }
        at_ms += rng.between(500, 15_000);
    }
}
