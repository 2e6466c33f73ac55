//! The catalogue: which documents of which type changed, in the order in which they did, so that
//! whoever was away hears of just those, and whoever is there hears at once.
//!
//! `feed` decides, over `table`; `row` is what is kept of it, `types` how a document's type is known
//! without opening it, `http` what is served. Here is the task that writes checkpoints, and what
//! shards and the reviewer tell.

mod feed;
mod http;
mod row;
mod table;
mod types;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use concord_protocol::{ChangeHash, DocumentId};
use futures_util::FutureExt as _;
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use self::{
    feed::{Feed, News},
    table::Standing,
    types::Types,
};
use crate::{
    entity::Schema,
    replica::RowWrite,
    store::{BoxFuture, DocumentKey, Store, StoreError, Tenant},
};

pub(super) use self::http::routes;

/// How often numbers are written: a document that changes all the time costs two small rows so
/// often.
const CHECKPOINT: Duration = Duration::from_secs(5);
/// Documents whose numbers are not written, at which they are at once: they take memory.
const UNKEPT_MAX: usize = 10_000;
/// Rows of one write.
const ROWS_MAX: usize = 500;
/// Documents that are asked of the store at once.
const SWEEP_PAGE: usize = 1_000;
/// Before what the store had no room for is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// See the module.
pub(super) struct Catalogue {
    store: Arc<dyn Store>,
    types: Types,
    feed: Mutex<Feed>,
    /// Counts up with whatever is told.
    changes: watch::Sender<u64>,
    /// There is much to be written.
    hurry: Notify,
}

/// The mark of a document on its way to the disk.
pub(super) enum Marking {
    /// It is there, or was asked for before.
    Done,
    /// It will be.
    UnderWay(BoxFuture<Result<(), StoreError>>),
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Catalogue").finish_non_exhaustive()
    }
}

impl Catalogue {
    /// Of a run of a relay with a name that no other has.
    pub(super) fn new(store: Arc<dyn Store>, schema: Option<&Schema>, run: u64) -> Self {
        Self {
            store,
            types: schema.map(Types::of).unwrap_or_default(),
            feed: Mutex::new(Feed::new(run)),
            changes: watch::Sender::new(0),
            hurry: Notify::new(),
        }
    }

    /// The lock; what it guards is sound after a panic: each change is one call.
    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, once it is known what was kept.
    fn ready(&self) -> Option<MutexGuard<'_, Feed>> {
        Some(self.feed()).filter(|feed| feed.is_ready())
    }

    fn write(&self, rows: Vec<RowWrite>) -> BoxFuture<Result<(), StoreError>> {
        self.store.write(DocumentKey::catalogue(), rows)
    }

    /// These rows of a document are given to the store after this call, which changes it.
    ///
    /// # Errors
    /// [`StoreError`] if the store takes no mark: then nothing of the document may be given to it.
    pub(super) fn writing(
        &self,
        document: &DocumentId,
        rows: &[RowWrite],
    ) -> Result<Marking, StoreError> {
        let of = self.types.begun_in(rows);
        let mut feed = self.feed();
        let Some(mark) = feed.writing(document, of) else { return Ok(Marking::Done) };
        // With the lock held: a checkpoint that clears the mark comes before it or after it, on
        // the way to the disk too.
        let mut marking = self.write(vec![mark]);
        match (&mut marking).now_or_never() {
            None => Ok(Marking::UnderWay(marking)),
            Some(Ok(())) => Ok(Marking::Done),
            Some(Err(error)) => {
                feed.not_written(document);
                Err(error)
            }
        }
    }

    /// Waits until the mark of a document is on disk, before anybody is told that what was written
    /// after it is. The store may have had no room for the mark, and some later.
    ///
    /// # Errors
    /// [`StoreError`] where it will never be.
    pub(super) async fn marked(
        &self,
        document: &DocumentId,
        marking: Marking,
    ) -> Result<(), StoreError> {
        let Marking::UnderWay(mut marking) = marking else { return Ok(()) };
        loop {
            match marking.await {
                Err(StoreError::Busy { .. } | StoreError::Full { .. }) => {}
                done => return done,
            }
            sleep(AGAIN).await;
            let mut feed = self.feed();
            feed.not_marked(document);
            let Some(mark) = feed.mark_again(document) else { return Ok(()) };
            marking = self.write(vec![mark]);
        }
    }

    /// What was given to the store of a document is on disk, or may be. Its heads are those on disk;
    /// `holds` says whether a change is known to be in it.
    pub(super) fn written(
        &self,
        document: &DocumentId,
        heads: Option<u64>,
        is_purged: bool,
        holds: impl Fn(&ChangeHash) -> bool,
    ) {
        let mut feed = self.feed();
        let type_name = if feed.is_untyped(document) {
            self.types.found(holds).map(str::to_owned)
        } else {
            None
        };
        let standing = is_purged.then_some(Standing::Purged);
        let heads = heads.unwrap_or_default();
        feed.written(document, News { heads, type_name, standing });
        self.tell(feed);
    }

    /// Nothing of what was given to the store of a document is on disk.
    pub(super) fn not_written(&self, document: &DocumentId) {
        self.feed().not_written(document);
    }

    /// Somebody opened a document, and it is of this type. Waits for the disk if that is news.
    pub(super) async fn looked_at(&self, document: &DocumentId, of: &str, is_deleted: bool) {
        // Before it is known what was kept, all would be news: cursors outlive a restart.
        let mut changes = self.changes.subscribe();
        while !self.feed().is_ready() {
            // We have the sender.
            let _ = changes.changed().await;
        }
        let marking = {
            let mut feed = self.feed();
            let Some(mark) = feed.looking(document, of, is_deleted) else { return };
            self.write(vec![mark])
        };
        if let Err(error) = self.marked(document, Marking::UnderWay(marking)).await {
            tracing::warn!(%document, %error, "the type of a document is not on disk");
            return self.feed().not_written(document);
        }
        let mut feed = self.feed();
        feed.looked_at(document, of, is_deleted);
        self.tell(feed);
    }

    fn tell(&self, feed: MutexGuard<'_, Feed>) {
        if feed.unkept() >= UNKEPT_MAX {
            self.hurry.notify_one();
        }
        drop(feed);
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// How many documents it knows.
    pub(super) fn documents(&self) -> usize {
        self.feed().len()
    }

    /// Writes the numbers of documents that are at rest.
    pub(super) async fn checkpoint(&self) {
        loop {
            let (documents, writing) = {
                let mut feed = self.feed();
                let (documents, mut rows): (Vec<_>, Vec<_>) =
                    feed.checkpoint(ROWS_MAX).into_iter().unzip();
                rows.extend(feed.raised());
                if rows.is_empty() {
                    return;
                }
                (documents, self.write(rows))
            };
            if let Err(error) = writing.await {
                // What is on disk is marked: after a crash it is told of again.
                tracing::warn!(%error, "numbers of the catalogue are not on disk");
                return self.feed().not_kept(documents);
            }
        }
    }

    /// Reads what is kept.
    async fn recall(&self) {
        let stored = loop {
            match self.store.load(DocumentKey::catalogue()).await {
                Ok(stored) => break stored,
                Err(error) => {
                    tracing::error!(%error, "the catalogue cannot be read");
                    sleep(CHECKPOINT).await;
                }
            }
        };
        let recalled = row::recall(stored);
        let writing = {
            let mut feed = self.feed();
            let root = feed.recalled(recalled);
            self.write(root.into_iter().collect())
        };
        if let Err(error) = writing.await {
            tracing::warn!(%error, "cursors of this run are not known after it");
        }
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Takes in the documents that were there before the catalogue.
    async fn sweep(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.store.documents(Tenant::default(), after, SWEEP_PAGE).await?;
            let Some(last) = page.last().cloned() else { break };
            let found = self.feed().stored(&page);
            if found > 0 {
                self.checkpoint().await;
                self.changes.send_modify(|count| *count = count.wrapping_add(1));
            }
            after = Some(last);
        }
        self.checkpoint().await;
        let writing = {
            let root = self.feed().complete();
            self.write(root.into_iter().collect())
        };
        writing.await
    }
}

/// Keeps the catalogue on disk, for as long as the relay runs.
pub(super) async fn run(catalogue: Arc<Catalogue>) {
    catalogue.recall().await;
    let is_complete = catalogue.feed().is_complete();
    if !is_complete && let Err(error) = catalogue.sweep().await {
        tracing::warn!(%error, "cannot list the documents: those that are not changed stay unknown \
                                to the catalogue until the next start");
    }
    loop {
        catalogue.checkpoint().await;
        let _ = timeout(CHECKPOINT, catalogue.hurry.notified()).await;
        // Those that are not at rest stay however often it is tried.
        sleep(AGAIN).await;
    }
}
