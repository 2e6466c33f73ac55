//! The values of operations: a column of types and lengths, and one of their bytes.

use std::str;

use super::{
    GuardError,
    runs::{Runs, Tally},
};
use crate::leb::Reader;

const COLUMN: &str = "value";
const TYPE_MASK: u64 = 0x0f;
const LEN_SHIFT: u32 = 4;

/// Checks that every value has its bytes, that they are what its type says, and that none are
/// left over. Types unknown here are passed over, as automerge does.
pub(super) fn check(meta: &[u8], raw: &[u8], rows_max: u64) -> Result<Tally, GuardError> {
    let mut raw = Reader::new(raw);
    let tally = Runs::new(meta, COLUMN).walk(rows_max, Reader::unsigned, |meta, rows| {
        let (kind, len) = (meta & TYPE_MASK, meta >> LEN_SHIFT);
        if len == 0 && kind <= 2 {
            return Ok(());
        }
        let len = usize::try_from(len).map_err(|_| GuardError::Truncated)?;
        for _ in 0..rows {
            check_one(kind, raw.take(len)?)?;
        }
        Ok(())
    })?;
    if raw.is_empty() { Ok(tally) } else { Err(bad("has bytes that belong to no value")) }
}

/// Checks only that the lengths add up to the bytes.
pub(super) fn measure(meta: &[u8], raw_len: usize, rows_max: u64) -> Result<(), GuardError> {
    let mut total = 0_u64;
    Runs::new(meta, COLUMN).walk(rows_max, Reader::unsigned, |meta, rows| {
        total = total.saturating_add((meta >> LEN_SHIFT).saturating_mul(rows));
        Ok(())
    })?;
    if total == raw_len as u64 { Ok(()) } else { Err(bad("does not add up to its bytes")) }
}

fn check_one(kind: u64, bytes: &[u8]) -> Result<(), GuardError> {
    let mut reader = Reader::new(bytes);
    match kind {
        // Null, false, true.
        0..=2 => return Err(bad("has bytes where its type has none")),
        // Unsigned.
        3 => drop(reader.unsigned()?),
        // Signed, counter, timestamp.
        4 | 8 | 9 => drop(reader.signed()?),
        // Float.
        5 if bytes.len() == 8 => return Ok(()),
        5 => return Err(bad("has a float that is not of eight bytes")),
        6 => {
            return str::from_utf8(bytes)
                .map(drop)
                .map_err(|_| GuardError::NotUtf8("a text value"));
        }
        _ => return Ok(()),
    }
    if reader.is_empty() { Ok(()) } else { Err(bad("has a number with bytes after it")) }
}

const fn bad(problem: &'static str) -> GuardError {
    GuardError::Column { column: COLUMN, problem }
}
