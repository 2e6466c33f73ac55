//! Leases: one session at a time edits a document alone (`concord.v1`, [`crate::Feature::Leases`]).
//!
//! The relay is the authority. All times are lengths, measured by the clock of whoever reads them
//! from when they came: wall clocks need not agree. Each grant has a *fence*, a number that is
//! higher than that of every grant of the document before it by this relay, also in earlier runs.

use crate::SessionId;

/// Who is at the other end of a connection, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// One run of a program.
    pub session: SessionId,
    /// Whose: the author of its changes.
    pub user: Option<String>,
    /// Where it runs, in words.
    pub device: Option<String>,
}

/// What is asked about a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeaseAction {
    /// To hold it, if nobody else does.
    Acquire,
    /// To give it back; or to say that it is known to be lost.
    Release,
    /// To go on holding it.
    Renew,
    /// To be told who holds it.
    Show,
    /// To hold it, whoever does.
    TakeOver,
}

impl LeaseAction {
    const ALL: [Self; 5] = [Self::Acquire, Self::Release, Self::Renew, Self::Show, Self::TakeOver];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Acquire => "acquire",
            Self::Release => "release",
            Self::Renew => "renew",
            Self::Show => "show",
            Self::TakeOver => "take-over",
        }
    }

    /// Reads the name on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

/// A request about the lease of a document. Who asks is who joined ([`SessionInfo`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRequest {
    /// What the answer repeats.
    pub id: u32,
    /// What is wanted.
    pub action: LeaseAction,
    /// For how long, in milliseconds; 0 is the relay's default. The relay keeps it within its
    /// bounds.
    pub for_ms: u32,
    /// The grant that is renewed or given back; 0 where there is none.
    pub fence: u64,
}

/// Who holds a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseHolder {
    /// Who.
    pub who: SessionInfo,
    /// The number of the grant.
    pub fence: u64,
    /// Milliseconds that are left of it, if it is not renewed.
    pub left_ms: u32,
}

/// Why a request about a lease was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LeaseRefusal {
    /// Somebody else holds it.
    Held,
    /// The connection holds as many as it may.
    Limit,
    /// The relay has just started: who held it before may come back for it.
    Settling,
}

impl LeaseRefusal {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Limit => "limit",
            Self::Settling => "settling",
        }
    }

    /// Reads the name on the wire.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Held, Self::Limit, Self::Settling].into_iter().find(|why| why.as_str() == text)
    }
}

/// How the lease of a document stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseState {
    /// Which request it answers. `None`: it is told because it changed.
    pub id: Option<u32>,
    /// Why what was asked for was not granted.
    pub why: Option<LeaseRefusal>,
    /// Who holds it, if anybody does.
    pub holder: Option<LeaseHolder>,
}
