//! Leases as programs hold them: see [`Document::lease`].

use std::{fmt, sync::Arc, time::Duration};

use concord_protocol::{
    LeaseAction, LeaseHolder as Told, LeaseRefusal, LeaseState, SessionId,
    limits::{LEASE_MS, LEASE_MS_MAX},
};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use super::{
    Document, Peer,
    core::Command,
    engine::millis,
    held::Held,
    leases::{Answered, Granted},
    replace,
};
use crate::entity::{LeaseRule, type_of};

/// Milliseconds that a request waits for the answer of a relay.
const ANSWER_MS: u64 = 10_000;

/// One run of a program with a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its name, which is new in every run.
    pub id: SessionId,
    /// Whose it is: the author, if there is one ([`super::PeerBuilder::author`]).
    pub user: Option<String>,
    /// Where it runs ([`super::PeerBuilder::device`]).
    pub device: Option<String>,
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHolder {
    /// Whose session it is, as it says itself.
    pub user: Option<String>,
    /// Where it runs, as it says itself.
    pub device: Option<String>,
    /// Which one.
    pub session: SessionId,
    /// The number of the grant, higher than those of all before it at the same relay.
    pub fence: u64,
    /// What was left of it when it was told, if it is not renewed.
    pub left: Duration,
}

impl From<&Told> for LeaseHolder {
    fn from(told: &Told) -> Self {
        let Told { who, fence, left_ms } = told;
        Self {
            user: who.user.clone(),
            device: who.device.clone(),
            session: who.session.clone(),
            fence: *fence,
            left: Duration::from_millis((*left_ms).into()),
        }
    }
}

impl fmt::Display for LeaseHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.user.as_deref().unwrap_or("somebody"))?;
        match &self.device {
            Some(device) => write!(f, " on {device}"),
            None => Ok(()),
        }
    }
}

/// How a lease stands that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseStanding {
    /// It is ours. Also without a connection, for 15 s at most: a relay waits no longer for who holds
    /// it.
    Held,
    /// No relay has answered in time, and another may hold it. One is asked as soon as there is one.
    Lapsed,
    /// Somebody else holds it: this session is to write no more.
    Lost(LeaseHolder),
    /// It was given back.
    Released,
}

/// There is no lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Somebody else holds it.
    #[error("{0} holds the lease, for {left} s more unless it is renewed: wait, or take it over", left = .0.left.as_secs())]
    Held(LeaseHolder),
    /// The relay has just started, and waits for who held it before.
    #[error(
        "the relay has just started and waits for who held the lease before: try again in 15 s"
    )]
    Settling,
    /// This peer holds as many as a relay gives to one.
    #[error("this peer holds as many leases as a relay gives to one: release some")]
    Limit,
    /// No relay that gives leases is connected.
    #[error("no relay that gives leases is connected: connect to one")]
    Offline,
    /// The connection ended before the answer.
    #[error("the connection ended before the relay answered: try again")]
    Lost,
    /// No answer in time.
    #[error("the relay did not answer in time: try again")]
    TimedOut,
    /// The peer was closed.
    #[error("the peer is closed")]
    Closed,
}

/// How a lease is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseOptions {
    length: Duration,
    takes_over: bool,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        Self { length: Duration::from_millis(LEASE_MS.into()), takes_over: false }
    }
}

impl LeaseOptions {
    /// For how long it is granted at a time: how long others have to wait should this program stand
    /// still while its connection is there. Should it end, or its connection be lost, they wait 15 s at
    /// most. Relays give from 10 s to 10 min; 30 s if it is not said.
    #[must_use]
    pub fn length(mut self, length: Duration) -> Self {
        self.length = length;
        self
    }

    /// Takes it from whoever holds it.
    #[must_use]
    pub fn take_over(mut self) -> Self {
        self.takes_over = true;
        self
    }
}

/// A lease that was granted: it is renewed for as long as this lives, and given back when it is
/// dropped.
#[derive(Debug)]
pub struct Lease {
    document: Document,
    granted: Granted,
}

impl Lease {
    /// The number of the grant, as of now. It goes up with every grant of the document at its relay,
    /// so that whatever it is shown to can tell an older one; a relay that starts again grants anew.
    pub fn fence(&self) -> u64 {
        self.granted.term.fence()
    }

    /// How it stands, now and from now on.
    pub fn standing(&self) -> watch::Receiver<LeaseStanding> {
        self.granted.standing.clone()
    }

    /// Whether it is ours now, by the clock: also where [`Lease::standing`] has not told yet that its
    /// time is up, because the process was stopped meanwhile.
    pub fn is_held(&self) -> bool {
        let now_ms = millis(self.document.peer().0.started.elapsed());
        let is_over = self.granted.term.until_ms() <= now_ms;
        !is_over && *self.granted.standing.borrow() == LeaseStanding::Held
    }

    /// Waits until it is not ours any more, and tells why: somebody else holds it, or no relay could
    /// be asked.
    pub async fn ended(&self) -> LeaseStanding {
        let mut standing = self.standing();
        let ended = standing.wait_for(|standing| *standing != LeaseStanding::Held).await;
        // A peer that is closed gave it back.
        ended.map_or(LeaseStanding::Released, |standing| standing.clone())
    }

    /// Neither renews it any more nor gives it back: another run of the same session
    /// ([`super::PeerBuilder::session`]) goes on with it. It ends soon after this peer's connection.
    pub fn leave(self) {
        let document = self.document.id().clone();
        // A peer that is closed has given it back.
        let _ = self.document.peer().0.engine.send(Command::Leave(document));
    }

    /// Gives it back, and waits until the relay knows.
    ///
    /// # Errors
    /// [`LeaseError`] if the relay does not hear of it; its time is up soon.
    pub async fn release(self) -> Result<(), LeaseError> {
        let document = self.document.clone();
        drop(self);
        // Behind what the drop has said.
        document.ask_lease(LeaseAction::Show, Duration::ZERO).await.map(|_| ())
    }
}

impl Peer {
    /// This run of this program, as others see it.
    pub fn session(&self) -> Session {
        let who = &self.0.who;
        Session { id: who.session.clone(), user: who.user.clone(), device: who.device.clone() }
    }
}

impl Document {
    /// The session of the peer whose document it is: see [`Peer::session`].
    pub fn session(&self) -> Session {
        self.peer().session()
    }

    /// Holds the lease of the document, to edit it alone, until what this gives is dropped. The
    /// relay decides, and tells everybody who has the document open. Others go on being able to
    /// write, and are asked not to; where the schema says `lease = "required"` the relay refuses
    /// what they write.
    ///
    /// # Errors
    /// [`LeaseError`]: somebody else holds it, or no relay can be asked.
    ///
    /// ```no_run
    /// # async fn example(document: concord::peer::Document) -> Result<(), Box<dyn std::error::Error>> {
    /// let lease = document.lease().await?;
    /// // Edit alone; if somebody takes over, stop.
    /// println!("stop: {:?}", lease.ended().await);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn lease(&self) -> Result<Lease, LeaseError> {
        self.lease_with(LeaseOptions::default()).await
    }

    /// As [`Document::lease`], with more than the defaults.
    ///
    /// # Errors
    /// As [`Document::lease`].
    pub async fn lease_with(&self, options: LeaseOptions) -> Result<Lease, LeaseError> {
        let LeaseOptions { length, takes_over } = options;
        let action = if takes_over { LeaseAction::TakeOver } else { LeaseAction::Acquire };
        let Answered { state, granted } = self.ask_lease(action, length).await?;
        let LeaseState { why, holder, .. } = state;
        if let Some(granted) = granted {
            return Ok(Lease { document: self.clone(), granted });
        }
        Err(match (why, holder) {
            (Some(LeaseRefusal::Settling), _) => LeaseError::Settling,
            (Some(LeaseRefusal::Limit), _) => LeaseError::Limit,
            (_, Some(holder)) => LeaseError::Held((&holder).into()),
            (_, None) => LeaseError::Lost,
        })
    }

    /// Asks the relay who holds the lease.
    ///
    /// # Errors
    /// [`LeaseError`] if no relay can be asked.
    pub async fn lease_holder(&self) -> Result<Option<LeaseHolder>, LeaseError> {
        let answered = self.ask_lease(LeaseAction::Show, Duration::ZERO).await?;
        Ok(answered.state.holder.as_ref().map(LeaseHolder::from))
    }

    /// Who else holds the lease, as far as is known here, now and from now on: a relay says so when
    /// it changes, to whoever has the document open.
    pub fn leased_to(&self) -> watch::Receiver<Option<LeaseHolder>> {
        self.held().leased_to.subscribe()
    }

    /// Who keeps this session from writing: somebody else holds the lease, as far as is known, and
    /// the type requires it.
    pub(super) fn kept_off(&self) -> Option<LeaseHolder> {
        let other = self.held().leased_to.borrow().clone()?;
        let schema = self.schema()?;
        let name = self.read(|doc| type_of(doc, &schema.root_key)).ok().flatten()?;
        let is_required = schema.types.get(&name).is_some_and(|of| of.lease == LeaseRule::Required);
        is_required.then_some(other)
    }

    /// Gives the lease back that another run of this session holds.
    ///
    /// # Errors
    /// [`LeaseError`] if the relay does not hear of it.
    pub async fn release_lease(&self) -> Result<Option<LeaseHolder>, LeaseError> {
        let answered = self.ask_lease(LeaseAction::Release, Duration::ZERO).await?;
        Ok(answered.state.holder.as_ref().map(LeaseHolder::from))
    }

    async fn ask_lease(
        &self,
        action: LeaseAction,
        length: Duration,
    ) -> Result<Answered, LeaseError> {
        let for_ms = u32::try_from(length.as_millis()).unwrap_or(LEASE_MS_MAX);
        let (done, answered) = oneshot::channel();
        let asked = Command::Lease(self.id().clone(), action, for_ms, done);
        self.peer().0.engine.send(asked).map_err(|_| LeaseError::Closed)?;
        let answered = timeout(Duration::from_millis(ANSWER_MS), answered).await;
        answered.map_err(|_| LeaseError::TimedOut)?.map_err(|_| LeaseError::Closed)?
    }
}

/// Tells a document who else holds its lease.
pub(super) fn tell(held: &Arc<Held>, other: Option<&Told>) {
    let other = other.map(LeaseHolder::from);
    replace(&held.leased_to, other);
}
