//! The functions that a rule can use.

use super::{
    NoRule,
    evaluate::RuleError,
    evaluate::{add, compare},
    node::Type,
};
use crate::entity::Value;

/// A function of a rule, of one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Function {
    /// `sum(lines.amount)`: 0 of none.
    Sum,
    /// `min(lines.amount)`: none of none, so that the rule does not apply.
    Min,
    /// `max(lines.amount)`: as `min`.
    Max,
    /// `size(labels)`: members, elements, or characters of a string.
    Size,
    /// `abs(balance)`.
    Abs,
}

impl Function {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Sum, Self::Min, Self::Max, Self::Size, Self::Abs];

    /// What it is called in a rule.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::Size => "size",
            Self::Abs => "abs",
        }
    }

    /// What it gives, of a value of this type.
    pub(super) fn type_of(self, argument: &Type) -> Result<Type, NoRule> {
        let given = match (self, argument) {
            (Self::Sum, Type::List(items)) if items.is_numeric() => Some((**items).clone()),
            (Self::Min | Self::Max, Type::List(items)) if items.has_order() => {
                Some((**items).clone())
            }
            (Self::Size, Type::List(_) | Type::String) => Some(Type::Integer),
            (Self::Abs, number) if number.is_numeric() => Some(number.clone()),
            _ => None,
        };
        given.ok_or_else(|| {
            let wanted = match self {
                Self::Sum => "a list of numbers, as in `sum(lines.amount)`",
                Self::Min | Self::Max => "a list, as in `max(lines.amount)`",
                Self::Size => "a list, set or string",
                Self::Abs => "a number",
            };
            let problem = format!("`{}` is given {argument}", self.name());
            NoRule::new(problem, format!("give it {wanted}"))
        })
    }

    pub(super) fn of(self, argument: Value) -> Result<Option<Value>, RuleError> {
        Ok(match (self, argument) {
            (Self::Sum, Value::List(values)) => {
                let sum = values.into_iter().try_fold(Value::Integer(0), add)?;
                Some(sum)
            }
            (Self::Min | Self::Max, Value::List(values)) => {
                let mut best: Option<Value> = None;
                for value in values {
                    let is_better = match &best {
                        None => true,
                        Some(best) if self == Self::Min => compare(&value, best)?.is_lt(),
                        Some(best) => compare(&value, best)?.is_gt(),
                    };
                    if is_better {
                        best = Some(value);
                    }
                }
                best
            }
            (Self::Size, Value::List(values)) => Some(length(values.len())),
            (Self::Size, Value::String(text)) => Some(length(text.chars().count())),
            (Self::Abs, Value::Integer(number)) => {
                Some(Value::Integer(number.checked_abs().ok_or(RuleError::Overflow)?))
            }
            (Self::Abs, Value::Number(number)) => Some(Value::Number(number.abs())),
            (_, other) => return Err(RuleError::Unexpected(other.name())),
        })
    }
}

fn length(length: usize) -> Value {
    Value::Integer(i64::try_from(length).unwrap_or(i64::MAX))
}
