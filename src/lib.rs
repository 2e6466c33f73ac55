//! Concord: a replication service for collaborative data.
//!
//! Entities are Automerge documents; every peer keeps its own durable replica, and relays store
//! changes and pass them on. `ARCHITECTURE.md` is the map.

#[macro_use]
mod marks;

pub mod bench;
mod blobs;
mod digest;
pub mod entity;
mod frames;
pub mod history;
pub mod json;
#[cfg(feature = "simulation")]
pub mod mutant;
pub mod peer;
#[cfg(feature = "simulation")]
pub mod probe;
pub mod record;
pub mod relay;
pub mod replica;
pub mod review;
pub mod store;
mod tls;
pub mod worker;
