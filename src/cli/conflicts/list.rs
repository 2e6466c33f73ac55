//! `concord conflicts ls`: what is open, and who looks after it.

use std::cell::Cell;

use concord::{
    peer::Peer,
    review::{ConflictId, View, triage::Shown},
};
use concord_protocol::DocumentId;
use serde_json::json;

use super::{
    LONG, SHORT, all_unless, id_of, in_words, place, short_id,
    triage::{self, Wanted},
    view,
};
use crate::cli::{Failure, open::Common, output, waiting};

/// Which column of a list says who looks after a conflict.
const WHO: usize = 4;

pub(super) async fn list(
    peer: &Peer,
    common: &Common,
    docs: Vec<String>,
    state: Wanted,
    assignee: Option<String>,
) -> Result<(), Failure> {
    let about = peer.review_document_id();
    let named: Vec<DocumentId> = docs.iter().filter_map(|doc| id_of(peer, doc)).collect();
    let docs = all_unless(peer, docs).await?;
    let (mut found, mut failed) = (Vec::new(), Vec::new());
    // Where all else is said is looked at, and is no document of the user's.
    let total = docs.iter().filter(|doc| id_of(peer, doc).as_ref() != Some(&about)).count();
    let done = Cell::new(0);
    let finding = async {
        for doc in docs {
            // One that cannot be opened does not hide the others' conflicts.
            match of_one(peer, common, &doc).await {
                Ok(views) => found.extend(views),
                Err(failure) => failed.push(failure),
            }
            done.set(done.get() + 1);
        }
    };
    let words = || format!("looked at {} of {total} documents", done.get());
    waiting::with(common, words, finding).await;
    for apart in peer.conflicts_between().await? {
        if apart.documents.iter().any(|document| named.is_empty() || named.contains(document)) {
            found.push(apart.view);
        }
    }
    let now = output::now();
    let (mut rows, mut shown, mut others) = (Vec::new(), Vec::new(), 0);
    let ids: Vec<ConflictId> = found.iter().map(|view| view.id).collect();
    let said = triage::of(peer, &ids).await;
    for (view, said) in found.into_iter().zip(said) {
        let shows = Shown::of(view, said, now);
        let to = shows.triage.assigned.as_ref().map(|assigned| &assigned.to);
        if assignee.is_some() && assignee.as_ref() != to {
            continue;
        }
        if state.takes(shows.state) {
            rows.push(to_row(&shows));
            shown.push(shows);
        } else {
            others += 1;
        }
    }
    if common.json {
        output::json(&json!(shown))?;
    } else if !rows.is_empty() {
        table(rows)?;
    } else if failed.is_empty() {
        let documents = if total == 1 { "document" } else { "documents" };
        let which = if state == Wanted::Pending { "open" } else { "such" };
        output::line(format_args!("no {which} conflicts in {total} {documents}"))?;
    }
    if !common.json && others > 0 && state == Wanted::Pending {
        output::line(format_args!("{others} more are put off or dismissed: --state all"))?;
    }
    let others = failed.len().saturating_sub(1);
    match failed.pop() {
        None => Ok(()),
        Some(failure) if others == 0 => Err(failure),
        Some(failure) => Err(failure.and(&format!("{others} more documents cannot be opened"))),
    }
}

/// Prints conflicts; who looks after them only where anybody does.
fn table(mut rows: Vec<Vec<String>>) -> Result<(), Failure> {
    let mut headings = vec!["ID", "KIND", "WHERE", "SIDES", "WHO", "DOCUMENT"];
    if rows.iter().all(|row| row[WHO].is_empty()) {
        headings.remove(WHO);
        for row in &mut rows {
            row.remove(WHO);
        }
    }
    output::table(&headings, &rows)
}

async fn of_one(peer: &Peer, common: &Common, doc: &str) -> Result<Vec<View>, Failure> {
    let document = peer.find_within(doc, common.within()).await?;
    document.conflicts()?.iter().map(|conflict| view(&document, conflict)).collect()
}

fn to_row(shown: &Shown) -> Vec<String> {
    let view = &shown.view;
    let sides: Vec<String> = view.sides.iter().map(|side| in_words(side, SHORT)).collect();
    vec![
        short_id(view.id),
        view.code.clone(),
        output::short(place(view), LONG),
        sides.join(" | "),
        triage::in_short(&shown.triage, shown.state),
        view.document.clone(),
    ]
}
