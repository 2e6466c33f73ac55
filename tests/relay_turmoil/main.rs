//! The relay's and the peer's own tokio code on a simulated network with simulated time: what
//! deadlines, lost packets, dead connections and slow readers do to them. All times in here are
//! simulated; nothing waits for a real clock.

#![allow(
    clippy::unwrap_used,
    clippy::unchecked_time_subtraction,
    reason = "a test that fails here says where"
)]

mod dialling;
mod drain;
mod flapping;
mod half_open;
mod handshake;
mod host;
mod log;
mod mid_sync;
mod net;
mod one_way;
mod raw;
mod replaced;
mod slow;
mod world;
