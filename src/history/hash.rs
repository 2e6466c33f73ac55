//! Names of changes: as automerge has them, and as everything else here does.

use automerge::{Automerge, ReadDoc};
use concord_protocol::ChangeHash;

use super::HistoryError;

/// As automerge has it.
pub(super) fn native(hash: &ChangeHash) -> automerge::ChangeHash {
    automerge::ChangeHash(hash.0)
}

/// Heads as automerge has them, all of them in the document: automerge reads as if the others were
/// not named.
pub(super) fn known(
    doc: &Automerge,
    heads: &[ChangeHash],
) -> Result<Vec<automerge::ChangeHash>, HistoryError> {
    let is_known = |hash: &automerge::ChangeHash| doc.get_change_meta_by_hash(hash).is_some();
    checked(heads, is_known)
}

/// As [`known`], for what may be a transaction.
pub(super) fn known_in(
    doc: &impl ReadDoc,
    heads: &[ChangeHash],
) -> Result<Vec<automerge::ChangeHash>, HistoryError> {
    checked(heads, |hash| doc.get_change_by_hash(hash).is_some())
}

fn checked(
    heads: &[ChangeHash],
    is_known: impl Fn(&automerge::ChangeHash) -> bool,
) -> Result<Vec<automerge::ChangeHash>, HistoryError> {
    let check = |head| {
        let hash = native(head);
        if is_known(&hash) { Ok(hash) } else { Err(HistoryError::NoChange(*head)) }
    };
    heads.iter().map(check).collect()
}
