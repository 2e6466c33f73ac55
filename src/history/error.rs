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
    Json(Box<JsonError>),
    /// What automerge says.
    #[error(transparent)]
    Automerge(Box<AutomergeError>),
}

impl From<JsonError> for HistoryError {
    fn from(error: JsonError) -> Self {
        Self::Json(Box::new(error))
    }
}

impl From<AutomergeError> for HistoryError {
    fn from(error: AutomergeError) -> Self {
        Self::Automerge(Box::new(error))
    }
}
