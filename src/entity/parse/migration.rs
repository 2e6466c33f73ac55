//! What changed with each version of a type.

use toml::de::DeValue;

use super::{
    kind::{self, Path},
    reader::{Reader, Span, Table},
};
use crate::entity::{Kind, Migration, Step, limits, words::quoted};

/// The keys of a migration.
pub(super) const MIGRATION_KEYS: [&str; 11] = [
    "version",
    "add",
    "remove",
    "rename",
    "retype",
    "split",
    "merge",
    "kind",
    "to",
    "into",
    "separator",
];

/// Those that say what is done.
const VERBS: [&str; 6] = ["add", "remove", "rename", "retype", "split", "merge"];

/// The migrations of a type by version, each with where it stands.
pub(super) fn migrations(
    reader: &mut Reader<'_>,
    path: &Path<'_>,
    table: &Table<'_>,
    version: u32,
) -> Vec<(Span, Migration)> {
    let Some(value) = table.get("migrations") else { return Vec::new() };
    let what = format!("a migration of {}", table.what);
    let DeValue::Array(entries) = value.get_ref() else {
        let fix = format!("write `[[types.{}.migrations]]` above each", path.type_name);
        reader.wrong(value.span(), format!("the migrations of {} are no list", table.what), fix);
        return Vec::new();
    };
    let mut steps = Vec::new();
    reader.at_most(value.span(), entries.len(), limits::MIGRATIONS_MAX, "migrations");
    for entry in entries.iter().take(limits::MIGRATIONS_MAX) {
        let Some(table) = Table::new(reader, what.clone(), entry.span(), entry) else { continue };
        table.only(reader, &MIGRATION_KEYS);
        if let (Some(version), Some(step)) =
            (version_of(reader, &table, version), step(reader, path, &table))
        {
            steps.push((entry.span(), Migration { version, step }));
        }
    }
    steps.sort_by_key(|(_, step)| step.version);
    steps
}

fn version_of(reader: &mut Reader<'_>, table: &Table<'_>, newest: u32) -> Option<u32> {
    let what = &table.what;
    if !table.has("version") {
        let fix = "add `version = 2`, the version that it leads to";
        reader.wrong(table.at(), format!("{what} has no version"), fix);
    }
    let number = table.integer(reader, "version")?;
    let known = u32::try_from(number).ok().filter(|number| (2..=newest).contains(number));
    if known.is_none() {
        let problem = format!("{what} leads to version {number}, and the type has {newest}");
        let fix = format!("raise `version` of the type, or write one from 2 to {newest}");
        reader.wrong(table.at_value("version"), problem, fix);
    }
    known
}

fn step(reader: &mut Reader<'_>, path: &Path<'_>, table: &Table<'_>) -> Option<Step> {
    let what = &table.what;
    let verbs: Vec<&str> = VERBS.into_iter().filter(|verb| table.has(verb)).collect();
    let [verb] = verbs[..] else {
        let problem = match verbs.len() {
            0 => format!("{what} does not say what it does"),
            _ => format!("{what} does several things: {}", quoted(&verbs)),
        };
        reader.wrong(table.at(), problem, format!("write one of {}", quoted(&VERBS)));
        return None;
    };
    let with: &[&str] = match verb {
        "add" => &[],
        "rename" => &["to"],
        "remove" | "retype" => &["kind"],
        _ => &["kind", "into", "separator"],
    };
    for key in ["kind", "to", "into", "separator"] {
        if table.has(key) && !with.contains(&key) {
            let problem = format!("`{key}` says nothing of {what} that does `{verb}`");
            reader.wrong(table.at_key(key), problem, "leave it out");
        }
    }
    let separator =
        |reader: &mut Reader<'_>| table.text(reader, "separator").unwrap_or(" ").to_owned();
    Some(match verb {
        "add" => Step::Add { field: table.text(reader, verb)?.to_owned() },
        "rename" => Step::Rename {
            from: table.text(reader, verb)?.to_owned(),
            to: needed(reader, table, "to", "the name that it got")
                .and_then(|()| table.text(reader, "to"))?
                .to_owned(),
        },
        "remove" => Step::Remove {
            field: table.text(reader, verb)?.to_owned(),
            kind: former(reader, path, table)?,
        },
        "retype" => Step::Retype {
            field: table.text(reader, verb)?.to_owned(),
            from: former(reader, path, table)?,
        },
        "split" => {
            needed(reader, table, "into", "the fields that it became")?;
            Step::Split {
                field: table.text(reader, verb)?.to_owned(),
                from: former_text(reader, path, table)?,
                into: table.texts(reader, "into")?,
                separator: separator(reader),
            }
        }
        _ => {
            needed(reader, table, "into", "the field that they became")?;
            Step::Merge {
                fields: table.texts(reader, verb)?,
                from: former_text(reader, path, table)?,
                into: table.text(reader, "into")?.to_owned(),
                separator: separator(reader),
            }
        }
    })
}

fn needed(reader: &mut Reader<'_>, table: &Table<'_>, key: &str, means: &str) -> Option<()> {
    if !table.has(key) {
        let problem = format!("{} has no `{key}`", table.what);
        reader.wrong(table.at(), problem, format!("add `{key}`, {means}"));
        return None;
    }
    Some(())
}

/// The kind that a field had.
fn former(reader: &mut Reader<'_>, path: &Path<'_>, table: &Table<'_>) -> Option<Kind> {
    needed(reader, table, "kind", "the kind that the field had, as it was declared")?;
    let what = format!("`kind` of {}", table.what);
    kind::alone(reader, path, &what, table.get("kind")?)
}

/// The same of a field that was cut or joined: a string if nothing is said.
fn former_text(reader: &mut Reader<'_>, path: &Path<'_>, table: &Table<'_>) -> Option<Kind> {
    if !table.has("kind") {
        return Some(Kind::String { max_length: None, pattern: None });
    }
    let kind = former(reader, path, table)?;
    if !matches!(kind, Kind::String { .. } | Kind::Text { .. }) {
        let problem = format!("{} cuts or joins the kind `{}`", table.what, kind.name());
        let fix = "only strings and texts can be cut and joined: use `retype`";
        reader.wrong(table.at_value("kind"), problem, fix);
        return None;
    }
    Some(kind)
}
