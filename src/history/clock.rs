//! Vector clocks, for programs that think in those terms.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use automerge::{ActorId, Automerge};
use concord_protocol::ChangeHash;
use serde::Serialize;

use super::{HistoryError, hash::known};

/// How much of each writer's changes a state has: of each actor the number of its last change. Of
/// two clocks of one document it is known which state came before the other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VectorClock(BTreeMap<ActorId, u64>);

/// How one state stands to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// They are the same.
    Equal,
    /// The first is part of the second.
    Before,
    /// The second is part of the first.
    After,
    /// Each has something that the other has not.
    Concurrent,
}

impl VectorClock {
    /// That of a document as it is.
    pub fn of(doc: &Automerge) -> Self {
        let mut clock = BTreeMap::new();
        for change in doc.get_changes_meta(&[]) {
            count(&mut clock, &change.actor, change.seq);
        }
        Self(clock)
    }

    /// That of a document as it was at these heads.
    ///
    /// # Errors
    /// [`HistoryError::NoChange`] if one of them is not in the document.
    pub fn at(doc: &Automerge, heads: &[ChangeHash]) -> Result<Self, HistoryError> {
        let heads = known(doc, heads)?;
        let mut clock = Self::of(doc).0;
        // Who has a change of a writer has all that the writer made before it.
        for change in doc.get_changes_meta(&heads) {
            if let Some(seq) = clock.get_mut(&*change.actor) {
                *seq = (*seq).min(change.seq.saturating_sub(1));
            }
        }
        clock.retain(|_, seq| *seq > 0);
        Ok(Self(clock))
    }

    /// How many of an actor's changes there are.
    pub fn get(&self, actor: &ActorId) -> u64 {
        self.0.get(actor).copied().unwrap_or(0)
    }

    /// Each actor with the number of its last change, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&ActorId, u64)> {
        self.0.iter().map(|(actor, seq)| (actor, *seq))
    }

    /// How this state stands to another of the same document.
    pub fn compare(&self, other: &Self) -> Relation {
        let is_within =
            |one: &Self, other: &Self| one.0.iter().all(|(actor, seq)| *seq <= other.get(actor));
        match (is_within(self, other), is_within(other, self)) {
            (true, true) => Relation::Equal,
            (true, false) => Relation::Before,
            (false, true) => Relation::After,
            (false, false) => Relation::Concurrent,
        }
    }
}

impl PartialOrd for VectorClock {
    /// `None` if they are concurrent.
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        match self.compare(other) {
            Relation::Equal => Some(Ordering::Equal),
            Relation::Before => Some(Ordering::Less),
            Relation::After => Some(Ordering::Greater),
            Relation::Concurrent => None,
        }
    }
}

impl FromIterator<(ActorId, u64)> for VectorClock {
    fn from_iter<T: IntoIterator<Item = (ActorId, u64)>>(items: T) -> Self {
        let mut clock = BTreeMap::new();
        for (actor, seq) in items.into_iter().filter(|(_, seq)| *seq > 0) {
            count(&mut clock, &actor, seq);
        }
        Self(clock)
    }
}

impl Serialize for VectorClock {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(actor, seq)| (actor.to_string(), seq)))
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "equal",
            Self::Before => "before",
            Self::After => "after",
            Self::Concurrent => "concurrent",
        })
    }
}

fn count(clock: &mut BTreeMap<ActorId, u64>, actor: &ActorId, seq: u64) {
    match clock.get_mut(actor) {
        Some(last) => *last = (*last).max(seq),
        None => {
            clock.insert(actor.clone(), seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::{
        super::tests::{Step, heads_of, written},
        *,
    };

    fn clock(of: &[(u8, u8)]) -> VectorClock {
        of.iter().map(|(actor, seq)| (ActorId::from([actor % 4]), u64::from(seq % 4))).collect()
    }

    quickcheck! {
        fn the_other_way_round_is_the_opposite(one: Vec<(u8, u8)>, other: Vec<(u8, u8)>) -> bool {
            let (one, other) = (clock(&one), clock(&other));
            let opposite = match other.compare(&one) {
                Relation::Before => Relation::After,
                Relation::After => Relation::Before,
                same => same,
            };
            one.compare(&other) == opposite
                && (one.compare(&other) == Relation::Equal) == (one == other)
                && one.compare(&one) == Relation::Equal
        }

        fn what_is_before_what_is_before_is_before(
            one: Vec<(u8, u8)>,
            other: Vec<(u8, u8)>,
            third: Vec<(u8, u8)>
        ) -> bool {
            let (one, other, third) = (clock(&one), clock(&other), clock(&third));
            !(one <= other && other <= third) || one <= third
        }

        /// A state is part of another if and only if automerge finds nothing in it that the other
        /// has not.
        fn clocks_agree_with_ancestry(steps: Vec<Step>, one: u8, other: u8) -> bool {
            let doc = written(&steps);
            let (one, other) = (heads_of(&doc, one), heads_of(&doc, other));
            let lacks = |of: &[ChangeHash], in_it: &[ChangeHash]| {
                let beyond = doc.get_changes_meta(&known(&doc, in_it).unwrap());
                of.iter().any(|head| beyond.iter().any(|change| change.hash.0 == head.0))
            };
            let expected = match (lacks(&one, &other), lacks(&other, &one)) {
                (false, false) => Relation::Equal,
                (false, true) => Relation::Before,
                (true, false) => Relation::After,
                (true, true) => Relation::Concurrent,
            };
            let at = |heads: &[ChangeHash]| VectorClock::at(&doc, heads).unwrap();
            at(&one).compare(&at(&other)) == expected
        }

        fn the_clock_at_heads_is_that_of_the_document_then(steps: Vec<Step>, at: u8) -> bool {
            let doc = written(&steps);
            let heads = heads_of(&doc, at);
            let then = VectorClock::of(&super::super::at(&doc, &heads).unwrap());
            VectorClock::at(&doc, &heads).unwrap() == then
        }
    }

    #[test]
    fn all_relations_are_reached() {
        let all = [
            (clock(&[(1, 1)]), Relation::Before),
            (clock(&[(1, 2), (2, 1)]), Relation::Equal),
            (clock(&[(1, 2), (2, 2)]), Relation::After),
            (clock(&[(1, 1), (2, 2)]), Relation::Concurrent),
            (clock(&[]), Relation::Before),
        ];
        for (one, relation) in all {
            assert_eq!(one.compare(&clock(&[(1, 2), (2, 1)])), relation, "{one:?}");
        }
    }

    #[test]
    fn heads_of_no_change_are_refused() {
        let hash = ChangeHash([9; 32]);
        let refused = VectorClock::at(&written(&[]), &[hash]);
        assert!(matches!(refused, Err(HistoryError::NoChange(it)) if it == hash));
    }
}
