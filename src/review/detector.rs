//! The state of every slot that matters: which writes nobody has seen and overwritten, and who
//! edited inside what was there.
//!
//! An edit inside an object, or of a counter, is a *touch* of every slot on the way down to it. A
//! write that saw a touch takes it away; one that did not, and removed what was touched, is in
//! conflict with it. All of this depends on which changes there are and who had seen what, never
//! on the order in which they came, so that every replica finds the same.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Change, ChangeHash, ObjType, ScalarValue};

use super::{
    ConflictId,
    causality::{Causality, ChangeNumber},
    operation::{Id, Key, Operation, Slot, What, operations},
    resolution::Decided,
};

/// A change that is not taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Changes are taken in after those that they build on.
    #[error(
        "change {change} builds on {missing}, which did not come before it: give changes in causal order"
    )]
    OutOfOrder {
        /// Which.
        change: ChangeHash,
        /// What it builds on.
        missing: ChangeHash,
    },
    /// Its operations are of a kind that nobody here knows.
    #[error("automerge cannot read the operations of change {0}")]
    Operations(ChangeHash),
}

/// Finds conflicts in the changes of one document; see the module `review`.
///
/// It costs what the changes bring: nothing is looked at twice, and nothing but the changes is
/// looked at.
#[derive(Debug, Default)]
pub struct Detector {
    pub(super) causality: Causality,
    pub(super) slots: BTreeMap<Slot, State>,
    pub(super) objects: BTreeMap<Id, Made>,
    /// Counters, and what became of them.
    counters: BTreeMap<Id, Vec<Id>>,
    /// Slots with more than one intent in them.
    pub(super) disputed: BTreeSet<Slot>,
    /// Changes that decide a conflict, and which.
    pub(super) decisions: BTreeMap<ChangeNumber, ConflictId>,
    pub(super) decided: BTreeMap<ConflictId, Vec<ChangeNumber>>,
    /// Those of them that policies made.
    automatic: BTreeSet<ChangeNumber>,
}

/// What is known of a slot.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Writes that no other write of the slot has seen.
    pub(super) writes: Vec<Write>,
    /// Edits inside what was there that no write of the slot has seen: the last of each actor,
    /// and its last before it learned of another write.
    pub(super) touches: Vec<Touch>,
    /// Writes that others have seen: who writes without having seen those may go by them.
    past: Vec<Write>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Write {
    pub(super) id: Id,
    /// The operation that holds the value: another one where a value was written that was there.
    holds: Id,
    pub(super) change: ChangeNumber,
    /// `Put`, `Make` or `Delete`.
    pub(super) what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Touch {
    /// The object or counter of the slot that was edited.
    pub(super) of: Id,
    pub(super) change: ChangeNumber,
}

/// An object.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) slot: Slot,
    pub(super) kind: ObjType,
    /// The writes that removed it.
    removed_by: Vec<Id>,
}

impl Detector {
    /// One that has taken in these changes.
    ///
    /// # Errors
    /// As [`Detector::take_in`].
    pub fn of(changes: &[Change]) -> Result<Self, Unreadable> {
        let mut detector = Self::default();
        changes.iter().try_for_each(|change| detector.take_in(change))?;
        Ok(detector)
    }

    /// Takes a change in; one that was taken in before is passed over.
    ///
    /// # Errors
    /// [`Unreadable`]; then nothing of it was taken in.
    pub fn take_in(&mut self, change: &Change) -> Result<(), Unreadable> {
        let hash = change.hash();
        if self.causality.has(&hash) {
            return Ok(());
        }
        let operations =
            operations(change, &mut self.causality).ok_or(Unreadable::Operations(hash))?;
        let number = self
            .causality
            .add(change)
            .map_err(|missing| Unreadable::OutOfOrder { change: hash, missing })?;
        let mut touched = BTreeSet::new();
        for operation in operations {
            self.operate(number, operation, &mut touched);
        }
        if let Some(decided) = change.message().and_then(Decided::read) {
            self.decisions.insert(number, decided.conflict);
            if decided.is_automatic() {
                self.automatic.insert(number);
            }
            self.decided.entry(decided.conflict).or_default().push(number);
        }
        Ok(())
    }

    /// The changes that wrote these keys of the document, or inside what is there, and that none of
    /// the others has seen; these changes aside.
    pub(super) fn last_writers(
        &self,
        keys: &[String],
        aside: &[ChangeHash],
    ) -> BTreeSet<ChangeNumber> {
        let slot = |key: &String| Slot { object: None, key: Key::Map(key.as_str().into()) };
        let states = keys.iter().filter_map(|key| self.slots.get(&slot(key)));
        let wrote = |state: &State| {
            let writes = state.writes.iter().map(|write| write.change);
            writes.chain(state.touches.iter().map(|touch| touch.change)).collect::<Vec<_>>()
        };
        let mut all: BTreeSet<ChangeNumber> = states.flat_map(wrote).collect();
        all.retain(|change| !aside.contains(&self.causality.hash(*change)));
        self.causality.last_of(&all)
    }

    /// The changes that wrote a key of the document, and that no other that wrote it has seen.
    pub(super) fn writers_of(&self, key: &str) -> Vec<ChangeHash> {
        let slot = Slot { object: None, key: Key::Map(key.into()) };
        let writes = self.slots.get(&slot).into_iter().flat_map(|state| &state.writes);
        writes.map(|write| self.causality.hash(write.change)).collect()
    }

    /// The changes that wrote a key of the document that begins so.
    pub(super) fn writers_of_keys(&self, prefix: &str) -> Vec<ChangeHash> {
        let first = Slot { object: None, key: Key::Map(prefix.into()) };
        let starts = |slot: &Slot| match &slot.key {
            Key::Map(key) => slot.object.is_none() && key.starts_with(prefix),
            Key::Element(_) => false,
        };
        let states = self.slots.range(first..).take_while(|(slot, _)| starts(slot));
        let writes = states.flat_map(|(_, state)| state.writes.iter().chain(&state.past));
        let puts = writes.filter(|write| matches!(write.what, What::Put(_)));
        puts.map(|write| self.causality.hash(write.change)).collect()
    }

    /// The changes that deleted something at this key of the document, and those that edited any
    /// other key without knowing of one of those; each with the keys.
    pub(super) fn edited_meanwhile(
        &self,
        key: &str,
        aside: &[ChangeHash],
    ) -> (BTreeSet<ChangeNumber>, BTreeMap<ChangeNumber, BTreeSet<&str>>) {
        let first = Slot { object: None, key: Key::Map("".into()) };
        let of_root = self.slots.range(first..).take_while(|(slot, _)| slot.object.is_none());
        let (mut marked, mut others) = (BTreeSet::new(), Vec::new());
        for (slot, state) in of_root {
            let Key::Map(name) = &slot.key else { continue };
            let writes = state.writes.iter().map(|write| write.change);
            if **name == *key {
                marked.extend(writes);
            } else {
                let touches = state.touches.iter().map(|touch| touch.change);
                others.extend(writes.chain(touches).map(|change| (change, &**name)));
            }
        }
        let apart = |one: ChangeNumber, other: ChangeNumber| {
            !self.causality.saw(one, other) && !self.causality.saw(other, one)
        };
        let mut edited: BTreeMap<ChangeNumber, BTreeSet<&str>> = BTreeMap::new();
        for (change, name) in others {
            // Who edited what a policy decided is a party already.
            let is_aside =
                self.automatic.contains(&change) || aside.contains(&self.causality.hash(change));
            if !is_aside && marked.iter().any(|mark| apart(*mark, change)) {
                edited.entry(change).or_default().insert(name);
            }
        }
        (marked, edited)
    }

    fn operate(&mut self, change: ChangeNumber, operation: Operation, touched: &mut BTreeSet<Id>) {
        let Operation { id, slot, what, inserts, pred } = operation;
        self.touch_from(change, slot.object, touched);
        match &what {
            What::Mark => {}
            What::Increment => {
                for counter in pred {
                    let removed_by = self.counters.get(&counter);
                    if removed_by.is_some_and(|by| !self.any_seen(change, by)) {
                        self.touch(&slot, Touch { of: counter, change });
                        self.judge(&slot);
                    }
                }
            }
            What::Make(_) | What::Put(_) | What::Delete => {
                for removed in &pred {
                    let object = self.objects.get_mut(removed).map(|made| &mut made.removed_by);
                    if let Some(by) = object.or_else(|| self.counters.get_mut(removed)) {
                        by.push(id);
                        // What this change did inside it before is no longer there.
                        touched.clear();
                    }
                }
                match &what {
                    What::Make(kind) => {
                        let made = Made { slot: slot.clone(), kind: *kind, removed_by: Vec::new() };
                        self.objects.insert(id, made);
                    }
                    What::Put(ScalarValue::Counter(_)) => {
                        self.counters.insert(id, Vec::new());
                    }
                    _ => {}
                }
                // Nobody can have written to a slot before it was made; and most never are again.
                if !inserts {
                    let write = Write { id, holds: id, change, what };
                    if write.what == What::Delete {
                        self.delete(&slot, write, &pred);
                    } else {
                        self.write(&slot, write);
                    }
                }
            }
        }
    }

    /// A delete, or what looks like one: where concurrent values are in a slot and somebody writes
    /// the one that is shown, automerge 0.12 keeps its operation and deletes those of the others.
    fn delete(&mut self, slot: &Slot, mut write: Write, pred: &[Id]) {
        let visible = self.slots.get(slot).map(|state| self.visible(state, write.change));
        let stays = visible.into_iter().flatten().filter(|other| !pred.contains(&other.holds));
        if let Some(shown) = stays.max_by_key(|other| other.holds.counter) {
            (write.holds, write.what) = (shown.holds, shown.what.clone());
        }
        self.write(slot, write);
    }

    /// The values of a slot that whoever made a change saw there.
    fn visible<'a>(&'a self, state: &'a State, change: ChangeNumber) -> Vec<&'a Write> {
        let saw = |other: &&Write| self.causality.saw(change, other.change);
        let mut seen: Vec<&Write> = state.writes.iter().filter(saw).collect();
        if seen.len() < state.writes.len() {
            // What it did not see has taken away what it saw.
            let before: Vec<&Write> = state.past.iter().filter(saw).collect();
            let took_away = |later: &&&Write, earlier: &Write| {
                later.id != earlier.id
                    && self.causality.saw(later.change, earlier.change)
                    && (later.change != earlier.change || later.id.counter > earlier.id.counter)
            };
            let is_last = |write: &&&Write| {
                let mut all = seen.iter().chain(&before);
                !all.any(|later| took_away(&later, write))
            };
            let last: Vec<&Write> = before.iter().filter(is_last).copied().collect();
            seen.extend(last);
        }
        seen.retain(|write| write.what != What::Delete);
        seen
    }

    fn write(&mut self, slot: &Slot, write: Write) {
        let causality = &self.causality;
        let state = self.slots.entry(slot.clone()).or_default();
        let seen = state.writes.extract_if(.., |other| causality.saw(write.change, other.change));
        state.past.extend(seen);
        if mutant!(LastToComeWins) {
            state.writes.clear();
        }
        state.touches.retain(|touch| !causality.saw(write.change, touch.change));
        state.writes.push(write);
        self.judge(slot);
    }

    /// Something in this object was edited: a touch of its slot, and of all above.
    fn touch_from(
        &mut self,
        change: ChangeNumber,
        mut object: Option<Id>,
        touched: &mut BTreeSet<Id>,
    ) {
        while let Some(of) = object {
            // Above it was touched then, too.
            if !touched.insert(of) {
                return;
            }
            let Some(made) = self.objects.get(&of) else { return };
            // Whoever edits what it knows to be gone loses nothing that it could see.
            if self.any_seen(change, &made.removed_by) {
                return;
            }
            let slot = made.slot.clone();
            self.touch(&slot, Touch { of, change });
            self.judge(&slot);
            object = slot.object;
        }
    }

    fn touch(&mut self, slot: &Slot, touch: Touch) {
        let causality = &self.causality;
        let State { writes, touches, past } = self.slots.entry(slot.clone()).or_default();
        let actor = causality.actor_of(touch.change);
        // Whoever has learned of a write since may go on with both: what it did before did not.
        // All that it has learned of was taken in before this.
        let has_learned = |since: ChangeNumber| {
            let mut all = writes.iter().chain(past.iter());
            all.any(|write| {
                causality.saw(touch.change, write.change) && !causality.saw(since, write.change)
            })
        };
        touches.retain(|other| {
            other.of != touch.of
                || causality.actor_of(other.change) != actor
                || has_learned(other.change)
        });
        touches.push(touch);
    }

    fn any_seen(&self, change: ChangeNumber, operations: &[Id]) -> bool {
        let mut changes = operations.iter().filter_map(|id| self.causality.change_of(*id));
        changes.any(|other| self.causality.saw(change, other))
    }

    fn judge(&mut self, slot: &Slot) {
        let disputed = self.slots.get(slot).is_some_and(|state| self.is_disputed(state));
        if disputed {
            self.disputed.insert(slot.clone());
        } else {
            self.disputed.remove(slot);
        }
    }

    fn is_disputed(&self, state: &State) -> bool {
        let deletes = state.writes.iter().filter(|write| write.what == What::Delete).count();
        let kept = state.writes.len() - deletes;
        (kept > 0 && deletes > 0) || self.differ(state) || self.lost_touches(state).next().is_some()
    }

    /// Whether it matters which of the concurrent writes is kept.
    pub(super) fn differ(&self, state: &State) -> bool {
        let kept = || state.writes.iter().filter(|write| write.what != What::Delete);
        if kept().skip(1).any(|other| kept().next().is_some_and(|first| first.what != other.what)) {
            return true;
        }
        // All the same, unless somebody went on with one of them who did not know of another.
        state.touches.iter().any(|touch| {
            let unseen = |other: &Write| {
                other.id != touch.of && !self.causality.saw(touch.change, other.change)
            };
            kept().any(|write| write.id == touch.of) && kept().any(unseen)
        })
    }

    /// Edits inside something that somebody removed who had not seen them.
    pub(super) fn lost_touches<'a>(
        &'a self,
        state: &'a State,
    ) -> impl Iterator<Item = &'a Touch> + 'a {
        let is_lost = |touch: &&'a Touch| !self.removers(touch.of).is_empty();
        state.touches.iter().filter(move |touch| !mutant!(ForgetEditOfDeleted) && is_lost(touch))
    }

    /// The writes that removed an object or counter.
    pub(super) fn removers(&self, of: Id) -> &[Id] {
        let object = self.objects.get(&of).map(|made| &made.removed_by);
        object.or_else(|| self.counters.get(&of)).map_or(&[], Vec::as_slice)
    }
}
