//! Stored records: the one place that knows bincode.
//!
//! bincode is pinned to 1.3.3 and used as DESIGN section 3 says: fixed-width little-endian
//! integers, a size limit, trailing bytes rejected, a version byte first; and records hold no
//! recursion, zero-sized types, `usize`, maps or floats. `wincode` reads the same bytes (tested).

use bincode::Options as _;
use serde::{Serialize, de::DeserializeOwned};

/// The format of every record written by this version.
pub const RECORD_VERSION: u8 = 1;

/// Largest record that is read, in bytes: the root of the index of a very large document.
pub const RECORD_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Nothing there.
    #[error("a record of no bytes")]
    Empty,
    /// Written by a later version of this program.
    #[error(
        "a record of format {0}, but this version reads up to {RECORD_VERSION}: use a newer concord"
    )]
    Newer(u8),
    /// Cut off, with more behind it, or never a record.
    #[error("not a record: {0}")]
    Malformed(String),
}

fn options() -> impl bincode::Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(RECORD_BYTES_MAX)
        .reject_trailing_bytes()
}

/// The bytes of a record: the version, then bincode.
///
/// # Errors
/// [`RecordError::Malformed`] for a record over [`RECORD_BYTES_MAX`].
pub fn encode<T: Serialize>(record: &T) -> Result<Vec<u8>, RecordError> {
    let mut out = vec![RECORD_VERSION];
    options()
        .serialize_into(&mut out, record)
        .map_err(|error| RecordError::Malformed(error.to_string()))?;
    Ok(out)
}

/// Reads a record whole.
///
/// # Errors
/// [`RecordError`] for anything but exactly one record of a known version.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    match bytes.split_first() {
        None => Err(RecordError::Empty),
        Some((&RECORD_VERSION, body)) => options()
            .deserialize(body)
            .map_err(|error| RecordError::Malformed(error.to_string())),
        Some((&version, _)) => Err(RecordError::Newer(version)),
    }
}
