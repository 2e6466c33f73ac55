//! CBOR items, one at a time: what [`minicbor`] reads, narrowed to what messages are made of.

use minicbor::{
    Decoder,
    data::{Tag, Type},
};

use super::DecodeError;

/// How deep the values of unknown keys may nest; nothing known nests deeper than four.
const DEPTH_MAX: usize = 16;
/// Typed arrays: 64 is a byte array, which early 1.0 clients wrote before their bytes.
const TAG_BYTES: Tag = Tag::new(64);
/// The largest integer that a float holds together with all below it.
const FLOAT_INTEGER_MAX: f64 = 9_007_199_254_740_992.0;

/// A place in a frame.
#[derive(Clone)]
pub(super) struct Item<'a>(Decoder<'a>);

impl<'a> Item<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(Decoder::new(bytes))
    }

    pub(super) fn position(&self) -> usize {
        self.0.position()
    }

    pub(super) fn remaining(&self) -> usize {
        self.0.input().len().saturating_sub(self.0.position())
    }

    pub(super) fn kind(&self) -> Result<Type, DecodeError> {
        Ok(self.0.datatype()?)
    }

    /// Whether the value is null or undefined, which both mean absent. It is read if so.
    pub(super) fn absent(&mut self) -> Result<bool, DecodeError> {
        match self.kind()? {
            Type::Null => self.0.null()?,
            Type::Undefined => self.0.undefined()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        match self.kind()? {
            Type::String => self.0.str().map_err(|error| {
                if error.is_end_of_input() { DecodeError::Truncated } else { not(field, "UTF-8") }
            }),
            _ => Err(not(field, "a text")),
        }
    }

    pub(super) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DecodeError> {
        if self.kind()? == Type::Tag && self.0.tag()? != TAG_BYTES {
            return Err(not(field, "a byte string"));
        }
        match self.kind()? {
            Type::Bytes => Ok(self.0.bytes()?),
            _ => Err(not(field, "a byte string")),
        }
    }

    pub(super) fn boolean(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.kind()? {
            Type::Bool => Ok(self.0.bool()?),
            _ => Err(not(field, "true or false")),
        }
    }

    /// A finite number, written as an integer or as a float.
    pub(super) fn number(&mut self, field: &'static str) -> Result<f64, DecodeError> {
        let number = match self.kind()? {
            Type::F16 => half(self.raw_u16()?),
            Type::F32 => f64::from(self.0.f32()?),
            Type::F64 => self.0.f64()?,
            // A time beyond 2^53 milliseconds loses its last digits, as in JavaScript.
            #[expect(clippy::cast_precision_loss, reason = "as JavaScript numbers")]
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => self.0.u64()? as f64,
            #[expect(clippy::cast_precision_loss, reason = "as JavaScript numbers")]
            Type::I8 | Type::I16 | Type::I32 | Type::I64 => self.0.i64()? as f64,
            _ => return Err(not(field, "a number")),
        };
        if number.is_finite() { Ok(number) } else { Err(not(field, "a finite number")) }
    }

    /// A whole number from nought up, written as an integer or as a float.
    pub(super) fn count(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        if let Type::U8 | Type::U16 | Type::U32 | Type::U64 = self.kind()? {
            return Ok(self.0.u64()?);
        }
        let number = self.number(field)?;
        if number.fract() == 0.0 && (0.0..=FLOAT_INTEGER_MAX).contains(&number) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "whole, not negative, and within 2^53"
            )]
            return Ok(number as u64);
        }
        Err(not(field, "a whole number from 0 to 2^53"))
    }

    /// Enters an array, or a map, and counts what is in it.
    pub(super) fn array(&mut self, field: &'static str) -> Result<Entries, DecodeError> {
        match self.kind()? {
            Type::Array | Type::ArrayIndef => Ok(Entries(self.0.array()?)),
            _ => Err(not(field, "an array")),
        }
    }

    pub(super) fn map(&mut self, field: &'static str) -> Result<Entries, DecodeError> {
        match self.kind()? {
            Type::Map | Type::MapIndef => Ok(Entries(self.0.map()?)),
            _ => Err(not(field, "a map")),
        }
    }

    /// Passes over a value, whatever it is, without building anything.
    pub(super) fn skip(&mut self) -> Result<(), DecodeError> {
        self.skip_within(DEPTH_MAX)
    }

    fn skip_within(&mut self, depth: usize) -> Result<(), DecodeError> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(DecodeError::Malformed("nested too deeply"));
        };
        match self.kind()? {
            Type::Bool => drop(self.0.bool()?),
            Type::Null => self.0.null()?,
            Type::Undefined => self.0.undefined()?,
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => drop(self.0.u64()?),
            Type::I8 | Type::I16 | Type::I32 | Type::I64 | Type::Int => drop(self.0.int()?),
            Type::F16 => drop(self.raw_u16()?),
            Type::F32 => drop(self.0.f32()?),
            Type::F64 => drop(self.0.f64()?),
            Type::Simple => drop(self.0.simple()?),
            Type::Bytes => drop(self.0.bytes()?),
            Type::String => drop(self.0.str()?),
            Type::Tag => {
                self.0.tag()?;
                self.skip_within(depth)?;
            }
            Type::Array | Type::ArrayIndef => {
                let mut entries = Entries(self.0.array()?);
                while entries.more(self)? {
                    self.skip_within(depth)?;
                }
            }
            Type::Map | Type::MapIndef => {
                let mut entries = Entries(self.0.map()?);
                while entries.more(self)? {
                    self.skip_within(depth)?;
                    self.skip_within(depth)?;
                }
            }
            Type::BytesIndef | Type::StringIndef => {
                return Err(DecodeError::Malformed("a text or byte string in pieces"));
            }
            Type::Break | Type::Unknown(_) => {
                return Err(DecodeError::Malformed("not a CBOR value"));
            }
        }
        Ok(())
    }

    /// The two bytes of a half float, which minicbor reads only with another dependency.
    fn raw_u16(&mut self) -> Result<u16, DecodeError> {
        let start = self.0.position() + 1;
        let bytes = self.0.input().get(start..start + 2).ok_or(DecodeError::Truncated)?;
        self.0.set_position(start + 2);
        Ok(bytes.iter().fold(0, |value, &byte| value << 8 | u16::from(byte)))
    }
}

/// What is left of an array or a map: a count, or everything up to a break.
pub(super) struct Entries(Option<u64>);

impl Entries {
    /// Whether one more entry follows.
    pub(super) fn more(&mut self, item: &mut Item<'_>) -> Result<bool, DecodeError> {
        match &mut self.0 {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if item.kind()? == Type::Break => {
                item.0.set_position(item.0.position() + 1);
                Ok(false)
            }
            None => Ok(true),
        }
    }

    /// Room for the entries, as far as they are declared and the bytes left can hold them.
    pub(super) fn capacity(&self, item: &Item<'_>) -> usize {
        let declared = usize::try_from(self.0.unwrap_or(0)).unwrap_or(usize::MAX);
        declared.min(item.remaining())
    }
}

/// IEEE 754 half precision.
fn half(bits: u16) -> f64 {
    let magnitude = f64::from(bits & 0x3ff);
    let value = match i32::from(bits >> 10 & 0x1f) {
        0 => magnitude * 2.0_f64.powi(-24),
        31 if magnitude == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1024.0 + magnitude) * 2.0_f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { value } else { -value }
}

const fn not(field: &'static str, expected: &'static str) -> DecodeError {
    DecodeError::Field { field, expected }
}

impl From<minicbor::decode::Error> for DecodeError {
    fn from(error: minicbor::decode::Error) -> Self {
        if error.is_end_of_input() {
            Self::Truncated
        } else {
            Self::Malformed("not a CBOR value, or one that does not fit")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_what_the_standard_says() {
        let known = [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc400, -4.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_477_539_063e-8),
        ];
        for (bits, value) in known {
            assert_eq!(half(bits).to_bits(), f64::to_bits(value), "{bits:#x}");
        }
        assert!(half(0x7c00).is_infinite() && half(0x7e00).is_nan());
    }

    #[test]
    fn numbers_come_as_integers_or_floats() {
        let seven: [&[u8]; 6] = [
            &[7],
            &[0x18, 7],
            &[0x1b, 0, 0, 0, 0, 0, 0, 0, 7],
            &[0xf9, 0x47, 0x00],
            &[0xfa, 0x40, 0xe0, 0, 0],
            &[0xfb, 0x40, 0x1c, 0, 0, 0, 0, 0, 0],
        ];
        for bytes in seven {
            assert_eq!(Item::new(bytes).count("count"), Ok(7), "{bytes:x?}");
            assert_eq!(Item::new(bytes).number("count"), Ok(7.0), "{bytes:x?}");
        }
        for bytes in [&[0x20][..], &[0xf9, 0x38, 0], &[0xf9, 0x7e, 0], &[0x60]] {
            assert!(Item::new(bytes).count("count").is_err(), "{bytes:x?}");
        }
    }

    #[test]
    fn skipping_stops_at_its_depth() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0xf6]].concat();
        assert_eq!(Item::new(&nested(DEPTH_MAX - 1)).skip(), Ok(()));
        let deep = Err(DecodeError::Malformed("nested too deeply"));
        assert_eq!(Item::new(&nested(DEPTH_MAX)).skip(), deep);
        assert_eq!(Item::new(&vec![0xc1; 1_000_000]).skip(), deep);
    }
}
