//! Changes that a document is shown without: those that it breaks with, and all that builds on
//! them. The replica checks behind, in a worker, and withholds them for good; until it has, the
//! document is to be usable all the same.

use std::collections::{BTreeMap, BTreeSet};

use automerge::ActorId;
use concord_protocol::{
    ChangeHash, Limits,
    guard::{self, ChangeHeader},
};

use super::content::{self, Incoming, Unusable};
use crate::worker::prefix::PrefixSearch;

/// Changes that are found to break a document before it is given up: to find one takes about as
/// many loads of it as the number of its changes has binary digits.
const CULPRITS_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    culprits: usize,
    /// Each of them with what it builds on.
    changes: BTreeMap<ChangeHash, Vec<ChangeHash>>,
}

impl LeftOut {
    /// These chunks, in causal order, but for those that are left out.
    pub(super) fn without(&mut self, chunks: Vec<Incoming>) -> Vec<Incoming> {
        if self.changes.is_empty() {
            return chunks;
        }
        chunks.into_iter().filter(|chunk| !self.contains(chunk)).collect()
    }

    /// One more breaks the document. Gives whether there may be so many.
    pub(super) fn add(&mut self, culprit: ChangeHeader) -> bool {
        self.culprits += 1;
        self.culprits <= CULPRITS_MAX && self.changes.insert(culprit.hash, culprit.deps).is_none()
    }

    /// What there is to be shown of a document with these heads.
    pub(super) fn shown(&self, heads: &BTreeSet<ChangeHash>) -> BTreeSet<ChangeHash> {
        let mut shown = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut todo: Vec<_> = heads.iter().copied().collect();
        while let Some(hash) = todo.pop() {
            match self.changes.get(&hash) {
                Some(deps) if seen.insert(hash) => todo.extend(deps),
                Some(_) => {}
                None => {
                    shown.insert(hash);
                }
            }
        }
        shown
    }

    /// Whether a chunk is one of them, which it is if it builds on one.
    fn contains(&mut self, chunk: &Incoming) -> bool {
        let Incoming::Change(bytes) = chunk else { return false };
        // What is no change is found out where it is taken in.
        let Ok(header) = guard::check_change(bytes, &Limits::default()) else { return false };
        let is_new = !self.changes.contains_key(&header.hash);
        if is_new && header.deps.iter().any(|dep| self.changes.contains_key(dep)) {
            self.changes.insert(header.hash, header.deps);
            return true;
        }
        !is_new
    }
}

/// The first change that a document cannot be made with, and why; for this reason it cannot be
/// made of all of these chunks. `None` if no single change is to blame.
pub(super) fn culprit(
    chunks: &[Incoming],
    mut reason: Unusable,
) -> Option<(ChangeHeader, Unusable)> {
    let is_snapshot = |chunk: &Incoming| matches!(chunk, Incoming::Snapshot(_));
    let (snapshots, changes): (Vec<_>, Vec<_>) = chunks.iter().cloned().partition(is_snapshot);
    let mut search = PrefixSearch::new(changes.len());
    while let Some(length) = search.next() {
        let prefix = changes.iter().take(length);
        // Nothing is written with this instance.
        let actor = ActorId::from([0; 16]);
        let made = content::load(actor, snapshots.iter().chain(prefix).cloned().collect());
        search.tell(length, made.is_err());
        reason = made.err().unwrap_or(reason);
    }
    let Incoming::Change(bytes) = changes.get(search.culprit()?)? else { return None };
    let header = guard::check_change(bytes, &Limits::default()).ok()?;
    Some((header, reason))
}

#[cfg(test)]
mod tests {
    use automerge::{Automerge, Change, ROOT, ReadDoc as _, transaction::Transactable as _};
    use bytes::Bytes;

    use super::*;

    /// A change that keeps every rule and that automerge cannot apply.
    const POISON: &[u8] = include_bytes!("../../tests/peer_hostile/poison.change");

    fn edited(doc: &mut Automerge, value: i64) -> Incoming {
        let hash = doc.transact(|tx| tx.put(ROOT, "n", value)).unwrap().hash.unwrap();
        chunk(&doc.get_change_by_hash(&hash).unwrap())
    }

    fn chunk(change: &Change) -> Incoming {
        Incoming::Change(Bytes::copy_from_slice(change.raw_bytes()))
    }

    fn header(chunk: &Incoming) -> ChangeHeader {
        let Incoming::Change(bytes) = chunk else { panic!("not a change") };
        guard::check_change(bytes, &Limits::default()).unwrap()
    }

    fn numbered(n: u8) -> ChangeHeader {
        let change = edited(&mut Automerge::new().with_actor(ActorId::from([n])), 1);
        header(&change)
    }

    #[test]
    fn what_builds_on_what_is_left_out_is_left_out_too() {
        let mut doc = Automerge::new();
        let first = edited(&mut doc, 1);
        let mut fork = doc.fork();
        let (second, third) = (edited(&mut doc, 2), edited(&mut doc, 3));
        let beside = edited(&mut fork, 4);
        let mut left_out = LeftOut::default();
        let all = vec![first.clone(), second.clone(), third.clone(), beside.clone()];
        assert_eq!(left_out.without(all.clone()), all);
        assert!(left_out.add(header(&second)));
        assert_eq!(left_out.without(all), [first.clone(), beside.clone()]);
        let shown = |of: &[&Incoming]| of.iter().map(|chunk| header(chunk).hash).collect();
        assert_eq!(left_out.shown(&shown(&[&third, &beside])), shown(&[&first, &beside]));
        // Also where it comes later, and alone.
        let fourth = edited(&mut doc, 5);
        assert_eq!(left_out.without(vec![fourth]), []);
    }

    #[test]
    fn so_many_and_no_more_are_left_out() {
        let mut left_out = LeftOut::default();
        for n in 0..CULPRITS_MAX {
            assert!(left_out.add(numbered(u8::try_from(n).unwrap())));
        }
        assert!(!left_out.add(numbered(255)));
    }

    #[test]
    fn a_change_that_was_left_out_and_came_again_is_no_way_forward() {
        let mut left_out = LeftOut::default();
        assert!(left_out.add(numbered(1)));
        assert!(!left_out.add(numbered(1)));
    }

    #[test]
    fn the_change_that_breaks_is_found_among_good_ones() {
        let mut doc = Automerge::new();
        let mut chunks: Vec<_> = (0..20).map(|n| edited(&mut doc, n)).collect();
        let bad = Incoming::Change(Bytes::from_static(POISON));
        let name = header(&bad).hash;
        chunks.insert(7, bad);
        let why = || content::load(ActorId::from([0; 16]), chunks.clone()).unwrap_err();
        let (found, reason) = culprit(&chunks, why()).unwrap();
        assert_eq!((found.hash, &reason), (name, &why()));
        chunks.insert(0, Incoming::Snapshot(Bytes::from_static(b"broken")));
        assert!(culprit(&chunks, reason).is_none(), "the snapshot breaks by itself");
    }
}
