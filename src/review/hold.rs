//! Fields that wait for a decision: where a schema says `hold = true`, readers are told that what
//! they see is in review until nobody disagrees about it any more.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{Automerge, Prop};

use super::{Conflict, ConflictId, SlotKey};
use crate::entity::{Entity, EntityType, Field, Kind};

/// What a document says as an entity, and what of that is in review.
#[derive(Debug, Clone, PartialEq)]
pub struct Reviewed<'t> {
    /// What it says. What is in review is here too, as what stands until it is decided.
    pub entity: Entity<'t>,
    /// The fields that are in review, as `status`, `address.street` or, of any line,
    /// `lines.amount`, with the conflicts about them.
    pub in_review: BTreeMap<String, BTreeSet<ConflictId>>,
}

/// The fields of a document of this type that are held and about which these conflicts are open.
pub fn in_review(
    doc: &Automerge,
    of: &EntityType,
    open: &[Conflict],
) -> BTreeMap<String, BTreeSet<ConflictId>> {
    let mut held: BTreeMap<String, BTreeSet<ConflictId>> = BTreeMap::new();
    if !of.fields.values().any(holds) {
        return held;
    }
    for conflict in open {
        let mut found = Vec::new();
        match (&conflict.place.key, conflict.path(doc)) {
            // Of several keys the path is the map that they are in.
            (SlotKey::Rule { keys, .. }, _) => {
                for key in keys {
                    about(&of.fields, &[Prop::Map(key.clone())], "", &mut found);
                }
            }
            (SlotKey::Map(_) | SlotKey::Element(_), Some(path)) => {
                about(&of.fields, &path, "", &mut found);
            }
            // It is about the entity and none of its values, or about what is gone.
            (SlotKey::Tombstone { .. }, _) | (_, None) => {}
        }
        for field in found {
            held.entry(field).or_default().insert(conflict.id);
        }
    }
    held
}

/// Whether a field is held, or something in it.
fn holds(field: &Field) -> bool {
    field.hold || inside(&field.kind).is_some_and(|fields| fields.values().any(holds))
}

/// The fields of what is in a field, if it has such.
fn inside(kind: &Kind) -> Option<&BTreeMap<String, Field>> {
    match kind {
        Kind::Record { fields } => Some(fields),
        Kind::List { items, .. } | Kind::Map { items, .. } => inside(items),
        _ => None,
    }
}

/// The held fields that a path is in, or that are in what it leads to.
fn about(fields: &BTreeMap<String, Field>, path: &[Prop], above: &str, found: &mut Vec<String>) {
    let Some((Prop::Map(slot), rest)) = path.split_first() else { return };
    let Some((name, field)) = fields.iter().find(|(_, field)| field.slot == *slot) else { return };
    let name = below(above, name);
    if field.hold {
        return found.push(name);
    }
    let (mut kind, mut rest) = (&field.kind, rest);
    // Places in lists and keys of maps have no names in a schema.
    while let Kind::List { items, .. } | Kind::Map { items, .. } = kind {
        (kind, rest) = (items, rest.get(1..).unwrap_or_default());
    }
    if let Kind::Record { fields } = kind {
        if rest.is_empty() { all(fields, &name, found) } else { about(fields, rest, &name, found) }
    }
}

/// All held fields in something.
fn all(fields: &BTreeMap<String, Field>, above: &str, found: &mut Vec<String>) {
    for (name, field) in fields {
        let name = below(above, name);
        if field.hold {
            found.push(name);
        } else if let Some(fields) = inside(&field.kind) {
            all(fields, &name, found);
        }
    }
}

fn below(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}
