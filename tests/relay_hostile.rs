//! Bad input over real sockets: whatever one peer sends, the relay goes on and honest clients
//! notice nothing.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test ends where it fails, and makes bytes of numbers"
)]

#[path = "relay_hostile/attacker.rs"]
mod attacker;
#[path = "relay_hostile/chunks.rs"]
mod chunks;
#[path = "relay_server/client.rs"]
#[allow(dead_code, reason = "each test crate uses some of it")]
mod client;
#[path = "relay_hostile/corpus.rs"]
mod corpus;
#[path = "relay_hostile/handmade.rs"]
mod handmade;
#[path = "relay_hostile/honest.rs"]
mod honest;
#[path = "relay_hostile/made_up.rs"]
mod made_up;
#[path = "relay_hostile/replica.rs"]
mod replica;
mod worker_common;
#[path = "relay_hostile/world.rs"]
mod world;
