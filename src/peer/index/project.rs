//! A document as the index has it.

use std::{collections::BTreeMap, sync::Arc};

use automerge::{
    Automerge, ChangeHash as AutomergeHash, ObjType, ROOT, ReadDoc as _, Value as Stored,
};
use concord_protocol::DocumentId;

use super::{
    cell::Cell,
    entry::{Entry, Parts},
};
use crate::{
    digest::{digest, first_word, heads_number},
    entity::{EntityType, Field, Kind, ROOT_KEY, Schema, Value, is_deleted, key_of, type_of},
};

/// Tells these hashes from all others.
const DOMAIN: &str = "concord index 1";

/// Reads documents by a schema, or without one.
#[derive(Debug, Default)]
pub(crate) struct Projector {
    schema: Option<Arc<Schema>>,
    readings: BTreeMap<String, u64>,
    /// Of documents of types that are not declared.
    undeclared: u64,
}

impl Projector {
    pub(crate) fn new(schema: Option<Arc<Schema>>) -> Self {
        let Some(declared) = &schema else { return Self::default() };
        let readings = declared.types.iter().map(|(name, of)| {
            // What a type says, all of it: a default or a migration changes what is read, too.
            (name.clone(), number(&[DOMAIN, "type", &format!("{of:?}")]))
        });
        let readings = readings.collect();
        let undeclared = number(&[DOMAIN, "root key", &declared.root_key]);
        Self { schema, readings, undeclared }
    }

    pub(crate) fn schema(&self) -> Option<&Arc<Schema>> {
        self.schema.as_ref()
    }

    /// Whether an entry was read by this schema. Without one all are left as they are: they are what
    /// the last one said.
    pub(crate) fn is_current(&self, entry: &Entry) -> bool {
        self.schema.is_none() || entry.reading() == self.reading(entry.type_name())
    }

    fn reading(&self, type_name: &str) -> u64 {
        self.readings.get(type_name).copied().unwrap_or(self.undeclared)
    }

    /// Whether this is the entry of the document as it is, by the schema in force.
    pub(crate) fn is_entry_of(&self, entry: &Entry, doc: &Automerge) -> bool {
        entry.heads() == heads_number(doc.get_heads().iter().map(|head| head.0))
            && self.is_current(entry)
    }

    /// The entry of a document in which so many conflicts are open.
    pub(crate) fn read(&self, id: &DocumentId, doc: &Automerge, conflicts: usize) -> Entry {
        let hashes = doc.get_heads();
        let heads = heads_number(hashes.iter().map(|head| head.0));
        let root_key = self.schema.as_ref().map_or(ROOT_KEY, |schema| &schema.root_key);
        // What is longer is no name.
        let type_name = type_of(doc, root_key).filter(|name| name.len() <= TYPE_BYTES_MAX);
        let type_name = type_name.unwrap_or_default();
        let of = self.schema.as_ref().and_then(|schema| schema.types.get(&type_name));
        let values = of.map(|of| of.read_some(doc, is_single)).unwrap_or_default();
        let cells = of.into_iter().flat_map(|of| &of.fields).map(|(name, field)| {
            if is_single(field) { Cell::of(values.get(name)) } else { presence(doc, field) }
        });
        let key = key_of(doc, &type_name, id);
        Entry::new(&Parts {
            id,
            type_name: &type_name,
            key: key.as_deref(),
            reading: self.reading(&type_name),
            heads,
            changed: changed(doc, &hashes),
            is_deleted: is_deleted(doc),
            conflicts: u16::try_from(conflicts).unwrap_or(u16::MAX),
            cells: cells.collect(),
        })
    }
}

/// Bytes of the name of a type, as of those that a schema declares.
const TYPE_BYTES_MAX: usize = crate::entity::limits::NAME_BYTES_MAX;

/// What the index has the values of.
fn is_single(field: &Field) -> bool {
    match &field.kind {
        Kind::Text { .. } => true,
        Kind::Blob { .. } | Kind::Json => false,
        kind => kind.object().is_none(),
    }
}

/// Whether there is something in a field with parts.
fn presence(doc: &Automerge, field: &Field) -> Cell<'static> {
    match doc.get(ROOT, &*field.slot) {
        Ok(Some((Stored::Object(ObjType::List), id))) if doc.length(&id) == 0 => Cell::Unset,
        Ok(Some((Stored::Object(ObjType::Map), id)))
            if matches!(field.kind, Kind::Set { .. } | Kind::Map { .. })
                && doc.length(&id) == 0 =>
        {
            Cell::Unset
        }
        Ok(None) if field.default.is_none() => Cell::Unset,
        _ => Cell::Elsewhere,
    }
}

fn changed(doc: &Automerge, heads: &[AutomergeHash]) -> i64 {
    let times = heads.iter().filter_map(|head| doc.get_change_meta_by_hash(head));
    times.map(|change| change.timestamp).max().unwrap_or(0)
}

/// The values that a query asks about, of the document itself.
pub(crate) fn asked(
    of: &EntityType,
    doc: &Automerge,
    wanted: impl Fn(&str) -> bool,
) -> BTreeMap<String, Value> {
    of.read_some(doc, |field| wanted(&field.name))
}

fn number(parts: &[&str]) -> u64 {
    first_word(digest(parts))
}
