//! Dead letters: changes that a relay refused, until somebody decides.
//!
//! A refused change stays in the document where it was made, and is shown there. What was made in
//! the document after it builds on it, so no relay can take that either; it waits behind it. Other
//! documents go on. Whoever looks after it has three ways: to send it once more as it is, when the
//! reason is gone; to take it out of the document, with what was made after it kept (see
//! [`history::without`]); or to make another change in its place. What is taken out is kept beside
//! the document, with the relay's word on it, until it is thrown away.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use automerge::{Automerge, ReadDoc as _, transaction::Transaction};
use bytes::Bytes;
use concord_protocol::{ChangeHash, DocumentId, RefuseCode};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    ChangeError, Changed, Document, EditError, FindError, Peer,
    applier::Task,
    content::{self, Incoming},
    core::Command,
    held::Phase,
    outbox::{Row, RowRefused},
    replacing::{Removed, letter_row, take_out},
};
use crate::{
    history::{self, Difference, HistoryError, RebaseError, Stamp},
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
            let found = self.find_within(id.as_str(), Duration::from_millis(OPEN_MS)).await.ok();
            let doc = found.as_ref().and_then(|found| found.read(Clone::clone).ok());
            let relays = found.map(|found| found.held_arc().relays_have()).unwrap_or_default();
            all.extend(letters_of(&id, &row, doc.as_ref(), &relays));
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
    /// document is told ([`super::DocumentEvent::RolledBack`]).
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
        let who = self.0.author.clone().unwrap_or_default();
        // Somebody who stopped waiting may be taking another out of it.
        let (task, removing) = take_out(&held, change, who).map_err(|error| {
            let document = document.id().clone();
            LetterError::NotNow { document, reason: error.to_string() }
        })?;
        self.0.tasks.send(task).map_err(|_| ChangeError::Closed)?;
        let Removed { rewritten, lost } = removing.await.map_err(|_| ChangeError::Closed)??;
        // Whoever reads next reads what is left.
        let mut phase = held.phase();
        let read = phase.wait_for(|phase| *phase != Phase::Loading);
        // It is out, whether or not the rest can be read soon.
        let _ = timeout(Duration::from_millis(OPEN_MS), read).await;
        Ok(Discarded { rewritten: rewritten.len(), lost: lost.values().sum() })
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

/// The letters of a document, which is given if it can be read, with what each relay has of it.
pub(super) fn letters_of(
    id: &DocumentId,
    row: &Row,
    doc: Option<&Automerge>,
    relays: &[BTreeSet<automerge::ChangeHash>],
) -> Vec<DeadLetter> {
    // What was refused may have been taken since, as a part of the document as a whole or by another
    // relay. In the row it stays until all of the document is.
    let lacks: Vec<_> =
        doc.into_iter().flat_map(|doc| relays.iter().map(|of| lacks(doc, of))).collect();
    let is_open = |refused: &&RowRefused| {
        lacks.iter().all(|lacks| lacks.contains(&automerge::ChangeHash(refused.hash)))
    };
    let refused: Vec<&RowRefused> = row.refused.iter().filter(is_open).collect();
    let sent_again: Vec<&RowRefused> = row.sent_again.iter().filter(is_open).collect();
    let hashes = |of: &[&RowRefused]| -> BTreeSet<automerge::ChangeHash> {
        of.iter().map(|refused| automerge::ChangeHash(refused.hash)).collect()
    };
    let behind = doc.map(|doc| behind(doc, &hashes(&refused)));
    // Nobody has decided on what builds on a change of which there is no word yet: that is to come.
    let awaited = doc.filter(|_| !sent_again.is_empty());
    let awaited = awaited.map(|doc| below(doc, &hashes(&sent_again))).unwrap_or_default();
    // Refused for themselves. Of a document that cannot be read nothing else is known of which builds
    // on which.
    let is_first = |one: &RowRefused| one.code() != RefuseCode::OutOfSequence;
    let has_first = refused.iter().any(|one| is_first(one));
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
    let open = refused.into_iter().filter_map(|one| {
        if !is_first(one) && awaited.contains_key(&automerge::ChangeHash(one.hash)) {
            return None;
        }
        let behind = match &behind {
            // Not one of the first: it is counted with one of those.
            Some(behind) => *behind.get(&automerge::ChangeHash(one.hash))?,
            None if has_first && !is_first(one) => return None,
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

/// The changes of a document that somebody with these heads does not have.
fn lacks(
    doc: &Automerge,
    heads: &BTreeSet<automerge::ChangeHash>,
) -> BTreeSet<automerge::ChangeHash> {
    let known = heads.iter().filter(|head| doc.get_change_meta_by_hash(head).is_some());
    let known: Vec<_> = known.copied().collect();
    doc.get_changes_meta(&known).into_iter().map(|change| change.hash).collect()
}

/// Of these changes those that build on no other of them, each with how many changes build on it
/// (and on none before it).
fn behind(
    doc: &Automerge,
    refused: &BTreeSet<automerge::ChangeHash>,
) -> BTreeMap<automerge::ChangeHash, usize> {
    let mut counts = BTreeMap::new();
    for (change, first) in below(doc, refused) {
        *counts.entry(first).or_default() += usize::from(change != first);
    }
    counts
}

/// Those of these changes that build on no other of them, and every change that builds on one of
/// those; and on which.
fn below(
    doc: &Automerge,
    firsts: &BTreeSet<automerge::ChangeHash>,
) -> BTreeMap<automerge::ChangeHash, automerge::ChangeHash> {
    let mut below = BTreeMap::new();
    for change in doc.get_changes_meta(&[]) {
        let first = change.deps.iter().find_map(|dep| below.get(dep)).copied();
        let is_first = || firsts.contains(&change.hash).then_some(change.hash);
        if let Some(first) = first.or_else(is_first) {
            below.insert(change.hash, first);
        }
    }
    below
}
