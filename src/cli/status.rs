//! `concord status`: how this replica stands with its relays, or one document does.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use concord::{
    entity::Level,
    peer::{
        Acknowledged, AttachmentCounts, ConfirmError, OutboxCounts, OutboxState, Overview, Peer,
        RelayState, RelayStatus, Standing, Status,
    },
};
use indicatif::HumanBytes;
use serde_json::{Value as Json, json};

use super::{
    Failure,
    open::{self, Common},
    output, sync, waiting,
};

/// How long it waits for documents to be looked at: it is to answer at once.
pub(super) const INDEXED_MAX: std::time::Duration = std::time::Duration::from_secs(1);

/// What scripts can rely on.
pub(super) const STATUS_HELP: &str = "\
Without --url this says what is known on this disk, and connects to nothing.
With --url it connects, and waits up to --deadline until the relay has all that was edited here.

Exit codes:
  0  it is said how things stand; with --url, a relay has all that it takes. What was refused is for
     somebody to decide: see concord dead-letters, or \"refused\" in the JSON
  1  failed
  2  wrong usage or configuration, or another process has the directory
  3  the document is not found or not available
  4  with --url: no relay was reached, or it does not have everything yet; all is safe on this disk";

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Only this document
    doc: Option<String>,
}

pub(super) async fn run(args: StatusArgs) -> Result<(), Failure> {
    let StatusArgs { common, doc } = args;
    let peer = open::peer(&common).await?;
    let said = async {
        match doc {
            Some(doc) => of_document(&peer, &common, &doc).await,
            None => of_all(&peer, &common).await,
        }
    };
    let said = said.await;
    peer.close().await?;
    said
}

async fn of_all(peer: &Peer, common: &Common) -> Result<(), Failure> {
    let flushed = if common.has_relay() {
        Some(waiting::for_relay(peer, common, in_step(peer, common)).await)
    } else {
        None
    };
    let entries = peer.outbox().await?;
    let documents = peer.documents().await?.len();
    // Conflicts are counted in documents that were looked at, which a first start has not done yet.
    let indexed = tokio::time::timeout(INDEXED_MAX, peer.indexed()).await;
    let are_all = matches!(indexed, Ok(Ok(())));
    let overview = peer.overview();
    let oldest = entries.iter().map(|entry| seconds(entry.since_ms)).min();
    if common.json {
        let mut said = to_json(&overview, documents, oldest);
        said["conflicts_counted"] = json!(are_all);
        output::json(&said)?;
    } else {
        print(&overview, documents, oldest, are_all)?;
    }
    match flushed {
        // It is said, and has its own command.
        None | Some(Ok(()) | Err(ConfirmError::Refused { .. } | ConfirmError::Broken { .. })) => {
            Ok(())
        }
        Some(Err(error)) => Err(error.into()),
    }
}

/// Waits until a relay is there, and has what it takes.
async fn in_step(peer: &Peer, common: &Common) -> Result<(), ConfirmError> {
    let started = tokio::time::Instant::now();
    let mut status = peer.status();
    // What is waited for is not kept: the status could not be told of any more.
    let online = async { status.wait_for(Status::is_online).await.is_ok() };
    let left = match tokio::time::timeout(common.within(), online).await {
        Ok(_) => common.within().saturating_sub(started.elapsed()),
        Err(_) => std::time::Duration::ZERO,
    };
    peer.flush(left).await?;
    let reason = match &*peer.status().borrow() {
        Status::Online { .. } => return Ok(()),
        Status::Connecting => "still connecting".to_owned(),
        Status::Offline { reason, .. } => reason.clone(),
    };
    Err(ConfirmError::TimedOut { pending: 0, total: 0, reason })
}

fn print(
    overview: &Overview,
    documents: usize,
    oldest: Option<i64>,
    are_all: bool,
) -> Result<(), Failure> {
    let now = output::now();
    let say = |what: &str, words: String| output::line(format_args!("{what:<11}{words}"));
    if overview.relays.is_empty() {
        say("relay", "none was given: --url or CONCORD_URL".to_owned())?;
    }
    for relay in &overview.relays {
        let (state, why) = relay_state(relay);
        let mut words = format!("{} {state}", relay.url);
        if relay.state == RelayState::Online {
            words = format!("{words}, {}", traffic(relay));
        } else if !why.is_empty() {
            words = format!("{words}: {}", output::short(&why, 120));
        }
        say("relay", words)?;
    }
    let since = oldest.map_or_else(String::new, |oldest| {
        format!("; the oldest was edited {}", output::ago(oldest, now))
    });
    say("outbox", format!("{}{since}", counts(&overview.outbox)))?;
    if overview.attachments.waiting > 0 {
        say("attachments", attachments(&overview.attachments))?;
    }
    if let Some(ms) = overview.passes.synchronised_ms() {
        say("in step", output::ago(seconds(ms), now))?;
    }
    if let Some(passes) = passes(overview) {
        say("passes", passes)?;
    }
    let left_out = match overview.left_out {
        0 => String::new(),
        some => format!("; the relay takes no more at once, and does not follow {some} of them"),
    };
    say("documents", format!("{documents}{left_out}"))?;
    let so_far = if are_all { "" } else { " so far: documents are still being looked at" };
    match overview.conflicts {
        None => Ok(()),
        Some(0) => say("conflicts", format!("none open{so_far}")),
        Some(open) if are_all => say("conflicts", format!("{open} open: concord conflicts ls")),
        Some(open) => say("conflicts", format!("{open} open{so_far}")),
    }
}

/// Latency and bytes of a relay, in words.
fn traffic(relay: &RelayStatus) -> String {
    let (sent, received) = (HumanBytes(relay.sent_bytes), HumanBytes(relay.received_bytes));
    match latency(relay) {
        Some(latency) => format!("{latency}, {sent} sent, {received} received"),
        None => format!("{sent} sent, {received} received"),
    }
}

/// The round trip to a relay, if it is known.
pub(super) fn latency(relay: &RelayStatus) -> Option<String> {
    relay.latency.map(|latency| format!("{:.1} ms", latency.as_secs_f64() * 1_000.0))
}

/// The state of a relay in a word, and why, where that is known.
pub(super) fn relay_state(relay: &RelayStatus) -> (&'static str, String) {
    match &relay.state {
        RelayState::Online if relay.in_use => ("online", String::new()),
        RelayState::Online => ("silent", String::new()),
        RelayState::Connecting => ("connecting", String::new()),
        RelayState::Standby => ("standby", String::new()),
        RelayState::Offline { reason, next_try } => {
            let wait = next_try.duration_since(SystemTime::now()).unwrap_or_default().as_secs();
            ("offline", format!("{reason}; trying again in {} s", wait + 1))
        }
        RelayState::Stopped { reason } => ("stopped", reason.clone()),
        _ => ("other", String::new()),
    }
}

/// How much of attachments waits, in words.
fn attachments(counts: &AttachmentCounts) -> String {
    let size = indicatif::HumanBytes(counts.waiting_bytes - counts.sent_bytes);
    let why = counts.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!(" {} to be sent, {size}{}", counts.waiting, output::short(&why, 120))
}

/// How much is in the outbox, in words.
pub(super) fn counts(counts: &OutboxCounts) -> String {
    let counted = [
        (counts.pending, "pending"),
        (counts.sending, "sending"),
        (counts.refused, "refused"),
        (counts.failed, "failed"),
    ];
    let words: Vec<String> = counted
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if words.is_empty() {
        return "empty".to_owned();
    }
    let levels: Vec<String> = Level::ALL
        .into_iter()
        .zip(counts.by_level)
        .filter(|(_, count)| *count > 0)
        .map(|(level, count)| format!("{count} of {level}"))
        .collect();
    match levels.as_slice() {
        [] => words.join(", "),
        levels => format!("{}; by priority {}", words.join(", "), levels.join(", ")),
    }
}

/// What the last passes were like, in words.
pub(super) fn passes(overview: &Overview) -> Option<String> {
    let mean = overview.passes.average()?;
    let documents = if mean.documents == 1 { "document" } else { "documents" };
    Some(format!(
        "{}, on average {} ms, {} {documents}, {} sent, {} received",
        mean.passes,
        mean.took_ms,
        mean.documents,
        HumanBytes(mean.sent_bytes),
        HumanBytes(mean.received_bytes),
    ))
}

fn to_json(overview: &Overview, documents: usize, oldest: Option<i64>) -> Json {
    let OutboxCounts { pending, sending, refused, failed, .. } = overview.outbox;
    let relays: Vec<Json> = overview.relays.iter().map(relay_json).collect();
    let passes = overview.passes.average().map(|mean| {
        json!({
            "count": mean.passes,
            "took_ms": mean.took_ms,
            "documents": mean.documents,
            "sent_bytes": mean.sent_bytes,
            "received_bytes": mean.received_bytes,
        })
    });
    json!({
        "online": overview.status.is_online(),
        "relay": overview.relay().map(|relay| relay.url.as_str()),
        "in_step": overview.is_in_step(),
        "relays": relays,
        "outbox": {
            "pending": pending,
            "sending": sending,
            "refused": refused,
            "failed": failed,
            "by_priority": overview.outbox.by_level,
            "oldest": oldest,
        },
        "attachments": {
            "waiting": overview.attachments.waiting,
            "bytes": overview.attachments.waiting_bytes,
            "refused": overview.attachments.refused,
        },
        "synchronised": overview.passes.synchronised_ms().map(seconds),
        "passes": passes,
        "documents": documents,
        "left_out": overview.left_out,
        "conflicts": overview.conflicts,
    })
}

fn relay_json(relay: &RelayStatus) -> Json {
    let (state, why) = relay_state(relay);
    let since = relay.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({
        "url": relay.url,
        "priority": relay.priority,
        "state": state,
        "reason": (!why.is_empty()).then_some(why),
        "since": since,
        "latency_ms": relay.latency.map(|latency| latency.as_secs_f64() * 1_000.0),
        "sent_bytes": relay.sent_bytes,
        "received_bytes": relay.received_bytes,
    })
}

async fn of_document(peer: &Peer, common: &Common, doc: &str) -> Result<(), Failure> {
    let document = waiting::find(peer, common, doc).await?;
    let confirmed = sync::confirm(peer, common, &document).await;
    let standing = document.standing().await?;
    let acknowledged = document.acknowledged();
    let conflicts = document.conflicts()?.len();
    let (name, since_ms) = match &standing {
        Standing::LocalOnly { since_ms } => ("local-only", Some(*since_ms)),
        Standing::Ahead { since_ms } => ("ahead", Some(*since_ms)),
        Standing::Confirmed => ("confirmed", None),
        Standing::Behind => ("behind", None),
        Standing::Stuck(OutboxState::Refused { .. }) => ("refused", None),
        _ => ("failed", None),
    };
    let since = since_ms.map(seconds);
    let reason = match &standing {
        Standing::Stuck(OutboxState::Refused { code, reason, .. }) => {
            Some(format!("{}: {reason}", code.as_str()))
        }
        Standing::Stuck(OutboxState::Failed { reason }) => Some(reason.clone()),
        _ => None,
    };
    if common.json {
        output::json(&json!({
            "document": document.id().as_str(),
            "standing": name,
            "acknowledged": acknowledged.map(|means| match means {
                Acknowledged::Durable => "durable",
                _ => "applied",
            }),
            "since": since,
            "reason": reason,
            "conflicts": conflicts,
        }))?;
    } else {
        let since = since.map(|since| output::ago(since, output::now())).unwrap_or_default();
        let reason = output::short(&reason.unwrap_or_default(), 200);
        let words = match name {
            "local-only" => format!("only here, since {since}: no relay has confirmed any of it"),
            "ahead" => format!("edited {since}: no relay has confirmed all of it"),
            "confirmed" => match acknowledged {
                Some(Acknowledged::Durable) => "a relay has all that is here on its disk",
                Some(_) => "a relay has received all that is here; it says nothing of its disk",
                None => "a relay has all that was here",
            }
            .to_owned(),
            "behind" => "a relay has more than is here yet".to_owned(),
            "refused" => format!("refused by a relay ({reason}): see concord dead-letters"),
            _ => format!("cannot be read here: {reason}"),
        };
        output::line(format_args!("standing   {words}"))?;
        output::line(format_args!("conflicts  {conflicts} open"))?;
    }
    match standing {
        Standing::Stuck(_) => Ok(()),
        _ => confirmed.unwrap_or(Ok(())),
    }
}

/// Seconds of milliseconds since 1970.
pub(super) fn seconds(ms: u64) -> i64 {
    i64::try_from(ms / 1_000).unwrap_or(i64::MAX)
}
