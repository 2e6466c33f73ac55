//! Conflicts: which concurrent writes cannot all be kept, found from operations.
//!
//! Automerge merges everything and says little of what a merge cost: [`get_all`] shows concurrent
//! puts on one slot, but not an edit that a concurrent delete swallowed, nor an increment of a
//! counter that somebody overwrote meanwhile. So this looks at the operations themselves, in
//! causal order, and keeps for each slot (a key of a map, an element of a list) the writes that
//! no other write has seen, and who edited inside what was there. Where more than one intent is
//! left, there is a conflict; what is found does not depend on the order in which changes came.
//!
//! Under a schema there is more that cannot be kept together: rules that a merge breaks and values
//! that cannot be read ([`open`]), and what several documents claim or refer to ([`between`]). Who looks after a conflict, and what they
//! say of it, is no part of it and replicates beside it ([`triage`]).
//!
//! Nothing here does I/O or changes a document: [`Detector`] reads changes, [`Conflict`] says what
//! it found, and [`Resolution`] is applied in a transaction of the caller.
//!
//! [`get_all`]: automerge::ReadDoc::get_all

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod between;
mod broken;
pub mod bulk;
mod carried;
mod causality;
mod conflict;
pub mod desk;
mod detector;
mod expires;
mod facts;
mod follower;
pub mod history;
pub mod hold;
mod look;
mod operation;
pub(crate) mod part;
mod pick;
pub mod policy;
mod resolution;
mod settle;
pub mod simulate;
pub mod suggest;
mod summary;
pub mod triage;
mod undone;
mod view;

pub(crate) use self::facts::referred_to;
pub(crate) use self::undone::Undone;
pub use self::{
    broken::open,
    carried::Through,
    conflict::{Code, Conflict, ConflictId, Kept, Place, Side, SlotKey},
    detector::{Detector, Unreadable},
    expires::Expires,
    facts::{Claimed, Facts, Refers},
    follower::{Follower, News},
    history::{NotAgain, Past},
    look::Content,
    pick::NoChoice,
    resolution::{Choice, Decided, Refused, Resolution},
    settle::{Settled, settle},
    summary::{SideSummary, Summary},
    view::{By, SideView, View},
};
