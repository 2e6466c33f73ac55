//! The kind of a field, with its constraints.

use std::collections::BTreeMap;

use super::{
    field,
    reader::{Reader, Table, Value, kind_of},
};
use crate::entity::{
    Kind, OnDelete, Pattern, limits,
    words::{instead, quoted},
};

/// The keys of a kind.
pub(super) const KIND_KEYS: [&str; 11] = [
    "kind",
    "max_length",
    "pattern",
    "values",
    "min",
    "max",
    "items",
    "fields",
    "to",
    "on_delete",
    "acyclic",
];

/// Which kinds a key says something of.
pub(super) const ONLY_FOR: [(&str, &[&str]); 10] = [
    ("max_length", &["text", "string", "set", "list", "map", "blob", "attachment"]),
    ("pattern", &["string"]),
    ("values", &["enum"]),
    ("min", &["integer", "number", "timestamp"]),
    ("max", &["integer", "number", "timestamp"]),
    ("items", &["set", "list", "map"]),
    ("fields", &["map"]),
    ("to", &["reference"]),
    ("on_delete", &["reference"]),
    ("acyclic", &["reference"]),
];

/// Reads a kind that stands for itself: a name, or a table with the keys of a kind only.
pub(super) fn alone(
    reader: &mut Reader<'_>,
    path: &Path<'_>,
    what: &str,
    value: Value<'_>,
) -> Option<Kind> {
    if let Some(name) = value.get_ref().as_str() {
        return named(reader, path, name, &Table::empty(what.to_owned(), value.span()));
    }
    let table = Table::new(reader, what.to_owned(), value.span(), value)?;
    table.only(reader, &KIND_KEYS);
    of_table(reader, path, &table)
}

/// Reads the kind that a table has under `kind`.
pub(super) fn of_table(
    reader: &mut Reader<'_>,
    path: &Path<'_>,
    table: &Table<'_>,
) -> Option<Kind> {
    if !table.has("kind") {
        let problem = format!("{} has no kind", table.what);
        reader.wrong(table.at(), problem, "add `kind = \"text\"` or another kind");
        return None;
    }
    let name = table.text(reader, "kind")?;
    named(reader, path, name, table)
}

/// Where a kind is: the type, the names of fields down to it, and how deep that is.
#[derive(Clone)]
pub(super) struct Path<'a> {
    pub(super) type_name: &'a str,
    pub(super) names: String,
    pub(super) depth: usize,
}

impl Path<'_> {
    pub(super) fn below(&self, name: &str) -> Self {
        let names = match self.names.as_str() {
            "" => name.to_owned(),
            names => format!("{names}.{name}"),
        };
        Self { names, depth: self.depth + 1, ..*self }
    }

    pub(super) fn what(&self) -> String {
        format!("field `{}` of type `{}`", self.names, self.type_name)
    }
}

/// Reads the constraints of a kind.
pub(super) fn named(
    reader: &mut Reader<'_>,
    path: &Path<'_>,
    name: &str,
    table: &Table<'_>,
) -> Option<Kind> {
    let what = &table.what;
    if path.depth > limits::KIND_DEPTH_MAX {
        let problem = format!("{what} is more than {} levels deep", limits::KIND_DEPTH_MAX);
        reader.wrong(table.at(), problem, "make it an entity of its own, and refer to it");
        return None;
    }
    if Kind::NAMES.contains(&name) {
        for (key, kinds) in ONLY_FOR {
            if table.has(key) && !kinds.contains(&name) {
                let problem = format!("`{key}` says nothing of {what}, which is of kind `{name}`");
                let fix = format!("leave it out; it is for {}", quoted(kinds));
                reader.wrong(table.at_key(key), problem, fix);
            }
        }
    }
    let max_length = table.length(reader, "max_length");
    Some(match name {
        "text" => Kind::Text { max_length },
        "string" => Kind::String { max_length, pattern: pattern(reader, table) },
        "enum" => Kind::Enum { values: values(reader, table)? },
        "integer" => {
            let (min, max) = (table.integer(reader, "min"), table.integer(reader, "max"));
            ordered(reader, table, min, max);
            Kind::Integer { min, max }
        }
        "number" => {
            let (min, max) = (table.number(reader, "min"), table.number(reader, "max"));
            ordered(reader, table, min, max);
            Kind::Number { min, max }
        }
        "boolean" => Kind::Boolean,
        "timestamp" => {
            let (min, max) = (table.integer(reader, "min"), table.integer(reader, "max"));
            ordered(reader, table, min, max);
            Kind::Timestamp { min, max }
        }
        "counter" => Kind::Counter,
        "set" => Kind::Set { items: Box::new(members(reader, path, table)?), max_length },
        "list" => Kind::List { items: Box::new(items(reader, path, table)?), max_length },
        "map" => map(reader, path, table, max_length)?,
        "reference" => reference(reader, path, table)?,
        "position" => Kind::Position,
        "blob" => Kind::Blob { max_length },
        "attachment" => Kind::Attachment { max_length },
        "json" => Kind::Json,
        other => {
            let problem = format!("{what} has the kind {other:?}, which is not known");
            let fix = match elsewhere(other) {
                Some(kind) => format!("did you mean `{kind}`?"),
                None => {
                    instead(other, &Kind::NAMES, &format!("known are {}", quoted(&Kind::NAMES)))
                }
            };
            reader.wrong(table.at_value("kind"), problem, fix);
            return None;
        }
    })
}

/// The kind that has this name in other languages.
fn elsewhere(name: &str) -> Option<&'static str> {
    Some(match name {
        "int" | "long" | "bigint" => "integer",
        "float" | "double" | "decimal" | "real" => "number",
        "bool" => "boolean",
        "str" | "varchar" | "uuid" | "url" => "string",
        "date" | "datetime" | "time" => "timestamp",
        "array" => "list",
        "object" | "dict" | "record" | "table" => "map",
        "ref" | "link" => "reference",
        "bytes" | "binary" => "blob",
        "file" => "attachment",
        "any" => "json",
        _ => return None,
    })
}

fn values(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<Vec<String>> {
    if !table.has("values") {
        let problem = format!("{} is an enum without values", table.what);
        reader.wrong(table.at(), problem, "add `values = [\"todo\", \"doing\", \"done\"]`");
    }
    table.texts(reader, "values")
}

fn pattern(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<Pattern> {
    let text = table.text(reader, "pattern")?;
    if !reader.may_have_rule(table.at_value("pattern")) {
        return None;
    }
    let built = regex::RegexBuilder::new(text).size_limit(limits::PATTERN_BYTES_MAX).build();
    match built {
        Ok(regex) => Some(Pattern(regex)),
        Err(error) => {
            // The lines before the last draw the pattern.
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let problem = format!("`pattern` of {} cannot be used: {reason}", table.what);
            reader.wrong(table.at_value("pattern"), problem, "write another regular expression");
            None
        }
    }
}

fn ordered<T: PartialOrd + std::fmt::Display>(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    min: Option<T>,
    max: Option<T>,
) {
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        let problem = format!("`min` of {} is {min}, above `max`, {max}", table.what);
        reader.wrong(table.at_value("min"), problem, "nothing would fit: change one of them");
    }
}

fn items(reader: &mut Reader<'_>, path: &Path<'_>, table: &Table<'_>) -> Option<Kind> {
    let what = &table.what;
    let Some(value) = table.get("items") else {
        let problem = format!("{what} does not say what is in it");
        reader.wrong(table.at(), problem, "add `items = \"string\"` or another kind");
        return None;
    };
    alone(reader, &path.below("items"), &format!("`items` of {what}"), value)
}

/// What is in a set is kept as a key, so it must have one form as a string.
fn members(reader: &mut Reader<'_>, path: &Path<'_>, table: &Table<'_>) -> Option<Kind> {
    let kind = items(reader, path, table)?;
    match kind {
        Kind::String { .. } | Kind::Enum { .. } | Kind::Integer { .. } | Kind::Reference { .. } => {
            Some(kind)
        }
        other => {
            let problem = format!("{} is a set of kind `{}`", table.what, other.name());
            let fix = "sets are of `string`, `enum`, `integer` or `reference`: use one of them, or \
                       a list";
            reader.wrong(table.at_value("items"), problem, fix);
            None
        }
    }
}

fn map(
    reader: &mut Reader<'_>,
    path: &Path<'_>,
    table: &Table<'_>,
    max_length: Option<u64>,
) -> Option<Kind> {
    let what = &table.what;
    match (table.get("fields"), table.get("items")) {
        (Some(value), None) => {
            if max_length.is_some() {
                let problem = format!("`max_length` says nothing of {what}, which has `fields`");
                reader.wrong(table.at_key("max_length"), problem, "leave it out");
            }
            let fields = format!("`fields` of {what}");
            let table = Table::new(reader, fields, table.at_key("fields"), value)?;
            Some(Kind::Record { fields: field::fields(reader, path, &table) })
        }
        (None, Some(_)) => {
            Some(Kind::Map { items: Box::new(items(reader, path, table)?), max_length })
        }
        (None, None) => {
            let problem = format!("{what} does not say what is in it");
            let fix = "add `fields` with the fields that it has, or `items` with the kind of \
                       whatever is in it";
            reader.wrong(table.at(), problem, fix);
            None
        }
        (Some(value), Some(_)) => {
            let found = kind_of(value.get_ref());
            let problem = format!("{what} has `fields` ({found}) and `items`");
            reader.wrong(table.at_key("items"), problem, "leave one of them out");
            None
        }
    }
}

fn reference(reader: &mut Reader<'_>, path: &Path<'_>, table: &Table<'_>) -> Option<Kind> {
    if !table.has("to") {
        let problem = format!("{} does not say what it refers to", table.what);
        reader.wrong(table.at(), problem, "add `to = \"project\"`, or another type");
    }
    let named = OnDelete::named;
    let on_delete = table.word(reader, "on_delete", &OnDelete::NAMES, named).unwrap_or_default();
    let to = table.text(reader, "to")?.to_owned();
    reader.references.push((table.at_value("to"), table.what.clone(), to.clone()));
    let acyclic = table.boolean(reader, "acyclic").unwrap_or(false);
    if acyclic && (to != path.type_name || path.names.contains('.')) {
        let problem = format!("{} is `acyclic`, and no way back could lead over it", table.what);
        let fix =
            format!("leave it out; it is for fields of `{}` that refer to one", path.type_name);
        reader.wrong(table.at_key("acyclic"), problem, fix);
    }
    Some(Kind::Reference { to, on_delete, acyclic })
}

/// Fields, as [`field::fields`] gives them.
pub(super) type Fields = BTreeMap<String, crate::entity::Field>;
