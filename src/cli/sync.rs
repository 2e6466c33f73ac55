//! `concord sync`: one pass, and the word of a relay on what it has.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use clap::Args;
use concord::peer::{ConfirmError, Document, Peer, Status};
use serde_json::json;

use super::{
    Failure, collection,
    open::{self, Common},
    output, waiting,
};

/// How long a relay may take to say whether it has notes on conflicts.
const NOTES_MAX: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Documents to fetch that are not stored here yet
    docs: Vec<String>,
}

/// Where a change is that was made here, in words. Why it is not confirmed follows on standard error.
pub(super) fn where_it_is(confirmed: Option<&Result<(), Failure>>) -> &'static str {
    match confirmed {
        None => "on this disk",
        Some(Ok(())) => "on this disk, and confirmed by the relay",
        Some(Err(_)) => "on this disk; not yet confirmed by the relay",
    }
}

pub(super) async fn run(args: SyncArgs) -> Result<(), Failure> {
    let SyncArgs { common, docs } = args;
    let Some(first) = common.relays().first().cloned() else {
        return Err(Failure::usage(
            "no relay to sync with: give --url ws://host:port or CONCORD_URL",
        ));
    };
    let started = Instant::now();
    let peer = open::peer(&common).await?;
    let status = peer.status();
    let fetched = async {
        for doc in &docs {
            waiting::find(&peer, &common, doc).await?;
        }
        if !peer.collections().await?.borrow().is_empty() {
            collection::fetch(&peer, &common).await?;
        }
        Ok::<_, Failure>(())
    };
    let fetched = fetched.await;
    let (done, total) = (Cell::new(0), Cell::new(0));
    let flushing = peer.in_step_with(common.within(), |now_done, now_total| {
        done.set(now_done);
        total.set(now_total);
    });
    let words = || match &*status.borrow() {
        Status::Online { relay } => {
            format!("{} of {} documents confirmed by {relay}", done.get(), total.get())
        }
        other => waiting::relay(other),
    };
    // What others say about conflicts, if they say anything: it is no document that one asks for.
    let review = peer.review_document_id();
    let noting = peer.find_within(review.as_str(), common.within().min(NOTES_MAX));
    let both = async { tokio::join!(flushing, noting).0 };
    let flushed = waiting::with(&common, words, both).await;
    let (done, total) = (done.get(), total.get());
    let (online, url) = match &*status.borrow() {
        Status::Online { relay } => (true, relay.clone()),
        _ => (false, first),
    };
    peer.close().await?;
    let seconds = started.elapsed().as_secs_f64();
    if common.json {
        output::json(&json!({
            "relay": url,
            "online": online,
            "documents": total,
            "confirmed": done,
            "pending": total - done,
            "seconds": seconds,
        }))?;
    } else if done > 0 || flushed.is_ok() {
        let plural = if total == 1 { "" } else { "s" };
        output::line(format_args!(
            "{done} of {total} document{plural} confirmed by {url} in {seconds:.1} s"
        ))?;
    }
    flushed.map_err(|error| match error {
        ConfirmError::TimedOut { .. } if online => Failure::unconfirmed(format!(
            "{error}: --deadline gives it more than {} s",
            common.deadline
        )),
        other => other.into(),
    })?;
    fetched
}

/// Waits for the relay's word on each of some documents, if a relay was given; what is wrong with
/// the first of them that it did not confirm.
pub(super) async fn confirm_all(
    peer: &Peer,
    common: &Common,
    documents: impl IntoIterator<Item = Document>,
) -> Option<Result<(), Failure>> {
    let mut confirmed = None;
    for document in documents {
        let this = confirm(peer, common, &document).await;
        if !matches!(confirmed, Some(Err(_))) {
            confirmed = this;
        }
    }
    confirmed
}

/// Waits for the relay's word on a document, if a relay was given.
pub(super) async fn confirm(
    peer: &Peer,
    common: &Common,
    document: &Document,
) -> Option<Result<(), Failure>> {
    if !common.has_relay() {
        return None;
    }
    let confirming = document.wait_confirmed(common.within());
    let confirmed = waiting::for_relay(peer, common, confirming).await;
    Some(confirmed.map_err(|error| match error {
        ConfirmError::TimedOut { .. } => {
            let why = match &*peer.status().borrow() {
                Status::Online { relay } => {
                    format!("{relay} did not confirm it in {} s", common.deadline)
                }
                Status::Connecting => "the relay does not answer".to_owned(),
                Status::Offline { reason, .. } => reason.clone(),
            };
            Failure::unconfirmed(format!(
                "not confirmed ({why}); it is safe on this disk: concord sync sends it later"
            ))
        }
        other => other.into(),
    }))
}
