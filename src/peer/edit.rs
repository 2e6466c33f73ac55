//! Changes made here: all that happens before the disk. The same code runs in a program and in a
//! simulation.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::Arc,
};

use automerge::{
    Automerge, PatchLog, ReadDoc as _,
    transaction::{CommitOptions, Transaction},
};
use bytes::Bytes;
use concord_protocol::ChangeHash;
use tokio::sync::oneshot;

use super::{
    ChangeError, Changed, EditError,
    core::Command,
    held::{Held, Phase, Ready},
    urgency,
};
use crate::{
    entity::Level,
    history::{AHEAD_S_MAX, change_time},
    replica::LocalError,
};

/// On its way to the disk.
pub(super) type Pending = oneshot::Receiver<Result<(), LocalError>>;

impl Held {
    /// Makes one change of all that `edit` does, on its content as it is or as it was at some
    /// heads, and gives it to the core. The change is in the content when this returns.
    pub(super) fn edit<T>(
        self: &Arc<Self>,
        mut ready: Ready<'_>,
        at: Option<&[ChangeHash]>,
        message: Option<&str>,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, EditError>,
    ) -> Result<(Changed<T>, Option<Pending>), ChangeError> {
        ready.edits();
        let edited = catch_unwind(AssertUnwindSafe(|| {
            let doc = ready.doc();
            let options = self.options(doc, at, message);
            let mut transaction = match at {
                None => doc.transaction(),
                Some(heads) => transaction_at(doc, heads)?,
            };
            match edit(&mut transaction) {
                Ok(value) => Ok((value, transaction.commit_with(options).0)),
                Err(error) => {
                    transaction.rollback();
                    Err(ChangeError::Edit(error))
                }
            }
        }));
        let (value, hash) = match edited {
            Ok(edited) => edited?,
            Err(panic) => {
                // Whatever automerge was about to do is half done: back to what is stored.
                ready.discard();
                self.reset();
                self.reread();
                resume_unwind(panic)
            }
        };
        let Some(hash) = hash else {
            return Ok((Changed { value, change: None }, None));
        };
        let pending = self.send(ready.doc(), hash)?;
        drop(ready);
        Ok((Changed { value, change: Some(ChangeHash(hash.0)) }, Some(pending)))
    }

    /// The content, to change it.
    pub(super) fn content(&self) -> Result<Ready<'_>, ChangeError> {
        if self.home.is_closed() {
            return Err(ChangeError::Closed);
        }
        self.ready().ok_or_else(|| ChangeError::Failed(self.why_not()))
    }

    /// An empty change, so that there is something to store and to pass on.
    pub(super) fn commit_empty(
        self: &Arc<Self>,
        message: Option<&str>,
    ) -> Result<Pending, ChangeError> {
        let mut ready = self.content()?;
        ready.edits();
        let doc = ready.doc();
        let options = self.options(doc, None, message);
        let hash = doc.empty_commit(options);
        self.send(ready.doc(), hash)
    }

    /// Gives a change to the core.
    pub(super) fn store(
        self: &Arc<Self>,
        change: Bytes,
        level: Level,
    ) -> Result<Pending, ChangeError> {
        let (done, pending) = oneshot::channel();
        if self.home.tell(Command::Local(Arc::clone(self), change, level, done)) {
            return Ok(pending);
        }
        self.fail("the peer is closed");
        Err(ChangeError::Closed)
    }

    /// Why the content cannot be read or changed now.
    pub(super) fn why_not(&self) -> String {
        match &*self.phase().borrow() {
            Phase::Broken(reason) | Phase::Failed(reason) => reason.clone(),
            Phase::Loading | Phase::Ready => "it is being read from the disk".to_owned(),
            Phase::Absent | Phase::Unavailable => "nothing of it is here".to_owned(),
        }
    }

    /// Gives the change that was just made to the core, in the order of the edits: the document
    /// is locked.
    fn send(
        self: &Arc<Self>,
        doc: &Automerge,
        hash: automerge::ChangeHash,
    ) -> Result<Pending, ChangeError> {
        let change = doc
            .get_change_by_hash(&hash)
            .ok_or_else(|| ChangeError::Failed(format!("change {hash} is not in it")))?;
        // Whoever looks on sees it first: to wake the core takes a tenth of the time of an edit.
        self.tell_changed(std::slice::from_ref(&change), true);
        let level = urgency::of_change(self.home.schema().as_deref(), doc, &change);
        self.store(Bytes::copy_from_slice(change.raw_bytes()), level)
    }

    /// Author and time go with every change, which is to be made on these heads of the document;
    /// automerge would write neither. See [`change_time`] for which time.
    fn options(
        &self,
        doc: &mut Automerge,
        at: Option<&[ChangeHash]>,
        message: Option<&str>,
    ) -> CommitOptions {
        self.home.sign(doc);
        let heads = match at {
            None => doc.get_heads(),
            Some(heads) => heads.iter().map(|head| automerge::ChangeHash(head.0)).collect(),
        };
        let now = self.home.seconds();
        let times = times_of(doc, &heads);
        if let Some(ahead) =
            times.iter().max().filter(|time| time.saturating_sub(AHEAD_S_MAX) > now)
        {
            tracing::warn!(document = %self.id, ahead, now, "a change is from far in the future");
        }
        let options = CommitOptions::default().with_time(change_time(now, times));
        match message {
            Some(message) => options.with_message(message),
            None => options,
        }
    }
}

/// When these changes of a document were made, in seconds since 1970.
pub(super) fn times_of(doc: &Automerge, changes: &[automerge::ChangeHash]) -> Vec<i64> {
    let known = changes.iter().filter_map(|change| doc.get_change_meta_by_hash(change));
    known.map(|change| change.timestamp).collect()
}

/// A transaction on the document as it was.
fn transaction_at<'a>(
    doc: &'a mut Automerge,
    heads: &[ChangeHash],
) -> Result<Transaction<'a>, ChangeError> {
    let heads: Vec<_> = heads.iter().map(|head| automerge::ChangeHash(head.0)).collect();
    if let Some(head) = heads.iter().find(|head| doc.get_change_meta_by_hash(head).is_none()) {
        return Err(ChangeError::Failed(format!("change {head} is not in it")));
    }
    doc.transaction_at(PatchLog::inactive(), &heads)
        .map_err(|error| ChangeError::Failed(error.to_string()))
}
