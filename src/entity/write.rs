//! Writes that merge well.

mod place;

pub use place::{NoPlace, is_place, place_between};
