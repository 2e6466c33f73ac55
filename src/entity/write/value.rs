//! Values into slots, with as few operations as say what changed.

use std::collections::{BTreeMap, BTreeSet};

use automerge::{
    AutomergeError, ObjId, ObjType, Prop, ScalarValue, Value as Stored, transaction::Transactable,
};

use super::writer::scalar;
use crate::entity::{
    Kind, Literal, Misfit, Value,
    fits::too_long,
    limits,
    read::{member_problem, stored},
};

/// Whether a value fits a kind, with all that is in it.
pub(super) fn fits(kind: &Kind, value: &Value, path: &str) -> Result<(), Misfit> {
    let misfit = |found: String| {
        let wanted = format!("write what a field of kind `{}` may have", kind.name());
        Err(Misfit { field: path.to_owned(), found, wanted })
    };
    let length = |length, max| match too_long(length, max, "elements") {
        Some(found) => misfit(found),
        None => Ok(()),
    };
    let literal = match (kind, value) {
        (Kind::Json, value) => {
            return if is_too_deep(value, limits::JSON_DEPTH_MAX) {
                misfit("is nested too deep to be read".to_owned())
            } else {
                Ok(())
            };
        }
        (Kind::Set { items, max_length }, Value::Set(members)) => {
            for member in members {
                if let Some(found) = member_problem(items, member) {
                    return misfit(format!("has the member {member:?}, which {found}"));
                }
            }
            return length(members.len(), *max_length);
        }
        (Kind::List { items, max_length }, Value::List(values)) => {
            for (index, value) in values.iter().enumerate() {
                fits(items, value, &format!("{path}[{index}]"))?;
            }
            return length(values.len(), *max_length);
        }
        (Kind::Map { items, max_length }, Value::Map(values)) => {
            for (key, value) in values {
                fits(items, value, &format!("{path}.{key}"))?;
            }
            return length(values.len(), *max_length);
        }
        (Kind::Record { fields }, Value::Map(values)) => {
            for (name, value) in values {
                let path = format!("{path}.{name}");
                let Some(field) = fields.get(name) else {
                    let (found, wanted) = ("is not declared".to_owned(), "leave it out");
                    return Err(Misfit { field: path, found, wanted: wanted.to_owned() });
                };
                fits(&field.kind, value, &path)?;
            }
            return Ok(());
        }
        (Kind::Blob { max_length }, Value::Bytes(bytes)) => {
            return length(bytes.len(), *max_length);
        }
        (Kind::Timestamp { .. }, Value::Timestamp(time)) => Literal::Integer(*time),
        (Kind::Integer { .. } | Kind::Counter, Value::Integer(number)) => Literal::Integer(*number),
        (Kind::Number { .. }, Value::Number(number)) if number.is_finite() => {
            Literal::Number(*number)
        }
        (_, Value::Boolean(yes)) => Literal::Boolean(*yes),
        (_, Value::String(text)) => Literal::String(text.clone()),
        (_, other) => return misfit(format!("is given {}", other.name())),
    };
    match kind.problem(&literal) {
        Some(found) => misfit(found),
        None => Ok(()),
    }
}

fn is_too_deep(value: &Value, depth: usize) -> bool {
    let Some(below) = depth.checked_sub(1) else { return true };
    match value {
        Value::List(values) => values.iter().any(|value| is_too_deep(value, below)),
        Value::Map(values) => values.values().any(|value| is_too_deep(value, below)),
        _ => false,
    }
}

/// Gives a slot a value that fits its kind.
pub(in crate::entity) fn set(
    tx: &mut impl Transactable,
    parent: &ObjId,
    prop: &Prop,
    kind: &Kind,
    value: &Value,
) -> Result<(), AutomergeError> {
    match (kind, value) {
        (Kind::Text { .. }, Value::String(text)) => {
            let object = object(tx, parent, prop, ObjType::Text)?;
            tx.update_text(&object, text)
        }
        (Kind::Counter, Value::Integer(number)) => {
            let now = match tx.get(parent, prop.clone())? {
                Some((Stored::Scalar(value), _)) => match value.as_ref() {
                    ScalarValue::Counter(counter) => i64::from(counter),
                    _ => 0,
                },
                _ => 0,
            };
            match number.checked_sub(now) {
                Some(by) => increment(tx, parent, prop, by),
                // So far apart that no single step leads there.
                None => tx.put(parent, prop.clone(), ScalarValue::counter(*number)),
            }
        }
        (Kind::Set { .. }, Value::Set(members)) => {
            let object = object(tx, parent, prop, ObjType::Map)?;
            let there: Vec<String> = tx.keys(&object).collect();
            for gone in there.iter().filter(|member| !members.contains(*member)) {
                tx.delete(&object, gone.as_str())?;
            }
            for new in members.iter().filter(|member| there.binary_search(member).is_err()) {
                tx.put(&object, new.as_str(), true)?;
            }
            Ok(())
        }
        (Kind::Map { items, .. }, Value::Map(values)) => {
            let object = object(tx, parent, prop, ObjType::Map)?;
            let there: Vec<String> = tx.keys(&object).collect();
            for gone in there.iter().filter(|key| !values.contains_key(*key)) {
                tx.delete(&object, gone.as_str())?;
            }
            for (key, value) in values {
                set(tx, &object, &Prop::Map(key.clone()), items, value)?;
            }
            Ok(())
        }
        (Kind::Record { fields }, Value::Map(values)) => {
            let object = object(tx, parent, prop, ObjType::Map)?;
            for (name, field) in fields {
                let prop = Prop::Map(field.slot.clone());
                match values.get(name) {
                    Some(value) => set(tx, &object, &prop, &field.kind, value)?,
                    None => clear(tx, &object, &prop, &field.kind)?,
                }
            }
            Ok(())
        }
        (Kind::List { items, .. }, Value::List(values)) => {
            let object = object(tx, parent, prop, ObjType::List)?;
            list(tx, &object, items, values)
        }
        (_, value) => put(tx, parent, prop, value),
    }
}

/// Takes away what is in a slot. What merges by itself is emptied and stays: if it went, two people
/// who write again would each make one.
pub(in crate::entity) fn clear(
    tx: &mut impl Transactable,
    parent: &ObjId,
    prop: &Prop,
    kind: &Kind,
) -> Result<(), AutomergeError> {
    if tx.get(parent, prop.clone())?.is_none() {
        return Ok(());
    }
    let empty = match kind {
        Kind::Text { .. } => Value::String(String::new()),
        Kind::Counter => Value::Integer(0),
        Kind::Set { .. } => Value::Set(BTreeSet::new()),
        Kind::List { .. } => Value::List(Vec::new()),
        Kind::Map { .. } | Kind::Record { .. } => Value::Map(BTreeMap::new()),
        _ => return tx.delete(parent, prop.clone()),
    };
    set(tx, parent, prop, kind, &empty)
}

/// Only what is between the first and the last element that differ is written.
fn list(
    tx: &mut impl Transactable,
    object: &ObjId,
    items: &Kind,
    values: &[Value],
) -> Result<(), AutomergeError> {
    let there = stored(tx, object, items);
    let is_same = |(one, other): &(&Option<Value>, &Value)| one.as_ref() == Some(*other);
    let first = there.iter().zip(values).take_while(is_same).count();
    let left = there.len().min(values.len()) - first;
    let last = there.iter().rev().zip(values.iter().rev()).take(left).take_while(is_same).count();
    let (old, new) = (there.len() - first - last, values.len() - first - last);
    let between = values.iter().enumerate().skip(first).take(new);
    for (index, value) in between {
        if index < first + old {
            set(tx, object, &Prop::Seq(index), items, value)?;
        } else {
            insert(tx, object, index, items, value)?;
        }
    }
    for _ in new..old {
        tx.delete(object, first + new)?;
    }
    Ok(())
}

/// Puts a value into a list.
pub(super) fn insert(
    tx: &mut impl Transactable,
    list: &ObjId,
    index: usize,
    kind: &Kind,
    value: &Value,
) -> Result<(), AutomergeError> {
    if let Some(object) = kind.object() {
        tx.insert_object(list, index, object)?;
    } else if matches!(kind, Kind::Counter) {
        tx.insert(list, index, ScalarValue::counter(0))?;
    } else {
        tx.insert(list, index, scalar(value).unwrap_or(ScalarValue::Null))?;
    }
    set(tx, list, &Prop::Seq(index), kind, value)
}

/// Adds to a counter; makes one where there is none.
pub(super) fn increment(
    tx: &mut impl Transactable,
    parent: &ObjId,
    prop: &Prop,
    by: i64,
) -> Result<(), AutomergeError> {
    match tx.get(parent, prop.clone())? {
        Some((Stored::Scalar(value), _)) if value.is_counter() => match by {
            0 => Ok(()),
            by => tx.increment(parent, prop.clone(), by),
        },
        _ => tx.put(parent, prop.clone(), ScalarValue::counter(by)),
    }
}

/// The object in a slot; made if something else is there, or nothing.
pub(super) fn object(
    tx: &mut impl Transactable,
    parent: &ObjId,
    prop: &Prop,
    kind: ObjType,
) -> Result<ObjId, AutomergeError> {
    match tx.get(parent, prop.clone())? {
        Some((Stored::Object(found), object)) if found == kind => Ok(object),
        _ => tx.put_object(parent, prop.clone(), kind),
    }
}

/// Anything, as it is.
fn put(
    tx: &mut impl Transactable,
    parent: &ObjId,
    prop: &Prop,
    value: &Value,
) -> Result<(), AutomergeError> {
    let into = |tx: &mut _, kind| -> Result<ObjId, AutomergeError> {
        Transactable::put_object(tx, parent, prop.clone(), kind)
    };
    match value {
        Value::List(values) => {
            let object = into(tx, ObjType::List)?;
            for (index, value) in values.iter().enumerate() {
                tx.insert(&object, index, ScalarValue::Null)?;
                put(tx, &object, &Prop::Seq(index), value)?;
            }
        }
        Value::Map(values) => {
            let object = into(tx, ObjType::Map)?;
            entries(tx, &object, values)?;
        }
        Value::Set(members) => {
            let object = into(tx, ObjType::Map)?;
            for member in members {
                tx.put(&object, member.as_str(), true)?;
            }
        }
        single => {
            if let Some(scalar) = scalar(single) {
                tx.put(parent, prop.clone(), scalar)?;
            }
        }
    }
    Ok(())
}

fn entries(
    tx: &mut impl Transactable,
    object: &ObjId,
    values: &BTreeMap<String, Value>,
) -> Result<(), AutomergeError> {
    for (key, value) in values {
        put(tx, object, &Prop::Map(key.clone()), value)?;
    }
    Ok(())
}
