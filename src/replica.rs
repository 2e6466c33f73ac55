//! The replica: a sans-I/O engine that relays documents at the level of their change graph.
//!
//! Events go in, effects come out; time is an argument. Any number of calls of
//! [`Replica::handle`], then [`Replica::poll_effect`] until it gives `None`: what is to be sent
//! is made when it is polled, so that everything that was handled together is sent together.

mod config;
mod event;
pub mod index;

pub use config::*;
pub use event::*;

/// The engine.
#[derive(Debug)]
pub struct Replica {}

impl Replica {
    /// A replica with nothing in memory.
    pub fn new(config: Config) -> Self {
        let _ = config;
        unimplemented!()
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Now, event: Event) {
        let _ = (now, event);
        unimplemented!()
    }

    /// Gives the next thing to do, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        unimplemented!()
    }

    /// What is in memory, for metrics.
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }
}

/// What a replica holds in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Documents in memory.
    pub documents: usize,
    /// Connections.
    pub connections: usize,
    /// Bytes of chunks in memory.
    pub chunk_bytes: usize,
    /// Bytes sent but not yet drained, all connections.
    pub queued_bytes: usize,
    /// Changes waiting for their dependencies.
    pub orphans: usize,
    /// Jobs at work.
    pub jobs: usize,
}
