//! What one change wrote, taken back: where nobody wrote since, there is again what was there before.

use automerge::{
    Automerge, AutomergeError, ChangeHash, ROOT, ReadDoc as _, transaction::Transaction,
};
use serde_json::Value as Json;

use super::{
    Refused,
    part::{self, Part, unreadable},
};
use crate::json;

/// What takes a change back.
#[derive(Debug)]
pub(crate) struct Undone {
    parts: Vec<Part>,
}

impl Undone {
    /// Of the last change that says this of itself; `None` if there is none, or somebody wrote there
    /// since.
    pub(crate) fn of_last(doc: &Automerge, message: &str) -> Option<Self> {
        let changes = doc.get_changes_meta(&[]).into_iter().rev();
        let mut saying = changes.filter(|change| change.message.as_deref() == Some(message));
        let change = saying.next()?;
        let parts = parts(doc, change.hash, &change.deps).ok()?;
        (!parts.is_empty()).then_some(Self { parts })
    }

    /// Writes what was there before.
    pub(crate) fn write(&self, tx: &mut Transaction<'_>) -> Result<(), AutomergeError> {
        part::write(&self.parts, tx).map(|_| ())
    }
}

/// What takes back a change that was made on these heads.
///
/// # Errors
/// [`Refused::Since`].
pub(super) fn parts(
    doc: &Automerge,
    change: ChangeHash,
    knew: &[ChangeHash],
) -> Result<Vec<Part>, Refused> {
    let before = doc.fork_at(knew).map_err(unreadable)?;
    let after = doc.fork_at(&[change]).map_err(unreadable)?;
    let keys = before.keys(ROOT).chain(after.keys(ROOT));
    let mut keys: Vec<String> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    let mut parts = Vec::new();
    for key in keys {
        let left = at(&after, &key)?;
        if left == at(&before, &key)? {
            continue;
        }
        if left != at(doc, &key)? {
            return Err(Refused::Since { key });
        }
        parts.push(Part::Then { key, heads: knew.to_vec() });
    }
    Ok(parts)
}

fn at(doc: &Automerge, key: &str) -> Result<Option<Json>, Refused> {
    let Some((value, id)) = doc.get(ROOT, key).map_err(unreadable)? else { return Ok(None) };
    json::to_json(doc, &value, &id).map(Some).map_err(unreadable)
}
