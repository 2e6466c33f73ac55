//! Leases: which session edits a document alone, as this relay says. The rule, without I/O.
//!
//! One session at a time holds the lease of a document: until its time is up, it gives it back, or
//! another takes it over. Only the monotonic clock counts. Who holds it is told to everybody who has
//! the document open and knows of leases.
//!
//! **At most one holder, across restarts.** Nothing of a lease is stored but one number, which goes
//! up with every start of a relay on its store ([`Event::Numbered`](super::Event::Numbered)) and is on
//! disk before it is told. A fence is that number and a counter, so fences go up whatever the wall
//! clock does. Before the number is known, nobody is granted anything; and for
//! [`LEASE_GRACE_MS`] after it, only whoever shows a fence of an earlier run, the higher one if two
//! do. A store on which no relay ever ran has nobody to wait for.
//!
//! **A connection that is lost is not the end.** Its session has [`LEASE_GRACE_MS`] to come back.
//!
//! **What was on its way counts.** Who held a lease last may still bring what was written under it
//! for [`LEASE_LATE_MS`], or until it says that it knows: it does so behind all that it sent before.

use std::collections::{BTreeMap, BTreeSet};

use concord_protocol::{
    ChangeHash, DocumentId, LeaseAction, LeaseHolder, LeaseRefusal, LeaseRequest, LeaseState,
    SessionId, SessionInfo,
    limits::{
        LEASE_GRACE_MS, LEASE_LATE_MS, LEASE_MS, LEASE_MS_MAX, LEASE_MS_MIN,
        LEASES_PER_CONNECTION_MAX,
    },
};

use super::ConnectionId;

/// Sessions that may still bring what they wrote, a document: several take over from one another.
const FORMER_MAX: usize = 4;
/// Changes that were refused while a lease was held and are asked for when it is over, a document.
const REFUSED_MAX: usize = 1_024;
/// Bits of a fence that count the grants of one run.
const COUNTER_BITS: u32 = 32;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// The number of this run, and until when those of earlier runs are waited for.
    run: Option<(u64, u64)>,
    granted: u64,
    documents: BTreeMap<DocumentId, Lease>,
    /// Which documents' leases are held over a connection.
    over: BTreeMap<ConnectionId, BTreeSet<DocumentId>>,
    /// When to look at which document again, in `mono_ms`: once for each.
    timers: BTreeSet<(u64, DocumentId)>,
}

/// The lease of one document.
#[derive(Debug, Default)]
struct Lease {
    holder: Option<Holder>,
    former: Vec<Former>,
    /// Over which connections which changes were refused.
    refused: Vec<(ConnectionId, ChangeHash)>,
    timer_ms: Option<u64>,
}

#[derive(Debug)]
struct Holder {
    who: SessionInfo,
    over: Option<ConnectionId>,
    fence: u64,
    /// The fence of an earlier run that it came back with; 0: none.
    before: u64,
    until_ms: u64,
}

#[derive(Debug)]
struct Former {
    session: SessionId,
    until_ms: u64,
}

/// What came of something.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What whoever asked is told, over the connection that it asked over.
    pub(super) answer: Option<LeaseState>,
    /// Somebody else holds it now, or nobody: all are to be told.
    pub(super) changed: bool,
    /// Who held it before and has to be told, whether or not it has the document open.
    pub(super) lost: Option<ConnectionId>,
    /// Changes that may be taken now, with the connections over which they were refused.
    pub(super) freed: Vec<(ConnectionId, ChangeHash)>,
}

impl Leases {
    /// This is the `number`th run of a relay on its store, from 1.
    pub(super) fn numbered(&mut self, now_ms: u64, number: u64) {
        let grace_ms = if number <= 1 { 0 } else { u64::from(LEASE_GRACE_MS) };
        self.run = Some((number, now_ms.saturating_add(grace_ms)));
    }

    /// Somebody asks something.
    pub(super) fn asked(
        &mut self,
        now_ms: u64,
        document: &DocumentId,
        (over, who): (ConnectionId, &SessionInfo),
        request: LeaseRequest,
    ) -> Outcome {
        let mut outcome = self.look(now_ms, document);
        let why = match request.action {
            LeaseAction::Show => None,
            LeaseAction::Release => {
                self.release(now_ms, document, &who.session, request.fence, &mut outcome);
                None
            }
            LeaseAction::Acquire | LeaseAction::Renew | LeaseAction::TakeOver => {
                self.take(now_ms, document, (over, who), request, &mut outcome).err()
            }
        };
        let state = self.state(now_ms, document);
        outcome.answer = Some(LeaseState { id: Some(request.id), why, ..state });
        self.settle(document);
        outcome
    }

    /// What time has brought.
    pub(super) fn look(&mut self, now_ms: u64, document: &DocumentId) -> Outcome {
        let mut outcome = Outcome::default();
        let Some(lease) = self.documents.get_mut(document) else {
            return outcome;
        };
        lease.former.retain(|former| former.until_ms > now_ms);
        if lease.holder.as_ref().is_some_and(|holder| holder.until_ms <= now_ms) {
            mark!(LeaseExpired);
            self.end(now_ms, document, &mut outcome);
        }
        self.settle(document);
        outcome
    }

    /// When to look at a document next, in `mono_ms`.
    pub(super) fn next_ms(&self) -> Option<u64> {
        self.timers.first().map(|(at_ms, _)| *at_ms)
    }

    /// A document that is to be looked at by now.
    pub(super) fn due(&mut self, now_ms: u64) -> Option<DocumentId> {
        self.timers.first().filter(|(at_ms, _)| *at_ms <= now_ms)?;
        let (_, document) = self.timers.pop_first()?;
        if let Some(lease) = self.documents.get_mut(&document) {
            lease.timer_ms = None;
        }
        Some(document)
    }

    /// A connection is gone.
    pub(super) fn disconnected(&mut self, now_ms: u64, connection: ConnectionId) {
        for document in self.over.remove(&connection).unwrap_or_default() {
            let lease = self.documents.get_mut(&document);
            let holder = lease.and_then(|lease| lease.holder.as_mut());
            if let Some(holder) = holder.filter(|holder| holder.over == Some(connection)) {
                mark!(LeaseHolderLost);
                holder.over = None;
                let until_ms = now_ms.saturating_add(LEASE_GRACE_MS.into());
                holder.until_ms = holder.until_ms.min(until_ms);
                self.settle(&document);
            }
        }
    }

    /// How the lease of a document stands.
    pub(super) fn state(&self, now_ms: u64, document: &DocumentId) -> LeaseState {
        let holder = self.holder(now_ms, document).map(|holder| LeaseHolder {
            who: holder.who.clone(),
            fence: holder.fence,
            left_ms: u32::try_from(holder.until_ms - now_ms).unwrap_or(u32::MAX),
        });
        LeaseState { holder, ..LeaseState::default() }
    }

    /// Who keeps this session from writing where a lease is required, if anybody does.
    pub(super) fn keeps_off(
        &self,
        now_ms: u64,
        document: &DocumentId,
        session: Option<&SessionId>,
    ) -> Option<&SessionInfo> {
        let holder = self.holder(now_ms, document)?;
        let lease = self.documents.get(document)?;
        let may = session.is_some_and(|session| {
            let is_late = |former: &Former| former.session == *session && former.until_ms > now_ms;
            holder.who.session == *session || lease.former.iter().any(is_late)
        });
        (!may).then_some(&holder.who)
    }

    /// Whether anybody holds the lease of a document.
    pub(super) fn is_held(&self, now_ms: u64, document: &DocumentId) -> bool {
        self.holder(now_ms, document).is_some()
    }

    /// A change was refused because of the lease: it may be asked for when that is over.
    pub(super) fn refused(
        &mut self,
        document: &DocumentId,
        connection: ConnectionId,
        change: ChangeHash,
    ) {
        if let Some(lease) = self.documents.get_mut(document)
            && lease.refused.len() < REFUSED_MAX
        {
            lease.refused.push((connection, change));
        }
    }

    fn holder(&self, now_ms: u64, document: &DocumentId) -> Option<&Holder> {
        let holder = self.documents.get(document)?.holder.as_ref();
        holder.filter(|holder| holder.until_ms > now_ms)
    }

    /// Grants it, or says why not.
    fn take(
        &mut self,
        now_ms: u64,
        document: &DocumentId,
        (over, who): (ConnectionId, &SessionInfo),
        request: LeaseRequest,
        outcome: &mut Outcome,
    ) -> Result<(), LeaseRefusal> {
        let (number, settled_ms) = self.run.ok_or(LeaseRefusal::Settling)?;
        let is_of_earlier = request.action == LeaseAction::Renew
            && request.fence > 0
            && request.fence < number << COUNTER_BITS;
        let until_ms = now_ms.saturating_add(length_ms(request.for_ms));
        let mut before = 0;
        if let Some(holder) = self.holder(now_ms, document) {
            if holder.who.session == who.session {
                self.extend(document, over, until_ms);
                return Ok(());
            }
            let comes_back = now_ms < settled_ms && is_of_earlier;
            if comes_back && request.fence > holder.before && holder.before > 0 {
                mark!(LeaseBackFromAnother);
                before = request.fence;
            } else if request.action != LeaseAction::TakeOver && !mutant!(GrantHeldLease) {
                mark!(LeaseHeld);
                return Err(LeaseRefusal::Held);
            }
        } else if now_ms < settled_ms {
            if !is_of_earlier {
                mark!(LeaseSettling);
                return Err(LeaseRefusal::Settling);
            }
            mark!(LeaseBack);
            before = request.fence;
        }
        if self.over.get(&over).is_some_and(|held| held.len() >= LEASES_PER_CONNECTION_MAX) {
            return Err(LeaseRefusal::Limit);
        }
        mark!(LeaseTakenOver, if self.is_held(now_ms, document));
        self.end(now_ms, document, outcome);
        self.granted += 1;
        let fence = (number << COUNTER_BITS) + self.granted;
        let lease = self.documents.entry(document.clone()).or_default();
        // It writes under this grant now.
        lease.former.retain(|former| former.session != who.session);
        let who = who.clone();
        lease.holder = Some(Holder { who, over: Some(over), fence, before, until_ms });
        self.over.entry(over).or_default().insert(document.clone());
        outcome.changed = true;
        // What was refused to others is refused still.
        let lease = self.documents.entry(document.clone()).or_default();
        lease.refused.append(&mut outcome.freed);
        Ok(())
    }

    /// Who holds it goes on doing so, perhaps over a new connection.
    fn extend(&mut self, document: &DocumentId, over: ConnectionId, until_ms: u64) {
        let lease = self.documents.get_mut(document);
        let Some(holder) = lease.and_then(|lease| lease.holder.as_mut()) else {
            return;
        };
        mark!(LeaseOverNewConnection, if holder.over != Some(over));
        holder.until_ms = until_ms;
        if let Some(before) = holder.over.replace(over).filter(|before| *before != over) {
            self.not_over(before, document);
        }
        self.over.entry(over).or_default().insert(document.clone());
    }

    fn release(
        &mut self,
        now_ms: u64,
        document: &DocumentId,
        session: &SessionId,
        fence: u64,
        outcome: &mut Outcome,
    ) {
        let is_held = self.holder(now_ms, document).is_some_and(|holder| {
            holder.who.session == *session && (fence == 0 || holder.fence == fence)
        });
        if is_held {
            self.end(now_ms, document, outcome);
        }
        if let Some(lease) = self.documents.get_mut(document) {
            // It knows, and says so behind all that it wrote before.
            lease.former.retain(|former| former.session != *session);
        }
    }

    /// Nobody holds it any more.
    fn end(&mut self, now_ms: u64, document: &DocumentId, outcome: &mut Outcome) {
        let Some(lease) = self.documents.get_mut(document) else {
            return;
        };
        let Some(Holder { who, over, .. }) = lease.holder.take() else {
            return;
        };
        outcome.changed = true;
        outcome.lost = over;
        outcome.freed.append(&mut lease.refused);
        lease.former.retain(|former| former.session != who.session);
        if lease.former.len() >= FORMER_MAX {
            lease.former.remove(0);
        }
        let until_ms = now_ms.saturating_add(LEASE_LATE_MS.into());
        lease.former.push(Former { session: who.session, until_ms });
        if let Some(over) = over {
            self.not_over(over, document);
        }
    }

    fn not_over(&mut self, connection: ConnectionId, document: &DocumentId) {
        if let Some(held) = self.over.get_mut(&connection) {
            held.remove(document);
            if held.is_empty() {
                self.over.remove(&connection);
            }
        }
    }

    /// Sets the timer of a document, or forgets its lease if there is nothing left of it.
    fn settle(&mut self, document: &DocumentId) {
        let Some(lease) = self.documents.get_mut(document) else {
            return;
        };
        let former = lease.former.iter().map(|former| former.until_ms);
        let at_ms = lease.holder.iter().map(|holder| holder.until_ms).chain(former).min();
        if lease.timer_ms != at_ms {
            if let Some(before_ms) = std::mem::replace(&mut lease.timer_ms, at_ms) {
                self.timers.remove(&(before_ms, document.clone()));
            }
            self.timers.extend(at_ms.map(|at_ms| (at_ms, document.clone())));
        }
        if at_ms.is_none() {
            self.documents.remove(document);
        }
    }
}

fn length_ms(asked_ms: u32) -> u64 {
    let length_ms = if asked_ms == 0 { LEASE_MS } else { asked_ms };
    length_ms.clamp(LEASE_MS_MIN, LEASE_MS_MAX).into()
}

#[cfg(test)]
mod tests;
