//! What an entity says that concerns others: what it claims alone, and what it refers to.

use automerge::{Automerge, ChangeHash, Prop};
use concord_protocol::{AutomergeUrl, DocumentId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{ConflictId, Decided, Detector, look::stamp, view::By};
use crate::{
    entity::{DELETED_KEY, Entity, EntityType, Kind, OnDelete, Value, is_deleted},
    json,
};

/// Changes that are named for one thing that an entity says.
const BY_MAX: usize = 8;
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
        let decided = doc.get_changes_meta(&[]).into_iter().rev();
        let decided = decided.filter_map(|change| {
            change.message.as_deref().and_then(Decided::read).map(|decided| decided.conflict)
        });
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
    let refers = |(name, field): (&String, &crate::entity::Field)| {
        let Kind::Reference { on_delete, .. } = &field.kind else { return None };
        let Some(Value::String(to)) = entity.get(name) else { return None };
        let AutomergeUrl(to) = to.parse().ok()?;
        Some(Refers {
            key: field.slot.clone(),
            to: to.as_str().to_owned(),
            on_delete: OnDelete::name(*on_delete).to_owned(),
            by: by(std::slice::from_ref(&field.slot)),
        })
    };
    entity.of.fields.iter().filter_map(refers).collect()
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
