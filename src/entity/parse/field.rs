//! Fields: kind, default, policy.

use toml::de::DeValue;

use super::{
    kind::{self, Fields, Path},
    reader::{Reader, Table, Value, integer, kind_of, number},
};
use crate::entity::{
    Field, Kind, Literal, OnDelete, Policy, Role, limits,
    words::{instead, quoted},
};

/// The keys of a field beside those of its kind.
pub(super) const FIELD_KEYS: [&str; 6] =
    ["required", "default", "policy", "ladder", "roles", "hold"];

/// Reads the fields of a type, or of a map.
pub(super) fn fields(reader: &mut Reader<'_>, path: &Path<'_>, table: &Table<'_>) -> Fields {
    let entries = table.entries();
    reader.at_most(table.at(), entries.len(), limits::FIELDS_MAX, "fields");
    let mut fields = Fields::new();
    for (key, value) in entries.into_iter().take(limits::FIELDS_MAX) {
        let name = key.get_ref().as_ref();
        let path = path.below(name);
        let what = path.what();
        reader.name(key.span(), &what, name);
        let field = if let DeValue::String(kind) = value.get_ref() {
            let table = Table::empty(what, value.span());
            let kind = kind::named(reader, &path, kind, &table);
            field(reader, &path, name, kind, &table)
        } else {
            let Some(table) = Table::new(reader, what, key.span(), value) else { continue };
            let keys: Vec<&str> = kind::KIND_KEYS.into_iter().chain(FIELD_KEYS).collect();
            table.only(reader, &keys);
            let kind = kind::of_table(reader, &path, &table);
            field(reader, &path, name, kind, &table)
        };
        fields.insert(name.to_owned(), field);
    }
    fields
}

fn field(
    reader: &mut Reader<'_>,
    path: &Path<'_>,
    name: &str,
    kind: Option<Kind>,
    table: &Table<'_>,
) -> Field {
    if kind.is_none() {
        let top = path.names.split('.').next().unwrap_or_default();
        reader.unread.insert(top.to_owned());
    }
    let required = table.boolean(reader, "required").unwrap_or(false);
    // What has no kind has had its error; what else there is to say of it would be a guess.
    let (default, policy) = match &kind {
        Some(kind) => (default(reader, kind, table), policy(reader, kind, table)),
        None => (None, Policy::Review),
    };
    let hold = table.boolean(reader, "hold").unwrap_or(false);
    if hold && !matches!(policy, Policy::Review | Policy::Merge) {
        let problem = format!(
            "{} is held for people, and decided by the policy `{}`",
            table.what,
            policy.name()
        );
        reader.wrong(table.at_value("hold"), problem, "leave `hold` or `policy` out");
    }
    if let Some(Kind::Reference { on_delete: OnDelete::SetNull, .. }) = &kind
        && required
    {
        let problem = format!("{} is required, and set to null on delete", table.what);
        reader.wrong(
            table.at_key("on_delete"),
            problem,
            "make it optional, or write another `on_delete`",
        );
    }
    Field {
        name: name.to_owned(),
        kind: kind.unwrap_or(Kind::Json),
        required,
        default,
        policy,
        hold,
        slot: name.to_owned(),
        since: 1,
    }
}

fn default(reader: &mut Reader<'_>, kind: &Kind, table: &Table<'_>) -> Option<Literal> {
    let value = table.get("default")?;
    let found = || kind_of(value.get_ref());
    let literal = match kind {
        Kind::String { .. } | Kind::Enum { .. } => string(value),
        Kind::Integer { .. } | Kind::Timestamp { .. } => {
            integer(value.get_ref()).map(Literal::Integer)
        }
        Kind::Number { .. } => number(value.get_ref()).map(Literal::Number),
        Kind::Boolean => value.get_ref().as_bool().map(Literal::Boolean),
        other => {
            let name = other.name();
            let problem = format!("{} has a default, which no `{name}` can have", table.what);
            reader.wrong(table.at_key("default"), problem, "leave it out");
            return None;
        }
    };
    let Some(literal) = literal else {
        let problem =
            format!("the default of {} is {}, and the kind `{}`", table.what, found(), kind.name());
        reader.wrong(value.span(), problem, "write a default that fits the kind");
        return None;
    };
    if let Some(reason) = kind.problem(&literal) {
        let problem = format!("the default of {} {reason}", table.what);
        reader.wrong(value.span(), problem, "write a default that its readers may have");
    }
    Some(literal)
}

fn string(value: Value<'_>) -> Option<Literal> {
    value.get_ref().as_str().map(|text| Literal::String(text.to_owned()))
}

fn policy(reader: &mut Reader<'_>, kind: &Kind, table: &Table<'_>) -> Policy {
    let otherwise = if kind.is_register() { Policy::Review } else { Policy::Merge };
    let what = &table.what;
    let name = table.word(reader, "policy", &Policy::NAMES, |name| {
        Policy::NAMES.into_iter().find(|known| *known == name)
    });
    for (key, policy) in [("ladder", "ladder"), ("roles", "role")] {
        if table.has(key) && name != Some(policy) {
            let problem = format!("{what} has `{key}`, and not the policy `{policy}`");
            let fix = format!("add `policy = \"{policy}\"`, or leave `{key}` out");
            reader.wrong(table.at_key(key), problem, fix);
        }
    }
    let Some(name) = name else { return otherwise };
    let kinds: &[&str] = match name {
        "max" | "min" => &["integer", "number", "timestamp"],
        "ladder" => &["enum"],
        "union" => &["set", "list", "json"],
        _ if kind.is_register() => &[],
        _ => {
            let problem =
                format!("{what} has the policy `{name}`, and is of kind `{}`", kind.name());
            let fix = "leave `policy` out: the kind merges by itself";
            reader.wrong(table.at_value("policy"), problem, fix);
            return otherwise;
        }
    };
    if !kinds.is_empty() && !kinds.contains(&kind.name()) {
        let problem = format!("{what} has the policy `{name}`, and is of kind `{}`", kind.name());
        let fix = format!("choose another policy; `{name}` is for {}", quoted(kinds));
        reader.wrong(table.at_value("policy"), problem, fix);
        return otherwise;
    }
    match name {
        "latest" => Policy::Latest,
        "earliest" => Policy::Earliest,
        "max" => Policy::Max,
        "min" => Policy::Min,
        "union" => Policy::Union,
        "ladder" => Policy::Ladder(ladder(reader, kind, table)),
        "role" => Policy::Role(roles(reader, table)),
        "relay" => Policy::Relay,
        "peer" => Policy::Peer,
        _ => Policy::Review,
    }
}

fn ladder(reader: &mut Reader<'_>, kind: &Kind, table: &Table<'_>) -> Vec<String> {
    let what = &table.what;
    let Kind::Enum { values } = kind else { return Vec::new() };
    if !table.has("ladder") {
        let problem = format!("{what} has policy `ladder` without an order");
        let all = values.iter().map(|value| format!("{value:?}")).collect::<Vec<_>>().join(", ");
        reader.wrong(table.at_value("policy"), problem, format!("add `ladder = [{all}]`"));
    }
    let order = table.texts(reader, "ladder").unwrap_or_default();
    for missing in values.iter().filter(|value| table.has("ladder") && !order.contains(value)) {
        let problem = format!("`ladder` of {what} leaves out {missing:?}");
        reader.wrong(table.at_value("ladder"), problem, "name every value, from first to last");
    }
    for other in order.iter().filter(|step| !values.contains(step)) {
        let problem = format!("`ladder` of {what} has {other:?}, which is none of its values");
        reader.wrong(table.at_value("ladder"), problem, "leave it out, or add it to `values`");
    }
    order
}

fn roles(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<Role> {
    if !table.has("roles") {
        let problem = format!("{} has policy `role` without an order", table.what);
        let fix = "add `roles = [\"owner\", \"editor\"]`, the strongest first";
        reader.wrong(table.at_value("policy"), problem, fix);
    }
    let names = table.texts(reader, "roles").unwrap_or_default();
    let mut roles = Vec::with_capacity(names.len());
    for name in names {
        let Some(who) = reader.roles.get(&name).cloned() else {
            let problem = format!("{} names the role {name:?}, which nobody has", table.what);
            let known: Vec<&str> = reader.roles.keys().map(String::as_str).collect();
            let say =
                format!("say who has it at the top: `[roles]`, `{name} = [\"ann@example.org\"]`");
            let fix = instead(&name, &known, &say);
            reader.wrong(table.at_value("roles"), problem, fix);
            continue;
        };
        roles.push(Role { name, who });
    }
    roles
}
