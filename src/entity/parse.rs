//! Reads a schema file: every error in it, not only the first.

mod entity_type;
mod field;
mod kind;
mod lineage;
mod migration;
mod priorities;
mod reader;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use toml::de::DeTable;

use self::reader::{Reader, Table};
use super::{DELETED_KEY, KEY_KEY, ROOT_KEY, Schema, SchemaErrors, limits, words};

/// The keys at the top of a file. `$schema` is for editors and says nothing here.
const TOP_KEYS: [&str; 4] = ["$schema", "root_key", "roles", "types"];

/// Reads a schema file.
pub(super) fn schema(text: &str) -> Result<Schema, SchemaErrors> {
    let mut reader = Reader::new(text);
    if text.len() > limits::FILE_BYTES_MAX {
        let max = limits::FILE_BYTES_MAX;
        reader.wrong(0..0, format!("the file has more than {max} bytes"), "split the schema");
        return Err(reader.finish());
    }
    let (parsed, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        for error in errors {
            let at = error.span().unwrap_or(0..0);
            let problem = error.message().replace('\n', " ");
            reader.wrong(at, format!("not TOML: {problem}"), "see https://toml.io for the format");
        }
        return Err(reader.finish());
    }
    let top = Table::top(parsed.get_ref());
    top.only(&mut reader, &TOP_KEYS);
    let root_key = match top.text(&mut reader, "root_key") {
        Some("") => {
            let at = top.at_value("root_key");
            reader.wrong(
                at,
                "`root_key` is empty",
                "name the key that says what type a document is",
            );
            ROOT_KEY
        }
        Some(DELETED_KEY) => {
            let at = top.at_value("root_key");
            reader.wrong(at, "`root_key` is what says that a document is deleted", "name another");
            ROOT_KEY
        }
        Some(KEY_KEY) => {
            let at = top.at_value("root_key");
            reader.wrong(at, "`root_key` is what says an entity's key", "name another");
            ROOT_KEY
        }
        Some(key) => key,
        None => ROOT_KEY,
    };
    read_roles(&mut reader, &top);
    let mut types = BTreeMap::new();
    if let Some(table) = top.table(&mut reader, "types", "`types`") {
        let entries = table.entries();
        reader.at_most(table.at(), entries.len(), limits::TYPES_MAX, "types");
        for (key, value) in entries.into_iter().take(limits::TYPES_MAX) {
            let name = key.get_ref().as_ref();
            let what = format!("type `{name}`");
            reader.name(key.span(), &what, name);
            let Some(table) = Table::new(&mut reader, what, key.span(), value) else { continue };
            let read = entity_type::entity_type(&mut reader, name, root_key, &table);
            types.insert(name.to_owned(), read);
        }
    } else if !top.has("types") {
        reader.wrong(0..0, "the file declares no types", "add `[types.task.fields]` with fields");
    }
    for (at, what, to) in std::mem::take(&mut reader.references) {
        if !types.contains_key(&to) {
            let names: Vec<_> = types.keys().map(String::as_str).collect();
            let fix = words::instead(&to, &names, "declare it, or name one that is declared");
            reader.wrong(at, format!("{what} refers to type `{to}`, which is not declared"), fix);
        }
    }
    if reader.is_clean() {
        return Ok(Schema { root_key: root_key.to_owned(), types });
    }
    Err(reader.finish())
}

/// Who has which role.
fn read_roles(reader: &mut Reader<'_>, top: &Table<'_>) {
    let Some(table) = top.table(reader, "roles", "`roles`") else { return };
    let entries = table.entries();
    reader.at_most(table.at(), entries.len(), limits::VALUES_MAX, "roles");
    for (key, _) in entries.into_iter().take(limits::VALUES_MAX) {
        let name = key.get_ref().as_ref();
        reader.name(key.span(), &format!("role `{name}`"), name);
        let who = table.texts(reader, name).unwrap_or_default();
        for wrong in who
            .iter()
            .filter(|who| who.is_empty() || who.chars().skip(1).any(|letter| letter == '*'))
        {
            let problem = format!("role `{name}` is of {wrong:?}, which is the name of nobody");
            let fix = "write names of authors, as in \"ann@example.org\" or \"*@example.org\"";
            reader.wrong(table.at_value(name), problem, fix);
        }
        reader.roles.insert(name.to_owned(), who);
    }
}
