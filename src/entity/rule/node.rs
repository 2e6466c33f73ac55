//! What a rule is made of.

use std::fmt;

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
