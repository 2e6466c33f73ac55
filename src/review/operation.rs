//! Operations of a change, with actors as numbers.

use automerge::{
    Change, ExpandedChange, ObjType, ScalarValue,
    legacy::{ElementId, Key as LegacyKey, ObjectId, Op, OpId, OpType},
};

use super::causality::Causality;
use crate::history;

/// An operation, by its counter and its actor's number here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) counter: u64,
    pub(super) actor: u32,
}

/// A part of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Map(Box<str>),
    /// The element that this operation inserted.
    Element(Id),
}

/// A place that holds a value: a key of a map or an element of a list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot {
    /// `None`: the document itself.
    pub(super) object: Option<Id>,
    pub(super) key: Key,
}

/// What an operation does to a slot.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    Put(ScalarValue),
    Make(ObjType),
    Delete,
    /// Adds to a counter: an edit of what is there.
    Increment,
    /// Formatting of text: an edit of the text, and no slot's.
    Mark,
}

/// One operation.
#[derive(Debug, Clone)]
pub(super) struct Operation {
    pub(super) id: Id,
    pub(super) slot: Slot,
    pub(super) what: What,
    /// It made the slot.
    pub(super) inserts: bool,
    /// The operations whose values it takes the place of, or adds to.
    pub(super) pred: Vec<Id>,
}

/// The operations of a change; `None` if automerge cannot read them.
pub(super) fn operations(change: &Change, causality: &mut Causality) -> Option<Vec<Operation>> {
    let ExpandedChange { operations, start_op, actor_id, .. } = history::expanded(change)?;
    let actor = causality.actor(&actor_id);
    let ids = (start_op.get()..).map(|counter| Id { counter, actor });
    Some(ids.zip(operations).map(|(id, op)| operation(id, op, causality)).collect())
}

fn operation(id: Id, op: Op, causality: &mut Causality) -> Operation {
    let Op { action, obj, key, pred, insert } = op;
    let mut named =
        |OpId(counter, actor): &OpId| Id { counter: *counter, actor: causality.actor(actor) };
    let object = match &obj {
        ObjectId::Root => None,
        ObjectId::Id(object) => Some(named(object)),
    };
    let key = match &key {
        _ if insert => Key::Element(id),
        LegacyKey::Map(key) => Key::Map(key.as_str().into()),
        LegacyKey::Seq(ElementId::Id(element)) => Key::Element(named(element)),
        // Nothing but what inserts is there.
        LegacyKey::Seq(ElementId::Head) => Key::Element(id),
    };
    let what = match action {
        OpType::Make(kind) => What::Make(kind),
        OpType::Delete => What::Delete,
        OpType::Increment(_) => What::Increment,
        OpType::Put(value) => What::Put(value),
        OpType::MarkBegin(_) | OpType::MarkEnd(_) => What::Mark,
    };
    let pred = pred.iter().map(named).collect();
    Operation { id, slot: Slot { object, key }, what, inserts: insert, pred }
}
