//! Which attachments the documents of a peer name, and what is removed for want of that.

use std::{
    collections::BTreeSet,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use concord_protocol::{BlobHash, DocumentId};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{AttachmentError, courier::Desk};
use crate::{
    blobs::{Swept, now_ms},
    entity::Attachment,
    peer::{
        Peer, core::Command, engine::DOCUMENTS_PAGE, held::Phase, indexer::opened,
        registry::Registry,
    },
    store::{Store, Tenant},
};

/// How long a document may take to open.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// What was removed of the attachments that no document names, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SweptAttachments {
    /// Which, with their lengths.
    pub removed: Vec<(BlobHash, u64)>,
    /// No document names so many others either, which are kept for a while still.
    pub waiting: usize,
    /// Why nothing was removed, where it is not known what documents name.
    pub reason: Option<String>,
}

/// Looks through the documents of a peer.
pub(in crate::peer) struct Sweeper {
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    commands: mpsc::WeakUnboundedSender<Command>,
}

impl fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sweeper").finish_non_exhaustive()
    }
}

impl Sweeper {
    pub(in crate::peer) fn new(
        store: Arc<dyn Store>,
        registry: Arc<Registry>,
        commands: &mpsc::UnboundedSender<Command>,
    ) -> Self {
        Self { store, registry, commands: commands.downgrade() }
    }

    /// All attachments that documents name; else why that is not known.
    pub(super) async fn named(&self) -> Result<BTreeSet<BlobHash>, String> {
        let (mut named, mut after) = (BTreeSet::new(), None);
        loop {
            let page = self.store.documents(Tenant::default(), after, DOCUMENTS_PAGE).await;
            let page = page.map_err(|error| error.to_string())?;
            let Some(last) = page.last().cloned() else { return Ok(named) };
            for document in page {
                named.extend(self.named_by(&document).await?);
            }
            after = Some(last);
        }
    }

    async fn named_by(&self, document: &DocumentId) -> Result<BTreeSet<BlobHash>, String> {
        let held = self.registry.hold(document);
        match timeout(OPEN_MAX, opened(&held)).await {
            Ok(Phase::Ready) => {
                let mut ready = held.ready().ok_or_else(|| format!("{document} is being read"))?;
                // It is a document of others: what automerge panics on is not to end the task.
                catch_unwind(AssertUnwindSafe(|| Attachment::all_in(ready.doc())))
                    .map_err(|_| format!("document {document} cannot be looked through"))
            }
            // It was purged a moment ago.
            Ok(Phase::Absent | Phase::Unavailable) => Ok(BTreeSet::new()),
            _ => Err(format!("document {document} cannot be read, and may name some")),
        }
    }

    /// Changes that were taken out of documents may be put back, and name what nothing else does.
    async fn no_letters(&self) -> Result<(), String> {
        let closed = || "the peer is closed".to_owned();
        let (asked, letters) = oneshot::channel();
        {
            let commands = self.commands.upgrade().ok_or_else(closed)?;
            commands.send(Command::Letters(asked)).map_err(|_| closed())?;
        }
        let letters = letters.await.map_err(|_| closed())?;
        if letters.iter().any(|(_, row)| !row.letters.is_empty()) {
            return Err("there are discarded dead letters, which may name some".to_owned());
        }
        Ok(())
    }
}

impl Desk {
    /// Removes what no document named for so long; as a trial only says what that would be.
    pub(in crate::peer) async fn sweep(
        &self,
        grace: Duration,
        is_trial: bool,
    ) -> Result<SweptAttachments, AttachmentError> {
        let seen_ms = now_ms();
        let (named, reason) = if self.shelf.list().await?.is_empty() {
            return Ok(SweptAttachments::default());
        } else {
            let looked = async {
                self.sweeper.no_letters().await?;
                self.sweeper.named().await
            };
            match looked.await {
                Ok(named) => (Some(named), None),
                Err(reason) => (None, Some(reason)),
            }
        };
        let swept = self.shelf.sweep(named.as_ref(), seen_ms, grace, is_trial).await?;
        let Swept { removed, waiting } = swept;
        Ok(SweptAttachments { removed, waiting, reason })
    }
}

impl Peer {
    /// Removes the attachments that no document here has named for so long, also what history alone
    /// still names; with `is_trial` only says which they are. A peer that runs does so by itself, with
    /// [`ATTACHMENT_GRACE_MS`](super::ATTACHMENT_GRACE_MS). It begins to count when it is first seen
    /// that none names them: the first call of an attachment's life removes none that is new.
    ///
    /// # Errors
    /// [`AttachmentError::Store`].
    pub async fn remove_unused_attachments(
        &self,
        grace: Duration,
        is_trial: bool,
    ) -> Result<SweptAttachments, AttachmentError> {
        self.0.attachments.sweep(grace, is_trial).await
    }

    /// Removes an attachment from here, whether documents name it or not. Where a relay has it, it can
    /// be fetched again. Says whether there was one.
    ///
    /// # Errors
    /// [`AttachmentError::Store`].
    pub async fn remove_attachment(&self, hash: BlobHash) -> Result<bool, AttachmentError> {
        let removed = self.0.attachments.shelf.remove(&hash).await?;
        self.0.attachments.count().await;
        Ok(removed)
    }
}
