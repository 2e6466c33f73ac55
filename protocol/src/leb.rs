//! LEB128 numbers and a cursor over bytes: what both the sync message and the chunks are made of.
//!
//! As strict as automerge's own reader: no number longer than it need be, none beyond 64 bits.

/// Why the next item could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The bytes ended first.
    Truncated,
    /// A number that is overlong or does not fit.
    Number,
}

/// Bytes that are left to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    data: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(data: &'a [u8]) -> Self {
        Self { data, position: 0 }
    }

    /// How many bytes were read.
    pub(crate) const fn position(&self) -> usize {
        self.position
    }

    /// How many bytes are left.
    pub(crate) const fn remaining(&self) -> usize {
        self.data.len() - self.position
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Fault> {
        let byte = *self.data.get(self.position).ok_or(Fault::Truncated)?;
        self.position += 1;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let end = self.position.checked_add(len).ok_or(Fault::Truncated)?;
        let taken = self.data.get(self.position..end).ok_or(Fault::Truncated)?;
        self.position = end;
        Ok(taken)
    }

    /// A length, and as many bytes.
    pub(crate) fn prefixed(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.length()?;
        self.take(len)
    }

    /// A number that counts bytes or items of at least a byte: never more than are left.
    #[inline]
    pub(crate) fn length(&mut self) -> Result<usize, Fault> {
        let len = self.unsigned()?;
        usize::try_from(len).ok().filter(|&len| len <= self.remaining()).ok_or(Fault::Truncated)
    }

    #[inline]
    pub(crate) fn unsigned(&mut self) -> Result<u64, Fault> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                return Err(Fault::Number);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if byte == 0 { Err(Fault::Number) } else { Ok(value) };
            }
            shift += 7;
        }
    }

    #[inline]
    pub(crate) fn signed(&mut self) -> Result<i64, Fault> {
        let first = self.byte()?;
        if first < 0x80 {
            // Sign-extends the seven bits.
            return Ok(i64::from((first << 1).cast_signed() >> 1));
        }
        let mut value = i64::from(first & 0x7f);
        let mut shift = 7;
        let mut before = first;
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte != 0 && byte != 0x7f {
                return Err(Fault::Number);
            }
            value |= i64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                // A last byte that only repeats the sign of the one before it is overlong.
                let repeats_sign =
                    (byte == 0 && before & 0x40 == 0) || (byte == 0x7f && before & 0x40 != 0);
                if repeats_sign {
                    return Err(Fault::Number);
                }
                if shift < 64 && byte & 0x40 != 0 {
                    value |= -1 << shift;
                }
                return Ok(value);
            }
            before = byte;
        }
    }
}

/// Appends an unsigned number.
pub(crate) fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

/// How many bytes [`write`] appends.
pub(crate) const fn size(value: u64) -> usize {
    match value.checked_ilog2() {
        None => 1,
        Some(bit) => (bit / 7 + 1) as usize,
    }
}

const fn low_byte(value: u64) -> u8 {
    value.to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn write_signed(out: &mut Vec<u8>, mut value: i64) {
        loop {
            let byte = value.to_le_bytes()[0] & 0x7f;
            value >>= 7;
            let done = (value == 0 && byte & 0x40 == 0) || (value == -1 && byte & 0x40 != 0);
            out.push(if done { byte } else { byte | 0x80 });
            if done {
                return;
            }
        }
    }

    #[test]
    fn the_edges_of_both_kinds_come_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            write(&mut out, value);
            assert_eq!(out.len(), size(value), "{value}");
            assert_eq!(Reader::new(&out).unsigned(), Ok(value));
        }
        for value in [0, 1, -1, 63, 64, -64, -65, 8191, -8192, -8193, i64::MAX, i64::MIN] {
            let mut out = Vec::new();
            write_signed(&mut out, value);
            assert_eq!(Reader::new(&out).signed(), Ok(value), "{value}");
        }
    }

    #[test]
    fn overlong_and_oversized_numbers_are_refused() {
        let long = |last: u8| [&[0xff; 9][..], &[last]].concat();
        assert_eq!(Reader::new(&[0x81, 0x00]).unsigned(), Err(Fault::Number));
        assert_eq!(Reader::new(&long(2)).unsigned(), Err(Fault::Number));
        assert_eq!(Reader::new(&long(0x81)).unsigned(), Err(Fault::Number));
        assert_eq!(Reader::new(&[0x81, 0x00]).signed(), Err(Fault::Number));
        assert_eq!(Reader::new(&[0xff, 0x7f]).signed(), Err(Fault::Number));
        assert_eq!(Reader::new(&long(1)).signed(), Err(Fault::Number));
        assert_eq!(Reader::new(&[0x80]).unsigned(), Err(Fault::Truncated));
        assert_eq!(Reader::new(&[]).signed(), Err(Fault::Truncated));
        assert_eq!(Reader::new(&[5, 1]).prefixed(), Err(Fault::Truncated));
    }

    quickcheck! {
        fn unsigned_numbers_round_trip(value: u64) -> bool {
            let mut out = Vec::new();
            write(&mut out, value);
            out.len() == size(value) && Reader::new(&out).unsigned() == Ok(value)
        }

        fn signed_numbers_round_trip(value: i64, shift: u8) -> bool {
            let value = value >> (shift % 64);
            let mut out = Vec::new();
            write_signed(&mut out, value);
            Reader::new(&out).signed() == Ok(value)
        }

        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) -> bool {
            let mut reader = Reader::new(&bytes);
            while reader.signed().is_ok() {}
            let mut reader = Reader::new(&bytes);
            while reader.unsigned().is_ok() {}
            reader.position() <= bytes.len()
        }
    }
}
