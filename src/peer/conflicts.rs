//! Conflicts of a document, seen and decided by the program that has it open.

use std::collections::{BTreeMap, VecDeque};

use automerge::{Automerge, transaction::Transaction};
use tokio::sync::watch;

use super::{ChangeError, Document, FindError, PeerError, SchemaStatus, Watcher, heads, locked};
use crate::review::{
    self, Choice, Conflict, ConflictId, NotAgain, Past, Refused, Resolution, Unreadable,
    between::NotSo, bulk::BulkId, history,
};

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
    /// The documents cannot be listed.
    #[error(transparent)]
    Documents(#[from] PeerError),
    /// What is between documents cannot be decided so.
    #[error(transparent)]
    NotSo(#[from] NotSo),
    /// The decision cannot be looked at again.
    #[error(transparent)]
    NotAgain(#[from] NotAgain),
    /// The decision was not stored.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// What became of the conflicts of a document.
#[derive(Debug, Clone, PartialEq)]
pub enum ConflictEvent {
    /// There is one more.
    Opened(Conflict),
    /// It was decided, or more was written there.
    Closed {
        /// Which.
        id: ConflictId,
        /// The one that is open in its place now.
        successor: Option<ConflictId>,
    },
}

impl Document {
    /// The conflicts that are open. The first time this looks through the whole history,
    /// milliseconds for most documents and about a second for a million operations; later only
    /// at what is new.
    ///
    /// # Errors
    /// [`ReviewError::Find`] and [`ReviewError::Unreadable`].
    pub fn conflicts(&self) -> Result<Vec<Conflict>, ReviewError> {
        let mut follower = locked(&self.held().follower);
        let Some(schema) = self.schema() else {
            // The document waits only while the changes are copied.
            let news = self.read(|doc| follower.news(doc))?;
            follower.take_in(news)?;
            return Ok(follower.open(self.id()));
        };
        self.read(|doc| {
            let news = follower.news(doc);
            follower.take_in(news)?;
            Ok(review::open(doc, follower.detector(), self.id(), Some(&schema)))
        })?
    }

    /// What becomes of the conflicts of the document: first those that are open are told of.
    pub fn watch_conflicts(&self) -> ConflictWatcher {
        ConflictWatcher {
            changes: self.watch(),
            schema: self.peer().0.schemas.subscribe(),
            document: self.clone(),
            known: BTreeMap::new(),
            told: VecDeque::new(),
            is_behind: true,
        }
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
        self.decide(conflict, choice, reason, None).await
    }

    /// As [`Document::resolve`], as one of many decisions that are made together: they have a name
    /// in common, by which [`Document::bulks`] finds those that stand.
    ///
    /// # Errors
    /// As [`Document::resolve`].
    pub async fn resolve_in_bulk(
        &self,
        conflict: &Conflict,
        choice: &Choice,
        reason: Option<String>,
        bulk: BulkId,
    ) -> Result<(), ReviewError> {
        self.decide(conflict, choice, reason, Some(bulk)).await
    }

    /// The decisions that were made together with others, and that nobody decided otherwise since.
    ///
    /// # Errors
    /// [`ReviewError::Find`].
    pub fn bulks(&self) -> Result<Vec<(BulkId, ConflictId)>, ReviewError> {
        Ok(self.read(|doc| history::bulks(history::decisions(doc), usize::MAX))?)
    }

    async fn decide(
        &self,
        conflict: &Conflict,
        choice: &Choice,
        reason: Option<String>,
        bulk: Option<BulkId>,
    ) -> Result<(), ReviewError> {
        let (doc, resolution) = {
            let mut follower = locked(&self.held().follower);
            let (doc, news) = self.read(|doc| (doc.clone(), follower.news(doc)))?;
            follower.take_in(news)?;
            let open = review::open(&doc, follower.detector(), self.id(), self.schema().as_deref());
            if !open.iter().any(|open| open.id == conflict.id) {
                return Err(ReviewError::NotOpen(conflict.id));
            }
            let resolution = Resolution::prepare(&doc, conflict, choice, reason)?;
            (doc, resolution.in_bulk(bulk))
        };
        self.write_decision(&doc, &resolution).await
    }

    /// The decisions that people and policies made, the earliest first. Looks through the history.
    ///
    /// # Errors
    /// [`ReviewError::Find`].
    pub fn decisions(&self) -> Result<Vec<Past>, ReviewError> {
        Ok(self.read(history::decisions)?)
    }

    /// Decides once more, and otherwise, on a conflict that was decided. [`Choice::Now`] takes the
    /// decision back: what was shown before anybody decided is there again.
    ///
    /// # Errors
    /// [`ReviewError`]; [`ReviewError::NotAgain`] for what was not decided here.
    pub async fn decide_again(
        &self,
        conflict: ConflictId,
        choice: &Choice,
        reason: Option<String>,
    ) -> Result<(), ReviewError> {
        let doc = self.read(Clone::clone)?;
        let resolution =
            history::again(&doc, self.id(), self.schema().as_deref(), conflict, choice, reason)?;
        self.write_decision(&doc, &resolution).await
    }

    /// Writes what was prepared on this state of the document.
    pub(super) async fn write_decision(
        &self,
        doc: &Automerge,
        resolution: &Resolution,
    ) -> Result<(), ReviewError> {
        let message = resolution.message();
        // On the document as it was looked at: indexes in lists may be others by now.
        let heads = heads(doc);
        let write = |tx: &mut Transaction<'_>| Ok(resolution.write(tx)?);
        let changed = self.edit(Some(&heads), Some(&message), write).await?;
        if changed.change.is_none() {
            self.commit_empty(Some(&message)).await?;
        }
        // Somebody waits for it.
        self.peer().sync_now();
        Ok(())
    }
}

/// Tells what becomes of the conflicts of a document; keeps the document open.
#[derive(Debug)]
pub struct ConflictWatcher {
    changes: Watcher,
    schema: watch::Receiver<SchemaStatus>,
    document: Document,
    /// Those that were told of, and where they are.
    known: BTreeMap<ConflictId, String>,
    told: VecDeque<ConflictEvent>,
    /// Something happened since the last look.
    is_behind: bool,
}

impl ConflictWatcher {
    /// The next event. What opens and closes between two calls may not be told of at all; what is
    /// open and was told of, and what is not, always agree with the document in the end.
    ///
    /// # Errors
    /// As [`Document::conflicts`]; later calls may go well.
    pub async fn next(&mut self) -> Result<ConflictEvent, ReviewError> {
        loop {
            if let Some(event) = self.told.pop_front() {
                return Ok(event);
            }
            if !self.is_behind {
                tokio::select! {
                    _ = self.changes.next() => {}
                    // The schema lives as long as the peer, and so the document.
                    Ok(()) = self.schema.changed() => {}
                }
                self.is_behind = true;
            }
            self.look()?;
            self.is_behind = false;
        }
    }

    fn look(&mut self) -> Result<(), ReviewError> {
        let open = self.document.conflicts()?;
        let now: BTreeMap<ConflictId, String> =
            open.iter().map(|conflict| (conflict.id, conflict.place.digest())).collect();
        for (id, place) in &self.known {
            if !now.contains_key(id) {
                let next = now.iter().find(|(_, there)| *there == place);
                let successor = next.map(|(id, _)| *id);
                self.told.push_back(ConflictEvent::Closed { id: *id, successor });
            }
        }
        let new = open.into_iter().filter(|conflict| !self.known.contains_key(&conflict.id));
        self.told.extend(new.map(ConflictEvent::Opened));
        self.known = now;
        Ok(())
    }
}
