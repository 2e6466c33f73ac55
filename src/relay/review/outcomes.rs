//! How conflicts end, counted since the relay started.
//!
//! A conflict that people dismiss is one that need not have been shown: the part of these among
//! all with which people were done is the *false-conflict ratio*. What was dismissed before the
//! relay started, or before it knew of the conflict, is not counted; one that is dismissed,
//! reopened and then decided counts as both.

use std::collections::{BTreeMap, BTreeSet};

use crate::review::ConflictId;

/// How a conflict ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum How {
    /// Somebody decided it, or wrote there in the knowledge of all sides.
    Resolved,
    /// Somebody said that it needs no decision.
    Dismissed,
    /// More was written there: another is open in its place.
    Superseded,
    /// The schema decided it.
    Auto,
}

impl How {
    pub(in super::super) fn as_str(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::Dismissed => "dismissed",
            Self::Superseded => "superseded",
            Self::Auto => "auto",
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    counts: BTreeMap<(Box<str>, How), u64>,
    /// Open ones that stand dismissed.
    dismissed: BTreeSet<ConflictId>,
    /// Open ones that the schema has decided, until their documents are looked at again.
    ruled: BTreeSet<ConflictId>,
}

impl Outcomes {
    /// An open conflict stands dismissed; counted if that was said just now.
    pub(super) fn dismissed(&mut self, id: ConflictId, code: &str, is_news: bool) {
        if self.dismissed.insert(id) && is_news {
            self.count(code, How::Dismissed);
        }
    }

    /// An open conflict does not stand dismissed.
    pub(super) fn reopened(&mut self, id: &ConflictId) {
        self.dismissed.remove(id);
    }

    /// What the schema says of an open conflict was done.
    pub(super) fn ruled(&mut self, id: ConflictId) {
        self.ruled.insert(id);
    }

    /// The schema decided a conflict that was never open.
    pub(super) fn settled(&mut self, code: &str) {
        self.count(code, How::Auto);
    }

    /// A conflict is open no longer.
    pub(super) fn closed(&mut self, id: &ConflictId, code: &str, has_successor: bool) {
        let (was_ruled, was_dismissed) = (self.ruled.remove(id), self.dismissed.remove(id));
        let how = match (was_ruled, has_successor, was_dismissed) {
            (true, ..) => How::Auto,
            (_, true, _) => How::Superseded,
            // People were done with it before.
            (.., true) => return,
            _ => How::Resolved,
        };
        self.count(code, how);
    }

    fn count(&mut self, code: &str, how: How) {
        *self.counts.entry((code.into(), how)).or_default() += 1;
    }

    /// How many ended how, by code.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, How, u64)> {
        self.counts.iter().map(|((code, how), count)| (&**code, *how, *count))
    }
}

/// The part that was dismissed of what people were done with; `None` where that is nothing.
pub(in super::super) fn false_ratio(counts: impl IntoIterator<Item = (How, u64)>) -> Option<f64> {
    let (mut dismissed, mut resolved) = (0_u64, 0_u64);
    for (how, count) in counts {
        match how {
            How::Dismissed => dismissed += count,
            How::Resolved => resolved += count,
            How::Superseded | How::Auto => {}
        }
    }
    let all = dismissed + resolved;
    #[expect(clippy::cast_precision_loss, reason = "conflicts that people decide are few")]
    (all > 0).then(|| dismissed as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> ConflictId {
        format!("{n:032x}").parse().unwrap()
    }

    fn ratio(outcomes: &Outcomes) -> Option<f64> {
        false_ratio(outcomes.counts().map(|(_, how, count)| (how, count)))
    }

    #[test]
    fn each_conflict_ends_in_one_way() {
        let mut outcomes = Outcomes::default();
        assert_eq!(ratio(&outcomes), None, "nothing was decided");
        outcomes.dismissed(id(1), "value", true);
        outcomes.dismissed(id(1), "value", true);
        outcomes.dismissed(id(2), "value", false);
        outcomes.ruled(id(3));
        for n in 1..=4 {
            outcomes.closed(&id(n), "value", false);
        }
        outcomes.closed(&id(5), "value", true);
        outcomes.settled("twin");
        let counted: Vec<_> = outcomes.counts().collect();
        assert_eq!(
            counted,
            [
                ("twin", How::Auto, 1),
                ("value", How::Resolved, 1),
                ("value", How::Dismissed, 1),
                ("value", How::Superseded, 1),
                ("value", How::Auto, 1),
            ]
        );
        assert_eq!(ratio(&outcomes), Some(0.5));
        // Whoever takes a dismissal back decides it after all.
        outcomes.dismissed(id(6), "value", true);
        outcomes.reopened(&id(6));
        outcomes.closed(&id(6), "value", false);
        assert_eq!(ratio(&outcomes), Some(0.5), "two of four");
    }
}
