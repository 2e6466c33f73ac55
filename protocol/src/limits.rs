//! Every cap on what arrives from outside: a named constant with its unit and its reason, and
//! [`Limits`], the set in force. Sizes and counts are compared before anything is allocated.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Bytes of one WebSocket message. A first upload of a large document comes in one.
pub const MESSAGE_BYTES_MAX: usize = 64 * MIB;
/// Bytes of one WebSocket frame of our own clients; foreign clients send messages as one frame.
pub const FRAME_BYTES_MAX: usize = 256 * KIB;
/// Bytes of a frame from which it is compressed, where both sides can: what is smaller is mostly one
/// change, which automerge deflates itself, and costs as many packets either way.
pub const COMPRESSED_BYTES_MIN: usize = 4 * KIB;
/// Bytes that a compressed frame may have once it is not: a list of messages of our own
/// ([`FRAME_BYTES_MAX`]), or one change of the largest size. What is larger is a snapshot, which is
/// deflated; and 100 bytes of zstd can stand for all that is allowed here.
pub const INFLATED_BYTES_MAX: usize = 2 * MIB;
/// Bytes of one change chunk on the wire.
pub const CHANGE_BYTES_MAX: usize = MIB;
/// Bytes of one change once inflated. A 972 KB change can inflate to a gigabyte.
pub const CHANGE_INFLATED_BYTES_MAX: usize = 4 * MIB;
/// Operations in one change that its bytes do not pay for: a 113-byte change can declare ten
/// million nulls (22 s, 6.5 GB). A pasted text pays a byte of value for each operation.
pub const CHANGE_OPS_MAX: u64 = 100_000;
/// Operations in one change, all together: pasting, or deleting, a text of a million characters
/// at once. Deletions pay with what they delete.
pub const CHANGE_OPS_TOTAL_MAX: u64 = 1_000_000;
/// Dependencies of one change.
pub const CHANGE_DEPS_MAX: usize = 1_024;
/// Other actors named in one change.
pub const CHANGE_ACTORS_MAX: usize = 4_096;
/// Columns of one change: the format defines 14 today; more are kept as unknown.
pub const CHANGE_COLUMNS_MAX: usize = 32;
/// Bytes of a change's message.
pub const CHANGE_MESSAGE_BYTES_MAX: usize = 4 * KIB;
/// Sequence numbers and operation counters stay below this. At 2^32 every later local edit by
/// anybody panics in automerge 0.12; the margin leaves honest peers two billion edits.
pub const COUNTER_MAX: u64 = 1 << 31;
/// Changes in one sync message.
pub const SYNC_CHANGES_MAX: usize = 100_000;
/// Heads in one sync message that is read.
pub const SYNC_HEADS_MAX: usize = 4_096;
/// Hashes that one sync message may ask for by name.
pub const SYNC_NEED_MAX: usize = 100_000;
/// Bloom filters in one sync message: 20,000 cost 12.9 s.
pub const SYNC_HAVES_MAX: usize = 8;
/// Bits per entry and probes of a bloom filter: zero bits panic automerge 0.12, ten million
/// probes cost 88 s. Automerge itself writes 10 and 7.
pub const BLOOM_PARAM_MAX: u32 = 64;
/// Bytes of a document chunk, which is opened only in a worker process.
pub const DOCUMENT_BYTES_MAX: usize = 256 * MIB;
/// Bytes of one ephemeral message: presence, not data.
pub const EPHEMERAL_BYTES_MAX: usize = 64 * KIB;
/// Storage ids that one connection may subscribe to.
pub const REMOTE_SUBSCRIPTIONS_MAX: usize = 256;
/// Changes that wait for their dependencies, a document.
pub const ORPHANS_MAX: usize = 1_000;
/// Bytes of changes that wait for their dependencies, a document.
pub const ORPHAN_BYTES_MAX: usize = 8 * MIB;
/// Bytes queued for one connection.
pub const QUEUE_BYTES_MAX: usize = 8 * MIB;
/// Documents that one connection may subscribe to.
pub const DOCUMENTS_PER_CONNECTION_MAX: usize = 10_000;
/// Bytes of a schema that a relay tells its peers of. The largest that people wrote for comparable
/// systems have some 100 KiB, and each peer holds one.
pub const SCHEMA_BYTES_MAX: usize = MIB;
/// Bytes of the path of a call: a route, a name and a filter that somebody wrote by hand.
pub const CALL_PATH_BYTES_MAX: usize = 4 * KIB;
/// Bytes of the body of a call: a decision, with a value that somebody wrote by hand, or a text.
pub const CALL_BODY_BYTES_MAX: usize = MIB;
/// Calls of one connection that are at work, or whose answers it has not taken yet.
pub const CALLS_MAX: usize = 8;
/// Bytes of the name of a user or a device, as people read them.
pub const SESSION_NAME_BYTES_MAX: usize = 256;
/// Leases that one connection may hold at once: what somebody has open to edit alone.
pub const LEASES_PER_CONNECTION_MAX: usize = 64;
/// Milliseconds of the shortest lease: renewed at a third, it takes little of a phone's radio.
pub const LEASE_MS_MIN: u32 = 10_000;
/// Milliseconds of the longest lease: whoever is gone without a word blocks others no longer.
pub const LEASE_MS_MAX: u32 = 600_000;
/// Milliseconds of a lease that does not say.
pub const LEASE_MS: u32 = 30_000;
/// Milliseconds that a lease outlives its connection, and that a relay which has just started waits
/// for those who held one: a peer that lost a relay has dialled it several times by then.
pub const LEASE_GRACE_MS: u32 = 15_000;
/// Milliseconds in which who held a lease last may still bring what was written under it, unless it
/// says before that it knows that it is over: what is on its way when somebody takes over.
pub const LEASE_LATE_MS: u32 = 60_000;
/// Milliseconds a new connection has to say who it is.
pub const HANDSHAKE_MS_MAX: u64 = 10_000;

/// Bytes of a piece of an attachment on the wire, and in a store: all have so many but the last. Small
/// enough that a document waits behind little, large enough that 32 bytes to check each by are few.
pub const BLOB_CHUNK_BYTES: usize = 64 * KIB;
/// Bytes of one attachment: a photograph has some, a minute of video a hundred MiB.
pub const BLOB_BYTES_MAX: u64 = 256 * MIB as u64;
/// Bytes of all attachments of a tenant.
pub const BLOB_TOTAL_BYTES_MAX: u64 = 10 * 1024 * MIB as u64;
/// Bytes of the list that the pieces of an attachment are checked by: 32 each, of up to 4 GiB.
pub const BLOB_OUTLINE_BYTES_MAX: usize = 2 * MIB;
/// Pieces of attachments that one connection may have under way; a peer has four.
pub const BLOB_PIECES_MAX: usize = 16;

const _: () = {
    assert!(BLOB_BYTES_MAX <= (BLOB_OUTLINE_BYTES_MAX / 32 * BLOB_CHUNK_BYTES) as u64);
    assert!(CHANGE_BYTES_MAX <= MESSAGE_BYTES_MAX);
    assert!(COMPRESSED_BYTES_MIN <= FRAME_BYTES_MAX && FRAME_BYTES_MAX <= INFLATED_BYTES_MAX);
    assert!(CHANGE_BYTES_MAX < INFLATED_BYTES_MAX && INFLATED_BYTES_MAX <= MESSAGE_BYTES_MAX);
    assert!(CHANGE_BYTES_MAX <= CHANGE_INFLATED_BYTES_MAX);
    assert!(CHANGE_INFLATED_BYTES_MAX <= ORPHAN_BYTES_MAX);
    assert!(SCHEMA_BYTES_MAX <= MESSAGE_BYTES_MAX && CALL_BODY_BYTES_MAX <= MESSAGE_BYTES_MAX);
    assert!(LEASE_MS_MIN <= LEASE_MS && LEASE_MS <= LEASE_MS_MAX);
    assert!(CHANGE_OPS_MAX <= CHANGE_OPS_TOTAL_MAX);
    assert!(CHANGE_OPS_TOTAL_MAX < COUNTER_MAX);
};

/// The limits in force. [`Limits::default`] is what DESIGN section 7 lists.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// See [`MESSAGE_BYTES_MAX`].
    pub message_bytes: usize,
    /// See [`CHANGE_BYTES_MAX`].
    pub change_bytes: usize,
    /// See [`CHANGE_INFLATED_BYTES_MAX`].
    pub change_inflated_bytes: usize,
    /// See [`CHANGE_OPS_MAX`].
    pub change_ops: u64,
    /// See [`CHANGE_OPS_TOTAL_MAX`].
    pub change_ops_total: u64,
    /// See [`CHANGE_DEPS_MAX`].
    pub change_deps: usize,
    /// See [`CHANGE_ACTORS_MAX`].
    pub change_actors: usize,
    /// See [`CHANGE_COLUMNS_MAX`].
    pub change_columns: usize,
    /// See [`CHANGE_MESSAGE_BYTES_MAX`].
    pub change_message_bytes: usize,
    /// See [`SYNC_CHANGES_MAX`].
    pub sync_changes: usize,
    /// See [`SYNC_HEADS_MAX`].
    pub sync_heads: usize,
    /// See [`SYNC_NEED_MAX`].
    pub sync_need: usize,
    /// See [`SYNC_HAVES_MAX`].
    pub sync_haves: usize,
    /// See [`DOCUMENT_BYTES_MAX`].
    pub document_bytes: usize,
    /// See [`EPHEMERAL_BYTES_MAX`].
    pub ephemeral_bytes: usize,
    /// See [`REMOTE_SUBSCRIPTIONS_MAX`].
    pub remote_subscriptions: usize,
    /// See [`ORPHANS_MAX`].
    pub orphans: usize,
    /// See [`ORPHAN_BYTES_MAX`].
    pub orphan_bytes: usize,
    /// See [`QUEUE_BYTES_MAX`].
    pub queue_bytes: usize,
    /// See [`DOCUMENTS_PER_CONNECTION_MAX`].
    pub documents_per_connection: usize,
    /// See [`SCHEMA_BYTES_MAX`].
    pub schema_bytes: usize,
    /// See [`CALL_PATH_BYTES_MAX`].
    pub call_path_bytes: usize,
    /// See [`CALL_BODY_BYTES_MAX`].
    pub call_body_bytes: usize,
    /// See [`CALLS_MAX`].
    pub calls: usize,
    /// See [`HANDSHAKE_MS_MAX`].
    pub handshake_ms: u64,
    /// See [`BLOB_BYTES_MAX`]; 4 GiB at most.
    pub blob_bytes: u64,
    /// See [`BLOB_TOTAL_BYTES_MAX`].
    pub blob_total_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: MESSAGE_BYTES_MAX,
            change_bytes: CHANGE_BYTES_MAX,
            change_inflated_bytes: CHANGE_INFLATED_BYTES_MAX,
            change_ops: CHANGE_OPS_MAX,
            change_ops_total: CHANGE_OPS_TOTAL_MAX,
            change_deps: CHANGE_DEPS_MAX,
            change_actors: CHANGE_ACTORS_MAX,
            change_columns: CHANGE_COLUMNS_MAX,
            change_message_bytes: CHANGE_MESSAGE_BYTES_MAX,
            sync_changes: SYNC_CHANGES_MAX,
            sync_heads: SYNC_HEADS_MAX,
            sync_need: SYNC_NEED_MAX,
            sync_haves: SYNC_HAVES_MAX,
            document_bytes: DOCUMENT_BYTES_MAX,
            ephemeral_bytes: EPHEMERAL_BYTES_MAX,
            remote_subscriptions: REMOTE_SUBSCRIPTIONS_MAX,
            orphans: ORPHANS_MAX,
            orphan_bytes: ORPHAN_BYTES_MAX,
            queue_bytes: QUEUE_BYTES_MAX,
            documents_per_connection: DOCUMENTS_PER_CONNECTION_MAX,
            schema_bytes: SCHEMA_BYTES_MAX,
            call_path_bytes: CALL_PATH_BYTES_MAX,
            call_body_bytes: CALL_BODY_BYTES_MAX,
            calls: CALLS_MAX,
            handshake_ms: HANDSHAKE_MS_MAX,
            blob_bytes: BLOB_BYTES_MAX,
            blob_total_bytes: BLOB_TOTAL_BYTES_MAX,
        }
    }
}
