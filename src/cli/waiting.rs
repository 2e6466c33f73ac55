//! What a command waits for, told to people at a terminal who would wonder.

use std::{
    borrow::Cow,
    io::{self, IsTerminal as _},
    time::{Duration, SystemTime},
};

use concord::peer::{Document, FindError, Peer, Status};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::sleep;

use super::{Failure, open::Common};

/// Silence after which somebody who watches wants to know.
const QUIET: Duration = Duration::from_secs(1);
/// How often what is said is said anew: it counts seconds.
const ANEW: Duration = Duration::from_secs(1);

/// What names the document that somebody named: an entity they may name by its type and key.
pub(super) fn named<'d>(peer: &Peer, doc: &'d str) -> Cow<'d, str> {
    match doc.split_once('/') {
        Some((of, key)) if !of.is_empty() && !of.contains(':') && !key.is_empty() => {
            Cow::Owned(peer.entity_id(of, key).to_string())
        }
        _ => Cow::Borrowed(doc),
    }
}

/// The document: at once if it is stored here, else from the relay.
pub(super) async fn find(peer: &Peer, common: &Common, doc: &str) -> Result<Document, Failure> {
    let doc = named(peer, doc);
    let found = for_relay(peer, common, peer.find_within(&doc, common.within())).await;
    found.map_err(|error| match error {
        FindError::Offline { document, .. } if !common.has_relay() => Failure::not_found(format!(
            "document {document} is not stored here: to fetch it, give --url ws://host:port or \
             CONCORD_URL"
        )),
        other => other.into(),
    })
}

/// Does what waits for a relay. Once that takes longer than a second, a line on a terminal says
/// how far it is with the relay; it is gone when the work is done.
pub(super) async fn for_relay<T>(peer: &Peer, common: &Common, work: impl Future<Output = T>) -> T {
    if !common.has_relay() {
        return here(common, "opening", work).await;
    }
    let status = peer.status();
    with(common, || relay(&status.borrow()), work).await
}

/// Does what takes its time here, and says so once that is longer than a second.
pub(super) async fn here<T>(common: &Common, what: &str, work: impl Future<Output = T>) -> T {
    with(common, || what.to_owned(), work).await
}

/// As [`here`], with words that change.
pub(super) async fn with<T>(
    common: &Common,
    words: impl Fn() -> String,
    work: impl Future<Output = T>,
) -> T {
    if common.json || !io::stderr().is_terminal() {
        return work.await;
    }
    let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}") {
        line.set_style(style);
    }
    line.set_message(words());
    // Beside the work, which may compute for seconds without a pause.
    let shown = line.clone();
    let showing = tokio::spawn(async move {
        sleep(QUIET).await;
        shown.set_draw_target(ProgressDrawTarget::stderr());
        shown.enable_steady_tick(Duration::from_millis(100));
    });
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            () = sleep(ANEW) => line.set_message(words()),
        }
    };
    showing.abort();
    // What was aborted has nothing to say; it must not begin to draw after this.
    let _ = showing.await;
    line.finish_and_clear();
    done
}

/// Where a peer stands with its relay.
pub(super) fn relay(status: &Status) -> String {
    match status {
        Status::Online { relay } => format!("waiting for {relay}"),
        Status::Connecting => "connecting".to_owned(),
        Status::Offline { reason, next_try: None } => reason.clone(),
        Status::Offline { reason, next_try: Some(at) } => {
            let seconds = at.duration_since(SystemTime::now()).unwrap_or_default().as_secs();
            format!("{reason}; trying again in {} s", seconds + 1)
        }
    }
}
