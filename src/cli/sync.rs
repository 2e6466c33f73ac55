//! `concord sync`: one pass, and the word of a relay on what it has.

use std::{io::IsTerminal as _, time::Instant};

use clap::Args;
use concord::peer::{ConfirmError, Document, Peer, Status};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::{
    Failure,
    open::{self, Common},
    output,
};

/// Documents from which a bar is worth looking at.
const BAR_FROM: usize = 20;

#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Documents to fetch that are not stored here yet
    docs: Vec<String>,
}

pub(super) async fn run(args: SyncArgs) -> Result<(), Failure> {
    let SyncArgs { common, docs } = args;
    let Some(url) = common.url.clone() else {
        return Err(Failure::usage(
            "no relay to sync with: give --url ws://host:port or CONCORD_URL",
        ));
    };
    let started = Instant::now();
    let peer = open::peer(&common).await?;
    let mut status = peer.status();
    let fetched = async {
        for doc in &docs {
            peer.find_within(doc, common.within()).await?;
        }
        Ok::<_, Failure>(())
    };
    let fetched = fetched.await;
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} documents  {elapsed}") {
        bar.set_style(style);
    }
    let (mut done, mut total) = (0, 0);
    let flushed = peer
        .flush_with(common.within(), |now_done, now_total| {
            (done, total) = (now_done, now_total);
            if now_done == 0 && now_total >= BAR_FROM && std::io::stderr().is_terminal() {
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            bar.set_length(now_total as u64);
            bar.set_position(now_done as u64);
        })
        .await;
    bar.finish_and_clear();
    let online = status.borrow_and_update().is_online();
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
    } else {
        let plural = if total == 1 { "" } else { "s" };
        output::line(format_args!(
            "{done} of {total} document{plural} confirmed by {url} in {seconds:.1} s"
        ))?;
    }
    flushed?;
    fetched
}

/// Waits for the relay's word on a document, if a relay was given.
pub(super) async fn confirm(
    peer: &Peer,
    common: &Common,
    document: &Document,
) -> Option<Result<(), Failure>> {
    common.url.as_ref()?;
    let confirmed = document.wait_confirmed(common.within()).await;
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
