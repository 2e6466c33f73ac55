//! Single steps towards a smaller or plainer plan. Each one makes less of something, so that there
//! is an end to them.

use std::{mem::discriminant, ops::Range};

use crate::plan::{Action, Edit, Keep, Plan, Settings, Way, What};

/// Milliseconds that times are cut to, the boldest first.
const SHORT_MS: [u64; 3] = [10, 1_000, 60_000];

/// Steps of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// A peer, a relay or a document with everything that names it.
    Things,
    /// Everything that names one of them, or is of one kind.
    Groups,
    /// So many neighbouring actions.
    Chunks(usize),
    Settings,
    Calm,
    /// Waiting between actions.
    Gaps,
    /// Single actions made plainer.
    Actions,
}

/// Something that actions name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing {
    Peer(u8),
    Relay(u8),
    Document(u8),
}

/// One thing to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Without a thing and all that names it; others take its number.
    Without(Thing),
    /// Without what names a thing.
    Unnamed(Thing),
    /// Without actions of the kind of this one.
    Kind(usize),
    /// Without these actions.
    Drop(Range<usize>),
    Settings(Settings),
    /// Faults end earlier; what comes later is left out, as it is ignored in any case.
    Calm(u64),
    /// This action, and all after it, come so many milliseconds after the one before.
    Gap(usize, u64),
    /// This action does something plainer.
    Plainer(usize, What),
}

impl Pass {
    /// All of them, in an order in which they save the most.
    pub(super) fn all(plan: &Plan) -> Vec<Self> {
        // First what makes every later world shorter.
        let mut passes = vec![Self::Calm, Self::Things, Self::Groups];
        let mut size = plan.actions.len().div_ceil(2);
        while size > 0 {
            passes.push(Self::Chunks(size));
            size /= 2;
        }
        // What is left of a group may go with it now.
        passes.extend([Self::Things, Self::Settings, Self::Calm, Self::Gaps, Self::Actions]);
        passes
    }

    pub(super) fn steps(self, plan: &Plan) -> Vec<Step> {
        let count = plan.actions.len();
        match self {
            Self::Things => things(plan).into_iter().map(Step::Without).collect(),
            Self::Groups => {
                let unnamed = things(plan).into_iter().map(Step::Unnamed);
                unnamed.chain(first_of_each_kind(plan).map(Step::Kind)).collect()
            }
            Self::Chunks(size) if size > count => Vec::new(),
            Self::Chunks(size) => {
                // From the end: what comes after the failure goes first.
                let starts = (0..count).step_by(size.max(1)).rev();
                starts.map(|start| Step::Drop(start..(start + size).min(count))).collect()
            }
            Self::Settings => plainer_settings(&plan.settings).map(Step::Settings).collect(),
            Self::Calm => {
                let end = |action: &Action| action.at_ms + lasts_ms(&action.what);
                let last_ms = plan.actions.iter().map(|action| action.at_ms).max().unwrap_or(0);
                let end_ms = plan.actions.iter().map(end).max().unwrap_or(0);
                let ends = [last_ms + 1, end_ms + 1, end_ms + 60_000];
                let halves = (1..8).map(|halves| plan.calm_ms - (plan.calm_ms >> halves));
                let ends = ends.into_iter().chain(halves);
                ends.filter(|end| *end < plan.calm_ms).map(Step::Calm).collect()
            }
            Self::Gaps => {
                let gaps = (0..count).flat_map(|at| {
                    let gap_ms = gap_ms(plan, at);
                    let shorter = SHORT_MS.into_iter().chain([gap_ms / 2]);
                    shorter.filter(move |ms| *ms < gap_ms).map(move |ms| (at, ms))
                });
                gaps.map(|(at, ms)| Step::Gap(at, ms)).collect()
            }
            Self::Actions => {
                let actions = plan.actions.iter().enumerate();
                let steps = actions.flat_map(|(at, action)| {
                    plainer(&action.what).into_iter().map(move |what| Step::Plainer(at, what))
                });
                steps.collect()
            }
        }
    }
}

impl Step {
    /// The plan after this step; nothing if it makes no difference or no sense.
    pub(super) fn apply(&self, plan: &Plan) -> Option<Plan> {
        let mut plan = plan.clone();
        match self {
            Self::Without(thing) => {
                if !is_spare(&plan, *thing) {
                    return None;
                }
                plan.actions.retain(|action| !thing.is_named_by(&action.what));
                remove(&mut plan, *thing);
            }
            Self::Unnamed(thing) => retain(&mut plan, |what| !thing.is_named_by(what))?,
            Self::Kind(at) => {
                let kind = discriminant(&plan.actions.get(*at)?.what);
                retain(&mut plan, |what| discriminant(what) != kind)?;
            }
            Self::Drop(range) => {
                plan.actions.drain(range.clone());
            }
            Self::Settings(settings) => plan.settings = settings.clone(),
            Self::Calm(calm_ms) => {
                plan.calm_ms = *calm_ms;
                plan.actions.retain(|action| action.at_ms <= *calm_ms);
            }
            Self::Gap(at, ms) => {
                let less_ms = gap_ms(&plan, *at).checked_sub(*ms)?;
                for action in plan.actions.get_mut(*at..)? {
                    action.at_ms = action.at_ms.saturating_sub(less_ms);
                }
                plan.calm_ms = plan.calm_ms.saturating_sub(less_ms);
            }
            Self::Plainer(at, what) => plan.actions.get_mut(*at)?.what = what.clone(),
        }
        plan.validate().is_ok().then_some(plan)
    }
}

impl Thing {
    fn is_named_by(self, what: &What) -> bool {
        let names = what.names();
        match self {
            Self::Peer(number) => names.peer == Some(number),
            Self::Relay(number) => names.relay == Some(number),
            Self::Document(number) => names.document == Some(number),
        }
    }
}

fn things(plan: &Plan) -> Vec<Thing> {
    let relays = (0..plan.relays).rev().map(Thing::Relay);
    let peers = (0..plan.peers).rev().map(Thing::Peer);
    let documents = (0..plan.documents).rev().map(Thing::Document);
    relays.chain(peers).chain(documents).collect()
}

/// The hub must stay, and one of everything.
const fn is_spare(plan: &Plan, thing: Thing) -> bool {
    match thing {
        Thing::Peer(number) => number > 0 && plan.peers > 1,
        Thing::Relay(_) => plan.relays > 1,
        Thing::Document(_) => plan.documents > 1,
    }
}

fn remove(plan: &mut Plan, thing: Thing) {
    let lower = |number: Option<&mut u8>, gone: u8| {
        if let Some(number) = number
            && *number > gone
        {
            *number -= 1;
        }
    };
    for action in &mut plan.actions {
        let (peer, relay, document) = action.what.names_mut();
        match thing {
            Thing::Peer(gone) => lower(peer, gone),
            Thing::Relay(gone) => lower(relay, gone),
            Thing::Document(gone) => lower(document, gone),
        }
    }
    match thing {
        Thing::Peer(gone) => {
            plan.peers -= 1;
            // Each goes on to speak as it did.
            if gone < 31 {
                for bits in [&mut plan.settings.concord, &mut plan.settings.failover] {
                    let below = *bits & ((1 << gone) - 1);
                    *bits = (*bits >> (gone + 1) << gone) | below;
                }
            }
        }
        Thing::Relay(_) => plan.relays -= 1,
        Thing::Document(_) => plan.documents -= 1,
    }
}

/// Keeps some actions; nothing if that is all of them.
fn retain(plan: &mut Plan, keep: impl Fn(&What) -> bool) -> Option<()> {
    let before = plan.actions.len();
    plan.actions.retain(|action| keep(&action.what));
    (plan.actions.len() < before).then_some(())
}

fn first_of_each_kind(plan: &Plan) -> impl Iterator<Item = usize> {
    let mut seen = Vec::new();
    let actions = plan.actions.iter().enumerate();
    let firsts = actions.filter(move |(_, action)| {
        let kind = discriminant(&action.what);
        let is_new = !seen.contains(&kind);
        seen.push(kind);
        is_new
    });
    firsts.map(|(at, _)| at)
}

/// Milliseconds between an action and the one before.
fn gap_ms(plan: &Plan, at: usize) -> u64 {
    let at_ms = |at: usize| plan.actions.get(at).map_or(0, |action| action.at_ms);
    let before_ms = at.checked_sub(1).map_or(0, at_ms);
    at_ms(at).saturating_sub(before_ms)
}

/// Milliseconds until an action is over.
fn lasts_ms(what: &What) -> u64 {
    match what {
        What::Partition { for_ms, .. }
        | What::Stall { for_ms, .. }
        | What::Pause { for_ms, .. }
        | What::Disk { for_ms, .. } => u64::from(*for_ms),
        What::Crash { down_ms, .. } | What::Drain { down_ms, .. } => u64::from(*down_ms),
        What::Away { for_ms, .. } => *for_ms,
        What::Edit { .. }
        | What::Open { .. }
        | What::Shut { .. }
        | What::Broadcast { .. }
        | What::Lease { .. }
        | What::Cut { .. }
        | What::Rot { .. }
        | What::Clock { .. }
        | What::Attack { .. }
        | What::Discard { .. }
        | What::Retry { .. }
        | What::Bytes { .. } => 0,
    }
}

/// Each setting by itself at what makes the least of it.
fn plainer_settings(settings: &Settings) -> impl Iterator<Item = Settings> + use<> {
    let set: [fn(&mut Settings); 20] = [
        |s| s.lag_us = 1,
        |s| s.window_bytes = 262_144,
        |s| s.bytes_per_ms = 50_000,
        |s| s.batch_bytes = 1 << 20,
        |s| s.job_failures = 0,
        |s| s.strict = false,
        |s| s.concord = u32::MAX,
        |s| s.latency_us = 200,
        |s| s.flush_us = 100,
        |s| s.read_us = 20,
        |s| s.job_us = 500,
        |s| s.compact_changes = 500,
        |s| s.idle_ms = 60_000,
        |s| s.check_ms = 2_000,
        |s| s.queue_bytes = 2 << 20,
        |s| s.group_writes = u32::MAX,
        |s| s.first_format_lives = 0,
        |s| s.debounce_ms = 0,
        |s| s.narrow_bytes = 0,
        |s| s.failover = 0,
    ];
    let settings = settings.clone();
    set.into_iter().filter_map(move |set| {
        let mut plainer = settings.clone();
        set(&mut plainer);
        (plainer != settings).then_some(plainer)
    })
}

/// The same action with less in it, each way by itself.
fn plainer(what: &What) -> Vec<What> {
    let mut found = Vec::new();
    let mut one = |change: &dyn Fn(&mut What)| {
        let mut plainer = what.clone();
        change(&mut plainer);
        if plainer != *what {
            found.push(plainer);
        }
    };
    for ms in SHORT_MS {
        one(&|what| shorten(what, ms));
    }
    match what {
        What::Edit { edit, .. } => {
            let (half, as_many) = match edit {
                Edit::Type(count) => (Edit::Type(count.div_ceil(2)), *edit),
                Edit::Erase(count) => (Edit::Erase(count.div_ceil(2)), Edit::Type(*count)),
                Edit::Paste(kib) => (Edit::Paste(kib.div_ceil(2)), *edit),
                other => (*other, *other),
            };
            for plainer in [Edit::Type(1), half, as_many] {
                one(&|what| {
                    if let What::Edit { edit, .. } = what {
                        *edit = plainer;
                    }
                });
            }
        }
        What::Cut { .. } => one(&|what| {
            if let What::Cut { silent, .. } = what {
                *silent = false;
            }
        }),
        What::Partition { .. } => one(&|what| {
            if let What::Partition { way, .. } = what {
                *way = Way::Both;
            }
        }),
        What::Crash { keep: of, .. } => {
            let all = if *of == Keep::Nothing { Keep::Nothing } else { Keep::Everything };
            for plainer in [Keep::Nothing, all] {
                one(&|what| {
                    if let What::Crash { keep, .. } = what {
                        *keep = plainer;
                    }
                });
            }
        }
        What::Rot { .. } | What::Attack { .. } => one(&|what| {
            if let What::Rot { choice, .. } | What::Attack { choice, .. } = what {
                *choice = 0;
            }
        }),
        What::Clock { .. } => {
            for ms in [1_500, 3_600_000] {
                one(&|what| {
                    if let What::Clock { by_ms, .. } = what {
                        *by_ms = (*by_ms).clamp(-ms, ms);
                    }
                });
            }
        }
        _ => {}
    }
    found
}

/// Has an action be over after so long.
fn shorten(what: &mut What, ms: u64) {
    let short = u32::try_from(ms).unwrap_or(u32::MAX);
    match what {
        What::Partition { for_ms, .. }
        | What::Stall { for_ms, .. }
        | What::Pause { for_ms, .. }
        | What::Disk { for_ms, .. } => *for_ms = (*for_ms).min(short),
        What::Crash { down_ms, .. } | What::Drain { down_ms, .. } => {
            *down_ms = (*down_ms).min(short);
        }
        What::Away { for_ms, .. } => *for_ms = (*for_ms).min(ms),
        _ => {}
    }
}
