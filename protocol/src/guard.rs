//! The guard: what is known of an Automerge chunk before automerge sees it.

use bytes::Bytes;

use crate::{ActorId, ChangeHash, Limits};

/// What a chunk says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChunkKind {
    /// A whole document (type 0): opened only in a worker process.
    Document,
    /// A change (type 1).
    Change,
    /// A deflated change (type 2).
    CompressedChange,
    /// A bundle of changes (type 3): no client sends one, so none is taken.
    Bundle,
}

/// One chunk of a run of chunks: framed, but not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What it says it is.
    pub kind: ChunkKind,
    /// All of it, header included.
    pub bytes: Bytes,
}

/// What the structural check found in a change. The columns were summed, never expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeHeader {
    /// Its name; the checksum in the chunk agrees.
    pub hash: ChangeHash,
    /// The changes it builds on, in the order written.
    pub deps: Vec<ChangeHash>,
    /// Its writer.
    pub actor: ActorId,
    /// Its number among its writer's changes, from 1.
    pub seq: u32,
    /// The counter of its first operation.
    pub start_op: u32,
    /// How many operations it has.
    pub ops: u32,
    /// When, seconds since 1970 by its writer's clock; 0 where the writer gave none.
    pub time: i64,
    /// Other writers whose operations it names; position 1 and up in `objects_named`.
    pub other_actors: Vec<ActorId>,
    /// Counters of the objects (maps, lists, texts, tables) that it makes.
    pub objects_made: Vec<u32>,
    /// Objects that its operations are in, the root left out, each once: counter and actor
    /// position, where 0 is `actor` and `n` is `other_actors[n - 1]`.
    pub objects_named: Vec<(u32, u32)>,
    /// Bytes of the chunk once inflated, header included.
    pub inflated_bytes: u32,
}

impl ChangeHeader {
    /// The counter of its last operation; `start_op - 1` for a change without operations.
    pub fn max_op(&self) -> u32 {
        self.start_op.saturating_add(self.ops).saturating_sub(1)
    }
}

/// Why a chunk is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// It ended too early.
    #[error("the chunk is cut off")]
    Truncated,
}

/// Cuts a run of chunks at its headers. Checks framing only: magic bytes, known type, exact
/// length, and the size limit of each kind.
///
/// # Errors
/// [`GuardError`] at the first chunk that is not one.
pub fn split(data: &Bytes, limits: &Limits) -> Result<Vec<Chunk>, GuardError> {
    let _ = (data, limits);
    unimplemented!()
}

/// Checks one change chunk, plain or deflated, in time linear in its inflated bytes.
///
/// # Errors
/// [`GuardError`] for whatever an honest client does not write.
pub fn check_change(chunk: &Bytes, limits: &Limits) -> Result<ChangeHeader, GuardError> {
    let _ = (chunk, limits);
    unimplemented!()
}

/// Checks what can be known of a document chunk from outside: framing, size and checksum.
///
/// # Errors
/// [`GuardError`] for anything else.
pub fn check_document(chunk: &Bytes, limits: &Limits) -> Result<(), GuardError> {
    let _ = (chunk, limits);
    unimplemented!()
}
