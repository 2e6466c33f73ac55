//! The log of a document: its changes, in an order that is the same on every replica.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
};

use automerge::{Automerge, ChangeMetadata};
use concord_protocol::ChangeHash;
use serde::Serialize;

use super::{HistoryError, Stamp, hash::known, stamp::all_in_hex};

/// A change as the log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Who made it, when, and what for.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// The changes that it builds on.
    #[serde(serialize_with = "all_in_hex")]
    pub deps: Vec<ChangeHash>,
    /// How many operations are in it.
    pub operations: u64,
    /// Whether its time is before that of a change that it builds on: one of the two clocks was
    /// wrong, or it is of a program that does not look at the times of others.
    pub is_behind: bool,
}

/// Which end of the log comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// What was done last.
    #[default]
    NewestFirst,
    /// What was done first.
    OldestFirst,
}

/// The changes that are not covered by some heads (`&[]`: all), at most `limit` of them.
///
/// The order is the same on every replica, whatever the order of arrival: a change comes after all
/// that it builds on; among those that could be next, that with the earliest time is, and of equal
/// times that with the least hash. `NewestFirst` is that order from its end.
///
/// Whoever reads from the oldest on continues after [`cursor`], and gets the rest of the very same
/// order.
///
/// # Errors
/// [`HistoryError::NoChange`] if one of the heads is not in the document.
pub fn log(
    doc: &Automerge,
    after: &[ChangeHash],
    order: Order,
    limit: usize,
) -> Result<Vec<Entry>, HistoryError> {
    let changes = doc.get_changes_meta(&known(doc, after)?);
    let ordered = in_order(&changes);
    let skipped = match order {
        Order::NewestFirst => ordered.len().saturating_sub(limit),
        Order::OldestFirst => 0,
    };
    let shown = ordered.into_iter().skip(skipped).take(limit);
    let mut entries: Vec<Entry> = shown.map(|change| entry(doc, &changes[change])).collect();
    if order == Order::NewestFirst {
        entries.reverse();
    }
    Ok(entries)
}

/// The heads of what is covered after these entries of [`log`], which was read after `after` and
/// from the oldest on.
pub fn cursor(after: &[ChangeHash], entries: &[Entry]) -> Vec<ChangeHash> {
    let mut heads: BTreeSet<ChangeHash> = after.iter().copied().collect();
    for entry in entries {
        for dep in &entry.deps {
            heads.remove(dep);
        }
        heads.insert(entry.stamp.change);
    }
    heads.into_iter().collect()
}

/// Where the changes are in the list, in the order of [`log`].
pub(super) fn in_order(changes: &[ChangeMetadata<'_>]) -> Vec<usize> {
    let places: BTreeMap<automerge::ChangeHash, usize> =
        changes.iter().enumerate().map(|(place, change)| (change.hash, place)).collect();
    let mut waits_for = vec![0_usize; changes.len()];
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); changes.len()];
    for (place, change) in changes.iter().enumerate() {
        for dep in change.deps.iter().filter_map(|dep| places.get(dep)) {
            waits_for[place] += 1;
            waiting[*dep].push(place);
        }
    }
    let key = |place: usize| Reverse((changes[place].timestamp, changes[place].hash, place));
    let mut ready: BinaryHeap<_> =
        (0..changes.len()).filter(|place| waits_for[*place] == 0).map(key).collect();
    let mut ordered = Vec::with_capacity(changes.len());
    while let Some(Reverse((_, _, place))) = ready.pop() {
        ordered.push(place);
        for &next in &waiting[place] {
            waits_for[next] -= 1;
            if waits_for[next] == 0 {
                ready.push(key(next));
            }
        }
    }
    ordered
}

/// As the log has it.
fn entry(doc: &Automerge, change: &ChangeMetadata<'_>) -> Entry {
    let is_before = |dep: &automerge::ChangeHash| {
        doc.get_change_meta_by_hash(dep).is_some_and(|dep| change.timestamp < dep.timestamp)
    };
    Entry {
        stamp: Stamp::from(change),
        deps: change.deps.iter().map(|dep| ChangeHash(dep.0)).collect(),
        operations: (change.max_op + 1).saturating_sub(change.start_op),
        is_behind: change.deps.iter().any(is_before),
    }
}

#[cfg(test)]
mod tests {
    use automerge::{ROOT, transaction::Transactable as _};
    use quickcheck::quickcheck;

    use super::{
        super::tests::{Step, written},
        *,
    };

    quickcheck! {
        /// Whoever got the changes in another order has the same log, in which nothing comes
        /// before what it builds on.
        fn replicas_have_the_same_log(steps: Vec<Step>, shuffle: u64) -> bool {
            let doc = written(&steps);
            let mut changes = doc.get_changes(&[]);
            let length = changes.len().max(1);
            changes.rotate_left(usize::try_from(shuffle).unwrap_or(0) % length);
            let mut other = Automerge::new();
            for change in changes {
                other.apply_changes([change]).unwrap();
            }
            let all = log(&doc, &[], Order::OldestFirst, usize::MAX).unwrap();
            let mut before = BTreeSet::new();
            let is_causal = all.iter().all(|entry| {
                before.insert(entry.stamp.change);
                entry.deps.iter().all(|dep| before.contains(dep))
            });
            let mut newest = log(&other, &[], Order::NewestFirst, usize::MAX).unwrap();
            newest.reverse();
            is_causal && newest == all && all.len() == doc.get_changes(&[]).len()
        }

        /// In pages it is what it is at once.
        fn pages_are_the_whole_log(steps: Vec<Step>, page: usize) -> bool {
            let doc = written(&steps);
            let all = log(&doc, &[], Order::OldestFirst, usize::MAX).unwrap();
            let (mut paged, mut at) = (Vec::new(), Vec::new());
            loop {
                let next = log(&doc, &at, Order::OldestFirst, page % 5 + 1).unwrap();
                at = cursor(&at, &next);
                if next.is_empty() {
                    return paged == all && at == super::super::tests::heads(&doc);
                }
                paged.extend(next);
            }
        }
    }

    #[test]
    fn an_entry_says_what_the_change_says() {
        let mut doc = Automerge::new().with_author(Some(super::super::author("ann").unwrap()));
        let first = doc.empty_commit(
            automerge::transaction::CommitOptions::default().with_time(50).with_message("begin"),
        );
        let mut tx = doc.transaction();
        tx.put(ROOT, "a", 1).unwrap();
        tx.put(ROOT, "b", 2).unwrap();
        let options = automerge::transaction::CommitOptions::default().with_time(40);
        let second = tx.commit_with(options).0.unwrap();
        let log = log(&doc, &[], Order::NewestFirst, 9).unwrap();
        let said: Vec<_> = log
            .iter()
            .map(|entry| {
                let Stamp { change, seq, author, time_s, message, .. } = &entry.stamp;
                let (author, message) = (author.as_deref(), message.as_deref());
                (*change, *seq, author, *time_s, message, entry.operations, entry.is_behind)
            })
            .collect();
        assert_eq!(
            said,
            [
                (ChangeHash(second.0), 2, Some("ann"), 40, None, 2, true),
                (ChangeHash(first.0), 1, Some("ann"), 50, Some("begin"), 0, false),
            ]
        );
        assert_eq!(log[0].deps, [ChangeHash(first.0)]);
        assert_eq!(log[1].stamp.actor, doc.get_actor().to_string());
    }

    #[test]
    fn a_cursor_that_is_of_no_change_is_refused() {
        let doc = written(&[]);
        let hash = ChangeHash([7; 32]);
        let refused = log(&doc, &[hash], Order::OldestFirst, 1);
        assert!(matches!(refused, Err(HistoryError::NoChange(it)) if it == hash));
    }
}
