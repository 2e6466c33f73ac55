//! Who looks after which conflicts, as the review document had it last: in memory, beside the index.

use std::collections::BTreeMap;

use serde_json::json;

use super::index::Index;
use crate::{
    history::AHEAD_S_MAX,
    review::{
        ConflictId,
        triage::{FORGET_AFTER_S, Standing, State, Triage},
    },
};

/// Conflicts that are forgotten with one change.
const FORGET_MAX: usize = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Standings {
    /// Each with when something was last said, in seconds since 1970.
    of: BTreeMap<ConflictId, (Standing, i64)>,
    /// What the review document said at the start is known: what it says else is news.
    pub(super) is_read: bool,
}

/// Which conflicts are wanted, by how they stand.
#[derive(Debug, Clone, Default)]
pub(super) enum Wanted {
    /// Those that wait for somebody: neither put off nor dismissed.
    #[default]
    Pending,
    /// All that are not decided.
    All,
    /// Those of this state.
    Only(State),
}

impl Wanted {
    /// Reads what a listing asks for.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "pending" => Some(Self::Pending),
            "all" => Some(Self::All),
            text => {
                let state = State::ALL.into_iter().find(|state| state.as_str() == text);
                state.map(Self::Only)
            }
        }
    }

    pub(super) fn takes(&self, state: State) -> bool {
        match self {
            Self::Pending => state.is_pending(),
            Self::All => true,
            Self::Only(wanted) => *wanted == state,
        }
    }
}

impl Standings {
    /// The review document says this now. Gives the conflicts of which it says something else.
    pub(super) fn update(&mut self, now: BTreeMap<ConflictId, (Standing, i64)>) -> Vec<ConflictId> {
        let before = std::mem::replace(&mut self.of, now);
        let differs = |id: &ConflictId| {
            self.of.get(id).map(|(now, _)| now) != before.get(id).map(|(then, _)| then)
        };
        let mut ids: Vec<ConflictId> = self.of.keys().copied().filter(differs).collect();
        ids.extend(before.keys().filter(|id| !self.of.contains_key(id)));
        ids
    }

    /// It says this about one now.
    pub(super) fn set(&mut self, id: ConflictId, triage: &Triage, now_s: i64) {
        if *triage == Triage::default() {
            self.of.remove(&id);
        } else {
            self.of.insert(id, (triage.standing(), now_s));
        }
    }

    pub(super) fn of(&self, id: &ConflictId) -> Option<&Standing> {
        self.of.get(id).map(|(standing, _)| standing)
    }

    pub(super) fn state(&self, id: &ConflictId, now_s: i64) -> State {
        self.of(id).map_or(State::Open, |standing| standing.state(now_s))
    }

    /// A conflict as it is listed, with how it stands.
    pub(super) fn with(&self, id: &ConflictId, listed: &str, now_s: i64) -> String {
        let more = json!({ "state": self.state(id, now_s), "triage": self.of(id) }).to_string();
        // Both are objects with something in them.
        match listed.strip_suffix('}') {
            Some(begun) => format!("{begun},{}", &more[1..]),
            None => listed.to_owned(),
        }
    }

    /// How many conflicts that are listed are in which state.
    pub(super) fn count(&self, index: &Index, now_s: i64) -> BTreeMap<State, usize> {
        let mut counts: BTreeMap<State, usize> = State::ALL.map(|state| (state, 0)).into();
        let mut others = 0;
        for (id, (standing, _)) in &self.of {
            let state = standing.state(now_s);
            if state != State::Open && index.is_open(id) {
                *counts.entry(state).or_default() += 1;
                others += 1;
            }
        }
        counts.insert(State::Open, index.count().saturating_sub(others));
        counts
    }

    /// Conflicts that are open no longer and about which nothing was said for so long that it can
    /// be forgotten. Where the clock of whoever wrote was far ahead, that is at once: nobody lives
    /// to see it pass.
    pub(super) fn stale(&self, index: &Index, now_s: i64) -> Vec<ConflictId> {
        let is_old = |last: i64| last + FORGET_AFTER_S < now_s || last - AHEAD_S_MAX > now_s;
        let closed = self.of.iter().filter(|(id, (_, last))| is_old(*last) && !index.is_open(id));
        closed.map(|(id, _)| *id).take(FORGET_MAX).collect()
    }
}
