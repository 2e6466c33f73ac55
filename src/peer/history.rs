//! The history of a document, for the program that has it open.

use automerge::{Automerge, Prop, transaction::Transaction};
use concord_protocol::ChangeHash;

use super::{ChangeError, Changed, Document, FindError};
use crate::{
    entity::Schema,
    history::{
        self, Blame, Difference, Entry, Events, HistoryError, Order, Relation, Tampered,
        VectorClock,
    },
};

/// The history of a document was not read, or not restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PastError {
    /// The document cannot be read.
    #[error(transparent)]
    Find(#[from] FindError),
    /// What is asked for is not in its history.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Its history is not what was written.
    #[error(transparent)]
    Tampered(#[from] Tampered),
    /// What was restored is not stored.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl PastError {
    /// Why an edit failed that writes what the history says.
    pub(super) fn of_edit(error: ChangeError) -> Self {
        match error {
            ChangeError::Edit(error) => match error.downcast::<HistoryError>() {
                Ok(error) => Self::History(*error),
                Err(error) => ChangeError::Edit(error).into(),
            },
            other => other.into(),
        }
    }
}

impl Document {
    /// The changes of the document that are not covered by some heads, at most `limit` of them, in
    /// an order that is the same on every replica: see [`history::log`].
    ///
    /// # Errors
    /// [`PastError`].
    pub fn history(
        &self,
        after: &[ChangeHash],
        order: Order,
        limit: usize,
    ) -> Result<Vec<Entry>, PastError> {
        Ok(history::log(&self.copy()?, after, order, limit)?)
    }

    /// The document as it was at these heads.
    ///
    /// # Errors
    /// [`PastError`].
    pub fn at(&self, heads: &[ChangeHash]) -> Result<Automerge, PastError> {
        Ok(history::at(&self.copy()?, heads)?)
    }

    /// What is different after, against before: see [`history::diff`].
    ///
    /// # Errors
    /// [`PastError`].
    pub fn diff(
        &self,
        before: &[ChangeHash],
        after: &[ChangeHash],
    ) -> Result<Vec<Difference>, PastError> {
        Ok(history::diff(&self.copy()?, before, after)?)
    }

    /// Who wrote what is shown at a path (`&[]`: everywhere): see [`history::blame`].
    ///
    /// # Errors
    /// [`PastError`].
    pub fn blame(&self, path: &[Prop]) -> Result<Vec<Blame>, PastError> {
        Ok(history::blame(&self.copy()?, path)?)
    }

    /// Makes the document say again what it said at these heads, or at a path (`&[]`: all of it),
    /// by one more change: see [`history::restore`]. Without a message, the change says what it
    /// restores.
    ///
    /// # Errors
    /// [`PastError`].
    pub async fn restore(
        &self,
        heads: &[ChangeHash],
        path: &[Prop],
        message: Option<&str>,
    ) -> Result<Changed<()>, PastError> {
        let message = message.map_or_else(|| restoring(heads), str::to_owned);
        let write = |tx: &mut Transaction<'_>| Ok(history::restore(tx, heads, path)?);
        self.change_with(Some(&message), write).await.map_err(PastError::of_edit)
    }

    /// What happened after some heads, as events like `task.status_changed`, of at most `limit`
    /// changes: see [`history::events`].
    ///
    /// # Errors
    /// [`PastError`].
    pub fn events(
        &self,
        schema: Option<&Schema>,
        after: &[ChangeHash],
        limit: usize,
    ) -> Result<Events, PastError> {
        Ok(history::events(&self.copy()?, schema, after, limit)?)
    }

    /// The vector clock of the document as it is.
    ///
    /// # Errors
    /// [`PastError`].
    pub fn clock(&self) -> Result<VectorClock, PastError> {
        Ok(VectorClock::of(&self.copy()?))
    }

    /// The vector clock of the document as it was at these heads.
    ///
    /// # Errors
    /// [`PastError`].
    pub fn clock_at(&self, heads: &[ChangeHash]) -> Result<VectorClock, PastError> {
        Ok(VectorClock::at(&self.copy()?, heads)?)
    }

    /// How one state of the document stands to another.
    ///
    /// # Errors
    /// [`PastError`].
    pub fn compare(&self, one: &[ChangeHash], other: &[ChangeHash]) -> Result<Relation, PastError> {
        let doc = self.copy()?;
        Ok(VectorClock::at(&doc, one)?.compare(&VectorClock::at(&doc, other)?))
    }

    /// Checks that the history is what was written: see [`history::verify`]. Gives how many changes
    /// there are.
    ///
    /// # Errors
    /// [`PastError::Tampered`] for what is not as it was written.
    pub fn verify(&self) -> Result<usize, PastError> {
        Ok(history::verify_document(&self.copy()?)?)
    }

    /// To look at for as long as it takes, while the document goes on.
    fn copy(&self) -> Result<Automerge, FindError> {
        self.read(Clone::clone)
    }
}

/// What the message of a restoring change is.
fn restoring(heads: &[ChangeHash]) -> String {
    let heads: Vec<String> = heads.iter().take(4).map(|head| format!("{head:?}")).collect();
    if heads.is_empty() {
        return "restored the beginning".to_owned();
    }
    format!("restored {}", heads.join(" "))
}
