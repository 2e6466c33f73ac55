//! Leases: what users do with them, and what must be true of what relays say. Drawn after the rest
//! and from numbers of its own, as [`crate::pressure`] is.

use std::collections::{BTreeMap, BTreeSet};

use concord::replica::ConnectionId;
use concord_protocol::{LeaseHolder, SessionId, limits::LEASE_GRACE_MS};

use crate::{
    contention::add,
    plan::{Keep, Name, Plan, Tenure, What},
    random::Rng,
    swarm::one_of,
};

/// Microseconds of a millisecond.
const MS: u64 = 1_000;
/// Clocks of processes count whole milliseconds, from a start between two.
const ROUNDING_US: u64 = 2 * MS;

/// Adds to a plan that has its users and faults.
pub(crate) fn draw(plan: &mut Plan) {
    let mut rng = Rng::new(plan.seed ^ 0x1EA5_E000);
    if !rng.chance(350) {
        return;
    }
    let latest_ms = plan.calm_ms.saturating_sub(90_000).max(5_001);
    for _ in 0..rng.between(1, 4) {
        let at_ms = rng.between(5_000, latest_ms);
        let relay = rng.small(0, plan.relays - 1);
        let document = rng.small(0, plan.documents - 1);
        let theirs: Vec<u8> =
            (0..plan.peers).filter(|peer| *peer == 0 || peer % plan.relays == relay).collect();
        let act = |plan: &mut Plan, after_ms: u64, peer: u8, act: Tenure| {
            add(plan, at_ms + after_ms, What::Lease { peer, relay, document, act });
        };
        let (one, other) = (one_of(&mut rng, &theirs), one_of(&mut rng, &theirs));
        match rng.below(4) {
            0 => {
                let mut after_ms = 0;
                for _ in 0..rng.between(3, 14) {
                    let acts = [
                        Tenure::Acquire,
                        Tenure::Acquire,
                        Tenure::Renew,
                        Tenure::TakeOver,
                        Tenure::Release,
                    ];
                    let peer = one_of(&mut rng, &theirs);
                    act(plan, after_ms, peer, one_of(&mut rng, &acts));
                    after_ms += rng.between(50, 12_000);
                }
            }
            1 => {
                // Two hold it one after the other, and both come back to a relay that has started
                // again.
                act(plan, 0, one, Tenure::Acquire);
                act(plan, 1_500, other, Tenure::TakeOver);
                let node = Name::Relay(relay);
                let crash = What::Crash { node, keep: Keep::Everything, down_ms: 10 };
                add(plan, at_ms + 4_000, crash);
                for after_ms in [6_000, 8_000, 10_000, 12_000] {
                    act(plan, after_ms, one_of(&mut rng, &theirs), Tenure::Acquire);
                    act(plan, after_ms + 300, one, Tenure::Renew);
                    act(plan, after_ms + 900, other, Tenure::Renew);
                }
            }
            2 => {
                act(plan, 0, one, Tenure::Acquire);
                add(plan, at_ms + 2_000, What::Cut { peer: one, relay, silent: rng.chance(300) });
                act(plan, 3_500, other, Tenure::Acquire);
                for after_ms in [5_000, 8_000, 11_000] {
                    act(plan, after_ms, one, Tenure::Renew);
                }
            }
            _ => {
                act(plan, 0, one, Tenure::Acquire);
                add(plan, at_ms + 2_000, What::Away { peer: one, for_ms: 60_000 });
                for after_ms in [5_000, 15_000, 25_000, 40_000] {
                    act(plan, after_ms, other, Tenure::Acquire);
                }
            }
        }
    }
}

/// What relays said of leases, by relay and document.
#[derive(Debug, Default)]
pub(crate) struct Tenures {
    grants: BTreeMap<(usize, u8), Grant>,
    /// Sessions from which somebody took it, and who were granted nothing since: they hear of it late.
    taken: BTreeSet<(usize, u8, SessionId)>,
}

/// A grant, as far as is known from outside.
#[derive(Debug)]
struct Grant {
    session: SessionId,
    fence: u64,
    until_us: u64,
    /// The connection over which its holder was told.
    over: Option<ConnectionId>,
    /// It was given back, or taken over.
    is_over: bool,
}

impl Tenures {
    /// A relay says who holds a lease, to whoever has this session. Whether it is granted anew.
    pub(crate) fn told(
        &mut self,
        (relay, document): (usize, u8),
        now_us: u64,
        (to, theirs): (ConnectionId, Option<&SessionId>),
        holder: &LeaseHolder,
    ) -> Result<bool, String> {
        let (session, fence) = (&holder.who.session, holder.fence);
        let until_us = now_us + u64::from(holder.left_ms) * MS;
        let is_first = !self.grants.contains_key(&(relay, document));
        let grant = self.grants.entry((relay, document)).or_insert_with(|| Grant {
            session: session.clone(),
            fence,
            until_us,
            over: None,
            is_over: false,
        });
        if fence < grant.fence {
            return Err(format!("fence {fence} of {session} came after {}", grant.fence));
        }
        if fence == grant.fence && *session != grant.session {
            return Err(format!("fence {fence} is of {} and of {session}", grant.session));
        }
        let is_new = is_first || fence > grant.fence;
        if fence > grant.fence {
            let is_valid = !grant.is_over && grant.until_us > now_us + ROUNDING_US;
            if is_valid && *session != grant.session {
                return Err(format!(
                    "{session} was granted fence {fence}, {} ms before that of {} was over",
                    (grant.until_us - now_us) / MS,
                    grant.session
                ));
            }
            (grant.over, grant.is_over) = (None, false);
        }
        (grant.session, grant.fence) = (session.clone(), fence);
        if theirs == Some(session) {
            grant.over = Some(to);
            grant.is_over = false;
        }
        if !grant.is_over {
            grant.until_us = until_us;
        }
        if is_new {
            self.taken.remove(&(relay, document, session.clone()));
        }
        Ok(is_new)
    }

    /// Somebody asks a relay for something that ends a grant: it is given back by its holder, taken
    /// over, or claimed by whoever held it before the relay started.
    pub(crate) fn ended(&mut self, (relay, document): (usize, u8), by: Option<&SessionId>) {
        if let Some(grant) = self.grants.get_mut(&(relay, document))
            && by.is_none_or(|by| *by == grant.session)
        {
            grant.is_over = true;
            if by.is_none() {
                self.taken.insert((relay, document, grant.session.clone()));
            }
        }
    }

    /// Whether somebody took it from a session, which may not know yet.
    pub(crate) fn was_taken(&self, (relay, document): (usize, u8), session: &SessionId) -> bool {
        self.taken.contains(&(relay, document, session.clone()))
    }

    /// A relay knows that a connection is gone: its holder is waited for.
    pub(crate) fn lost(&mut self, relay: usize, connection: ConnectionId, now_us: u64) {
        let until_us = now_us + u64::from(LEASE_GRACE_MS) * MS;
        for ((at, _), grant) in &mut self.grants {
            if *at == relay && grant.over == Some(connection) {
                grant.until_us = grant.until_us.min(until_us);
            }
        }
    }

    /// A relay starts again: those who held something are waited for.
    pub(crate) fn started(&mut self, relay: usize, now_us: u64) {
        let until_us = now_us + u64::from(LEASE_GRACE_MS) * MS;
        for ((at, _), grant) in &mut self.grants {
            if *at == relay {
                grant.until_us = grant.until_us.min(until_us);
                grant.over = None;
            }
        }
    }
}
