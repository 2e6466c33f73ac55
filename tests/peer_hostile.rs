//! The peer and a relay that means harm: whatever it sends, the peer goes on, keeps its own edits,
//! takes in nothing that is broken, and syncs with an honest relay afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test ends where it fails, and makes bytes of numbers"
)]

#[path = "relay_hostile/chunks.rs"]
#[allow(dead_code, reason = "each test crate uses some of it")]
mod chunks;
#[path = "peer_hostile/corpus.rs"]
mod corpus;
#[path = "peer_hostile/frames.rs"]
mod frames;
#[path = "relay_hostile/made_up.rs"]
mod made_up;
#[path = "peer_hostile/mallory.rs"]
mod mallory;
#[path = "peer_hostile/poison.rs"]
mod poison;
#[path = "peer_hostile/victim.rs"]
mod victim;
mod worker_common;

use std::time::Duration;

/// Long enough for a busy machine; nothing waits for it where all is well.
pub(crate) const SOON: Duration = Duration::from_secs(20);
