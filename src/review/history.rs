//! Decisions that were made, by people and by policies: read from the history, and overturned.

use std::collections::BTreeSet;

use automerge::{Automerge, ChangeHash, ChangeMetadata};
use concord_protocol::DocumentId;

use super::{
    Choice, Conflict, ConflictId, Decided, Detector, Refused, Resolution, Unreadable, bulk::BulkId,
    look::stamp, open,
};
use crate::{entity::Schema, history::Stamp};

/// A decision that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// What was decided.
    pub decided: Decided,
    /// Who did, and when.
    pub who: Stamp,
    /// What was known then.
    knew: Vec<ChangeHash>,
}

/// A decision cannot be looked at again.
#[derive(Debug, thiserror::Error)]
pub enum NotAgain {
    /// Nobody decided it, as far as is known here.
    #[error("nobody decided conflict {0} in this document")]
    NotDecided(ConflictId),
    /// What was decided on is not found in the history.
    #[error("conflict {0} is not found in the history of this document")]
    NotFound(ConflictId),
    /// See [`Unreadable`].
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// See [`Refused`].
    #[error(transparent)]
    Refused(#[from] Refused),
    /// See the error of automerge.
    #[error(transparent)]
    Automerge(#[from] automerge::AutomergeError),
}

impl Past {
    /// Whether a policy of a schema decided.
    pub fn is_automatic(&self) -> bool {
        self.decided.is_automatic()
    }
}

/// The decisions in a document, in an order in which each comes after those that it knew of.
pub fn decisions(doc: &Automerge) -> Vec<Past> {
    doc.get_changes_meta(&[]).into_iter().filter_map(|change| past(doc, change)).collect()
}

/// As [`decisions`], of a document all of which was taken in: what that costs follows what was
/// decided, and not the document.
pub(super) fn seen(doc: &Automerge, detector: &Detector) -> Vec<Past> {
    let changes = detector.decisions.keys().map(|change| detector.causality.hash(*change));
    let known = changes.filter_map(|change| doc.get_change_meta_by_hash(&change));
    known.filter_map(|change| past(doc, change)).collect()
}

fn past(doc: &Automerge, change: ChangeMetadata<'_>) -> Option<Past> {
    let decided = Decided::read(change.message.as_deref()?)?;
    let who = stamp(doc, &change.hash)?;
    Some(Past { decided, who, knew: change.deps })
}

/// Those of a document's decisions that stand (nobody decided the same conflict later) and were made together with
/// others: with which, and on what. The last so many.
pub fn bulks(decisions: Vec<Past>, max: usize) -> Vec<(BulkId, ConflictId)> {
    let mut last = BTreeSet::new();
    let standing = decisions.into_iter().rev().filter_map(|past| {
        let Decided { conflict, bulk, .. } = past.decided;
        last.insert(conflict).then_some((bulk?, conflict))
    });
    standing.take(max).collect()
}

/// The conflict that was decided, as it was then, in the document as it was then; under the schema
/// that is in force now, if there is one.
///
/// # Errors
/// [`NotAgain`].
pub fn decided(
    doc: &Automerge,
    document: &DocumentId,
    schema: Option<&Schema>,
    id: ConflictId,
) -> Result<(Conflict, Automerge), NotAgain> {
    let mut past = decisions(doc);
    past.retain(|past| past.decided.conflict == id);
    // A later one may have decided it once more, which is found where it was open.
    for past in past.iter().rev() {
        let then = doc.fork_at(&past.knew)?;
        let detector = Detector::of(&then.get_changes(&[]))?;
        let open = open(&then, &detector, document, schema);
        if let Some(conflict) = open.into_iter().find(|conflict| conflict.id == id) {
            return Ok((conflict, then));
        }
    }
    Err(if past.is_empty() { NotAgain::NotDecided(id) } else { NotAgain::NotFound(id) })
}

/// Prepares another decision on a conflict that was decided: [`Choice::Now`] is what was shown
/// before anybody decided.
///
/// # Errors
/// [`NotAgain`].
pub fn again(
    doc: &Automerge,
    document: &DocumentId,
    schema: Option<&Schema>,
    id: ConflictId,
    choice: &Choice,
    reason: Option<String>,
) -> Result<Resolution, NotAgain> {
    match decided(doc, document, schema, id) {
        Ok((conflict, then)) => Ok(Resolution::since(Some(&then), doc, &conflict, choice, reason)?),
        Err(NotAgain::NotFound(_)) if matches!(choice, Choice::Now) => {
            taken_back(doc, schema, id, reason)
        }
        Err(error) => Err(error),
    }
}

/// Prepares to take back what a decision wrote here on a conflict between documents, of which each
/// has a part only.
///
/// # Errors
/// [`NotAgain`].
pub(super) fn taken_back(
    doc: &Automerge,
    schema: Option<&Schema>,
    id: ConflictId,
    reason: Option<String>,
) -> Result<Resolution, NotAgain> {
    let mut decisions = decisions(doc).into_iter().rev();
    let past = decisions.find(|past| past.decided.conflict == id);
    let past = past.ok_or(NotAgain::NotDecided(id))?;
    let change = (ChangeHash(past.who.change.0), &*past.knew);
    Ok(Resolution::of_before(doc, id, reason, change)?.under(doc, schema))
}
