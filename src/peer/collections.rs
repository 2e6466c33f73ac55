//! Collections: documents that are wanted here without being named one by one. All of a type, those
//! that a query asks for, or an entity and what it refers to; fetched into this store and kept in
//! step like everything that is stored here.
//!
//! What is decided is in `book` (what is subscribed, and how far it is) and `reach` (what an entity
//! refers to), without I/O; `spec` is what a collection is of, and `feed` reads what relays say. The
//! tasks are here and in `follow`; `fetch` brings one document, or lets it go.

mod book;
mod feed;
mod fetch;
mod follow;
mod reach;
mod spec;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use concord_protocol::{Answer, Call, DocumentId};
use futures_util::{StreamExt as _, stream};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot, watch},
    task::AbortHandle,
    time::{sleep, timeout},
};

pub use self::{
    book::COLLECTIONS_MAX,
    spec::{Collection, CollectionId, DEPTH_MAX},
};
use self::{
    book::{Book, Removed},
    fetch::Kept,
    spec::Of,
};
use super::{
    CallError, ConfirmError, Peer, ReadError,
    core::Command,
    crowd::Crowd,
    home::Home,
    indexing::Indexing,
    listen::{EVENTS_MAX, Partner},
    locked,
    overview::Board,
    registry::Registry,
    replace,
    schema::Schemas,
    standing,
};
use crate::{
    replica::{ConnectionId, RowWrite},
    store::{DocumentKey, Store, StoreError},
};

/// Documents that all collections hold at once, while they are fetched.
const HELD_MAX: usize = 16;
/// How long a relay may take to answer with a page.
const CALL_MAX: Duration = Duration::from_secs(30);
/// Before the disk is asked again for the collections.
const AGAIN: Duration = Duration::from_secs(5);

/// A collection is not subscribed to, or not let go.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectionError {
    /// The query does not fit its type, or the peer keeps no index.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is none of this name.
    #[error("no collection {0} here: list those that are")]
    Unknown(CollectionId),
    /// That is no name of one.
    #[error("{0:?} is no collection's id: those have eight hexadecimal digits")]
    NotAnId(String),
    /// A peer has only so many.
    #[error("a peer has at most {COLLECTIONS_MAX} collections: let one go first")]
    TooMany,
    /// The disk failed.
    #[error("the collection is not on disk: {0}")]
    Store(#[from] StoreError),
    /// The peer was closed.
    #[error("the peer is closed")]
    Closed,
}

/// What becomes of the documents of a collection that is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evict {
    /// They stay, and stay in step.
    Keep,
    /// Those that no other collection wants go from this store, if nothing of them is open and a
    /// relay that is connected has said that it has all of them. Of a query, all of its type.
    Confirmed,
}

/// What became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Evicted {
    /// Documents that are gone from this store.
    pub evicted: usize,
    /// Those that another collection wants.
    pub wanted: usize,
    /// Those that somebody has open.
    pub open: usize,
    /// Those of which no relay has said that it has all, or of which something waits.
    pub unconfirmed: usize,
}

/// How far a collection is.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CollectionStatus {
    /// Its name.
    pub id: CollectionId,
    /// What it is of.
    pub collection: Collection,
    /// Documents that relays told of since the start: all of them the first time, and later what
    /// changed. Of an entity, what belongs to it.
    pub listed: usize,
    /// How many of those are dealt with.
    pub done: usize,
    /// Documents of which all or more was fetched since the start.
    pub fetched: usize,
    /// Documents that were fetched, and that the query does not ask for.
    pub not_asked: usize,
    /// Documents that could not be fetched yet. They are tried again.
    pub left: usize,
    /// Why not, of one of them.
    pub left_reason: Option<String>,
    /// How many there are in all, if a relay said so: of a query, those of its type.
    pub total: Option<usize>,
    /// When a relay said that there is no more, in milliseconds since 1970; nothing while there is
    /// more, or no relay.
    pub up_to_date_since_ms: Option<u64>,
    /// Why it does not go on.
    pub problem: Option<String>,
}

impl CollectionStatus {
    fn new(collection: Collection) -> Self {
        Self {
            id: collection.id(),
            collection,
            listed: 0,
            done: 0,
            fetched: 0,
            not_asked: 0,
            left: 0,
            left_reason: None,
            total: None,
            up_to_date_since_ms: None,
            problem: None,
        }
    }

    /// Whether all that the relay has of it is here, but for what could not be fetched.
    pub fn is_up_to_date(&self) -> bool {
        self.up_to_date_since_ms.is_some()
    }
}

impl Peer {
    /// Has documents fetched and kept in step from now on, whether a relay can be reached now or not,
    /// also after a restart. What was subscribed to before goes on as it is.
    ///
    /// A relay says which documents of a type changed (`/v1/catalogue`); each is fetched once it is
    /// told of, some at a time, and none stays in memory for it. Where another relay takes over, what
    /// is here is compared with what that one has.
    ///
    /// # Errors
    /// [`CollectionError`].
    pub async fn subscribe(&self, collection: Collection) -> Result<CollectionId, CollectionError> {
        if !self.0.index.is_on() {
            return Err(ReadError::NoIndex.into());
        }
        if let Of::Query(query) = &collection.0 {
            self.settled(query).await?.map_or(Ok(()), |of| of.fits(query))?;
        }
        self.0.collections.subscribe(collection).await
    }

    /// Lets a collection go. Gives what became of its documents.
    ///
    /// # Errors
    /// [`CollectionError`].
    pub async fn unsubscribe(
        &self,
        id: CollectionId,
        evict: Evict,
    ) -> Result<Evicted, CollectionError> {
        if evict == Evict::Confirmed {
            self.settle().await?;
        }
        self.0.collections.unsubscribe(id, evict).await
    }

    /// The collections and how far they are, now and from now on, by their names. Waits for this
    /// disk the first time.
    ///
    /// # Errors
    /// [`CollectionError::Closed`].
    pub async fn collections(
        &self,
    ) -> Result<watch::Receiver<Vec<CollectionStatus>>, CollectionError> {
        self.0.collections.are_known().await?;
        Ok(self.0.collections.statuses.subscribe())
    }

    /// Waits until all collections are up to date with a relay.
    ///
    /// # Errors
    /// [`ConfirmError`] if that is not so in time.
    pub async fn collections_up_to_date(&self, within: Duration) -> Result<(), ConfirmError> {
        let closed = |_| ConfirmError::Closed;
        let waiting = async {
            let mut statuses = self.collections().await.map_err(closed)?;
            let all = statuses.wait_for(|all| all.iter().all(CollectionStatus::is_up_to_date));
            tokio::select! {
                all = all => drop(all.map_err(|_| ConfirmError::Closed)?),
                () = self.0.engine.closed() => return Err(ConfirmError::Closed),
            }
            Ok(())
        };
        if let Ok(done) = timeout(within, waiting).await {
            return done;
        }
        let statuses = self.0.collections.statuses.borrow();
        let behind = |status: &&CollectionStatus| !status.is_up_to_date();
        let pending = statuses.iter().filter(behind).map(|it| it.listed - it.done).sum();
        let total = statuses.iter().map(|it| it.listed).sum();
        let problem = statuses.iter().filter(behind).find_map(|it| it.problem.clone());
        let (_, reason) = standing(&self.status().borrow());
        Err(ConfirmError::TimedOut { pending, total, reason: problem.unwrap_or(reason) })
    }
}

/// What the tasks share.
pub(super) struct Collections {
    registry: Arc<Registry>,
    store: Arc<dyn Store>,
    schemas: Arc<Schemas>,
    index: Arc<Indexing>,
    board: Arc<Board>,
    next_call: Arc<AtomicU32>,
    /// Documents of entities at most, in all collections of those: relays are told of no more of
    /// what nobody has open, and only they tell what becomes of it.
    members_max: usize,
    book: Mutex<Book>,
    tasks: Mutex<BTreeMap<Option<CollectionId>, AbortHandle>>,
    runtime: Mutex<Option<Handle>>,
    slots: Semaphore,
    statuses: watch::Sender<Vec<CollectionStatus>>,
    /// Whether it is known what is on disk, or why not.
    known: watch::Sender<Option<Result<(), StoreError>>>,
    /// Counts up, of each type, with what relays tell of it.
    nudges: watch::Sender<Nudges>,
}

/// See [`Collections::nudges`].
#[derive(Debug, Default)]
struct Nudges {
    /// For all.
    all: u64,
    types: BTreeMap<String, u64>,
}

impl Nudges {
    fn of(&self, type_name: &str) -> (u64, u64) {
        (self.all, self.types.get(type_name).copied().unwrap_or_default())
    }
}

/// Parts of a peer.
type Parts<'p> =
    (&'p Arc<Registry>, &'p Arc<dyn Store>, &'p Arc<Schemas>, &'p Arc<Indexing>, &'p Arc<Board>);

impl Collections {
    /// Of a peer with these parts, whose relays take so many documents of one connection. Begins with
    /// what is kept on disk.
    pub(super) fn start(
        runtime: &Handle,
        (registry, store, schemas, index, board): Parts<'_>,
        next_call: Arc<AtomicU32>,
        documents_per_connection: usize,
    ) -> Arc<Self> {
        let this = Arc::new(Self {
            registry: Arc::clone(registry),
            store: Arc::clone(store),
            schemas: Arc::clone(schemas),
            index: Arc::clone(index),
            board: Arc::clone(board),
            next_call,
            members_max: Crowd::of_stored(documents_per_connection),
            book: Mutex::default(),
            tasks: Mutex::default(),
            runtime: Mutex::new(Some(runtime.clone())),
            slots: Semaphore::new(HELD_MAX),
            statuses: watch::Sender::new(Vec::new()),
            known: watch::Sender::new(None),
            nudges: watch::Sender::new(Nudges::default()),
        });
        if this.index.is_on() {
            let begun = Arc::clone(&this);
            this.spawn(None, async move { begun.run().await });
        } else {
            this.known.send_replace(Some(Ok(())));
        }
        this
    }

    /// Ends all that goes on.
    pub(super) fn end(&self) {
        *locked(&self.runtime) = None;
        for task in std::mem::take(&mut *locked(&self.tasks)).values() {
            task.abort();
        }
    }

    fn spawn(&self, of: Option<CollectionId>, work: impl Future<Output = ()> + Send + 'static) {
        // With the lock held, so that none begins behind the end.
        let runtime = locked(&self.runtime);
        if let Some(runtime) = &*runtime {
            let task = runtime.spawn(work).abort_handle();
            if let Some(before) = locked(&self.tasks).insert(of, task) {
                before.abort();
            }
        }
    }

    async fn run(self: Arc<Self>) {
        let stored = loop {
            match self.store.load(DocumentKey::collections()).await {
                Ok(stored) => break stored,
                Err(error) => {
                    tracing::error!(%error, "the collections cannot be read");
                    self.known.send_replace(Some(Err(error)));
                    sleep(AGAIN).await;
                }
            }
        };
        let unread = self.book().recalled(stored);
        if unread > 0 {
            tracing::error!(unread, "collections that cannot be read are not followed");
        }
        let ids = self.book().ids();
        for id in ids {
            self.begin(id);
        }
        self.tell();
        self.known.send_replace(Some(Ok(())));
        follow::listen(&self).await;
    }

    /// Follows a collection.
    fn begin(self: &Arc<Self>, id: CollectionId) {
        let Some(collection) = self.book().get(id).cloned() else { return };
        let this = Arc::clone(self);
        self.spawn(Some(id), async move {
            match collection.0 {
                Of::Type(name) => follow::follow(&this, id, &name, None).await,
                Of::Query(query) => follow::follow(&this, id, &query.of, Some(&query)).await,
                Of::Entity { document, depth, .. } => {
                    reach::follow(&this, id, document, depth).await;
                }
            }
        });
    }

    async fn are_known(&self) -> Result<(), CollectionError> {
        let mut known = self.known.subscribe();
        loop {
            if let Some(done) = known.borrow_and_update().clone() {
                return Ok(done?);
            }
            if self.home().is_closed() {
                return Err(CollectionError::Closed);
            }
            // Looked at again, for a peer that closes does not say so here.
            let _ = timeout(AGAIN, known.changed()).await;
        }
    }

    async fn subscribe(
        self: &Arc<Self>,
        collection: Collection,
    ) -> Result<CollectionId, CollectionError> {
        self.are_known().await?;
        let id = collection.id();
        let row = self.book().add(collection).map_err(|()| CollectionError::TooMany)?;
        let Some(row) = row else { return Ok(id) };
        if let Err(error) = self.write(row).await {
            self.book().remove(id);
            return Err(error.into());
        }
        self.begin(id);
        self.nudges.send_modify(|nudges| nudges.all += 1);
        self.tell();
        Ok(id)
    }

    async fn unsubscribe(
        &self,
        id: CollectionId,
        evict: Evict,
    ) -> Result<Evicted, CollectionError> {
        self.are_known().await?;
        let (removed, row) = self.book().remove(id).ok_or(CollectionError::Unknown(id))?;
        if let Some(task) = locked(&self.tasks).remove(&Some(id)) {
            task.abort();
        }
        self.prefer();
        self.tell();
        self.write(row).await?;
        let mut counts = Evicted::default();
        if evict == Evict::Confirmed {
            let let_go = async |document| self.let_go(&document).await;
            let mut gone =
                stream::iter(self.members(&removed)).map(let_go).buffer_unordered(HELD_MAX);
            while let Some(kept) = gone.next().await {
                *match kept {
                    Ok(()) => &mut counts.evicted,
                    Err(Kept::Wanted) => &mut counts.wanted,
                    Err(Kept::Open) => &mut counts.open,
                    Err(Kept::Unconfirmed) => &mut counts.unconfirmed,
                } += 1;
            }
        }
        Ok(counts)
    }

    /// What is here of a collection that was taken out.
    fn members(&self, removed: &Removed) -> Vec<DocumentId> {
        if removed.is_of_entity() {
            let is_here = |id: &&DocumentId| self.index.read(|table| table.get(id).is_some());
            return removed.members.iter().flatten().filter(is_here).cloned().collect();
        }
        let of = removed.of.type_name().unwrap_or_default();
        self.index.read(|table| {
            let of_type = table.entries().filter(|entry| entry.type_name() == of);
            of_type.filter_map(|entry| entry.id().parse().ok()).collect()
        })
    }

    fn home(&self) -> &Home {
        self.registry.home()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        locked(&self.book)
    }

    /// Has relays told first of what belongs to entities: no catalogue tells of that.
    fn prefer(&self) {
        let members = self.book().members();
        replace(&self.board.preferred, members);
    }

    /// Tells how far all are.
    fn tell(&self) {
        let statuses = self.book().statuses();
        replace(&self.statuses, statuses);
    }

    async fn write(&self, row: RowWrite) -> Result<(), StoreError> {
        self.store.write(DocumentKey::collections(), vec![row]).await
    }

    fn now_ms() -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits for a relay that answers calls.
    async fn partner(&self, partners: &mut watch::Receiver<Option<Partner>>) -> Partner {
        loop {
            if let Some(partner) = partners.borrow_and_update().clone() {
                return partner;
            }
            if partners.changed().await.is_err() {
                // The board lives as long as this.
                std::future::pending::<()>().await;
            }
        }
    }

    /// A request, and what hangs up when it is dropped.
    fn request(&self, path: String) -> (Call, HangUp<'_>) {
        let id = self.next_call.fetch_add(1, Ordering::Relaxed);
        let call = Call { id, path, method: "GET".to_owned(), ..Call::default() };
        (call, HangUp { id, home: self.home() })
    }

    /// Asks a relay.
    async fn call(&self, asked: ConnectionId, path: String) -> Result<Answer, CallError> {
        let (call, _hang_up) = self.request(path);
        let (done, answered) = oneshot::channel();
        self.home().tell(Command::CallOn(asked, call, done));
        let answer = timeout(CALL_MAX, answered).await.map_err(|_| CallError::TimedOut)?;
        answer.map_err(|_| CallError::Closed)?
    }

    /// Has a relay tell of events for as long as what is given back is held.
    fn events(&self, asked: ConnectionId, path: String) -> (mpsc::Receiver<String>, HangUp<'_>) {
        let (call, hang_up) = self.request(path);
        let (heard, hears) = mpsc::channel(EVENTS_MAX);
        self.home().tell(Command::Listen(asked, call, heard));
        (hears, hang_up)
    }
}

/// Whoever stops waiting does not leave the relay at work.
struct HangUp<'h> {
    id: u32,
    home: &'h Home,
}

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        // Of what was answered nothing is known any more.
        self.home.tell(Command::HangUp(self.id));
    }
}
