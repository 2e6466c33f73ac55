//! Draws a plan from a seed: which faults there are, how strong, and what users do.
//!
//! Each world has a part of the faults only ("Swarm Testing", Groce et al., 2012): faults that
//! are always on hide each other.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::{
    contention, families,
    plan::{Action, Attack, DiskFault, Edit, Keep, Name, Plan, Profile, Settings, Way, What},
    pressure,
    random::Rng,
    refusals, tenure,
};

/// Milliseconds of a minute.
const MINUTE_MS: u64 = 60_000;

/// Faults are drawn by the hour, up to these milliseconds: longer worlds have them thinner.
const HOURS_OF_TROUBLE_MS: u64 = 120 * MINUTE_MS;

/// What a world has of each kind of trouble: how many, in an hour of trouble.
struct Trouble {
    cuts: u64,
    silent_cuts: u64,
    partitions: u64,
    flaps: u64,
    stalls: u64,
    pauses: u64,
    peer_crashes: u64,
    relay_crashes: u64,
    drains: u64,
    hangs: u64,
    disk_failures: u64,
    full_disks: u64,
    rot: u64,
    clock_jumps: u64,
    attacks: u64,
    absences: u64,
}

/// The plan of this seed.
pub fn draw(seed: u64, profile: Profile) -> Plan {
    let mut rng = Rng::new(seed ^ 0xC0_4C08D);
    let relays = if rng.chance(300) { rng.small(2, 3) } else { 1 };
    let peers = match profile {
        Profile::Opaque => rng.small(2, 6),
        Profile::Automerge => rng.small(2, 4),
    };
    let documents = match rng.below(10) {
        0..4 => 1,
        4..8 => rng.small(2, 4),
        _ => rng.small(8, 24),
    };
    let minutes = match profile {
        Profile::Opaque => rng.between(20, 90),
        Profile::Automerge => rng.between(10, 40),
    };
    // Now and then a world of days, with no more trouble than one of hours.
    let minutes = if rng.chance(40) { minutes * 60 } else { minutes };
    let calm_ms = minutes * MINUTE_MS;
    let mut plan = Plan {
        seed,
        profile,
        relays,
        peers,
        documents,
        settings: settings(&mut rng, profile),
        actions: Vec::new(),
        calm_ms,
    };
    users(&mut rng, &mut plan);
    faults(&mut rng, &mut plan);
    pressure::draw(&mut plan);
    contention::draw(&mut plan);
    families::draw(&mut plan);
    // A number of its own, so that the rest of a seed's plan is as it was.
    let mut rng = Rng::new(seed ^ 0xDEB0);
    plan.settings.debounce_ms = one_of(&mut rng, &[0, 0, 20, 200, 200, 2_000]);
    let mut rng = Rng::new(seed ^ 0xFA11);
    plan.settings.failover = one_of(&mut rng, &[0, u32::MAX, 0xAAAA_AAAA]);
    tenure::draw(&mut plan);
    refusals::draw(&mut plan);
    plan.actions.sort_by_key(|action| action.at_ms);
    plan
}

/// One of some.
pub(crate) fn one_of<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    // The lists below are not empty, and an index below a length is in the list.
    from[usize::try_from(rng.below(from.len() as u64)).unwrap_or(0)]
}

fn settings(rng: &mut Rng, profile: Profile) -> Settings {
    Settings {
        compact_changes: one_of(rng, &[3, 10, 20, 20, 60, 60, 60, 500, 500, 500]),
        idle_ms: one_of(rng, &[200, 3_000, 20_000, 60_000]),
        check_ms: one_of(rng, &[50, 500, 2_000]),
        strict: rng.chance(250),
        concord: u32::try_from(rng.next() & 0xFFFF_FFFF).unwrap_or(u32::MAX)
            | if rng.chance(500) { u32::MAX } else { 0 },
        latency_us: one_of(rng, &[200, 5_000, 40_000, 200_000]),
        bytes_per_ms: one_of(rng, &[20, 1_000, 50_000]),
        window_bytes: one_of(rng, &[512, 16_384, 262_144]),
        flush_us: one_of(rng, &[100, 2_000, 20_000, 300_000]),
        read_us: one_of(rng, &[20, 500, 20_000, 300_000]),
        job_us: match profile {
            Profile::Opaque => one_of(rng, &[500, 10_000, 400_000]),
            Profile::Automerge => one_of(rng, &[2_000, 100_000, 1_000_000]),
        },
        lag_us: one_of(rng, &[1, 50, 1_000, 20_000]),
        batch_bytes: one_of(rng, &[1, 400, 4_096, 1 << 20]),
        job_failures: if rng.chance(250) { 100 } else { 0 },
        // Drawn later.
        queue_bytes: 2 * 1024 * 1024,
        group_writes: u32::MAX,
        first_format_lives: 0,
        debounce_ms: 0,
        narrow_bytes: 0,
        failover: 0,
    }
}

fn trouble(rng: &mut Rng) -> Trouble {
    let mut some =
        |chance: u64, most: u64| if rng.chance(chance) { rng.between(1, most) } else { 0 };
    Trouble {
        cuts: some(600, 60),
        silent_cuts: some(300, 10),
        partitions: some(400, 20),
        flaps: some(150, 3),
        stalls: some(300, 10),
        pauses: some(200, 6),
        peer_crashes: some(500, 30),
        relay_crashes: some(500, 30),
        drains: some(250, 6),
        hangs: some(250, 10),
        disk_failures: some(250, 6),
        full_disks: some(150, 3),
        rot: some(200, 3),
        clock_jumps: some(250, 10),
        attacks: some(250, 30),
        absences: some(200, 3),
    }
}

/// When something begins, so that it is over by the calm.
fn when(rng: &mut Rng, plan: &Plan) -> u64 {
    rng.between(1_000, plan.calm_ms.saturating_sub(1_000).max(1_001))
}

fn node(rng: &mut Rng, plan: &Plan) -> Name {
    if rng.chance(400) {
        Name::Relay(rng.small(0, plan.relays - 1))
    } else {
        Name::Peer(rng.small(0, plan.peers - 1))
    }
}

fn users(rng: &mut Rng, plan: &mut Plan) {
    // The first peer has every document open from the start; the others open what they will.
    for peer in 0..plan.peers {
        for document in 0..plan.documents {
            if peer == 0 || rng.chance(800) {
                let at_ms = if peer == 0 { 10 } else { rng.between(10, plan.calm_ms / 3) };
                plan.actions.push(Action { at_ms, what: What::Open { peer, document } });
                if peer > 0 && rng.chance(150) {
                    let at_ms = rng.between(at_ms, plan.calm_ms);
                    plan.actions.push(Action { at_ms, what: What::Shut { peer, document } });
                }
            }
        }
    }
    let sessions = match plan.profile {
        Profile::Opaque => rng.between(6, 40),
        Profile::Automerge => rng.between(6, 25),
    };
    let is_typing = rng.chance(600);
    for _ in 0..sessions {
        // Somebody works on one document for a while: that is what histories look like.
        let peer = rng.small(0, plan.peers - 1);
        let document = rng.small(0, plan.documents - 1);
        let mut at_ms = when(rng, plan);
        for _ in 0..rng.between(1, 20) {
            let edit = edit(rng, is_typing);
            plan.actions.push(Action { at_ms, what: What::Edit { peer, document, edit } });
            if rng.chance(50) {
                plan.actions.push(Action { at_ms, what: What::Broadcast { peer, document } });
            }
            at_ms +=
                if rng.chance(800) { rng.between(20, 1_500) } else { rng.between(1_000, 60_000) };
            if at_ms >= plan.calm_ms {
                break;
            }
        }
    }
}

/// What a crash leaves.
pub(crate) fn keep(rng: &mut Rng) -> Keep {
    match rng.below(4) {
        0 => Keep::Nothing,
        1 => Keep::Everything,
        _ => Keep::Prefix(u16::try_from(rng.below(1_001)).unwrap_or(500)),
    }
}

fn edit(rng: &mut Rng, is_typing: bool) -> Edit {
    if is_typing && rng.chance(700) {
        return if rng.chance(850) {
            Edit::Type(rng.small(1, 12))
        } else {
            Edit::Erase(rng.small(1, 6))
        };
    }
    let others = [
        Edit::Type(3),
        Edit::Erase(2),
        Edit::Put,
        Edit::Remove,
        Edit::Restore,
        Edit::Count,
        Edit::Insert,
        Edit::Take,
        Edit::Disagree,
    ];
    one_of(rng, &others)
}

fn faults(rng: &mut Rng, plan: &mut Plan) {
    let trouble = trouble(rng);
    let hours_milli = plan.calm_ms.min(HOURS_OF_TROUBLE_MS) / 3_600;
    let times = |an_hour: u64| (an_hour * hours_milli).div_ceil(1_000);
    let pair =
        |rng: &mut Rng, plan: &Plan| (rng.small(0, plan.peers - 1), rng.small(0, plan.relays - 1));
    let mut actions = Vec::new();
    let mut add = |at_ms: u64, what: What| actions.push(Action { at_ms, what });
    for (count, silent) in [(trouble.cuts, false), (trouble.silent_cuts, true)] {
        for _ in 0..times(count) {
            let (peer, relay) = pair(rng, plan);
            add(when(rng, plan), What::Cut { peer, relay, silent });
        }
    }
    for _ in 0..times(trouble.partitions) {
        let (peer, relay) = pair(rng, plan);
        let way = one_of(rng, &[Way::Both, Way::Both, Way::Up, Way::Down]);
        let for_ms = one_of(rng, &[200, 5_000, 90_000, 600_000]);
        add(when(rng, plan), What::Partition { peer, relay, way, for_ms });
    }
    for _ in 0..times(trouble.flaps) {
        let (peer, relay) = pair(rng, plan);
        let start_ms = when(rng, plan);
        for flap in 0..rng.between(5, 40) {
            let at_ms = start_ms + flap * 400;
            add(at_ms, What::Partition { peer, relay, way: Way::Both, for_ms: 150 });
            add(at_ms, What::Cut { peer, relay, silent: false });
        }
    }
    for _ in 0..times(trouble.stalls) {
        let for_ms = one_of(rng, &[500, 10_000, 120_000]);
        add(when(rng, plan), What::Stall { node: node(rng, plan), for_ms });
    }
    for _ in 0..times(trouble.pauses) {
        let for_ms = one_of(rng, &[300, 5_000, 40_000]);
        add(when(rng, plan), What::Pause { node: node(rng, plan), for_ms });
    }
    for _ in 0..times(trouble.peer_crashes) {
        let node = Name::Peer(rng.small(0, plan.peers - 1));
        let down_ms = one_of(rng, &[10, 1_000, 60_000]);
        add(when(rng, plan), What::Crash { node, keep: keep(rng), down_ms });
    }
    for _ in 0..times(trouble.relay_crashes) {
        let node = Name::Relay(rng.small(0, plan.relays - 1));
        let down_ms = one_of(rng, &[10, 1_000, 60_000]);
        add(when(rng, plan), What::Crash { node, keep: keep(rng), down_ms });
    }
    for _ in 0..times(trouble.drains) {
        let relay = rng.small(0, plan.relays - 1);
        add(when(rng, plan), What::Drain { relay, down_ms: one_of(rng, &[10, 2_000]) });
    }
    for _ in 0..times(trouble.hangs) {
        let for_ms = one_of(rng, &[500, 8_000, 60_000]);
        add(when(rng, plan), What::Disk { node: node(rng, plan), fault: DiskFault::Hang, for_ms });
    }
    for _ in 0..times(trouble.disk_failures) {
        let fault =
            one_of(rng, &[DiskFault::FailWrites, DiskFault::FailFlushes, DiskFault::FailReads]);
        let for_ms = one_of(rng, &[100, 3_000, 30_000]);
        add(when(rng, plan), What::Disk { node: node(rng, plan), fault, for_ms });
    }
    for _ in 0..times(trouble.full_disks) {
        let for_ms = one_of(rng, &[2_000, 60_000]);
        add(when(rng, plan), What::Disk { node: node(rng, plan), fault: DiskFault::Full, for_ms });
    }
    for _ in 0..times(trouble.rot) {
        let node = node(rng, plan);
        add(when(rng, plan), What::Rot { node, choice: rng.next() });
    }
    for _ in 0..times(trouble.clock_jumps) {
        let by = i64::try_from(one_of(rng, &[1_500_u64, 3_600_000, 90_000_000])).unwrap_or(0);
        let by_ms = if rng.chance(500) { by } else { -by };
        add(when(rng, plan), What::Clock { node: node(rng, plan), by_ms });
    }
    for _ in 0..times(trouble.attacks) {
        let attacks = [
            Attack::Garbage,
            Attack::LyingHeads,
            Attack::Replay,
            Attack::Orphans,
            Attack::Equivocation,
            Attack::Flood,
            Attack::Mutant,
        ];
        let attack = one_of(rng, &attacks);
        let relay = rng.small(0, plan.relays - 1);
        let document = rng.small(0, plan.documents - 1);
        let choice = rng.next();
        add(when(rng, plan), What::Attack { relay, document, attack, choice });
    }
    for _ in 0..times(trouble.absences) {
        let peer = rng.small(0, plan.peers - 1);
        let most_ms = if rng.chance(200) { 48 * 60 } else { 20 } * MINUTE_MS;
        add(when(rng, plan), What::Away { peer, for_ms: rng.between(MINUTE_MS, most_ms) });
    }
    plan.actions.append(&mut actions);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan_and_a_plan_is_data() {
        for profile in [Profile::Opaque, Profile::Automerge] {
            for seed in 0..50 {
                let plan = draw(seed, profile);
                assert_eq!(plan, draw(seed, profile));
                let text = serde_json::to_string(&plan).unwrap();
                assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
                assert!(plan.actions.is_sorted_by_key(|action| action.at_ms));
            }
        }
    }
}
