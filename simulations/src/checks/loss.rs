//! Whether something that a user wrote was lost in a merge without anybody being asked.
//!
//! Written from what automerge says of operations (which of them each takes the place of) and of
//! the final document, and not as the detector of conflicts is: what that one should find is
//! what is asked here. A value is at its place at the end; or something was written there, or above
//! it, by somebody who had seen it; or it is a side of a conflict that is open, or of one that
//! somebody decided who had seen it. Anything else is lost.

use std::collections::BTreeMap;

use automerge::{
    Automerge, Change, ChangeHash, ReadDoc as _,
    legacy::{Key, ObjectId, Op, OpType},
};
use concord::review::{Conflict, Kept, Place, SlotKey};

/// A decision, and where.
pub(crate) struct Decided<'a> {
    pub(crate) change: ChangeHash,
    pub(crate) place: &'a Place,
}

/// A key of a map.
type Slot = (String, String);

/// An operation.
struct Written {
    /// As automerge writes it.
    id: String,
    /// Number of its change, and its own in that.
    at: (usize, usize),
    object: ObjectId,
    /// None for elements of lists.
    slot: Option<Slot>,
    what: OpType,
    pred: Vec<String>,
}

/// All that happened to a document.
struct History<'a> {
    doc: &'a Automerge,
    changes: &'a [Change],
    numbers: BTreeMap<ChangeHash, usize>,
    /// For each change a bit for each that it builds on, itself included.
    seen: Vec<Vec<u64>>,
    operations: Vec<Written>,
    by_id: BTreeMap<String, usize>,
    /// What was written to each slot, increments left out.
    by_slot: BTreeMap<Slot, Vec<usize>>,
    open: &'a [Conflict],
    decided: &'a [Decided<'a>],
}

/// The first thing that was lost of what was written in the changes of users, in words.
pub(crate) fn lost(
    doc: &Automerge,
    changes: &[Change],
    is_of_user: impl Fn(&ChangeHash) -> bool,
    open: &[Conflict],
    decided: &[Decided<'_>],
) -> Option<String> {
    let history = History::new(doc, changes, open, decided);
    let mut operations = history.operations.iter();
    operations.find_map(|operation| {
        let change = changes[operation.at.0].hash();
        if !is_of_user(&change) {
            return None;
        }
        let reason = history.is_lost(operation)?;
        Some(format!("{:?} by {} of change {change} is {reason}", operation.what, operation.id))
    })
}

impl<'a> History<'a> {
    fn new(
        doc: &'a Automerge,
        changes: &'a [Change],
        open: &'a [Conflict],
        decided: &'a [Decided<'a>],
    ) -> Self {
        let mut history = Self {
            doc,
            changes,
            numbers: BTreeMap::new(),
            seen: Vec::new(),
            operations: Vec::new(),
            by_id: BTreeMap::new(),
            by_slot: BTreeMap::new(),
            open,
            decided,
        };
        for (number, change) in changes.iter().enumerate() {
            let mut seen = vec![0; changes.len().div_ceil(64)];
            seen[number / 64] |= 1 << (number % 64);
            for dep in change.deps().iter().filter_map(|dep| history.numbers.get(dep)) {
                for (all, more) in seen.iter_mut().zip(&history.seen[*dep]) {
                    *all |= more;
                }
            }
            history.seen.push(seen);
            history.numbers.insert(change.hash(), number);
            history.add(number, change);
        }
        history
    }

    fn add(&mut self, change: usize, from: &Change) {
        let expanded = from.decode();
        let counters = expanded.start_op.get()..;
        for (place, (counter, op)) in counters.zip(expanded.operations).enumerate() {
            let Op { action, obj, key, pred, insert } = op;
            let slot = match key {
                Key::Map(key) if !insert => Some((obj.to_string(), key.to_string())),
                _ => None,
            };
            let id = format!("{counter}@{}", expanded.actor_id);
            let number = self.operations.len();
            if let Some(slot) = &slot
                && !matches!(action, OpType::Increment(_))
            {
                self.by_slot.entry(slot.clone()).or_default().push(number);
            }
            if matches!(action, OpType::Put(_) | OpType::Make(_)) && slot.is_some() {
                self.by_id.insert(id.clone(), number);
            }
            self.operations.push(Written {
                id,
                at: (change, place),
                object: obj,
                slot,
                what: action,
                pred: pred.iter().map(ToString::to_string).collect(),
            });
        }
    }

    fn saw(&self, later: usize, earlier: usize) -> bool {
        self.seen[later][earlier / 64] & (1 << (earlier % 64)) != 0
    }

    /// Whether something was written to a slot by somebody who had seen this operation.
    fn is_followed(&self, slot: &Slot, of: &Written) -> bool {
        let writes = self.by_slot.get(slot).into_iter().flatten();
        let mut at = writes.map(|number| self.operations[*number].at);
        at.any(|at| if at.0 == of.at.0 { at.1 > of.at.1 } else { self.saw(at.0, of.at.0) })
    }

    /// What is at a slot in the end, by the name of its operation.
    fn shown(&self, (object, key): &Slot) -> Option<String> {
        let object = self.doc.import_obj(object).ok()?;
        self.doc.get(object, key.as_str()).ok()?.map(|(_, by)| by.to_string())
    }

    /// Whether somebody is or was asked about a slot in which this operation's change, or one of
    /// these operations, is a side.
    fn is_asked(&self, slot: &Slot, of: &Written, names: &[String]) -> bool {
        let is_there = |place: &Place| {
            place.object == slot.0 && matches!(&place.key, SlotKey::Map(key) if *key == slot.1)
        };
        let change = &self.changes[of.at.0].hash();
        // Of edits in one thing, a side has the last of each writer.
        let is_behind =
            |last: &ChangeHash| self.numbers.get(last).is_some_and(|last| self.saw(*last, of.at.0));
        let mut sides =
            self.open.iter().filter(|open| is_there(&open.place)).flat_map(|open| &open.sides);
        let is_open = sides.any(|side| {
            side.operations.iter().any(|name| names.contains(name))
                || side.changes.contains(change)
                || (matches!(side.kept, Kept::Edited(_)) && side.changes.iter().any(is_behind))
        });
        let mut decided = self.decided.iter().filter(|decided| is_there(decided.place));
        is_open || decided.any(|decided| is_behind(&decided.change))
    }

    /// Why it is lost, if it is.
    fn is_lost(&self, of: &Written) -> Option<String> {
        let mut object = of.object.to_string();
        while let Some(maker) = self.by_id.get(&object) {
            let maker = &self.operations[*maker];
            let slot = maker.slot.as_ref()?;
            if self.is_followed_above(slot, of, maker) {
                return None;
            }
            let shown = self.shown(slot);
            if shown.as_ref() != Some(&object) {
                // Who writes in what it knows to be gone loses nothing.
                let removers = self.by_slot.get(slot).into_iter().flatten();
                let mut removers = removers.map(|number| &self.operations[*number]);
                let knew = removers.any(|r| r.pred.contains(&object) && self.saw(of.at.0, r.at.0));
                if !knew && !self.is_asked(slot, of, std::slice::from_ref(&object)) {
                    return Some(format!("in {object}, where {shown:?} is at {slot:?} now"));
                }
            }
            object = maker.object.to_string();
        }
        let slot = of.slot.as_ref()?;
        if self.is_followed(slot, of) {
            return None;
        }
        let shown = self.shown(slot);
        let operation = shown.as_ref().and_then(|id| self.by_id.get(id));
        let operation = operation.map(|number| &self.operations[*number]);
        let (is_there, names) = match &of.what {
            OpType::Put(_) | OpType::Make(_) => {
                let same = operation.is_some_and(|shown| shown.what == of.what);
                (same, vec![of.id.clone()])
            }
            OpType::Delete => {
                // What it had seen and left there was to stay, and what says the same does.
                let knew = operation.is_none_or(|shown| {
                    self.saw(of.at.0, shown.at.0) || self.left(slot, of, &shown.what)
                });
                (knew, vec![of.id.clone()])
            }
            OpType::Increment(_) => {
                (shown.as_ref().is_some_and(|shown| of.pred.contains(shown)), of.pred.clone())
            }
            OpType::MarkBegin(_) | OpType::MarkEnd(_) => return None,
        };
        let is_lost = !is_there && !self.is_asked(slot, of, &names);
        is_lost.then(|| format!("at {slot:?}, where {shown:?} is now"))
    }

    /// Whether who deleted something in a slot left this value there: who writes what is shown already,
    /// where others wrote something beside it, deletes theirs and writes nothing.
    fn left(&self, slot: &Slot, of: &Written, value: &OpType) -> bool {
        let seen = self.by_slot.get(slot).into_iter().flatten();
        let seen: Vec<&Written> = seen
            .map(|number| &self.operations[*number])
            .filter(|written| self.saw(of.at.0, written.at.0))
            .collect();
        let is_gone = |written: &Written| seen.iter().any(|later| later.pred.contains(&written.id));
        seen.iter().any(|written| written.what == *value && !is_gone(written))
    }

    /// As [`History::is_followed`], of a slot above: what was made there does not count.
    fn is_followed_above(&self, slot: &Slot, of: &Written, maker: &Written) -> bool {
        of.at != maker.at && self.is_followed(slot, of)
    }
}

#[cfg(test)]
mod tests {
    use automerge::{
        ActorId, AutoCommit, ObjId, ObjType, ROOT, ScalarValue,
        transaction::{CommitOptions, Transactable as _},
    };
    use concord::review::Detector;
    use concord_protocol::DocumentId;

    use super::*;

    fn base() -> AutoCommit {
        let mut doc = AutoCommit::new().with_actor(ActorId::from([1; 16]));
        doc.put(ROOT, "key", 1).unwrap();
        doc.put(ROOT, "counter", ScalarValue::counter(0)).unwrap();
        doc.put_object(ROOT, "map", ObjType::Map).unwrap();
        doc.commit();
        doc
    }

    fn at(doc: &AutoCommit, key: &str) -> ObjId {
        doc.get(ROOT, key).unwrap().unwrap().1
    }

    /// What is said to be lost where nobody is asked, and where those are asked who should be.
    fn said(doc: &mut AutoCommit) -> [Option<String>; 2] {
        let changes = doc.get_changes(&[]);
        let open = Detector::of(&changes).unwrap().open(&DocumentId::from_bytes(&[7; 16]));
        [&[][..], &open].map(|open| lost(doc.document(), &changes, |_| true, open, &[]))
    }

    type Write = fn(&mut AutoCommit);

    const PUT: Write = |doc| doc.put(ROOT, "key", 2).unwrap();
    const DELETE: Write = |doc| doc.delete(ROOT, "key").unwrap();
    const COUNT: Write = |doc| doc.increment(ROOT, "counter", 1).unwrap();
    const RESET: Write = |doc| doc.put(ROOT, "counter", ScalarValue::counter(9)).unwrap();
    const DIG: Write = |doc| doc.put(at(doc, "map"), "x", 1).unwrap();
    const RAZE: Write = |doc| doc.delete(ROOT, "map").unwrap();
    const MAKE: Write = |doc| {
        let made = doc.put_object(ROOT, "new", ObjType::Map).unwrap();
        doc.put(made, "x", 1).unwrap();
    };
    const OTHER: Write = |doc| doc.put(ROOT, "key", 3).unwrap();

    #[test]
    fn what_two_did_apart_is_lost_unless_somebody_is_asked() {
        let pairs = [(PUT, OTHER), (PUT, DELETE), (COUNT, RESET), (DIG, RAZE), (MAKE, MAKE)];
        for (number, (one, other)) in pairs.into_iter().enumerate() {
            for (first, second) in [(one, other), (other, one)] {
                let mut mine = base();
                let mut theirs = mine.fork().with_actor(ActorId::from([2; 16]));
                first(&mut mine);
                mine.commit();
                second(&mut theirs);
                theirs.commit();
                mine.merge(&mut theirs).unwrap();
                let [unasked, asked] = said(&mut mine);
                assert!(unasked.is_some(), "pair {number}");
                assert_eq!(asked, None, "pair {number}");
            }
        }
    }

    #[test]
    fn what_was_seen_and_overwritten_is_not_lost() {
        let mut doc = base();
        for write in [PUT, OTHER, DELETE, COUNT, RESET, COUNT, DIG, RAZE, MAKE, MAKE] {
            doc.set_actor(ActorId::from([2; 16]));
            write(&mut doc);
            doc.commit();
        }
        assert_eq!(said(&mut doc), [None, None]);
    }

    /// Who puts what is there already, beside what another put too, writes a deletion of the other.
    #[test]
    fn who_deletes_all_but_one_value_wants_that_value() {
        let mut mine = base();
        let mut theirs = mine.fork().with_actor(ActorId::from([2; 16]));
        let mut apart = mine.fork().with_actor(ActorId::from([3; 16]));
        for doc in [&mut mine, &mut theirs, &mut apart] {
            PUT(doc);
            doc.commit();
        }
        mine.merge(&mut theirs).unwrap();
        PUT(&mut mine);
        let deletes = mine.get_last_local_change().unwrap().decode().operations;
        assert!(matches!(deletes[..], [Op { action: OpType::Delete, .. }]), "{deletes:?}");
        mine.merge(&mut apart).unwrap();
        assert_eq!(said(&mut mine), [None, None]);
        // Where another value is shown in the end, it is lost all the same.
        OTHER(&mut apart);
        apart.commit();
        mine.merge(&mut apart).unwrap();
        assert!(said(&mut mine)[0].is_some());
    }

    #[test]
    fn a_decision_of_who_saw_it_answers_for_it() {
        let mut mine = base();
        let mut theirs = mine.fork().with_actor(ActorId::from([2; 16]));
        PUT(&mut mine);
        OTHER(&mut theirs);
        mine.merge(&mut theirs).unwrap();
        let decision = mine.empty_change(CommitOptions::default());
        let changes = mine.get_changes(&[]);
        let key = |key: &str| SlotKey::Map(key.to_owned());
        let mut said = |key, change| {
            let place = Place { object: "_root".to_owned(), key };
            let decided = [Decided { change, place: &place }];
            lost(mine.document(), &changes, |_| true, &[], &decided)
        };
        assert_eq!(said(key("key"), decision), None);
        assert!(said(key("other"), decision).is_some(), "it is about something else");
        assert!(said(key("key"), changes[0].hash()).is_some(), "it came before");
    }
}
