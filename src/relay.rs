//! The relay: sockets, clocks and storage around [`crate::replica`], on tokio.
//!
//! Nothing in here decides what the replica should decide. A connection is one task that frames,
//! decodes and routes (`connection`); a shard is one task that owns one replica and carries out
//! its effects (`shard`); `review` looks for conflicts in documents that
//! changed; `catalogue` says which did; `server` starts, watches and ends them.

mod addresses;
mod api;
mod blobs;
mod catalogue;
mod clock;
mod config;
mod connection;
mod directory;
mod gathered;
mod http;
mod hub;
mod listen;
mod metered;
mod metrics;
mod origin;
mod outgoing;
mod rate;
mod review;
mod schema;
mod server;
mod sessions;
mod shard;
mod starts;
mod work;

pub use config::*;
pub use listen::{Accepted, Accepting, ByteStream, Listener, Listeners};
pub use origin::AllowedOrigins;
pub use rate::{RateLimits, SUSTAINED_MS};
pub use server::{Relay, StartError};
