//! Puts another document in the place of one: what it is without a change that a relay refused.
//!
//! That is more than one write, so what is to be written is put down first: the change that goes, the
//! word on why, and then, in a row that there is one of, all that the document is to be. Nothing of
//! the document is touched before that is on disk. If the process ends in between, the next start
//! finishes it before anybody can open the document. What came from others in the meantime stays.
//! The document is opened again once the row is gone: what it says must not be done to anything that
//! was written after it.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod journal;
mod removal;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use concord_protocol::{ChangeHash, DocumentId, RefuseCode};
use tokio::sync::oneshot;

#[cfg(feature = "simulation")]
pub(super) use self::removal::Removing;
pub(super) use self::{
    journal::{Unfinished, finish},
    removal::{Removed, take_out},
};
use super::{
    ChangeError, DocumentEvent, LetterError,
    base::Heads,
    core::{Action, Core, LocalDone},
    held::Held,
    outbox::RowRefused,
};
use crate::{
    entity::Level,
    replica::{Event, Kind, Leaving, LocalError, RowKey, RowWrite, StorageFailure, Ticket},
};

/// The row in which a change is kept that was taken out of a document.
pub(super) fn letter_row(change: &ChangeHash) -> RowKey {
    RowKey { kind: Kind::Change, id: change.0, part: 0 }
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Replacement {
    held: Arc<Held>,
    /// The heads that the document had.
    heads: Vec<ChangeHash>,
    /// The change that goes, and its bytes.
    change: ChangeHash,
    payload: Bytes,
    /// What was written again: under which name it was there, and is now.
    rewritten: Vec<(ChangeHash, ChangeHash)>,
    /// Operations of later changes that are gone with it.
    lost: BTreeMap<ChangeHash, usize>,
    /// All that the document is to be, in causal order.
    changes: Vec<Bytes>,
    /// Who asks for it.
    who: String,
    /// Answered when it is all on disk.
    done: oneshot::Sender<Result<Removed, LetterError>>,
}

/// What is being done.
pub(super) struct Replacing {
    replacement: Replacement,
    refused: RowRefused,
    /// All that is in the document and will not be.
    gone: BTreeSet<ChangeHash>,
    stage: Stage,
}

/// What is waited for.
enum Stage {
    /// That the journal is on disk.
    Begin,
    /// The purge of what was there.
    Purge(Ticket),
    /// The changes that are on their way to the disk; and whether one failed.
    Write(BTreeSet<Ticket>, Option<LocalError>),
    /// That the journal is gone from the disk: it is done, or nothing is and this is why.
    End(Result<(), LocalError>),
}

#[cfg(feature = "simulation")]
impl Replacing {
    /// Of which document which change goes, and what comes of it.
    pub(super) fn comes_to(&self) -> (DocumentId, ChangeHash, Removed) {
        let Replacement { held, change, rewritten, lost, .. } = &self.replacement;
        let removed = Removed { rewritten: rewritten.clone(), lost: lost.clone() };
        (held.id.clone(), *change, removed)
    }
}

impl Core {
    pub(super) fn replace(&mut self, replacement: Replacement) {
        let document = replacement.held.id.clone();
        let begun = if self.replacing.is_some() {
            Err("another is being replaced")
        } else {
            journal::begun(&replacement).map_err(|_| "it is too large")
        };
        let gone = replacement.gone();
        let begun = begun.and_then(|journal| {
            let Replacement { change, who, .. } = &replacement;
            let noted = self.outbox.discarded(self.now, &document, *change, &gone, who);
            let (note, refused) = noted.ok_or("no relay has refused this change")?;
            Ok((journal, note, refused))
        });
        let (journal, note, refused) = match begun {
            Ok(begun) => begun,
            Err(why_not) => {
                let Replacement { held, done, .. } = replacement;
                self.read_again(&held);
                let reason = why_not.to_owned();
                // Who asked may have stopped waiting.
                let _ = done.send(Err(LetterError::NotNow { document, reason }));
                return;
            }
        };
        let payload = RowWrite::Put(letter_row(&replacement.change), replacement.payload.clone());
        let mut rows = vec![payload, self.row_of(note).1];
        if mutant!(ForgetDiscarded) {
            rows.remove(0);
        }
        let journal = if mutant!(ReplaceWithoutJournal) { journal::ended() } else { journal };
        self.ask(Action::Journal(Some((document, rows)), journal));
        self.replacing = Some(Replacing { replacement, refused, gone, stage: Stage::Begin });
    }

    /// Whether the document is being replaced.
    pub(super) fn is_replacing(&self, document: &DocumentId) -> bool {
        self.replacing.as_ref().is_some_and(|it| it.replacement.held.id == *document)
    }

    /// Whether this change of the document is being taken out of it.
    pub(super) fn is_going(&self, document: &DocumentId, hash: &ChangeHash) -> bool {
        let replacing = self.replacing.as_ref();
        replacing.is_some_and(|it| it.replacement.held.id == *document && it.gone.contains(hash))
    }

    /// Whether an earlier run began to replace the document, and this one could not finish it.
    pub(super) fn is_unfinished(&self, document: &DocumentId) -> bool {
        self.unfinished.as_ref() == Some(document)
    }

    /// A change made while the document is being replaced builds on what is going.
    pub(super) fn refuse_while_replacing(done: LocalDone) {
        let code = RefuseCode::OutOfSequence;
        let reason = "a change is being taken out of the document: make it again".to_owned();
        // Whoever made the change may have stopped waiting.
        let _ = done.send(Err(LocalError::Refused { code, reason }));
    }

    /// The journal is written, or gone.
    pub(super) fn journalled(&mut self, result: Result<(), StorageFailure>) {
        let ticket = self.ticket();
        let Some(Replacing { replacement, stage, .. }) = &mut self.replacing else { return };
        match (&*stage, result) {
            (Stage::Begin, Ok(())) => {
                *stage = Stage::Purge(ticket);
                let (document, heads) = (replacement.held.id.clone(), replacement.heads.clone());
                let leaving = Leaving::Nothing;
                self.handle(Event::Purge { ticket, document, heads, leaving });
            }
            // Perhaps it is there all the same.
            (Stage::Begin, Err(error)) => self.end_journal(Err(LocalError::Storage(error))),
            (Stage::End(_), Ok(())) => self.replaced_or_not(),
            (Stage::End(_), Err(error)) => self.not_ended(&error),
            (Stage::Purge(_) | Stage::Write(..), _) => {}
        }
    }

    /// Takes what was answered of a replacement; gives back what is of something else.
    pub(super) fn replaced(
        &mut self,
        ticket: Ticket,
        result: Result<(), LocalError>,
    ) -> Option<Result<(), LocalError>> {
        let Some(Replacing { stage, .. }) = &mut self.replacing else { return Some(result) };
        match stage {
            Stage::Purge(awaited) if *awaited == ticket => match result {
                Ok(()) => self.write_replacement(),
                Err(error) => self.end_journal(Err(error)),
            },
            Stage::Write(awaited, failed) if awaited.contains(&ticket) => {
                awaited.remove(&ticket);
                if let Err(error) = result {
                    failed.get_or_insert(error);
                }
                if awaited.is_empty() {
                    self.replacement_written();
                }
            }
            _ => return Some(result),
        }
        None
    }

    /// What was there is gone.
    fn write_replacement(&mut self) {
        let Some(Replacing { replacement, .. }) = &self.replacing else { return };
        let document = replacement.held.id.clone();
        let changes = replacement.changes.clone();
        let tickets: Vec<Ticket> = changes.iter().map(|_| self.ticket()).collect();
        if let Some(replacing) = &mut self.replacing {
            replacing.stage = Stage::Write(tickets.iter().copied().collect(), None);
        }
        if changes.is_empty() {
            return self.replacement_written();
        }
        // Whatever relays said of what was there, this they do not have.
        let note = self.outbox.edited(self.now, &document, Level::CRITICAL, Heads::new);
        self.note(note);
        // Somebody decided it just now, as with a conflict.
        self.rest(&document, Level::CRITICAL);
        for (ticket, change) in tickets.into_iter().zip(changes) {
            self.handle(Event::LocalChange(ticket, document.clone(), change));
        }
    }

    /// All of it was written, or was not.
    fn replacement_written(&mut self) {
        let Some(Replacing { stage: Stage::Write(_, failed), .. }) = &mut self.replacing else {
            return;
        };
        match failed.take() {
            None => self.end_journal(Ok(())),
            // The journal stays: the next start has it finished.
            Some(error) => self.half_done(&error),
        }
    }

    fn end_journal(&mut self, result: Result<(), LocalError>) {
        if let Some(replacing) = &mut self.replacing {
            replacing.stage = Stage::End(result);
            self.ask(Action::Journal(None, journal::ended()));
        }
    }

    /// Nothing is left to be done.
    fn replaced_or_not(&mut self) {
        let Some(Replacing { replacement, refused, stage, .. }) = self.replacing.take() else {
            return;
        };
        let Replacement { held, change, rewritten, lost, changes, done, .. } = replacement;
        let result = if let Stage::End(Err(error)) = stage {
            let note = self.outbox.not_discarded(&held.id, change);
            self.note(note);
            self.read_again(&held);
            Err(why_not(&held, error))
        } else {
            held.tell_when_read(DocumentEvent::RolledBack {
                hash: change,
                code: refused.code(),
                reason: refused.reason,
                rewritten: rewritten.len(),
                lost: lost.values().sum(),
            });
            if changes.is_empty() {
                // There is nothing that a relay could confirm.
                self.schedule.done(&held.id);
                let note = self.outbox.confirmed(self.now, &held.id);
                self.note(note);
                held.start_over();
                self.open(&held.id);
            } else {
                self.read_again(&held);
                // What relays said in between was not heard.
                self.handle(Event::Resend(held.id.clone()));
            }
            Ok(Removed { rewritten, lost })
        };
        // Who asked may have stopped waiting.
        let _ = done.send(result);
    }

    /// What the document is to be could not be written.
    fn half_done(&mut self, error: &LocalError) {
        let Some(Replacing { replacement, .. }) = self.replacing.take() else { return };
        let Replacement { held, done, .. } = replacement;
        held.fail(&format!("it could not be written anew ({error}): start again"));
        self.read_again(&held);
        // Who asked may have stopped waiting.
        let _ = done.send(Err(why_not(&held, error.clone())));
    }

    /// The journal may still be there, and would undo what is written from now on.
    fn not_ended(&mut self, error: &StorageFailure) {
        self.half_done(&LocalError::Storage(error.clone()));
    }

    /// Has the content made anew of what is stored.
    fn read_again(&mut self, held: &Held) {
        held.reset();
        self.open(&held.id);
    }
}

fn why_not(held: &Held, error: LocalError) -> LetterError {
    match error {
        LocalError::NotPurged(reason) => LetterError::NotNow { document: held.id.clone(), reason },
        error => ChangeError::from(error).into(),
    }
}
