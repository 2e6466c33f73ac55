//! Trouble that strikes where something is going on: a crash in the middle of a write hits what a
//! crash at any time seldom hits. Drawn after the rest and from numbers of its own, so that the
//! rest of a seed's plan is what it is without it.

use crate::{
    plan::{Action, Attack, DiskFault, Edit, Name, Plan, What},
    random::Rng,
    swarm::{keep, one_of},
};

/// An edit that is in the plan.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at_ms: u64,
    peer: u8,
    document: u8,
}

/// Adds to a plan that has its users and faults.
pub(crate) fn draw(plan: &mut Plan) {
    let mut rng = Rng::new(plan.seed ^ 0x9E55);
    plan.settings.queue_bytes =
        one_of(&mut rng, &[64 * 1024, 256 * 1024, 2 << 20, 2 << 20, 2 << 20, 2 << 20]);
    let edits: Vec<Moment> = plan
        .actions
        .iter()
        .filter_map(|action| match action.what {
            What::Edit { peer, document, .. } => {
                Some(Moment { at_ms: action.at_ms, peer, document })
            }
            _ => None,
        })
        .collect();
    if edits.is_empty() {
        return;
    }
    let kinds: [(u64, u64, Kind); 11] = [
        (250, 12, crash_at_work),
        (150, 4, failing_flush),
        (200, 3, paste),
        (150, 4, stalled_paste),
        (120, 6, echo),
        (160, 5, hostile_load),
        (100, 4, full_disk),
        (100, 4, failing_reads),
        (120, 3, rot),
        (40, 1, long_history),
        (30, 1, album),
    ];
    for (chance, most, kind) in kinds {
        let times = if rng.chance(chance) { rng.between(1, most) } else { 0 };
        for _ in 0..times {
            let edit = one_of(&mut rng, &edits);
            kind(&mut rng, plan, edit);
        }
    }
    draw_more(plan, &edits);
}

/// Trouble that came later, again from numbers of its own.
fn draw_more(plan: &mut Plan, edits: &[Moment]) {
    let mut rng = Rng::new(plan.seed ^ 0x3A7E);
    let kinds: [(u64, u64, Kind); 3] =
        [(120, 4, poison), (120, 3, tight_disk), (80, 3, busy_failure)];
    for (chance, most, kind) in kinds {
        let times = if rng.chance(chance) { rng.between(1, most) } else { 0 };
        for _ in 0..times {
            let edit = one_of(&mut rng, edits);
            kind(&mut rng, plan, edit);
        }
    }
}

/// A stranger sends what cannot be applied, perhaps more on top of it; perhaps somebody is started
/// again afterwards, with a later version of the program.
fn poison(rng: &mut Rng, plan: &mut Plan, edit: Moment) {
    let (relay, document) = (rng.small(0, plan.relays - 1), edit.document);
    let mut send = |plan: &mut Plan, at_ms, attack| {
        let choice = rng.next();
        add(plan, at_ms, What::Attack { relay, document, attack, choice });
    };
    send(plan, edit.at_ms, Attack::Poison);
    for after_ms in [5, 10_000, 120_000] {
        send(plan, edit.at_ms + after_ms, Attack::OnPoison);
    }
    if rng.chance(500) {
        plan.settings.first_format_lives = one_of(rng, &[1, 1, 2]);
        let after_ms = one_of(rng, &[3_000, 60_000]);
        let node = at_work(rng, plan, edit);
        add(plan, edit.at_ms + after_ms, What::Crash { node, keep: keep(rng), down_ms: 1_000 });
    }
}

/// A user's disk has room for what is small while they write both, a write at a time: a snapshot
/// comes to a disk that had no room for a change before it.
fn tight_disk(rng: &mut Rng, plan: &mut Plan, edit: Moment) {
    let Moment { at_ms, peer, document } = edit;
    let settings = &mut plan.settings;
    settings.group_writes = 1;
    settings.compact_changes = settings.compact_changes.min(10);
    // A snapshot is made while a change is written, and both before anybody hears of either.
    (settings.flush_us, settings.job_us, settings.lag_us) = (2_000, 500, 50);
    let (node, fault) = (Name::Peer(peer), DiskFault::Tight);
    add(plan, at_ms.saturating_sub(20), What::Disk { node, fault, for_ms: 12_000 });
    for burst in 0..5 {
        let at_ms = at_ms + burst * 2_500;
        let typed = What::Edit { peer, document, edit: Edit::Type(12) };
        let pasted = What::Edit { peer, document, edit: Edit::Paste(rng.small(180, 250)) };
        add(plan, at_ms, typed);
        add(plan, at_ms + rng.between(1, 3), pasted);
    }
}

/// A disk fails while somebody writes into several documents.
fn busy_failure(rng: &mut Rng, plan: &mut Plan, edit: Moment) {
    // Who has all of them open.
    let peer = 0;
    let node =
        if rng.chance(500) { Name::Peer(peer) } else { Name::Relay(rng.small(0, plan.relays - 1)) };
    let fault = one_of(rng, &[DiskFault::FailFlushes, DiskFault::FailWrites]);
    add(plan, edit.at_ms, What::Disk { node, fault, for_ms: 3_000 });
    for step in 0..40 {
        let document = u8::try_from(step % u64::from(plan.documents)).unwrap_or(0);
        add(plan, edit.at_ms + 3 * step, What::Edit { peer, document, edit: Edit::Type(1) });
    }
}

/// Adds one of a kind of trouble.
type Kind = fn(&mut Rng, &mut Plan, Moment);

fn add(plan: &mut Plan, at_ms: u64, what: What) {
    plan.actions.push(Action { at_ms, what });
}

/// Who writes, or one of the relays that it goes to.
fn at_work(rng: &mut Rng, plan: &Plan, edit: Moment) -> Name {
    if rng.chance(500) { Name::Peer(edit.peer) } else { Name::Relay(rng.small(0, plan.relays - 1)) }
}

/// The power is lost while something is being written.
fn crash_at_work(rng: &mut Rng, plan: &mut Plan, edit: Moment) {
    let node = at_work(rng, plan, edit);
    let after_ms = one_of(rng, &[1, 4, 20, 100, 400, 2_000]);
    let down_ms = one_of(rng, &[10, 1_000, 60_000]);
    add(plan, edit.at_ms + after_ms, What::Crash { node, keep: keep(rng), down_ms });
}

/// A disk does not flush, and then the power is lost.
fn failing_flush(rng: &mut Rng, plan: &mut Plan, edit: Moment) {
    let node = at_work(rng, plan, edit);
    let fault = DiskFault::FailFlushes;
    add(plan, edit.at_ms.saturating_sub(20), What::Disk { node, fault, for_ms: 3_000 });
    let after_ms = one_of(rng, &[100, 600, 2_500]);
    add(plan, edit.at_ms + after_ms, What::Crash { node, keep: keep(rng), down_ms: 1_000 });
}

/// A user puts in something large, and perhaps the power is lost while it is written.
fn paste(rng: &mut Rng, plan: &mut Plan, edit: Moment) {
    let Moment { at_ms, peer, document } = edit;
    add(plan, at_ms, What::Edit { peer, document, edit: Edit::Paste(rng.small(33, 60)) });
    if rng.chance(600) {
        crash_at_work(rng, plan, edit);
    }
}

/// Somebody does not read while somebody puts in several large things.
fn stalled_paste(rng: &mut Rng, plan: &mut Plan, edit: Moment) {
    let Moment { at_ms, peer, document } = edit;
    let node = match rng.below(3) {
        0 => Name::Relay(rng.small(0, plan.relays - 1)),
        _ => Name::Peer(rng.small(0, plan.peers - 1)),
    };
    let for_ms = one_of(rng, &[5_000, 20_000, 120_000]);
    add(plan, at_ms.saturating_sub(50), What::Stall { node, for_ms });
    for paste in 0..rng.between(2, 8) {
        let edit = Edit::Paste(rng.small(8, 40));
        add(plan, at_ms + paste * 300, What::Edit { peer, document, edit });
    }
}

/// A user's disk is full for a while.
fn full_disk(_: &mut Rng, plan: &mut Plan, edit: Moment) {
    let node = Name::Peer(edit.peer);
    let what = What::Disk { node, fault: DiskFault::Full, for_ms: 3_000 };
    add(plan, edit.at_ms.saturating_sub(20), what);
}

/// A disk cannot be read while it is written.
fn failing_reads(rng: &mut Rng, plan: &mut Plan, edit: Moment) {
    let node = at_work(rng, plan, edit);
    let for_ms = one_of(rng, &[50, 500, 5_000, 40_000]);
    add(plan, edit.at_ms, What::Disk { node, fault: DiskFault::FailReads, for_ms });
}

/// A bit flips on a relay's disk. Not on a peer's: what rots where nobody else has it is lost.
fn rot(rng: &mut Rng, plan: &mut Plan, edit: Moment) {
    let node = Name::Relay(rng.small(0, plan.relays - 1));
    add(plan, edit.at_ms, What::Rot { node, choice: rng.next() });
}

/// A user writes much of a document before anybody else has any of it.
fn long_history(_: &mut Rng, plan: &mut Plan, edit: Moment) {
    let Moment { at_ms, peer, document } = first_of(plan, edit);
    add(plan, at_ms.saturating_sub(1_000), What::Away { peer, for_ms: 300_000 });
    for part in 1..=8 {
        let edit = Edit::Type(200);
        add(plan, at_ms + part * 30_000, What::Edit { peer, document, edit });
    }
}

/// A user who is away puts in more than fits one message.
fn album(_: &mut Rng, plan: &mut Plan, edit: Moment) {
    let Moment { at_ms, peer, document } = edit;
    // Megabytes in every snapshot: a snapshot every third change would be all that such a world does.
    plan.settings.compact_changes = plan.settings.compact_changes.max(60);
    add(plan, at_ms.saturating_sub(1_000), What::Away { peer, for_ms: 120_000 });
    for picture in 0..20 {
        let edit = Edit::Paste(250);
        add(plan, at_ms + picture * 2_000, What::Edit { peer, document, edit });
    }
}

/// The first edit of the same document.
fn first_of(plan: &Plan, edit: Moment) -> Moment {
    let edits = plan.actions.iter().filter_map(|action| match action.what {
        What::Edit { peer, document, .. } if document == edit.document => {
            Some(Moment { at_ms: action.at_ms, peer, document })
        }
        _ => None,
    });
    edits.min_by_key(|first| first.at_ms).unwrap_or(edit)
}

/// A stranger repeats its own presence.
fn echo(rng: &mut Rng, plan: &mut Plan, edit: Moment) {
    attack(rng, plan, edit, Attack::Echo);
}

/// A stranger sends more than there is room for, or what cannot be opened.
fn hostile_load(rng: &mut Rng, plan: &mut Plan, edit: Moment) {
    let attacks =
        [Attack::OrphanFlood, Attack::Upload, Attack::Behind, Attack::Behind, Attack::DeafLiar];
    let what = one_of(rng, &attacks);
    attack(rng, plan, edit, what);
}

fn attack(rng: &mut Rng, plan: &mut Plan, edit: Moment, attack: Attack) {
    let (relay, choice) = (rng.small(0, plan.relays - 1), rng.next());
    add(plan, edit.at_ms, What::Attack { relay, document: edit.document, attack, choice });
}
