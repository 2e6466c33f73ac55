//! `concord dead-letters review`: one refused change after another at a terminal, and one key for
//! each thing that can be done with it.

use std::path::Path;

use concord::peer::{DeadLetter, LetterError, LetterState, Peer};
use console::{Key, Term};

use super::{discard, export, retry, show};
use crate::cli::{Failure, keys, open::Common, output};

/// The keys, where one asks for them.
const HELP: &str = "\
  r  send it once more, as it is               x  write it to a file
  e  take it out, and write something else     s  leave it
  d  take it out; what was made after it stays q  end";
const PROMPT: &str = "[r]etry [e]dit [d]iscard e[x]port [s]kip [q]uit [?]: ";

pub(super) async fn run(peer: &Peer, common: &Common) -> Result<(), Failure> {
    let term = keys::term(common, "concord dead-letters ls, retry and discard")?;
    let mut letters = peer.dead_letters().await?;
    letters.retain(is_open);
    let (total, mut done) = (letters.len(), 0);
    if total == 0 {
        return output::line("nothing was refused");
    }
    for (number, letter) in (1..).zip(letters) {
        output::line(format_args!("\n{number} of {total}"))?;
        match one(peer, common, &term, letter).await? {
            After::Done => done += 1,
            After::Left => {}
            After::End => break,
        }
    }
    output::line(format_args!("done with {done}, left {} open", total - done))
}

/// What became of a letter.
enum After {
    Done,
    Left,
    End,
}

fn is_open(letter: &DeadLetter) -> bool {
    matches!(letter.state, LetterState::Open { .. })
}

/// One letter, until something was done with it or it is left.
async fn one(
    peer: &Peer,
    common: &Common,
    term: &Term,
    mut letter: DeadLetter,
) -> Result<After, Failure> {
    let mut is_new = true;
    loop {
        // What was done with another, and what a relay said meanwhile, may have been the end of it.
        letter = match peer.dead_letter(&letter.document, letter.change).await {
            Ok(now) if is_open(&now) => now,
            Ok(_) | Err(LetterError::Unknown { .. }) => {
                if is_new {
                    output::line("done with meanwhile")?;
                }
                return Ok(After::Done);
            }
            Err(error) => return Err(error.into()),
        };
        if std::mem::take(&mut is_new) {
            show(peer, common, &letter).await?;
        }
        let key = keys::key(term, PROMPT).await?;
        let outcome = match key {
            Key::Char('r') => retry(peer, common, &letter, &[]).await,
            Key::Char('e') => match values(term).await? {
                set if set.is_empty() => continue,
                set => retry(peer, common, &letter, &set).await,
            },
            Key::Char('d') => discard(peer, common, &letter).await,
            Key::Char('x') => match keys::line(term, "file (empty to go back): ").await? {
                Some(file) => export(peer, common, &letter, Some(Path::new(&file))).await,
                None => continue,
            },
            Key::Char('s' | ' ') => return Ok(After::Left),
            key if keys::ends(&key) => return Ok(After::End),
            _ => output::line(HELP),
        };
        // What cannot be so is said, and asked again.
        if let Err(failure) = outcome {
            output::line(failure)?;
        }
    }
}

/// What is to be written in the place of a change.
async fn values(term: &Term) -> Result<Vec<String>, Failure> {
    let mut set = Vec::new();
    let mut prompt = "what instead, as in title=Shopping (empty to go back): ";
    while let Some(pair) = keys::line(term, prompt).await? {
        set.push(pair);
        prompt = "and (empty for no more): ";
    }
    Ok(set)
}
