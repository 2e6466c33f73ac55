//! What is configured of a relay.

/// A relay to keep in step with: see [`crate::peer::PeerBuilder::relay_with`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayOptions {
    pub(super) url: String,
    pub(super) priority: u32,
}

impl RelayOptions {
    /// The priority of relays for which none is given.
    pub const PRIORITY: u32 = 100;

    /// A relay at `ws://host[:port]` or `wss://...`.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), priority: Self::PRIORITY }
    }

    /// Whether it is preferred to others: a lower number is. While one works, none of a higher
    /// number is used. Of those with the same number the fastest is, or else the first.
    #[must_use]
    pub fn priority(mut self, priority: u32) -> Self {
        self.priority = priority;
        self
    }
}
