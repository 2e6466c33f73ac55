//! Entities that are deleted, with what the schema says of references to them.

use super::{ChangeError, Document, FindError, Peer, ReviewError};
use crate::{
    entity,
    review::{
        Undone,
        between::{Deletion, Needed, because},
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
        let because = because(document.id());
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

    /// Takes back that the entity in a document was deleted. What a peer deleted with it, or cleared,
    /// comes back too where nobody wrote there since; reads every document for that. Gives the
    /// documents of those.
    ///
    /// # Errors
    /// [`DeleteError`].
    pub async fn restore_entity(&self, document: &Document) -> Result<Vec<Document>, DeleteError> {
        document.change(|tx| Ok(entity::restore(tx)?)).await?;
        let mut with = Vec::new();
        self.schema_is_known().await;
        if self.0.schemas.in_force().is_none() {
            return Ok(with);
        }
        let because = because(document.id());
        let again = format!("because {} is there again", document.id().as_str());
        for id in self.documents().await.map_err(ReviewError::from)? {
            let Some(other) = self.find_or_pass(&id).await? else { continue };
            let undone = other.read(|doc| Undone::of_last(doc, &because))?;
            let Some(undone) = undone else { continue };
            other.change_with(Some(&again), |tx| Ok(undone.write(tx)?)).await?;
            with.push(other);
        }
        Ok(with)
    }
}

async fn delete(document: &Document, because: Option<&str>) -> Result<(), ChangeError> {
    let now_ms = document.held().home.seconds().saturating_mul(1_000);
    document.change_with(because, |tx| Ok(entity::delete(tx, now_ms)?)).await?;
    Ok(())
}
