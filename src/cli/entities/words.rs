//! Values and filters as people write them, read by the kind of the field.

use concord::{
    entity::{EntityType, Field, Kind, Value, entity_id},
    peer::{ReadError, Test},
};
use concord_protocol::AutomergeUrl;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::{Map, Value as Json};

use super::Failure;

/// `field=value` each, as what is to be written; nothing for a field that is cleared.
pub(super) fn assignments(of: &EntityType, given: &[String]) -> Result<Map<String, Json>, Failure> {
    let mut fields = Map::new();
    for text in given {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            Failure::usage(format!("{text:?} is not FIELD=VALUE, as in title=Shopping"))
        })?;
        let field = field(of, name)?;
        fields.insert(name.to_owned(), of_words(field, value)?);
    }
    Ok(fields)
}

/// What must hold of a field.
pub(in crate::cli) fn filter(of: &EntityType, text: &str) -> Result<(String, Test), Failure> {
    const OPERATORS: [&str; 10] = ["!=", "<=", ">=", "^=", "=", "<", ">", "~", "?", "!"];
    let wrong = || {
        Failure::usage(format!(
            "{text:?} is no filter: FIELD=VALUE, or one of != < <= > >= ~ ^= in place of =, or \
             FIELD? or FIELD!"
        ))
    };
    let at = text.find(['!', '<', '>', '^', '=', '~', '?']).ok_or_else(wrong)?;
    let (name, rest) = text.split_at(at);
    let found = field(of, name)?;
    let operator = OPERATORS.into_iter().find(|operator| rest.starts_with(operator));
    let operator = operator.ok_or_else(wrong)?;
    let words = &rest[operator.len()..];
    let value = |words: &str| constant(found, words);
    let test = match operator {
        "=" if words.contains('|') && !words.starts_with('"') => {
            Test::In(words.split('|').map(value).collect::<Result<_, _>>()?)
        }
        "=" => Test::Is(value(words)?),
        "!=" => Test::IsNot(value(words)?),
        "<" => Test::Below(value(words)?),
        "<=" => Test::AtMost(value(words)?),
        ">" => Test::Above(value(words)?),
        ">=" => Test::AtLeast(value(words)?),
        "~" => Test::Contains(unquoted(words)),
        "^=" => Test::StartsWith(unquoted(words)),
        "?" if words.is_empty() => Test::Set,
        "!" if words.is_empty() => Test::Unset,
        _ => return Err(wrong()),
    };
    Ok((name.to_owned(), test))
}

fn field<'t>(of: &'t EntityType, name: &str) -> Result<&'t Field, Failure> {
    of.fields.get(name).ok_or_else(|| {
        let known = of.fields.keys().cloned().collect();
        ReadError::NoField { type_name: of.name.clone(), field: name.to_owned(), known }.into()
    })
}

/// A value to compare with.
fn constant(field: &Field, words: &str) -> Result<Value, Failure> {
    Ok(match (&field.kind, of_words(field, words)?) {
        (Kind::Timestamp { .. }, Json::Number(ms)) => {
            Value::Timestamp(ms.as_i64().unwrap_or_default())
        }
        (_, Json::Bool(yes)) => Value::Boolean(yes),
        (_, Json::Number(number)) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            None => Value::Number(number.as_f64().unwrap_or_default()),
        },
        (_, Json::String(text)) => Value::String(text),
        // Of a set or list there is nothing to compare with as a whole, which the peer says.
        _ => Value::String(words.to_owned()),
    })
}

/// What a reference to an entity of this type says: the document that is named, or that of the entity
/// with this key, which may have its type before it.
fn reference(to: &str, words: &str) -> String {
    let named = words.parse::<AutomergeUrl>().unwrap_or_else(|_| {
        let key = words.strip_prefix(to).and_then(|rest| rest.strip_prefix('/'));
        AutomergeUrl(entity_id(to, key.unwrap_or(words)))
    });
    named.to_string()
}

/// Words as JSON of a kind; nothing is null.
fn of_words(field: &Field, words: &str) -> Result<Json, Failure> {
    if words.is_empty() {
        return Ok(Json::Null);
    }
    let wrong = |wanted: &str| {
        Failure::usage(format!(
            "{words:?} is no value of `{}`, which is of kind `{}`: {wanted}",
            field.name,
            field.kind.name()
        ))
    };
    let json = |wanted: &str| serde_json::from_str::<Json>(words).map_err(|_| wrong(wanted));
    Ok(match &field.kind {
        Kind::Integer { .. } | Kind::Counter => {
            words.parse::<i64>().map_err(|_| wrong("write a whole number"))?.into()
        }
        Kind::Number { .. } => match json("write a number")? {
            number @ Json::Number(_) => number,
            _ => return Err(wrong("write a number")),
        },
        Kind::Boolean => match words {
            "true" | "yes" => true.into(),
            "false" | "no" => false.into(),
            _ => return Err(wrong("write true or false")),
        },
        Kind::Timestamp { .. } => {
            let wanted = "write a date as 2026-12-01, a time as 2026-12-01T18:30 or \
                          2026-12-01T17:30:00Z, or milliseconds since 1970";
            moment(words).ok_or_else(|| wrong(wanted))?.into()
        }
        Kind::Enum { values } => {
            let word = unquoted(words);
            if !values.contains(&word) {
                return Err(wrong(&format!("write one of {}", values.join(", "))));
            }
            word.into()
        }
        Kind::Reference { to, .. } => reference(to, &unquoted(words)).into(),
        Kind::Set { .. } if !words.starts_with('[') => {
            words.split(',').map(|word| Json::from(word.trim())).collect()
        }
        Kind::List { items, .. }
            if !words.starts_with('[')
                && matches!(
                    **items,
                    Kind::String { .. } | Kind::Text { .. } | Kind::Enum { .. }
                ) =>
        {
            words.split(',').map(|word| Json::from(word.trim())).collect()
        }
        Kind::Json => json("").unwrap_or_else(|_| words.into()),
        Kind::Set { .. } | Kind::List { .. } => json(r#"write a list, as in ["a","b"]"#)?,
        Kind::Map { .. } | Kind::Record { .. } => json(r#"write a map, as in {"a":1}"#)?,
        Kind::Blob { .. } => json("write its bytes, as in [1,2]")?,
        _ => unquoted(words).into(),
    })
}

/// A string that is written as JSON writes it, or any other as it is.
fn unquoted(words: &str) -> String {
    match serde_json::from_str::<Json>(words) {
        Ok(Json::String(text)) => text,
        _ => words.to_owned(),
    }
}

/// Milliseconds since 1970 of a time as people write it; where it says no zone, where they are.
fn moment(words: &str) -> Option<i64> {
    if let Ok(ms) = words.parse::<i64>() {
        return Some(ms);
    }
    if let Ok(time) = words.parse::<Timestamp>() {
        return Some(time.as_millisecond());
    }
    let local: DateTime = words.parse().ok()?;
    Some(local.to_zoned(TimeZone::system()).ok()?.timestamp().as_millisecond())
}

/// A time for people, where they are: a date, with the time of day unless that is midnight.
pub(super) fn moment_shown(ms: i64) -> String {
    let Ok(time) = Timestamp::from_millisecond(ms) else { return ms.to_string() };
    let zoned = time.to_zoned(TimeZone::system());
    let is_midnight = zoned.time() == jiff::civil::Time::midnight();
    let format = if is_midnight { "%Y-%m-%d" } else { "%Y-%m-%d %H:%M" };
    zoned.strftime(format).to_string()
}

#[cfg(test)]
mod tests {
    use concord::entity::Schema;
    use serde_json::json;

    use super::*;

    fn task() -> EntityType {
        let schema = r#"
            [types.task.fields]
            title = "text"
            status = { kind = "enum", values = ["open", "done"] }
            due = "timestamp"
            votes = "counter"
            share = "number"
            late = "boolean"
            labels = { kind = "set", items = "string" }
            extra = "json"
            owner = { kind = "reference", to = "task" }
        "#;
        Schema::parse(schema).unwrap().types.remove("task").unwrap()
    }

    #[test]
    fn values_are_read_by_their_kinds() {
        let of = task();
        let read = |text: &str| assignments(&of, &[text.to_owned()]).map(Json::Object);
        for (text, wanted) in [
            ("title=12", json!({ "title": "12" })),
            ("title=\"12\"", json!({ "title": "12" })),
            ("title=a=b", json!({ "title": "a=b" })),
            ("title=", json!({ "title": null })),
            ("votes=-3", json!({ "votes": -3 })),
            ("share=2", json!({ "share": 2 })),
            ("late=yes", json!({ "late": true })),
            ("due=2026-12-01T00:00:00Z", json!({ "due": 1_796_083_200_000_i64 })),
            ("labels=a, b", json!({ "labels": ["a", "b"] })),
            ("labels=[\"a,b\"]", json!({ "labels": ["a,b"] })),
            ("extra={\"a\":1}", json!({ "extra": { "a": 1 } })),
            ("extra=word", json!({ "extra": "word" })),
        ] {
            assert_eq!(read(text).unwrap(), wanted, "{text}");
        }
        for (text, says) in [
            ("title", "is not FIELD=VALUE"),
            ("titel=x", "has no field `titel`"),
            ("votes=x", "a whole number"),
            ("status=ope", "one of open, done"),
            ("due=soon", "a date as 2026-12-01"),
            ("late=1", "true or false"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let id = entity_id("task", "7");
        for text in ["7", "task/7", id.as_str(), &format!("automerge:{id}")] {
            let wanted = json!({ "owner": format!("automerge:{id}") });
            assert_eq!(read(&format!("owner={text}")).unwrap(), wanted, "{text}");
        }
    }

    #[test]
    fn filters_are_read_with_their_operators() {
        let of = task();
        let string = |text: &str| Value::String(text.to_owned());
        for (text, wanted) in [
            ("status=open", Test::Is(string("open"))),
            ("status=open|done", Test::In(vec![string("open"), string("done")])),
            ("status!=open", Test::IsNot(string("open"))),
            ("votes<3", Test::Below(Value::Integer(3))),
            ("votes<=3", Test::AtMost(Value::Integer(3))),
            ("votes>3", Test::Above(Value::Integer(3))),
            ("votes>=3", Test::AtLeast(Value::Integer(3))),
            ("due<5", Test::Below(Value::Timestamp(5))),
            ("title~a=b", Test::Contains("a=b".to_owned())),
            ("title^=a", Test::StartsWith("a".to_owned())),
            ("title=\"a|b\"", Test::Is(string("a|b"))),
            ("due?", Test::Set),
            ("due!", Test::Unset),
        ] {
            let (_, test) = filter(&of, text).unwrap();
            assert_eq!(test, wanted, "{text}");
        }
        for text in ["status", "=open", "due?x", "votes<x", "title^a"] {
            assert!(filter(&of, text).is_err(), "{text}");
        }
    }
}
