//! What a collection is of, and how that is kept and named.

use std::{fmt, str::FromStr};

use concord_protocol::DocumentId;
use serde_json::{Value as Json, json};

use crate::{
    digest::{digest, first_word},
    entity::{Value, entity_id},
    peer::{Query, index::Test},
};

/// References that are followed one after another, at most.
pub const DEPTH_MAX: u32 = 10;

/// Documents that are wanted here: see [`Peer::subscribe`](super::super::Peer::subscribe).
#[derive(Debug, Clone, PartialEq)]
pub struct Collection(pub(super) Of);

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Of {
    /// All of a type.
    Type(String),
    /// Those of a type of which this holds.
    Query(Box<Query>),
    /// One, and what it refers to.
    Entity { document: DocumentId, entity: Option<(String, String)>, depth: u32 },
}

impl Collection {
    /// All documents of a type; of those that have none, where it is empty.
    pub fn of_type(type_name: impl Into<String>) -> Self {
        Self(Of::Type(type_name.into()))
    }

    /// Those that a query asks for, whatever its order, its limit and where it begins. A document is
    /// fetched to be looked at, for a relay does not open it; what does not match is not kept, and
    /// fetched anew when it changes. What did match and does so no more stays.
    pub fn query(query: Query) -> Self {
        if query.is_plain() && !query.asks_for_deleted() {
            return Self::of_type(query.of);
        }
        Self(Of::Query(Box::new(query.bare())))
    }

    /// The entity of this type with this key and what it refers to, and so on: so many references
    /// one after another are followed, up to [`DEPTH_MAX`]; 0 is the entity alone.
    pub fn entity(type_name: &str, key: &str, depth: u32) -> Self {
        let document = entity_id(type_name, key);
        let entity = Some((type_name.to_owned(), key.to_owned()));
        Self(Of::Entity { document, entity, depth: depth.min(DEPTH_MAX) })
    }

    /// The same of the entity in a document.
    pub fn document(document: DocumentId, depth: u32) -> Self {
        Self(Of::Entity { document, entity: None, depth: depth.min(DEPTH_MAX) })
    }

    /// The type that it is of; `None`: of what an entity refers to.
    pub fn type_name(&self) -> Option<&str> {
        match &self.0 {
            Of::Type(name) => Some(name),
            Of::Query(query) => Some(query.type_name()),
            Of::Entity { .. } => None,
        }
    }

    /// Its name, which is made of what it is of.
    pub fn id(&self) -> CollectionId {
        let [a, b, c, d, ..] =
            first_word(digest(["concord collection", &self.to_text()])).to_be_bytes();
        CollectionId(u32::from_be_bytes([a, b, c, d]))
    }

    /// As it is kept.
    pub(super) fn to_text(&self) -> String {
        let kept = match &self.0 {
            Of::Type(name) => json!({ "type": name }),
            Of::Query(query) => json!({
                "type": query.type_name(),
                "deleted": query.asks_for_deleted(),
                "filters": query
                    .filters()
                    .iter()
                    .map(|filter| json!([filter.field, test_to_json(&filter.test)]))
                    .collect::<Vec<_>>(),
            }),
            Of::Entity { document, entity, depth } => json!({
                "document": document.as_str(),
                "entity": entity,
                "depth": depth,
            }),
        };
        kept.to_string()
    }

    /// Reads what was kept.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        let kept: Json = serde_json::from_str(text).ok()?;
        if let Some(document) = kept.get("document") {
            let document = document.as_str()?.parse().ok()?;
            let depth = u32::try_from(kept.get("depth")?.as_u64()?).ok()?.min(DEPTH_MAX);
            let entity = match kept.get("entity")? {
                Json::Null => None,
                names => {
                    let [of, key] = names.as_array()?.as_slice() else { return None };
                    Some((of.as_str()?.to_owned(), key.as_str()?.to_owned()))
                }
            };
            return Some(Self(Of::Entity { document, entity, depth }));
        }
        let type_name = kept.get("type")?.as_str()?;
        let Some(filters) = kept.get("filters") else { return Some(Self::of_type(type_name)) };
        let mut query = Query::of(type_name);
        for filter in filters.as_array()? {
            let [field, test] = filter.as_array()?.as_slice() else { return None };
            query = query.filter(field.as_str()?, test_of_json(test)?);
        }
        if kept.get("deleted")?.as_bool()? {
            query = query.with_deleted();
        }
        Some(Self(Of::Query(Box::new(query.bare()))))
    }
}

impl fmt::Display for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Of::Type(name) if name.is_empty() => f.write_str("documents without a type"),
            Of::Type(name) => f.write_str(name),
            Of::Query(query) => {
                f.write_str(query.type_name())?;
                query.filters().iter().try_for_each(|filter| write!(f, " {filter}"))
            }
            Of::Entity { document, entity, depth } => {
                match entity {
                    Some((of, key)) => write!(f, "{of}/{key}")?,
                    None => write!(f, "{document}")?,
                }
                write!(f, " and what it refers to, depth {depth}")
            }
        }
    }
}

fn test_to_json(test: &Test) -> Json {
    match test {
        Test::Is(value) => json!(["=", value_to_json(value)]),
        Test::IsNot(value) => json!(["!=", value_to_json(value)]),
        Test::Below(value) => json!(["<", value_to_json(value)]),
        Test::AtMost(value) => json!(["<=", value_to_json(value)]),
        Test::Above(value) => json!([">", value_to_json(value)]),
        Test::AtLeast(value) => json!([">=", value_to_json(value)]),
        Test::Contains(part) => json!(["~", part]),
        Test::StartsWith(part) => json!(["^=", part]),
        Test::In(values) => json!(["in", values.iter().map(value_to_json).collect::<Vec<_>>()]),
        Test::Set => json!(["set", null]),
        Test::Unset => json!(["unset", null]),
    }
}

fn test_of_json(json: &Json) -> Option<Test> {
    let [name, of] = json.as_array()?.as_slice() else { return None };
    let value = || value_of_json(of);
    Some(match name.as_str()? {
        "=" => Test::Is(value()?),
        "!=" => Test::IsNot(value()?),
        "<" => Test::Below(value()?),
        "<=" => Test::AtMost(value()?),
        ">" => Test::Above(value()?),
        ">=" => Test::AtLeast(value()?),
        "~" => Test::Contains(of.as_str()?.to_owned()),
        "^=" => Test::StartsWith(of.as_str()?.to_owned()),
        "in" => Test::In(of.as_array()?.iter().map(value_of_json).collect::<Option<_>>()?),
        "set" => Test::Set,
        "unset" => Test::Unset,
        _ => return None,
    })
}

/// A value with its kind; what has parts is compared with nothing.
fn value_to_json(value: &Value) -> Json {
    json!([value.name(), value.to_json()])
}

fn value_of_json(json: &Json) -> Option<Value> {
    let [kind, value] = json.as_array()?.as_slice() else { return None };
    Some(match kind.as_str()? {
        "boolean" => Value::Boolean(value.as_bool()?),
        "integer" => Value::Integer(value.as_i64()?),
        "number" => Value::Number(value.as_f64()?),
        "string" => Value::String(value.as_str()?.to_owned()),
        "timestamp" => Value::Timestamp(value.as_i64()?),
        _ => return None,
    })
}

/// The name of a collection: the same wherever the same is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CollectionId(u32);

impl fmt::Display for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for CollectionId {
    type Err = super::CollectionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_id = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = u32::from_str_radix(text, 16).ok().filter(|_| is_id);
        id.map(Self).ok_or_else(|| super::CollectionError::NotAnId(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    #[test]
    fn what_is_kept_is_read_back() {
        let string = |text: &str| Value::String(text.to_owned());
        let query = Query::of("task")
            .filter("status", Test::In(vec![string("open"), string("done")]))
            .filter("due", Test::Below(Value::Timestamp(5)))
            .filter("votes", Test::AtLeast(Value::Integer(-1)))
            .filter("rate", Test::Above(Value::Number(0.5)))
            .filter("urgent", Test::IsNot(Value::Boolean(true)))
            .filter("labels", Test::Contains("home".to_owned()))
            .filter("title", Test::StartsWith("A".to_owned()))
            .filter("note", Test::Unset)
            .with_deleted();
        let sorted = query.clone().ascending("due").limit(3);
        let all = [
            Collection::of_type("task"),
            Collection::of_type(""),
            Collection::query(query.clone()),
            Collection::entity("task", "42", 2),
            Collection::document(DocumentId::from_bytes(&[1; 16]), 99),
        ];
        let mut ids = std::collections::BTreeSet::new();
        for collection in &all {
            let text = collection.to_text();
            assert_eq!(Collection::of_text(&text).as_ref(), Some(collection), "{text}");
            assert_eq!(
                collection.id().to_string().parse::<CollectionId>().unwrap(),
                collection.id()
            );
            ids.insert(collection.id());
        }
        assert_eq!(ids.len(), all.len());
        assert_eq!(Collection::query(sorted), all[2], "an order is nothing to a collection");
        assert_eq!(Collection::query(Query::of("task").limit(1)), all[0]);
    }

    quickcheck! {
        fn what_was_never_kept_is_not_read(text: String) -> bool {
            Collection::of_text(&text).is_none_or(|found| Collection::of_text(&found.to_text()) == Some(found))
        }

        fn ids_are_read_or_refused(text: String) -> bool {
            text.parse::<CollectionId>().is_ok_and(|id| id.to_string() == text.to_lowercase())
                || text.parse::<CollectionId>().is_err()
        }
    }
}
