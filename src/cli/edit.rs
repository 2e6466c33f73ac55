//! `concord edit`: one value, set or removed.

use std::io::Read as _;

use automerge::{
    ObjId, ObjType, Prop, ReadDoc as _, ScalarValue, Value,
    transaction::{Transactable as _, Transaction},
};
use clap::Args;
use concord::{
    json,
    peer::{Document, EditError, Peer},
};
use serde_json::{Value as Json, json};

use super::{
    Failure,
    entities::{self, SchemaFile},
    open::Common,
    output,
    path::{DocPath, Place},
    sync, waiting,
};

#[derive(Debug, Args)]
pub(super) struct EditArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    schema: SchemaFile,
    /// The document's id or automerge: URL, or TYPE/KEY of an entity
    doc: String,
    /// What to set, as in items[0].title; the index after a list's last adds to it
    path: DocPath,
    /// JSON, or any other text as it is; - reads standard input
    #[arg(
        required_unless_present = "delete",
        conflicts_with = "delete",
        allow_hyphen_values = true
    )]
    value: Option<String>,
    /// Remove what is there
    #[arg(long)]
    delete: bool,
    /// What the change is for, kept with it
    #[arg(short, long)]
    message: Option<String>,
}

pub(super) async fn run(args: EditArgs) -> Result<(), Failure> {
    let EditArgs { common, schema, doc, path, value, message, .. } = args;
    let new = value.map(text_of).transpose()?;
    let peer = entities::opened(&common, &schema).await?;
    let edited = async {
        let document = waiting::find(&peer, &common, &doc).await?;
        is_kept_there(&peer, &document, &path).await?;
        let edit = |tx: &mut Transaction<'_>| -> Result<(Json, Json), EditError> {
            let place = path.place(tx)?;
            let before = shown(tx, &place)?;
            match &new {
                Some(new) => set(tx, &path, &place, new)?,
                None => remove(tx, &path, &place)?,
            }
            Ok((before, shown(tx, &place)?))
        };
        let changed = document.change_with(message.as_deref(), edit).await?;
        let confirmed = sync::confirm(&peer, &common, &document).await;
        let (before, after) = changed.value;
        if common.json {
            output::json(&json!({
                "document": document.id().as_str(),
                "path": path.to_string(),
                "before": before,
                "after": after,
                "change": changed.change.map(|hash| hash.to_string()),
                "durable": true,
                "confirmed": confirmed.as_ref().map(Result::is_ok),
            }))?;
        } else {
            const WIDTH: usize = 60;
            let [before, after] =
                [before, after].map(|value| output::short(&value.to_string(), WIDTH));
            match changed.change {
                None => output::line(format_args!("{path}: {before}, as it was"))?,
                Some(_) => output::line(format_args!("{path}: {before} -> {after}"))?,
            }
            output::line(sync::where_it_is(confirmed.as_ref()))?;
        }
        confirmed.unwrap_or(Ok(()))
    };
    let edited = edited.await;
    peer.close().await?;
    edited
}

/// Refuses a path that begins with a field which the type keeps under another key, as those are that
/// were given another name: what is written there is not what the field says.
async fn is_kept_there(peer: &Peer, document: &Document, path: &DocPath) -> Result<(), Failure> {
    let schema = peer.schema().await.in_force;
    let Some((schema, name)) = schema.zip(path.first_key()) else { return Ok(()) };
    document.read(|doc| {
        let Some(of) = schema.recognise(doc) else { return Ok(()) };
        match of.fields.get(name).filter(|field| field.slot != name) {
            None => Ok(()),
            Some(field) => Err(Failure::usage(format!(
                "field `{name}` of {type_name} is kept as `{kept}`: edit that, or write the field: \
                 concord put {type_name} KEY {name}=VALUE",
                type_name = of.name,
                kept = field.slot,
            ))),
        }
    })?
}

fn text_of(argument: String) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument);
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
    Ok(text)
}

fn shown(tx: &Transaction<'_>, place: &Place) -> Result<Json, EditError> {
    Ok(match tx.get(&place.parent, place.prop.clone())? {
        Some((value, id)) => json::to_json(tx, &value, &id)?,
        None => Json::Null,
    })
}

fn remove(tx: &mut Transaction<'_>, path: &DocPath, place: &Place) -> Result<(), EditError> {
    if tx.get(&place.parent, place.prop.clone())?.is_none() {
        return Err(Failure::not_found(format!("{path} is not in the document")).into());
    }
    tx.delete(&place.parent, place.prop.clone())?;
    Ok(())
}

/// Sets what is at a path, as `concord edit` does.
pub(super) fn set_at(
    tx: &mut Transaction<'_>,
    path: &DocPath,
    value: &str,
) -> Result<(), EditError> {
    let place = path.place(tx)?;
    set(tx, path, &place, value)
}

fn set(
    tx: &mut Transaction<'_>,
    path: &DocPath,
    place: &Place,
    new: &str,
) -> Result<(), EditError> {
    let Place { parent, prop } = place;
    let there = tx.get(parent, prop.clone())?.map(|(value, id)| (value.into_owned(), id));
    let json = serde_json::from_str::<Json>(new);
    match there {
        // What somebody else types at the same time stays: only what differs is written.
        Some((Value::Object(ObjType::Text), id)) => {
            let text = match json {
                Ok(Json::String(text)) => text,
                Ok(other @ (Json::Object(_) | Json::Array(_))) => {
                    return Ok(json::put(tx, parent, prop.clone(), other, false)?);
                }
                _ => new.to_owned(),
            };
            Ok(tx.update_text(&id, text)?)
        }
        Some((there, id)) => {
            let json = json.unwrap_or_else(|_| Json::String(new.to_owned()));
            if json::to_json(tx, &there, &id)? == json {
                return Ok(());
            }
            replace(tx, parent, prop, &there, json)
        }
        None => {
            let length = tx.length(parent);
            let insert = matches!(prop, Prop::Seq(_));
            if matches!(prop, Prop::Seq(index) if *index > length) {
                let message =
                    format!("{path} is past the end of a list of {length}: [{length}] adds to it");
                return Err(Failure::not_found(message).into());
            }
            let json = json.unwrap_or_else(|_| Json::String(new.to_owned()));
            Ok(json::put(tx, parent, prop.clone(), json, insert)?)
        }
    }
}

/// Counters are counted up or down, so that concurrent counting adds up; a string stays one.
fn replace(
    tx: &mut Transaction<'_>,
    parent: &ObjId,
    prop: &Prop,
    there: &Value<'_>,
    json: Json,
) -> Result<(), EditError> {
    if let Value::Scalar(scalar) = there {
        match (scalar.as_ref(), &json) {
            (ScalarValue::Counter(counter), Json::Number(number)) if number.is_i64() => {
                let by = number.as_i64().unwrap_or_default().saturating_sub(i64::from(counter));
                return Ok(tx.increment(parent, prop.clone(), by)?);
            }
            (ScalarValue::Str(_), Json::String(text)) => {
                return Ok(tx.put(parent, prop.clone(), text.as_str())?);
            }
            _ => {}
        }
    }
    Ok(json::put(tx, parent, prop.clone(), json, false)?)
}
