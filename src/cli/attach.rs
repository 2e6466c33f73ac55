//! `concord attach`: files beside documents.

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand};
use concord::{
    entity::{Attachment, EntityType, Kind, Value},
    peer::{AttachmentError, AttachmentReader, Peer, StoredAttachment},
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value as Json, json};
use tokio::{fs, io::AsyncWriteExt as _, time::timeout};

use super::{
    Failure,
    agree::agree,
    entities::{declared, types},
    open::{self, Common},
    output, schema, sync,
};

/// Hexadecimal digits of a name that are shown where people look.
const SHOWN: usize = 16;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct AttachArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// The schema that declares the types [default: the one that a relay told of last]
    #[arg(long, global = true, env = "CONCORD_SCHEMA", value_name = "FILE")]
    schema: Option<PathBuf>,
    /// The files to keep; they are on disk when this returns, and go to the relay if one is given
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The field that is to name them, as in task/42.photo; a list gets them at its end
    #[arg(long, value_name = "TYPE/KEY.FIELD")]
    to: Option<String>,
    #[command(subcommand)]
    command: Option<AttachCommand>,
}

#[derive(Debug, Subcommand)]
enum AttachCommand {
    /// Write an attachment to a file, fetched from the relay if it is not here; what was fetched before
    /// is not fetched again
    Get {
        /// Its hash, or as many of its first digits as tell it apart here, or a field that names it, as
        /// in task/42.photo
        what: String,
        /// Where to, - for standard output [default: the name that it was attached with]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// In place of a file that is there
        #[arg(short, long)]
        force: bool,
    },
    /// List the attachments that are here
    Ls,
    /// Remove an attachment from here; where a relay has it, it can be fetched again
    Rm {
        /// Its hash, or as many of its first digits as tell it apart
        hash: String,
        /// Without asking
        #[arg(short, long)]
        yes: bool,
    },
    /// Remove what no document names any more, some time after that was first seen
    Gc {
        /// Hours after it was first seen that no document names one
        #[arg(long, default_value_t = 24.0, value_name = "HOURS")]
        grace: f64,
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) async fn run(args: AttachArgs) -> Result<(), Failure> {
    let AttachArgs { common, schema, files, to, command } = args;
    let schema = schema.as_deref().map(schema::read).transpose()?;
    let peer = open::peer_under(&common, schema).await?;
    let done = match command {
        None => attach(&peer, &common, &files, to.as_deref()).await,
        Some(AttachCommand::Get { what, output, force }) => {
            get(&peer, &common, &what, output, force).await
        }
        Some(AttachCommand::Ls) => ls(&peer, &common).await,
        Some(AttachCommand::Rm { hash, yes }) => rm(&peer, &common, &hash, yes).await,
        Some(AttachCommand::Gc { grace, dry_run }) => gc(&peer, &common, grace, dry_run).await,
    };
    peer.close().await?;
    done
}

/// A field of an entity, as people name it.
struct Place {
    type_name: String,
    key: String,
    field: String,
}

impl Place {
    fn read(text: &str) -> Result<Self, Failure> {
        let parts = text.split_once('/').and_then(|(of, rest)| Some((of, rest.rsplit_once('.')?)));
        let Some((of, (key, field))) = parts
            .filter(|(of, (key, field))| !of.is_empty() && !key.is_empty() && !field.is_empty())
        else {
            return Err(Failure::usage(format!(
                "{text:?} is not TYPE/KEY.FIELD, as in task/42.photo"
            )));
        };
        let (type_name, key, field) = (of.to_owned(), key.to_owned(), field.to_owned());
        Ok(Self { type_name, key, field })
    }

    /// Whether the field holds several.
    fn is_list(&self, of: &EntityType) -> Result<bool, Failure> {
        let field = of.fields.get(&self.field).map(|field| &field.kind);
        match field {
            Some(Kind::Attachment { .. }) => Ok(false),
            Some(Kind::List { items, .. }) if matches!(**items, Kind::Attachment { .. }) => {
                Ok(true)
            }
            Some(other) => Err(Failure::usage(format!(
                "`{}` of {} is of kind `{}`: name a field of kind `attachment`, or a list of those",
                self.field,
                of.name,
                other.name()
            ))),
            None => Err(Failure::usage(format!("{} has no field `{}`", of.name, self.field))),
        }
    }
}

async fn attach(
    peer: &Peer,
    common: &Common,
    files: &[PathBuf],
    to: Option<&str>,
) -> Result<(), Failure> {
    let place = to.map(Place::read).transpose()?;
    // What is wrong with the field is said before anything is kept.
    let types = match &place {
        Some(_) => Some(types(peer, common).await?),
        None => None,
    };
    let target = match (&place, &types) {
        (Some(place), Some(types)) => {
            let of = declared(types, &place.type_name)?;
            Some((place, of, place.is_list(of)?))
        }
        _ => None,
    };
    if files.len() > 1 && target.is_some_and(|(_, _, is_list)| !is_list) {
        return Err(Failure::usage("the field holds one attachment: give one file"));
    }
    let mut attached = Vec::with_capacity(files.len());
    for file in files {
        let attachment = peer.attach_file(file).await?;
        attached.push((file, attachment));
    }
    if let Some((place, of, is_list)) = target {
        let named: Vec<Json> =
            attached.iter().map(|(_, attachment)| attachment.to_string().into()).collect();
        // Before anything is begun: one that is too large, say.
        let mut fields = Map::new();
        let all = if is_list { Json::Array(named.clone()) } else { named[0].clone() };
        fields.insert(place.field.clone(), all);
        of.encode(&Json::Object(fields)).map_err(|error| Failure::usage(error.to_string()))?;
        let change = |entity: &mut Map<String, Json>| match entity.get_mut(&place.field) {
            Some(Json::Array(list)) if is_list => list.extend(named),
            _ if is_list => _ = entity.insert(place.field.clone(), named.into()),
            _ => entity.extend(named.into_iter().map(|one| (place.field.clone(), one))),
        };
        peer.put(of, &place.key, change).await?;
    }
    let confirmed = confirm(peer, common).await;
    if common.json {
        let rows: Vec<Json> = attached
            .iter()
            .map(|(file, attachment)| {
                json!({
                    "file": file.display().to_string(),
                    "hash": attachment.hash.to_string(),
                    "length": attachment.length,
                    "attachment": attachment.to_string(),
                })
            })
            .collect();
        output::json(&json!({
            "attached": rows,
            "to": to,
            "durable": true,
            "confirmed": confirmed.as_ref().map(Result::is_ok),
        }))?;
    } else {
        let where_it_is = sync::where_it_is(confirmed.as_ref());
        for (file, attachment) in &attached {
            let size = indicatif::HumanBytes(attachment.length);
            output::line(format_args!("{}  {} ({size})", attachment.hash, file.display()))?;
        }
        output::line(where_it_is)?;
    }
    confirmed.unwrap_or(Ok(()))
}

/// Waits until the relay has all, if one was given: as long as something moves.
async fn confirm(peer: &Peer, common: &Common) -> Option<Result<(), Failure>> {
    if !common.has_relay() {
        return None;
    }
    let mut counts = peer.attachment_counts();
    let total = counts.borrow().waiting_bytes;
    let bar = bar(common, "sending", total);
    let moving = async {
        loop {
            let now = counts.borrow_and_update().clone();
            if now.is_complete && now.waiting == now.refused {
                return;
            }
            bar.set_length(bar.length().unwrap_or(0).max(now.waiting_bytes));
            bar.set_position(
                bar.length().unwrap_or(0).saturating_sub(now.waiting_bytes - now.sent_bytes),
            );
            // Silence for so long is for the flush to judge.
            if !matches!(timeout(common.within(), counts.changed()).await, Ok(Ok(()))) {
                return;
            }
        }
    };
    moving.await;
    bar.finish_and_clear();
    Some(peer.flush(common.within()).await.map_err(Failure::from))
}

async fn get(
    peer: &Peer,
    common: &Common,
    what: &str,
    to: Option<PathBuf>,
    force: bool,
) -> Result<(), Failure> {
    let attachment = find(peer, common, what).await?;
    let to = match to {
        Some(to) => to,
        None => attachment.name.clone().unwrap_or_else(|| attachment.hash.to_string()).into(),
    };
    let is_stdout = to == Path::new("-");
    let is_there = !is_stdout && fs::try_exists(&to).await.unwrap_or(true);
    if is_there && !force {
        return Err(Failure::usage(format!(
            "{} is there already: give another with -o, or --force",
            to.display()
        )));
    }
    let bar = bar(common, "fetching", attachment.length);
    let progress = |here, of| {
        bar.set_length(of);
        bar.set_position(here);
    };
    let reader = peer.open_attachment_within(&attachment, common.within(), progress).await;
    bar.finish_and_clear();
    let reader = reader?;
    let length = reader.length();
    if is_stdout {
        return copy(reader, &mut tokio::io::stdout(), &to).await;
    }
    // Whoever finds the file finds all of it.
    let part = beside(&to);
    let mut file = fs::File::create(&part).await.map_err(|error| cannot("write", &part, &error))?;
    let written = async {
        copy(reader, &mut file, &part).await?;
        file.sync_all().await.map_err(|error| cannot("write", &part, &error))?;
        fs::rename(&part, &to).await.map_err(|error| cannot("write", &to, &error))
    };
    if let Err(failure) = written.await {
        // Nobody wants half of it; what was fetched is in the replica.
        let _ = fs::remove_file(&part).await;
        return Err(failure);
    }
    if common.json {
        return output::json(&json!({
            "hash": attachment.hash.to_string(),
            "length": length,
            "file": to.display().to_string(),
        }));
    }
    output::line(format_args!("{} ({})", to.display(), indicatif::HumanBytes(length)))
}

async fn copy(
    mut from: AttachmentReader,
    to: &mut (impl tokio::io::AsyncWrite + Unpin),
    path: &Path,
) -> Result<(), Failure> {
    tokio::io::copy(&mut from, to).await.map_err(|error| cannot("write", path, &error))?;
    to.flush().await.map_err(|error| cannot("write", path, &error))
}

fn beside(file: &Path) -> PathBuf {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    file.with_file_name(name)
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot {what} {}: {error}", path.display()))
}

/// The attachment of a hash, or of some of its digits, or the one that a field names.
async fn find(peer: &Peer, common: &Common, what: &str) -> Result<Attachment, Failure> {
    if let Ok(attachment) = what.parse::<Attachment>() {
        return Ok(attachment);
    }
    if let Ok(hash) = what.parse() {
        return Ok(Attachment::new(hash, 0));
    }
    if !what.contains('/') {
        let stored = stored(peer, what).await?;
        return Ok(Attachment::new(stored.hash, stored.length));
    }
    let place = Place::read(what)?;
    let types = types(peer, common).await?;
    let of = declared(&types, &place.type_name)?;
    place.is_list(of)?;
    let id = peer.entity_id(&of.name, &place.key);
    // It may be at the relay only.
    let document = peer.find(id.as_str()).await?;
    let value = document.read(|doc| of.read(doc).values.get(&place.field).cloned())?;
    let named = match value {
        Some(Value::List(values)) => match values.as_slice() {
            [one] => Some(one.clone()),
            [] => None,
            several => {
                return Err(Failure::usage(format!(
                    "{what} names {} attachments: give the hash of one, of those that concord get \
                     {} {} shows",
                    several.len(),
                    of.name,
                    place.key
                )));
            }
        },
        value => value,
    };
    match named {
        Some(Value::String(text)) => Ok(text.parse().map_err(|_| {
            Failure::failed(format!("{what} names no attachment: {}", output::short(&text, 60)))
        })?),
        _ => Err(Failure::not_found(format!("{what} names no attachment"))),
    }
}

async fn stored(peer: &Peer, digits: &str) -> Result<StoredAttachment, Failure> {
    let all = peer.attachments().await?;
    let mut found = all.into_iter().filter(|one| one.hash.to_string().starts_with(digits));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("{digits} is the beginning of several: give more digits")))
        }
        (None, _) => Err(Failure::not_found(format!(
            "no attachment here begins with {digits}: concord attach ls lists those that are"
        ))),
    }
}

async fn ls(peer: &Peer, common: &Common) -> Result<(), Failure> {
    let all = peer.attachments().await?;
    if common.json {
        let rows: Vec<Json> = all.iter().map(stored_json).collect();
        return output::json(&Json::Array(rows));
    }
    if all.is_empty() {
        return output::line("no attachments here yet: concord attach FILE");
    }
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|one| {
            let state = match (one.is_whole, one.is_sent) {
                (false, _) => "in part",
                (true, false) => "not confirmed",
                (true, true) => "",
            };
            let mut hash = one.hash.to_string();
            hash.truncate(SHOWN);
            vec![hash, indicatif::HumanBytes(one.length).to_string(), state.to_owned()]
        })
        .collect();
    output::table(&["HASH", "SIZE", ""], &rows)
}

fn stored_json(one: &StoredAttachment) -> Json {
    json!({
        "hash": one.hash.to_string(),
        "length": one.length,
        "whole": one.is_whole,
        "confirmed": one.is_sent,
    })
}

async fn rm(peer: &Peer, common: &Common, hash: &str, yes: bool) -> Result<(), Failure> {
    let one = stored(peer, hash).await?;
    if !one.is_sent {
        agree(common, yes, "remove the only copy that is known of")?;
    }
    peer.remove_attachment(one.hash).await?;
    if common.json {
        return output::json(&json!({ "removed": [stored_json(&one)] }));
    }
    output::line(format_args!("removed {} ({})", one.hash, indicatif::HumanBytes(one.length)))
}

async fn gc(peer: &Peer, common: &Common, grace: f64, dry_run: bool) -> Result<(), Failure> {
    let grace = Duration::try_from_secs_f64(grace * 3_600.0)
        .map_err(|_| Failure::usage("--grace is a number of hours"))?;
    let swept = peer.remove_unused_attachments(grace, dry_run).await?;
    let bytes: u64 = swept.removed.iter().map(|(_, length)| length).sum();
    if common.json {
        let removed: Vec<Json> = swept
            .removed
            .iter()
            .map(|(hash, length)| json!({ "hash": hash.to_string(), "length": length }))
            .collect();
        return output::json(&json!({
            "dry_run": dry_run,
            "removed": removed,
            "bytes": bytes,
            "waiting": swept.waiting,
            "reason": swept.reason,
        }));
    }
    if let Some(reason) = &swept.reason {
        output::line(format_args!("nothing that is whole is removed: {reason}"))?;
    }
    let verb = if dry_run { "would remove" } else { "removed" };
    let count = swept.removed.len();
    let plural = if count == 1 { "" } else { "s" };
    let size = indicatif::HumanBytes(bytes);
    let waiting = match swept.waiting {
        0 => String::new(),
        more => format!("; no document names {more} more, kept for a while still"),
    };
    output::line(format_args!("{verb} {count} attachment{plural} ({size}){waiting}"))
}

/// A bar for somebody who watches.
fn bar(common: &Common, what: &'static str, total: u64) -> ProgressBar {
    let is_shown = !common.json && io::stderr().is_terminal();
    let target = if is_shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    if let Ok(style) = ProgressStyle::with_template(
        "{msg} {wide_bar} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
    ) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar
}

impl From<AttachmentError> for Failure {
    fn from(error: AttachmentError) -> Self {
        match error {
            AttachmentError::Offline { .. } | AttachmentError::Unavailable(_) => {
                Self::not_found(error.to_string())
            }
            AttachmentError::TooLarge { .. } | AttachmentError::Source(_) => {
                Self::usage(error.to_string())
            }
            other => Self::failed(other.to_string()),
        }
    }
}
