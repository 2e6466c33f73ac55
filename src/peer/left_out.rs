//! Changes that a document is shown without: those that it breaks with, and all that builds on
//! them. The replica checks behind, in a worker, and withholds them for good; until it has, the
//! document is to be usable all the same.

use std::collections::BTreeSet;

use automerge::ActorId;
use concord_protocol::{ChangeHash, Limits, guard};

use super::content::{self, Incoming, Unusable};
use crate::worker::prefix::PrefixSearch;

/// Changes that are found to break a document before it is given up: to find one takes about as
/// many loads of it as the number of its changes has binary digits.
const CULPRITS_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    culprits: usize,
    hashes: BTreeSet<ChangeHash>,
}

impl LeftOut {
    /// These chunks, in causal order, but for those that are left out.
    pub(super) fn without(&mut self, chunks: Vec<Incoming>) -> Vec<Incoming> {
        if self.hashes.is_empty() {
            return chunks;
        }
        chunks.into_iter().filter(|chunk| !self.contains(chunk)).collect()
    }

    /// One more breaks the document. Gives whether there may be so many.
    pub(super) fn add(&mut self, culprit: ChangeHash) -> bool {
        self.culprits += 1;
        self.culprits <= CULPRITS_MAX && self.hashes.insert(culprit)
    }

    /// Whether a chunk is one of them, which it is if it builds on one.
    fn contains(&mut self, chunk: &Incoming) -> bool {
        let Incoming::Change(bytes) = chunk else { return false };
        // What is no change is found out where it is taken in.
        let Ok(header) = guard::check_change(bytes, &Limits::default()) else { return false };
        if header.deps.iter().any(|dep| self.hashes.contains(dep)) {
            self.hashes.insert(header.hash);
        }
        self.hashes.contains(&header.hash)
    }
}

/// The first change that a document cannot be made with, and why; for this reason it cannot be
/// made of all of these chunks. `None` if no single change is to blame.
pub(super) fn culprit(chunks: &[Incoming], mut reason: Unusable) -> Option<(ChangeHash, Unusable)> {
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
    Some((header.hash, reason))
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

    fn hash(chunk: &Incoming) -> ChangeHash {
        let Incoming::Change(bytes) = chunk else { panic!("not a change") };
        guard::check_change(bytes, &Limits::default()).unwrap().hash
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
        assert!(left_out.add(hash(&second)));
        assert_eq!(left_out.without(all), [first, beside]);
        // Also where it comes later, and alone.
        let fourth = edited(&mut doc, 5);
        assert_eq!(left_out.without(vec![fourth]), []);
    }

    #[test]
    fn so_many_and_no_more_are_left_out() {
        let mut left_out = LeftOut::default();
        for n in 0..CULPRITS_MAX {
            assert!(left_out.add(ChangeHash([u8::try_from(n).unwrap(); 32])));
        }
        assert!(!left_out.add(ChangeHash([255; 32])));
    }

    #[test]
    fn a_change_that_was_left_out_and_came_again_is_no_way_forward() {
        let mut left_out = LeftOut::default();
        assert!(left_out.add(ChangeHash([1; 32])));
        assert!(!left_out.add(ChangeHash([1; 32])));
    }

    #[test]
    fn the_change_that_breaks_is_found_among_good_ones() {
        let mut doc = Automerge::new();
        let mut chunks: Vec<_> = (0..20).map(|n| edited(&mut doc, n)).collect();
        let bad = Incoming::Change(Bytes::from_static(POISON));
        let name = hash(&bad);
        chunks.insert(7, bad);
        let why = || content::load(ActorId::from([0; 16]), chunks.clone()).unwrap_err();
        let (found, reason) = culprit(&chunks, why()).unwrap();
        assert_eq!((found, &reason), (name, &why()));
        chunks.insert(0, Incoming::Snapshot(Bytes::from_static(b"broken")));
        assert!(culprit(&chunks, reason).is_none(), "the snapshot breaks by itself");
    }
}
