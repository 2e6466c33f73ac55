//! `concord doc entity`: a document as its type has it, and what of that is in review.

use std::path::PathBuf;

use clap::Args;
use concord::{entity::Schema, peer::Peer, review::hold::Reviewed};
use serde_json::json;

use super::{
    Failure,
    conflicts::short_id,
    open::{self, Common},
    output, schema, waiting,
};

/// Characters of a value that are shown in a table.
const SHOWN: usize = 60;

#[derive(Debug, Args)]
pub(super) struct EntityArgs {
    /// The document's id or automerge: URL, or TYPE/KEY of an entity
    doc: String,
    /// The schema that says what it is
    #[arg(long, env = "CONCORD_SCHEMA", value_name = "FILE")]
    schema: PathBuf,
}

pub(super) async fn run(common: &Common, args: &EntityArgs) -> Result<(), Failure> {
    let schema = schema::read(&args.schema)?;
    let peer = open::peer_under(common, Some(schema.clone())).await?;
    let done = show(&peer, common, args, &schema).await;
    peer.close().await?;
    done
}

async fn show(
    peer: &Peer,
    common: &Common,
    args: &EntityArgs,
    schema: &Schema,
) -> Result<(), Failure> {
    let document = waiting::find(peer, common, &args.doc).await?;
    let of = document.read(|doc| schema.recognise(doc))?.ok_or_else(|| {
        Failure::usage(format!(
            "the document is of no type of {}: its key `{}` names none of them",
            args.schema.display(),
            schema.root_key
        ))
    })?;
    let Reviewed { entity, in_review } = document.reviewed(of).await?;
    let problems: Vec<String> = entity.problems().iter().map(ToString::to_string).collect();
    if common.json {
        let parked = entity.parked.iter().map(|parked| {
            json!({
                "field": parked.field,
                "version": parked.version,
                "value": parked.value.to_json(),
                "why": parked.to_string(),
            })
        });
        return output::json(&json!({
            "document": document.id().as_str(),
            "type": of.name,
            "version": of.version,
            "fields": entity.to_json(),
            "in_review": in_review,
            "problems": problems,
            "parked": parked.collect::<Vec<_>>(),
        }));
    }
    // What is held inside a field is shown with the field.
    let held = |name: &str| {
        let ids = in_review.iter().filter(|(field, _)| {
            field.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        let ids: Vec<String> = ids.flat_map(|(_, ids)| ids).map(|id| short_id(*id)).collect();
        if ids.is_empty() { String::new() } else { format!("in review: {}", ids.join(", ")) }
    };
    let row = |name: &String| {
        let value = entity.values.get(name);
        let value = value.map(|value| value.to_json().to_string()).unwrap_or_default();
        vec![name.clone(), output::short(&value, SHOWN), held(name)]
    };
    let rows: Vec<Vec<String>> = of.fields.keys().map(row).collect();
    output::line(format_args!("{}, version {}", of.name, of.version))?;
    output::table(&["FIELD", "VALUE", ""], &rows)?;
    for problem in &problems {
        output::line(format_args!("wrong: {}", output::short(problem, 2 * SHOWN)))?;
    }
    for parked in &entity.parked {
        output::line(format_args!("parked: {}", output::short(&parked.to_string(), 2 * SHOWN)))?;
    }
    Ok(())
}
