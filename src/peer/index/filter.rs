//! Filters on declared fields: decided by what the index has where that is enough, and else by the
//! document.

use std::{cmp::Ordering, fmt};

use super::{ReadError, cell::Cell};
use crate::entity::{EntityType, Kind, Value};

/// Something that must hold of a field.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// The name of a field that the type declares.
    pub field: String,
    /// What must hold of its value.
    pub test: Test,
}

/// What must hold of a value. A text, set, list or map that is empty has no value, and of a field
/// without one nothing holds but [`Test::IsNot`] and [`Test::Unset`]. Texts are compared letter by
/// letter, as Unicode numbers them.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Test {
    /// It is this.
    Is(Value),
    /// It is not this.
    IsNot(Value),
    /// It is less, earlier, or sorted before this.
    Below(Value),
    /// It is not above this.
    AtMost(Value),
    /// It is greater, later, or sorted behind this.
    Above(Value),
    /// It is not below this.
    AtLeast(Value),
    /// It has this in it: letters of a string, a member of a set, an element of a list.
    Contains(String),
    /// It is a string that begins so.
    StartsWith(String),
    /// It is one of these.
    In(Vec<Value>),
    /// It is there.
    Set,
    /// It is not there.
    Unset,
}

impl Filter {
    /// What must hold of a field.
    pub fn new(field: impl Into<String>, test: Test) -> Self {
        Self { field: field.into(), test }
    }

    /// The same, with its field's place among those of the type.
    pub(super) fn prepare(&self, of: &EntityType) -> Result<Prepared, ReadError> {
        let number = field_number(of, &self.field)?;
        let kind = &of.fields[&self.field].kind;
        let fits = |value: &Value| fitting(kind, value);
        let wrong = || ReadError::Test {
            field: self.field.clone(),
            kind: kind.name(),
            test: self.to_string(),
        };
        let one = |value: &Value| fits(value).ok_or_else(wrong);
        let ordered = |value: &Value| match kind {
            Kind::Boolean => Err(wrong()),
            _ => one(value),
        };
        let is_empty = |value: &Value| *value == Value::String(String::new());
        let test = match &self.test {
            // Nothing is what an empty string says.
            Test::Is(value) if is_empty(value) => Test::Unset,
            Test::IsNot(value) if is_empty(value) => Test::Set,
            Test::Is(value) => Test::Is(one(value)?),
            Test::IsNot(value) => Test::IsNot(one(value)?),
            Test::Below(value) => Test::Below(ordered(value)?),
            Test::AtMost(value) => Test::AtMost(ordered(value)?),
            Test::Above(value) => Test::Above(ordered(value)?),
            Test::AtLeast(value) => Test::AtLeast(ordered(value)?),
            Test::In(values) => Test::In(values.iter().map(one).collect::<Result<_, _>>()?),
            Test::Contains(part) => match kind {
                kind if is_string(kind) => Test::Contains(part.clone()),
                Kind::Set { .. } | Kind::List { .. } => Test::Contains(part.clone()),
                _ => return Err(wrong()),
            },
            Test::StartsWith(_) if !is_string(kind) => return Err(wrong()),
            other => other.clone(),
        };
        Ok(Prepared { number, field: self.field.clone(), test })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, test } = self;
        match test {
            Test::Is(value) => write!(f, "{field}={}", value.to_json()),
            Test::IsNot(value) => write!(f, "{field}!={}", value.to_json()),
            Test::Below(value) => write!(f, "{field}<{}", value.to_json()),
            Test::AtMost(value) => write!(f, "{field}<={}", value.to_json()),
            Test::Above(value) => write!(f, "{field}>{}", value.to_json()),
            Test::AtLeast(value) => write!(f, "{field}>={}", value.to_json()),
            Test::Contains(part) => write!(f, "{field}~{part:?}"),
            Test::StartsWith(part) => write!(f, "{field}^={part:?}"),
            Test::In(values) => {
                write!(f, "{field}=")?;
                values.iter().enumerate().try_for_each(|(number, value)| {
                    let between = if number > 0 { "|" } else { "" };
                    write!(f, "{between}{}", value.to_json())
                })
            }
            Test::Set => write!(f, "{field}?"),
            Test::Unset => write!(f, "{field}!"),
        }
    }
}

/// The place of a field among those of its type.
pub(super) fn field_number(of: &EntityType, field: &str) -> Result<usize, ReadError> {
    of.fields.keys().position(|name| name == field).ok_or_else(|| ReadError::NoField {
        type_name: of.name.clone(),
        field: field.to_owned(),
        known: of.fields.keys().cloned().collect(),
    })
}

/// A filter whose constants fit its field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prepared {
    number: usize,
    pub(crate) field: String,
    test: Test,
}

impl Prepared {
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Whether it holds of what the index has of a value; `None` if only the document says.
    pub(crate) fn decide(&self, cell: Cell<'_>) -> Option<bool> {
        let wants = |value: &Value, wanted: fn(Ordering) -> bool| match compare(cell, value) {
            Compared::Is(order) => Some(wanted(order)),
            Compared::Not => Some(false),
            Compared::Undecided => None,
        };
        match &self.test {
            Test::Set => Some(cell != Cell::Unset),
            Test::Unset => Some(cell == Cell::Unset),
            Test::IsNot(value) => wants(value, Ordering::is_eq).map(|is| !is),
            _ if cell == Cell::Unset => Some(false),
            Test::Is(value) => wants(value, Ordering::is_eq),
            Test::Below(value) => wants(value, Ordering::is_lt),
            Test::AtMost(value) => wants(value, Ordering::is_le),
            Test::Above(value) => wants(value, Ordering::is_gt),
            Test::AtLeast(value) => wants(value, Ordering::is_ge),
            Test::In(values) => {
                let found = values.iter().map(|value| wants(value, Ordering::is_eq));
                found.fold(Some(false), either)
            }
            Test::Contains(part) => match cell {
                Cell::Text { text, .. } if text.contains(part.as_str()) => Some(true),
                Cell::Text { cut: false, .. } => Some(false),
                _ => None,
            },
            Test::StartsWith(part) => match cell {
                Cell::Text { text, .. } if text.starts_with(part.as_str()) => Some(true),
                Cell::Text { text, cut } => (!(cut && part.starts_with(text))).then_some(false),
                _ => None,
            },
        }
    }

    /// Whether it holds of the value itself.
    pub(crate) fn holds(&self, value: Option<&Value>) -> bool {
        match (&self.test, value) {
            (Test::Contains(part), Some(Value::Set(members))) => members.contains(part),
            (Test::Contains(part), Some(Value::List(values))) => {
                values.iter().any(|value| match value {
                    Value::String(text) => text == part,
                    Value::Integer(number) => part.parse() == Ok(*number),
                    _ => false,
                })
            }
            // Of a whole value nothing is undecided but what no kind of it is asked.
            (_, value) => self.decide(Cell::of(value)).unwrap_or(false),
        }
    }
}

fn either(one: Option<bool>, other: Option<bool>) -> Option<bool> {
    match (one, other) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}

/// How a value stands to a constant.
enum Compared {
    Is(Ordering),
    /// They cannot be compared.
    Not,
    /// Only the document says.
    Undecided,
}

/// How what the index has of a value stands to a constant.
fn compare(cell: Cell<'_>, value: &Value) -> Compared {
    let order = match (cell, value) {
        (Cell::Elsewhere, _) => return Compared::Undecided,
        (Cell::Boolean(one), Value::Boolean(two)) => Some(one.cmp(two)),
        (Cell::Integer(one), Value::Integer(two))
        | (Cell::Timestamp(one), Value::Timestamp(two)) => Some(one.cmp(two)),
        (Cell::Number(one), Value::Number(two)) => one.partial_cmp(two),
        (Cell::Text { text, cut }, Value::String(other)) => match text.cmp(other) {
            // It goes on, and so does the constant: how, the index does not know.
            Ordering::Less if cut && other.starts_with(text) => return Compared::Undecided,
            // It goes on, and the constant ends.
            Ordering::Equal if cut => Some(Ordering::Greater),
            order => Some(order),
        },
        _ => None,
    };
    order.map_or(Compared::Not, Compared::Is)
}

fn is_string(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Text { .. }
            | Kind::String { .. }
            | Kind::Enum { .. }
            | Kind::Reference { .. }
            | Kind::Attachment { .. }
            | Kind::Position
    )
}

/// A constant as values of a kind are; `None` if no value of it is alike.
fn fitting(kind: &Kind, value: &Value) -> Option<Value> {
    Some(match (kind, value) {
        (Kind::Boolean, Value::Boolean(_))
        | (Kind::Integer { .. } | Kind::Counter, Value::Integer(_))
        | (Kind::Timestamp { .. }, Value::Timestamp(_))
        | (Kind::Number { .. }, Value::Number(_)) => value.clone(),
        (Kind::Timestamp { .. }, Value::Integer(time)) => Value::Timestamp(*time),
        #[expect(clippy::cast_precision_loss, reason = "as a number is written without a point")]
        (Kind::Number { .. }, Value::Integer(number)) => Value::Number(*number as f64),
        (kind, Value::String(_)) if is_string(kind) => value.clone(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn prepared(test: Test) -> Prepared {
        Prepared { number: 0, field: "f".to_owned(), test }
    }

    quickcheck! {
        /// What the index decides is what the document says; and it decides all that is not cut.
        fn a_cut_string_is_never_decided_otherwise_than_the_whole(
            text: Vec<bool>, constant: Vec<bool>, room: usize
        ) -> bool {
            // Of two letters, so that many begin alike.
            let word = |letters: Vec<bool>| -> String {
                letters.into_iter().map(|is_a| if is_a { 'a' } else { 'b' }).collect()
            };
            let (text, constant) = (Value::String(word(text)), word(constant));
            let value = Value::String(constant.clone());
            let room = room % 8;
            let cell = Cell::of(Some(&text)).cut_to(room);
            let tests = [
                Test::Is(value.clone()), Test::IsNot(value.clone()), Test::Below(value.clone()),
                Test::AtMost(value.clone()), Test::Above(value.clone()),
                Test::AtLeast(value.clone()), Test::Contains(constant.clone()),
                Test::StartsWith(constant), Test::In(vec![value, Value::String("ab".to_owned())]),
                Test::Set, Test::Unset,
            ];
            tests.into_iter().all(|test| {
                let test = prepared(test);
                let decided = test.decide(cell);
                let is_enough = !cell.is_whole() || decided.is_some();
                is_enough && decided.is_none_or(|is| is == test.holds(Some(&text)))
            })
        }
    }

    #[test]
    fn of_nothing_nothing_holds_but_what_is_said_of_it() {
        let one = Value::Integer(1);
        for (test, holds) in [
            (Test::Is(one.clone()), false),
            (Test::IsNot(one.clone()), true),
            (Test::Below(one.clone()), false),
            (Test::In(vec![one]), false),
            (Test::Set, false),
            (Test::Unset, true),
        ] {
            assert_eq!(prepared(test.clone()).holds(None), holds, "{test:?}");
        }
    }

    #[test]
    fn members_and_elements_are_found_in_the_document() {
        let set = Value::Set(["red".to_owned()].into());
        let list = Value::List(vec![Value::Integer(7), Value::String("x".to_owned())]);
        let contains = |part: &str| prepared(Test::Contains(part.to_owned()));
        assert!(contains("red").holds(Some(&set)) && !contains("re").holds(Some(&set)));
        assert!(contains("7").holds(Some(&list)) && contains("x").holds(Some(&list)));
        assert_eq!(contains("red").decide(Cell::of(Some(&set))), None);
    }
}
