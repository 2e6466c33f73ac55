//! The replica: a sans-I/O engine that relays documents at the level of their change graph.

mod event;
pub mod index;

pub use event::*;
