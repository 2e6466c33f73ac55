//! Entities that are deleted, with what the schema says of references to them.

use super::{ChangeError, Document, FindError, Peer, ReviewError};
use crate::{
    entity,
    review::{
        between::{Deletion, Needed},
        part,
    },
};

/// An entity was not deleted, or not all that goes with it was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteError {
    /// Something refers to it that must not lose it.
    #[error(transparent)]
    Needed(#[from] Needed),
    /// What refers to it cannot be found out.
    #[error(transparent)]
    Review(#[from] ReviewError),
    /// Its document cannot be read.
    #[error(transparent)]
    Find(#[from] FindError),
    /// A change is not on disk; those before it stand.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl Peer {
    /// Deletes the entity in a document, and does what the schema
    /// ([`PeerBuilder::schema`](super::PeerBuilder::schema)) says of references to it from documents
    /// that are stored here: what must not be without it refuses, what goes with it is deleted too,
    /// other references are cleared. Reads every document. Gives what was done besides.
    ///
    /// What it says stays in its document, and [`Peer::restore_entity`] takes it back. References
    /// that others make meanwhile are dealt with where they meet: see
    /// [`Code::Dangling`](crate::review::Code::Dangling).
    ///
    /// # Errors
    /// [`DeleteError`].
    pub async fn delete_entity(&self, document: &Document) -> Result<Deletion, DeleteError> {
        let deletion = self.between().await?.deletion(document.id())?;
        // First, so that the rest is done by others should it not be done here.
        delete(document, None).await?;
        let because = format!("because {} was deleted", document.id().as_str());
        for with in &deletion.with {
            delete(&self.find(with.as_str()).await?, Some(&because)).await?;
        }
        for (from, key, to) in &deletion.cleared {
            let from = self.find(from.as_str()).await?;
            let clear = from.change_with(Some(&because), |tx| {
                Ok(part::clear_references(tx, key, to.as_str())?)
            });
            clear.await?;
        }
        Ok(deletion)
    }

    /// Takes back that the entity in a document was deleted. What was deleted with it is taken back
    /// by itself.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn restore_entity(&self, document: &Document) -> Result<(), ChangeError> {
        document.change(|tx| Ok(entity::restore(tx)?)).await?;
        Ok(())
    }
}

async fn delete(document: &Document, because: Option<&str>) -> Result<(), ChangeError> {
    let now_ms = document.held().home.seconds().saturating_mul(1_000);
    document.change_with(because, |tx| Ok(entity::delete(tx, now_ms)?)).await?;
    Ok(())
}
