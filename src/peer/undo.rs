//! Undoing and redoing what was changed here, while others go on.

use automerge::{Automerge, transaction::Transaction};
use concord_protocol::ChangeHash;

use super::{Document, FindError, PastError, heads};
use crate::history::{Stamp, Steps, Undo};

impl Document {
    /// What can be undone and redone here: the changes of the author that the peer writes as
    /// ([`PeerBuilder::author`](super::PeerBuilder::author)), on whatever device they were made and
    /// however long ago; without an author those that were made since the document was opened.
    ///
    /// # Errors
    /// [`FindError`].
    pub fn steps(&self) -> Result<Steps, FindError> {
        self.read(|doc| Steps::of(doc, self.is_ours(doc)))
    }

    /// Undoes the last change that can be, by one more change; `None` if there is none. What others
    /// wrote meanwhile stays, in the same text too; where they wrote over it, theirs stays. Looks
    /// through all of the document.
    ///
    /// # Errors
    /// [`PastError`].
    pub async fn undo(&self) -> Result<Option<ChangeHash>, PastError> {
        self.step(|steps| steps.undo.last().copied(), Undo::message).await
    }

    /// Does again what was undone last, if nothing was changed here since; `None` if there is
    /// nothing.
    ///
    /// # Errors
    /// [`PastError`].
    pub async fn redo(&self) -> Result<Option<ChangeHash>, PastError> {
        self.step(|steps| steps.redo.last().copied(), Undo::redo_message).await
    }

    async fn step(
        &self,
        which: impl Fn(&Steps) -> Option<ChangeHash>,
        message: impl Fn(&Undo) -> String,
    ) -> Result<Option<ChangeHash>, PastError> {
        let doc = self.read(Clone::clone)?;
        let is_ours = self.is_ours(&doc);
        let Some(change) = which(&Steps::of(&doc, &is_ours)) else { return Ok(None) };
        let undo = Undo::of(&doc, &change, &is_ours)?;
        let message = message(&undo);
        // On the document as it was looked at: indexes in lists may be others by now.
        let heads = heads(&doc);
        let write = |tx: &mut Transaction<'_>| Ok(undo.write(tx)?);
        let changed = self.edit(Some(&heads), Some(&message), write).await;
        let changed = changed.map_err(PastError::of_edit)?;
        if changed.change.is_none() {
            // All of it was written over; that it was undone is known all the same.
            self.commit_empty(Some(&message)).await?;
        }
        Ok(Some(change))
    }

    /// Whether whoever writes here wrote a change.
    fn is_ours(&self, doc: &Automerge) -> impl Fn(&Stamp) -> bool {
        let author = self.peer().0.author.as_deref();
        let actor = doc.get_actor().to_string();
        move |stamp| match author {
            Some(author) => stamp.author.as_deref() == Some(author),
            None => stamp.actor == actor,
        }
    }
}
