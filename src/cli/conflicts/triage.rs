//! `concord conflicts claim | release | assign | comment | snooze | dismiss | reopen`: what is done
//! about a conflict without deciding it.

use clap::{Args, Subcommand, ValueEnum};
use concord::{
    peer::Peer,
    review::{
        ConflictId,
        triage::{Act, State, Triage},
    },
};
use serde_json::json;

use super::{Found, LONG, find, short_id};
use crate::cli::{Failure, open::Common, output, sync};

/// Characters of a name that are shown.
const NAME: usize = 24;

/// Which conflict.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The document's id or automerge: URL, or TYPE/KEY of an entity
    doc: String,
    /// The conflict's id, or as many of its first characters as are needed
    id: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum ActCommand {
    /// Say that you look after a conflict; needs --author
    Claim {
        #[command(flatten)]
        which: Which,
        /// Also where somebody else does, who then does not any more
        #[arg(long)]
        take: bool,
    },
    /// Say that you do not look after a conflict any more
    Release {
        #[command(flatten)]
        which: Which,
    },
    /// Say who should look after a conflict
    Assign {
        #[command(flatten)]
        which: Which,
        /// Who, as in ben@example.org; without it, nobody
        to: Option<String>,
    },
    /// Say something about a conflict
    Comment {
        #[command(flatten)]
        which: Which,
        /// What
        text: String,
    },
    /// Put a conflict off: lists do not show it until then
    Snooze {
        #[command(flatten)]
        which: Which,
        /// A time (2026-11-30, '2026-11-30 18:00'), or how long: 30m, 2h, 3d, 1w
        until: String,
    },
    /// Say that a conflict needs no decision: lists do not show it any more
    Dismiss {
        #[command(flatten)]
        which: Which,
        /// Why, for those who look later
        #[arg(long)]
        why: Option<String>,
    },
    /// Say that a conflict is neither put off nor dismissed
    Reopen {
        #[command(flatten)]
        which: Which,
    },
}

/// Which conflicts are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Wanted {
    /// Those that wait for somebody
    Pending,
    /// All that are not decided
    All,
    /// Those that nobody looks after
    Open,
    /// Those that somebody looks after
    Claimed,
    /// Those that are put off
    Snoozed,
    /// Those that need no decision
    Dismissed,
}

impl Wanted {
    pub(super) fn takes(self, state: State) -> bool {
        match self {
            Self::Pending => state.is_pending(),
            Self::All => true,
            Self::Open => state == State::Open,
            Self::Claimed => state == State::Claimed,
            Self::Snoozed => state == State::Snoozed,
            Self::Dismissed => state == State::Dismissed,
        }
    }
}

pub(super) async fn run(peer: &Peer, common: &Common, command: ActCommand) -> Result<(), Failure> {
    let (which, act) = match command {
        ActCommand::Claim { which, take } => (which, Act::Claim { take }),
        ActCommand::Release { which } => (which, Act::Release),
        ActCommand::Assign { which, to } => (which, Act::Assign(to)),
        ActCommand::Comment { which, text } => (which, Act::Comment(text)),
        ActCommand::Snooze { which, until } => (which, Act::Snooze(until_s(&until)?)),
        ActCommand::Dismiss { which, why } => (which, Act::Dismiss(why)),
        ActCommand::Reopen { which } => (which, Act::Reopen),
    };
    let (document, id) = match find(peer, common, &which.doc, &which.id).await? {
        Found::In(document, conflict) => (document.id().as_str().to_owned(), conflict.id),
        Found::Between(apart) => (apart.view.document, apart.view.id),
    };
    peer.act(id, &act).await?;
    let confirmed = sync::confirm(peer, common, &peer.review_document().await?).await;
    // With what the relay told of others, who may have done something meanwhile.
    let triage = peer.triage(id).await?;
    let state = triage.state(output::now());
    if common.json {
        output::json(&json!({
            "id": id,
            "document": document,
            "state": state,
            "triage": triage,
            "durable": true,
            "confirmed": confirmed.as_ref().map(Result::is_ok),
        }))?;
    } else {
        output::line(format_args!("conflict {} is {}", short_id(id), state.as_str()))?;
        lines(&triage)?;
    }
    confirmed.unwrap_or(Ok(()))
}

/// What there is to say of a conflict, in lines.
pub(super) fn lines(triage: &Triage) -> Result<(), Failure> {
    let now = output::now();
    let name = |name: &str| output::short(name, NAME);
    for (number, claim) in triage.claims.iter().enumerate() {
        let what = if number == 0 { "claimed " } else { "also    " };
        let since = output::ago(claim.since, now);
        output::line(format_args!("  {what} by {}, {since}", name(&claim.who)))?;
    }
    if let Some(assigned) = &triage.assigned {
        let (to, who) = (name(&assigned.to), name(&assigned.who));
        output::line(format_args!("  assigned to {to}, by {who}"))?;
    }
    if let Some(snoozed) = &triage.snoozed {
        let until = output::when(snoozed.until);
        output::line(format_args!("  snoozed  until {until}, by {}", name(&snoozed.who)))?;
    }
    if let Some(dismissed) = &triage.dismissed {
        let why = dismissed.why.as_deref().map(|why| format!(": {}", output::short(why, LONG)));
        let (who, when) = (name(&dismissed.who), output::ago(dismissed.time, now));
        let why = why.unwrap_or_default();
        output::line(format_args!("  dismissed by {who}, {when}{why}"))?;
    }
    for comment in &triage.comments {
        let (who, when) = (name(&comment.who), output::ago(comment.time, now));
        let text = output::short(&comment.text, LONG);
        output::line(format_args!("  {who}, {when}: {text}"))?;
    }
    Ok(())
}

/// Who looks after a conflict, for a table.
pub(super) fn in_short(triage: &Triage, state: State) -> String {
    let who = match (triage.claims.as_slice(), &triage.assigned) {
        ([], None) => String::new(),
        ([], Some(assigned)) => format!("for {}", output::short(&assigned.to, NAME)),
        ([one], _) => output::short(&one.who, NAME),
        ([first, others @ ..], _) => {
            format!("{} (and {} more)", output::short(&first.who, NAME), others.len())
        }
    };
    match state {
        State::Open | State::Claimed => who,
        other => format!("{} {who}", other.as_str()).trim_end().to_owned(),
    }
}

/// What there is to say of conflicts, in their order, or nothing if that is not known.
pub(super) async fn of(peer: &Peer, ids: &[ConflictId]) -> Vec<Triage> {
    peer.triage_of(ids).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "it is not known who looks after conflicts");
        vec![Triage::default(); ids.len()]
    })
}

/// How long something is, in seconds: `30m`, `2h`, `3d`, `1w`.
pub(super) fn span_s(text: &str) -> Option<i64> {
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    let count: i64 = count.parse().ok().filter(|count| *count > 0)?;
    count.checked_mul(seconds)
}

/// A time to come, in seconds since 1970.
fn until_s(text: &str) -> Result<i64, Failure> {
    let span = span_s(text).and_then(|span| output::now().checked_add(span));
    span.or_else(|| output::time(text)).ok_or_else(|| {
        Failure::usage(format!(
            "{text:?} is no time: give 2026-11-30, '2026-11-30 18:00', or 30m, 2h, 3d, 1w"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_and_until_when_are_read() {
        let now = output::now();
        for (text, seconds) in [("30m", 1_800), ("2h", 7_200), ("3d", 259_200), ("1w", 604_800)] {
            let until = until_s(text).unwrap();
            assert!((now + seconds..now + seconds + 5).contains(&until), "{text}");
        }
        assert_eq!(until_s("2026-11-21T18:30:05Z").unwrap(), 1_795_285_805);
        for wrong in ["", "d", "-3d", "3", "3y", "tomorrow", "9223372036854775807w", "ü"] {
            assert!(until_s(wrong).is_err(), "{wrong}");
        }
    }
}
