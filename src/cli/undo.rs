//! `concord undo | redo`: the last change of an author, taken back and done again.

use clap::Args;
use serde_json::json;

use super::{
    Failure,
    open::{self, Common},
    output, sync, waiting,
};

#[derive(Debug, Args)]
pub(super) struct UndoArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// The document's id or automerge: URL, or TYPE/KEY of an entity
    doc: String,
}

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Undo,
    Redo,
}

pub(super) async fn run(args: UndoArgs, way: Way) -> Result<(), Failure> {
    let UndoArgs { common, doc } = args;
    if common.author.is_none() {
        return Err(Failure::usage(
            "say whose changes: --author NAME, as they were made (or CONCORD_AUTHOR)",
        ));
    }
    let peer = open::peer(&common).await?;
    let done = async {
        let document = waiting::find(&peer, &common, &doc).await?;
        let stepped = match way {
            Way::Undo => document.undo().await?,
            Way::Redo => document.redo().await?,
        };
        let Some(change) = stepped else {
            return Err(Failure::not_found(match way {
                Way::Undo => {
                    "nothing is left to undo: no change of this document is of this author"
                }
                Way::Redo => {
                    "nothing is left to redo: nothing was undone, or more was changed since"
                }
            }));
        };
        let confirmed = sync::confirm(&peer, &common, &document).await;
        let left = document.steps()?;
        if common.json {
            output::json(&json!({
                "document": document.id().as_str(),
                "change": change.to_string(),
                "left": { "undo": left.undo.len(), "redo": left.redo.len() },
                "durable": true,
                "confirmed": confirmed.as_ref().map(Result::is_ok),
            }))?;
        } else {
            let (undo, redo) = (left.undo.len(), left.redo.len());
            let word = if way == Way::Undo { "undone" } else { "redone" };
            output::line(format_args!(
                "{word}; {undo} more can be undone and {redo} redone; {}",
                sync::where_it_is(confirmed.as_ref())
            ))?;
        }
        confirmed.unwrap_or(Ok(()))
    };
    let done = done.await;
    peer.close().await?;
    done
}
