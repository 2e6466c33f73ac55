//! A value of one kind as one of another: what `retype` does, both ways.
//! [`Step::Retype`](crate::entity::Step::Retype) has the table.
//!
//! Nothing is rounded: a value that has no exact counterpart has none.

use crate::entity::{Kind, Literal, Value};

/// Up to here every whole number is a float, and every whole float one number.
const EXACT_MAX: i64 = 1 << 53;

/// How a field of one kind can become another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::entity) enum Passage {
    /// Values are kept alike: it stays where it is.
    Same,
    /// It gets a place of its own, and values are carried both ways.
    Lens,
    /// Nothing says what a value of one would be as the other.
    None,
}

/// How a field of this kind becomes that one.
pub(in crate::entity) fn passage(from: &Kind, to: &Kind) -> Passage {
    let is_like_string = |kind: &Kind| {
        matches!(
            kind,
            Kind::String { .. }
                | Kind::Enum { .. }
                | Kind::Reference { .. }
                | Kind::Position
                | Kind::Attachment { .. }
        )
    };
    match (from, to) {
        (Kind::Record { .. }, _) | (_, Kind::Record { .. }) => Passage::None,
        // Members are keys, whatever they are.
        (Kind::Set { .. }, Kind::Set { .. }) => Passage::Same,
        (Kind::List { items: from, .. }, Kind::List { items: to, .. })
        | (Kind::Map { items: from, .. }, Kind::Map { items: to, .. }) => match (&**from, &**to) {
            (Kind::Record { .. }, Kind::Record { .. }) => Passage::Same,
            (from, to) if passage(from, to) == Passage::Same => Passage::Same,
            _ => Passage::None,
        },
        (from, to) if from.name() == to.name() => Passage::Same,
        (Kind::String { .. }, to) if is_like_string(to) => Passage::Same,
        (from, Kind::String { .. }) if is_like_string(from) => Passage::Same,
        (Kind::Boolean, Kind::Timestamp { .. }) | (Kind::Timestamp { .. }, Kind::Boolean) => {
            Passage::None
        }
        (from, to) if is_carried(from) && is_carried(to) => Passage::Lens,
        _ => Passage::None,
    }
}

fn is_carried(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Text { .. }
            | Kind::String { .. }
            | Kind::Enum { .. }
            | Kind::Integer { .. }
            | Kind::Number { .. }
            | Kind::Boolean
            | Kind::Timestamp { .. }
    )
}

/// Whether every value of one kind is one of the other; few numbers are beyond 2^53.
pub(in crate::entity) fn is_total(from: &Kind, to: &Kind) -> bool {
    matches!(
        (from, to),
        (_, Kind::Text { max_length: None } | Kind::String { max_length: None, pattern: None })
            | (
                Kind::Integer { .. } | Kind::Timestamp { .. } | Kind::Boolean,
                Kind::Number { min: None, max: None },
            )
            | (Kind::Boolean | Kind::Timestamp { .. }, Kind::Integer { min: None, max: None })
    )
}

/// What a value is as one of another kind.
///
/// # Errors
/// Why it is none, as the end of a sentence that begins with the value.
pub(in crate::entity) fn convert(value: &Value, to: &Kind) -> Result<Value, String> {
    let none = |what: &str| Err(format!("which is {what}"));
    match to {
        Kind::Text { .. } | Kind::String { .. } => match words(value) {
            Some(text) => Ok(Value::String(text)),
            None => none("no string"),
        },
        Kind::Enum { .. } => match words(value).map(Literal::String) {
            Some(literal) if to.problem(&literal).is_none() => match literal {
                Literal::String(text) => Ok(Value::String(text)),
                _ => none("no string"),
            },
            _ => Err(format!("which is none of the values of an {to}")),
        },
        Kind::Integer { .. } => match whole(value) {
            Some(number) => Ok(Value::Integer(number)),
            None => none("no whole number"),
        },
        Kind::Number { .. } => match number(value) {
            Some(number) => Ok(Value::Number(number)),
            None => none("no number"),
        },
        Kind::Boolean => match truth(value) {
            Some(truth) => Ok(Value::Boolean(truth)),
            None => none("neither true nor false"),
        },
        Kind::Timestamp { .. } => match moment(value) {
            Some(time) => Ok(Value::Timestamp(time)),
            None => none("no time"),
        },
        other => none(&format!("no `{}`", other.name())),
    }
}

fn words(value: &Value) -> Option<String> {
    Some(match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Timestamp(time) => match jiff::Timestamp::from_millisecond(*time) {
            Ok(time) => time.to_string(),
            // Before or after the years that have a name.
            Err(_) => time.to_string(),
        },
        _ => return None,
    })
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) | Value::Timestamp(number) => Some(*number),
        Value::Number(number) => whole_float(*number),
        Value::Boolean(truth) => Some(i64::from(*truth)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => Some(*number),
        Value::Integer(number) | Value::Timestamp(number) => float(*number),
        Value::Boolean(truth) => Some(f64::from(u8::from(*truth))),
        Value::String(text) => text.trim().parse().ok().filter(|number: &f64| number.is_finite()),
        _ => None,
    }
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Boolean(truth) => Some(*truth),
        Value::String(text) => text.trim().parse().ok(),
        Value::Integer(_) | Value::Number(_) => match whole(value)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        _ => None,
    }
}

fn moment(value: &Value) -> Option<i64> {
    match value {
        Value::Timestamp(time) => Some(*time),
        Value::Integer(_) | Value::Number(_) => whole(value),
        Value::String(text) => {
            let text = text.trim();
            let named = text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond);
            named.or_else(|| text.parse().ok())
        }
        _ => None,
    }
}

fn whole_float(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and within 2^53")]
    let whole = number as i64;
    (number.fract() == 0.0 && whole.unsigned_abs() <= EXACT_MAX.unsigned_abs()).then_some(whole)
}

fn float(number: i64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "it is within 2^53")]
    let float = number as f64;
    (number.unsigned_abs() <= EXACT_MAX.unsigned_abs()).then_some(float)
}
