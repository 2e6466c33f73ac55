//! What relays refused, and what the user of a simulated peer does about it.

use std::{collections::BTreeMap, sync::Arc};

use concord_protocol::{ChangeHash, DocumentId};
use tokio::sync::oneshot::error::TryRecvError;

use super::SimulatedPeer;
use crate::{
    peer::{
        ChangeError, DeadLetter, LetterError,
        core::Command,
        letters::letters_of,
        replacing::{Removed, take_out},
    },
    replica::Now,
};

/// What came of taking a change out of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenOut {
    /// The change.
    pub change: ChangeHash,
    /// What was made after it and is written again: its name before, and now.
    pub rewritten: Vec<(ChangeHash, ChangeHash)>,
    /// So many operations of later changes are gone with it, by the names that those had.
    pub lost: BTreeMap<ChangeHash, usize>,
}

impl SimulatedPeer {
    /// As [`crate::peer::Peer::dead_letters`]; how much is behind a letter is known of open documents
    /// only.
    pub fn dead_letters(&self) -> Vec<DeadLetter> {
        let letters = self.core.outbox.letters().into_iter();
        letters
            .flat_map(|(id, row)| {
                let doc = self.read(&id, Clone::clone);
                let open = self.documents.get(&id);
                let relays = open.map(|open| open.held.relays_have()).unwrap_or_default();
                letters_of(&id, &row, doc.as_ref(), &relays)
            })
            .collect()
    }

    /// As [`crate::peer::Peer::discard`], once: [`SimulatedPeer::poll_discard`] tells what came of it.
    ///
    /// # Errors
    /// [`ChangeError::Failed`] of a document that is not open or not
    /// [`super::DocumentState::Ready`].
    pub fn discard(
        &mut self,
        now: Now,
        document: &DocumentId,
        change: ChangeHash,
    ) -> Result<(), ChangeError> {
        self.set(now);
        let open = self.documents.get(document);
        let open = open.ok_or_else(|| ChangeError::Failed("it is not open".to_owned()))?;
        let (task, removing) = take_out(&Arc::clone(&open.held), change, "somebody".to_owned())?;
        self.tasks.push_back(task);
        self.removals.push_back((change, removing));
        Ok(())
    }

    /// The first of the discarded changes of which is known what came of it and was not told yet.
    pub fn poll_discard(&mut self) -> Option<(ChangeHash, Result<TakenOut, LetterError>)> {
        for place in 0..self.removals.len() {
            let (change, removing) = &mut self.removals[place];
            let change = *change;
            let result = match removing.try_recv() {
                Err(TryRecvError::Empty) => continue,
                Err(TryRecvError::Closed) => Err(ChangeError::Closed.into()),
                Ok(result) => {
                    result.map(|Removed { rewritten, lost }| TakenOut { change, rewritten, lost })
                }
            };
            self.removals.remove(place);
            return Some((change, result));
        }
        None
    }

    /// The change that is being taken out, of which document, and what comes of it if that is done.
    pub fn taking_out(&self) -> Option<(DocumentId, TakenOut)> {
        self.core.replacing.as_ref().map(|replacing| {
            let (document, change, Removed { rewritten, lost }) = replacing.comes_to();
            (document, TakenOut { change, rewritten, lost })
        })
    }

    /// As [`crate::peer::Peer::retry`].
    pub fn retry(&mut self, now: Now, document: DocumentId) {
        self.set(now);
        self.core.take(now, Command::Retry(document));
    }
}
