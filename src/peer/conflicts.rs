//! Conflicts of a document, seen and decided by the program that has it open.

use automerge::{Change, transaction::Transaction};
use concord_protocol::{ChangeHash, DocumentId};

use super::{ChangeError, Document, FindError};
use crate::review::{Choice, Conflict, ConflictId, Detector, Refused, Resolution, Unreadable};

/// A conflict was not found or not decided.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReviewError {
    /// The document cannot be read.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Changes of the document cannot be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// It is not open: decided by somebody, or other writes came and it is another one now.
    #[error("conflict {0} is not open any more: look at the conflicts again")]
    NotOpen(ConflictId),
    /// The decision cannot be written.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The decision was not stored.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl Document {
    /// The conflicts that are open. Looks through the whole history: milliseconds for most
    /// documents, and about a second for a million operations.
    ///
    /// # Errors
    /// [`ReviewError::Find`] and [`ReviewError::Unreadable`].
    pub fn conflicts(&self) -> Result<Vec<Conflict>, ReviewError> {
        Ok(open(self.id(), &self.read(|doc| doc.get_changes(&[]))?)?)
    }

    /// Decides a conflict, as a change that is on disk when this returns. Works without a relay,
    /// as every change; if somebody else decides otherwise meanwhile, that is a conflict of its
    /// own.
    ///
    /// # Errors
    /// [`ReviewError`]; [`ReviewError::NotOpen`] if the document has moved on.
    pub async fn resolve(
        &self,
        conflict: &Conflict,
        choice: &Choice,
        reason: Option<String>,
    ) -> Result<(), ReviewError> {
        let doc = self.read(Clone::clone)?;
        if !open(self.id(), &doc.get_changes(&[]))?.iter().any(|open| open.id == conflict.id) {
            return Err(ReviewError::NotOpen(conflict.id));
        }
        let resolution = Resolution::prepare(&doc, conflict, choice, reason)?;
        let message = resolution.message();
        // On the document as it was looked at: indexes in lists may be others by now.
        let heads: Vec<ChangeHash> =
            doc.get_heads().iter().map(|head| ChangeHash(head.0)).collect();
        let write = |tx: &mut Transaction<'_>| Ok(resolution.write(tx)?);
        let changed = self.edit(Some(&heads), Some(&message), write).await?;
        if changed.change.is_none() {
            self.commit_empty(Some(&message)).await?;
        }
        Ok(())
    }
}

/// The conflicts that are open after all changes of a document.
fn open(document: &DocumentId, changes: &[Change]) -> Result<Vec<Conflict>, Unreadable> {
    Ok(Detector::of(changes)?.open(document))
}
