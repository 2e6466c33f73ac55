//! The local-first replica that programs embed.
//!
//! A [`Peer`] keeps documents in a directory. Edits work on the local copy at once, are on disk
//! when the call returns, and go to the relays whenever one can be reached.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use automerge::{ROOT, ReadDoc as _, transaction::Transactable as _};
//!
//! let peer = concord::peer::Peer::open("notes.db")?;
//! peer.connect("ws://localhost:3030")?;
//! let note = peer.create().await?;
//! note.change(|tx| Ok(tx.put(ROOT, "title", "Shopping")?)).await?;
//! println!("{}: {:?}", note.url(), note.read(|doc| doc.get(ROOT, "title").map(|_| ()))?);
//! peer.flush(std::time::Duration::from_secs(5)).await?;
//! peer.close().await?;
//! # Ok(())
//! # }
//! ```

mod applier;
mod backoff;
mod base;
mod between;
mod blobs;
mod builder;
mod call;
mod collections;
mod confirm;
mod conflicts;
mod content;
mod core;
mod crowd;
mod deletion;
mod dialer;
mod document;
mod edit;
mod engine;
mod entity;
mod error;
mod event;
mod giving;
mod heartbeat;
mod held;
mod history;
mod hold;
mod home;
mod index;
mod indexer;
mod indexing;
mod latency;
mod lease;
mod leases;
mod left_out;
mod letters;
mod link;
mod links;
mod listen;
mod listing;
mod live;
mod notes;
mod options;
mod outbox;
mod overview;
mod passes;
mod presence;
mod pulse;
mod purge;
mod reads;
mod registry;
mod relays;
mod replacing;
mod schedule;
mod schema;
mod sessions;
#[cfg(feature = "simulation")]
pub mod simulation;
mod socket;
mod status;
mod suggest;
mod traffic;
mod transport;
mod triage;
mod unconfirmed;
mod undo;
mod urgency;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
        mpsc::Sender as TaskSender,
    },
    time::Duration,
};

use automerge::{ActorId, Automerge};
use bytes::Bytes;
use concord_protocol::{AutomergeUrl, ChangeHash, DocumentId, SessionId, SessionInfo};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

use self::{
    applier::Task,
    collections::Collections,
    content::Incoming,
    core::Command,
    engine::DOCUMENTS_PAGE,
    held::Phase,
    home::{Surroundings as _, System},
    indexer::Flush,
    indexing::Indexing,
    links::Links,
    overview::Board,
    registry::Registry,
    schema::Schemas,
};
pub use self::{
    blobs::{
        ATTACHMENT_GRACE_MS, AttachmentCounts, AttachmentError, AttachmentReader, Prefetched,
        StoredAttachment, SweptAttachments,
    },
    builder::PeerBuilder,
    call::{Answer, CALL_MS, CallError, Request},
    collections::{
        COLLECTIONS_MAX, Collection, CollectionError, CollectionId, CollectionStatus, DEPTH_MAX,
        Evict, Evicted,
    },
    conflicts::{ConflictEvent, ConflictWatcher, ReviewError},
    deletion::DeleteError,
    dialer::Breaker,
    document::{Changed, Document, Watcher},
    entity::EntityError,
    error::{ChangeError, ConfirmError, EditError, FindError, PeerError},
    event::{ChangeInfo, DocumentEvent},
    history::PastError,
    index::{Cursor, Filter, PAGE, PAGE_MAX, Query, ReadError, Row, Sort, Test, TypeCount},
    lease::{Lease, LeaseError, LeaseHolder, LeaseOptions, LeaseStanding, Session},
    letters::{DeadLetter, Discarded, LetterError, LetterState},
    live::{LiveEvent, LiveQuery},
    options::RelayOptions,
    outbox::{OutboxCounts, OutboxEntry, OutboxState},
    overview::{Acknowledged, Overview, OverviewWatcher, Standing},
    passes::{PASSES_MAX, Pass, PassAverage, Passes},
    presence::{
        GONE_MS, HEARTBEAT_MS, PRESENT_MAX, Present, SHOWN_BYTES_MAX, Showing, TooMuchShown,
    },
    purge::{PurgeError, Refusal},
    reads::{Behind, Got, Page, PutError},
    schema::{KeptSchema, SchemaStatus},
    status::{RelayState, RelayStatus, Status},
    transport::{ByteStream, Dialling, RelayUrl, Tcp, Transport},
    triage::TriageError,
};
use crate::{
    entity::Level,
    replica::Event,
    store::{Store, StoreError, Tenant},
};

/// Milliseconds that [`Peer::find`] waits for relays.
pub const FIND_MS: u64 = 10_000;

/// A local-first replica of documents. Cheap to clone; all clones are the same peer.
#[derive(Clone)]
pub struct Peer(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    store: Arc<dyn Store>,
    registry: Arc<Registry>,
    engine: mpsc::UnboundedSender<Command>,
    /// From which the engine counts the time.
    started: Instant,
    tasks: TaskSender<Task>,
    links: Links,
    session: SessionId,
    who: SessionInfo,
    next_broadcast: AtomicU64,
    schemas: Arc<Schemas>,
    outbox: Arc<Board>,
    /// One document is replaced at a time.
    replacing: tokio::sync::Mutex<()>,
    next_call: Arc<AtomicU32>,
    author: Option<String>,
    index: Arc<Indexing>,
    flushes: mpsc::Sender<Flush>,
    attachments: Arc<blobs::Desk>,
    collections: Arc<Collections>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.collections.end();
        self.links.end();
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("directory", &self.0.directory).finish_non_exhaustive()
    }
}

impl Peer {
    /// Opens the replica in a directory, or makes one, with the defaults of [`PeerBuilder`].
    ///
    /// # Errors
    /// [`PeerError`] outside a tokio runtime, and for a directory that another process has open
    /// or that cannot be read.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, PeerError> {
        PeerBuilder::new(directory).open()
    }

    /// For more than the defaults.
    pub fn builder(directory: impl AsRef<Path>) -> PeerBuilder {
        PeerBuilder::new(directory)
    }

    /// Makes a document. It is on disk, empty, when this returns.
    ///
    /// # Errors
    /// [`ChangeError`] if it is not on disk.
    pub async fn create(&self) -> Result<Document, ChangeError> {
        self.schema_is_known().await;
        let document = self.fresh();
        document.commit_empty(None).await?;
        Ok(document)
    }

    /// Stores an Automerge document (the bytes of `save()`) as a new one, with its history.
    ///
    /// # Errors
    /// [`PeerError::NotADocument`], or [`PeerError::Change`] if it breaks a limit or is not on
    /// disk.
    pub async fn import(&self, bytes: Bytes) -> Result<Document, PeerError> {
        self.schema_is_known().await;
        let (done, loaded) = oneshot::channel();
        let call = move || {
            // Nothing is written with this instance.
            let actor = ActorId::from([0; 16]);
            let changes = content::load(actor, vec![Incoming::Snapshot(bytes)])
                .and_then(|doc| content::all_changes(&doc));
            // Whoever asked may have stopped waiting.
            let _ = done.send(changes);
        };
        self.0.tasks.send(Task::Call(Box::new(call))).map_err(|_| PeerError::Closed)?;
        let changes = loaded
            .await
            .map_err(|_| PeerError::Closed)?
            .map_err(|error| PeerError::NotADocument(error.to_string()))?;
        if changes.is_empty() {
            return Ok(self.create().await?);
        }
        let document = self.fresh();
        document.adopt(changes, Level::BACKGROUND).await?;
        Ok(document)
    }

    /// The document of this id or `automerge:` URL: at once if it is stored here, else from a
    /// relay, for which it waits up to [`FIND_MS`].
    ///
    /// # Errors
    /// [`FindError`] says why there is none.
    pub async fn find(&self, id: &str) -> Result<Document, FindError> {
        self.find_within(id, Duration::from_millis(FIND_MS)).await
    }

    /// As [`Peer::find`], with a deadline.
    ///
    /// # Errors
    /// [`FindError`] says why there is none.
    pub async fn find_within(&self, id: &str, within: Duration) -> Result<Document, FindError> {
        let AutomergeUrl(id) = id.parse()?;
        let deadline = Instant::now() + within;
        // A disk that does not answer has no document either.
        let _ = timeout_at(deadline, self.schema_is_known()).await;
        let document = self.hold(&id);
        let mut phase = document.held().phase();
        let mut status = self.status();
        loop {
            let now = phase.borrow_and_update().clone();
            let (online, reason) = standing(&status.borrow_and_update());
            match now {
                Phase::Ready => return Ok(document),
                Phase::Broken(reason) | Phase::Failed(reason) => {
                    return Err(FindError::Broken { document: id, reason });
                }
                Phase::Unavailable if online => return Err(FindError::Unavailable(id)),
                Phase::Absent | Phase::Unavailable if !self.0.links.may_come_online() => {
                    return Err(FindError::Offline { document: id, reason });
                }
                Phase::Loading | Phase::Absent | Phase::Unavailable => {}
            }
            let change = async {
                tokio::select! {
                    changed = phase.changed() => changed.is_ok(),
                    changed = status.changed() => changed.is_ok(),
                    () = self.0.engine.closed() => false,
                }
            };
            match timeout_at(deadline, change).await {
                Ok(true) => {}
                Ok(false) => return Err(FindError::Closed),
                Err(_) if online => return Err(FindError::TimedOut(id)),
                Err(_) => {
                    return Err(FindError::Offline { document: id, reason });
                }
            }
        }
    }

    /// Ids of the documents that are stored here, in order.
    ///
    /// # Errors
    /// [`PeerError::Store`] if the disk cannot be read.
    pub async fn documents(&self) -> Result<Vec<DocumentId>, PeerError> {
        let mut documents: Vec<DocumentId> = Vec::new();
        loop {
            let after = documents.last().cloned();
            let page = self.0.store.documents(Tenant::default(), after, DOCUMENTS_PAGE);
            let page = page.await.map_err(|source| self.0.store_error(source))?;
            if page.is_empty() {
                return Ok(documents);
            }
            documents.extend(page);
        }
    }

    /// Keeps in step with a relay (`ws://` or `wss://`) from now on, whether it can be reached now
    /// or not: after all that are configured already, of which it may take the place. A relay that
    /// is configured already is tried at once if it is not connected, whatever it asked for.
    ///
    /// # Errors
    /// [`PeerError::RelayUrl`] for what is no such URL.
    pub fn connect(&self, url: &str) -> Result<(), PeerError> {
        let url = RelayUrl::parse(url)?;
        self.0.links.connect(url, RelayOptions::PRIORITY);
        Ok(())
    }

    /// Where the peer stands with its relays, now and from now on.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.links.status()
    }

    /// The same of each relay, the preferred first: told when something changes, and when a
    /// relay answers a ping.
    pub fn relays(&self) -> watch::Receiver<Vec<RelayStatus>> {
        self.0.links.relays()
    }

    /// What relays have not yet confirmed to have on disk, by document. Waits for this disk the first
    /// time.
    ///
    /// # Errors
    /// [`PeerError::Closed`].
    pub async fn outbox(&self) -> Result<Vec<OutboxEntry>, PeerError> {
        self.outbox_is_known().await?;
        self.list_outbox().await
    }

    /// How many documents are in the outbox, now and from now on.
    pub fn outbox_counts(&self) -> watch::Receiver<OutboxCounts> {
        self.0.outbox.counts.subscribe()
    }

    /// Waits until the outbox is empty: a relay has on disk all that was edited and attached here, in
    /// this run and before. Opens no document.
    ///
    /// # Errors
    /// [`ConfirmError`] if that is not so in time, and at once if it will not be: what was refused is
    /// for somebody to decide.
    pub async fn flush(&self, within: Duration) -> Result<(), ConfirmError> {
        let deadline = Instant::now() + within;
        let (documents, attachments) =
            tokio::join!(confirm::outbox(self, deadline), confirm::attachments(self, deadline));
        documents.and(attachments)
    }

    /// Waits until every stored document is in step with a relay: it has all that is here, and all
    /// that it told of is here.
    ///
    /// # Errors
    /// [`ConfirmError`] if that is not so in time.
    pub async fn in_step(&self, within: Duration) -> Result<(), ConfirmError> {
        self.in_step_with(within, |_, _| ()).await
    }

    /// As [`Peer::in_step`]; `progress` is told how many of how many documents are.
    ///
    /// # Errors
    /// [`ConfirmError`] if not all are in time.
    pub async fn in_step_with(
        &self,
        within: Duration,
        progress: impl FnMut(usize, usize),
    ) -> Result<(), ConfirmError> {
        confirm::all(self, Instant::now() + within, progress).await
    }

    /// Gives relays what they have not confirmed, now: edits that rest ([`PeerBuilder::debounce`]), and
    /// documents that were given before without an answer. Waits for nothing; see [`Peer::flush`].
    pub fn sync_now(&self) {
        // A closed peer has nothing to give.
        let _ = self.0.engine.send(Command::SyncNow);
    }

    /// The program can be seen again, after a time in the background in which its timers may have
    /// stood still: relays that are not connected are dialled at once, whatever they asked for, and it goes on
    /// as with [`Peer::sync_now`].
    pub fn visible(&self) {
        self.0.links.ask();
        self.sync_now();
    }

    /// Ends the connections, waits for what is being written, and gives the directory free.
    /// Documents of this peer take no more changes.
    ///
    /// # Errors
    /// [`PeerError::Closed`] if it was closed before.
    pub async fn close(&self) -> Result<(), PeerError> {
        self.0.collections.end();
        self.index_is_written().await;
        let (done, closed) = oneshot::channel();
        self.0.links.close();
        self.0.engine.send(Command::Close(done)).map_err(|_| PeerError::Closed)?;
        let closed = closed.await.map_err(|_| PeerError::Closed);
        // It ends behind its answer; whoever asks anything then is to hear that it has.
        self.0.engine.closed().await;
        self.0.links.end();
        closed
    }

    /// Waits until it is known what was in the outbox at the start.
    async fn outbox_is_known(&self) -> Result<(), PeerError> {
        let mut counts = self.outbox_counts();
        tokio::select! {
            // The sender lives as long as we do.
            _ = counts.wait_for(|counts| counts.is_complete) => Ok(()),
            () = self.0.engine.closed() => Err(PeerError::Closed),
        }
    }

    /// The outbox after all that was done before.
    async fn list_outbox(&self) -> Result<Vec<OutboxEntry>, PeerError> {
        let (asked, list) = oneshot::channel();
        self.0.engine.send(Command::Outbox(asked)).map_err(|_| PeerError::Closed)?;
        list.await.map_err(|_| PeerError::Closed)
    }

    /// A handle of the document, whether or not there is anything in it yet.
    fn hold(&self, id: &DocumentId) -> Document {
        Document::new(self.clone(), self.0.registry.hold(id))
    }

    fn fresh(&self) -> Document {
        let id = DocumentId::from_random(System.name());
        Document::new(self.clone(), self.0.registry.create(&id))
    }
}

impl Inner {
    fn store_error(&self, source: StoreError) -> PeerError {
        PeerError::Store { directory: self.directory.clone(), source }
    }

    fn broadcast(&self, document: DocumentId, data: Bytes) {
        let count = self.next_broadcast.fetch_add(1, Ordering::Relaxed);
        let session = self.session.clone();
        let event = Event::Broadcast { document, count, session, data };
        // Presence of a closed peer reaches nobody.
        let _ = self.engine.send(Command::Event(event));
    }
}

/// Whether a relay is connected, and if not, why not.
fn standing(status: &Status) -> (bool, String) {
    match status {
        Status::Online { relay } => (true, format!("connected to {relay}")),
        Status::Connecting => (false, "still connecting".to_owned()),
        Status::Offline { reason, .. } => (false, reason.clone()),
    }
}

/// A lock whose holders leave nothing half done: poison is of no consequence.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The changes of a document that nothing builds on yet.
fn heads(doc: &Automerge) -> Vec<ChangeHash> {
    doc.get_heads().iter().map(|head| ChangeHash(head.0)).collect()
}

/// Tells only of what is another value.
fn replace<T: PartialEq>(shown: &watch::Sender<T>, value: T) {
    shown.send_if_modified(|before| {
        let is_other = *before != value;
        *before = value;
        is_other
    });
}

/// Eight random bytes. Where the system gives none (it is out of entropy at boot, say), the
/// hasher's own seed, which the standard library draws once from the same source.
fn random_number() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => RandomState::new().hash_one(std::time::SystemTime::now()),
    }
}
