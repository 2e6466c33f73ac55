//! Stored records: the one place that knows bincode.
//!
//! bincode is pinned to 1.3.3 and used as DESIGN section 3 says: fixed-width little-endian
//! integers, a size limit, trailing bytes rejected, a version byte first; and records hold no
//! recursion, zero-sized types, `usize`, maps or floats. `wincode` reads the same bytes (tested).

use bincode::Options as _;
use serde::{Serialize, de::DeserializeOwned};

/// The format of every record written by this version.
pub const RECORD_VERSION: u8 = 1;

/// The format of records that are written compressed.
pub const PACKED_VERSION: u8 = 2;

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

/// The bytes of a record whose parts are much alike: its version, then bincode in zstd.
///
/// # Errors
/// As [`encode`].
pub fn encode_packed<T: Serialize>(record: &T) -> Result<Vec<u8>, RecordError> {
    let malformed = |error: String| RecordError::Malformed(error);
    let body = options().serialize(record).map_err(|error| malformed(error.to_string()))?;
    let packed = zstd::bulk::compress(&body, zstd::DEFAULT_COMPRESSION_LEVEL);
    let mut out = vec![PACKED_VERSION];
    out.extend(packed.map_err(|error| malformed(error.to_string()))?);
    Ok(out)
}

/// Whether these are the bytes of a packed record, if they are of any.
pub fn is_packed(bytes: &[u8]) -> bool {
    bytes.first() == Some(&PACKED_VERSION)
}

/// Reads a packed record whole, of at most [`RECORD_BYTES_MAX`] without compression.
///
/// # Errors
/// As [`decode`].
pub fn decode_packed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    let malformed = |error: String| RecordError::Malformed(error);
    match bytes.split_first() {
        None => Err(RecordError::Empty),
        Some((&PACKED_VERSION, packed)) => {
            // Makes room for what the frame says that it has, and for no more than may be.
            let max = usize::try_from(RECORD_BYTES_MAX).unwrap_or(usize::MAX);
            let body = zstd::bulk::decompress(packed, max);
            let body = body.map_err(|error| malformed(error.to_string()))?;
            options().deserialize(&body).map_err(|error| malformed(error.to_string()))
        }
        Some((&version, _)) => Err(RecordError::Newer(version)),
    }
}

/// Reads a record whole.
///
/// # Errors
/// [`RecordError`] for anything but exactly one record of a known version.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    match bytes.split_first() {
        None => Err(RecordError::Empty),
        Some((&RECORD_VERSION, body)) => {
            options().deserialize(body).map_err(|error| RecordError::Malformed(error.to_string()))
        }
        Some((&version, _)) => Err(RecordError::Newer(version)),
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;
    use serde::Deserialize;
    use wincode::{SchemaRead, SchemaWrite};

    use super::*;
    use crate::replica::index::{IndexActor, IndexRoot};

    /// All that records are made of.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SchemaRead, SchemaWrite)]
    struct Sample {
        small: u8,
        short: u16,
        word: u32,
        long: u64,
        time: i64,
        yes: bool,
        hash: [u8; 32],
        text: String,
        bytes: Vec<u8>,
        maybe: Option<u32>,
        pairs: Vec<(u32, u32)>,
        choice: Choice,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, SchemaRead, SchemaWrite)]
    enum Choice {
        Nothing,
        Number(u64),
        Named { name: String },
    }

    fn sample() -> Sample {
        Sample {
            small: 1,
            short: 0x0203,
            word: 0x0405_0607,
            long: 0x0809_0a0b_0c0d_0e0f,
            time: -2,
            yes: true,
            hash: [0x11; 32],
            text: "naïve".to_owned(),
            bytes: vec![1, 2, 3],
            maybe: Some(9),
            pairs: vec![(1, 2)],
            choice: Choice::Named { name: "x".to_owned() },
        }
    }

    /// The bytes of [`sample`], written down by hand from bincode's description.
    fn golden() -> Vec<u8> {
        let mut bytes = vec![1]; // version
        bytes.extend([1, 3, 2, 7, 6, 5, 4]);
        bytes.extend([0x0f, 0x0e, 0x0d, 0x0c, 0x0b, 0x0a, 9, 8]);
        bytes.extend([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        bytes.push(1);
        bytes.extend([0x11; 32]);
        bytes.extend([6, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend("naïve".bytes());
        bytes.extend([3, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
        bytes.extend([1, 9, 0, 0, 0]);
        bytes.extend([1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        bytes.extend([2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'x']);
        bytes
    }

    #[test]
    fn records_are_what_they_were_in_the_first_version() {
        assert_eq!(encode(&sample()), Ok(golden()));
        assert_eq!(decode(&golden()), Ok(sample()));

        let root = IndexRoot {
            changes: 1,
            heads: vec![[0xcd; 32]],
            head_positions: vec![0],
            actors: vec![IndexActor { actor: vec![8, 9], seq: 2 }],
            objects: vec![(1, 0)],
            max_op: 3,
            snapshot_bytes: 4,
            change_bytes: 5,
            hash_bits: 6,
            covers: vec![[0xef; 32]],
        };
        let one = [1, 0, 0, 0, 0, 0, 0, 0];
        let expected = [
            &[1, 1, 0, 0, 0][..],
            &one,
            &[0xcd; 32],
            &one,
            &[0; 4],
            &one,
            &[2, 0, 0, 0, 0, 0, 0, 0, 8, 9, 2, 0, 0, 0],
            &one,
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0],
            &[4, 0, 0, 0, 0, 0, 0, 0],
            &[5, 0, 0, 0, 0, 0, 0, 0],
            &[6],
            &one,
            &[0xef; 32],
        ]
        .concat();
        assert_eq!(encode(&root), Ok(expected), "the root of an index");
    }

    #[test]
    fn wincode_reads_and_writes_the_same_bytes() {
        let bytes = encode(&sample()).unwrap();
        assert_eq!(wincode::deserialize_exact::<Sample>(&bytes[1..]).unwrap(), sample());
        assert_eq!(wincode::serialize(&sample()).unwrap(), bytes[1..]);
    }

    #[test]
    fn anything_but_one_record_is_an_error() {
        let whole = encode(&sample()).unwrap();
        assert_eq!(decode::<Sample>(&[]), Err(RecordError::Empty));
        for len in 1..whole.len() {
            let cut = decode::<Sample>(&whole[..len]);
            assert!(matches!(cut, Err(RecordError::Malformed(_))), "{len} bytes: {cut:?}");
        }
        let longer = decode::<Sample>(&[&whole[..], &[0]].concat());
        assert!(matches!(longer, Err(RecordError::Malformed(_))));
        let newer = decode::<Sample>(&[&[2], &whole[1..]].concat());
        assert_eq!(newer, Err(RecordError::Newer(2)));
        assert!(newer.unwrap_err().to_string().contains("use a newer concord"));
    }

    #[test]
    fn a_length_beyond_the_bytes_allocates_nothing() {
        // 2^40 elements are said to follow; an allocation of that would end the process.
        let bytes = [&[RECORD_VERSION][..], &(1_u64 << 40).to_le_bytes()].concat();
        assert!(matches!(decode::<Vec<u64>>(&bytes), Err(RecordError::Malformed(_))));
        assert!(matches!(decode::<String>(&bytes), Err(RecordError::Malformed(_))));
    }

    #[test]
    fn a_record_over_the_limit_is_not_written() {
        let large = vec![0_u8; usize::try_from(RECORD_BYTES_MAX).unwrap()];
        assert!(matches!(encode(&large), Err(RecordError::Malformed(_))));
    }

    #[test]
    fn a_packed_record_comes_back_and_is_bounded() {
        let packed = encode_packed(&sample()).unwrap();
        assert!(is_packed(&packed) && !is_packed(&golden()) && !is_packed(&[]));
        assert_eq!(decode_packed(&packed), Ok(sample()));
        let long = encode_packed(&vec![0_u64; 1_000]).unwrap();
        assert!(long.len() < 100, "{}", long.len());
        assert_eq!(decode_packed(&long), Ok(vec![0_u64; 1_000]));
        assert_eq!(decode::<Vec<u64>>(&long), Err(RecordError::Newer(PACKED_VERSION)));
        for cut in 0..packed.len() {
            assert!(decode_packed::<Sample>(&packed[..cut]).is_err(), "{cut}");
        }
        assert_eq!(decode_packed::<Sample>(&golden()), Err(RecordError::Newer(1)));

        let zeros = vec![0; usize::try_from(RECORD_BYTES_MAX).unwrap() + 1];
        let bomb = [vec![PACKED_VERSION], zstd::bulk::compress(&zeros, 1).unwrap()].concat();
        assert!(matches!(decode_packed::<Vec<u8>>(&bomb), Err(RecordError::Malformed(_))));
    }

    quickcheck! {
        fn any_record_comes_back_and_wincode_agrees(
            numbers: (u8, u16, u32, u64, i64),
            bytes: Vec<u8>,
            text: String,
            maybe: Option<u32>,
            pairs: Vec<(u32, u32)>,
            choice: Option<u64>
        ) -> bool {
            let (small, short, word, long, time) = numbers;
            let choice = choice.map_or(Choice::Nothing, Choice::Number);
            let hash = [small; 32];
            let yes = small % 2 == 0;
            let record = Sample {
                small, short, word, long, time, yes, hash, text, bytes, maybe, pairs, choice,
            };
            let bytes = encode(&record).unwrap();
            decode(&bytes) == Ok(record.clone())
                && wincode::deserialize_exact::<Sample>(&bytes[1..]).is_ok_and(|read| read == record)
        }

        fn no_bytes_make_a_decoder_panic(bytes: Vec<u8>) -> bool {
            let versioned = [&[RECORD_VERSION], &bytes[..]].concat();
            let _ = decode::<Sample>(&bytes);
            let _ = decode::<IndexRoot>(&versioned);
            true
        }
    }
}
