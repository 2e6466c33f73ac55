//! `concord doc delete | undelete`: a mark in the document, which stays and can be taken back; and
//! `purge`, after which nothing of it is here.

use std::path::PathBuf;

use clap::Subcommand;
use concord::{
    entity::{self, Schema},
    peer::{Peer, PurgeError},
};
use concord_protocol::DocumentId;
use serde_json::json;

use super::{Failure, agree::agree, open::Common, output, schema, sync, waiting};

#[derive(Debug, Subcommand)]
pub(super) enum DeletionCommand {
    /// Mark a document as deleted, and do what the schema says of references to it. What it says
    /// stays in it, and undelete takes the mark away
    Delete {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
        doc: String,
        /// The schema in force: it says what becomes of references [default: what a relay told of
        /// last]
        #[arg(long, env = "CONCORD_SCHEMA", value_name = "FILE")]
        schema: Option<PathBuf>,
    },
    /// Take back that a document was deleted, and what was deleted or cleared with it
    Undelete {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
        doc: String,
        /// The schema in force: without one, only this document comes back [default: what a relay
        /// told of last]
        #[arg(long, env = "CONCORD_SCHEMA", value_name = "FILE")]
        schema: Option<PathBuf>,
    },
    /// Remove a deleted document from this store for good, with all of its history, once a relay
    /// (--url) says that it has it. What others have of it is not touched
    Purge {
        /// The document's id or automerge: URL, or TYPE/KEY of an entity
        doc: String,
        /// Also if no relay says that it has it: what only this store has is lost
        #[arg(long)]
        force: bool,
        /// Without asking
        #[arg(short, long)]
        yes: bool,
    },
}

impl DeletionCommand {
    /// The schema that it is to be done under.
    pub(super) fn schema(&self) -> Result<Option<Schema>, Failure> {
        match self {
            Self::Delete { schema, .. } | Self::Undelete { schema, .. } => {
                schema.as_deref().map(schema::read).transpose()
            }
            Self::Purge { .. } => Ok(None),
        }
    }
}

pub(super) async fn run(
    peer: &Peer,
    common: &Common,
    command: DeletionCommand,
) -> Result<(), Failure> {
    match command {
        DeletionCommand::Delete { doc, .. } => delete(peer, common, &doc).await,
        DeletionCommand::Undelete { doc, .. } => undelete(peer, common, &doc).await,
        DeletionCommand::Purge { doc, force, yes } => purge(peer, common, &doc, force, yes).await,
    }
}

async fn purge(
    peer: &Peer,
    common: &Common,
    doc: &str,
    force: bool,
    yes: bool,
) -> Result<(), Failure> {
    let document = waiting::find(peer, common, doc).await?;
    if !document.read(entity::is_deleted)? {
        return Err(PurgeError::NotDeleted(document.id().clone()).into());
    }
    if !force {
        let confirmed = sync::confirm(peer, common, &document).await.unwrap_or_else(|| {
            let what = "no relay to ask whether it has all of it: give --url or CONCORD_URL";
            Err(Failure::usage(what))
        });
        confirmed.map_err(|failure| failure.and("--force removes it all the same"))?;
    }
    let what = format!("remove {} and its history from this store for good", document.url());
    agree(common, yes, &what)?;
    peer.purge(&document, force).await?;
    if common.json {
        return output::json(&json!({ "purged": document.id().as_str(), "forced": force }));
    }
    output::line(format_args!("removed {} from this store", document.url()))
}

async fn delete(peer: &Peer, common: &Common, doc: &str) -> Result<(), Failure> {
    let document = waiting::find(peer, common, doc).await?;
    let deleting = peer.delete_entity(&document);
    let deletion = waiting::here(common, "looking at what refers to it", deleting).await?;
    let mut changed = vec![document.clone()];
    let cleared = deletion.cleared.iter().map(|(from, ..)| from);
    for other in deletion.with.iter().chain(cleared) {
        changed.push(waiting::find(peer, common, other.as_str()).await?);
    }
    let confirmed = sync::confirm_all(peer, common, changed).await;
    if common.json {
        let with: Vec<&str> = deletion.with.iter().map(DocumentId::as_str).collect();
        let cleared = deletion.cleared.iter().map(
            |(from, key, to)| json!({ "document": from.as_str(), "key": key, "to": to.as_str() }),
        );
        output::json(&json!({
            "deleted": document.id().as_str(),
            "with": with,
            "cleared": cleared.collect::<Vec<_>>(),
            "durable": true,
            "confirmed": confirmed.as_ref().map(Result::is_ok),
        }))?;
    } else {
        output::line(format_args!("deleted {}", document.url()))?;
        for with in &deletion.with {
            output::line(format_args!("deleted automerge:{} with it", with.as_str()))?;
        }
        for (from, key, _) in &deletion.cleared {
            output::line(format_args!("cleared {key} of automerge:{}", from.as_str()))?;
        }
        output::line(sync::where_it_is(confirmed.as_ref()))?;
    }
    confirmed.unwrap_or(Ok(()))
}

async fn undelete(peer: &Peer, common: &Common, doc: &str) -> Result<(), Failure> {
    let document = waiting::find(peer, common, doc).await?;
    let restoring = peer.restore_entity(&document);
    let with = waiting::here(common, "looking at what was deleted with it", restoring).await?;
    let names: Vec<String> = with.iter().map(|one| one.id().as_str().to_owned()).collect();
    let changed: Vec<_> = std::iter::once(document.clone()).chain(with).collect();
    let confirmed = sync::confirm_all(peer, common, changed).await;
    if common.json {
        output::json(&json!({
            "restored": document.id().as_str(),
            "with": names,
            "durable": true,
            "confirmed": confirmed.as_ref().map(Result::is_ok),
        }))?;
    } else {
        output::line(format_args!("{} is there again", document.url()))?;
        for with in names {
            output::line(format_args!("brought back what was done to automerge:{with} with it"))?;
        }
        output::line(sync::where_it_is(confirmed.as_ref()))?;
    }
    confirmed.unwrap_or(Ok(()))
}
