//! Which fields of a document show what no relay has yet.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{
    Automerge, Change, ChangeHash as AutomergeHash, ObjId, Prop, ROOT, ReadDoc as _,
    legacy::{Key, ObjectId, OpType},
};

use super::{Document, FindError};
use crate::{entity::EntityType, history};

impl Document {
    /// The keys at the root of the document under which something is shown that was written here
    /// and that no relay has said to have on its disk, however deep inside: of a value that was
    /// replaced the last one counts, of texts, lists and counters every edit.
    ///
    /// What relays had when the peer was closed last is known from the outbox. Goes through the
    /// operations of the changes that are not confirmed, and of those that others made meanwhile.
    ///
    /// # Errors
    /// As [`Document::read`].
    pub fn unconfirmed(&self) -> Result<BTreeSet<String>, FindError> {
        let held = self.held();
        // Asked first: what is edited after this is not looked at as if it were confirmed.
        let Some(base) = held.base() else {
            return self.read(|_| BTreeSet::new());
        };
        let mut theirs = held.relays_have();
        theirs.push(base.into_iter().map(|head| AutomergeHash(head.0)).collect());
        self.read(|doc| touched(doc, &unconfirmed(doc, &theirs)))
    }

    /// The same by the fields of a type.
    ///
    /// # Errors
    /// As [`Document::read`].
    pub fn unconfirmed_fields(&self, of: &EntityType) -> Result<BTreeSet<String>, FindError> {
        let slots = self.unconfirmed()?;
        let fields = of.fields.iter().filter(|(_, field)| slots.contains(&field.slot));
        Ok(fields.map(|(name, _)| name.clone()).collect())
    }
}

/// Changes that no relay has.
fn unconfirmed(doc: &Automerge, theirs: &[BTreeSet<AutomergeHash>]) -> Vec<Change> {
    let known = |head: &&AutomergeHash| doc.get_change_meta_by_hash(head).is_some();
    let heads: BTreeSet<AutomergeHash> = theirs.iter().flatten().filter(known).copied().collect();
    doc.get_changes(&heads.into_iter().collect::<Vec<_>>())
}

/// The keys at the root that show something of these changes.
fn touched(doc: &Automerge, changes: &[Change]) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut roots: BTreeMap<String, Option<String>> = BTreeMap::new();
    for change in changes {
        let Some(expanded) = history::expanded(change) else { continue };
        let actor = expanded.actor_id.to_hex_string();
        for (counter, op) in (expanded.start_op.get()..).zip(&expanded.operations) {
            let key = match (&op.obj, &op.key) {
                (ObjectId::Root, Key::Map(key)) => {
                    let id = format!("{counter}@{actor}");
                    let shown = match doc.get(ROOT, key.as_str()) {
                        Ok(Some((_, shown))) => match &op.action {
                            // What is counted is shown as long as the counter is.
                            OpType::Increment(_) => {
                                op.pred.iter().any(|id| is(&shown, &id.to_string()))
                            }
                            OpType::Delete => false,
                            _ => is(&shown, &id),
                        },
                        _ => matches!(op.action, OpType::Delete),
                    };
                    shown.then(|| key.to_string())
                }
                (ObjectId::Root, Key::Seq(_)) => None,
                (ObjectId::Id(object), _) => {
                    let object = object.to_string();
                    let root = roots.entry(object.clone());
                    root.or_insert_with(|| root_key(doc, &object)).clone()
                }
            };
            keys.extend(key);
        }
    }
    keys
}

fn is(object: &ObjId, id: &str) -> bool {
    object.to_string() == id
}

/// Under which key at the root an object is shown; `None` if it is not.
fn root_key(doc: &Automerge, object: &str) -> Option<String> {
    let (object, _) = doc.import(object).ok()?;
    let mut key = None;
    for parent in doc.parents(&object).ok()? {
        if !parent.visible {
            return None;
        }
        if parent.obj == ROOT
            && let Prop::Map(name) = parent.prop
        {
            key = Some(name);
        }
    }
    key
}
