//! What an entity says that concerns others: what it claims alone, and what it refers to.

use std::{cmp::Reverse, collections::BTreeMap};

use automerge::{Automerge, ChangeHash, Prop};
use concord_protocol::{AutomergeUrl, DocumentId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{ConflictId, Detector, history, look::stamp, view::By};
use crate::{
    entity::{DELETED_KEY, Entity, EntityType, Field, Kind, OnDelete, Value, is_deleted},
    json,
};

/// Changes that are named for one thing that an entity says.
const BY_MAX: usize = 8;
/// References of one entity that are looked at, the first by their fields.
pub(super) const REFERENCES_MAX: usize = 1_000;
/// Decisions that are told of, the last ones.
const DECIDED_MAX: usize = 100;

/// See the module.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Its type.
    pub type_name: String,
    /// Who deleted it, if somebody did.
    pub deleted: Option<Vec<By>>,
    /// What no other live entity of its type may have.
    pub claims: Vec<Claimed>,
    /// What it refers to.
    pub references: Vec<Refers>,
    /// What was decided in its document.
    pub decided: Vec<ConflictId>,
}

/// Values of fields that are unique together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claimed {
    /// The fields, by their keys in the document, with their values.
    pub values: Map<String, Json>,
    /// Who wrote them last.
    pub by: Vec<By>,
}

/// A reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refers {
    /// The key in the document.
    pub key: String,
    /// The document that it refers to.
    pub to: String,
    /// What the schema says becomes of it when that is deleted, as in the file.
    pub on_delete: String,
    /// Whether it is one of several that the field may have.
    pub is_member: bool,
    /// Whether following it must not lead back.
    pub acyclic: bool,
    /// Who wrote it last.
    pub by: Vec<By>,
}

impl Facts {
    /// What a document says as an entity of this type. The detector must have taken in all of it.
    pub fn of(doc: &Automerge, detector: &Detector, of: &EntityType) -> Self {
        let begun = of.begun().unwrap_or_default();
        let by = |keys: &[String]| -> Vec<By> {
            // What earlier versions have elsewhere may have been written there.
            let chains = of.chains().iter().filter(|chain| keys.iter().any(|key| chain.has(key)));
            let older = chains.flat_map(|chain| chain.slots().map(str::to_owned));
            let keys: Vec<String> = keys.iter().cloned().chain(older).collect();
            let mut changes: Vec<ChangeHash> = (detector.last_writers(&keys, &begun).into_iter())
                .map(|change| detector.causality.hash(change))
                .collect();
            changes.sort_unstable();
            let named = changes.into_iter().take(BY_MAX);
            named.filter_map(|change| stamp(doc, &change)).map(By::from).collect()
        };
        let entity = of.read(doc);
        let mut decided = history::seen(doc, detector);
        // By time, and not by when they came here: the last are the same everywhere.
        decided.sort_unstable_by_key(|past| Reverse((past.who.time_s, past.who.change)));
        let decided = decided.into_iter().map(|past| past.decided.conflict);
        Self {
            type_name: of.name.clone(),
            deleted: is_deleted(doc).then(|| by(&[DELETED_KEY.to_owned()])),
            claims: of.unique.iter().filter_map(|fields| claimed(&entity, fields, by)).collect(),
            references: references(&entity, by),
            decided: decided.take(DECIDED_MAX).collect(),
        }
    }
}

/// The values of fields that are unique together; `None` if one of them has none.
fn claimed(
    entity: &Entity<'_>,
    fields: &[String],
    by: impl Fn(&[String]) -> Vec<By>,
) -> Option<Claimed> {
    let value = |name: &String| {
        let field = entity.of.fields.get(name)?;
        // What nobody wrote nobody claims: a default is everybody's.
        let value = entity.get(name).filter(|_| field.default.is_none())?;
        Some((field.slot.clone(), value.to_json()))
    };
    let values: Map<String, Json> = fields.iter().map(value).collect::<Option<_>>()?;
    let keys: Vec<String> = values.keys().cloned().collect();
    Some(Claimed { values, by: by(&keys) })
}

fn references(entity: &Entity<'_>, by: impl Fn(&[String]) -> Vec<By>) -> Vec<Refers> {
    let of_field = |(name, field): (&String, &Field)| -> Vec<Refers> {
        let mut found = BTreeMap::new();
        if let Some(value) = entity.get(name) {
            gather(&field.kind, value, &mut found);
        }
        // Who wrote is asked only where it is about something.
        let by = if found.is_empty() { Vec::new() } else { by(std::slice::from_ref(&field.slot)) };
        let is_member = !matches!(field.kind, Kind::Reference { .. });
        let refers = |(to, (on_delete, acyclic)): (DocumentId, (OnDelete, bool))| Refers {
            key: field.slot.clone(),
            to: to.as_str().to_owned(),
            on_delete: on_delete.name().to_owned(),
            is_member,
            acyclic,
            by: by.clone(),
        };
        found.into_iter().map(refers).collect()
    };
    entity.of.fields.iter().flat_map(of_field).take(REFERENCES_MAX).collect()
}

/// The documents that an entity refers to, in the order of its fields.
pub(crate) fn referred_to(entity: &Entity<'_>) -> Vec<DocumentId> {
    let of_field = |(name, field): (&String, &Field)| {
        let mut found = BTreeMap::new();
        if let Some(value) = entity.get(name) {
            gather(&field.kind, value, &mut found);
        }
        found.into_keys()
    };
    entity.of.fields.iter().flat_map(of_field).take(REFERENCES_MAX).collect()
}

/// What a value refers to, wherever in it, with what is said of that.
fn gather(kind: &Kind, value: &Value, found: &mut BTreeMap<DocumentId, (OnDelete, bool)>) {
    match (kind, value) {
        (Kind::Reference { on_delete, acyclic, .. }, Value::String(to)) => {
            if let Ok(AutomergeUrl(to)) = to.parse() {
                found.entry(to).or_insert((*on_delete, *acyclic));
            }
        }
        (Kind::Set { items, .. }, Value::Set(members)) => {
            for member in members {
                gather(items, &Value::String(member.clone()), found);
            }
        }
        (Kind::List { items, .. }, Value::List(values)) => {
            for value in values {
                gather(items, value, found);
            }
        }
        (Kind::Map { items, .. }, Value::Map(values)) => {
            for value in values.values() {
                gather(items, value, found);
            }
        }
        (Kind::Record { fields }, Value::Map(values)) => {
            for (name, value) in values {
                if let Some(field) = fields.get(name) {
                    gather(&field.kind, value, found);
                }
            }
        }
        _ => {}
    }
}

impl Claimed {
    /// Its fields, as people write them.
    pub(super) fn path(&self) -> String {
        let path = |key: &String| json::path([Prop::Map(key.clone())].iter());
        self.values.keys().map(path).collect::<Vec<_>>().join(", ")
    }
}

impl Refers {
    /// The document that it refers to.
    pub(super) fn target(&self) -> Option<DocumentId> {
        self.to.parse().ok()
    }
}
