//! What a peer does about leases: which it holds, until when, and what it knows of those of others.
//!
//! Without I/O, time as an argument, all of it from the monotonic clock of this peer.
//!
//! **Never ours for longer than the relay says.** A lease counts from when we *asked*, and until a
//! relay has answered the next time for no longer than [`LEASE_GRACE_MS`], whatever was granted: the
//! relay may have lost our connection just behind its answer, and waits no longer than that. So it is
//! asked again at a third of that.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use concord_protocol::{
    DocumentId, Feature, LeaseAction, LeaseHolder, LeaseRefusal, LeaseRequest, LeaseState,
    SessionInfo, limits::LEASE_GRACE_MS,
};
use tokio::sync::{oneshot, watch};

use super::{
    core::Command,
    home::Home,
    lease::{LeaseError, LeaseStanding},
    replace,
};
use crate::replica::{ConnectionId, PeerInfo};

/// A lease is renewed when this part of its time has passed.
const RENEW_PART: u64 = 3;
/// Milliseconds before a relay that said nothing to a renewal is asked again, and before one that
/// grants nothing yet is.
const AGAIN_MS: u64 = 2_000;

/// Told of what came of a request.
pub(super) type Asked = oneshot::Sender<Result<Answered, LeaseError>>;

/// What came of a request.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) state: LeaseState,
    pub(super) granted: Option<Granted>,
}

/// A lease that is ours.
#[derive(Debug)]
pub(super) struct Granted {
    /// How it stands from now on.
    pub(super) standing: watch::Receiver<LeaseStanding>,
    pub(super) term: Arc<Term>,
    _handle: Handle,
}

/// Tells when it is dropped, also in an answer that nobody took: a lease that nobody has is not
/// renewed for ever.
#[derive(Debug)]
struct Handle {
    home: Home,
    document: DocumentId,
    holding: u64,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A peer that is closed gave it back.
        self.home.tell(Command::Unlease(self.document.clone(), self.holding));
    }
}

/// What a relay granted last, for whoever looks between two moments at which this is told the time.
#[derive(Debug, Default)]
pub(super) struct Term {
    fence: AtomicU64,
    until_ms: AtomicU64,
}

impl Term {
    /// The number of the grant.
    pub(super) fn fence(&self) -> u64 {
        self.fence.load(Ordering::Relaxed)
    }

    /// Until when it is ours, if nothing more is heard, in `mono_ms`.
    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms.load(Ordering::Relaxed)
    }

    fn set(&self, fence: u64, until_ms: u64) {
        self.fence.store(fence, Ordering::Relaxed);
        self.until_ms.store(until_ms, Ordering::Relaxed);
    }
}

/// Something to be said to a relay.
pub(super) type Said = (ConnectionId, DocumentId, LeaseRequest);

/// See the module.
#[derive(Debug)]
pub(super) struct Leases {
    us: Option<SessionInfo>,
    /// Hears of handles that are dropped.
    home: Home,
    next: u32,
    holdings: u64,
    /// Relays that know of leases.
    relays: BTreeSet<ConnectionId>,
    ours: BTreeMap<DocumentId, Ours>,
    /// Until when somebody else holds it, as far as is known.
    others: BTreeMap<DocumentId, (LeaseHolder, u64)>,
    waiting: BTreeMap<u32, Waiting>,
    /// What is to be said, in order.
    said: Vec<Said>,
    /// Documents of which something else is known now.
    changed: BTreeSet<DocumentId>,
    /// Holders who are to hear that somebody else has it, and answers to those who asked: after the
    /// documents, so that whoever hears it finds that they know.
    lost: Vec<(watch::Sender<LeaseStanding>, LeaseStanding)>,
    answers: Vec<(Asked, Answered)>,
}

#[derive(Debug)]
struct Ours {
    /// Tells this from an earlier one of the same document.
    holding: u64,
    /// Handles that are not dropped.
    handles: usize,
    over: Option<ConnectionId>,
    term: Arc<Term>,
    for_ms: u32,
    renew_ms: u64,
    standing: watch::Sender<LeaseStanding>,
}

#[derive(Debug)]
struct Waiting {
    document: DocumentId,
    over: ConnectionId,
    action: LeaseAction,
    for_ms: u32,
    asked_ms: u64,
    done: Option<Asked>,
}

impl Leases {
    /// Of a peer that is this, or that says to nobody who it is.
    pub(super) fn new(us: Option<SessionInfo>, home: Home) -> Self {
        Self {
            us,
            home,
            next: 0,
            holdings: 0,
            relays: BTreeSet::new(),
            ours: BTreeMap::new(),
            others: BTreeMap::new(),
            waiting: BTreeMap::new(),
            said: Vec::new(),
            changed: BTreeSet::new(),
            lost: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// A relay is there: it is asked for what is ours.
    pub(super) fn connected(&mut self, now_ms: u64, id: ConnectionId, info: &PeerInfo) {
        if self.us.is_some() && info.concord && info.metadata.features.has(Feature::Leases) {
            self.relays.insert(id);
            self.renew_all(now_ms);
        }
    }

    /// A relay is gone. What was ours is, until its time is up: this peer may be back before.
    pub(super) fn disconnected(&mut self, now_ms: u64, id: ConnectionId) {
        self.relays.remove(&id);
        for (_, waiting) in self.waiting.extract_if(.., |_, waiting| waiting.over == id) {
            if let Some(done) = waiting.done {
                // Who asked may have stopped waiting.
                let _ = done.send(Err(LeaseError::Lost));
            }
        }
        for ours in self.ours.values_mut().filter(|ours| ours.over == Some(id)) {
            ours.over = None;
        }
        self.renew_all(now_ms);
    }

    /// Asks the relay that holds it for us, or else the one that was connected last.
    pub(super) fn ask(
        &mut self,
        now_ms: u64,
        document: DocumentId,
        action: LeaseAction,
        for_ms: u32,
        done: Asked,
    ) {
        let ours = self.ours.get(&document);
        let over = ours.and_then(|ours| ours.over).or_else(|| self.relays.last().copied());
        let Some(over) = over else {
            // Who asked may have stopped waiting.
            let _ = done.send(Err(LeaseError::Offline));
            return;
        };
        let fence = ours.map_or(0, |ours| ours.term.fence());
        self.say(now_ms, over, document, (action, for_ms, fence), Some(done));
    }

    /// A handle of a lease is dropped: with the last one it is given back.
    pub(super) fn dropped(&mut self, now_ms: u64, document: &DocumentId, holding: u64) {
        let Some(ours) = self.ours.get_mut(document).filter(|ours| ours.holding == holding) else {
            return;
        };
        ours.handles = ours.handles.saturating_sub(1);
        if ours.handles == 0
            && let Some(ours) = self.ours.remove(document)
        {
            ours.standing.send_replace(LeaseStanding::Released);
            self.give_back(now_ms, document, &ours);
        }
    }

    /// Another run of this session goes on with it.
    pub(super) fn left(&mut self, document: &DocumentId) {
        self.ours.remove(document);
    }

    /// All that is ours is given back: the peer closes.
    pub(super) fn close(&mut self, now_ms: u64) {
        for (document, ours) in std::mem::take(&mut self.ours) {
            ours.standing.send_replace(LeaseStanding::Released);
            self.give_back(now_ms, &document, &ours);
        }
    }

    /// A relay says how a lease stands.
    pub(super) fn told(
        &mut self,
        now_ms: u64,
        from: ConnectionId,
        document: &DocumentId,
        state: LeaseState,
    ) {
        if !self.relays.contains(&from) {
            return;
        }
        let answers = state.id.filter(|id| {
            self.waiting.get(id).is_some_and(|w| w.over == from && w.document == *document)
        });
        let waiting = answers.and_then(|id| self.waiting.remove(&id));
        let is_us = |holder: &LeaseHolder| {
            self.us.as_ref().is_some_and(|us| us.session == holder.who.session)
        };
        let is_ours = state.holder.as_ref().is_some_and(is_us);
        if is_ours {
            if self.others.remove(document).is_some() {
                self.changed.insert(document.clone());
            }
        } else {
            self.held_by_other(now_ms, from, document, &state);
        }
        let Some(Waiting { action, for_ms, asked_ms, done, .. }) = waiting else {
            return;
        };
        let takes =
            matches!(action, LeaseAction::Acquire | LeaseAction::Renew | LeaseAction::TakeOver);
        let holder = state.holder.as_ref().filter(|_| is_ours && takes && state.why.is_none());
        let granted = holder.map(|holder| (holder.fence, holder.left_ms));
        if let Some((fence, left_ms)) = granted {
            let most_ms = if mutant!(TrustGrantAlone) { left_ms } else { LEASE_GRACE_MS };
            let valid_ms = u64::from(left_ms.min(most_ms));
            let until_ms = asked_ms.saturating_add(valid_ms);
            let renew_ms = now_ms.saturating_add(valid_ms / RENEW_PART);
            let is_wanted = done.is_some() || self.ours.contains_key(document);
            if !is_wanted {
                // It was given back meanwhile.
                let release = (LeaseAction::Release, 0, fence);
                return self.say(now_ms, from, document.clone(), release, None);
            }
            self.holdings += 1;
            let holding = self.holdings;
            let ours = self.ours.entry(document.clone()).or_insert_with(|| Ours {
                holding,
                handles: 0,
                over: None,
                term: Arc::default(),
                for_ms,
                renew_ms,
                standing: watch::Sender::new(LeaseStanding::Held),
            });
            (ours.over, ours.renew_ms) = (Some(from), renew_ms);
            ours.term.set(fence, until_ms);
            // An answer may come when what it grants is over for us.
            let is_over = until_ms <= now_ms;
            let stands = if is_over { LeaseStanding::Lapsed } else { LeaseStanding::Held };
            replace(&ours.standing, stands);
        } else if action == LeaseAction::Renew && state.why == Some(LeaseRefusal::Settling) {
            self.try_later(now_ms, document);
        }
        let Some(done) = done else { return };
        let ours = self.ours.get_mut(document).filter(|_| granted.is_some());
        let granted = ours.map(|ours| {
            ours.handles += 1;
            if for_ms > 0 {
                ours.for_ms = for_ms;
            }
            let (standing, term) = (ours.standing.subscribe(), Arc::clone(&ours.term));
            let (home, document) = (self.home.clone(), document.clone());
            let handle = Handle { home, document, holding: ours.holding };
            Granted { standing, term, _handle: handle }
        });
        self.answers.push((done, Answered { state, granted }));
    }

    /// Does what the time has come for.
    pub(super) fn time(&mut self, now_ms: u64) {
        for (document, _) in self.others.extract_if(.., |_, (_, until_ms)| *until_ms <= now_ms) {
            self.changed.insert(document);
        }
        for ours in self.ours.values_mut().filter(|ours| ours.term.until_ms() <= now_ms) {
            ours.standing.send_if_modified(|standing| {
                let was_held = *standing == LeaseStanding::Held;
                if was_held {
                    mark!(LeaseLapsed);
                    *standing = LeaseStanding::Lapsed;
                }
                was_held
            });
        }
        self.renew_all(now_ms);
    }

    /// When it wants to be told of the time, in `mono_ms`.
    pub(super) fn wakes_at(&self) -> Option<u64> {
        let others = self.others.values().map(|(_, until_ms)| *until_ms);
        let ours = self.ours.values().flat_map(|ours| {
            let is_held = *ours.standing.borrow() == LeaseStanding::Held;
            let lapses = is_held.then(|| ours.term.until_ms());
            lapses.into_iter().chain(ours.over.map(|_| ours.renew_ms))
        });
        others.chain(ours).min()
    }

    /// Who else holds the lease of a document, as far as is known.
    pub(super) fn other(&self, document: &DocumentId) -> Option<&LeaseHolder> {
        self.others.get(document).map(|(holder, _)| holder)
    }

    /// What is to be said, and of which documents something else is known.
    pub(super) fn take_said(&mut self) -> (Vec<Said>, BTreeSet<DocumentId>) {
        (std::mem::take(&mut self.said), std::mem::take(&mut self.changed))
    }

    /// The documents know: now those who held their leases hear of it, and those who asked. Whether
    /// there were any.
    pub(super) fn tell_programs(&mut self) -> bool {
        for (standing, lost) in self.lost.drain(..) {
            standing.send_replace(lost);
        }
        let has_told = !self.answers.is_empty();
        for (done, answered) in self.answers.drain(..) {
            // Who asked may have stopped waiting: then what was granted is given back.
            drop(done.send(Ok(answered)));
        }
        has_told
    }

    /// It is not ours, says a relay.
    fn held_by_other(
        &mut self,
        now_ms: u64,
        from: ConnectionId,
        document: &DocumentId,
        state: &LeaseState,
    ) {
        self.changed.insert(document.clone());
        match &state.holder {
            Some(holder) => {
                let until_ms = now_ms.saturating_add(holder.left_ms.into());
                self.others.insert(document.clone(), (holder.clone(), until_ms));
            }
            None => _ = self.others.remove(document),
        }
        let Some(ours) = self.ours.get_mut(document).filter(|ours| ours.over == Some(from)) else {
            return;
        };
        match &state.holder {
            // Its time was up there before we asked again: perhaps nobody wants it.
            None if state.id.is_none() => ours.renew_ms = now_ms,
            None => {}
            Some(holder) => {
                let Some(ours) = self.ours.remove(document) else { return };
                self.lost.push((ours.standing.clone(), LeaseStanding::Lost(holder.into())));
                // So that the relay knows that we know: nothing that we send from here on was
                // written under it.
                self.give_back(now_ms, document, &ours);
            }
        }
        self.renew_all(now_ms);
    }

    fn try_later(&mut self, now_ms: u64, document: &DocumentId) {
        if let Some(ours) = self.ours.get_mut(document) {
            ours.renew_ms = now_ms.saturating_add(AGAIN_MS);
        }
    }

    /// Renews all whose time it is, and those that no relay holds for us any more.
    fn renew_all(&mut self, now_ms: u64) {
        let Some(other) = self.relays.last().copied() else {
            return;
        };
        let mut due = Vec::new();
        for (document, ours) in &mut self.ours {
            if ours.over.is_none() || ours.renew_ms <= now_ms {
                let over = *ours.over.get_or_insert(other);
                ours.renew_ms = now_ms.saturating_add(AGAIN_MS);
                due.push((
                    over,
                    document.clone(),
                    (LeaseAction::Renew, ours.for_ms, ours.term.fence()),
                ));
            }
        }
        for (over, document, request) in due {
            self.say(now_ms, over, document, request, None);
        }
    }

    fn give_back(&mut self, now_ms: u64, document: &DocumentId, ours: &Ours) {
        if let Some(over) = ours.over {
            self.say(
                now_ms,
                over,
                document.clone(),
                (LeaseAction::Release, 0, ours.term.fence()),
                None,
            );
        }
    }

    fn say(
        &mut self,
        asked_ms: u64,
        over: ConnectionId,
        document: DocumentId,
        (action, for_ms, fence): (LeaseAction, u32, u64),
        done: Option<Asked>,
    ) {
        self.next = self.next.wrapping_add(1);
        let request = LeaseRequest { id: self.next, action, for_ms, fence };
        let waiting = Waiting { document: document.clone(), over, action, for_ms, asked_ms, done };
        self.waiting.insert(self.next, waiting);
        self.said.push((over, document, request));
    }
}

#[cfg(test)]
mod tests;
