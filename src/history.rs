//! What became of a document: who changed what and when, how it was at any time, and how to have
//! that again.
//!
//! The changes of a document are its audit trail. Each is named by the hash of its bytes, and names
//! the changes that it builds on by theirs; so nothing that was written can be altered, taken out
//! or put in without all later names becoming others ([`verify`]). Everything else is read from
//! the changes: the [`log`], which says the same on every replica; the state [`at`] some heads;
//! the [`diff`] of two states; who wrote what is shown ([`blame`]); [`events`] for programs that
//! follow; and [`VectorClock`]s. Nothing here rewrites history: [`restore`] writes, as one more
//! change, what makes the document say again what it said; and [`without`] makes another document,
//! for a change that nobody else has taken.
//!
//! A state is named by heads: the changes that it has and nothing in it builds on. `&[]` is the
//! empty document. Heads that are not in the document are an error, never a guess.
//!
//! [`author`] and [`change_time`] say how peers write who and when.
//!
//! Nothing here does I/O. Costs are those of the part of the history that is looked at, unless a
//! function says otherwise; documents of strangers are as safe to give as others.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod audit;
mod author;
mod blame;
mod clock;
mod diff;
mod error;
mod event;
mod expanded;
mod hash;
mod log;
mod rebase;
mod restore;
mod stamp;
mod state;
mod time;
mod undo;

pub(crate) use self::expanded::expanded;
pub use self::{
    audit::{Tampered, verify, verify_document},
    author::{AUTHOR_BYTES_MAX, AuthorError, author, author_name},
    blame::{Blame, Shown, blame},
    clock::{Relation, VectorClock},
    diff::{Difference, What, diff},
    error::HistoryError,
    event::{Event, Events, Happened, NO_TYPE, events},
    log::{Entry, Order, cursor, log},
    rebase::{RebaseError, Rebased, without},
    restore::restore,
    stamp::Stamp,
    state::{at, builds_on, heads_when, json_at},
    time::{AHEAD_S_MAX, change_time},
    undo::{Steps, Undo},
};

#[cfg(test)]
mod tests;
