//! What is not found in a history.

use automerge::{Automerge, AutomergeError, ChangeHash, ReadDoc};

use crate::json::JsonError;

/// Something of a history cannot be shown or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The change is not in the document.
    #[error("change {0} is not in the document: take hashes from its log")]
    NoChange(ChangeHash),
    /// The path leads nowhere.
    #[error("{path} is not in the document {when}")]
    NoPath {
        /// As people write it.
        path: String,
        /// In which of its states, as the end of a sentence.
        when: &'static str,
    },
    /// What is asked for cannot be shown.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// What automerge says.
    #[error(transparent)]
    Automerge(#[from] AutomergeError),
}

/// That all of these changes are in the document: automerge reads as if the others were not named.
pub(super) fn known(doc: &Automerge, heads: &[ChangeHash]) -> Result<(), HistoryError> {
    match heads.iter().find(|head| doc.get_change_meta_by_hash(head).is_none()) {
        Some(head) => Err(HistoryError::NoChange(*head)),
        None => Ok(()),
    }
}

/// As [`known`], for what may be a transaction.
pub(super) fn known_in(doc: &impl ReadDoc, heads: &[ChangeHash]) -> Result<(), HistoryError> {
    match heads.iter().find(|head| doc.get_change_by_hash(head).is_none()) {
        Some(head) => Err(HistoryError::NoChange(*head)),
        None => Ok(()),
    }
}
