//! What a relay is told when it starts.

use concord_protocol::Limits;

use crate::replica;

use super::{AllowedOrigins, RateLimits};

/// Where clients connect, as the JavaScript sync server has it.
pub const PORT: u16 = 3030;
/// Where `/healthz`, `/readyz` and `/metrics` are.
pub const ADMIN_PORT: u16 = 9090;
/// The address of both unless told otherwise: there are no accounts yet.
pub const HOST: &str = "127.0.0.1";
/// Milliseconds between our pings: within the 5 to 15 s at which networks keep a socket open.
pub const PING_MS: u64 = 15_000;
/// Milliseconds of silence after which a connection is dead. Browsers stall for 30 s and more.
pub const PONG_TIMEOUT_MS: u64 = 60_000;
/// Connections at once; more are turned away at accept. 20 KB each makes 1 GB.
pub const CONNECTIONS_MAX: usize = 50_000;
/// Connections at once from one address: a household or an office behind one has hundreds, and
/// nobody alone takes all of [`CONNECTIONS_MAX`].
pub const CONNECTIONS_PER_ADDRESS: usize = 1_024;

/// Milliseconds for which an attachment is kept that nothing refers to: 30 days. What history and
/// undo bring back within that is whole, and so is what was attached offline and is named later.
pub const BLOB_GRACE_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// Configuration of a [`super::Relay`].
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// The address that clients connect to, a name or a number.
    pub host: String,
    /// Its port; 0 for any that is free.
    pub port: u16,
    /// Address and port of the admin listener, if there is to be one.
    pub admin: Option<(String, u16)>,
    /// Listen beyond this machine although nobody has to say who they are.
    pub allow_anonymous: bool,
    /// How many replicas share the documents; 0 for one a core.
    pub shards: usize,
    /// See [`PING_MS`].
    pub ping_ms: u64,
    /// See [`PONG_TIMEOUT_MS`].
    pub pong_timeout_ms: u64,
    /// See [`CONNECTIONS_MAX`].
    pub connections: usize,
    /// See [`CONNECTIONS_PER_ADDRESS`]; 0 for any number. Of IPv6, networks of 64 bits are
    /// counted. Addresses of this machine are not: a proxy stands there for all its clients.
    pub connections_per_address: usize,
    /// Which web pages may connect.
    pub allowed_origins: AllowedOrigins,
    /// What one connection may send.
    pub rates: RateLimits,
    /// Caps on what comes from outside, of the relay and of its replicas.
    pub limits: Limits,
    /// Milliseconds without an event after which a document leaves memory.
    pub idle_ms: u64,
    /// Milliseconds that a reader may leave its queue full before it is cut off.
    pub stalled_ms: u64,
    /// Materialise every change before it is stored and passed on.
    pub strict: bool,
    /// Look for conflicts in documents that change, and serve them under `/v1/conflicts`.
    pub review: bool,
    /// Take compressed frames (zstd), and send them to whoever takes them.
    pub compression: bool,
    /// See [`BLOB_GRACE_MS`]. Only with [`Self::review`] and a schema, without which it is not known
    /// what refers to what, is anything removed.
    pub blob_grace_ms: u64,
    /// The text of a schema file: what its policies decide is decided, and is no conflict.
    pub schema: Option<String>,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            host: HOST.to_owned(),
            port: PORT,
            admin: Some((HOST.to_owned(), ADMIN_PORT)),
            allow_anonymous: false,
            shards: 0,
            ping_ms: PING_MS,
            pong_timeout_ms: PONG_TIMEOUT_MS,
            connections: CONNECTIONS_MAX,
            connections_per_address: CONNECTIONS_PER_ADDRESS,
            allowed_origins: AllowedOrigins::default(),
            rates: RateLimits::default(),
            limits: Limits::default(),
            idle_ms: replica::IDLE_MS,
            stalled_ms: replica::STALLED_MS,
            strict: false,
            review: true,
            compression: true,
            blob_grace_ms: BLOB_GRACE_MS,
            schema: None,
        }
    }
}

impl RelayConfig {
    /// How many shards: as told, or one a core.
    pub(super) fn shard_count(&self) -> usize {
        /// More than any machine has cores; keeps the shard number in 16 bits.
        const SHARDS_MAX: usize = 1_024;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = if self.shards == 0 { cores() } else { self.shards };
        wanted.clamp(1, SHARDS_MAX)
    }
}
