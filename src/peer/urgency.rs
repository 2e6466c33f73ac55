//! How urgent a change is that was made here: as urgent as the most urgent thing that it wrote.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use automerge::{
    Automerge, Change, Prop, ReadDoc as _,
    legacy::{Key, ObjectId, Op},
};

use crate::{
    entity::{DELETED_KEY, EntityType, KEY_KEY, Level, Schema, type_of},
    history,
};

/// Operations from which a change is no one edit of anybody, but an import, or a paste of more than
/// a page of text.
const BULK_OPS: usize = 5_000;

/// The level of a change that is in a document.
pub(super) fn of_change(schema: Option<&Schema>, doc: &Automerge, change: &Change) -> Level {
    if change.len() > BULK_OPS {
        return Level::BACKGROUND;
    }
    let Some(of) = schema
        .and_then(|schema| type_of(doc, &schema.root_key).and_then(|name| schema.types.get(&name)))
    else {
        return Level::NORMAL;
    };
    let Some(expanded) = history::expanded(change) else { return Level::NORMAL };
    let mut roots = Roots { doc, known: BTreeMap::new() };
    let levels = expanded.operations.iter().map(|op| of_key(of, roots.key(op).as_deref()));
    levels.min().unwrap_or_default()
}

/// The level of a write at this key of a document.
fn of_key(of: &EntityType, key: Option<&str>) -> Level {
    match key {
        Some(key) if key == of.root_key || key == KEY_KEY => of.level_of_create(),
        Some(DELETED_KEY) => of.level_of_delete(),
        key => {
            let is_it = |slot: &str| key == Some(slot);
            of.level_of_edit(of.fields.values().find(|field| is_it(&field.slot)))
        }
    }
}

/// Below which keys of a document objects are.
struct Roots<'a> {
    doc: &'a Automerge,
    known: BTreeMap<String, Option<String>>,
}

impl Roots<'_> {
    /// The key of the document that an operation writes, or writes below of.
    fn key(&mut self, op: &Op) -> Option<String> {
        match (&op.obj, &op.key) {
            (ObjectId::Root, Key::Map(key)) => Some(key.to_string()),
            (ObjectId::Root, Key::Seq(_)) => None,
            (ObjectId::Id(object), _) => {
                let name = object.to_string();
                let doc = self.doc;
                let root = |name: &str| {
                    let object = doc.import_obj(name).ok()?;
                    match doc.parents(&object).ok()?.last()?.prop {
                        Prop::Map(key) => Some(key),
                        Prop::Seq(_) => None,
                    }
                };
                self.known.entry(name).or_insert_with_key(|name| root(name)).clone()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use automerge::{AutoCommit, ROOT, ScalarValue, transaction::Transactable as _};

    use super::*;
    use crate::entity;

    const SCHEMA: &str = r#"
[types.task]
priorities = { fields = { votes = 5 } }
[types.task.fields]
status = { kind = "enum", values = ["todo", "done"] }
title = "string"
details = "text"
labels = { kind = "set", items = "string" }
votes = "counter"
"#;

    /// The level of what is done to a task that is there.
    fn level(edit: impl FnOnce(&mut AutoCommit)) -> u8 {
        let schema = Schema::parse(SCHEMA).unwrap();
        let mut doc = AutoCommit::new();
        doc.apply_changes(schema.types["task"].genesis().unwrap()).unwrap();
        edit(&mut doc);
        doc.commit();
        let change = doc.get_last_local_change().unwrap();
        of_change(Some(&schema), doc.document(), &change).number()
    }

    #[test]
    fn a_change_is_as_urgent_as_the_most_urgent_thing_in_it() {
        let details = |doc: &AutoCommit| doc.get(ROOT, "details").unwrap().unwrap().1;
        let labels = |doc: &AutoCommit| doc.get(ROOT, "labels").unwrap().unwrap().1;
        assert_eq!(level(|doc| doc.put(ROOT, "status", "done").unwrap()), 1);
        assert_eq!(level(|doc| doc.put(ROOT, "title", "x").unwrap()), 2);
        assert_eq!(level(|doc| doc.splice_text(details(doc), 0, 0, "words").unwrap()), 3);
        assert_eq!(level(|doc| doc.put(labels(doc), "red", true).unwrap()), 4);
        assert_eq!(level(|doc| doc.put(ROOT, "votes", ScalarValue::counter(1)).unwrap()), 5);
        assert_eq!(level(|doc| entity::delete(doc, 5).unwrap()), 1);
        let both = |doc: &mut AutoCommit| {
            doc.put(labels(doc), "red", true).unwrap();
            doc.put(ROOT, "title", "x").unwrap();
        };
        assert_eq!(level(both), 2);
        assert_eq!(level(|doc| doc.put(ROOT, "unknown", 1).unwrap()), 3);
    }

    #[test]
    fn what_is_large_waits_and_what_has_no_type_is_in_between() {
        let paste = |doc: &mut AutoCommit| {
            let (_, text) = doc.get(ROOT, "details").unwrap().unwrap();
            doc.put(ROOT, "status", "done").unwrap();
            doc.splice_text(text, 0, 0, &"x".repeat(BULK_OPS)).unwrap();
        };
        assert_eq!(level(paste), 5);
        let mut doc = AutoCommit::new();
        doc.put(ROOT, "status", "done").unwrap();
        let change = doc.get_last_local_change().unwrap();
        let schema = Schema::parse(SCHEMA).unwrap();
        assert_eq!(of_change(Some(&schema), doc.document(), &change), Level::NORMAL);
        assert_eq!(of_change(None, doc.document(), &change), Level::NORMAL);
    }
}
