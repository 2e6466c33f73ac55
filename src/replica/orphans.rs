//! Changes that came before what they build on: a bounded waiting room, never automerge's queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use concord_protocol::{ChangeHash, Limits, guard::ChangeHeader};

use super::ConnectionId;

/// A change that waits.
#[derive(Debug)]
pub(super) struct Orphan {
    pub(super) header: ChangeHeader,
    pub(super) bytes: Bytes,
    /// `None`: it was in storage.
    pub(super) from: Option<ConnectionId>,
    missing: BTreeSet<ChangeHash>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    waiting: BTreeMap<ChangeHash, Orphan>,
    /// Missing change -> those that wait for it.
    wanted: BTreeMap<ChangeHash, BTreeSet<ChangeHash>>,
    /// Those that somebody sent, oldest first; may name changes that are gone.
    order: VecDeque<ChangeHash>,
    /// How many those are, and their bytes. What is stored waits without limit: it would be in
    /// memory anyway, and nobody could be asked for it again.
    sent: usize,
    bytes: usize,
}

impl Orphans {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes a change in. Where there is no room the oldest that were sent are forgotten: those
    /// who brought them, given back, are to send them again.
    pub(super) fn insert(
        &mut self,
        header: ChangeHeader,
        bytes: Bytes,
        from: Option<ConnectionId>,
        missing: Vec<ChangeHash>,
        limits: &Limits,
    ) -> BTreeSet<ConnectionId> {
        let hash = header.hash;
        if let Some(known) = self.waiting.get_mut(&hash) {
            // It came again; whoever brought it last is told what becomes of it.
            mark!(OrphanAgain);
            if known.from.is_some() && from.is_some() {
                known.from = from;
            }
            return BTreeSet::new();
        }
        for dep in &missing {
            self.wanted.entry(*dep).or_default().insert(hash);
        }
        if from.is_some() {
            self.sent += 1;
            self.bytes += bytes.len();
            self.order.push_back(hash);
        }
        let missing = missing.into_iter().collect();
        self.waiting.insert(hash, Orphan { header, bytes, from, missing });
        let mut robbed = BTreeSet::new();
        while self.sent > limits.orphans || self.bytes > limits.orphan_bytes {
            if mutant!(OrphansUnbounded) {
                break;
            }
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            robbed.extend(self.remove(&oldest).and_then(|orphan| orphan.from));
        }
        robbed
    }

    /// Gives back all that wait, those that were sent first in front: what they build on may have
    /// come in another way than as a change.
    pub(super) fn take_all(&mut self) -> Vec<Orphan> {
        let Self { mut waiting, order, .. } = std::mem::take(self);
        let sent: Vec<Orphan> = order.iter().filter_map(|hash| waiting.remove(hash)).collect();
        waiting.into_values().chain(sent).collect()
    }

    fn remove(&mut self, hash: &ChangeHash) -> Option<Orphan> {
        let orphan = self.waiting.remove(hash)?;
        if orphan.from.is_some() {
            self.sent -= 1;
            self.bytes -= orphan.bytes.len();
        }
        for dep in &orphan.missing {
            if let Some(waiters) = self.wanted.get_mut(dep) {
                waiters.remove(hash);
                if waiters.is_empty() {
                    self.wanted.remove(dep);
                }
            }
        }
        if self.order.len() > 2 * self.sent + 16 {
            let waiting = &self.waiting;
            self.order.retain(|hash| waiting.contains_key(hash));
        }
        Some(orphan)
    }

    /// Tells that a change has arrived; gives those that wait for nothing any more but for it and
    /// for each other, in causal order.
    pub(super) fn arrived(&mut self, hash: &ChangeHash) -> Vec<Orphan> {
        let mut ready = Vec::new();
        let mut next = VecDeque::from([*hash]);
        while let Some(hash) = next.pop_front() {
            for waiter in self.wanted.remove(&hash).into_iter().flatten() {
                let Some(orphan) = self.waiting.get_mut(&waiter) else { continue };
                orphan.missing.remove(&hash);
                if orphan.missing.is_empty() {
                    next.push_back(waiter);
                    ready.extend(self.remove(&waiter));
                }
            }
        }
        ready
    }

    /// What must come before `hash` can be taken in: itself, or what it waits for, and so on.
    pub(super) fn needed_for(&self, hash: ChangeHash, needed: &mut BTreeSet<ChangeHash>) {
        let mut seen = BTreeSet::new();
        let mut next = vec![hash];
        while let Some(hash) = next.pop() {
            if !seen.insert(hash) {
                continue;
            }
            match self.waiting.get(&hash) {
                Some(orphan) => next.extend(orphan.missing.iter().copied()),
                None => {
                    needed.insert(hash);
                }
            }
        }
    }

    /// Forgets what one change needs, and all that waits on it, for good.
    pub(super) fn refuse(&mut self, hash: &ChangeHash) -> Vec<Orphan> {
        let mut refused = Vec::new();
        let mut next = vec![*hash];
        while let Some(hash) = next.pop() {
            next.extend(self.wanted.get(&hash).into_iter().flatten().copied());
            refused.extend(self.remove(&hash));
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(number: u8) -> ChangeHeader {
        ChangeHeader {
            hash: ChangeHash([number; 32]),
            deps: vec![ChangeHash([0; 32])],
            actor: concord_protocol::ActorId::from([number; 16].as_slice()),
            seq: 1,
            start_op: 2,
            ops: 1,
            time: 0,
            other_actors: Vec::new(),
            objects_made: Vec::new(),
            objects_named: Vec::new(),
            inflated_bytes: 100,
        }
    }

    #[test]
    fn all_that_wait_for_each_other_come_back_at_once_in_causal_order() {
        let limits = Limits::default();
        let mut orphans = Orphans::default();
        let hash = |number: u8| ChangeHash([number; 32]);
        let waits: [(u8, &[u8]); 5] = [(5, &[3, 4]), (3, &[2]), (4, &[2, 9]), (2, &[1]), (6, &[3])];
        for (number, missing) in waits {
            let missing = missing.iter().copied().map(hash).collect();
            orphans.insert(header(number), Bytes::new(), None, missing, &limits);
        }
        let mut back = |number| {
            let back = orphans.arrived(&hash(number));
            back.iter().map(|orphan| orphan.header.hash.0[0]).collect::<Vec<_>>()
        };
        assert_eq!(back(1), [2, 3, 6], "what waits for 9 waits on");
        assert_eq!(back(9), [4, 5]);
        assert_eq!(orphans.len(), 0);
    }

    #[test]
    fn what_comes_again_takes_no_more_room() {
        let mut limits = Limits::default();
        limits.orphan_bytes = 250;
        let mut orphans = Orphans::default();
        let missing = || vec![ChangeHash([0; 32])];
        let bytes = Bytes::from(vec![0; 100]);
        for _ in 0..10 {
            for number in [1, 2] {
                let from = Some(ConnectionId(1));
                let robbed =
                    orphans.insert(header(number), bytes.clone(), from, missing(), &limits);
                assert!(robbed.is_empty());
            }
        }
        assert_eq!(orphans.len(), 2);
        assert_eq!(orphans.arrived(&ChangeHash([0; 32])).len(), 2);
        assert_eq!((orphans.len(), orphans.bytes), (0, 0));
    }
}
