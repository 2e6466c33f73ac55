//! What a rule says of values. It ends, and fails rather than guess.

use std::{cmp::Ordering, collections::BTreeMap};

use super::node::{Node, Operator};
use crate::entity::{Value, limits};

/// Why a rule cannot be worked out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// A whole number beyond 64 bits, or a number that is none.
    #[error("a number is too large: keep the values of its fields smaller")]
    Overflow,
    /// Division by zero.
    #[error("it divides by zero: let it ask first, as in `count == 0 || total / count > 1`")]
    DivisionByZero,
    /// A list of more than [`limits::RULE_ITEMS_MAX`] elements.
    #[error("a list has more than {max} elements: keep fewer in one entity", max = limits::RULE_ITEMS_MAX)]
    TooMany,
    /// A value of another kind than its field. Values that were read from a document fit.
    #[error("it met a {0} where none can be: read the values from the document again")]
    Unexpected(&'static str),
}

/// The value of a part; `None` if a field that it needs has none.
pub(super) fn evaluate(
    node: &Node,
    values: &BTreeMap<String, Value>,
) -> Result<Option<Value>, RuleError> {
    let of = |node: &Node| evaluate(node, values);
    Ok(match node {
        Node::Constant(value) => Some(value.clone()),
        Node::Field(names) => field(names, values)?,
        Node::Whole(members) => match of(members)? {
            Some(Value::List(members)) => {
                let number = |member| match member {
                    Value::String(text) => text.parse().map(Value::Integer).ok(),
                    _ => None,
                };
                Some(Value::List(members.into_iter().filter_map(number).collect()))
            }
            other => other,
        },
        Node::Has(names) => Some(Value::Boolean(field(names, values)?.is_some())),
        Node::Not(node) => match of(node)? {
            Some(Value::Boolean(yes)) => Some(Value::Boolean(!yes)),
            Some(other) => return Err(RuleError::Unexpected(other.name())),
            None => None,
        },
        Node::Negate(node) => match of(node)? {
            Some(value) => Some(arithmetic(Operator::Subtract, Value::Integer(0), value)?),
            None => None,
        },
        Node::And(left, right) => either(of(left)?, || of(right), false)?,
        Node::Or(left, right) => either(of(left)?, || of(right), true)?,
        Node::If(condition, then, otherwise) => match of(condition)? {
            Some(Value::Boolean(true)) => of(then)?,
            Some(_) => of(otherwise)?,
            None => None,
        },
        Node::List(nodes) => {
            let values: Result<Option<Vec<Value>>, RuleError> =
                nodes.iter().map(|node| of(node).transpose()).map(Option::transpose).collect();
            values?.map(Value::List)
        }
        Node::Call(function, argument) => match of(argument)? {
            Some(value) => function.of(value)?,
            None => None,
        },
        Node::Binary(operator, left, right) => match (of(left)?, of(right)?) {
            (Some(left), Some(right)) => Some(binary(*operator, left, right)?),
            _ => None,
        },
    })
}

/// `&&` and `||`: whichever side is `decisive` decides, whatever the other is.
fn either(
    left: Option<Value>,
    right: impl FnOnce() -> Result<Option<Value>, RuleError>,
    decisive: bool,
) -> Result<Option<Value>, RuleError> {
    let decisive = Value::Boolean(decisive);
    if left.as_ref() == Some(&decisive) {
        return Ok(left);
    }
    let right = right()?;
    Ok(if right.as_ref() == Some(&decisive) { right } else { left.and(right) })
}

/// What a field has. Below a list or map it is a list of what the elements have.
fn field(names: &[String], values: &BTreeMap<String, Value>) -> Result<Option<Value>, RuleError> {
    let Some((first, rest)) = names.split_first() else { return Ok(None) };
    let Some(value) = values.get(first) else { return Ok(None) };
    let mut found = vec![value];
    let mut is_many = false;
    for name in rest {
        let mut next = Vec::new();
        for value in found {
            match value {
                Value::Map(values) if name == "*" => {
                    next.extend(values.values());
                }
                Value::List(values) => next.extend(values),
                Value::Map(values) => next.extend(values.get(name)),
                _ => {}
            }
            if next.len() > limits::RULE_ITEMS_MAX {
                return Err(RuleError::TooMany);
            }
        }
        is_many |= name == "*";
        found = next;
    }
    if is_many {
        return Ok(Some(Value::List(found.into_iter().cloned().collect())));
    }
    Ok(match found.pop() {
        Some(Value::Set(members)) => {
            if members.len() > limits::RULE_ITEMS_MAX {
                return Err(RuleError::TooMany);
            }
            Some(Value::List(members.iter().cloned().map(Value::String).collect()))
        }
        Some(Value::List(values)) if values.len() > limits::RULE_ITEMS_MAX => {
            return Err(RuleError::TooMany);
        }
        other => other.cloned(),
    })
}

fn binary(operator: Operator, left: Value, right: Value) -> Result<Value, RuleError> {
    let is = |holds: bool| Ok(Value::Boolean(holds));
    match operator {
        Operator::Equal => is(is_equal(&left, &right)),
        Operator::NotEqual => is(!is_equal(&left, &right)),
        Operator::Less => is(compare(&left, &right)?.is_lt()),
        Operator::LessOrEqual => is(compare(&left, &right)?.is_le()),
        Operator::Greater => is(compare(&left, &right)?.is_gt()),
        Operator::GreaterOrEqual => is(compare(&left, &right)?.is_ge()),
        Operator::In => match right {
            Value::List(values) => is(values.iter().any(|value| is_equal(value, &left))),
            other => Err(RuleError::Unexpected(other.name())),
        },
        arithmetic => self::arithmetic(arithmetic, left, right),
    }
}

fn is_equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::List(left), Value::List(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(one, two)| is_equal(one, two))
        }
        (Value::Boolean(left), Value::Boolean(right)) => left == right,
        (left, right) => compare(left, right).is_ok_and(Ordering::is_eq),
    }
}

/// Which of two values is less.
pub(super) fn compare(left: &Value, right: &Value) -> Result<Ordering, RuleError> {
    match (left, right) {
        (Value::Integer(left), Value::Integer(right))
        | (Value::Timestamp(left), Value::Timestamp(right)) => Ok(left.cmp(right)),
        (Value::String(left), Value::String(right)) => Ok(left.cmp(right)),
        (left, right) => {
            let (left, right) = (float(left)?, float(right)?);
            left.partial_cmp(&right).ok_or(RuleError::Overflow)
        }
    }
}

pub(super) fn add(left: Value, right: Value) -> Result<Value, RuleError> {
    arithmetic(Operator::Add, left, right)
}

fn arithmetic(operator: Operator, left: Value, right: Value) -> Result<Value, RuleError> {
    use Value::{Integer, Number, String, Timestamp};
    let whole = |left: i64, right: i64| {
        let result = match operator {
            Operator::Add => left.checked_add(right),
            Operator::Subtract => left.checked_sub(right),
            Operator::Multiply => left.checked_mul(right),
            Operator::Divide | Operator::Remainder if right == 0 => {
                return Err(RuleError::DivisionByZero);
            }
            Operator::Divide => left.checked_div(right),
            _ => left.checked_rem(right),
        };
        result.ok_or(RuleError::Overflow)
    };
    match (left, right) {
        (Integer(left), Integer(right)) | (Timestamp(left), Timestamp(right)) => {
            whole(left, right).map(Integer)
        }
        (Timestamp(left), Integer(right)) | (Integer(left), Timestamp(right)) => {
            whole(left, right).map(Timestamp)
        }
        (String(left), String(right)) => Ok(String(left + &right)),
        (left, right) => {
            let (left, right) = (float(&left)?, float(&right)?);
            let result = match operator {
                Operator::Add => left + right,
                Operator::Subtract => left - right,
                Operator::Multiply => left * right,
                Operator::Divide | Operator::Remainder if right == 0.0 => {
                    return Err(RuleError::DivisionByZero);
                }
                Operator::Divide => left / right,
                _ => left % right,
            };
            if result.is_finite() { Ok(Number(result)) } else { Err(RuleError::Overflow) }
        }
    }
}

fn float(value: &Value) -> Result<f64, RuleError> {
    match value {
        Value::Number(number) => Ok(*number),
        // Whole numbers beyond 2^53 are rounded, as they are in JavaScript.
        #[expect(clippy::cast_precision_loss, reason = "said above")]
        Value::Integer(number) => Ok(*number as f64),
        other => Err(RuleError::Unexpected(other.name())),
    }
}
