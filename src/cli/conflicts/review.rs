//! `concord conflicts review`: one conflict after another at a terminal, and one key for each choice.

use std::collections::BTreeMap;

use concord::{
    peer::{Document, Peer},
    review::{Choice, Conflict, ConflictId, between::Apart, desk::Wanted},
};
use concord_protocol::DocumentId;
use console::{Key, Term};

use super::{LONG, all_unless, choice_of, columns, id_of, place, short_id, typed, view};
use crate::cli::{Failure, keys, open::Common, output, sync, waiting};

/// The keys, where one asks for them.
const HELP: &str = "\
  1-9  take what this side wants          n  take what is shown now
  b    take what was there before         d  take nothing: it is deleted
  v    take something else, and write it  r  say why, with the next decision
  u    take the last decision back        s  leave this one open
  q    end; what was decided is on disk";

/// A conflict that is to be looked at.
enum Item {
    In(Document, ConflictId),
    Between(Box<Apart>),
}

/// What somebody wants done with a conflict.
enum Wish {
    Decide(Wanted),
    Skip,
    Undo,
    End,
}

/// What was done.
#[derive(Default)]
struct Done {
    decided: usize,
    taken_back: usize,
    reason: Option<String>,
    /// The last decision that can be taken back.
    last: Option<(Document, ConflictId)>,
    /// Documents that were changed.
    changed: BTreeMap<DocumentId, Document>,
}

pub(super) async fn run(peer: &Peer, common: &Common, docs: Vec<String>) -> Result<(), Failure> {
    let term = keys::term(common, "concord conflicts ls and resolve")?;
    let items = waiting::here(common, "looking for conflicts", find(peer, common, docs)).await?;
    let (total, mut done) = (items.len(), Done::default());
    if total == 0 {
        return output::line("no open conflicts");
    }
    for (number, item) in (1..).zip(items) {
        let at = format!("{number} of {total}");
        if !one(peer, &term, &at, item, &mut done).await? {
            break;
        }
    }
    let left = total.saturating_sub(done.decided + done.taken_back);
    let back = match done.taken_back {
        0 => String::new(),
        back => format!(", took {back} back"),
    };
    output::line(format_args!("decided {}{back}, left {left} open", done.decided))?;
    let changed = std::mem::take(&mut done.changed).into_values();
    sync::confirm_all(peer, common, changed).await.unwrap_or(Ok(()))
}

async fn find(peer: &Peer, common: &Common, docs: Vec<String>) -> Result<Vec<Item>, Failure> {
    let named: Vec<_> = docs.iter().filter_map(|doc| id_of(peer, doc)).collect();
    let mut items = Vec::new();
    for doc in all_unless(peer, docs).await? {
        let document = peer.find_within(&doc, common.within()).await?;
        let open = document.conflicts()?;
        items.extend(open.into_iter().map(|conflict| Item::In(document.clone(), conflict.id)));
    }
    let between = peer.conflicts_between().await?.into_iter();
    let is_wanted = |apart: &Apart| {
        named.is_empty() || apart.documents.iter().any(|document| named.contains(document))
    };
    items.extend(between.filter(is_wanted).map(|apart| Item::Between(Box::new(apart))));
    Ok(items)
}

/// One conflict, until it is decided or left. Whether to go on.
async fn one(
    peer: &Peer,
    term: &Term,
    at: &str,
    item: Item,
    done: &mut Done,
) -> Result<bool, Failure> {
    loop {
        // What came meanwhile may have closed it, or made it another one.
        let found = match &item {
            Item::In(document, id) => {
                let open = document.conflicts()?;
                let Some(conflict) = open.into_iter().find(|conflict| conflict.id == *id) else {
                    output::line(format_args!("{at}: closed meanwhile"))?;
                    return Ok(true);
                };
                (view(document, &conflict)?, Some(conflict))
            }
            Item::Between(apart) => (apart.view.clone(), None),
        };
        let (view, conflict) = found;
        let width = usize::from(term.size().1);
        let is_coloured = console::colors_enabled();
        output::line(format_args!(
            "\n{at}: {} ({}) at {} in automerge:{}",
            short_id(view.id),
            view.code,
            output::short(place(&view), LONG),
            view.document
        ))?;
        if let Some(problem) = &view.problem {
            output::line(output::short(problem, LONG))?;
        }
        match columns::render(&view, width, is_coloured, output::now()) {
            Some(shown) => output::line(shown)?,
            None => super::in_lines(&view)?,
        }
        let (sides, undo) = (view.sides.len(), done.last.is_some());
        match ask(term, sides, conflict.is_some(), undo, &mut done.reason).await? {
            Wish::End => return Ok(false),
            Wish::Skip => return Ok(true),
            Wish::Undo => {
                if let Some((document, id)) = done.last.take() {
                    document.decide_again(id, &Choice::Now, None).await?;
                    done.decided = done.decided.saturating_sub(1);
                    done.taken_back += 1;
                    output::line(format_args!(
                        "took {} back: what was shown before it is there again",
                        short_id(id)
                    ))?;
                }
            }
            Wish::Decide(wanted) => {
                let reason = done.reason.take();
                let decided = match (&item, &conflict) {
                    (Item::In(document, _), Some(conflict)) => {
                        decide(document, conflict, &wanted, reason, done).await
                    }
                    (Item::Between(apart), _) => between(peer, apart, &wanted, reason, done).await,
                    (Item::In(..), None) => return Ok(true),
                };
                match decided {
                    Ok(()) => {
                        done.decided += 1;
                        output::line(format_args!("decided {}", short_id(view.id)))?;
                        return Ok(true);
                    }
                    // What cannot be so is said, and asked again.
                    Err(failure) => output::line(failure.to_string())?,
                }
            }
        }
    }
}

async fn decide(
    document: &Document,
    conflict: &Conflict,
    wanted: &Wanted,
    reason: Option<String>,
    done: &mut Done,
) -> Result<(), Failure> {
    let choice = choice_of(document, conflict, wanted)?;
    document.resolve(conflict, &choice, reason).await?;
    done.last = Some((document.clone(), conflict.id));
    done.changed.insert(document.id().clone(), document.clone());
    Ok(())
}

async fn between(
    peer: &Peer,
    apart: &Apart,
    wanted: &Wanted,
    reason: Option<String>,
    done: &mut Done,
) -> Result<(), Failure> {
    peer.resolve_between(apart, wanted, reason).await?;
    done.last = None;
    for id in &apart.documents {
        done.changed.insert(id.clone(), peer.find(id.as_str()).await?);
    }
    Ok(())
}

/// Asks until there is an answer.
async fn ask(
    term: &Term,
    sides: usize,
    is_in_one: bool,
    may_undo: bool,
    reason: &mut Option<String>,
) -> Result<Wish, Failure> {
    let mut offered = vec![match sides {
        1 => "[1]".to_owned(),
        sides => format!("[1-{}]", sides.min(9)),
    }];
    let words = ["[b]efore", "[n]ow", "[d]elete", "[v]alue", "[r]eason", "[s]kip", "[q]uit", "[?]"];
    let only = |word: &&str| is_in_one || *word != "[b]efore";
    offered.extend(words.into_iter().filter(only).map(str::to_owned));
    if may_undo {
        offered.push("[u]ndo".to_owned());
    }
    loop {
        let key = keys::key(term, &format!("{}: ", offered.join(" "))).await?;
        return Ok(match key {
            Key::Char(c @ '1'..='9') => {
                let number = c.to_digit(10).and_then(|digit| usize::try_from(digit).ok());
                match number.filter(|number| *number <= sides) {
                    Some(number) => Wish::Decide(Wanted::Side(number)),
                    None => continue,
                }
            }
            Key::Char('b') if is_in_one => Wish::Decide(Wanted::Before),
            Key::Char('n') => Wish::Decide(Wanted::Now),
            Key::Char('d') => Wish::Decide(Wanted::Delete),
            Key::Char('v') => {
                match keys::line(term, "value (JSON, or text as it is; empty to go back): ").await?
                {
                    Some(text) => Wish::Decide(Wanted::Value(typed(&text))),
                    None => continue,
                }
            }
            Key::Char('r') => {
                *reason = keys::line(term, "why: ").await?;
                continue;
            }
            Key::Char('u') if may_undo => Wish::Undo,
            Key::Char('s' | ' ') => Wish::Skip,
            key if keys::ends(&key) => Wish::End,
            _ => {
                output::line(HELP)?;
                continue;
            }
        });
    }
}
