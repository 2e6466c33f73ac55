//! Takes a change out of a document: the part that needs the document itself, on the applier.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use automerge::{Automerge, ReadDoc as _};
use bytes::Bytes;
use concord_protocol::ChangeHash;
use tokio::sync::oneshot;

use super::Replacement;
use crate::{
    history::{RebaseError, Rebased, without},
    peer::{ChangeError, LetterError, applier::Task, core::Command, heads, held::Held},
};

/// What came of taking a change out.
#[derive(Debug)]
pub(in crate::peer) struct Removed {
    /// What was made after it and is written again: its name before, and now.
    pub(in crate::peer) rewritten: Vec<(ChangeHash, ChangeHash)>,
    /// So many operations of later changes are gone with it.
    pub(in crate::peer) lost: BTreeMap<ChangeHash, usize>,
}

/// Told when it is out and all that is left is on disk, or that nothing is different.
pub(in crate::peer) type Removing = oneshot::Receiver<Result<Removed, LetterError>>;

/// Begins to take a change out of a document. Nobody edits or reads it until that is over, whether
/// or not somebody waits for it.
///
/// # Errors
/// [`ChangeError::Failed`] if there is no content to take it out of.
pub(in crate::peer) fn take_out(
    held: &Arc<Held>,
    change: ChangeHash,
    who: String,
) -> Result<(Task, Removing), ChangeError> {
    let doc = held.take().ok_or_else(|| ChangeError::Failed(held.why_not()))?;
    let held = Arc::clone(held);
    let (done, removing) = oneshot::channel();
    let work = move || {
        let made = catch_unwind(AssertUnwindSafe(|| left_without(&doc, &held, change)));
        let failed = "automerge failed on it".to_owned();
        match made.unwrap_or_else(|_| Err(RebaseError::Impossible(failed))) {
            Ok((rebased, payload)) => {
                let replacement = replacement(&doc, held, change, rebased, payload, who, done);
                let home = replacement.held.home.clone();
                // A core that is gone answers nobody.
                home.tell(Command::Replace(Box::new(replacement)));
            }
            Err(error) => {
                held.reread();
                // Who asked may have stopped waiting.
                let _ = done.send(Err(error.into()));
            }
        }
    };
    Ok((Task::Call(Box::new(work)), removing))
}

fn left_without(
    doc: &Automerge,
    held: &Held,
    change: ChangeHash,
) -> Result<(Rebased, Bytes), RebaseError> {
    let rebased = without(doc, change, || held.home.actor())?;
    rebased.document()?;
    let payload = doc.get_change_by_hash(&automerge::ChangeHash(change.0));
    let payload = payload.ok_or(RebaseError::Unknown(change))?;
    Ok((rebased, Bytes::copy_from_slice(payload.raw_bytes())))
}

fn replacement(
    doc: &Automerge,
    held: Arc<Held>,
    change: ChangeHash,
    rebased: Rebased,
    payload: Bytes,
    who: String,
    done: oneshot::Sender<Result<Removed, LetterError>>,
) -> Replacement {
    let bytes = |change: &automerge::Change| Bytes::copy_from_slice(change.raw_bytes());
    let changes = rebased.changes().map(bytes).collect();
    let now = |(was, now): &(ChangeHash, automerge::Change)| (*was, ChangeHash(now.hash().0));
    Replacement {
        held,
        heads: heads(doc),
        change,
        payload,
        changes,
        rewritten: rebased.rewritten.iter().map(now).collect(),
        lost: rebased.lost,
        who,
        done,
    }
}

impl Replacement {
    /// All that is in the document and will not be, under the names that it has.
    pub(super) fn gone(&self) -> BTreeSet<ChangeHash> {
        let rewritten = self.rewritten.iter().map(|(was, _)| *was);
        rewritten.chain(self.lost.keys().copied()).chain([self.change]).collect()
    }
}
