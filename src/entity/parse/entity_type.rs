//! A type: its fields, and what holds of them together.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::{
    field,
    kind::{Fields, Path},
    lineage::{self, Traced},
    migration, priorities,
    reader::{Reader, Span, Table},
};
use crate::entity::{
    EditsOfDeleted, EntityType, Expiry, Kind, LeaseRule, Priority, Rule, limits, words::instead,
};

/// The keys of a type.
pub(super) const TYPE_KEYS: [&str; 10] = [
    "version",
    "fields",
    "unique",
    "invariants",
    "priority",
    "lease",
    "priorities",
    "edits_of_deleted",
    "purge_deleted_after",
    "migrations",
];

pub(super) fn entity_type(
    reader: &mut Reader<'_>,
    name: &str,
    root_key: &str,
    table: &Table<'_>,
) -> EntityType {
    table.only(reader, &TYPE_KEYS);
    reader.unread.clear();
    let what = &table.what;
    let path = Path { type_name: name, names: String::new(), depth: 0 };
    let version = version(reader, table);
    let mut fields = match table.table(reader, "fields", &format!("`fields` of {what}")) {
        Some(table) => field::fields(reader, &path, &table),
        None => Fields::new(),
    };
    if fields.is_empty() {
        let fix = format!("add `[types.{name}.fields]` with at least one");
        reader.wrong(table.at(), format!("{what} has no fields"), fix);
    }
    if fields.contains_key(root_key) {
        let problem = format!("{what} has a field `{root_key}`, where documents name their type");
        let fix = "give the field another name, or set `root_key` at the top of the file";
        reader.wrong(table.at_key("fields"), problem, fix);
    }
    let named = Priority::named;
    let priority = table.word(reader, "priority", &Priority::NAMES, named).unwrap_or_default();
    let named = LeaseRule::named;
    let lease = table.word(reader, "lease", &LeaseRule::NAMES, named).unwrap_or_default();
    let priorities = priorities::priorities(reader, table, &fields);
    let named = EditsOfDeleted::named;
    let edits_of_deleted =
        table.word(reader, "edits_of_deleted", &EditsOfDeleted::NAMES, named).unwrap_or_default();
    let purge_deleted_after = expiry(reader, table);
    let unique = unique(reader, table, &fields);
    let invariants = invariants(reader, table, &fields);
    let steps = migration::migrations(reader, &path, table, version);
    let Traced { gone, chains } = lineage::trace(reader, what, &mut fields, &steps);
    EntityType {
        name: name.to_owned(),
        root_key: root_key.to_owned(),
        version,
        fields,
        gone,
        unique,
        invariants,
        priority,
        lease,
        priorities,
        edits_of_deleted,
        purge_deleted_after,
        migrations: steps.into_iter().map(|(_, step)| step).collect(),
        chains,
    }
}

fn version(reader: &mut Reader<'_>, table: &Table<'_>) -> u32 {
    let Some(number) = table.integer(reader, "version") else { return 1 };
    let known =
        u32::try_from(number).ok().filter(|number| (1..=limits::VERSION_MAX).contains(number));
    known.unwrap_or_else(|| {
        let problem = format!("the version of {} is {number}", table.what);
        let fix = format!("count versions from 1, to {} at most", limits::VERSION_MAX);
        reader.wrong(table.at_value("version"), problem, fix);
        1
    })
}

fn expiry(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<Expiry> {
    let text = table.text(reader, "purge_deleted_after")?;
    let expiry = Expiry::parse(text);
    if expiry.is_none() {
        let problem = format!("`purge_deleted_after` of {} is {text:?}, no such time", table.what);
        reader.wrong(table.at_value("purge_deleted_after"), problem, Expiry::EXPECTED);
    }
    expiry
}

fn unique(reader: &mut Reader<'_>, table: &Table<'_>, fields: &Fields) -> Vec<Vec<String>> {
    let Some(value) = table.get("unique") else { return Vec::new() };
    let what = format!("`unique` of {}", table.what);
    let how = "write fields, as in [\"slug\"], or fields that count together, as in [[\"project\", \
               \"number\"]]";
    let DeValue::Array(keys) = value.get_ref() else {
        reader.wrong(value.span(), format!("{what} is no list"), how);
        return Vec::new();
    };
    reader.at_most(value.span(), keys.len(), limits::VALUES_MAX, "unique keys");
    let mut read = Vec::new();
    for key in keys.iter().take(limits::VALUES_MAX) {
        let names: Vec<(Span, Option<&str>)> = match key.get_ref() {
            DeValue::Array(names) => {
                names.iter().map(|name| (name.span(), name.get_ref().as_str())).collect()
            }
            name => vec![(key.span(), name.as_str())],
        };
        if names.is_empty() {
            reader.wrong(key.span(), format!("{what} has a key without fields"), how);
        }
        let mut key = Vec::new();
        for (at, name) in names.into_iter().take(limits::VALUES_MAX) {
            match name {
                Some(name) => {
                    is_key(reader, &what, at, name, fields);
                    key.push(name.to_owned());
                }
                None => reader.wrong(at, format!("{what} has something that is no name"), how),
            }
        }
        read.push(key);
    }
    read
}

/// Rules by name.
fn invariants(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    fields: &Fields,
) -> BTreeMap<String, Rule> {
    let what = format!("`invariants` of {}", table.what);
    let Some(rules) = table.table(reader, "invariants", &what) else { return BTreeMap::new() };
    let entries = rules.entries();
    let mut read = BTreeMap::new();
    for (key, value) in entries {
        if !reader.may_have_rule(key.span()) {
            break;
        }
        let name = key.get_ref().as_ref();
        let what = format!("rule `{name}` of {}", table.what);
        reader.name(key.span(), &what, name);
        let Some(text) = rules.text(reader, name) else { continue };
        match Rule::parse(text, fields) {
            Ok(rule) => {
                read.insert(name.to_owned(), rule);
            }
            Err(_) if reader.unread.iter().any(|name| text.contains(name.as_str())) => {}
            Err(error) => {
                let problem = format!("{what} is no rule on its fields: {}", error.problem);
                reader.wrong(value.span(), problem, error.fix);
            }
        }
    }
    read
}

/// Notes an error if this is no field that can be looked up by its value.
fn is_key(reader: &mut Reader<'_>, what: &str, at: Span, name: &str, fields: &Fields) {
    let Some(field) = fields.get(name) else {
        let names: Vec<_> = fields.keys().map(String::as_str).collect();
        let fix = instead(name, &names, "name a field of the type");
        reader.wrong(at, format!("{what} names `{name}`, which is no field"), fix);
        return;
    };
    let is_key = matches!(
        field.kind,
        Kind::String { .. }
            | Kind::Enum { .. }
            | Kind::Integer { .. }
            | Kind::Boolean
            | Kind::Timestamp { .. }
            | Kind::Reference { .. }
    );
    if !is_key && !reader.unread.contains(name) {
        let problem = format!("{what} names `{name}`, of kind `{}`", field.kind.name());
        let fix = "name fields that are a string, enum, integer, boolean, timestamp or reference";
        reader.wrong(at, problem, fix);
    }
}
