//! Why a connection was ended, as a WebSocket close code.

/// A close code. 4400 to 4499 are permanent: trying again unchanged will fail again. 4500 to
/// 4599 mean "come back later".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
#[non_exhaustive]
pub enum CloseCode {
    /// The other side asked to end it, or nothing more is to be said.
    Normal = 1000,
    /// A frame or message larger than the limit.
    TooBig = 1009,
    /// The reader did not take what it subscribed to; it may reconnect and catch up.
    Backpressure = 1013,
    /// Who this is, is not known.
    Unauthorised = 4401,
    /// Known, but not allowed.
    Forbidden = 4403,
    /// The document was deleted.
    Deleted = 4404,
    /// Sent what the protocol does not allow.
    Protocol = 4409,
    /// A newer connection with the same peer id took this one's place.
    Replaced = 4410,
    /// Too many frames, bytes or operations in the time given.
    RateLimited = 4429,
    /// No handshake within the time given.
    HandshakeTimeout = 4408,
    /// The relay is shutting down; reconnect elsewhere or later.
    Draining = 4503,
    /// The relay cannot store at the moment; nothing was acknowledged.
    StorageFailed = 4507,
    /// The other side stopped answering pings.
    Dead = 4508,
}

impl CloseCode {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// Whether the same client may succeed when it reconnects unchanged.
    pub const fn is_transient(self) -> bool {
        let code = self.code();
        !(code >= 4400 && code < 4500) || matches!(self, Self::RateLimited | Self::HandshakeTimeout)
    }
}
