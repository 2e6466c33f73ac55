//! The value of a piece of a row: version, checksum, length, then bytes.
//!
//! ```text
//! version u8 | crc32c u32 | len u32 | [piece 0 only: row len u64 | row crc32c u32] | payload
//! ```
//! Integers are little-endian. The checksum covers the key and all that follows it, so a value
//! under another row's key is found too; the row's length and checksum find a missing piece.

use bytes::{BufMut as _, Bytes, BytesMut};

/// Largest value given to an engine, in bytes: above it sled 0.34.7 writes what it never syncs.
pub(super) const VALUE_BYTES_MAX: usize = 4096;

/// The version that this program writes.
const VERSION: u8 = 1;
const HEAD_LEN: usize = 1 + 4 + 4;
const ROW_HEAD_LEN: usize = 8 + 4;

/// Bytes of a row in its first piece, and in each other.
pub(super) const FIRST_PAYLOAD: usize = VALUE_BYTES_MAX - HEAD_LEN - ROW_HEAD_LEN;
pub(super) const NEXT_PAYLOAD: usize = VALUE_BYTES_MAX - HEAD_LEN;

/// Most bytes that are set aside for a row by what its first piece says, before they are there.
const RESERVE_BYTES_MAX: usize = 64 << 20;
/// Rows of at least this many bytes may be written in several batches, their first piece last.
pub(super) const LARGE_ROW_BYTES: usize = 8 * VALUE_BYTES_MAX;
/// The last piece of the smallest large row.
pub(super) const LARGE_LAST_PIECE: u32 = 8;

/// Cuts a row into the payloads of its pieces; there is always a first.
pub(super) fn cut(row: &[u8]) -> impl DoubleEndedIterator<Item = (u32, &[u8])> {
    let (first, rest) = row.split_at(row.len().min(FIRST_PAYLOAD));
    let next = rest.chunks(NEXT_PAYLOAD).collect::<Vec<_>>();
    // A row of 2^32 pieces would have 17 TB; none is in memory.
    std::iter::once(first)
        .chain(next)
        .zip(0_u32..)
        .map(|(bytes, n)| (n, bytes))
        .collect::<Vec<_>>()
        .into_iter()
}

/// The value of piece `number` with `payload`, under `key`, of `row`.
pub(super) fn seal(key: &[u8], number: u32, payload: &[u8], row: &[u8], row_crc: u32) -> Vec<u8> {
    let mut covered = Vec::with_capacity(4 + ROW_HEAD_LEN + payload.len());
    // At most VALUE_BYTES_MAX.
    covered.put_u32_le(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    if number == 0 {
        covered.put_u64_le(row.len() as u64);
        covered.put_u32_le(row_crc);
    }
    covered.extend_from_slice(payload);
    let crc = checksum(key, VERSION, &covered);
    let mut value = Vec::with_capacity(5 + covered.len());
    value.put_u8(VERSION);
    value.put_u32_le(crc);
    value.extend_from_slice(&covered);
    value
}

/// The payload of a piece, and of piece 0 what the row should be.
struct Piece<'v> {
    row: Option<(u64, u32)>,
    payload: &'v [u8],
}

fn open<'v>(key: &[u8], number: u32, value: &'v [u8]) -> Result<Piece<'v>, String> {
    let Some((&version, rest)) = value.split_first() else {
        return Err("an empty value".to_owned());
    };
    if version != VERSION {
        return Err(format!("value version {version}, known is {VERSION}"));
    }
    let Some((crc, covered)) = rest.split_first_chunk::<4>() else {
        return Err(format!("a value of {} bytes", value.len()));
    };
    let (crc, found) = (u32::from_le_bytes(*crc), checksum(key, version, covered));
    if crc != found {
        return Err(format!("checksum of piece {number} is {found:08x}, written was {crc:08x}"));
    }
    let short = || format!("piece {number} is cut off");
    let (len, mut payload) = covered.split_first_chunk::<4>().ok_or_else(short)?;
    let mut row = None;
    if number == 0 {
        let (row_len, rest) = payload.split_first_chunk::<8>().ok_or_else(short)?;
        let (row_crc, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        row = Some((u64::from_le_bytes(*row_len), u32::from_le_bytes(*row_crc)));
        payload = rest;
    }
    if u32::from_le_bytes(*len) as usize != payload.len() {
        return Err(short());
    }
    Ok(Piece { row, payload })
}

fn checksum(key: &[u8], version: u8, covered: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(key), &[version]), covered)
}

/// Puts a row together from its pieces, given in key order.
#[derive(Default)]
pub(super) struct Assembly {
    expected: Option<(u64, u32)>,
    next: u32,
    bytes: BytesMut,
    broken: Option<String>,
    /// The first piece was not there.
    headless: bool,
    last: u32,
}

impl Assembly {
    /// Adds a piece.
    pub(super) fn add(&mut self, key: &[u8], number: u32, value: &[u8]) {
        self.last = self.last.max(number);
        if self.broken.is_some() {
            return;
        }
        if number != self.next {
            self.headless = self.next == 0;
            self.broken = Some(format!("piece {} is missing", self.next));
            return;
        }
        self.next = self.next.saturating_add(1);
        match open(key, number, value) {
            Ok(piece) => {
                if let Some((len, _)) = piece.row {
                    let len = usize::try_from(len).unwrap_or(RESERVE_BYTES_MAX);
                    self.bytes.reserve(len.min(RESERVE_BYTES_MAX));
                }
                self.expected = piece.row.or(self.expected);
                self.bytes.extend_from_slice(piece.payload);
            }
            Err(reason) => self.broken = Some(reason),
        }
    }

    /// The row, or what is wrong with it; `None` if there was no piece, or those of a large row
    /// that was not written to its end or is half removed.
    pub(super) fn finish(self) -> Option<Result<Bytes, String>> {
        if self.headless && self.last >= LARGE_LAST_PIECE {
            mark!(RowHalfWritten);
            return None;
        }
        if let Some(reason) = self.broken {
            return Some(Err(reason));
        }
        let (len, crc) = self.expected?;
        if self.bytes.len() as u64 != len {
            let have = self.bytes.len();
            return Some(Err(format!("{have} bytes where {len} were written: a piece is missing")));
        }
        if crc32c::crc32c(&self.bytes) != crc {
            return Some(Err("its pieces do not belong together".to_owned()));
        }
        Some(Ok(self.bytes.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(row: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let crc = crc32c::crc32c(row);
        cut(row)
            .map(|(n, payload)| (n, seal(&[b'k', n.to_le_bytes()[0]], n, payload, row, crc)))
            .collect()
    }

    fn join(pieces: &[(u32, Vec<u8>)]) -> Option<Result<Bytes, String>> {
        let mut assembly = Assembly::default();
        for (n, value) in pieces {
            assembly.add(&[b'k', n.to_le_bytes()[0]], *n, value);
        }
        assembly.finish()
    }

    #[test]
    fn a_value_is_what_it_was_in_the_first_version() {
        assert_eq!(
            seal(b"key", 0, b"abc", b"abc", 0x364b_3fb7),
            [
                1, 0xa0, 0xdf, 0x45, 0xdf, 3, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0xb7, 0x3f, 0x4b,
                0x36, b'a', b'b', b'c'
            ]
        );
        assert_eq!(crc32c::crc32c(b"abc"), 0x364b_3fb7, "the checksum is Castagnoli's");
    }

    #[test]
    fn rows_of_every_size_come_back_in_small_values() {
        for len in [
            0,
            1,
            FIRST_PAYLOAD - 1,
            FIRST_PAYLOAD,
            FIRST_PAYLOAD + 1,
            4095,
            4096,
            4097,
            FIRST_PAYLOAD + NEXT_PAYLOAD,
            100_000,
        ] {
            let row = (0..len).map(|i| i.to_le_bytes()[0]).collect::<Vec<_>>();
            let pieces = pieces(&row);
            assert!(pieces.iter().all(|(_, value)| value.len() <= VALUE_BYTES_MAX));
            assert_eq!(join(&pieces), Some(Ok(Bytes::from(row))), "{len} bytes");
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let whole = pieces(b"some bytes of a row");
        for bit in 0..whole[0].1.len() * 8 {
            let mut bad = whole.clone();
            bad[0].1[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(join(&bad), Some(Err(_))), "bit {bit}");
        }
    }

    #[test]
    fn missing_cut_and_foreign_pieces_are_found() {
        let whole = pieces(&[5; 10_000]);
        assert_eq!(whole.len(), 3);
        for missing in 0..3 {
            let mut bad = whole.clone();
            bad.remove(missing);
            assert!(matches!(join(&bad), Some(Err(_))), "without piece {missing}");
        }
        for len in 0..30 {
            let mut bad = whole.clone();
            bad[1].1.truncate(len);
            assert!(matches!(join(&bad), Some(Err(_))), "piece 1 cut to {len}");
        }
        let mut mixed = whole.clone();
        mixed[2] = pieces(&[6; 10_000])[2].clone();
        assert!(matches!(join(&mixed), Some(Err(_))), "a piece of another row of that length");
        let mut swapped = whole;
        swapped[1].1 = swapped[2].1.clone();
        assert!(matches!(join(&swapped), Some(Err(_))), "a value under another key");
        assert_eq!(join(&[]), None);
    }
}
