//! A document without one of its changes, and with what was made after it all the same.
//!
//! Changes name what they build on, so nothing can be taken out from under them. What builds on a
//! change that goes is written again, operation by operation, as its writer would have made it had
//! the change never been: by another writer's name, with the same author, time and words.
//!
//! An operation is written again where it means the same without what is gone:
//! - what it replaces is what was there before, if what it replaced is gone, and also what a change
//!   that is gone had removed there;
//! - what was inserted behind an element that is gone is inserted behind the one before it;
//! - what was done to an element, object or counter that is gone is gone with it.
//!
//! The changes that stay as they are, and the new ones, make the document.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{
    ActorId, Automerge, Change, ChangeHash as Hash, ExpandedChange, ReadDoc as _,
    legacy::{ElementId, Key, ObjectId, Op, OpId, OpType},
};
use concord_protocol::ChangeHash;

/// What a document is without one of its changes.
#[derive(Debug, Clone)]
pub struct Rebased {
    /// The changes that stay as they are, in causal order.
    pub kept: Vec<Change>,
    /// Those that were written again, in causal order, each behind what it builds on; and which it
    /// was.
    pub rewritten: Vec<(ChangeHash, Change)>,
    /// Of those that built on what is gone: so many operations of each are gone with it.
    pub lost: BTreeMap<ChangeHash, usize>,
}

/// Why a document cannot be had without a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RebaseError {
    /// There is no such change.
    #[error("change {0} is not in the document")]
    Unknown(ChangeHash),
    /// What is left does not make a document.
    #[error("the document cannot be made without it: {0}")]
    Impossible(String),
}

/// An operation by its name.
type Id = OpId;

/// A place that holds a value.
type Slot = (ObjectId, Key);

/// An operation that is not there any more.
#[derive(Debug, Clone)]
struct Gone {
    /// What it inserted came behind this.
    behind: Option<ElementId>,
    /// What it had taken the place of, by names that are valid now.
    pred: Vec<Id>,
    /// It made an element, an object or a counter of its own.
    inserts: bool,
}

/// What became of operations that are not kept as they are.
#[derive(Debug, Clone)]
enum Fate {
    Renamed(Id),
    Gone(Gone),
}

#[derive(Default)]
struct Rebase {
    fates: BTreeMap<Id, Fate>,
    /// What the change that is gone had replaced or removed, and is there again until somebody
    /// replaces it. All that is written again builds on that change, so knows what it had replaced.
    restored: BTreeMap<Slot, BTreeSet<Id>>,
    /// What changes that are gone, or are written again, stand for.
    deps: BTreeMap<Hash, BTreeSet<Hash>>,
    /// The highest counter of a change and all below it.
    reach: BTreeMap<Hash, u64>,
    writers: BTreeMap<ActorId, Writer>,
}

/// Who writes again what somebody wrote.
struct Writer {
    actor: ActorId,
    seq: u64,
    last: Option<Hash>,
}

/// A document without this change. `names` gives the names of new writers; each must never have been
/// used.
///
/// # Errors
/// [`RebaseError::Unknown`].
pub fn without(
    doc: &Automerge,
    gone: ChangeHash,
    mut names: impl FnMut() -> ActorId,
) -> Result<Rebased, RebaseError> {
    let root = Hash(gone.0);
    if doc.get_change_meta_by_hash(&root).is_none() {
        return Err(RebaseError::Unknown(gone));
    }
    // An author stands behind a writer's first change.
    let mut footers: BTreeMap<ActorId, Vec<u8>> = BTreeMap::new();
    let mut rebase = Rebase::default();
    let mut out = Rebased { kept: Vec::new(), rewritten: Vec::new(), lost: BTreeMap::new() };
    for change in doc.get_changes(&[]) {
        let hash = change.hash();
        if change.seq() == 1 {
            footers.insert(change.actor_id().clone(), change.extra_bytes().to_vec());
        }
        if hash == root {
            rebase.remove(hash, change.decode());
        } else if change.deps().iter().any(|dep| rebase.deps.contains_key(dep)) {
            let footer = footers.get(change.actor_id()).cloned().unwrap_or_default();
            let (again, lost) = rebase.rewrite(hash, change.decode(), footer, &mut names);
            if lost > 0 {
                out.lost.insert(ChangeHash(hash.0), lost);
            }
            if let Some(again) = again {
                out.rewritten.push((ChangeHash(hash.0), again));
            }
        } else {
            rebase.reach.insert(hash, change.max_op().max(rebase.reach_of(change.deps())));
            out.kept.push(change);
        }
    }
    Ok(out)
}

impl Rebased {
    /// The document that it is.
    ///
    /// # Errors
    /// [`RebaseError::Impossible`].
    pub fn document(&self) -> Result<Automerge, RebaseError> {
        let impossible =
            |error: automerge::AutomergeError| RebaseError::Impossible(error.to_string());
        let mut doc = Automerge::new();
        doc.apply_changes(self.changes().cloned().collect::<Vec<_>>()).map_err(impossible)?;
        // What waits for something that is not there would be lost.
        match doc.get_missing_deps(&[]).first() {
            Some(missing) => Err(RebaseError::Impossible(format!("it lacks {missing}"))),
            None => Ok(doc),
        }
    }

    /// All its changes, in causal order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.kept.iter().chain(self.rewritten.iter().map(|(_, change)| change))
    }
}

impl Rebase {
    fn reach_of<'a>(&self, deps: impl IntoIterator<Item = &'a Hash>) -> u64 {
        deps.into_iter().filter_map(|dep| self.reach.get(dep)).copied().max().unwrap_or(0)
    }

    /// What these dependencies are now.
    fn mapped(&self, deps: &[Hash]) -> BTreeSet<Hash> {
        let mut mapped = BTreeSet::new();
        for dep in deps {
            match self.deps.get(dep) {
                Some(now) => mapped.extend(now),
                None => _ = mapped.insert(*dep),
            }
        }
        mapped
    }

    /// Takes a change out.
    fn remove(&mut self, hash: Hash, change: ExpandedChange) {
        let deps = self.mapped(&change.deps);
        self.deps.insert(hash, deps);
        let actor = change.actor_id;
        for (counter, op) in (change.start_op.get()..).zip(change.operations) {
            if !op.insert && !matches!(op.action, OpType::Increment(_)) {
                let slot = (op.obj.clone(), op.key.clone());
                let present = self.present(op.pred.iter());
                self.restored.entry(slot).or_default().extend(present);
            }
            self.is_gone(OpId(counter, actor.clone()), &op);
        }
    }

    /// An operation is gone; what it had replaced is there again.
    fn is_gone(&mut self, id: Id, op: &Op) {
        let pred = self.present(op.pred.iter());
        let behind = match &op.key {
            Key::Seq(element) if op.insert => Some(element.clone()),
            _ => None,
        };
        let gone = Gone { behind, pred, inserts: op.insert };
        self.fates.insert(id, Fate::Gone(gone));
    }

    /// What stands for these operations now.
    fn present<'a>(&self, ids: impl Iterator<Item = &'a Id>) -> Vec<Id> {
        let mut present = BTreeSet::new();
        for id in ids {
            match self.fates.get(id) {
                None => _ = present.insert(id.clone()),
                Some(Fate::Renamed(now)) => _ = present.insert(now.clone()),
                Some(Fate::Gone(gone)) => present.extend(gone.pred.iter().cloned()),
            }
        }
        present.into_iter().collect()
    }

    /// An object as it is named now; `None`: it is gone.
    fn object(&self, object: &ObjectId) -> Option<ObjectId> {
        let ObjectId::Id(id) = object else { return Some(ObjectId::Root) };
        match self.fates.get(id) {
            None => Some(object.clone()),
            Some(Fate::Renamed(now)) => Some(ObjectId::Id(now.clone())),
            Some(Fate::Gone(_)) => None,
        }
    }

    /// An element as it is named now; `None`: it is gone.
    fn element(&self, element: &ElementId) -> Option<ElementId> {
        let ElementId::Id(id) = element else { return Some(ElementId::Head) };
        match self.fates.get(id) {
            None => Some(element.clone()),
            Some(Fate::Renamed(now)) => Some(ElementId::Id(now.clone())),
            Some(Fate::Gone(_)) => None,
        }
    }

    /// The element, or the nearest before it that is there.
    fn anchor(&self, element: &ElementId) -> ElementId {
        let mut element = element.clone();
        loop {
            if let Some(now) = self.element(&element) {
                return now;
            }
            let ElementId::Id(id) = &element else { return ElementId::Head };
            element = match self.fates.get(id) {
                Some(Fate::Gone(Gone { behind: Some(behind), inserts: true, .. })) => {
                    behind.clone()
                }
                _ => return ElementId::Head,
            };
        }
    }

    /// An operation as it would have been made; `None`: it is gone, too.
    fn again(&mut self, op: &Op) -> Option<Op> {
        let obj = self.object(&op.obj)?;
        let key = match &op.key {
            Key::Map(key) => Key::Map(key.clone()),
            Key::Seq(element) if op.insert => Key::Seq(self.anchor(element)),
            Key::Seq(element) => Key::Seq(self.element(element)?),
        };
        let mut pred: BTreeSet<Id> = self.present(op.pred.iter()).into_iter().collect();
        if let OpType::Increment(_) = op.action {
            // Of what it counted nothing else is the same counter.
            let is_here = |id: &Id| !matches!(self.fates.get(id), Some(Fate::Gone(_)));
            pred = self.present(op.pred.iter().filter(|id| is_here(id))).into_iter().collect();
            if pred.is_empty() {
                return None;
            }
        } else if !op.insert
            && let Some(restored) = self.restored.remove(&(op.obj.clone(), op.key.clone()))
        {
            // Whoever wrote here saw that nothing of it was left.
            pred.extend(restored);
        }
        if matches!(op.action, OpType::Delete) && pred.is_empty() {
            return None;
        }
        let pred = pred.into_iter().collect::<Vec<_>>().into();
        Some(Op { action: op.action.clone(), obj, key, pred, insert: op.insert })
    }

    /// Writes a change again; gives how many of its operations are gone.
    fn rewrite(
        &mut self,
        hash: Hash,
        change: ExpandedChange,
        footer: Vec<u8>,
        names: &mut impl FnMut() -> ActorId,
    ) -> (Option<Change>, usize) {
        let mut deps = self.mapped(&change.deps);
        let had_operations = !change.operations.is_empty();
        let writer = self.writers.entry(change.actor_id.clone()).or_insert_with(|| Writer {
            actor: names(),
            seq: 0,
            last: None,
        });
        let (actor, seq) = (writer.actor.clone(), writer.seq + 1);
        deps.extend(writer.last);
        let first = self.reach_of(&deps) + 1;
        let mut operations = Vec::with_capacity(change.operations.len());
        let mut lost = 0;
        for (counter, op) in (change.start_op.get()..).zip(&change.operations) {
            let id = OpId(counter, change.actor_id.clone());
            if let Some(again) = self.again(op) {
                let now = OpId(first + operations.len() as u64, actor.clone());
                self.fates.insert(id, Fate::Renamed(now));
                operations.push(again);
            } else {
                lost += 1;
                self.is_gone(id, op);
            }
        }
        if operations.is_empty() && had_operations {
            self.deps.insert(hash, deps);
            return (None, lost);
        }
        let reach = first + operations.len() as u64 - 1;
        let again = Change::from(ExpandedChange {
            operations,
            actor_id: actor,
            hash: None,
            seq,
            start_op: first.try_into().unwrap_or(std::num::NonZeroU64::MIN),
            time: change.time,
            message: change.message,
            deps: deps.into_iter().collect(),
            extra_bytes: if seq == 1 { footer } else { change.extra_bytes },
            author: None,
        });
        if let Some(writer) = self.writers.get_mut(&change.actor_id) {
            (writer.seq, writer.last) = (seq, Some(again.hash()));
        }
        self.deps.insert(hash, BTreeSet::from([again.hash()]));
        self.reach.insert(again.hash(), reach);
        (Some(again), lost)
    }
}

#[cfg(test)]
mod tests;
