//! The queue of conflicts: documents that change are looked at by a worker, soon after and at
//! leisure, and what is found is held in memory, to be listed and decided over HTTP.
//!
//! All of it is found anew from the documents after a restart: nothing about conflicts is stored
//! that is not in them.

mod acts;
mod bulk;
mod bulks;
mod decide;
mod expiry;
mod http;
mod index;
mod outcomes;
mod past;
mod queue;
mod standings;
mod triage;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use concord_protocol::{BlobHash, ChangeHash, DocumentId, Limits, guard};
use tokio::{
    sync::{Notify, broadcast},
    time::{sleep, timeout},
};

use self::{
    bulks::Bulks,
    expiry::Expiries,
    index::{Change, Index},
    past::Past,
    queue::{DELAY, Queue},
    standings::Standings,
};
use super::{
    blobs::References,
    catalogue::Catalogue,
    clock::Clock,
    hub::{Health, Hub},
    shard::Shards,
};
use crate::{
    entity::TENANT,
    replica::{JobError, JobOutput},
    review::{
        ConflictId, Facts, Summary,
        between::{Apart, Between, Group},
        desk::{Answer, Asked, Question},
        triage::{State as Triaged, review_document_id},
    },
    store::{Store, StoreError, Tenant},
    worker::{Materialiser, WorkerJob},
};

pub(super) use self::{
    http::routes,
    outcomes::{How, false_ratio},
};

/// Looking at documents may take one part in so many of one worker's time.
const SHARE: u32 = 4;
/// The longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a document may take to come from storage.
const READ_MAX: Duration = Duration::from_secs(30);
/// Before a document that could not be looked at for the moment is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Before it is done what the schema says of references to what is deleted: what else refers to it,
/// and is just coming, has a say.
const RULE_DELAY: Duration = Duration::from_secs(1);
/// How often what is long over is forgotten.
const FORGET_EVERY: Duration = Duration::from_hours(1);
/// Documents that are asked of the store at once when a relay starts.
const SWEEP_PAGE: usize = 1_000;
/// What became of conflicts, kept for each of those who watch.
const TOLD: usize = 1_024;

/// See the module.
pub(super) struct Reviewer {
    store: Arc<dyn Store>,
    materialiser: Arc<dyn Materialiser>,
    /// The text of the schema file in force.
    schema: Option<String>,
    clock: Clock,
    catalogue: Arc<Catalogue>,
    /// Where it is said who looks after which conflicts.
    triage_document: DocumentId,
    state: Mutex<State>,
    changed: Notify,
    told: broadcast::Sender<Arc<Change>>,
    /// One decision at a time: who comes second sees the first.
    deciding: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    index: Index,
    standings: Standings,
    bulks: Bulks,
    past: Past,
    between: Between,
    queue: Queue,
    /// When what the schema decides between documents may be done.
    ruled: BTreeMap<Group, Instant>,
    /// Which attachments documents name.
    references: References,
    /// When deleted documents are purged.
    expiries: Expiries,
    /// Every document that was there at the start is in the queue, or was looked at.
    is_swept: bool,
    /// When the last of them came into the queue.
    swept_at: Option<Instant>,
    /// All of them were looked at.
    is_looked_through: bool,
    looks: u64,
    failures: u64,
    /// Conflicts that policies decided, by policy.
    settled: BTreeMap<String, u64>,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ReviewStatus {
    /// Open conflicts, by code.
    pub(super) open: Vec<(String, usize)>,
    /// The same, by who looks after them.
    pub(super) states: BTreeMap<Triaged, usize>,
    /// Open ones that are not listed.
    pub(super) unlisted: usize,
    /// Documents that wait to be looked at.
    pub(super) waiting: usize,
    /// Looks so far, and those that failed.
    pub(super) looks: u64,
    pub(super) failures: u64,
    /// Conflicts that policies decided, by policy.
    pub(super) settled: BTreeMap<String, u64>,
    /// Conflicts that ended, by code and how.
    pub(super) ended: Vec<(String, How, u64)>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("the document cannot be read: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Job(#[from] JobError),
    #[error("the answer cannot be read: {0}")]
    Nonsense(#[from] serde_json::Error),
}

impl State {
    /// What a look at a document found. Gives what is new, and what the schema decides of what
    /// this document refers to.
    fn note(
        &mut self,
        document: &DocumentId,
        open: Vec<Summary>,
        more: usize,
        facts: Option<Facts>,
    ) -> (Vec<Change>, Vec<ConflictId>) {
        let (now, mut ruled) = (Instant::now(), Vec::new());
        let mut changes = self.index.update(document, open, more);
        for change in &changes {
            // It was said before it was known here what it is about.
            if let Change::Opened { conflict: Summary { id, .. } } = change
                && self.standings.of(id).is_some_and(|standing| standing.dismissed)
            {
                self.index.dismissed(id, true, false);
            }
        }
        for (group, apart) in self.between.update(document, facts) {
            changes.extend(self.index.between(&group, apart.as_ref()));
            let ruled_first = apart.filter(|apart| apart.rule.is_some());
            let Some((apart, first)) = ruled_first
                .and_then(|apart| Some((apart.view.id, apart.documents.first()?.clone())))
            else {
                self.ruled.remove(&group);
                continue;
            };
            let due = *self.ruled.entry(group).or_insert(now + RULE_DELAY);
            if first == *document && self.is_swept && due <= now {
                ruled.push(apart);
            } else {
                // Many may refer to one that is deleted: each has its turn.
                let at = if self.is_swept { due.max(now + DELAY) } else { now + AGAIN };
                self.queue.unknown(&first, at);
            }
        }
        (changes, ruled)
    }

    /// How it stands now with a conflict that is open.
    fn triaged(&self, id: &ConflictId, now_s: i64) -> Option<Change> {
        let (document, _) = self.index.find(id).filter(|_| self.index.is_open(id))?;
        Some(Change::Triaged {
            id: *id,
            document: document.as_str().to_owned(),
            state: self.standings.state(id, now_s),
            triage: self.standings.of(id).cloned(),
        })
    }

    /// Whether a conflict stands dismissed may be another than before.
    fn note_dismissal(&mut self, id: &ConflictId, is_news: bool) {
        let is_dismissed = self.standings.of(id).is_some_and(|standing| standing.dismissed);
        self.index.dismissed(id, is_dismissed, is_news);
    }

    /// A conflict between documents that is open.
    fn apart(&self, id: &ConflictId) -> Option<Apart> {
        self.between.find(id).filter(|_| self.index.is_open(id))
    }
}

impl fmt::Debug for Reviewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reviewer").finish_non_exhaustive()
    }
}

impl Reviewer {
    pub(super) fn new(
        store: Arc<dyn Store>,
        materialiser: Arc<dyn Materialiser>,
        schema: Option<String>,
        clock: Clock,
        catalogue: Arc<Catalogue>,
    ) -> Self {
        Self {
            store,
            materialiser,
            schema,
            clock,
            catalogue,
            triage_document: review_document_id(TENANT),
            state: Mutex::default(),
            changed: Notify::new(),
            told: broadcast::Sender::new(TOLD),
            deciding: tokio::sync::Mutex::default(),
        }
    }

    /// The lock; what it guards is sound after a panic: the index can only be behind.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something of this document is on disk that was not there before.
    pub(super) fn changed(&self, document: &DocumentId) {
        self.state().queue.changed(document, Instant::now());
        self.changed.notify_one();
    }

    /// All attachments that documents name; `None` as long as that is not known of all documents.
    pub(super) fn attachments(&self) -> Option<BTreeSet<BlobHash>> {
        let state = self.state();
        let is_known = self.schema.is_some()
            && state.is_looked_through
            && state.queue.len() == 0
            && state.index.failures(1).is_empty();
        is_known.then(|| state.references.all())
    }

    pub(super) fn status(&self) -> ReviewStatus {
        let state = self.state();
        let codes = state.index.codes().iter();
        ReviewStatus {
            open: codes.map(|(code, count)| (code.to_string(), *count)).collect(),
            states: state.standings.count(&state.index, self.clock.now_s()),
            unlisted: state.index.unlisted(),
            waiting: state.queue.len(),
            looks: state.looks,
            failures: state.failures,
            settled: state.settled.clone(),
            ended: (state.index.outcomes.counts())
                .map(|(code, how, count)| (code.to_owned(), how, count))
                .collect(),
        }
    }

    /// Asks something about a document.
    async fn ask(
        &self,
        shards: &Shards,
        document: &DocumentId,
        question: Question,
    ) -> Result<Answer, NoAnswer> {
        let reading = timeout(READ_MAX, shards.read(document));
        let base = match reading.await {
            Ok(Some(read)) => read.map_err(NoAnswer::Unreadable)?,
            Ok(None) => return Err(NoAnswer::Unreadable("the relay is shutting down".to_owned())),
            Err(_) => return Err(NoAnswer::Unreadable("the store takes too long".to_owned())),
        };
        // With a schema, also what one person wrote alone may be wrong. There is nothing in what was
        // purged.
        let is_fine = base.is_empty() || self.schema.is_none() && is_linear(&base);
        if question == Question::List && is_fine {
            return Ok(Answer::Listed {
                open: Vec::new(),
                more: 0,
                facts: None,
                settled: Vec::new(),
                bulks: Vec::new(),
                decisions: None,
                expires: None,
                attachments: Vec::new(),
            });
        }
        let (document, schema) = (document.as_str().to_owned(), self.schema.clone());
        let asked = Asked { document, schema, question };
        let asked = Bytes::from(serde_json::to_vec(&asked)?);
        match self.materialiser.run(WorkerJob::Review { base, asked }).await? {
            JobOutput::Reviewed(answer) => Ok(serde_json::from_slice(&answer)?),
            _ => Err(JobError::Base("another job was answered".to_owned()).into()),
        }
    }

    /// Looks at a document, and notes what is open in it. Gives which decisions were made in it, if
    /// those are others than before: what was chosen is to be found out.
    async fn look(&self, hub: &Hub, document: &DocumentId) -> Option<String> {
        let shards = &hub.shards;
        if *document == self.triage_document {
            self.look_at_triage(hub).await;
        }
        let answer = self.ask(shards, document, Question::List).await;
        self.state().looks += 1;
        match answer {
            Ok(Answer::Listed {
                open,
                more,
                facts,
                settled,
                bulks,
                decisions,
                expires,
                attachments,
            }) => {
                self.state().bulks.update(document, bulks);
                let named = attachments.iter().filter_map(|hash| hash.parse().ok()).collect();
                self.state().references.set(document, named);
                if let Some(Facts { type_name, deleted, .. }) = &facts {
                    let is_deleted = deleted.is_some();
                    self.catalogue.looked_at(document, type_name, is_deleted).await;
                }
                let (changes, ruled) = self.state().note(document, open, more, facts);
                for change in changes {
                    self.tell(change);
                }
                for id in ruled {
                    match self.carry_out_rule(hub, id).await {
                        Ok(rule) => {
                            self.count_settled(rule);
                            if rule.is_some() {
                                self.state().index.ruled(id);
                            }
                        }
                        Err(error) => self.failed(document, &error.to_string()),
                    }
                }
                for (policy, code, change) in settled {
                    self.settle(shards, document, &policy, &code, change).await;
                }
                let news = self.state().past.news(document, decisions);
                self.consider_purge(hub, document, expires).await;
                news
            }
            Ok(_) => None,
            Err(error) => {
                self.failed(document, &error.to_string());
                if matches!(
                    error,
                    NoAnswer::Job(JobError::Unavailable(_)) | NoAnswer::Unreadable(_)
                ) {
                    self.state().queue.unknown(document, Instant::now() + AGAIN);
                }
                None
            }
        }
    }

    /// Finds out what was chosen in a document, whose decisions are these.
    async fn look_back(&self, hub: &Hub, document: &DocumentId, decisions: String) {
        match self.ask(&hub.shards, document, Question::Chosen).await {
            Ok(Answer::Chosen(chosen)) => self.state().past.update(document, decisions, chosen),
            Ok(_) => {}
            // It is an example less, and no conflict is missed for it.
            Err(error) => tracing::debug!(%document, %error, "cannot look back"),
        }
    }

    fn failed(&self, document: &DocumentId, reason: &str) {
        tracing::warn!(%document, reason, "cannot look for conflicts in a document");
        let mut state = self.state();
        state.failures += 1;
        state.index.failed(document, reason.to_owned());
    }

    /// Stores what a policy decided.
    async fn settle(
        &self,
        shards: &Shards,
        document: &DocumentId,
        policy: &str,
        code: &str,
        change: Vec<u8>,
    ) {
        match shards.change(document, change.into()).await {
            Some(Ok(())) => {
                self.count_settled(Some(policy));
                self.state().index.outcomes.settled(code);
            }
            Some(Err(error)) => {
                let reason = format!("what the policy {policy} decided was not stored: {error}");
                self.failed(document, &reason);
            }
            None => {}
        }
    }

    fn count_settled(&self, policy: Option<&str>) {
        if let Some(policy) = policy {
            *self.state().settled.entry(policy.to_owned()).or_default() += 1;
        }
    }

    fn tell(&self, change: Change) {
        if let Change::Opened { conflict: Summary { id, document, code, .. } } = &change {
            tracing::debug!(%id, document, code, "a conflict");
        }
        // Nobody watches: then nobody needs it.
        let _ = self.told.send(Arc::new(change));
    }

    /// Puts the documents of the store into the queue, a page whenever less than one waits.
    async fn sweep(&self) -> Result<(), StoreError> {
        let (mut after, mut has_notes) = (None, false);
        loop {
            let page = self.store.documents(Tenant::default(), after, SWEEP_PAGE).await?;
            let Some(last) = page.last().cloned() else { break };
            has_notes |= page.contains(&self.triage_document);
            {
                let mut state = self.state();
                let now = Instant::now();
                for document in &page {
                    state.queue.unknown(document, now);
                }
            }
            self.changed.notify_one();
            after = Some(last);
            while self.state().queue.len() >= SWEEP_PAGE {
                sleep(PAUSE_MAX).await;
            }
        }
        let mut state = self.state();
        state.is_swept = true;
        state.swept_at = Some(Instant::now());
        // Where nothing was said at the start, all that is said is news.
        state.standings.is_read |= !has_notes;
        Ok(())
    }
}

/// Whether each change was made by somebody who knew all those before it: nobody disagrees then,
/// and no worker has to open the document to find that out.
fn is_linear(chunks: &[Bytes]) -> bool {
    let limits = Limits::default();
    let mut head: Option<ChangeHash> = None;
    chunks.iter().all(|chunk| {
        let header = guard::check_change(chunk, &limits);
        header.is_ok_and(|header| {
            // Automerge names the author's last change too, whoever built on it since.
            head.replace(header.hash)
                .map_or(header.deps.is_empty(), |last| header.deps.contains(&last))
        })
    })
}

/// Looks at documents for as long as the relay runs.
pub(super) async fn run(hub: Arc<Hub>, reviewer: Arc<Reviewer>) {
    let mut health = hub.watch_health();
    let sweeping = async {
        if let Err(error) = reviewer.sweep().await {
            tracing::warn!(%error, "cannot list the documents: conflicts in those that are not \
                                    changed stay unknown");
        }
    };
    tokio::select! {
        ((), ()) = futures_util::future::join(keep_looking(&hub, &reviewer), sweeping) => {}
        _ = health.wait_for(|health| *health != Health::Ready) => {}
    }
}

async fn keep_looking(hub: &Hub, reviewer: &Reviewer) {
    let mut forget_at = Instant::now();
    loop {
        let changed = reviewer.changed.notified();
        let next = {
            let (mut state, now) = (reviewer.state(), Instant::now());
            let next_due = state.queue.next_due();
            let is_after = |swept_at| next_due.is_none_or(|due| swept_at < due);
            state.is_looked_through |= state.swept_at.is_some_and(is_after);
            state.expire(reviewer.clock.now_ms(), now);
            state.queue.next(now)
        };
        let expiry = reviewer.state().next_expiry(reviewer.clock.now_ms());
        let expiry = expiry.unwrap_or(FORGET_EVERY);
        match next {
            Ok(document) => {
                let start = Instant::now();
                let decisions = reviewer.look(hub, &document).await;
                let took = start.elapsed();
                reviewer.state().queue.looked_at(&document, took, Instant::now());
                if let Some(decisions) = decisions {
                    reviewer.look_back(hub, &document, decisions).await;
                }
                sleep((start.elapsed() * (SHARE - 1)).min(PAUSE_MAX)).await;
            }
            Err(Some(at)) => {
                let pause = at.saturating_duration_since(Instant::now());
                let _ = timeout(pause.min(expiry), changed).await;
            }
            Err(None) => {
                let is_swept = reviewer.state().is_swept;
                if is_swept && forget_at <= Instant::now() {
                    reviewer.forget(hub).await;
                    forget_at = Instant::now() + FORGET_EVERY;
                }
                // The first time it is not known yet whether all documents were seen.
                let pause = if is_swept { FORGET_EVERY } else { PAUSE_MAX };
                let _ = timeout(pause.min(expiry), changed).await;
            }
        }
    }
}
