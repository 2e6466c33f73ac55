//! Changes of one writer, undone and redone while others go on.
//!
//! Undoing writes, in one more change that knows everything, what was there before a change, wherever
//! what the change left is still there: so what others wrote stays, in the same text too, and undoing
//! disagrees with nobody. What the same writer did later has been undone by then, and may be there
//! anew, under other names; so what is still there is known by its name, and else by what it says and
//! by whose it is.

mod sequence;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use automerge::{
    ActorId, Automerge, ChangeHash as Native, ChangeMetadata, ObjId, ObjType, Prop, ReadDoc as _,
    ScalarValue, Value,
    transaction::{Transactable as _, Transaction},
};
use concord_protocol::ChangeHash;

use super::{
    HistoryError, Stamp,
    hash::native,
    restore::{Restorer, found},
    state::Found,
};
use crate::json::{self, DEPTH_MAX, JsonError};

/// The first word of the message of a change that undoes another.
const UNDO: &str = "undo";
/// The same of one that undoes that again.
const REDO: &str = "redo";
/// How messages begin that are for programs: such changes are taken back in other ways.
const FOR_PROGRAMS: &str = "concord:";

/// What somebody can undo and redo, the last of it last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Steps {
    /// Changes that can be undone.
    pub undo: Vec<ChangeHash>,
    /// Changes by which something was undone, which can be undone themselves.
    pub redo: Vec<ChangeHash>,
}

impl Steps {
    /// Of whoever wrote the changes that are named. A change after something was undone is a new
    /// beginning: nothing is redone then. Changes that decide conflicts are no steps; they are
    /// reverted.
    pub fn of(doc: &Automerge, is_theirs: impl Fn(&Stamp) -> bool) -> Self {
        let mut steps = Self::default();
        for change in doc.get_changes_meta(&[]) {
            if is_theirs(&Stamp::from(&change)) {
                steps.take(&change);
            }
        }
        steps
    }

    fn take(&mut self, change: &ChangeMetadata<'_>) {
        let message = change.message.as_deref().unwrap_or_default();
        let named = |word: &str| {
            let hash: Native = message.strip_prefix(word)?.strip_prefix(' ')?.parse().ok()?;
            Some(ChangeHash(hash.0))
        };
        let hash = ChangeHash(change.hash.0);
        if let Some(undone) = named(UNDO) {
            self.undo.retain(|step| *step != undone);
            self.redo.push(hash);
        } else if let Some(redone) = named(REDO) {
            self.redo.retain(|step| *step != redone);
            self.undo.push(hash);
        } else if change.max_op >= change.start_op && !message.starts_with(FOR_PROGRAMS) {
            self.undo.push(hash);
            self.redo.clear();
        }
    }
}

/// What undoes a change.
#[derive(Debug)]
pub struct Undo {
    change: Native,
    before: Vec<Native>,
    /// The operations of whoever made it.
    theirs: BTreeMap<ActorId, Vec<RangeInclusive<u64>>>,
}

impl Undo {
    /// Of a change of this document, by whoever wrote the changes that are named.
    ///
    /// # Errors
    /// [`HistoryError::NoChange`].
    pub fn of(
        doc: &Automerge,
        change: &ChangeHash,
        is_theirs: impl Fn(&Stamp) -> bool,
    ) -> Result<Self, HistoryError> {
        let hash = native(change);
        let Some(made) = doc.get_change_meta_by_hash(&hash) else {
            return Err(HistoryError::NoChange(*change));
        };
        let mut theirs: BTreeMap<ActorId, Vec<RangeInclusive<u64>>> = BTreeMap::new();
        for change in doc.get_changes_meta(&[]) {
            if is_theirs(&Stamp::from(&change)) {
                let operations = change.start_op..=change.max_op;
                theirs.entry(change.actor.into_owned()).or_default().push(operations);
            }
        }
        Ok(Self { change: hash, before: made.deps, theirs })
    }

    /// What the change that undoes says of itself.
    pub fn message(&self) -> String {
        format!("{UNDO} {}", self.change)
    }

    /// The same where what is undone is that something was undone.
    pub fn redo_message(&self) -> String {
        format!("{REDO} {}", self.change)
    }

    /// Writes it, into the document that it was made of. Looks through all of the document.
    ///
    /// # Errors
    /// Those of the transaction; [`HistoryError::Json`] for what is nested too deep.
    pub fn write(&self, tx: &mut Transaction<'_>) -> Result<(), HistoryError> {
        let root = Found::root();
        let mut writer = Writer { tx, undo: self, after: [self.change] };
        writer.object(ObjType::Map, &root, &root, &root, DEPTH_MAX)
    }

    fn is_theirs(&self, id: &ObjId) -> bool {
        let ObjId::Id(counter, actor, _) = id else { return false };
        let operations = self.theirs.get(actor);
        operations.is_some_and(|all| all.iter().any(|some| some.contains(counter)))
    }
}

/// Writes what was before the change, where what is there is what was after it.
struct Writer<'a, 't> {
    tx: &'a mut Transaction<'t>,
    undo: &'a Undo,
    after: [Native; 1],
}

impl Writer<'_, '_> {
    /// An object that was there before and after.
    fn object(
        &mut self,
        kind: ObjType,
        before: &Found,
        after: &Found,
        now: &Found,
        depth: usize,
    ) -> Result<(), HistoryError> {
        let depth = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
        match kind {
            ObjType::Map | ObjType::Table => self.map(&before.id, &after.id, &now.id, depth),
            ObjType::List => self.sequence(&before.id, &after.id, &now.id, false, depth),
            ObjType::Text => self.sequence(&before.id, &after.id, &now.id, true, depth),
        }
    }

    fn map(
        &mut self,
        before: &ObjId,
        after: &ObjId,
        now: &ObjId,
        depth: usize,
    ) -> Result<(), HistoryError> {
        let items = |heads: &[Native], of: &ObjId| -> BTreeMap<String, Found> {
            let items = self.tx.map_range_at(of, .., heads);
            items.map(|item| (item.key.to_string(), found(item.value.clone(), item.id()))).collect()
        };
        let (before, after) = (items(&self.undo.before, before), items(&self.after, after));
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let there = self.tx.get(now, key.as_str())?;
            let there = there.map(|(value, id)| found(value, id));
            let was = (before.get(key), after.get(key));
            self.slot(now, Prop::Map(key.clone()), was, there.as_ref(), depth)?;
        }
        Ok(())
    }

    /// What is in a slot, and was in it before and after.
    fn slot(
        &mut self,
        parent: &ObjId,
        prop: Prop,
        (before, after): (Option<&Found>, Option<&Found>),
        now: Option<&Found>,
        depth: usize,
    ) -> Result<(), HistoryError> {
        if let (Some(before), Some(after)) = (before, after)
            && before.id == after.id
        {
            return self.inside(parent, prop, before, after, now, depth);
        }
        if before.is_none() && after.is_none() || !self.is_still_there(after, now)? {
            return Ok(());
        }
        match before {
            None => Ok(self.tx.delete(parent, prop)?),
            Some(before) => {
                let mut restorer = Restorer { tx: &mut *self.tx, heads: &self.undo.before };
                restorer.slot(parent, prop, now, before, depth)
            }
        }
    }

    /// The change did not put another thing there; it may have changed what is in it.
    fn inside(
        &mut self,
        parent: &ObjId,
        prop: Prop,
        before: &Found,
        after: &Found,
        now: Option<&Found>,
        depth: usize,
    ) -> Result<(), HistoryError> {
        let Some(now) = now else { return Ok(()) };
        match (&before.value, &after.value, &now.value) {
            (Value::Object(kind), _, Value::Object(is)) if kind == is => {
                self.object(*kind, before, after, now, depth)
            }
            (Value::Scalar(before), Value::Scalar(after), Value::Scalar(now)) => {
                let counted = (&**before, &**after, &**now);
                if let (
                    ScalarValue::Counter(before),
                    ScalarValue::Counter(after),
                    ScalarValue::Counter(_),
                ) = counted
                {
                    let by = i64::from(before).wrapping_sub(i64::from(after));
                    if by != 0 {
                        self.tx.increment(parent, prop, by)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether what the change left is there still, or again.
    fn is_still_there(
        &self,
        after: Option<&Found>,
        now: Option<&Found>,
    ) -> Result<bool, HistoryError> {
        let (Some(after), Some(now)) = (after, now) else {
            return Ok(after.is_none() && now.is_none());
        };
        if !self.undo.is_theirs(&now.id) {
            return Ok(false);
        }
        let then = json::to_json_at(&*self.tx, &after.value, &after.id, &self.after)?;
        Ok(then == json::to_json(&*self.tx, &now.value, &now.id)?)
    }
}

#[cfg(test)]
mod tests;
