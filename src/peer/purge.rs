//! Documents that are removed from this store for good.

use concord_protocol::{DocumentId, RefuseCode};
use tokio::sync::oneshot;

use super::{ChangeError, Document, FindError, Peer, core::Command};
use crate::{entity, replica::LocalError};

/// A document was not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PurgeError {
    /// It is in use.
    #[error("document {0} is not deleted")]
    NotDeleted(DocumentId),
    /// Nobody else is known to have it.
    #[error(
        "no relay has said that it has all of document {0}: what only this store has would be lost"
    )]
    Unconfirmed(DocumentId),
    /// It cannot be read.
    #[error(transparent)]
    Find(#[from] FindError),
    /// Something in it is under way, or it is not as it is shown: try again, or look at it again.
    #[error("document {document} is still here: {reason}")]
    NotNow {
        /// Which.
        document: DocumentId,
        /// Why.
        reason: String,
    },
    /// The disk failed, or the peer was closed.
    #[error(transparent)]
    Store(#[from] ChangeError),
}

/// What a relay says that takes nothing more of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of reason.
    pub code: RefuseCode,
    /// In words.
    pub reason: String,
}

impl Peer {
    /// Removes the copy of a deleted document from this store, with all of its history. It takes no
    /// more changes, and its handles are of no more use; what others have of it is not touched.
    ///
    /// Without `force` only if a relay has all of it ([`Document::confirmed`]).
    ///
    /// # Errors
    /// [`PurgeError`] says why it is still here.
    pub async fn purge(&self, document: &Document, force: bool) -> Result<(), PurgeError> {
        if !document.read(entity::is_deleted)? {
            return Err(PurgeError::NotDeleted(document.id().clone()));
        }
        if !force && !document.confirmed() {
            return Err(PurgeError::Unconfirmed(document.id().clone()));
        }
        let (done, purged) = oneshot::channel();
        let purge = Command::Purge(document.held_arc(), document.heads()?, done);
        self.0.engine.send(purge).map_err(|_| ChangeError::Closed)?;
        purged.await.map_err(|_| ChangeError::Closed)?.map_err(|error| match error {
            LocalError::NotPurged(reason) => {
                PurgeError::NotNow { document: document.id().clone(), reason }
            }
            other => ChangeError::from(other).into(),
        })
    }
}

impl Document {
    /// What a relay that is connected says, if it takes nothing more of this document: it was deleted
    /// and purged there. The copy here stays as it is.
    pub fn refusal(&self) -> Option<Refusal> {
        self.held().refusal()
    }
}
