//! What the index has of one value of a field: all of it where it is small, the beginning of it
//! where it is a long string, and of what has parts only that it is there.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::entity::Value;

/// Bytes of a string that the index has.
pub(crate) const TEXT_BYTES_MAX: usize = 128;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cell<'a> {
    /// No value: nothing was written, or it was cleared, or nothing is in it.
    Unset,
    /// A value that only the document has.
    Elsewhere,
    Boolean(bool),
    Integer(i64),
    /// Milliseconds since 1970.
    Timestamp(i64),
    Number(f64),
    Text {
        text: &'a str,
        /// There is more of it in the document.
        cut: bool,
    },
}

/// A cell of its own, as it is kept and passed on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OwnCell {
    Unset,
    Elsewhere,
    Boolean(bool),
    Integer(i64),
    Timestamp(i64),
    /// The bits: records hold no floats.
    Number(u64),
    Text {
        text: String,
        cut: bool,
    },
}

impl OwnCell {
    pub(crate) fn cell(&self) -> Cell<'_> {
        match self {
            Self::Unset => Cell::Unset,
            Self::Elsewhere => Cell::Elsewhere,
            Self::Boolean(yes) => Cell::Boolean(*yes),
            Self::Integer(number) => Cell::Integer(*number),
            Self::Timestamp(time) => Cell::Timestamp(*time),
            Self::Number(bits) => Cell::Number(f64::from_bits(*bits)),
            Self::Text { text, cut } => Cell::Text { text, cut: *cut },
        }
    }
}

impl<'a> Cell<'a> {
    /// A whole value, however long.
    pub(crate) fn of(value: Option<&'a Value>) -> Self {
        match value {
            None | Some(Value::Null) => Self::Unset,
            Some(Value::Boolean(yes)) => Self::Boolean(*yes),
            Some(Value::Integer(number)) => Self::Integer(*number),
            Some(Value::Timestamp(time)) => Self::Timestamp(*time),
            Some(Value::Number(number)) => Self::Number(*number),
            // A text that nobody wrote in is there and empty: there is no telling the two apart.
            Some(Value::String(text)) if text.is_empty() => Self::Unset,
            Some(Value::String(text)) => Self::Text { text, cut: false },
            Some(Value::Bytes(bytes)) if bytes.is_empty() => Self::Unset,
            Some(Value::Set(members)) if members.is_empty() => Self::Unset,
            Some(Value::List(values)) if values.is_empty() => Self::Unset,
            Some(Value::Map(values)) if values.is_empty() => Self::Unset,
            Some(_) => Self::Elsewhere,
        }
    }

    /// The same with at most so many bytes of a string.
    pub(crate) fn cut_to(self, bytes_max: usize) -> Self {
        match self {
            Self::Text { text, cut } if text.len() > bytes_max => {
                let end = text.floor_char_boundary(bytes_max);
                Self::Text {
                    text: text.get(..end).unwrap_or_default(),
                    cut: cut || end < text.len(),
                }
            }
            other => other,
        }
    }

    pub(crate) fn to_own(self) -> OwnCell {
        match self {
            Self::Unset => OwnCell::Unset,
            Self::Elsewhere => OwnCell::Elsewhere,
            Self::Boolean(yes) => OwnCell::Boolean(yes),
            Self::Integer(number) => OwnCell::Integer(number),
            Self::Timestamp(time) => OwnCell::Timestamp(time),
            Self::Number(number) => OwnCell::Number(number.to_bits()),
            Self::Text { text, cut } => OwnCell::Text { text: text.to_owned(), cut },
        }
    }

    /// The value, or the beginning of it; `None` if there is none, or it is elsewhere.
    pub(crate) fn to_value(self) -> Option<Value> {
        Some(match self {
            Self::Unset | Self::Elsewhere => return None,
            Self::Boolean(yes) => Value::Boolean(yes),
            Self::Integer(number) => Value::Integer(number),
            Self::Timestamp(time) => Value::Timestamp(time),
            Self::Number(number) => Value::Number(number),
            Self::Text { text, .. } => Value::String(text.to_owned()),
        })
    }

    /// Whether all of the value is here.
    pub(crate) fn is_whole(self) -> bool {
        !matches!(self, Self::Elsewhere | Self::Text { cut: true, .. })
    }

    /// The order in which values are sorted, ascending: what has none comes last, and so it does
    /// when they are sorted the other way round. Strings are sorted by what the index has of them.
    pub(crate) fn order(self, other: Self, descending: bool) -> Ordering {
        let last = |cell: Self| matches!(cell, Self::Unset | Self::Elsewhere);
        let by_value = match (self, other) {
            (Self::Boolean(one), Self::Boolean(two)) => one.cmp(&two),
            (Self::Integer(one), Self::Integer(two))
            | (Self::Timestamp(one), Self::Timestamp(two)) => one.cmp(&two),
            (Self::Number(one), Self::Number(two)) => one.total_cmp(&two),
            (Self::Text { text: one, .. }, Self::Text { text: two, .. }) => one.cmp(two),
            (one, two) if last(one) || last(two) => return last(one).cmp(&last(two)),
            // Kinds of one field are one, but a cursor says what its maker likes.
            (one, two) => one.tag().cmp(&two.tag()),
        };
        if descending { by_value.reverse() } else { by_value }
    }

    fn tag(self) -> u8 {
        match self {
            Self::Unset => 0,
            Self::Elsewhere => 1,
            Self::Boolean(false) => 2,
            Self::Boolean(true) => 3,
            Self::Integer(_) => 4,
            Self::Timestamp(_) => 5,
            Self::Number(_) => 6,
            Self::Text { cut: false, .. } => 7,
            Self::Text { cut: true, .. } => 8,
        }
    }

    /// Appends it to packed cells.
    pub(super) fn pack(self, out: &mut Vec<u8>) {
        out.push(self.tag());
        match self {
            Self::Unset | Self::Elsewhere | Self::Boolean(_) => {}
            Self::Integer(number) | Self::Timestamp(number) => {
                out.extend_from_slice(&number.to_le_bytes());
            }
            Self::Number(number) => out.extend_from_slice(&number.to_bits().to_le_bytes()),
            Self::Text { text, cut } => {
                // Whoever packs has cut it; what is longer would be another's.
                let end = text.floor_char_boundary(TEXT_BYTES_MAX.min(text.len()));
                let text = text.get(..end).unwrap_or_default();
                debug_assert!(cut || end == text.len());
                out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(text.as_bytes());
            }
        }
    }

    /// Takes the first of packed cells; `None` if it is none.
    pub(super) fn unpack(bytes: &mut &'a [u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let word = || rest.split_first_chunk::<8>();
        let (cell, rest) = match tag {
            0 => (Self::Unset, rest),
            1 => (Self::Elsewhere, rest),
            2 => (Self::Boolean(false), rest),
            3 => (Self::Boolean(true), rest),
            4 => word().map(|(word, rest)| (Self::Integer(i64::from_le_bytes(*word)), rest))?,
            5 => word().map(|(word, rest)| (Self::Timestamp(i64::from_le_bytes(*word)), rest))?,
            6 => word().map(|(word, rest)| (Self::Number(f64::from_le_bytes(*word)), rest))?,
            7 | 8 => {
                let (length, rest) = rest.split_first()?;
                let (text, rest) = rest.split_at_checked(usize::from(*length))?;
                (Self::Text { text: std::str::from_utf8(text).ok()?, cut: *tag == 8 }, rest)
            }
            _ => return None,
        };
        *bytes = rest;
        Some(cell)
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    #[test]
    fn a_string_is_cut_between_letters() {
        let value = Value::String("é".repeat(100));
        let cell = Cell::of(Some(&value)).cut_to(TEXT_BYTES_MAX);
        assert_eq!(cell, Cell::Text { text: &"é".repeat(64), cut: true });
        assert!(!cell.is_whole());
        assert_eq!(cell.cut_to(3), Cell::Text { text: "é", cut: true });
        assert_eq!(Cell::of(Some(&Value::String(String::new()))), Cell::Unset);
    }

    #[test]
    fn what_has_no_value_comes_last_whichever_way() {
        for descending in [false, true] {
            assert_eq!(Cell::Unset.order(Cell::Integer(1), descending), Ordering::Greater);
            assert_eq!(Cell::Integer(1).order(Cell::Unset, descending), Ordering::Less);
        }
        assert_eq!(Cell::Integer(1).order(Cell::Integer(2), true), Ordering::Greater);
    }

    quickcheck! {
        fn cells_come_back_from_their_bytes(number: i64, bits: u64, text: String, yes: bool) -> bool {
            let text = Value::String(text);
            let cells = [
                Cell::Unset, Cell::Elsewhere, Cell::Boolean(yes), Cell::Integer(number),
                Cell::Timestamp(number), Cell::Number(f64::from_bits(bits)),
                Cell::of(Some(&text)).cut_to(TEXT_BYTES_MAX),
            ];
            let mut out = Vec::new();
            for cell in &cells {
                cell.pack(&mut out);
            }
            let mut rest = &out[..];
            // By their own form, for a number that is none is not itself.
            cells.iter().all(|cell| {
                Cell::unpack(&mut rest).is_some_and(|read| read.to_own() == cell.to_own())
                    && cell.to_own().cell().to_own() == cell.to_own()
            }) && rest.is_empty()
        }

        fn no_bytes_make_it_panic(bytes: Vec<u8>) -> bool {
            let mut rest = &bytes[..];
            while Cell::unpack(&mut rest).is_some() {}
            true
        }
    }
}
