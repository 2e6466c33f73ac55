//! What is not found in a history.

use automerge::AutomergeError;
use concord_protocol::ChangeHash;

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
