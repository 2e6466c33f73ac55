//! The relay over real sockets: what clients, honest and not, see of it.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "tests fail by panicking, and make bytes of counters"
)]

#[path = "relay_server/admittance.rs"]
mod admittance;
#[path = "relay_server/batches.rs"]
mod batches;
#[path = "relay_server/calls.rs"]
mod calls;
#[path = "relay_server/client.rs"]
mod client;
#[path = "relay_server/frames.rs"]
mod frames;
#[path = "relay_server/handshake.rs"]
mod handshake;
#[path = "relay_server/liveness.rs"]
mod liveness;
#[path = "relay_server/metrics.rs"]
mod metrics;
#[path = "relay_server/process.rs"]
mod process;
#[path = "relay_server/schema.rs"]
mod schema;
#[path = "relay_server/shutdown.rs"]
mod shutdown;
#[path = "relay_server/world.rs"]
mod world;
