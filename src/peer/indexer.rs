//! The task that keeps the index: it looks at documents that changed, a little later and a few at a
//! time, and has their entries written. Edits do not wait for it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
    time::Duration,
};

use concord_protocol::DocumentId;
use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    blobs::Lines,
    core::Command,
    engine::DOCUMENTS_PAGE,
    held::{Held, Phase},
    index::{entry::Entry, project::Projector, row, table::Table},
    indexing::{Indexing, Progress},
    locked,
    registry::Registry,
    replace,
    schema::Schemas,
};
use crate::{
    entity::Attachment,
    replica::RowWrite,
    review,
    store::{DocumentKey, Store, Tenant},
};

/// How long documents go on changing before they are looked at, if nobody asks.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How long entries gather before they are written.
const GATHER: Duration = Duration::from_secs(1);
/// Entries that are written at once.
const ROWS_MAX: usize = 500;
/// Documents that are held at once.
const HELD_MAX: usize = 8;
/// How long a document may take to open.
const OPEN_MAX: Duration = Duration::from_secs(10);
/// When a document is looked at again that is not at rest, and how often. What follows its write
/// wakes it sooner: this is for what nobody tells of.
const AGAIN: Duration = Duration::from_secs(1);
const TRIES_MAX: u8 = 4;

/// How long closing waits for documents to be at rest, and how often it looks.
const REST_MAX: Duration = Duration::from_millis(500);
const REST: Duration = Duration::from_millis(10);

/// Asks for all that gathered to be written, before the peer closes, and answers when it is on disk.
pub(super) type Flush = oneshot::Sender<()>;

#[derive(Clone)]
pub(super) struct Indexer {
    pub(super) index: Arc<Indexing>,
    pub(super) registry: Arc<Registry>,
    pub(super) store: Arc<dyn Store>,
    pub(super) schemas: Arc<Schemas>,
    /// Told of the attachments that documents name, if those are fetched ahead.
    pub(super) lines: Arc<Lines>,
}

/// What the task has in hand.
#[derive(Default)]
struct Work {
    /// Documents that have no entry yet, or one by another schema.
    backlog: VecDeque<DocumentId>,
    total: usize,
    /// The root row says that all documents have a row.
    is_complete: bool,
    /// Entries to be written, and the number of the last write when they were found true.
    rows: BTreeMap<DocumentId, (Entry, u64)>,
    /// Documents whose entry in memory is not what is on disk.
    unkept: BTreeSet<DocumentId>,
    /// Documents that are not at rest, and how often that was seen.
    restless: BTreeMap<DocumentId, u8>,
    write_at: Option<Instant>,
    again_at: Option<Instant>,
}

impl Indexer {
    /// Runs until it is asked for a [`Flush`], or nobody can ask any more.
    pub(super) async fn run(self, mut flushes: mpsc::Receiver<Flush>) {
        let mut work = Work::default();
        tokio::select! {
            () = self.begin(&mut work) => {}
            flush = flushes.recv() => match flush {
                // Closed before it began: what is kept is as it was.
                Some(flush) => {
                    // Whoever asked may have stopped waiting.
                    let _ = flush.send(());
                    return;
                }
                None => return,
            },
        }
        let mut schema = self.schemas.subscribe();
        loop {
            let idle = work.backlog.is_empty();
            let write_at = work.write_at;
            let again_at = work.again_at;
            let later = |at: Option<Instant>| sleep_until(at.unwrap_or_else(Instant::now));
            tokio::select! {
                biased;
                flush = flushes.recv() => {
                    if let Some(flush) = flush {
                        self.finish(&mut work).await;
                        // Whoever asked may have stopped waiting.
                        let _ = flush.send(());
                    }
                    // The peer closes, or nobody has it any more.
                    return;
                }
                changed = schema.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    schema.borrow_and_update();
                    self.read_by(&mut work);
                }
                () = later(write_at), if write_at.is_some() => self.write(&mut work).await,
                () = later(again_at), if again_at.is_some() => self.again(&mut work),
                () = self.index.wake.notified() => {
                    tokio::select! {
                        () = sleep(DEBOUNCE) => {}
                        () = self.index.hurry.notified() => {}
                    }
                    self.look(&mut work).await;
                }
                () = std::future::ready(()), if !idle => self.build(&mut work).await,
            }
        }
    }

    /// Reads what is kept, and finds out what is not.
    async fn begin(&self, work: &mut Work) {
        // The schema that is kept is the one that entries were read by, most likely.
        self.schemas.is_known().await;
        let recalled = match self.store.load(DocumentKey::index()).await {
            Ok(stored) => {
                let recall = move || {
                    let mut recalled = row::recall(stored);
                    let kept = Table::of(std::mem::take(&mut recalled.entries));
                    (recalled, kept)
                };
                // A whole table takes a while, for which tasks of the program are not to wait.
                spawn_blocking(recall).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        let (recalled, kept) = recalled.unwrap_or_else(|error| {
            tracing::warn!(%error, "the index cannot be read, and is made anew");
            (row::Recalled::default(), Table::default())
        });
        let marked: BTreeSet<DocumentId> = recalled.marked.into_iter().collect();
        self.index.change(|table| {
            *table = kept;
            table.len() > 0
        });
        work.is_complete = recalled.is_complete;
        let mut backlog = marked;
        if !work.is_complete {
            let missing = self.missing(&backlog).await;
            if missing.is_empty() {
                // All have a row or a mark, and whatever comes has.
                self.complete(work).await;
            }
            backlog.extend(missing);
        }
        // A mark that is left goes with the entry that follows.
        work.unkept.extend(backlog.iter().cloned());
        work.backlog.extend(backlog);
        self.read_by(work);
    }

    /// Stored documents without an entry or a mark.
    async fn missing(&self, marked: &BTreeSet<DocumentId>) -> Vec<DocumentId> {
        let mut missing = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.documents(Tenant::default(), after, DOCUMENTS_PAGE).await;
            let page = page.unwrap_or_else(|error| {
                tracing::warn!(%error, "documents cannot be listed for the index");
                Vec::new()
            });
            after = page.last().cloned();
            let unknown = |id: &&DocumentId| {
                !marked.contains(*id) && self.index.read(|table| table.get(id).is_none())
            };
            missing.extend(page.iter().filter(unknown).cloned());
            if after.is_none() {
                return missing;
            }
        }
    }

    /// Reads by the schema in force from now on: what another said otherwise is read anew.
    fn read_by(&self, work: &mut Work) {
        let projector = Projector::new(self.schemas.in_force());
        let stale = self.index.read(|table| {
            let stale = table.entries().filter(|entry| !projector.is_current(entry));
            stale.filter_map(|entry| entry.id().parse().ok()).collect::<Vec<DocumentId>>()
        });
        self.index.set_projector(projector);
        let waiting: BTreeSet<&DocumentId> = work.backlog.iter().collect();
        let new: Vec<_> = stale.into_iter().filter(|id| !waiting.contains(id)).collect();
        work.backlog.extend(new);
        work.total = self.index.read(Table::len).max(work.backlog.len());
        self.tell(work);
    }

    fn tell(&self, work: &Work) {
        let progress =
            Progress { is_recalled: true, backlog: work.backlog.len(), total: work.total };
        replace(&self.index.progress, progress);
    }

    /// Looks at some of what has no entry yet.
    async fn build(&self, work: &mut Work) {
        let some: Vec<DocumentId> = (0..HELD_MAX).map_while(|_| work.backlog.pop_front()).collect();
        self.look_at(work, some).await;
        self.tell(work);
        if work.backlog.is_empty() {
            self.write(work).await;
        }
    }

    /// Looks at all that changed.
    async fn look(&self, work: &mut Work) {
        let (asked, documents) = {
            let mut marks = self.index.marks();
            (marks.asked(), marks.take())
        };
        let documents: Vec<DocumentId> = documents.into_iter().collect();
        for some in documents.chunks(HELD_MAX) {
            self.look_at(work, some.to_vec()).await;
        }
        self.index.done.send_replace(asked);
    }

    /// Looks at all that changed until it is at rest, but not for long, and has it written: what was
    /// edited just now may be on disk while that is yet to be told.
    async fn finish(&self, work: &mut Work) {
        let end = Instant::now() + REST_MAX;
        loop {
            self.look(work).await;
            if work.restless.is_empty() || Instant::now() >= end {
                break;
            }
            // Woken, or not: it is looked at again.
            let _ = timeout(REST, self.index.wake.notified()).await;
            work.restless.keys().for_each(|id| self.index.touch(id));
        }
        self.write(work).await;
    }

    /// Wakes what is not at rest, so often and no more: its mark stays then.
    fn again(&self, work: &mut Work) {
        work.again_at = None;
        work.restless.retain(|_, tries| *tries < TRIES_MAX);
        for (document, tries) in &mut work.restless {
            *tries += 1;
            if *tries == TRIES_MAX && !self.index.marks().is_leaving(document) {
                // What is on disk is told anew.
                self.registry.home().tell(Command::Open(document.clone()));
            }
            self.index.touch(document);
        }
        if !work.restless.is_empty() {
            work.again_at = Some(Instant::now() + AGAIN);
        }
    }

    async fn look_at(&self, work: &mut Work, documents: Vec<DocumentId>) {
        // To open what was purged would be to ask relays for it. With the marks held: what is purged
        // from then on is in hand, and stays as it is until it is let go.
        let (mut gone, mut held) = (Vec::new(), Vec::new());
        {
            let mut marks = self.index.marks();
            for id in documents {
                if marks.is_gone(&id) {
                    gone.push(id);
                } else {
                    held.push(self.registry.hold(&id));
                }
            }
        }
        for id in &gone {
            self.forget(work, id);
            let is_back = |held: Arc<Held>| !matches!(*held.phase().borrow(), Phase::Failed(_));
            let is_going = self.index.marks().is_going(id);
            if !is_going && self.registry.find(id).is_some_and(is_back) {
                // Somebody opened it since.
                self.index.touch(id);
            }
        }
        let phases = join_all(held.iter().map(|held| timeout(OPEN_MAX, opened(held)))).await;
        let mut ready = Vec::new();
        for (held, phase) in held.into_iter().zip(phases) {
            let is_gone = self.index.marks().is_gone(&held.id);
            match phase {
                _ if is_gone => self.forget(work, &held.id),
                Ok(Phase::Ready) => ready.push(held),
                Ok(Phase::Absent | Phase::Unavailable) => self.forget(work, &held.id),
                Ok(Phase::Broken(_) | Phase::Failed(_)) => self.unreadable(&held.id),
                Ok(Phase::Loading) | Err(_) => {
                    self.unreadable(&held.id);
                    Self::later(work, &held.id);
                }
            }
        }
        for (held, outcome) in self.entries(ready).await {
            let is_gone = self.index.marks().is_gone(&held.id);
            match outcome {
                _ if is_gone => self.forget(work, &held.id),
                Ok(Some(entry)) => self.take(work, &held, entry),
                Ok(None) => Self::later(work, &held.id),
                Err(_) => self.unreadable(&held.id),
            }
        }
        if work.rows.len() >= ROWS_MAX {
            self.write(work).await;
        }
    }

    fn unreadable(&self, id: &DocumentId) {
        locked(&self.index.unreadable).insert(id.clone());
    }

    fn later(work: &mut Work, id: &DocumentId) {
        work.restless.entry(id.clone()).or_default();
        work.again_at.get_or_insert_with(|| Instant::now() + AGAIN);
    }

    /// Reads documents. To go through a long history takes a while, for which tasks of the program
    /// are not to wait.
    async fn entries(
        &self,
        ready: Vec<Arc<Held>>,
    ) -> Vec<(Arc<Held>, thread::Result<Option<Entry>>)> {
        if ready.is_empty() {
            return Vec::new();
        }
        let this = self.clone();
        let read = move |held: Arc<Held>| {
            // What automerge panics on is a document of others: it is not to end the index.
            let entry = catch_unwind(AssertUnwindSafe(|| this.entry(&held)));
            (held, entry)
        };
        let all = spawn_blocking(move || ready.into_iter().map(read).collect());
        // It does not panic; where the program ends meanwhile, so does the index.
        all.await.unwrap_or_default()
    }

    /// Takes the entry of a document.
    fn take(&self, work: &mut Work, held: &Held, entry: Entry) {
        let id = &held.id;
        locked(&self.index.unreadable).remove(id);
        if self.index.change(|table| table.put(entry.clone())) {
            work.unkept.insert(id.clone());
        }
        let marks = self.index.marks();
        if !marks.is_marked(id) && !work.unkept.contains(id) {
            work.restless.remove(id);
            return;
        }
        let durable = held.durable();
        let is_true = |since, heads| heads == entry.heads() && marks.is_quiet(id, since);
        if let Some((since, _)) = durable.filter(|(since, heads)| is_true(*since, *heads)) {
            work.restless.remove(id);
            work.rows.insert(id.clone(), (entry, since));
            work.write_at.get_or_insert_with(|| Instant::now() + GATHER);
        } else {
            drop(marks);
            Self::later(work, id);
        }
    }

    /// The entry of a document as it is, unless it is not there at the moment.
    fn entry(&self, held: &Held) -> Option<Entry> {
        let projector = self.index.projector();
        let known = self.index.read(|table| table.get(&held.id).cloned());
        // In the order of all who want both.
        let mut follower = locked(&held.follower);
        let mut ready = held.ready()?;
        if self.lines.is_ahead() {
            self.lines.named(Attachment::all_in(ready.doc()));
        }
        if let Some(known) = known.filter(|known| projector.is_entry_of(known, ready.doc())) {
            return Some(known);
        }
        // Taken out while it is used: a panic leaves a new one, which knows that it knows nothing.
        let mut following = std::mem::take(&mut *follower);
        // Edits do not wait while a long history is gone through the first time.
        let news = following.news(ready.doc());
        drop(ready);
        let all = following.take_in(news);
        let mut ready = held.ready()?;
        let (doc, schema) = (ready.doc(), projector.schema());
        let all = all.and_then(|()| following.take_in(following.news(doc)));
        let conflicts = match all {
            Ok(()) => review::open(doc, following.detector(), &held.id, schema.map(|s| &**s)).len(),
            // Whoever looks at its conflicts is told why.
            Err(_) => 0,
        };
        let entry = projector.read(&held.id, doc, conflicts);
        *follower = following;
        Some(entry)
    }

    /// Nothing is there of a document.
    fn forget(&self, work: &mut Work, id: &DocumentId) {
        locked(&self.index.unreadable).remove(id);
        work.rows.remove(id);
        work.restless.remove(id);
        let was_there = self.index.change(|table| table.remove(id));
        let mut marks = self.index.marks();
        let is_kept = was_there || work.unkept.contains(id) || marks.is_marked(id);
        if is_kept && marks.is_quiet(id, marks.now()) {
            // In its order with the marks of what may come next: under the same lock.
            drop(self.store.write(DocumentKey::index(), vec![row::none(id)]));
            marks.clean(id);
            work.unkept.remove(id);
        }
    }

    /// Has the entries written that gathered and are still true.
    async fn write(&self, work: &mut Work) {
        work.write_at = None;
        while !work.rows.is_empty() {
            let mut rows: Vec<RowWrite> = Vec::with_capacity(ROWS_MAX);
            let writing = {
                // The marks of what is edited meanwhile are asked for after this.
                let mut marks = self.index.marks();
                while rows.len() < ROWS_MAX
                    && let Some((id, (entry, since))) = work.rows.pop_first()
                {
                    if marks.is_quiet(&id, since) {
                        rows.extend(row::entry(&entry));
                        marks.clean(&id);
                        work.unkept.remove(&id);
                    }
                }
                self.store.write(DocumentKey::index(), rows)
            };
            if let Err(error) = writing.await {
                // What is on disk is marked, or of another schema: it is read again.
                tracing::warn!(%error, "entries of the index are not on disk");
                return;
            }
        }
        let is_whole = work.backlog.is_empty() && work.unkept.is_empty();
        if !work.is_complete && is_whole && locked(&self.index.unreadable).is_empty() {
            self.complete(work).await;
        }
    }

    /// From now on a start need not look for documents without a row.
    async fn complete(&self, work: &mut Work) {
        let root: Vec<RowWrite> = row::complete().into_iter().collect();
        work.is_complete = self.store.write(DocumentKey::index(), root).await.is_ok();
    }
}

/// Waits until it is known what there is of a document.
pub(super) async fn opened(held: &Held) -> Phase {
    let mut phase = held.phase();
    loop {
        let now = phase.borrow_and_update().clone();
        if now != Phase::Loading || phase.changed().await.is_err() {
            return now;
        }
    }
}
