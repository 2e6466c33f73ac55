//! base58check, as `automerge-repo` writes names and hashes: the payload and the first four bytes
//! of its double SHA-256, as a number in base 58.
//!
//! Five digits at a time: a relay writes and reads one of these for every message and every head.

use sha2::{Digest as _, Sha256};

const DIGITS: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const BASE: u64 = 58;
/// Digits that are taken together, and the base that they make: below 2^32.
const GROUP_DIGITS: usize = 5;
const GROUP: u64 = BASE.pow(5);
/// Stands in [`VALUES`] for what is no digit.
const NO_DIGIT: u8 = u8::MAX;
const CHECKSUM_BYTES: usize = 4;

/// The value of each digit.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0_u8;
    while value < 58 {
        values[DIGITS[value as usize] as usize] = value;
        value += 1;
    }
    values
};

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let twice = Sha256::digest(Sha256::digest(payload));
    [twice[0], twice[1], twice[2], twice[3]]
}

/// The lower and the upper half.
fn halves(number: u64) -> (u32, u32) {
    let bytes = number.to_le_bytes();
    let (halves, _) = bytes.as_chunks::<4>();
    (u32::from_le_bytes(halves[0]), u32::from_le_bytes(halves[1]))
}

/// The text of a payload.
pub(crate) fn encode(payload: &[u8]) -> String {
    let bytes = [payload, &checksum(payload)].concat();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    // The least significant first.
    let words = bytes.rchunks(4);
    let mut words: Vec<u32> =
        words.map(|word| word.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))).collect();
    let mut digits: Vec<u8> = Vec::with_capacity(bytes.len() * 3 / 2);
    while let Some(&most) = words.last() {
        if most == 0 {
            words.pop();
            continue;
        }
        let mut rest = 0;
        for word in words.iter_mut().rev() {
            let number = rest << 32 | u64::from(*word);
            (*word, _) = halves(number / GROUP);
            rest = number % GROUP;
        }
        for _ in 0..GROUP_DIGITS {
            digits.push(DIGITS[(rest % BASE) as usize]);
            rest /= BASE;
        }
    }
    while digits.last() == Some(&DIGITS[0]) {
        digits.pop();
    }
    digits.resize(digits.len() + zeros, DIGITS[0]);
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

/// The payload of a text; none if a character is no digit, or the checksum is another.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let zeros = text.bytes().take_while(|digit| *digit == DIGITS[0]).count();
    // The least significant first.
    let mut words: Vec<u32> = Vec::with_capacity(text.len() / GROUP_DIGITS + 1);
    for digits in text.as_bytes().chunks(GROUP_DIGITS) {
        let (mut carry, mut scale) = (0, 1);
        for digit in digits {
            let value = VALUES[usize::from(*digit)];
            if value == NO_DIGIT {
                return None;
            }
            carry = carry * BASE + u64::from(value);
            scale *= BASE;
        }
        for word in &mut words {
            let (low, high) = halves(u64::from(*word) * scale + carry);
            *word = low;
            carry = high.into();
        }
        if carry > 0 {
            words.push(halves(carry).0);
        }
    }
    let mut bytes = vec![0; zeros];
    let number = words.iter().rev().flat_map(|word| word.to_be_bytes());
    bytes.extend(number.skip_while(|byte| *byte == 0));
    let (payload, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>()?;
    if checksum(payload) != *sum {
        return None;
    }
    bytes.truncate(bytes.len() - CHECKSUM_BYTES);
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn it_is_what_bs58_writes_and_reads(payload: Vec<u8>, zeros: u8) -> bool {
            let payload = [vec![0; usize::from(zeros % 8)], payload].concat();
            let text = bs58::encode(&payload).with_check().into_string();
            encode(&payload) == text && decode(&text) == Some(payload)
        }

        fn what_bs58_does_not_read_is_not_read(payload: Vec<u8>, at: usize, other: u8) -> bool {
            let mut text = encode(&payload).into_bytes();
            let at = at % text.len();
            text[at] = other % 128;
            let Ok(text) = String::from_utf8(text) else { return true };
            decode(&text) == bs58::decode(&text).with_check(None).into_vec().ok()
        }
    }

    #[test]
    fn hashes_and_the_shortest_texts_are_read_as_bs58_reads_them() {
        for byte in 0..=u8::MAX {
            let mut hash = [byte; 32];
            for (at, byte) in (0..).zip(&mut hash) {
                *byte = byte.rotate_left(at % 8);
            }
            let text = bs58::encode(&hash).with_check().into_string();
            assert_eq!(encode(&hash), text);
            assert_eq!(decode(&text).as_deref(), Some(&hash[..]));
        }
        for text in ["", "1", "11", "1111", "z", "0", "é", "3yQ"] {
            let theirs = bs58::decode(text).with_check(None).into_vec().ok();
            assert_eq!(decode(text), theirs, "{text:?}");
        }
    }
}
