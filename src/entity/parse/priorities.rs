//! The levels of a type: how soon what is written in it is sent.

use super::{
    kind::Fields,
    reader::{Reader, Table},
};
use crate::entity::{Level, Priorities, limits, words::instead};

const KEYS: [&str; 4] = ["create", "delete", "edit", "fields"];

pub(super) fn priorities(reader: &mut Reader<'_>, of: &Table<'_>, fields: &Fields) -> Priorities {
    let what = format!("`priorities` of {}", of.what);
    let Some(table) = of.table(reader, "priorities", &what) else {
        return Priorities::default();
    };
    table.only(reader, &KEYS);
    let [create, delete, edit] = ["create", "delete", "edit"].map(|key| level(reader, &table, key));
    let mut read = Priorities { create, delete, edit, ..Priorities::default() };
    let what = format!("`fields` of {what}");
    let Some(table) = table.table(reader, "fields", &what) else { return read };
    let entries = table.entries();
    reader.at_most(table.at(), entries.len(), limits::VALUES_MAX, "fields");
    for (key, _) in entries.into_iter().take(limits::VALUES_MAX) {
        let name = key.get_ref().as_ref();
        if !fields.contains_key(name) {
            let names: Vec<_> = fields.keys().map(String::as_str).collect();
            let fix = instead(name, &names, "name a field of the type");
            reader.wrong(key.span(), format!("{what} names `{name}`, which is no field"), fix);
        } else if let Some(level) = level(reader, &table, name) {
            read.fields.insert(name.to_owned(), level);
        }
    }
    read
}

fn level(reader: &mut Reader<'_>, table: &Table<'_>, key: &str) -> Option<Level> {
    let number = table.integer(reader, key)?;
    let level = u8::try_from(number).ok().and_then(Level::new);
    if level.is_none() {
        let problem = format!("`{key}` of {} is {number}", table.what);
        let fix = "write a number from 1 (before all others) to 5 (behind all others)";
        reader.wrong(table.at_value(key), problem, fix);
    }
    level
}
