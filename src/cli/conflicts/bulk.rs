//! `concord conflicts bulk`: many decisions of one kind, shown before they are made, and taken back
//! by their common name.

use std::{cell::Cell, collections::BTreeMap};

use clap::Args;
use concord::{
    entity::type_of,
    peer::{Document, Peer},
    review::{
        Choice, Conflict, ConflictId, Summary,
        bulk::{BulkId, Filter},
        desk::{Wanted, becomes},
    },
};
use serde_json::{Value as Json, json};

use super::{LONG, SHORT, all_unless, choice_of, id_of, short_id, typed, words};
use crate::cli::{Failure, agree::agree, open::Common, output, sync, waiting};

/// Decisions that are shown before somebody is asked.
const SHOWN_MAX: usize = 50;

#[derive(Debug, Args)]
pub(super) struct BulkArgs {
    /// Only of this kind, as ls shows it: value, twin, invariant
    #[arg(long)]
    code: Option<String>,
    /// Only in this document (id, automerge: URL, or TYPE/KEY)
    #[arg(long, value_name = "DOCUMENT")]
    document: Option<String>,
    /// Only in documents of this type
    #[arg(long = "type", value_name = "TYPE")]
    type_name: Option<String>,
    /// Only at this field, or in it: title, address.street, lines.amount
    #[arg(long)]
    field: Option<String>,
    /// Only where this person has a side
    #[arg(long = "side-of", value_name = "NAME")]
    side_of: Option<String>,
    /// Only where nothing was written for so long: 30m, 2h, 3d, 1w
    #[arg(long, value_name = "SPAN")]
    older_than: Option<String>,
    /// What to take: latest, before, now, delete, side=N, author=NAME or value=JSON
    #[arg(long, value_name = "WHAT", required_unless_present = "revert")]
    take: Option<String>,
    /// Why, for those who look later
    #[arg(long)]
    reason: Option<String>,
    /// Only show what would be decided
    #[arg(long, conflicts_with_all = ["yes", "revert"])]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Take all of it back that was decided under this id and nobody decided otherwise since
    #[arg(
        long,
        value_name = "ID",
        conflicts_with_all = ["code", "type_name", "field", "side_of", "older_than", "take"]
    )]
    revert: Option<String>,
}

/// Which conflicts are to be decided, and how.
struct Which<'a> {
    root_key: &'a str,
    filter: Filter,
    wanted: &'a Wanted,
}

/// A conflict that is to be decided.
struct Todo {
    document: Document,
    conflict: Conflict,
    path: Option<String>,
    becomes: Result<Option<Json>, String>,
}

pub(super) async fn run(
    peer: &Peer,
    common: &Common,
    root_key: &str,
    args: BulkArgs,
) -> Result<(), Failure> {
    if let Some(id) = args.revert {
        let bulk: BulkId = id.parse().map_err(Failure::usage)?;
        return revert(peer, common, bulk, args.document, args.reason, args.yes).await;
    }
    let wanted = args.take.as_deref().and_then(read_wanted).ok_or_else(|| {
        Failure::usage("take what? latest, before, now, delete, side=1, author=NAME or value=JSON")
    })?;
    let document = args.document.as_ref().and_then(|doc| id_of(peer, doc));
    let older_than_s = args.older_than.as_deref().map(|text| {
        super::triage::span_s(text)
            .ok_or_else(|| Failure::usage(format!("{text:?} is no span: give 30m, 2h, 3d or 1w")))
    });
    let filter = Filter {
        ids: None,
        code: args.code,
        document: document.map(|id| id.to_string()),
        type_name: args.type_name,
        field: args.field,
        author: args.side_of,
        older_than_s: older_than_s.transpose()?,
    };
    let docs = all_unless(peer, args.document.into_iter().collect()).await?;
    let which = Which { root_key, filter, wanted: &wanted };
    let (found, unopened) = find(peer, common, docs, &which).await?;
    let (todo, refused): (Vec<Todo>, Vec<Todo>) =
        found.into_iter().partition(|todo| todo.becomes.is_ok());
    if args.dry_run {
        return preview(common, &todo, &refused, &unopened);
    }
    if !common.json {
        preview(common, &todo, &refused, &unopened)?;
    }
    if todo.is_empty() {
        if common.json {
            output::json(&json!({ "bulk": null, "decided": [], "failed": [] }))?;
        }
        return Ok(());
    }
    agree(common, args.yes, &format!("decide {}", counted(todo.len())))?;
    apply(peer, common, todo, &wanted, args.reason).await
}

/// The conflicts that a filter takes, and what would become of them.
async fn find(
    peer: &Peer,
    common: &Common,
    docs: Vec<String>,
    Which { root_key, filter, wanted }: &Which<'_>,
) -> Result<(Vec<Todo>, Vec<String>), Failure> {
    let said = peer.triages().await?;
    let now = output::now();
    let (done, total) = (Cell::new(0), docs.len());
    let finding = async {
        let (mut found, mut unopened) = (Vec::new(), Vec::new());
        for doc in docs {
            done.set(done.get() + 1);
            // One that cannot be opened does not keep the others waiting.
            let document = match peer.find_within(&doc, common.within()).await {
                Ok(document) => document,
                Err(error) => {
                    unopened.push(error.to_string());
                    continue;
                }
            };
            for conflict in document.conflicts()? {
                let state = said.get(&conflict.id).map(|standing| standing.state(now));
                // Somebody put it off, or said that it needs no decision.
                if state.is_some_and(|state| !state.is_pending()) {
                    continue;
                }
                let looked_at = document.read(|doc| {
                    let of = type_of(doc, root_key);
                    let summary = Summary::of(doc, document.id(), of.as_deref(), &conflict);
                    let is_wanted = filter.takes(&summary, now);
                    is_wanted.then(|| (summary.path, becomes(doc, &conflict, wanted)))
                })?;
                let Some((path, becomes)) = looked_at else { continue };
                found.push(Todo { document: document.clone(), conflict, path, becomes });
            }
        }
        Ok::<_, Failure>((found, unopened))
    };
    let words = || format!("looked at {} of {total} documents", done.get());
    waiting::with(common, words, finding).await
}

fn preview(
    common: &Common,
    todo: &[Todo],
    refused: &[Todo],
    unopened: &[String],
) -> Result<(), Failure> {
    if common.json {
        let shown = todo.iter().chain(refused).map(|todo| {
            json!({
                "id": todo.conflict.id,
                "document": todo.document.id().as_str(),
                "path": todo.path,
                "becomes": todo.becomes.as_ref().ok().and_then(Option::as_ref),
                "refused": todo.becomes.as_ref().err(),
            })
        });
        return output::json(&json!({
            "dry_run": true,
            "matching": todo.len() + refused.len(),
            "decidable": todo.len(),
            "conflicts": shown.collect::<Vec<_>>(),
            "unopened": unopened,
        }));
    }
    for reason in unopened {
        output::line(format_args!("left out: {}", output::short(reason, LONG)))?;
    }
    if todo.is_empty() && refused.is_empty() {
        return output::line("no open conflict is one of those");
    }
    let rows: Vec<Vec<String>> = (todo.iter().chain(refused).take(SHOWN_MAX))
        .map(|todo| {
            let becomes = match &todo.becomes {
                Ok(value) => words(value.as_ref(), SHORT),
                Err(reason) => format!("(cannot: {})", output::short(reason, LONG)),
            };
            let path = todo.path.as_deref().unwrap_or("(gone)");
            vec![
                short_id(todo.conflict.id),
                output::short(path, LONG),
                becomes,
                todo.document.id().to_string(),
            ]
        })
        .collect();
    output::table(&["ID", "WHERE", "BECOMES", "DOCUMENT"], &rows)?;
    let others = (todo.len() + refused.len()).saturating_sub(SHOWN_MAX);
    if others > 0 {
        output::line(format_args!("and {others} more"))?;
    }
    let cannot = match refused.len() {
        0 => String::new(),
        count => format!("; {} cannot be decided so", counted(count)),
    };
    output::line(format_args!("{} would be decided{cannot}", counted(todo.len())))
}

async fn apply(
    peer: &Peer,
    common: &Common,
    todo: Vec<Todo>,
    wanted: &Wanted,
    reason: Option<String>,
) -> Result<(), Failure> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::failed(format!("the system gives no randomness: {error}")))?;
    let bulk = BulkId::new(bytes);
    let (count, total) = (Cell::new(0), todo.len());
    let deciding = async {
        let (mut decided, mut failed, mut documents) = (Vec::new(), Vec::new(), BTreeMap::new());
        for Todo { document, conflict, .. } in todo {
            let id = conflict.id;
            match decide(&document, &conflict, wanted, reason.clone(), bulk).await {
                Ok(()) => decided.push((id, document.id().clone())),
                Err(failure) => failed.push((id, document.id().clone(), failure.to_string())),
            }
            documents.insert(document.id().clone(), document);
            count.set(count.get() + 1);
        }
        (decided, failed, documents)
    };
    let words = || format!("decided {} of {total} conflicts", count.get());
    let (decided, failed, documents) = waiting::with(common, words, deciding).await;
    let confirmed = sync::confirm_all(peer, common, documents.into_values()).await;
    report(common, "decided", bulk, &decided, &failed, confirmed.as_ref())?;
    if !common.json && !decided.is_empty() {
        output::line(format_args!("take all of it back: concord conflicts bulk --revert {bulk}"))?;
    }
    confirmed.unwrap_or(Ok(()))
}

async fn decide(
    document: &Document,
    conflict: &Conflict,
    wanted: &Wanted,
    reason: Option<String>,
    bulk: BulkId,
) -> Result<(), Failure> {
    let choice = choice_of(document, conflict, wanted)?;
    Ok(document.resolve_in_bulk(conflict, &choice, reason, bulk).await?)
}

async fn revert(
    peer: &Peer,
    common: &Common,
    bulk: BulkId,
    document: Option<String>,
    reason: Option<String>,
    yes: bool,
) -> Result<(), Failure> {
    let mut made: Vec<(Document, ConflictId)> = Vec::new();
    for doc in all_unless(peer, document.into_iter().collect()).await? {
        let document = waiting::find(peer, common, &doc).await?;
        let of_it = document.bulks()?.into_iter().filter(|(of, _)| *of == bulk);
        made.extend(of_it.map(|(_, id)| (document.clone(), id)));
    }
    if made.is_empty() {
        return Err(Failure::not_found(format!("no decision stands that was made in bulk {bulk}")));
    }
    agree(common, yes, &format!("take back {}", counted_decisions(made.len())))?;
    let reason = reason.unwrap_or_else(|| format!("taken back with all of bulk {bulk}"));
    let (mut reverted, mut failed, mut documents) = (Vec::new(), Vec::new(), BTreeMap::new());
    let (count, total) = (Cell::new(0), made.len());
    let reverting = async {
        for (document, id) in made {
            match document.decide_again(id, &Choice::Now, Some(reason.clone())).await {
                Ok(()) => reverted.push((id, document.id().clone())),
                Err(error) => failed.push((id, document.id().clone(), error.to_string())),
            }
            documents.insert(document.id().clone(), document);
            count.set(count.get() + 1);
        }
    };
    let words = || format!("took back {} of {total} decisions", count.get());
    waiting::with(common, words, reverting).await;
    let confirmed = sync::confirm_all(peer, common, documents.into_values()).await;
    report(common, "reverted", bulk, &reverted, &failed, confirmed.as_ref())?;
    confirmed.unwrap_or(Ok(()))
}

fn report(
    common: &Common,
    done: &str,
    bulk: BulkId,
    made: &[(ConflictId, concord_protocol::DocumentId)],
    failed: &[(ConflictId, concord_protocol::DocumentId, String)],
    confirmed: Option<&Result<(), Failure>>,
) -> Result<(), Failure> {
    if common.json {
        let made =
            made.iter().map(|(id, document)| json!({ "id": id, "document": document.as_str() }));
        let failed = failed.iter().map(|(id, document, reason)| {
            json!({ "id": id, "document": document.as_str(), "reason": reason })
        });
        return output::json(&json!({
            "bulk": bulk,
            done: made.collect::<Vec<_>>(),
            "failed": failed.collect::<Vec<_>>(),
            "durable": true,
            "confirmed": confirmed.map(Result::is_ok),
        }));
    }
    for (id, document, reason) in failed {
        let reason = output::short(reason, LONG);
        output::line(format_args!("not {done}: {} in {document}: {reason}", short_id(*id)))?;
    }
    output::line(format_args!("{done} {}, as bulk {bulk}", counted(made.len())))
}

fn counted(count: usize) -> String {
    if count == 1 { "1 conflict".to_owned() } else { format!("{count} conflicts") }
}

fn counted_decisions(count: usize) -> String {
    if count == 1 { "1 decision".to_owned() } else { format!("{count} decisions") }
}

fn read_wanted(text: &str) -> Option<Wanted> {
    Some(match text.split_once('=') {
        None => match text {
            "latest" => Wanted::Latest,
            "before" => Wanted::Before,
            "now" => Wanted::Now,
            "delete" => Wanted::Delete,
            _ => return None,
        },
        Some(("side", number)) => Wanted::Side(number.parse().ok().filter(|side| *side > 0)?),
        Some(("author", name)) => Wanted::Author(name.to_owned()),
        Some(("value", text)) => Wanted::Value(typed(text)),
        Some(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_take_is_read() {
        assert_eq!(read_wanted("latest"), Some(Wanted::Latest));
        assert_eq!(read_wanted("side=2"), Some(Wanted::Side(2)));
        assert_eq!(read_wanted("author=a=b"), Some(Wanted::Author("a=b".to_owned())));
        assert_eq!(read_wanted("value=5"), Some(Wanted::Value(json!(5))));
        assert_eq!(read_wanted("value=so"), Some(Wanted::Value(json!("so"))));
        for wrong in ["", "newest", "side=0", "side=x", "side", "value", "by=ann"] {
            assert_eq!(read_wanted(wrong), None, "{wrong}");
        }
    }
}
