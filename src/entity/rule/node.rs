//! What a rule is made of.

use std::{collections::BTreeSet, fmt};

use super::functions::Function;
use crate::entity::Value;

/// A part of a rule that has a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Always the same.
    Constant(Value),
    /// What a field has: names from the entity down.
    Field(Vec<String>),
    /// The members of a set of whole numbers, which are kept as strings.
    Whole(Box<Node>),
    /// Whether a field has a value.
    Has(Vec<String>),
    /// Not.
    Not(Box<Node>),
    /// The number below zero.
    Negate(Box<Node>),
    /// Two values and what is done with them.
    Binary(Operator, Box<Node>, Box<Node>),
    /// Both.
    And(Box<Node>, Box<Node>),
    /// Either.
    Or(Box<Node>, Box<Node>),
    /// The second if the first is true, else the third.
    If(Box<Node>, Box<Node>, Box<Node>),
    /// A list of values.
    List(Vec<Node>),
    /// What a function makes of a value.
    Call(Function, Box<Node>),
}

impl Node {
    /// Notes the fields of the entity itself that it looks at, or at something inside of which.
    pub(super) fn note_fields<'a>(&'a self, noted: &mut BTreeSet<&'a str>) {
        match self {
            Self::Constant(_) => {}
            Self::Field(path) | Self::Has(path) => noted.extend(path.first().map(String::as_str)),
            Self::Whole(part) | Self::Not(part) | Self::Negate(part) | Self::Call(_, part) => {
                part.note_fields(noted);
            }
            Self::Binary(_, one, other) | Self::And(one, other) | Self::Or(one, other) => {
                one.note_fields(noted);
                other.note_fields(noted);
            }
            Self::If(condition, one, other) => {
                condition.note_fields(noted);
                one.note_fields(noted);
                other.note_fields(noted);
            }
            Self::List(parts) => parts.iter().for_each(|part| part.note_fields(noted)),
        }
    }
}

/// What is done with two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

/// What the value of a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Type {
    Boolean,
    Integer,
    Number,
    String,
    Timestamp,
    List(Box<Type>),
    /// A list of which nothing is known, for it is empty.
    Anything,
}

impl Type {
    pub(super) fn is_numeric(&self) -> bool {
        matches!(self, Self::Integer | Self::Number)
    }

    /// Whether values of both can be compared.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self == other
            || (self.is_numeric() && other.is_numeric())
            || matches!(self, Self::Anything)
            || matches!(other, Self::Anything)
    }

    /// Whether one value can be less than another.
    pub(super) fn has_order(&self) -> bool {
        !matches!(self, Self::Boolean | Self::List(_))
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("a boolean"),
            Self::Integer => f.write_str("an integer"),
            Self::Number => f.write_str("a number"),
            Self::String => f.write_str("a string"),
            Self::Timestamp => f.write_str("a timestamp"),
            Self::List(_) => f.write_str("a list"),
            Self::Anything => f.write_str("a value"),
        }
    }
}
