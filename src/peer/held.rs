//! One document in memory, shared by its handles, the applier and the core.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::{Mutex, MutexGuard},
};

use automerge::{Automerge, Change};
use concord_protocol::{ChangeHash, DocumentId};
use tokio::sync::{broadcast, watch};

use crate::{digest::heads_number, replica::ConnectionId, review::Follower};

use super::{
    base::{Base, Heads},
    content::{self, Incoming},
    core::Command,
    event::{ChangeInfo, DocumentEvent},
    home::Home,
    lease::LeaseHolder,
    left_out::{self, LeftOut},
    locked,
    overview::Acknowledged,
    presence::Present,
    purge::Refusal,
};

/// Events that a watcher may be behind before it misses some.
const WATCH_EVENTS_MAX: usize = 1_024;
/// Reloads after which a document that keeps breaking is given up until the next start, or until
/// the change that it breaks with is withheld.
const RELOADS_MAX: u8 = 2;

/// How far the content of a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// Being read from the store.
    Loading,
    /// Nothing is stored here; relays are asked.
    Absent,
    /// Nothing is stored here, and the relays that are connected do not have it.
    Unavailable,
    /// There.
    Ready,
    /// It cannot be made of what is stored, or that cannot be read; perhaps it can later.
    Broken(String),
    /// It cannot be read or changed any more.
    Failed(String),
}

impl Phase {
    /// Why there is no content and none is coming.
    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Broken(reason) | Self::Failed(reason) => Some(reason),
            Self::Loading | Self::Absent | Self::Unavailable | Self::Ready => None,
        }
    }
}

pub(super) struct Held {
    pub(super) id: DocumentId,
    content: Mutex<Content>,
    phase: watch::Sender<Phase>,
    events: broadcast::Sender<DocumentEvent>,
    /// Counts up whenever [`Held::confirmed`] may have changed.
    confirmations: watch::Sender<u64>,
    pub(super) home: Home,
    /// Who else holds the lease, as far as is known.
    pub(super) leased_to: watch::Sender<Option<LeaseHolder>>,
    /// Who else is here, as far as somebody wants to know.
    pub(super) present: watch::Sender<Vec<Present>>,
    /// What is known of its conflicts, if anybody asked.
    pub(super) follower: Mutex<Follower>,
    /// See [`Held::durable`]. Beside the content, for the index asks with its own lock held, which
    /// whoever edits takes with the content's.
    durable: Mutex<Option<(u64, u64)>>,
}

#[derive(Default)]
struct Content {
    doc: Option<Automerge>,
    /// What is to be loaded: what was named last, however often that was.
    named: Option<Vec<Incoming>>,
    /// Counts up with each naming and reset: what was made of an earlier one is of no use.
    naming: u64,
    inbox: Vec<Incoming>,
    /// A [`super::applier::Task::TakeIn`] is under way.
    scheduled: bool,
    reloads: u8,
    left_out: LeftOut,
    /// What each connection's relay has, as it last said.
    relay_has: BTreeMap<ConnectionId, RelayHas>,
    /// What relays have had before any of that.
    base: Base,
    /// What a relay said that takes nothing more of it.
    refusal: Option<Refusal>,
    /// Watchers are told this when there is something to read again.
    news: Option<DocumentEvent>,
}

/// What a relay said that it has of a document.
#[derive(Debug)]
struct RelayHas {
    heads: BTreeSet<ChangeHash>,
    means: Acknowledged,
}

impl Content {
    /// What relays said that they have, each.
    fn said(&self) -> impl Iterator<Item = &BTreeSet<ChangeHash>> {
        self.relay_has.values().map(|has| &has.heads)
    }

    fn edits(&mut self) {
        let Self { doc, base, .. } = self;
        let heads = || doc.iter().flat_map(Automerge::get_heads).map(|head| ChangeHash(head.0));
        base.edits(|| heads().collect());
    }

    /// Whatever was made of what was named before is of no use.
    fn begin_again(&mut self) {
        self.doc = None;
        self.named = None;
        self.naming += 1;
        self.inbox.clear();
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The content, locked: a document that is [`Phase::Ready`].
pub(super) struct Ready<'a>(MutexGuard<'a, Content>);

impl Ready<'_> {
    pub(super) fn doc(&mut self) -> &mut Automerge {
        // `Held::ready` gives no guard without a document, and nobody takes it from under one.
        self.0.doc.get_or_insert_with(Automerge::new)
    }

    /// It is about to be edited: what relays have is not all of it any more.
    pub(super) fn edits(&mut self) {
        self.0.edits();
    }

    /// A panic went through the instance: it is not to be used again.
    pub(super) fn discard(mut self) {
        self.0.doc = None;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.home.tell(Command::Shut(self.id.clone()));
    }
}

impl Held {
    pub(super) fn new(id: DocumentId, home: Home) -> Self {
        Self {
            id,
            content: Mutex::default(),
            phase: watch::Sender::new(Phase::Loading),
            events: broadcast::Sender::new(WATCH_EVENTS_MAX),
            confirmations: watch::Sender::new(0),
            home,
            leased_to: watch::Sender::new(None),
            present: watch::Sender::new(Vec::new()),
            follower: Mutex::default(),
            durable: Mutex::default(),
        }
    }

    /// A document that did not exist before.
    pub(super) fn created(id: DocumentId, home: Home) -> Self {
        let held = Self::new(id, home);
        let mut content = locked(&held.content);
        content.doc = Some(held.home.instance());
        content.base = Base::nothing();
        drop(content);
        held.phase.send_replace(Phase::Ready);
        held
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub(super) fn events(&self) -> broadcast::Receiver<DocumentEvent> {
        self.events.subscribe()
    }

    pub(super) fn confirmations(&self) -> watch::Receiver<u64> {
        self.confirmations.subscribe()
    }

    pub(super) fn is_loading(&self) -> bool {
        *self.phase.borrow() == Phase::Loading
    }

    /// The core names all that is stored: it is to be loaded, also where there was none to be had,
    /// unless it was already. Gives whether the applier has to be told.
    pub(super) fn name(&self, chunks: Vec<Incoming>) -> bool {
        self.phase.send_if_modified(|phase| {
            let was_broken = matches!(phase, Phase::Broken(_));
            if was_broken {
                *phase = Phase::Loading;
            }
            was_broken
        });
        let is_loading = self.is_loading();
        if is_loading {
            let mut content = locked(&self.content);
            content.named = Some(chunks);
            content.naming += 1;
        }
        is_loading
    }

    /// The content, if it is there.
    pub(super) fn ready(&self) -> Option<Ready<'_>> {
        let content = locked(&self.content);
        let usable = content.doc.is_some() && *self.phase.borrow() == Phase::Ready;
        usable.then(|| Ready(content))
    }

    /// Tells the watchers, if there are any; `event` is not made otherwise.
    pub(super) fn tell(&self, event: impl FnOnce() -> DocumentEvent) {
        if self.events.receiver_count() > 0 {
            // The last watcher may have gone meanwhile, which is no failure.
            let _ = self.events.send(event());
        }
    }

    pub(super) fn tell_changed(&self, changes: &[Change], local: bool) {
        if !changes.is_empty() {
            self.home.index().touch(&self.id);
            self.tell(|| DocumentEvent::Changed {
                changes: changes.iter().map(ChangeInfo::from).collect(),
                local,
            });
        }
        self.recount();
    }

    /// The content is to be made anew.
    pub(super) fn reset(&self) {
        let mut content = locked(&self.content);
        content.begin_again();
        self.unless_failed(Phase::Loading);
        drop(content);
        self.home.index().touch(&self.id);
    }

    /// Takes the content out: nobody edits or reads it before it is made anew.
    pub(super) fn take(&self) -> Option<Automerge> {
        let mut content = self.ready()?.0;
        let doc = content.doc.take();
        content.begin_again();
        self.unless_failed(Phase::Loading);
        drop(content);
        self.home.index().touch(&self.id);
        doc
    }

    /// Nothing is left of it: it is as one that was just created.
    pub(super) fn start_over(&self) {
        let mut content = locked(&self.content);
        content.begin_again();
        content.doc = Some(self.home.instance());
        self.unless_failed(Phase::Ready);
        let news = content.news.take();
        drop(content);
        self.home.index().touch(&self.id);
        if let Some(event) = news {
            self.tell(|| event);
        }
    }

    /// Has watchers told of this as soon as there is something to read.
    pub(super) fn tell_when_read(&self, event: DocumentEvent) {
        locked(&self.content).news = Some(event);
    }

    /// What broke the content is withheld from now on: it is to be made anew, though it may have
    /// been given up.
    pub(super) fn revive(&self) {
        let mut content = locked(&self.content);
        content.reloads = 0;
        // Some of it may have been blamed for what is withheld: whatever still breaks the document
        // is found again.
        content.left_out = LeftOut::default();
        drop(content);
        self.reset();
    }

    /// Has the core name what is stored once more.
    pub(super) fn reread(&self) {
        self.home.tell(Command::Open(self.id.clone()));
    }

    /// No more edits and reads.
    pub(super) fn fail(&self, reason: &str) {
        self.end(Phase::Failed(reason.to_owned()));
    }

    /// It cannot be made of what is stored, for now.
    pub(super) fn give_up(&self, reason: &str) {
        self.end(Phase::Broken(reason.to_owned()));
    }

    fn end(&self, end: Phase) {
        self.unless_failed(end);
        self.recount();
    }

    fn unless_failed(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let moves = !matches!(phase, Phase::Failed(_));
            if moves {
                *phase = to;
            }
            moves
        });
    }

    /// The store has nothing of it.
    pub(super) fn absent(&self) {
        self.advance(&[Phase::Loading], Phase::Absent);
    }

    /// The connected relays have nothing of it.
    pub(super) fn unavailable(&self) {
        self.advance(&[Phase::Loading, Phase::Absent], Phase::Unavailable);
    }

    /// A relay came: what was unavailable may not be any more, nor what was refused.
    pub(super) fn ask_again(&self) {
        locked(&self.content).refusal = None;
        self.advance(&[Phase::Unavailable], Phase::Absent);
    }

    fn advance(&self, from: &[Phase], to: Phase) {
        self.phase.send_if_modified(|phase| {
            let moves = from.contains(phase);
            if moves {
                *phase = to;
            }
            moves
        });
    }

    /// Puts chunks into the inbox; whether the applier has to be told.
    pub(super) fn put_in(&self, chunks: impl IntoIterator<Item = Incoming>) -> bool {
        let mut content = locked(&self.content);
        content.inbox.extend(chunks);
        if content.inbox.is_empty() || content.scheduled {
            return false;
        }
        content.scheduled = true;
        true
    }

    /// The applier's part of loading: all that can be shown of what was named last. Only of that,
    /// and only once: what has been taken in since is not in it.
    pub(super) fn load(&self) {
        let mut content = locked(&self.content);
        let Some(mut chunks) = content.named.take() else {
            return;
        };
        let naming = content.naming;
        drop(content);
        loop {
            let mut content = locked(&self.content);
            if content.naming != naming {
                return;
            }
            chunks = content.left_out.without(chunks);
            drop(content);
            if chunks.is_empty() {
                self.absent();
                self.take_in();
                return;
            }
            let reason = match content::load(self.home.actor(), chunks.clone()) {
                Ok(doc) => return self.loaded(doc, naming),
                Err(reason) => reason,
            };
            let words = reason.to_string();
            let culprit = left_out::culprit(&chunks, reason);
            let mut content = locked(&self.content);
            if content.naming != naming {
                return;
            }
            let Some((culprit, reason)) = culprit else {
                drop(content);
                return self.broken(&words);
            };
            let change = culprit.hash;
            tracing::warn!(document = %self.id, %change, %reason, "a change breaks the content");
            if !content.left_out.add(culprit) {
                drop(content);
                return self.broken(&words);
            }
            // Without it the content may well be whole.
            content.reloads = 0;
        }
    }

    fn loaded(&self, doc: Automerge, naming: u64) {
        let mut content = locked(&self.content);
        if content.naming != naming {
            return;
        }
        content.doc = Some(doc);
        // While the content is locked: a reset that came in between would be undone.
        self.advance(&[Phase::Loading, Phase::Absent, Phase::Unavailable], Phase::Ready);
        let news = content.news.take();
        drop(content);
        if let Some(event) = news {
            self.tell(|| event);
        }
        self.take_in();
        self.recount();
    }

    /// The applier's part of taking in: all that waits, at once.
    pub(super) fn take_in(&self) {
        let mut content = locked(&self.content);
        content.scheduled = false;
        let inbox = mem::take(&mut content.inbox);
        if inbox.is_empty() {
            return;
        }
        let is_coming = matches!(*self.phase.borrow(), Phase::Loading | Phase::Ready);
        if content.doc.is_none() && is_coming {
            // It is about to be loaded, and what is being loaded comes first.
            content.inbox = inbox;
            return;
        }
        let inbox = content.left_out.without(inbox);
        let mut doc = content.doc.take().unwrap_or_else(|| self.home.instance());
        match content::take_in(&mut doc, inbox) {
            Ok(changes) => {
                let known = !doc.is_empty();
                content.doc = Some(doc);
                drop(content);
                // Whoever waits for the phase finds the index told.
                self.home.index().touch(&self.id);
                if known {
                    self.advance(&[Phase::Absent, Phase::Unavailable], Phase::Ready);
                }
                self.tell_changed(&changes, false);
            }
            Err(reason) => {
                // Nobody is to find the document ready and its content gone.
                self.advance(&[Phase::Ready], Phase::Loading);
                drop(content);
                self.broken(&reason.to_string());
            }
        }
    }

    /// The instance is unusable. Storage has the last word: it is read again.
    pub(super) fn broken(&self, reason: &str) {
        let mut content = locked(&self.content);
        content.reloads = content.reloads.saturating_add(1);
        let give_up = content.reloads > RELOADS_MAX;
        drop(content);
        tracing::warn!(document = %self.id, reason, give_up, "the content broke");
        if give_up {
            self.give_up(reason);
            self.tell(|| DocumentEvent::Quarantined { reason: reason.to_owned() });
        } else {
            self.reset();
            self.reread();
        }
    }

    /// A relay says that it has these heads, and means that.
    pub(super) fn relay_has(
        &self,
        connection: ConnectionId,
        means: Acknowledged,
        heads: Vec<ChangeHash>,
    ) {
        if heads.is_empty() {
            return;
        }
        let has = RelayHas { heads: heads.iter().copied().collect(), means };
        locked(&self.content).relay_has.insert(connection, has);
        self.recount();
        self.tell(|| DocumentEvent::RelayHas { heads });
    }

    /// What relays said that they have, each.
    pub(super) fn relays_have(&self) -> Vec<BTreeSet<automerge::ChangeHash>> {
        let hash = |head: &ChangeHash| automerge::ChangeHash(head.0);
        let heads = |heads: &BTreeSet<ChangeHash>| heads.iter().map(hash).collect();
        locked(&self.content).said().map(heads).collect()
    }

    /// For the index: the number of the last write of any document when it was told which heads are
    /// on disk, and the number of those; nothing while more is on its way.
    pub(super) fn durable(&self) -> Option<(u64, u64)> {
        *locked(&self.durable)
    }

    /// See [`Held::durable`].
    pub(super) fn set_durable(&self, durable: Option<(u64, u64)>) {
        *locked(&self.durable) = durable;
    }

    /// A relay takes nothing more of it.
    pub(super) fn refused(&self, refusal: Refusal) {
        locked(&self.content).refusal = Some(refusal);
        self.recount();
    }

    /// See [`Held::refused`].
    pub(super) fn refusal(&self) -> Option<Refusal> {
        locked(&self.content).refusal.clone()
    }

    /// Whether a relay that is or was connected said that it has something of it.
    pub(super) fn is_known_to_relays(&self) -> bool {
        !locked(&self.content).relay_has.is_empty()
    }

    /// Whether a relay said that it has what is not here, but for what the document is shown without.
    pub(super) fn is_behind(&self) -> bool {
        let content = locked(&self.content);
        let Some(doc) = &content.doc else {
            return false;
        };
        let is_here = |head: &ChangeHash| {
            doc.get_change_meta_by_hash(&automerge::ChangeHash(head.0)).is_some()
        };
        let mut theirs = content.said();
        theirs.any(|theirs| !content.left_out.shown(theirs).iter().all(is_here))
    }

    /// Changes of others are about to be taken over as if they were made here.
    pub(super) fn adopts(&self) {
        locked(&self.content).edits();
    }

    /// It is known what of the document was in the outbox: see [`Base::told`].
    pub(super) fn told_base(&self, row: Option<Heads>) {
        locked(&self.content).base.told(row);
    }

    /// What relays are known to have without having said so in this run; `None` if that is all.
    pub(super) fn base(&self) -> Option<Heads> {
        locked(&self.content).base.heads()
    }

    /// All heads that some relay is known to have.
    pub(super) fn relays_had(&self) -> Heads {
        let content = locked(&self.content);
        let said = content.said().flatten().copied();
        content.base.heads().into_iter().flatten().chain(said).collect()
    }

    /// A number for its heads, if it is there.
    pub(super) fn heads_number(&self) -> Option<u64> {
        let content = locked(&self.content);
        let heads = content.doc.as_ref()?.get_heads();
        Some(heads_number(heads.iter().map(|head| head.0)))
    }

    /// Whether all is here that the relay at the other end of a connection told of.
    pub(super) fn has_all_of(&self, connection: ConnectionId) -> bool {
        let content = locked(&self.content);
        let Some(doc) = &content.doc else { return false };
        let is_here = |head: &ChangeHash| {
            doc.get_change_meta_by_hash(&automerge::ChangeHash(head.0)).is_some()
        };
        let theirs = content.relay_has.get(&connection);
        theirs.is_some_and(|theirs| content.left_out.shown(&theirs.heads).iter().all(is_here))
    }

    fn recount(&self) {
        self.confirmations.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// See [`Document::confirmed`](super::Document::confirmed).
    pub(super) fn confirmed(&self) -> bool {
        self.acknowledged().is_some()
    }

    /// What a relay's word means that has all that is here, and told us of nothing that is not, but
    /// for what the document is shown without: the most that one means.
    pub(super) fn acknowledged(&self) -> Option<Acknowledged> {
        let content = locked(&self.content);
        let doc = content.doc.as_ref()?;
        let has_all = |has: &&RelayHas| covers(doc, &content.left_out.shown(&has.heads));
        content.relay_has.values().filter(has_all).map(|has| has.means).max()
    }
}

/// Whether these are heads of `doc` that leave none of its changes out.
fn covers(doc: &Automerge, theirs: &BTreeSet<ChangeHash>) -> bool {
    let ours = doc.get_heads();
    if ours.iter().all(|head| theirs.contains(&ChangeHash(head.0))) && ours.len() == theirs.len() {
        return true;
    }
    let theirs: Vec<_> = theirs.iter().map(|head| automerge::ChangeHash(head.0)).collect();
    theirs.iter().all(|head| doc.get_change_meta_by_hash(head).is_some())
        && doc.get_changes_meta(&theirs).is_empty()
}

#[cfg(test)]
mod tests;
