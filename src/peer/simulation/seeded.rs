//! The time and names of a simulation: the same for the same seed and the same calls.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::{peer::home::Surroundings, replica::Now};

#[derive(Debug)]
pub(super) struct Seeded {
    seed: [u8; 32],
    drawn: AtomicU64,
    seconds: AtomicI64,
}

impl Seeded {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self { seed, drawn: AtomicU64::new(0), seconds: AtomicI64::new(0) }
    }

    /// From now on it is this time.
    pub(super) fn set(&self, now: Now) {
        let seconds = i64::try_from(now.wall_ms / 1_000).unwrap_or(i64::MAX);
        self.seconds.store(seconds, Ordering::Relaxed);
    }
}

impl Surroundings for Seeded {
    fn seconds(&self) -> i64 {
        self.seconds.load(Ordering::Relaxed)
    }

    fn name(&self) -> [u8; 16] {
        let count = self.drawn.fetch_add(1, Ordering::Relaxed);
        let block = Sha256::new().chain_update(self.seed).chain_update(count.to_le_bytes());
        let mut name = [0; 16];
        name.copy_from_slice(&block.finalize()[..16]);
        name
    }
}
