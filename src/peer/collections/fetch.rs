//! One document: brought here, or let go.

use std::{sync::Arc, time::Duration};

use concord_protocol::DocumentId;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{Collections, book::Outcome, feed::Listed, spec::Of};
use crate::{
    entity::is_deleted,
    peer::{
        Query,
        core::Command,
        heads,
        held::{Held, Phase},
        index::{entry::Entry, project::asked},
        indexing::Indexing,
        listen::Partner,
    },
    replica::{ConnectionId, StoredDocument},
    store::{DocumentKey, Tenant},
};

/// How long a document may take to come.
const FETCH_MAX: Duration = Duration::from_secs(30);
/// How long a document that is here may be another than the relay listed, with nothing more said of
/// it: it is edited here, or changed there once more.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a relay may take to say that it has a document that is to be let go.
const CONFIRM_MAX: Duration = Duration::from_secs(5);
/// How long others may have a document in hand that is to be let go: the index does for a moment.
const ALONE_MAX: Duration = Duration::from_secs(1);
/// The same of one that came and is not asked for, which nobody waits for.
const DROP_MAX: Duration = Duration::from_secs(20);
const ALONE_EVERY: Duration = Duration::from_millis(10);

/// Why a document stays here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// A collection wants it.
    Wanted,
    /// Somebody has it open.
    Open,
    /// No relay has said that it has all of it, or something of it waits.
    Unconfirmed,
}

impl Collections {
    /// Deals with a document that a relay told of.
    pub(super) async fn settle(
        &self,
        query: Option<&Query>,
        listed: &Listed,
        partner: &Partner,
    ) -> Outcome {
        let id = &listed.document;
        let known = self.index.read(|table| table.get(id).map(Entry::heads));
        if listed.is_purged || listed.is_deleted && known.is_none() {
            return Outcome::Gone;
        }
        if known.is_some() && known == listed.version {
            return Outcome::Here;
        }
        let Ok(_slot) = self.slots.acquire().await else {
            return Outcome::Left("the peer is closing".to_owned());
        };
        // Only what came for the query goes again, and not what somebody made here.
        let was_here = known.is_some() || query.is_some() && self.is_here(id).await;
        let held = self.registry.hold(id);
        let fetching = fetched(&held, partner.connection, listed.version);
        match timeout(FETCH_MAX, fetching).await {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => return Outcome::Left(reason),
            Err(_) => return Outcome::Left("it does not come".to_owned()),
        }
        if was_here || query.is_none_or(|query| self.is_asked(query, &held)) {
            return Outcome::Fetched;
        }
        if let Err(kept) = self.release(held, DROP_MAX).await {
            // It is in step like all that is here.
            tracing::debug!(document = %id, ?kept, "a document that no query asks for stays");
        }
        Outcome::NotAsked
    }

    /// Whether something of a document is stored or open here.
    async fn is_here(&self, id: &DocumentId) -> bool {
        if self.registry.find(id).is_some() {
            return true;
        }
        let key = DocumentKey { tenant: Tenant::default(), document: id.clone() };
        let stored = self.store.load(key).await;
        // What cannot be read stays.
        stored.map_or(true, |stored| {
            let StoredDocument { meta, roots, changes, corrupt } = &stored;
            meta.is_some() || !(roots.is_empty() && changes.is_empty() && corrupt.is_empty())
        })
    }

    /// Whether a query asks for a document. One that cannot be decided stays.
    fn is_asked(&self, query: &Query, held: &Held) -> bool {
        let Some(schema) = self.schemas.in_force() else { return true };
        let Some(of) = schema.types.get(query.type_name()) else { return true };
        let Ok(plan) = query.prepare(Some(of)) else { return true };
        let Some(mut ready) = held.ready() else { return true };
        let doc = ready.doc();
        let is_of_it =
            crate::entity::type_of(doc, &schema.root_key).is_some_and(|it| it == of.name);
        let is_there = query.asks_for_deleted() || !is_deleted(doc);
        is_of_it && is_there && plan.holds(&asked(of, doc, |field| plan.asks_about(field)))
    }

    /// Whether a collection wants a document that is here.
    fn is_wanted(&self, id: &DocumentId) -> bool {
        let Some(entry) = self.index.read(|table| table.get(id).cloned()) else { return false };
        let schema = self.schemas.in_force();
        self.book().wants().any(|(collection, members)| match &collection.0 {
            Of::Type(name) => entry.type_name() == name,
            Of::Query(query) if entry.type_name() != query.type_name() => false,
            Of::Query(query) => {
                let of = schema.as_ref().and_then(|schema| schema.types.get(query.type_name()));
                // What the index cannot decide may be wanted.
                query.prepare(of).map_or(true, |plan| plan.decide(&entry) != Some(false))
            }
            Of::Entity { .. } => members.is_none_or(|members| members.contains(id)),
        })
    }

    /// Removes a document from this store, if no collection wants it, nobody has it open, and a relay
    /// has all of it.
    pub(super) async fn let_go(&self, id: &DocumentId) -> Result<(), Kept> {
        if self.is_wanted(id) {
            return Err(Kept::Wanted);
        }
        if self.board.partner.borrow().is_none() {
            // Nobody is there to say that they have it.
            return Err(Kept::Unconfirmed);
        }
        let Ok(_slot) = self.slots.acquire().await else { return Err(Kept::Open) };
        let held = self.registry.hold(id);
        self.release(held, ALONE_MAX).await
    }

    /// The same of one that no collection wants. Others may have it in hand for so long: the index
    /// does for a moment, and what just came is on its way to the disk.
    async fn release(&self, mut held: Arc<Held>, patience: Duration) -> Result<(), Kept> {
        let going = Going::begin(&self.index, &held.id);
        let until = Instant::now() + patience;
        loop {
            let mut confirmations = held.confirmations();
            let confirmed = async {
                while !held.confirmed() {
                    if confirmations.changed().await.is_err() {
                        break;
                    }
                }
            };
            if timeout_at(until.max(Instant::now() + CONFIRM_MAX), confirmed).await.is_err() {
                return Err(Kept::Unconfirmed);
            }
            while !self.registry.release(&held) {
                if Instant::now() >= until {
                    return Err(Kept::Open);
                }
                sleep(ALONE_EVERY).await;
            }
            // From here on nobody has it but this; what it says now is what goes, or nothing does.
            let id = held.id.clone();
            if self.evict(held).await {
                going.end();
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Kept::Unconfirmed);
            }
            sleep(ALONE_EVERY).await;
            held = self.registry.hold(&id);
        }
    }

    /// Has a document that nobody else has removed from the store. Whether it was.
    async fn evict(&self, held: Arc<Held>) -> bool {
        let heads = {
            let Some(mut ready) = held.ready() else { return false };
            heads(ready.doc())
        };
        if !held.confirmed() {
            return false;
        }
        let (done, gone) = oneshot::channel();
        self.home().tell(Command::Evict(held, heads, done));
        matches!(gone.await, Ok(Ok(())))
    }
}

/// A document that may go at any moment, which the index is not to open meanwhile: to open what is
/// gone is to ask relays for it.
struct Going<'g> {
    index: &'g Indexing,
    id: DocumentId,
    is_over: bool,
}

impl<'g> Going<'g> {
    fn begin(index: &'g Indexing, id: &DocumentId) -> Self {
        index.goes(id);
        Self { index, id: id.clone(), is_over: false }
    }

    fn end(mut self) {
        self.is_over = true;
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.index.stays(&self.id);
        }
    }
}

/// Waits until all is here that a relay has of a document.
async fn fetched(held: &Held, relay: ConnectionId, version: Option<u64>) -> Result<(), String> {
    let (mut phase, mut confirmations) = (held.phase(), held.confirmations());
    let mut settles_at = None;
    loop {
        let now = phase.borrow_and_update().clone();
        confirmations.mark_unchanged();
        match now {
            Phase::Ready => {
                if version.is_some() && held.heads_number() == version {
                    return Ok(());
                }
                if held.has_all_of(relay) {
                    let at = *settles_at.get_or_insert_with(|| Instant::now() + SETTLE);
                    if version.is_none() || at <= Instant::now() {
                        return Ok(());
                    }
                } else {
                    settles_at = None;
                }
            }
            Phase::Unavailable => return Err("no relay has it".to_owned()),
            Phase::Broken(reason) | Phase::Failed(reason) => return Err(reason),
            Phase::Loading | Phase::Absent => {}
        }
        if let Some(refusal) = held.refusal() {
            return Err(refusal.reason);
        }
        tokio::select! {
            changed = phase.changed() => changed.map_err(|_| "it is gone".to_owned())?,
            changed = confirmations.changed() => changed.map_err(|_| "it is gone".to_owned())?,
            () = sleep_until(settles_at.unwrap_or_else(Instant::now)), if settles_at.is_some() => {}
        }
    }
}

/// Waits until something of a document is here, wherever it is from.
pub(super) async fn there(held: &Held) -> Result<(), String> {
    let mut phase = held.phase();
    loop {
        match phase.borrow_and_update().clone() {
            Phase::Ready => return Ok(()),
            Phase::Unavailable => return Err("no relay has it".to_owned()),
            Phase::Broken(reason) | Phase::Failed(reason) => return Err(reason),
            Phase::Loading | Phase::Absent => {}
        }
        phase.changed().await.map_err(|_| "it is gone".to_owned())?;
    }
}

/// See [`FETCH_MAX`].
pub(super) async fn within<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(FETCH_MAX, work).await.unwrap_or_else(|_| Err("it does not come".to_owned()))
}
