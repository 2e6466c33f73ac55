//! Values of an entity, as its fields mean them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Number, Value as Json};

/// A value of a field.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Of a boolean.
    Boolean(bool),
    /// Of an integer or a counter.
    Integer(i64),
    /// Of a number.
    Number(f64),
    /// Of a text, string, enum, reference or position.
    String(String),
    /// Milliseconds since 1970.
    Timestamp(i64),
    /// Of a blob.
    Bytes(Vec<u8>),
    /// The members of a set. Whole numbers are in decimal.
    Set(BTreeSet<String>),
    /// Of a list.
    List(Vec<Value>),
    /// Of a map, and of an entity: fields without a value are not there.
    Map(BTreeMap<String, Value>),
    /// Of a field of kind `json` only.
    Null,
}

impl Value {
    /// What kind of value it is, in a word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Boolean(_) => "boolean",
            Self::Integer(_) => "integer",
            Self::Number(_) => "number",
            Self::String(_) => "string",
            Self::Timestamp(_) => "timestamp",
            Self::Bytes(_) => "bytes",
            Self::Set(_) => "set",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Null => "null",
        }
    }

    /// As JSON: times as numbers, bytes and sets as lists.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Boolean(yes) => Json::Bool(*yes),
            Self::Integer(number) | Self::Timestamp(number) => Json::from(*number),
            // What is no number has no form in JSON.
            Self::Number(number) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
            Self::String(text) => Json::String(text.clone()),
            Self::Bytes(bytes) => Json::from(bytes.as_slice()),
            Self::Set(members) => members.iter().cloned().map(Json::String).collect(),
            Self::List(values) => values.iter().map(Self::to_json).collect(),
            Self::Map(values) => {
                let entries = values.iter().map(|(key, value)| (key.clone(), value.to_json()));
                Json::Object(entries.collect())
            }
            Self::Null => Json::Null,
        }
    }
}
