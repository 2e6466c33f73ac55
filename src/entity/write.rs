//! Writes that merge well, each as its kind wants: texts by what changed in them, sets so that what
//! is added stays, counters by what is added, order by places.
//!
//! A [`Writer`] writes into a transaction of the caller. Fields are named by a path: `["summary"]`,
//! `["address", "street"]`, `["links", "home"]`, `["lines", "2", "amount"]`.

mod place;
mod value;
mod writer;

#[cfg(test)]
mod tests;

pub(super) use value::{clear, set};
pub(super) use writer::scalar;

pub use place::{NoPlace, is_place, place_between};
pub use writer::{WriteError, Writer};
