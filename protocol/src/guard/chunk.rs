//! The frame around every chunk: magic bytes, checksum, type, length.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{GuardError, change::inflate};
use crate::{
    ChangeHash, Limits,
    leb::{self, Reader},
};

/// Opens every chunk.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// Magic bytes, checksum and type; the length follows.
const FIXED_LEN: usize = 9;

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

impl ChunkKind {
    /// The type byte.
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Document => 0,
            Self::Change => 1,
            Self::CompressedChange => 2,
            Self::Bundle => 3,
        }
    }

    /// What one of this kind may have, in bytes with its header, and what to call it.
    const fn limit(self, limits: &Limits) -> (&'static str, usize) {
        match self {
            Self::Document => ("a document chunk", limits.document_bytes),
            Self::Change | Self::CompressedChange => ("a change", limits.change_bytes),
            Self::Bundle => ("a bundle", limits.change_bytes),
        }
    }
}

/// One chunk of a run of chunks: framed, but not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// What it says it is.
    pub kind: ChunkKind,
    /// All of it, header included.
    pub bytes: Bytes,
}

/// Cuts a run of chunks at its headers. Checks framing only: magic bytes, known type, exact
/// length, and no more chunks than a sync message may carry. A chunk that is larger than one of its
/// kind may be is cut too, so that it can be refused by its name: [`check_change`] and
/// [`check_document`] refuse it.
///
/// [`check_change`]: super::check_change
///
/// # Errors
/// [`GuardError`] at the first chunk that is not one.
pub fn split(data: &Bytes, limits: &Limits) -> Result<Vec<Chunk>, GuardError> {
    let mut chunks = Vec::new();
    let mut start = 0;
    while start < data.len() {
        if chunks.len() == limits.sync_changes {
            let max = limits.sync_changes as u64;
            return Err(GuardError::TooMany { what: "chunks", count: max + 1, max });
        }
        let frame = Frame::read(&data[start..], None)?;
        let end = start + frame.len;
        chunks.push(Chunk { kind: frame.kind, bytes: data.slice(start..end) });
        start = end;
    }
    Ok(chunks)
}

/// Checks what can be known of a document chunk from outside: framing, size and checksum.
///
/// # Errors
/// [`GuardError`] for anything else.
pub fn check_document(chunk: &Bytes, limits: &Limits) -> Result<(), GuardError> {
    let frame = Frame::read_only(chunk, limits)?;
    if frame.kind != ChunkKind::Document {
        return Err(GuardError::WrongKind { expected: "document", found: frame.kind.byte() });
    }
    frame.check_hash(ChunkKind::Document, frame.body).map(drop)
}

/// How many times larger than a change may be, once inflated, one is inflated to know its name. Who
/// pastes a book into a document hears that this is too much, and not that something is.
const NAMED_TIMES: usize = 4;

/// The name of a change that is not taken, whatever is in it: the hash of its bytes, where they are
/// what their checksum says. `None` of what is no change, and of a deflated one that is several times
/// larger than a change may be. Costs a hash of all its bytes, inflated.
pub fn name_of_change(chunk: &Bytes, limits: &Limits) -> Option<ChangeHash> {
    let frame = Frame::read(chunk, None).ok().filter(|frame| frame.len == chunk.len())?;
    match frame.kind {
        ChunkKind::Change => frame.check_hash(ChunkKind::Change, frame.body).ok(),
        ChunkKind::CompressedChange => {
            let max = limits.change_inflated_bytes.saturating_mul(NAMED_TIMES);
            frame.check_hash(ChunkKind::Change, &inflate(frame.body, max).ok()?).ok()
        }
        ChunkKind::Document | ChunkKind::Bundle => None,
    }
}

/// The header of a chunk, and what it encloses.
pub(super) struct Frame<'a> {
    pub(super) kind: ChunkKind,
    pub(super) body: &'a [u8],
    checksum: [u8; 4],
    /// Type, length and body, as they lie there.
    hashed: &'a [u8],
    /// Bytes of header and body.
    len: usize,
}

impl<'a> Frame<'a> {
    /// Reads the frame at the start of the bytes, of a chunk of any size or within limits.
    fn read(data: &'a [u8], limits: Option<&Limits>) -> Result<Self, GuardError> {
        let mut reader = Reader::new(data);
        if reader.take(4)? != MAGIC {
            return Err(GuardError::Magic);
        }
        let checksum = [reader.byte()?, reader.byte()?, reader.byte()?, reader.byte()?];
        let kind = match reader.byte()? {
            0 => ChunkKind::Document,
            1 => ChunkKind::Change,
            2 => ChunkKind::CompressedChange,
            3 => ChunkKind::Bundle,
            other => return Err(GuardError::UnknownKind(other)),
        };
        let body_len = reader.unsigned()?;
        let len = (reader.position() as u64).saturating_add(body_len);
        if let Some((what, max)) = limits.map(|limits| kind.limit(limits))
            && len > max as u64
        {
            return Err(GuardError::TooLarge { what, len, max: max as u64 });
        }
        let body_len = usize::try_from(body_len).map_err(|_| GuardError::Truncated)?;
        let body = reader.take(body_len)?;
        let len = reader.position();
        Ok(Self { kind, body, checksum, hashed: &data[FIXED_LEN - 1..len], len })
    }

    /// Reads a frame that must be all there is.
    pub(super) fn read_only(data: &'a [u8], limits: &Limits) -> Result<Self, GuardError> {
        let frame = Self::read(data, Some(limits))?;
        match data.len() - frame.len {
            0 => Ok(frame),
            more => Err(GuardError::TrailingBytes(more)),
        }
    }

    /// The hash of a body under a type, when the checksum agrees. For a deflated change both are
    /// those of the plain one.
    pub(super) fn check_hash(
        &self,
        kind: ChunkKind,
        body: &[u8],
    ) -> Result<ChangeHash, GuardError> {
        // Its length may be written with more bytes than it takes.
        let lies_there = kind == self.kind && self.len == framed_len(body.len());
        let hash: [u8; 32] = if lies_there {
            Sha256::digest(self.hashed).into()
        } else {
            let mut prefix = Vec::with_capacity(11);
            prefix.push(kind.byte());
            leb::write(&mut prefix, body.len() as u64);
            Sha256::new().chain_update(&prefix).chain_update(body).finalize().into()
        };
        if hash.starts_with(&self.checksum) {
            Ok(ChangeHash(hash))
        } else {
            Err(GuardError::Checksum)
        }
    }
}

/// Bytes of a chunk with a body of this size.
pub(super) const fn framed_len(body: usize) -> usize {
    FIXED_LEN + leb::size(body as u64) + body
}
