//! `concord conflicts log | revert`: what was decided, and how it is taken back.

use std::collections::BTreeSet;

use concord::{
    peer::Peer,
    review::{By, ConflictId},
};
use serde_json::json;

use super::{ID_SHOWN, LONG, all_unless, short_id};
use crate::cli::{Failure, open::Common, output, sync, waiting};

pub(super) async fn log(peer: &Peer, common: &Common, docs: Vec<String>) -> Result<(), Failure> {
    let mut found = Vec::new();
    for doc in all_unless(peer, docs).await? {
        let document = waiting::find(peer, common, &doc).await?;
        let decisions = document.decisions()?;
        found.extend(decisions.into_iter().map(|past| (document.id().as_str().to_owned(), past)));
    }
    found.sort_by_key(|(_, past)| std::cmp::Reverse(past.who.time_s));
    if common.json {
        let shown = found.iter().map(|(document, past)| {
            json!({
                "conflict": past.decided.conflict,
                "document": document,
                "choice": past.decided.choice,
                "automatic": past.is_automatic(),
                "reason": past.decided.reason,
                "bulk": past.decided.bulk,
                "by": By::from(past.who.clone()),
            })
        });
        return output::json(&json!(shown.collect::<Vec<_>>()));
    }
    if found.is_empty() {
        return output::line("nothing was decided yet");
    }
    let now = output::now();
    let rows = found.iter().map(|(document, past)| {
        let name = past.who.name();
        vec![
            short_id(past.decided.conflict),
            past.decided.choice.clone(),
            output::ago(past.who.time_s, now),
            output::short(name, ID_SHOWN),
            output::short(past.decided.reason.as_deref().unwrap_or_default(), LONG),
            document.clone(),
        ]
    });
    let headings = ["ID", "CHOICE", "WHEN", "BY", "REASON", "DOCUMENT"];
    output::table(&headings, &rows.collect::<Vec<_>>())
}

pub(super) async fn revert(
    peer: &Peer,
    common: &Common,
    doc: &str,
    id: &str,
    reason: Option<String>,
) -> Result<(), Failure> {
    let document = waiting::find(peer, common, doc).await?;
    let wanted = id.to_ascii_lowercase();
    let decisions = document.decisions()?;
    let ids: BTreeSet<ConflictId> =
        decisions.into_iter().map(|past| past.decided.conflict).collect();
    let mut matching = ids.into_iter().filter(|id| id.to_string().starts_with(&wanted));
    let conflict = match (matching.next(), matching.next()) {
        (Some(id), None) => id,
        (Some(_), Some(_)) => {
            return Err(Failure::usage(format!(
                "more than one conflict begins with {id:?}: give more of the id"
            )));
        }
        (None, _) => {
            return Err(Failure::not_found(format!(
                "no decision is about a conflict that begins with {id:?}: concord conflicts log \
                 {doc} lists them"
            )));
        }
    };
    let documents = peer.revert(&document, conflict, reason).await?;
    let names: Vec<String> = documents.iter().map(|one| one.id().as_str().to_owned()).collect();
    let confirmed = sync::confirm_all(peer, common, documents).await;
    if common.json {
        output::json(&json!({
            "document": document.id().as_str(),
            "documents": names,
            "reverted": conflict,
            "durable": true,
            "confirmed": confirmed.as_ref().map(Result::is_ok),
        }))?;
    } else {
        let id = short_id(conflict);
        output::line(format_args!("reverted {id}: what was shown before is there again"))?;
    }
    confirmed.unwrap_or(Ok(()))
}
