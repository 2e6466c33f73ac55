//! What users of the Automerge profile do with entities, and the schema that they keep to.

use std::sync::LazyLock;

use automerge::{
    ROOT, ReadDoc as _,
    transaction::{Transactable as _, Transaction},
};
use concord::{
    entity::{self, Schema, write::place_between},
    peer::EditError,
};
use concord_protocol::{AutomergeUrl, DocumentId};

use crate::plan::Edit;

/// What there is of an item at first.
const SUPPLY: i64 = 1;

const TEXT: &str = r#"
[types.item]
unique = ["code"]
edits_of_deleted = "review"

[types.item.fields]
code = "string"
stock = "integer"
promised = "integer"
place = "position"
level = { kind = "integer", policy = "max" }
step = { kind = "enum", values = ["a", "b", "c"], policy = "ladder", ladder = ["a", "b", "c"] }
parent = { kind = "reference", to = "item", on_delete = "restrict", acyclic = true }

[types.item.invariants]
enough = "stock >= promised"
"#;

/// The schema that users keep to, and that nobody tells relays and peers of.
pub(super) static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::parse(TEXT).unwrap_or_else(|errors| panic!("{errors}")));

/// Does an edit of an entity; whether it is one.
pub(super) fn write(
    tx: &mut Transaction<'_>,
    edit: Edit,
    choice: u64,
    documents: &[DocumentId],
) -> Result<bool, EditError> {
    let number = |tx: &Transaction<'_>, key: &str| {
        let found = tx.get(ROOT, key).ok().flatten();
        found.and_then(|(value, _)| value.as_i64()).unwrap_or_default()
    };
    let few = i64::try_from((choice >> 16) % 3).unwrap_or_default();
    let is_entity = matches!(
        edit,
        Edit::Supply
            | Edit::Sell
            | Edit::Promise
            | Edit::Name(_)
            | Edit::Under(_)
            | Edit::Place
            | Edit::Level
            | Edit::Step
            | Edit::Misfit
            | Edit::Bury
            | Edit::Raise
    );
    if !is_entity {
        return Ok(false);
    }
    if tx.get(ROOT, "type")?.is_none() {
        tx.put(ROOT, "type", "item")?;
    }
    match edit {
        Edit::Supply => {
            tx.put(ROOT, "stock", SUPPLY)?;
            tx.put(ROOT, "promised", 0)?;
        }
        // Alone each keeps the rule.
        Edit::Sell if number(tx, "stock") > number(tx, "promised") => {
            let stock = number(tx, "stock");
            tx.put(ROOT, "stock", stock - 1)?;
        }
        Edit::Promise if number(tx, "stock") > number(tx, "promised") => {
            let promised = number(tx, "promised");
            tx.put(ROOT, "promised", promised + 1)?;
        }
        Edit::Name(name) => tx.put(ROOT, "code", format!("code {name}"))?,
        Edit::Under(other) => {
            if let Some(other) = documents.get(usize::from(other)) {
                tx.put(ROOT, "parent", AutomergeUrl(other.clone()).to_string())?;
            }
        }
        Edit::Place => tx.put(ROOT, "place", place_between(None, None, choice)?)?,
        Edit::Level => tx.put(ROOT, "level", few)?,
        Edit::Step => tx.put(ROOT, "step", ["a", "b", "c"][usize::try_from(few).unwrap_or(0)])?,
        Edit::Misfit => tx.put(ROOT, "stock", "many")?,
        Edit::Bury => entity::delete(tx, 1 + few)?,
        Edit::Raise => entity::restore(tx)?,
        _ => {}
    }
    Ok(true)
}
