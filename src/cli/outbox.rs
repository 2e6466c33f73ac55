//! `concord outbox`: what no relay has confirmed yet; and `concord dead-letters`: what relays refused.

mod review;

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use concord::peer::{
    DeadLetter, EditError, LetterError, LetterState, OutboxEntry, OutboxState, Peer, Status,
};
use serde_json::{Value as Json, json};
use tokio::time::timeout;

use super::{
    Failure,
    agree::agree,
    doc, edit,
    open::{self, Common},
    output, past,
    path::DocPath,
    sync, waiting,
};

#[derive(Debug, Args)]
pub(super) struct OutboxArgs {
    #[command(flatten)]
    pub(super) common: Common,
}

#[derive(Debug, Args)]
pub(super) struct LettersArgs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    command: LettersCommand,
}

#[derive(Debug, Subcommand)]
enum LettersCommand {
    /// List what relays refused
    Ls {
        /// Also what was discarded and is kept
        #[arg(long)]
        all: bool,
    },
    /// Show a refused change: why, whose it is, and what it does to its document
    Show {
        /// The change, or as many of its first digits as tell it apart
        change: String,
    },
    /// Go through what was refused at a terminal, with one key for each thing to do
    Review,
    /// Send a refused change once more, as it is or with other values in its place
    Retry {
        /// The change, or as many of its first digits as tell it apart
        change: String,
        /// Take the change out of the document, and set this instead, as in title=Shopping; several
        /// times for several values
        #[arg(long, value_name = "PATH=VALUE")]
        set: Vec<String>,
    },
    /// Take a refused change out of its document. What was made after it stays, and the change is
    /// kept beside the document
    Discard {
        /// The change, or as many of its first digits as tell it apart
        change: String,
    },
    /// Throw away a change that was discarded, for good
    Forget {
        /// The change, or as many of its first digits as tell it apart
        change: String,
        /// Without asking
        #[arg(short, long)]
        yes: bool,
    },
    /// Write a refused change to a file or to standard output, as an Automerge change that programs can
    /// apply
    Export {
        /// The change, or as many of its first digits as tell it apart
        change: String,
        /// Where to [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

pub(super) async fn outbox(args: OutboxArgs) -> Result<(), Failure> {
    let OutboxArgs { common } = args;
    let peer = open::peer(&common).await?;
    let listed = async {
        if common.has_relay() {
            // What it says of states depends on whether one is there.
            let mut status = peer.status();
            let online = status.wait_for(Status::is_online);
            let _ = waiting::for_relay(&peer, &common, timeout(common.within(), online)).await;
        }
        let entries = peer.outbox().await?;
        if common.json {
            let entries: Vec<Json> = entries.iter().map(entry_json).collect();
            return output::json(&Json::Array(entries));
        }
        if entries.is_empty() {
            return output::line("nothing is on its way: a relay has all that was edited here");
        }
        let now = output::now();
        let rows: Vec<Vec<String>> = entries
            .iter()
            .map(|entry| {
                let (state, why) = words_of(&entry.state);
                let since = output::ago(seconds(entry.since_ms), now);
                vec![
                    entry.document.to_string(),
                    since,
                    entry.level.to_string(),
                    state.to_owned(),
                    output::short(&why, 70),
                ]
            })
            .collect();
        output::table(&["DOCUMENT", "SINCE", "PRIORITY", "STATE", ""], &rows)
    };
    let listed = listed.await;
    peer.close().await?;
    listed
}

fn words_of(state: &OutboxState) -> (&'static str, String) {
    match state {
        OutboxState::Pending => ("pending", String::new()),
        OutboxState::Sending => ("sending", String::new()),
        OutboxState::Refused { code, reason, changes, .. } => {
            let plural = if *changes == 1 { "" } else { "s" };
            ("refused", format!("{changes} change{plural} ({}): {reason}", code.as_str()))
        }
        OutboxState::Failed { reason } => ("failed", reason.clone()),
        _ => ("other", String::new()),
    }
}

fn entry_json(entry: &OutboxEntry) -> Json {
    let (state, _) = words_of(&entry.state);
    let mut json = json!({
        "document": entry.document.as_str(),
        "since": seconds(entry.since_ms),
        "priority": entry.level.number(),
        "state": state,
    });
    match &entry.state {
        OutboxState::Refused { code, reason, changes, .. } => {
            json["code"] = code.as_str().into();
            json["reason"] = reason.as_str().into();
            json["changes"] = (*changes).into();
        }
        OutboxState::Failed { reason } => json["reason"] = reason.as_str().into(),
        _ => {}
    }
    json
}

pub(super) async fn letters(args: LettersArgs) -> Result<(), Failure> {
    let LettersArgs { common, command } = args;
    let peer = open::peer(&common).await?;
    let done = async {
        match command {
            LettersCommand::Ls { all } => list(&peer, &common, all).await,
            LettersCommand::Review => review::run(&peer, &common).await,
            LettersCommand::Show { change } => {
                show(&peer, &common, &find(&peer, &change).await?).await
            }
            LettersCommand::Retry { change, set } => {
                retry(&peer, &common, &find(&peer, &change).await?, &set).await
            }
            LettersCommand::Discard { change } => {
                discard(&peer, &common, &find(&peer, &change).await?).await
            }
            LettersCommand::Forget { change, yes } => {
                let letter = find(&peer, &change).await?;
                agree(&common, yes, &format!("throw {:.12} away", letter.change.to_string()))?;
                peer.forget_letter(&letter.document, letter.change).await?;
                said(&common, &letter, "thrown away", json!({}))
            }
            LettersCommand::Export { change, output } => {
                export(&peer, &common, &find(&peer, &change).await?, output.as_deref()).await
            }
        }
    };
    let done = done.await;
    peer.close().await?;
    done
}

/// The letter whose change begins with these digits.
async fn find(peer: &Peer, digits: &str) -> Result<DeadLetter, Failure> {
    let letters = peer.dead_letters().await?;
    let digits = digits.to_ascii_lowercase();
    let mut found =
        letters.into_iter().filter(|letter| letter.change.to_string().starts_with(&digits));
    match (found.next(), found.next()) {
        (Some(letter), None) => Ok(letter),
        (None, _) => Err(Failure::not_found(format!(
            "no relay has refused a change {digits}: concord dead-letters ls --all lists them"
        ))),
        (Some(_), Some(_)) => {
            Err(Failure::usage(format!("several refused changes begin with {digits}: give more")))
        }
    }
}

async fn list(peer: &Peer, common: &Common, all: bool) -> Result<(), Failure> {
    let is_open = |letter: &DeadLetter| matches!(letter.state, LetterState::Open { .. });
    let mut letters = peer.dead_letters().await?;
    letters.retain(|letter| all || is_open(letter));
    if common.json {
        return output::json(&letters.iter().map(letter_json).collect());
    }
    if letters.is_empty() {
        return output::line("nothing was refused");
    }
    let now = output::now();
    let rows: Vec<Vec<String>> = letters
        .iter()
        .map(|letter| {
            let state = match &letter.state {
                LetterState::Open { behind: 0 } => "open".to_owned(),
                LetterState::Open { behind } => format!("open, {behind} behind it"),
                _ => "discarded".to_owned(),
            };
            vec![
                letter.change.to_string()[..12].to_owned(),
                letter.document.to_string(),
                output::ago(seconds(letter.last_ms), now),
                state,
                output::short(&format!("{}: {}", letter.code.as_str(), letter.reason), 60),
            ]
        })
        .collect();
    output::table(&["CHANGE", "DOCUMENT", "REFUSED", "STATE", "WHY"], &rows)
}

fn letter_json(letter: &DeadLetter) -> Json {
    let mut json = json!({
        "change": letter.change.to_string(),
        "document": letter.document.as_str(),
        "code": letter.code.as_str(),
        "reason": letter.reason,
        "first": seconds(letter.first_ms),
        "last": seconds(letter.last_ms),
        "times": letter.times,
        "made": letter.stamp,
    });
    match &letter.state {
        LetterState::Open { behind } => {
            json["state"] = "open".into();
            json["behind"] = (*behind).into();
        }
        LetterState::Discarded { at_ms, by } => {
            json["state"] = "discarded".into();
            json["at"] = seconds(*at_ms).into();
            json["by"] = by.as_str().into();
        }
        _ => {}
    }
    json
}

async fn show(peer: &Peer, common: &Common, letter: &DeadLetter) -> Result<(), Failure> {
    let effect = peer.letter_effect(letter).await?;
    if common.json {
        let mut json = letter_json(letter);
        json["differences"] = serde_json::to_value(&effect).unwrap_or_default();
        return output::json(&json);
    }
    let now = output::now();
    output::line(format_args!("change    {}", letter.change))?;
    output::line(format_args!("document  {}", letter.document))?;
    if let Some(stamp) = &letter.stamp {
        let who = output::short(stamp.name(), 60);
        output::line(format_args!("made      {} by {who}", output::ago(stamp.time_s, now)))?;
    }
    let times = match letter.times {
        0 | 1 => String::new(),
        times => format!(", {times} times, first {}", output::ago(seconds(letter.first_ms), now)),
    };
    let last = output::ago(seconds(letter.last_ms), now);
    output::line(format_args!("refused   {last}{times}"))?;
    let reason = output::short(&letter.reason, 300);
    output::line(format_args!("why       {}: {reason}", letter.code.as_str()))?;
    match &letter.state {
        LetterState::Open { behind } => {
            output::line(format_args!("behind it {behind}"))?;
        }
        LetterState::Discarded { at_ms, by } => {
            let by = if by.is_empty() { String::new() } else { format!(" by {by}") };
            output::line(format_args!("discarded {}{by}", output::ago(seconds(*at_ms), now)))?;
        }
        _ => {}
    }
    effect.iter().try_for_each(|difference| output::line(past::in_words(difference)))
}

async fn retry(
    peer: &Peer,
    common: &Common,
    letter: &DeadLetter,
    set: &[String],
) -> Result<(), Failure> {
    let document = peer.find(letter.document.as_str()).await?;
    if set.is_empty() {
        if !common.has_relay() {
            return Err(Failure::usage(
                "no relay to send it to: give --url ws://host:port or CONCORD_URL",
            ));
        }
        // It is sent at every connection, and so at this one.
        let confirmed = sync::confirm(peer, common, &document).await;
        let is_open = peer.dead_letter(&letter.document, letter.change).await;
        if confirmed.as_ref().is_some_and(Result::is_ok) {
            return said(common, letter, "taken by the relay", json!({}));
        }
        return Err(match is_open {
            Ok(letter) => Failure::failed(format!(
                "refused again ({}): {}",
                letter.code.as_str(),
                letter.reason
            )),
            Err(_) => confirmed.and_then(Result::err).unwrap_or_else(|| Failure::failed("")),
        });
    }
    let pairs: Vec<(DocPath, &str)> =
        set.iter().map(|pair| assignment(pair)).collect::<Result<_, _>>()?;
    let write = |tx: &mut automerge::transaction::Transaction<'_>| -> Result<(), EditError> {
        pairs.iter().try_for_each(|(path, value)| edit::set_at(tx, path, value))
    };
    peer.retry_with(&letter.document, letter.change, write).await?;
    let confirmed = sync::confirm(peer, common, &document).await;
    let place = sync::where_it_is(confirmed.as_ref());
    said(common, letter, &format!("made anew; {place}"), json!({}))?;
    confirmed.unwrap_or(Ok(()))
}

fn assignment(pair: &str) -> Result<(DocPath, &str), Failure> {
    let (path, value) = pair
        .split_once('=')
        .ok_or_else(|| Failure::usage(format!("{pair:?} is not of the form PATH=VALUE")))?;
    let path = path.parse().map_err(|error| Failure::usage(format!("{path:?}: {error}")))?;
    Ok((path, value))
}

async fn export(
    peer: &Peer,
    common: &Common,
    letter: &DeadLetter,
    to: Option<&Path>,
) -> Result<(), Failure> {
    if to.is_none() && io::stdout().is_terminal() {
        return Err(Failure::usage("not writing bytes to a terminal: give -o FILE"));
    }
    let payload = peer.letter_payload(letter).await?;
    let Some(file) = to else {
        return output::raw(&payload);
    };
    doc::save(file, &payload)
        .map_err(|error| Failure::failed(format!("cannot write {}: {error}", file.display())))?;
    let what = format!("written to {} ({} bytes)", file.display(), payload.len());
    said(common, letter, &what, json!({ "bytes": payload.len() }))
}

async fn discard(peer: &Peer, common: &Common, letter: &DeadLetter) -> Result<(), Failure> {
    let done = peer.discard(&letter.document, letter.change).await?;
    let more = match (done.rewritten, done.lost) {
        (0, _) => String::new(),
        (rewritten, 0) => format!("; {rewritten} later changes are kept"),
        (rewritten, lost) => format!(
            "; {rewritten} later changes are kept, but for {lost} operations on what it had made"
        ),
    };
    let json = json!({ "rewritten": done.rewritten, "lost": done.lost });
    said(common, letter, &format!("discarded{more}"), json)
}

fn said(common: &Common, letter: &DeadLetter, what: &str, more: Json) -> Result<(), Failure> {
    if common.json {
        let mut json = json!({
            "change": letter.change.to_string(),
            "document": letter.document.as_str(),
            "done": what,
        });
        if let (Json::Object(json), Json::Object(more)) = (&mut json, more) {
            json.extend(more);
        }
        return output::json(&json);
    }
    output::line(format_args!("{:.12}: {what}", letter.change.to_string()))
}

impl From<LetterError> for Failure {
    fn from(error: LetterError) -> Self {
        match error {
            LetterError::Find(error) => error.into(),
            LetterError::Change(error) => error.into(),
            error @ LetterError::Unknown { .. } => Self::not_found(error.to_string()),
            error @ LetterError::DocumentGone(_) => Self::usage(format!(
                "{error}: concord doc export, then concord doc delete and purge --force"
            )),
            error => Self::failed(error.to_string()),
        }
    }
}

fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1_000).unwrap_or(i64::MAX)
}
