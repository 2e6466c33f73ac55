//! Dead letters: changes that a relay refused, until somebody decides.
//!
//! A refused change stays in the document where it was made, and is shown there. What was made in
//! the document after it builds on it, so no relay can take that either; it waits behind it. Other
//! documents go on. Whoever looks after it has three ways: to send it once more as it is, when the
//! reason is gone; to take it out of the document, with what was made after it kept ([`without`]);
//! or to make another change in its place. What is taken out is kept beside the document, with the
//! relay's word on it, until it is thrown away.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use automerge::{Automerge, ReadDoc as _, transaction::Transaction};
use bytes::Bytes;
use concord_protocol::{ChangeHash, DocumentId, RefuseCode};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{
    ChangeError, Changed, Document, DocumentEvent, EditError, FindError, Peer,
    applier::Task,
    content::{self, Incoming},
    core::Command,
    home::{Surroundings as _, System},
    outbox::{Row, RowRefused},
    replacing::{Replacement, letter_row},
};
use crate::{
    history::{self, Difference, HistoryError, RebaseError, Rebased, Stamp, without},
    replica::LocalError,
    store::{DocumentKey, StoreError},
};

/// Milliseconds that a document of a letter may take to be read.
const OPEN_MS: u64 = 10_000;
/// Times that a document is replaced where something of it was under way, and milliseconds between.
const ATTEMPTS: u32 = 50;
const PAUSE_MS: u64 = 20;

/// A change that a relay refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The document.
    pub document: DocumentId,
    /// The change.
    pub change: ChangeHash,
    /// The kind of reason.
    pub code: RefuseCode,
    /// The relay's words.
    pub reason: String,
    /// When it was refused first, milliseconds since 1970.
    pub first_ms: u64,
    /// And last, as far as that was written down.
    pub last_ms: u64,
    /// How often.
    pub times: u32,
    /// Who made it, when and what for, where that can be read.
    pub stamp: Option<Stamp>,
    /// What was done about it.
    pub state: LetterState,
}

/// What was done about a refused change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LetterState {
    /// Nothing: it is in the document.
    Open {
        /// So many changes build on it, and wait for it.
        behind: usize,
    },
    /// It was taken out.
    Discarded {
        /// When, milliseconds since 1970.
        at_ms: u64,
        /// By whom; empty if the peer has no author.
        by: String,
    },
}

/// What came of taking a change out of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Discarded {
    /// So many later changes were written again.
    pub rewritten: usize,
    /// So many of their operations are gone with it, for they were about what it had made.
    pub lost: usize,
}

/// Nothing was done about a letter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LetterError {
    /// There is none of this change.
    #[error("no relay has refused change {change} of document {document}: see the list of letters")]
    Unknown {
        /// The document.
        document: DocumentId,
        /// The change.
        change: ChangeHash,
    },
    /// It is not in the document any more.
    #[error("change {0} was taken out already")]
    IsDiscarded(ChangeHash),
    /// It is, and is to be thrown away.
    #[error("change {0} is still in the document: discard it first")]
    IsOpen(ChangeHash),
    /// The relay takes nothing of the document any more.
    #[error(
        "document {0} was deleted and purged at the relay, so there is nothing to go back to: purge \
         the copy that is here, or make a new document of it"
    )]
    DocumentGone(DocumentId),
    /// The document cannot be read.
    #[error(transparent)]
    Find(#[from] FindError),
    /// It cannot be had without the change.
    #[error(transparent)]
    Rebase(#[from] RebaseError),
    /// Its history cannot be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// Something in the document is under way: try again.
    #[error("document {document} is as it was: {reason}")]
    NotNow {
        /// Which.
        document: DocumentId,
        /// Why.
        reason: String,
    },
    /// The disk failed, or the peer was closed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Peer {
    /// What relays refused, by document and in the order in which they did: what is open, and what
    /// was taken out and is kept. Changes that were refused because they build on one that was are
    /// counted with that one.
    ///
    /// # Errors
    /// [`LetterError`]. A document that cannot be read has its letters told all the same.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>, LetterError> {
        self.outbox_is_known().await.map_err(|_| ChangeError::Closed)?;
        let (asked, letters) = oneshot::channel();
        self.0.engine.send(Command::Letters(asked)).map_err(|_| ChangeError::Closed)?;
        let mut all = Vec::new();
        for (id, row) in letters.await.map_err(|_| ChangeError::Closed)? {
            let doc = match self.find_within(id.as_str(), Duration::from_millis(OPEN_MS)).await {
                Ok(document) => document.read(Clone::clone).ok(),
                Err(_) => None,
            };
            all.extend(letters_of(&id, &row, doc.as_ref()));
        }
        Ok(all)
    }

    /// One of them: see [`Peer::dead_letters`].
    ///
    /// # Errors
    /// [`LetterError::Unknown`], and as there.
    pub async fn dead_letter(
        &self,
        document: &DocumentId,
        change: ChangeHash,
    ) -> Result<DeadLetter, LetterError> {
        let mut letters = self.dead_letters().await?.into_iter();
        letters
            .find(|letter| letter.document == *document && letter.change == change)
            .ok_or_else(|| LetterError::Unknown { document: document.clone(), change })
    }

    /// The change of a letter, as an Automerge change chunk: what others could apply to the document.
    ///
    /// # Errors
    /// [`LetterError`].
    pub async fn letter_payload(&self, letter: &DeadLetter) -> Result<Bytes, LetterError> {
        let unknown =
            || LetterError::Unknown { document: letter.document.clone(), change: letter.change };
        if let LetterState::Discarded { .. } = letter.state {
            let key = DocumentKey::outbox(Some(letter.document.clone()));
            let rows = self.0.store.read(key, vec![letter_row(&letter.change)]).await?;
            return rows.into_iter().flatten().next().ok_or_else(unknown);
        }
        let document = self.find(letter.document.as_str()).await?;
        let hash = automerge::ChangeHash(letter.change.0);
        let change = document.read(|doc| doc.get_change_by_hash(&hash))?;
        let change = change.ok_or_else(unknown)?;
        Ok(Bytes::copy_from_slice(change.raw_bytes()))
    }

    /// What the change of a letter does to the document as its writer had it.
    ///
    /// # Errors
    /// [`LetterError`].
    pub async fn letter_effect(&self, letter: &DeadLetter) -> Result<Vec<Difference>, LetterError> {
        let payload = self.letter_payload(letter).await?;
        let document = self.find(letter.document.as_str()).await?;
        let mut doc = document.read(Clone::clone)?;
        self.on_applier(move || {
            let change = automerge::Change::from_bytes(payload.to_vec())
                .map_err(|error| RebaseError::Impossible(error.to_string()))?;
            let before: Vec<ChangeHash> =
                change.deps().iter().map(|dep| ChangeHash(dep.0)).collect();
            let after = [ChangeHash(change.hash().0)];
            content::take_in(&mut doc, vec![Incoming::Change(payload)])
                .map_err(|error| RebaseError::Impossible(error.to_string()))?;
            Ok(history::diff(&doc, &before, &after)?)
        })
        .await?
    }

    /// Sends what was refused of a document once more, as it is.
    ///
    /// # Errors
    /// [`LetterError::Change`] of a peer that is closed.
    pub fn retry(&self, document: &DocumentId) -> Result<(), LetterError> {
        let retry = Command::Retry(document.clone());
        Ok(self.0.engine.send(retry).map_err(|_| ChangeError::Closed)?)
    }

    /// Takes a refused change out of its document. What was made after it is kept, written again as
    /// if it had never been; the change itself is kept beside the document. Whoever watches the
    /// document is told ([`DocumentEvent::RolledBack`]).
    ///
    /// # Errors
    /// [`LetterError`]: nothing is different then.
    pub async fn discard(
        &self,
        document: &DocumentId,
        change: ChangeHash,
    ) -> Result<Discarded, LetterError> {
        let letter = self.dead_letter(document, change).await?;
        match letter.state {
            LetterState::Open { .. } if letter.code == RefuseCode::Deleted => {
                return Err(LetterError::DocumentGone(document.clone()));
            }
            LetterState::Open { .. } => {}
            LetterState::Discarded { .. } => return Err(LetterError::IsDiscarded(change)),
        }
        let _one = self.0.replacing.lock().await;
        let mut attempt = 0;
        loop {
            let found = self.find_within(document.as_str(), Duration::from_millis(OPEN_MS)).await?;
            match self.take_out(&found, change).await {
                Err(LetterError::NotNow { .. }) if attempt < ATTEMPTS => {
                    attempt += 1;
                    sleep(Duration::from_millis(PAUSE_MS)).await;
                }
                done => return done,
            }
        }
    }

    /// Throws away a change that was taken out of its document, and what was said of it.
    ///
    /// # Errors
    /// [`LetterError::IsOpen`] of one that is still in its document, and as
    /// [`Peer::dead_letter`].
    pub async fn forget_letter(
        &self,
        document: &DocumentId,
        change: ChangeHash,
    ) -> Result<(), LetterError> {
        match self.dead_letter(document, change).await?.state {
            LetterState::Open { .. } => Err(LetterError::IsOpen(change)),
            LetterState::Discarded { .. } => {
                let forget = Command::Forget(document.clone(), change);
                Ok(self.0.engine.send(forget).map_err(|_| ChangeError::Closed)?)
            }
        }
    }

    /// Takes a refused change out of its document, and makes another in its place.
    ///
    /// # Errors
    /// [`LetterError`]. If the change in its place fails, the one that was refused is out already.
    pub async fn retry_with<T>(
        &self,
        document: &DocumentId,
        change: ChangeHash,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, EditError>,
    ) -> Result<Changed<T>, LetterError> {
        self.discard(document, change).await?;
        Ok(self.find(document.as_str()).await?.change(edit).await?)
    }

    async fn take_out(
        &self,
        document: &Document,
        change: ChangeHash,
    ) -> Result<Discarded, LetterError> {
        let held = document.held_arc();
        let id = document.id().clone();
        // Nobody edits it from now on, until it is read again.
        let doc = held.content()?.take();
        held.reset();
        let work = move || {
            let doc: Automerge = doc;
            let heads: Vec<_> = doc.get_heads().iter().map(|head| ChangeHash(head.0)).collect();
            let rebased = without(&doc, change, || automerge::ActorId::from(System.name()))?;
            rebased.document()?;
            let payload = doc.get_change_by_hash(&automerge::ChangeHash(change.0));
            let payload = payload.ok_or(RebaseError::Unknown(change))?;
            Ok::<_, LetterError>((heads, rebased, Bytes::copy_from_slice(payload.raw_bytes())))
        };
        let made = match self.on_applier(work).await {
            Ok(Ok(made)) => made,
            Ok(Err(error)) | Err(error) => {
                held.reread();
                return Err(error);
            }
        };
        let (heads, rebased, payload) = made;
        let Rebased { ref rewritten, ref lost, .. } = rebased;
        let gone: BTreeSet<ChangeHash> =
            rewritten.iter().map(|(was, _)| *was).chain(lost.keys().copied()).collect();
        let outcome = Discarded { rewritten: rewritten.len(), lost: lost.values().sum() };
        let changes =
            rebased.changes().map(|change| Bytes::copy_from_slice(change.raw_bytes())).collect();
        let (done, replaced) = oneshot::channel();
        let who = self.0.author.clone().unwrap_or_default();
        let replacement = Replacement {
            held: document.held_arc(),
            heads,
            change,
            payload,
            gone,
            changes,
            who,
            done,
        };
        let replace = Command::Replace(Box::new(replacement));
        self.0.engine.send(replace).map_err(|_| ChangeError::Closed)?;
        match replaced.await.map_err(|_| ChangeError::Closed)? {
            Ok(refused) => {
                let Discarded { rewritten, lost } = outcome;
                held.tell(|| DocumentEvent::RolledBack {
                    hash: change,
                    code: refused.code(),
                    reason: refused.reason,
                    rewritten,
                    lost,
                });
                // Whoever reads next reads what is left.
                let deadline = Instant::now() + Duration::from_millis(OPEN_MS);
                let left = deadline.saturating_duration_since(Instant::now());
                self.find_within(id.as_str(), left).await?;
                Ok(outcome)
            }
            Err(LocalError::NotPurged(reason)) => {
                held.reread();
                Err(LetterError::NotNow { document: id, reason })
            }
            Err(error) => Err(ChangeError::from(error).into()),
        }
    }

    /// Does something with bytes of others where that is safe.
    async fn on_applier<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LetterError> {
        let (done, worked) = oneshot::channel();
        let call = move || {
            // Whoever asked may have stopped waiting.
            let _ = done.send(work());
        };
        self.0.tasks.send(Task::Call(Box::new(call))).map_err(|_| ChangeError::Closed)?;
        Ok(worked.await.map_err(|_| ChangeError::Closed)?)
    }
}

/// The letters of a document, which is given if it can be read.
fn letters_of(id: &DocumentId, row: &Row, doc: Option<&Automerge>) -> Vec<DeadLetter> {
    let refused: BTreeSet<automerge::ChangeHash> =
        row.refused.iter().map(|refused| automerge::ChangeHash(refused.hash)).collect();
    let behind = doc.map(|doc| behind(doc, &refused));
    let letter = |refused: &RowRefused, state| DeadLetter {
        document: id.clone(),
        change: ChangeHash(refused.hash),
        code: refused.code(),
        reason: refused.reason.clone(),
        first_ms: refused.first_ms,
        last_ms: refused.last_ms,
        times: refused.times,
        stamp: doc.and_then(|doc| Stamp::of(doc, &ChangeHash(refused.hash))),
        state,
    };
    let open = row.refused.iter().filter_map(|one| {
        let behind = match &behind {
            // Not one of the first: it is counted with one of those.
            Some(behind) => *behind.get(&automerge::ChangeHash(one.hash))?,
            None => 0,
        };
        Some(letter(one, LetterState::Open { behind }))
    });
    let discarded = row.letters.iter().map(|one| {
        let (at_ms, by) = (one.when_ms, one.who.clone());
        letter(&one.refused, LetterState::Discarded { at_ms, by })
    });
    open.chain(discarded).collect()
}

/// Of these changes those that build on no other of them, each with how many changes build on it
/// (and on none before it).
fn behind(
    doc: &Automerge,
    refused: &BTreeSet<automerge::ChangeHash>,
) -> BTreeMap<automerge::ChangeHash, usize> {
    let mut counts = BTreeMap::new();
    // Every change that builds on one of the first, and on which.
    let mut below = BTreeMap::new();
    for change in doc.get_changes_meta(&[]) {
        let first = change.deps.iter().find_map(|dep| below.get(dep)).copied();
        match first {
            Some(first) => {
                *counts.entry(first).or_default() += 1;
                below.insert(change.hash, first);
            }
            None if refused.contains(&change.hash) => {
                counts.insert(change.hash, 0);
                below.insert(change.hash, change.hash);
            }
            None => {}
        }
    }
    counts
}
