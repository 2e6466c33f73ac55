//! The body of a change: who, when, on what, and the columns with its operations.

use std::{borrow::Cow, io::Read};

use bytes::Bytes;
use flate2::bufread::DeflateDecoder;

use super::{
    ChunkKind, GuardError,
    chunk::{Frame, framed_len},
    columns::{self, Operations},
};
use crate::{
    ActorId, ChangeHash, Limits,
    leb::{Fault, Reader},
    limits::COUNTER_MAX,
};

/// Opens extra bytes that name the change's author.
const AUTHOR_FOOTER: u64 = 1;
/// The one change of an actor that may name its author.
const AUTHOR_SEQ: u32 = 1;
/// First guess of what deflated bytes become; grown as they do, up to the limit.
const INFLATE_GUESS: usize = 4;
const HASH_LEN: usize = 32;

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

/// Checks one change chunk, plain or deflated, in time linear in its inflated bytes.
///
/// # Errors
/// [`GuardError`] for whatever an honest client does not write.
pub fn check_change(chunk: &Bytes, limits: &Limits) -> Result<ChangeHeader, GuardError> {
    let frame = Frame::read_only(chunk, limits)?;
    let body = match frame.kind {
        ChunkKind::Change => Cow::Borrowed(frame.body),
        ChunkKind::CompressedChange => {
            Cow::Owned(inflate(frame.body, limits.change_inflated_bytes)?)
        }
        ChunkKind::Document | ChunkKind::Bundle => {
            return Err(GuardError::WrongKind { expected: "change", found: frame.kind.byte() });
        }
    };
    let inflated = framed_len(body.len());
    let max = limits.change_inflated_bytes;
    let too_large =
        || GuardError::TooLarge { what: "a change", len: inflated as u64, max: max as u64 };
    let inflated_bytes = u32::try_from(inflated).map_err(|_| too_large())?;
    if inflated > max {
        return Err(too_large());
    }
    let hash = frame.check_hash(ChunkKind::Change, &body)?;
    read_body(&body, hash, inflated_bytes, limits)
}

/// Inflates under the limit: gives up one byte beyond it.
pub(super) fn inflate(deflated: &[u8], max: usize) -> Result<Vec<u8>, GuardError> {
    let mut body = Vec::with_capacity(deflated.len().saturating_mul(INFLATE_GUESS).min(max));
    let mut decoder = DeflateDecoder::new(deflated).take((max as u64).saturating_add(1));
    decoder.read_to_end(&mut body).map_err(|_| GuardError::Deflate)?;
    if body.len() > max {
        let len = body.len() as u64;
        return Err(GuardError::TooLarge { what: "an inflated change", len, max: max as u64 });
    }
    // The decoder stops at the end of the stream; what follows would be hidden from the hash.
    match decoder.into_inner().into_inner() {
        [] => Ok(body),
        more => Err(GuardError::TrailingBytes(more.len())),
    }
}

fn read_body(
    body: &[u8],
    hash: ChangeHash,
    inflated_bytes: u32,
    limits: &Limits,
) -> Result<ChangeHeader, GuardError> {
    let mut reader = Reader::new(body);
    let deps = read_deps(&mut reader, limits)?;
    let actor = read_actor(&mut reader)?;
    let seq = read_counter(&mut reader, "the sequence number")?;
    let start_op = read_counter(&mut reader, "the first operation's counter")?;
    let time = reader.signed()?;
    read_message(&mut reader, limits)?;
    let other_actors = read_other_actors(&mut reader, limits)?;
    let position_max = other_actors.len() as u64;
    let Operations { count, objects_made, objects_named } =
        columns::read(&mut reader, start_op, position_max, limits)?;
    check_extra(&mut reader, seq)?;
    Ok(ChangeHeader {
        hash,
        deps,
        actor,
        seq,
        start_op,
        ops: count,
        time,
        other_actors,
        objects_made,
        objects_named,
        inflated_bytes,
    })
}

fn read_deps(reader: &mut Reader<'_>, limits: &Limits) -> Result<Vec<ChangeHash>, GuardError> {
    let count = read_count(reader, "dependencies", limits.change_deps, HASH_LEN)?;
    let bytes = reader.take(count * HASH_LEN)?;
    Ok(bytes.chunks_exact(HASH_LEN).filter_map(ChangeHash::from_slice).collect())
}

fn read_actor(reader: &mut Reader<'_>) -> Result<ActorId, GuardError> {
    let bytes = reader.prefixed()?;
    if bytes.len() > ActorId::MAX_LEN {
        let (len, max) = (bytes.len() as u64, ActorId::MAX_LEN as u64);
        return Err(GuardError::TooLarge { what: "an actor id", len, max });
    }
    Ok(ActorId::from(bytes))
}

/// A number from 1 up to, and without, [`COUNTER_MAX`].
fn read_counter(reader: &mut Reader<'_>, what: &'static str) -> Result<u32, GuardError> {
    let value = reader.unsigned()?;
    u32::try_from(value)
        .ok()
        .filter(|&small| small > 0 && value < COUNTER_MAX)
        .ok_or(GuardError::Counter { what, value })
}

fn read_message(reader: &mut Reader<'_>, limits: &Limits) -> Result<(), GuardError> {
    let len = reader.unsigned()?;
    let max = limits.change_message_bytes;
    if len > max as u64 {
        return Err(GuardError::TooLarge { what: "a change's message", len, max: max as u64 });
    }
    let message = reader.take(usize::try_from(len).map_err(|_| GuardError::Truncated)?)?;
    std::str::from_utf8(message).map(drop).map_err(|_| GuardError::NotUtf8("the change's message"))
}

fn read_other_actors(reader: &mut Reader<'_>, limits: &Limits) -> Result<Vec<ActorId>, GuardError> {
    let count = read_count(reader, "other actors", limits.change_actors, 1)?;
    let mut actors = Vec::with_capacity(count);
    for _ in 0..count {
        actors.push(read_actor(reader)?);
    }
    Ok(actors)
}

/// A count of items of at least `item` bytes each, which must be there.
pub(super) fn read_count(
    reader: &mut Reader<'_>,
    what: &'static str,
    max: usize,
    item: usize,
) -> Result<usize, GuardError> {
    let count = reader.unsigned()?;
    if count > max as u64 {
        return Err(GuardError::TooMany { what, count, max: max as u64 });
    }
    usize::try_from(count)
        .ok()
        .filter(|&count| count <= reader.remaining() / item)
        .ok_or(GuardError::Truncated)
}

/// What follows the columns is kept for later versions, but for the one footer that automerge
/// 0.12 reads: who the actor's author is. In any change but an actor's first it asserts on it.
fn check_extra(reader: &mut Reader<'_>, seq: u32) -> Result<(), GuardError> {
    if reader.is_empty() || seq == AUTHOR_SEQ {
        return Ok(());
    }
    let footer = reader.unsigned().and_then(|id| Ok((id, reader.unsigned()?)));
    match footer {
        Ok((AUTHOR_FOOTER, len)) if reader.remaining() as u64 >= len => {
            Err(GuardError::AuthorTooLate)
        }
        Err(Fault::Number) => Err(GuardError::BadNumber),
        Ok(_) | Err(Fault::Truncated) => Ok(()),
    }
}
