//! `concord presence`: who is in a document, and where.

use std::time::Duration;

use clap::Args;
use concord::peer::{Document, Peer, Present, Showing, Status};
use serde_json::{Value as Json, json};
use tokio::time::{sleep, timeout};

use super::{
    Failure,
    open::{self, Common},
    output, waiting,
};

/// How long those who are there have to say so: programs of automerge-repo wait half a second.
const ANSWER: Duration = Duration::from_millis(1_200);

#[derive(Debug, Args)]
pub(super) struct PresenceArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// The document's id or automerge: URL, or TYPE/KEY of an entity
    doc: String,
    /// Go on telling who comes, moves and goes, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Be here too, until Ctrl-C: field=PATH, and cursor=JSON (again)
    #[arg(long = "set", value_name = "WHAT=VALUE")]
    set: Vec<String>,
}

pub(super) async fn run(args: PresenceArgs) -> Result<(), Failure> {
    let PresenceArgs { common, doc, watch, set } = args;
    let showing = showing(&set)?;
    if !common.has_relay() {
        return Err(Failure::usage(
            "who is here is known to those who are connected: give --url ws://host:port or \
             CONCORD_URL",
        ));
    }
    let peer = open::peer(&common).await?;
    let shown = tokio::select! {
        shown = show(&peer, &common, &doc, showing.as_ref(), watch) => shown,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::from),
    };
    peer.close().await?;
    shown
}

/// What is to be shown of us, if anything is.
fn showing(set: &[String]) -> Result<Option<Showing>, Failure> {
    let mut showing = None::<Showing>;
    for set in set {
        let showing = showing.get_or_insert_with(Showing::here);
        match set.split_once('=') {
            Some(("field", path)) => showing.field = Some(path.to_owned()),
            Some(("cursor", cursor)) => {
                let cursor = serde_json::from_str(cursor).map_err(|error| {
                    Failure::usage(format!("the cursor is not JSON ({error}): {cursor}"))
                })?;
                showing.cursor = Some(cursor);
            }
            _ => {
                return Err(Failure::usage(format!("{set:?}: write field=PATH or cursor=JSON")));
            }
        }
    }
    Ok(showing)
}

async fn show(
    peer: &Peer,
    common: &Common,
    doc: &str,
    showing: Option<&Showing>,
    watch: bool,
) -> Result<(), Failure> {
    let document = waiting::find(peer, common, doc).await?;
    let mut status = peer.status();
    let online = timeout(common.within(), status.wait_for(Status::is_online));
    if waiting::for_relay(peer, common, online).await.is_err() {
        return Err(Failure::unconfirmed("no relay was reached in time: nobody knows who is here"));
    }
    if let Some(showing) = showing {
        document.set_presence(showing).map_err(|error| Failure::usage(error.to_string()))?;
    }
    let mut present = document.presence();
    waiting::here(common, "asking who is here", sleep(ANSWER)).await;
    let now = present.borrow_and_update().clone();
    say(common, &document, &now)?;
    if !watch && showing.is_none() {
        return Ok(());
    }
    while present.changed().await.is_ok() {
        let now = present.borrow_and_update().clone();
        say(common, &document, &now)?;
    }
    Ok(())
}

fn say(common: &Common, document: &Document, present: &[Present]) -> Result<(), Failure> {
    if common.json {
        let present: Vec<Json> = present.iter().map(present_json).collect();
        return output::json(&json!({ "document": document.id().as_str(), "present": present }));
    }
    if present.is_empty() {
        return output::line("nobody else is here");
    }
    let cut = |text: &Option<String>| output::short(text.as_deref().unwrap_or("-"), 40);
    let rows: Vec<Vec<String>> = present
        .iter()
        .map(|present| {
            let cursor = present.cursor.as_ref().map(ToString::to_string);
            let Present { user, device, field, .. } = present;
            vec![cut(user), cut(device), cut(field), cut(&cursor)]
        })
        .collect();
    output::table(&["USER", "DEVICE", "FIELD", "CURSOR"], &rows)
}

fn present_json(present: &Present) -> Json {
    json!({
        "peer": present.peer.as_str(),
        "user": present.user,
        "device": present.device,
        "session": present.session,
        "field": present.field,
        "cursor": present.cursor,
        "more": present.more,
    })
}
