//! Entities as types of a Rust program, by serde: no derive macro of our own.
//!
//! The crate autosurgeon (0.14) does as much for any document, and was not taken: it knows no
//! schema, so that a member of a set, a number that is added to or a place in an order would each be
//! what its Rust type says, and not what the schema does, and two programs could differ.

use std::collections::{BTreeMap, BTreeSet};

use automerge::transaction::Transactable;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value as Json};

use super::{
    Entity, EntityType, Field, Invalid, Kind, Misfit, Value, limits,
    write::{WriteError, Writer},
};

/// Why an entity is not read or written as a type of the program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedError {
    /// The entity cannot be read as the type, or the type cannot be written.
    #[error("type `{type_name}` does not fit the Rust type: {source}")]
    Other {
        /// Of the schema.
        type_name: String,
        /// What serde says.
        source: serde_json::Error,
    },
    /// A value does not fit its field.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// A field was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// What came of it is no whole entity.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Values to be written, by field; `None`: it is cleared.
pub(crate) type Edits = BTreeMap<String, Option<Value>>;

impl Entity<'_> {
    /// Its values as JSON: sets are lists in order, blobs lists of numbers, timestamps milliseconds.
    pub fn to_json(&self) -> Json {
        Value::Map(self.values.clone()).to_json()
    }

    /// It as a type of the program, by the names of its fields. Fields without a value are not
    /// there, so those that are not required are an `Option` or have a `#[serde(default)]`.
    ///
    /// # Errors
    /// [`TypedError::Other`], with what serde says.
    pub fn decode<E: DeserializeOwned>(&self) -> Result<E, TypedError> {
        serde_json::from_value(self.to_json()).map_err(|source| self.of.other(source))
    }
}

impl EntityType {
    /// Reads an entity in a transaction as a type of the program, lets `change` change it, and
    /// writes what is different then, as [`Writer::set`] does. The entity must be valid afterwards, as
    /// [`EntityType::validate_edit`] says; where anything fails, roll the transaction back.
    ///
    /// Fields that the Rust type does not have are left as they are; so are those that are there,
    /// and that it skips.
    ///
    /// # Errors
    /// [`TypedError`].
    ///
    /// ```
    /// use concord::entity::Schema;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Note {
    ///     #[serde(default)]
    ///     title: String,
    ///     #[serde(default)]
    ///     tags: std::collections::BTreeSet<String>,
    /// }
    ///
    /// let schema = Schema::parse(r#"
    ///     [types.note.fields]
    ///     title = { kind = "text", required = true }
    ///     tags = { kind = "set", items = "string" }
    /// "#)?;
    /// let note = &schema.types["note"];
    /// let mut doc = automerge::Automerge::new();
    /// note.begin(&mut doc)?;
    /// let mut tx = doc.transaction();
    /// note.edit(&mut tx, |note: &mut Note| {
    ///     note.title.push_str("Shopping");
    ///     note.tags.insert("home".to_owned());
    /// })?;
    /// tx.commit();
    /// assert_eq!(note.read(&doc).decode::<Note>()?.title, "Shopping");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn edit<E, R>(
        &self,
        tx: &mut impl Transactable,
        change: impl FnOnce(&mut E) -> R,
    ) -> Result<R, TypedError>
    where
        E: Serialize + DeserializeOwned,
    {
        let found = self.read(tx);
        let (edits, given) = self.edits(&found, change)?;
        self.write_edits(tx, &found, &edits)?;
        Ok(given)
    }

    /// What `change` changes of an entity, with what it gives: nothing is written.
    pub(crate) fn edits<E, R>(
        &self,
        found: &Entity<'_>,
        change: impl FnOnce(&mut E) -> R,
    ) -> Result<(Edits, R), TypedError>
    where
        E: Serialize + DeserializeOwned,
    {
        let mut edited: E = found.decode()?;
        let before = self.encode(&edited)?;
        let given = change(&mut edited);
        let after = self.encode(&edited)?;
        let cleared = before.keys().filter(|name| !after.contains_key(*name)).cloned();
        let cleared: Vec<String> = cleared.collect();
        let set = after.into_iter().filter(|(name, value)| before.get(name) != Some(value));
        let edits = set.map(|(name, value)| (name, Some(value)));
        let edits = edits.chain(cleared.into_iter().map(|name| (name, None))).collect();
        Ok((edits, given))
    }

    /// Writes them into an entity as it was found.
    pub(crate) fn write_edits(
        &self,
        tx: &mut impl Transactable,
        found: &Entity<'_>,
        edits: &Edits,
    ) -> Result<(), TypedError> {
        let mut write = Writer::new(self, tx);
        for (name, value) in edits {
            if let Some(value) = value {
                write.set(&[name], value)?;
            }
        }
        for (name, _) in edits.iter().filter(|(_, value)| value.is_none()) {
            write.clear(&[name])?;
        }
        self.validate_edit(found, tx)?;
        Ok(())
    }

    /// A type of the program as values of the fields. What is null has none, and
    /// neither has a number that is none, which JSON has no form for.
    ///
    /// # Errors
    /// [`TypedError`].
    pub fn encode(&self, entity: &impl Serialize) -> Result<BTreeMap<String, Value>, TypedError> {
        let json = serde_json::to_value(entity).map_err(|source| self.other(source))?;
        let Json::Object(entries) = json else {
            let found = "is no map of fields".to_owned();
            let wanted = "give a struct with named fields".to_owned();
            return Err(Misfit { field: self.name.clone(), found, wanted }.into());
        };
        Ok(fields(&self.fields, entries, "")?)
    }

    fn other(&self, source: serde_json::Error) -> TypedError {
        TypedError::Other { type_name: self.name.clone(), source }
    }
}

fn fields(
    fields: &BTreeMap<String, Field>,
    entries: Map<String, Json>,
    above: &str,
) -> Result<BTreeMap<String, Value>, Misfit> {
    let mut values = BTreeMap::new();
    for (name, json) in entries {
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        let Some(field) = fields.get(&name) else {
            let (found, wanted) = ("is not declared".to_owned(), "leave it out".to_owned());
            return Err(Misfit { field: path, found, wanted });
        };
        if !json.is_null() || matches!(field.kind, Kind::Json) {
            values.insert(name, of_json(&field.kind, json, &path)?);
        }
    }
    Ok(values)
}

/// JSON as a value of a kind. Constraints are looked at when it is written.
fn of_json(kind: &Kind, json: Json, path: &str) -> Result<Value, Misfit> {
    let misfit = |found: &str| Misfit {
        field: path.to_owned(),
        found: format!("is {found}"),
        wanted: format!("give what a field of kind `{}` may have", kind.name()),
    };
    Ok(match (kind, json) {
        (Kind::Json, json) => {
            any(json, limits::JSON_DEPTH_MAX).ok_or_else(|| misfit("nested too deep"))?
        }
        (Kind::Set { .. }, Json::Array(members)) => {
            let member = |json| match json {
                Json::String(member) => Ok(member),
                Json::Number(number) => Ok(number.to_string()),
                _ => Err(misfit("a set of something that is no member")),
            };
            Value::Set(members.into_iter().map(member).collect::<Result<BTreeSet<_>, _>>()?)
        }
        (Kind::List { items, .. }, Json::Array(values)) => {
            let item = |(index, json)| of_json(items, json, &format!("{path}[{index}]"));
            Value::List(values.into_iter().enumerate().map(item).collect::<Result<_, _>>()?)
        }
        (Kind::Map { items, .. }, Json::Object(entries)) => {
            let item = |(key, json)| {
                let value = of_json(items, json, &format!("{path}.{key}"))?;
                Ok((key, value))
            };
            Value::Map(entries.into_iter().map(item).collect::<Result<_, Misfit>>()?)
        }
        (Kind::Record { fields: declared }, Json::Object(entries)) => {
            Value::Map(fields(declared, entries, path)?)
        }
        (Kind::Blob { .. }, Json::Array(bytes)) => {
            let byte = |json: Json| json.as_u64().and_then(|byte| u8::try_from(byte).ok());
            let bytes = bytes.into_iter().map(byte).collect::<Option<_>>();
            Value::Bytes(bytes.ok_or_else(|| misfit("a list of something that is no byte"))?)
        }
        (Kind::Number { .. }, Json::Number(number)) => {
            Value::Number(number.as_f64().ok_or_else(|| misfit("too large"))?)
        }
        (Kind::Timestamp { .. }, Json::Number(number)) => {
            Value::Timestamp(number.as_i64().ok_or_else(|| misfit("no whole number"))?)
        }
        (_, Json::Number(number)) => {
            Value::Integer(number.as_i64().ok_or_else(|| misfit("no whole number"))?)
        }
        (_, Json::String(text)) => Value::String(text),
        (_, Json::Bool(yes)) => Value::Boolean(yes),
        (_, Json::Null) => return Err(misfit("null")),
        (_, Json::Array(_)) => return Err(misfit("a list")),
        (_, Json::Object(_)) => return Err(misfit("a map")),
    })
}

/// Anything, to a depth.
fn any(json: Json, depth: usize) -> Option<Value> {
    let below = depth.checked_sub(1)?;
    Some(match json {
        Json::Null => Value::Null,
        Json::Bool(yes) => Value::Boolean(yes),
        Json::Number(number) => match number.as_i64() {
            Some(number) => Value::Integer(number),
            None => Value::Number(number.as_f64()?),
        },
        Json::String(text) => Value::String(text),
        Json::Array(values) => {
            Value::List(values.into_iter().map(|json| any(json, below)).collect::<Option<_>>()?)
        }
        Json::Object(entries) => {
            let entry = |(key, json)| any(json, below).map(|value| (key, value));
            Value::Map(entries.into_iter().map(entry).collect::<Option<_>>()?)
        }
    })
}

#[cfg(test)]
mod tests;
