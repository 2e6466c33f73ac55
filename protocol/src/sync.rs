//! The Automerge sync message, versions 1 (`0x42`) and 2 (`0x43`), read and written without
//! automerge: bounded, total, and without copying the changes.
//!
//! Source of the format: automerge 0.12, `rust/src/sync.rs` and `sync/bloom.rs`.

use bytes::Bytes;

use crate::{
    ChangeHash, Limits,
    leb::{self, Fault, Reader},
    limits::BLOOM_PARAM_MAX,
};

const V1: u8 = 0x42;
const V2: u8 = 0x43;
/// Always first in the flags section: what version 2 wrote before there was a bit field.
const LEGACY_V2: u8 = 0x02;
/// Marks a byte of the flags section as a bit field.
const BIT_FIELD: u8 = 0x80;
const RESET: u8 = 1;
const READ_ONLY: u8 = 2;
const SUPPORTS_RESET: u8 = 4;
const HASH_LEN: usize = 32;
/// Automerge's own parameters: one false yes in a hundred.
const BITS_PER_ENTRY: u32 = 10;
const PROBES: u32 = 7;

/// Which of the two forms a message has: they differ in how `changes` is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncVersion {
    /// Each element of `changes` is one change chunk.
    V1,
    /// The elements of `changes`, joined, are a run of chunks: a document, changes, or both.
    V2,
}

/// The flags section at the end. Its presence alone says that the sender reads version 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncFlags {
    /// Forget what you think you sent me.
    pub reset: bool,
    /// The sender takes no changes.
    pub read_only: bool,
    /// The sender understands `reset`.
    pub supports_reset: bool,
}

/// What the sender holds: everything up to `last_sync`, and what the filter says beyond it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Have {
    /// Heads that both sides had at some time.
    pub last_sync: Vec<ChangeHash>,
    /// The changes after those.
    pub bloom: Bloom,
}

/// A Bloom filter over change hashes, with parameters that were checked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bloom {
    entries: u32,
    bits_per_entry: u32,
    probes: u32,
    bits: Bytes,
}

/// One message of the sync protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncMessage {
    /// How to read `changes`.
    pub version: SyncVersion,
    /// The sender's heads, sorted.
    pub heads: Vec<ChangeHash>,
    /// Changes it asks for by name, sorted.
    pub need: Vec<ChangeHash>,
    /// What it holds. Empty: it asks for `need` only.
    pub have: Vec<Have>,
    /// Chunks, as [`SyncVersion`] says.
    pub changes: Vec<Bytes>,
    /// Absent from peers that only know version 1.
    pub flags: Option<SyncFlags>,
}

impl SyncMessage {
    /// Reads one message. Trailing bytes after the flags are ignored, as automerge does.
    ///
    /// # Errors
    /// [`SyncError`] when it is not a sync message or breaks a limit; nothing is allocated that
    /// the bytes do not pay for.
    pub fn decode(data: &Bytes, limits: &Limits) -> Result<Self, SyncError> {
        let mut reader = Reader::new(data);
        let version = match reader.byte()? {
            V1 => SyncVersion::V1,
            V2 => SyncVersion::V2,
            other => return Err(SyncError::UnknownVersion(other)),
        };
        let heads = read_hashes(&mut reader, "heads", limits.sync_heads)?;
        let need = read_hashes(&mut reader, "needed hashes", limits.sync_need)?;
        let count = read_count(&mut reader, "haves", limits.sync_haves, 2)?;
        let mut have = Vec::with_capacity(count);
        for _ in 0..count {
            let last_sync = read_hashes(&mut reader, "shared heads", limits.sync_heads)?;
            have.push(Have { last_sync, bloom: Bloom::decode(&read_slice(&mut reader, data)?)? });
        }
        let count = read_count(&mut reader, "changes", limits.sync_changes, 1)?;
        let mut changes = Vec::with_capacity(count);
        for _ in 0..count {
            changes.push(read_slice(&mut reader, data)?);
        }
        let flags =
            if reader.is_empty() { None } else { Some(SyncFlags::read(reader.prefixed()?)) };
        Ok(Self { version, heads, need, have, changes, flags })
    }

    /// The bytes on the wire.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len());
        out.push(match self.version {
            SyncVersion::V1 => V1,
            SyncVersion::V2 => V2,
        });
        write_hashes(&mut out, &self.heads);
        write_hashes(&mut out, &self.need);
        leb::write(&mut out, self.have.len() as u64);
        for have in &self.have {
            write_hashes(&mut out, &have.last_sync);
            leb::write(&mut out, have.bloom.encoded_len() as u64);
            have.bloom.write(&mut out);
        }
        leb::write(&mut out, self.changes.len() as u64);
        for change in &self.changes {
            leb::write(&mut out, change.len() as u64);
            out.extend_from_slice(change);
        }
        if let Some(flags) = self.flags {
            out.extend_from_slice(&[2, LEGACY_V2, BIT_FIELD | flags.bits()]);
        }
        out.into()
    }

    /// How many bytes [`Self::encode`] makes.
    pub fn encoded_len(&self) -> usize {
        let haves = self.have.iter().map(|have| {
            let bloom = have.bloom.encoded_len();
            hashes_len(&have.last_sync) + leb::size(bloom as u64) + bloom
        });
        let changes =
            self.changes.iter().map(|change| leb::size(change.len() as u64) + change.len());
        1 + hashes_len(&self.heads)
            + hashes_len(&self.need)
            + leb::size(self.have.len() as u64)
            + haves.sum::<usize>()
            + leb::size(self.changes.len() as u64)
            + changes.sum::<usize>()
            + if self.flags.is_some() { 3 } else { 0 }
    }
}

impl SyncFlags {
    /// Reads the section. Bytes without the mark are what older versions wrote; unknown bits are
    /// what newer ones will.
    fn read(section: &[u8]) -> Self {
        let bits =
            section.iter().filter(|&&byte| byte & BIT_FIELD != 0).fold(0, |bits, byte| bits | byte);
        Self {
            reset: bits & RESET != 0,
            read_only: bits & READ_ONLY != 0,
            supports_reset: bits & SUPPORTS_RESET != 0,
        }
    }

    const fn bits(self) -> u8 {
        (if self.reset { RESET } else { 0 })
            | (if self.read_only { READ_ONLY } else { 0 })
            | (if self.supports_reset { SUPPORTS_RESET } else { 0 })
    }
}

impl Bloom {
    /// A filter of these hashes, with automerge's parameters (10 bits an entry, 7 probes).
    pub fn from_hashes<'a>(hashes: impl ExactSizeIterator<Item = &'a ChangeHash>) -> Self {
        // A filter holds what one document has; beyond the counter's range it only gets less exact.
        let entries = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
        if entries == 0 {
            return Self::default();
        }
        let mut bits = vec![0_u8; bits_len(entries, BITS_PER_ENTRY)];
        for hash in hashes {
            for probe in probes(hash, PROBES, bits.len()) {
                if let Some(byte) = bits.get_mut(probe >> 3) {
                    *byte |= 1 << (probe & 7);
                }
            }
        }
        Self { entries, bits_per_entry: BITS_PER_ENTRY, probes: PROBES, bits: bits.into() }
    }

    /// Whether the hash is in it, with about one false yes in a hundred.
    pub fn contains(&self, hash: &ChangeHash) -> bool {
        !self.is_empty()
            && probes(hash, self.probes, self.bits.len()).all(|probe| {
                self.bits.get(probe >> 3).is_some_and(|byte| byte & (1 << (probe & 7)) != 0)
            })
    }

    /// Whether nothing was put in.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Reads one; no bytes at all are an empty one.
    fn decode(data: &Bytes) -> Result<Self, SyncError> {
        if data.is_empty() {
            return Ok(Self::default());
        }
        let mut reader = Reader::new(data);
        let mut number = || u32::try_from(reader.unsigned()?).map_err(|_| SyncError::BadNumber);
        let (entries, bits_per_entry, probes) = (number()?, number()?, number()?);
        let allowed = 1..=BLOOM_PARAM_MAX;
        if !allowed.contains(&bits_per_entry) || !allowed.contains(&probes) {
            return Err(SyncError::BloomParameters { bits_per_entry, probes });
        }
        let (expected, got) = (bits_len(entries, bits_per_entry), reader.remaining());
        if got != expected {
            return Err(SyncError::BloomSize { expected, got });
        }
        if entries == 0 {
            return Ok(Self::default());
        }
        Ok(Self { entries, bits_per_entry, probes, bits: data.slice(reader.position()..) })
    }

    fn write(&self, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        for number in [self.entries, self.bits_per_entry, self.probes] {
            leb::write(out, u64::from(number));
        }
        out.extend_from_slice(&self.bits);
    }

    fn encoded_len(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        let numbers = [self.entries, self.bits_per_entry, self.probes];
        numbers.into_iter().map(|number| leb::size(u64::from(number))).sum::<usize>()
            + self.bits.len()
    }
}

/// The bits that stand for a hash, by triple hashing as automerge does it. Its sums are of 32
/// bits; they cannot overflow there while a filter is below 256 MiB, so the results agree.
fn probes(hash: &ChangeHash, count: u32, bytes: usize) -> impl Iterator<Item = usize> {
    let [x, y, z] = [0, 4, 8].map(|at| {
        let word = &hash.as_bytes()[at..at + 4];
        word.iter().rev().fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
    });
    let modulo = (bytes as u64 * 8).max(1);
    let (mut x, mut y, z) = (x % modulo, y % modulo, z % modulo);
    (0..count).map(move |_| {
        let probe = x;
        x = (x + y) % modulo;
        y = (y + z) % modulo;
        usize::try_from(probe).unwrap_or(usize::MAX)
    })
}

fn bits_len(entries: u32, bits_per_entry: u32) -> usize {
    let bits = u64::from(entries) * u64::from(bits_per_entry);
    usize::try_from(bits.div_ceil(8)).unwrap_or(usize::MAX)
}

/// A count of items of at least `item` bytes each, which must be there.
fn read_count(
    reader: &mut Reader<'_>,
    what: &'static str,
    max: usize,
    item: usize,
) -> Result<usize, SyncError> {
    let count = reader.unsigned()?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > max {
        return Err(SyncError::TooMany { what, count, max });
    }
    if count > reader.remaining() / item {
        return Err(SyncError::Truncated);
    }
    Ok(count)
}

fn read_hashes(
    reader: &mut Reader<'_>,
    what: &'static str,
    max: usize,
) -> Result<Vec<ChangeHash>, SyncError> {
    let count = read_count(reader, what, max, HASH_LEN)?;
    let bytes = reader.take(count * HASH_LEN)?;
    Ok(bytes.chunks_exact(HASH_LEN).filter_map(ChangeHash::from_slice).collect())
}

/// A run of bytes with its length before it, shared with the message.
fn read_slice(reader: &mut Reader<'_>, data: &Bytes) -> Result<Bytes, SyncError> {
    let len = reader.prefixed()?.len();
    Ok(data.slice(reader.position() - len..reader.position()))
}

fn hashes_len(hashes: &[ChangeHash]) -> usize {
    leb::size(hashes.len() as u64) + hashes.len() * HASH_LEN
}

/// Automerge wants them in order, and asserts it in debug builds.
fn write_hashes(out: &mut Vec<u8>, hashes: &[ChangeHash]) {
    leb::write(out, hashes.len() as u64);
    let start = out.len();
    for hash in hashes {
        out.extend_from_slice(hash.as_bytes());
    }
    if !hashes.is_sorted() {
        out[start..].as_chunks_mut::<HASH_LEN>().0.sort_unstable();
    }
}

/// Why bytes are not an acceptable sync message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// It ended too early.
    #[error("the sync message is cut off")]
    Truncated,
    /// It starts with neither `0x42` nor `0x43`.
    #[error("a sync message of unknown version {0:#04x}; this relay reads 0x42 and 0x43")]
    UnknownVersion(u8),
    /// A number that is overlong or does not fit.
    #[error("a number in the sync message is overlong or does not fit")]
    BadNumber,
    /// More of something than the limit.
    #[error("{count} {what} in one sync message; at most {max} are allowed")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many it declared.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A Bloom filter that automerge would panic on or hang over.
    #[error(
        "a bloom filter of {bits_per_entry} bits an entry and {probes} probes; each must be 1 to 64"
    )]
    BloomParameters {
        /// What it declared.
        bits_per_entry: u32,
        /// What it declared.
        probes: u32,
    },
    /// A Bloom filter whose bits are not as many as it says.
    #[error("a bloom filter of {got} bytes where its header means {expected}")]
    BloomSize {
        /// By its header.
        expected: usize,
        /// What was there.
        got: usize,
    },
}

impl From<Fault> for SyncError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Truncated => Self::Truncated,
            Fault::Number => Self::BadNumber,
        }
    }
}
