//! A handle of one document: read it, change it, watch it.

use std::{fmt, sync::Arc, time::Duration};

use automerge::{Automerge, transaction::Transaction};
use bytes::Bytes;
use concord_protocol::{AutomergeUrl, ChangeHash, DocumentId};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{broadcast, oneshot},
    task::block_in_place,
    time::Instant,
};

use super::{
    ChangeError, ConfirmError, DocumentEvent, EditError, FindError, Peer,
    applier::Task,
    confirm,
    content::Incoming,
    edit::Pending,
    heads,
    held::{Held, Phase, Ready},
    overview::Acknowledged,
};
use crate::entity::{Level, Schema};

/// One document of a [`Peer`]. Cheap to clone; the document stays in memory while there is a
/// handle of it.
#[derive(Clone)]
pub struct Document {
    peer: Peer,
    held: Arc<Held>,
}

/// What [`Document::change`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed<T> {
    /// What the closure gave.
    pub value: T,
    /// The change, or `None` if nothing was different afterwards.
    pub change: Option<ChangeHash>,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Document").field(&self.held.id).finish()
    }
}

impl Document {
    pub(super) fn new(peer: Peer, held: Arc<Held>) -> Self {
        Self { peer, held }
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    pub(super) fn held_arc(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }

    /// Whose document it is.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Its name.
    pub fn id(&self) -> &DocumentId {
        &self.held.id
    }

    /// The schema in force, if there is one.
    pub(super) fn schema(&self) -> Option<Arc<Schema>> {
        self.peer.0.schemas.in_force()
    }

    /// Its name as applications pass it around.
    pub fn url(&self) -> AutomergeUrl {
        AutomergeUrl(self.held.id.clone())
    }

    /// Changes the document by all that the closure does, as one change, at the first poll; it is
    /// on disk when this returns. Where the closure fails or does nothing, nothing is written.
    ///
    /// The change is seen by [`Document::read`] at once and goes to the disk and the relays even
    /// if the returned future is dropped after its first poll.
    ///
    /// # Errors
    /// [`ChangeError`] says what became of the change.
    pub async fn change<T>(
        &self,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, EditError>,
    ) -> Result<Changed<T>, ChangeError> {
        self.change_with(None, edit).await
    }

    /// As [`Document::change`], with words on what it is for.
    ///
    /// # Errors
    /// As [`Document::change`].
    pub async fn change_with<T>(
        &self,
        message: Option<&str>,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, EditError>,
    ) -> Result<Changed<T>, ChangeError> {
        self.edit(None, message, edit).await
    }

    /// As [`Document::change`], but made on the document as it was at these heads: what somebody
    /// did who had seen no more than that.
    ///
    /// # Errors
    /// As [`Document::change`]; and [`ChangeError::Failed`] if a head is not in the document.
    pub async fn change_at<T>(
        &self,
        heads: &[ChangeHash],
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, EditError>,
    ) -> Result<Changed<T>, ChangeError> {
        self.edit(Some(heads), None, edit).await
    }

    /// Whether a change is in the document.
    ///
    /// # Errors
    /// As [`Document::read`].
    pub fn holds(&self, change: ChangeHash) -> Result<bool, FindError> {
        let hash = automerge::ChangeHash(change.0);
        self.read(|doc| doc.get_change_meta_by_hash(&hash).is_some())
    }

    /// As [`Document::change`], for code that is not async.
    ///
    /// # Errors
    /// As [`Document::change`]; and [`ChangeError::WouldBlock`] on a single-threaded runtime.
    pub fn change_blocking<T>(
        &self,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, EditError>,
    ) -> Result<Changed<T>, ChangeError> {
        let inside = Handle::try_current().ok();
        let single = |handle: &Handle| handle.runtime_flavor() == RuntimeFlavor::CurrentThread;
        if inside.as_ref().is_some_and(single) {
            return Err(ChangeError::WouldBlock);
        }
        self.may_be_changed()?;
        let content = self.held.content()?;
        let (changed, pending) = self.held.edit(content, None, None, edit)?;
        if let Some(pending) = pending {
            let wait = || pending.blocking_recv();
            let done = if inside.is_some() { block_in_place(wait) } else { wait() };
            done.map_err(|_| ChangeError::Closed)??;
        }
        Ok(changed)
    }

    /// Reads the document as it is now. Do not keep the document waiting: edits and incoming
    /// changes wait until the closure returns.
    ///
    /// # Errors
    /// [`FindError::Broken`] if it cannot be read any more.
    pub fn read<T>(&self, look: impl FnOnce(&Automerge) -> T) -> Result<T, FindError> {
        let mut ready = self.held.ready().ok_or_else(|| FindError::Broken {
            document: self.id().clone(),
            reason: self.held.why_not(),
        })?;
        Ok(look(ready.doc()))
    }

    /// The changes that nothing builds on yet.
    ///
    /// # Errors
    /// As [`Document::read`].
    pub fn heads(&self) -> Result<Vec<ChangeHash>, FindError> {
        self.read(heads)
    }

    /// What becomes of the document from now on.
    pub fn watch(&self) -> Watcher {
        Watcher { events: self.held.events(), _document: self.clone() }
    }

    /// Sends bytes to whoever has the document open at the moment: presence, a cursor. Nothing
    /// of it is kept. JavaScript clients expect one CBOR value.
    pub fn broadcast(&self, data: impl Into<Bytes>) {
        self.peer.0.broadcast(self.id().clone(), data.into());
    }

    /// Whether a relay has all that is here, and all that it told of is here:
    /// [`Document::acknowledged`] says what "has" means.
    pub fn confirmed(&self) -> bool {
        self.held.confirmed()
    }

    /// What the word of the relay means by which the document is [`Document::confirmed`]; `None` if
    /// it is not, as far as relays said since the document was opened.
    pub fn acknowledged(&self) -> Option<Acknowledged> {
        self.held.acknowledged()
    }

    /// Waits until [`Document::confirmed`].
    ///
    /// # Errors
    /// [`ConfirmError`] if that is not so in time.
    pub async fn wait_confirmed(&self, within: Duration) -> Result<(), ConfirmError> {
        self.peer.sync_now();
        confirm::one(&self.peer, &self.held, Instant::now() + within).await
    }

    /// An empty change, so that there is something to store and to pass on.
    pub(super) async fn commit_empty(&self, message: Option<&str>) -> Result<(), ChangeError> {
        durable(self.held.commit_empty(message)?).await
    }

    /// Makes one change, on the document as it is or as it was at some heads, and waits until it is
    /// on disk.
    pub(super) async fn edit<T>(
        &self,
        at: Option<&[ChangeHash]>,
        message: Option<&str>,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, EditError>,
    ) -> Result<Changed<T>, ChangeError> {
        self.may_be_changed()?;
        let (changed, pending) = self.held.edit(self.content().await?, at, message, edit)?;
        if let Some(pending) = pending {
            durable(pending).await?;
        }
        Ok(changed)
    }

    /// Not while somebody else is known to edit it alone, and its type requires that.
    fn may_be_changed(&self) -> Result<(), ChangeError> {
        self.kept_off().map_or(Ok(()), |holder| Err(ChangeError::Leased(holder)))
    }

    /// Takes over changes that were made elsewhere, in causal order; so urgent is it to send them.
    pub(super) async fn adopt(&self, changes: Vec<Bytes>, level: Level) -> Result<(), ChangeError> {
        self.held.adopts();
        if self.held.put_in(changes.iter().cloned().map(Incoming::Change)) {
            let task = Task::TakeIn(Arc::clone(&self.held));
            self.peer.0.tasks.send(task).map_err(|_| ChangeError::Closed)?;
        }
        let mut pending = Vec::with_capacity(changes.len());
        for change in changes {
            pending.push(self.held.store(change, level)?);
        }
        for pending in pending {
            durable(pending).await?;
        }
        // After all that was asked before it, so the changes are in the document.
        let (done, in_it) = oneshot::channel();
        let call = Task::Call(Box::new(move || {
            // Whoever asked may have stopped waiting.
            let _ = done.send(());
        }));
        self.peer.0.tasks.send(call).map_err(|_| ChangeError::Closed)?;
        in_it.await.map_err(|_| ChangeError::Closed)
    }

    /// The content; waits while the document is read anew.
    async fn content(&self) -> Result<Ready<'_>, ChangeError> {
        let mut phase = self.held.phase();
        loop {
            // Without a wait where there is nothing to wait for: a future of tokio may ask to be
            // polled again even then, and callers count on the edit being made at the first poll.
            let is_coming = matches!(*phase.borrow_and_update(), Phase::Loading | Phase::Ready);
            match self.held.content() {
                // It was there, and is read anew since; or the other way round.
                Err(_) if is_coming => {}
                found => return found,
            }
            tokio::select! {
                changed = phase.changed() => changed.map_err(|_| ChangeError::Closed)?,
                () = self.peer.0.engine.closed() => return Err(ChangeError::Closed),
            }
        }
    }
}

/// Waits until a change is on disk.
async fn durable(pending: Pending) -> Result<(), ChangeError> {
    Ok(pending.await.map_err(|_| ChangeError::Closed)??)
}

/// Events of a document, from [`Document::watch`].
#[derive(Debug)]
pub struct Watcher {
    events: broadcast::Receiver<DocumentEvent>,
    /// A document that is watched stays open.
    _document: Document,
}

impl Watcher {
    /// The next event; waits for it.
    pub async fn next(&mut self) -> DocumentEvent {
        match self.events.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(missed)) => DocumentEvent::Lagged { missed },
            // The sender lives in the document that we hold.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
