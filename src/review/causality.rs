//! Who had seen what: for each change the last change of every actor that it builds on.
//!
//! These are version vectors (Parker et al. 1983). A run of changes that one actor made on nothing
//! but its own last one shares one vector, so that typing costs a few words a change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use automerge::{ActorId, Change, ChangeHash};

use super::operation::Id;

/// A change, by its place in the order in which changes were taken in.
pub(super) type ChangeNumber = u32;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Causality {
    actors: Vec<ActorId>,
    numbers: BTreeMap<ActorId, u32>,
    by_hash: BTreeMap<ChangeHash, ChangeNumber>,
    changes: Vec<Known>,
    /// Of each actor, in order: the counter of the first operation, and the change.
    of_actor: Vec<Vec<(u64, ChangeNumber)>>,
}

#[derive(Debug)]
struct Known {
    hash: ChangeHash,
    actor: u32,
    seq: u64,
    /// What others had done and it had seen: actor and sequence number, sorted.
    others: Arc<[(u32, u64)]>,
}

impl Causality {
    /// Takes a change in. Its dependencies must have come before: gives the first that has not.
    pub(super) fn add(&mut self, change: &Change) -> Result<ChangeNumber, ChangeHash> {
        let mut deps = Vec::with_capacity(change.deps().len());
        for dep in change.deps() {
            deps.push(*self.by_hash.get(dep).ok_or(*dep)?);
        }
        let actor = self.actor(change.actor_id());
        let others = match deps.as_slice() {
            [only] if self.known(*only).actor == actor => Arc::clone(&self.known(*only).others),
            _ => {
                let mut seen = BTreeMap::new();
                for dep in deps {
                    let known = self.known(dep);
                    for &(actor, seq) in known.others.iter().chain([&(known.actor, known.seq)]) {
                        let last = seen.entry(actor).or_insert(0);
                        *last = seq.max(*last);
                    }
                }
                seen.remove(&actor);
                seen.into_iter().collect()
            }
        };
        let number = ChangeNumber::try_from(self.changes.len()).unwrap_or(ChangeNumber::MAX);
        self.by_hash.insert(change.hash(), number);
        self.of_actor[actor as usize].push((change.start_op().get(), number));
        self.changes.push(Known { hash: change.hash(), actor, seq: change.seq(), others });
        Ok(number)
    }

    /// Whether a change was taken in.
    pub(super) fn has(&self, hash: &ChangeHash) -> bool {
        self.by_hash.contains_key(hash)
    }

    /// The number of an actor, here.
    pub(super) fn actor(&mut self, actor: &ActorId) -> u32 {
        if let Some(number) = self.numbers.get(actor) {
            return *number;
        }
        let number = u32::try_from(self.actors.len()).unwrap_or(u32::MAX);
        self.actors.push(actor.clone());
        self.numbers.insert(actor.clone(), number);
        self.of_actor.push(Vec::new());
        number
    }

    /// An operation's name, as automerge writes it: the same on every replica.
    pub(super) fn name(&self, id: Id) -> String {
        format!("{}@{}", id.counter, self.actors[id.actor as usize])
    }

    pub(super) fn hash(&self, change: ChangeNumber) -> ChangeHash {
        self.known(change).hash
    }

    pub(super) fn actor_of(&self, change: ChangeNumber) -> u32 {
        self.known(change).actor
    }

    /// The change that an operation is in.
    pub(super) fn change_of(&self, id: Id) -> Option<ChangeNumber> {
        let changes = self.of_actor.get(id.actor as usize)?;
        let after = changes.partition_point(|(start, _)| *start <= id.counter);
        Some(changes.get(after.checked_sub(1)?)?.1)
    }

    /// Whether who made `later` had seen `earlier`; of itself it has.
    pub(super) fn saw(&self, later: ChangeNumber, earlier: ChangeNumber) -> bool {
        let (later, earlier) = (self.known(later), self.known(earlier));
        later.last_seen(earlier.actor) >= earlier.seq
    }

    /// The heads of what all of these had seen before they were made.
    pub(super) fn seen_by_all(&self, changes: &BTreeSet<ChangeNumber>) -> Vec<ChangeHash> {
        let mut common: BTreeSet<ChangeNumber> = BTreeSet::new();
        for (actor, of_actor) in self.of_actor.iter().enumerate() {
            let actor = u32::try_from(actor).unwrap_or(u32::MAX);
            let seen = changes.iter().map(|change| {
                let known = self.known(*change);
                known.last_seen(actor) - u64::from(known.actor == actor)
            });
            let seq = seen.min().unwrap_or(0);
            let last = usize::try_from(seq).ok().and_then(|seq| of_actor.get(seq.checked_sub(1)?));
            common.extend(last.map(|(_, number)| *number));
        }
        let mut heads: Vec<ChangeHash> =
            self.last_of(&common).iter().map(|change| self.hash(*change)).collect();
        heads.sort_unstable();
        heads
    }

    /// Those of some changes that no other of them has seen.
    pub(super) fn last_of(&self, changes: &BTreeSet<ChangeNumber>) -> BTreeSet<ChangeNumber> {
        // By actor, the last that others have seen, or itself the one before its last.
        let mut seen: BTreeMap<u32, u64> = BTreeMap::new();
        let mut see = |actor: u32, seq: u64| {
            let last = seen.entry(actor).or_insert(0);
            *last = (*last).max(seq);
        };
        for known in changes.iter().map(|change| self.known(*change)) {
            known.others.iter().for_each(|(actor, seq)| see(*actor, *seq));
            see(known.actor, known.seq - 1);
        }
        let is_last = |change: &&ChangeNumber| {
            let known = self.known(**change);
            seen.get(&known.actor).is_none_or(|seq| *seq < known.seq)
        };
        changes.iter().filter(is_last).copied().collect()
    }

    fn known(&self, change: ChangeNumber) -> &Known {
        // Numbers come from `add` only.
        &self.changes[change as usize]
    }
}

impl Known {
    /// The last change of an actor that it builds on, or is.
    fn last_seen(&self, actor: u32) -> u64 {
        if self.actor == actor {
            return self.seq;
        }
        let at = self.others.binary_search_by_key(&actor, |(actor, _)| *actor);
        at.map_or(0, |at| self.others[at].1)
    }
}
