//! `concord schema`: check, show and compare schema files.

mod told;

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::{Args, Subcommand};
use concord::entity::{
    Difference, EntityType, Field, Impact, Kind, LeaseRule, Literal, Schema, limits,
};
use serde_json::{Value as Json, json};

use super::{Failure, output};

/// The file that is meant where none is named.
const FILE: &str = "schema.toml";

#[derive(Debug, Args)]
pub(super) struct SchemaArgs {
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(super) json: bool,
    #[command(subcommand)]
    command: SchemaCommand,
}

#[derive(Debug, Subcommand)]
enum SchemaCommand {
    /// Say all that is wrong with a schema file, with the line and what to do
    Check {
        /// The file
        #[arg(default_value = FILE)]
        file: PathBuf,
    },
    /// Show the types of a schema, or one of them with its fields: of a file, or else of the schema
    /// that a relay told of and that is kept here
    Show(ShowArgs),
    /// Say what a newer schema means for documents of an older one; fails if a migration is missing
    Diff {
        /// The older file
        old: PathBuf,
        /// The newer file
        new: PathBuf,
    },
}

#[derive(Debug, Args)]
struct ShowArgs {
    /// The file
    file: Option<PathBuf>,
    /// The type
    #[arg(value_name = "TYPE")]
    name: Option<String>,
    /// The type, where no file is named
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "name")]
    of: Option<String>,
    /// Ask a relay, `ws://host:port` or `wss://host`
    #[arg(long, value_name = "URL", conflicts_with = "file")]
    from_relay: Option<String>,
    /// Certificate (PEM) of an authority to trust for `wss://`, besides the well-known ones
    #[arg(long, env = "CONCORD_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Where documents are kept [default: `$XDG_DATA_HOME/concord` or `~/.local/share/concord`]
    #[arg(long, env = "CONCORD_DIR", value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

pub(super) async fn run(args: SchemaArgs) -> Result<(), Failure> {
    match args.command {
        SchemaCommand::Check { file } => check(&file, args.json),
        SchemaCommand::Show(wanted) => show(wanted, args.json).await,
        SchemaCommand::Diff { old, new } => diff(&old, &new, args.json),
    }
}

fn text(file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    let opened = fs::File::open(file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::not_found(format!("there is no file {shown}")),
        _ => Failure::failed(format!("{shown} cannot be opened: {error}")),
    })?;
    let mut text = String::new();
    // One byte more than may be: what is longer is refused and not cut off.
    let max = u64::try_from(limits::FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    opened
        .take(max)
        .read_to_string(&mut text)
        .map_err(|error| Failure::failed(format!("{shown} cannot be read: {error}")))?;
    Ok(text)
}

/// Reads a file that must be a schema.
pub(super) fn read(file: &Path) -> Result<Schema, Failure> {
    Schema::parse(&text(file)?).map_err(|errors| {
        let (first, others) = (errors.iter().next(), errors.iter().count() - 1);
        let first = first.map(ToString::to_string).unwrap_or_default();
        let failure = Failure::usage(format!("{}: {first}", file.display()));
        match others {
            0 => failure,
            others => failure.and(&format!("{others} more: concord schema check lists them")),
        }
    })
}

fn check(file: &Path, as_json: bool) -> Result<(), Failure> {
    let shown = file.display().to_string();
    let errors = match Schema::parse(&text(file)?) {
        Ok(schema) => {
            let fields: usize = schema.types.values().map(|of| of.fields.len()).sum();
            let rules: usize = schema.types.values().map(|of| of.invariants.len()).sum();
            let types = schema.types.len();
            return if as_json {
                output::json(&json!({ "file": shown, "valid": true, "errors": [] }))
            } else {
                let plural = |count, word| match count {
                    1 => format!("1 {word}"),
                    count => format!("{count} {word}s"),
                };
                output::line(format_args!(
                    "{shown} is a schema: {}, {}, {}",
                    plural(types, "type"),
                    plural(fields, "field"),
                    plural(rules, "rule")
                ))
            };
        }
        Err(errors) => errors,
    };
    let count = errors.iter().count();
    if as_json {
        let errors: Vec<_> = errors
            .iter()
            .map(|error| {
                json!({
                    "line": error.line,
                    "column": error.column,
                    "problem": error.problem,
                    "fix": error.fix,
                })
            })
            .collect();
        output::json(&json!({ "file": shown, "valid": false, "errors": errors }))?;
    } else {
        for error in errors.iter() {
            let (line, column) = (error.line, error.column);
            output::line(format_args!(
                "{shown}:{line}:{column}: {}\n    {}",
                error.problem, error.fix
            ))?;
        }
    }
    Err(Failure::failed(match count {
        1 => format!("{shown} has an error"),
        count => format!("{shown} has {count} errors"),
    }))
}

async fn show(wanted: ShowArgs, as_json: bool) -> Result<(), Failure> {
    let ShowArgs { file, name, of, from_relay, ca, dir } = wanted;
    let (schema, from, hash) = match (file, from_relay) {
        (Some(file), _) => (Arc::new(read(&file)?), file.display().to_string(), None),
        (None, Some(url)) => told::of_relay(&url, ca.as_deref()).await?,
        (None, None) => told::kept(dir).await?,
    };
    let Some(name) = name.or(of) else {
        if as_json {
            let types: serde_json::Map<_, _> =
                schema.types.iter().map(|(name, of)| (name.clone(), type_json(of))).collect();
            let mut said = json!({ "root_key": schema.root_key, "types": types });
            if let Some(hash) = hash {
                said["hash"] = json!(hash.to_string());
            }
            return output::json(&said);
        }
        if let Some(hash) = hash {
            output::line(format_args!("{from}, SHA-256 {hash}"))?;
        }
        let rows: Vec<_> = schema.types.values().map(type_row).collect();
        return output::table(&["TYPE", "VERSION", "PRIORITY", "RULES", "FIELDS"], &rows);
    };
    let of = schema.types.get(&name).ok_or_else(|| {
        let names: Vec<_> = schema.types.keys().map(String::as_str).collect();
        let names = names.join(", ");
        Failure::not_found(format!("{from} has no type {name:?}: it has {names}"))
    })?;
    if as_json { output::json(&type_json(of)) } else { type_lines(of) }
}

fn type_row(of: &EntityType) -> Vec<String> {
    let fields: Vec<_> = of.fields.keys().map(String::as_str).collect();
    vec![
        of.name.clone(),
        of.version.to_string(),
        of.priority.name().to_owned(),
        of.invariants.len().to_string(),
        fields.join(", "),
    ]
}

fn type_lines(of: &EntityType) -> Result<(), Failure> {
    let (name, version) = (&of.name, of.version);
    let (priority, edits) = (of.priority.name(), of.edits_of_deleted.name());
    output::line(format_args!(
        "{name}, version {version}; priority {priority}; edits of what is deleted: {edits}"
    ))?;
    if of.lease == LeaseRule::Required {
        output::line("leases   are required: while one is held, relays take no changes of others")?;
    }
    if let Some(after) = of.purge_deleted_after {
        output::line(format_args!("purged   {after} after it was deleted"))?;
    }
    let rows: Vec<_> = of.fields.values().map(field_row).collect();
    output::table(
        &["FIELD", "KIND", "", "CONCURRENT WRITES", "DEFAULT", "SINCE", "KEPT AS"],
        &rows,
    )?;
    for key in &of.unique {
        output::line(format_args!("unique   {}", key.join(", ")))?;
    }
    for (name, rule) in &of.invariants {
        output::line(format_args!("rule     {name}: {rule}"))?;
    }
    for migration in &of.migrations {
        output::line(format_args!("version {}  {}", migration.version, migration.step))?;
    }
    Ok(())
}

fn field_row(field: &Field) -> Vec<String> {
    let default = field.default.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![
        field.name.clone(),
        output::short(&field.kind.to_string(), 48),
        match (field.required, field.hold) {
            (true, true) => "required, held".to_owned(),
            (true, false) => "required".to_owned(),
            (false, true) => "held".to_owned(),
            (false, false) => String::new(),
        },
        field.policy.to_string(),
        output::short(&default, 20),
        field.since.to_string(),
        if field.slot == field.name { String::new() } else { field.slot.clone() },
    ]
}

fn type_json(of: &EntityType) -> Json {
    let rules = of.invariants.iter().map(|(name, rule)| (name.clone(), json!(rule.as_str())));
    json!({
        "name": of.name,
        "version": of.version,
        "priority": of.priority.name(),
        "lease": of.lease.name(),
        "edits_of_deleted": of.edits_of_deleted.name(),
        "purge_deleted_after": of.purge_deleted_after.map(|after| after.to_string()),
        "fields": fields_json(&of.fields),
        "unique": of.unique,
        "invariants": rules.collect::<serde_json::Map<_, _>>(),
        "migrations": of.migrations.iter().map(|step| json!({
            "version": step.version,
            "step": step.step.to_string(),
        })).collect::<Vec<_>>(),
    })
}

fn fields_json(fields: &std::collections::BTreeMap<String, Field>) -> Json {
    let one = |field: &Field| {
        let mut value = json!({
            "kind": kind_json(&field.kind),
            "required": field.required,
            "policy": field.policy.to_string(),
            "hold": field.hold,
            "since": field.since,
            "slot": field.slot,
        });
        if let Some(default) = &field.default {
            value["default"] = literal_json(default);
        }
        value
    };
    Json::Object(fields.iter().map(|(name, field)| (name.clone(), one(field))).collect())
}

fn kind_json(kind: &Kind) -> Json {
    let mut value = json!({ "kind": kind.name() });
    match kind {
        Kind::Enum { values } => value["values"] = json!(values),
        Kind::Set { items, .. } | Kind::List { items, .. } | Kind::Map { items, .. } => {
            value["items"] = kind_json(items);
        }
        Kind::Record { fields } => value["fields"] = fields_json(fields),
        Kind::Reference { to, on_delete, acyclic } => {
            value["to"] = json!(to);
            value["on_delete"] = json!(on_delete.name());
            if *acyclic {
                value["acyclic"] = json!(true);
            }
        }
        _ => {}
    }
    value
}

fn literal_json(literal: &Literal) -> Json {
    match literal {
        Literal::Boolean(yes) => json!(yes),
        Literal::Integer(number) => json!(number),
        Literal::Number(number) => json!(number),
        Literal::String(text) => json!(text),
    }
}

fn diff(old: &Path, new: &Path, as_json: bool) -> Result<(), Failure> {
    let found = read(old)?.diff(&read(new)?);
    let place = |difference: &Difference| match &difference.field {
        Some(field) => format!("{}.{field}", difference.type_name),
        None if difference.type_name.is_empty() => "the schema".to_owned(),
        None => difference.type_name.clone(),
    };
    let missing = found.iter().filter(|it| it.impact == Impact::NeedsMigration).count();
    if as_json {
        let rows: Vec<_> = found
            .iter()
            .map(|it| {
                json!({
                    "type": it.type_name,
                    "field": it.field,
                    "impact": it.impact.to_string(),
                    "what": it.what,
                    "fix": it.fix,
                })
            })
            .collect();
        output::json(&json!(rows))?;
    } else if found.is_empty() {
        output::line("the schemas declare the same")?;
    } else {
        let rows: Vec<_> = found
            .iter()
            .map(|it| vec![it.impact.to_string(), place(it), it.what.clone()])
            .collect();
        output::table(&["IMPACT", "WHERE", "WHAT"], &rows)?;
        for it in &found {
            if let Some(fix) = &it.fix {
                output::line(format_args!("{}: {fix}", place(it)))?;
            }
        }
    }
    match missing {
        0 => Ok(()),
        1 => Err(Failure::failed("a migration is missing")),
        missing => Err(Failure::failed(format!("{missing} migrations are missing"))),
    }
}
