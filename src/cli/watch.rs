//! `concord watch`: each change of a document as it happens.

use automerge::{Automerge, ChangeHash};
use clap::Args;
use concord::{
    history::Stamp,
    peer::{ChangeInfo, Document, DocumentEvent, FindError, Peer, Status, Watcher},
};
use serde_json::json;

use super::{
    Failure,
    open::{self, Common},
    output, summary, waiting,
};

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// The document's id or automerge: URL, or TYPE/KEY of an entity
    doc: String,
    /// Print so many of the last changes first
    #[arg(long, default_value_t = 0)]
    last: usize,
    /// End after so many changes
    #[arg(long)]
    count: Option<usize>,
}

pub(super) async fn run(args: WatchArgs) -> Result<(), Failure> {
    let WatchArgs { common, doc, last, count } = args;
    let peer = open::peer(&common).await?;
    let watched = async {
        let document = waiting::find(&peer, &common, &doc).await?;
        let mut view = View {
            json: common.json,
            has_relay: common.has_relay(),
            left: count,
            heads: Vec::new(),
        };
        let mut watcher = document.watch();
        view.begin(&document, last)?;
        view.follow(&peer, &document, &mut watcher).await
    };
    let watched = tokio::select! {
        watched = watched => watched,
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(Failure::from),
    };
    peer.close().await?;
    watched
}

struct View {
    json: bool,
    has_relay: bool,
    left: Option<usize>,
    /// What was shown already.
    heads: Vec<ChangeHash>,
}

impl View {
    fn begin(&mut self, document: &Document, last: usize) -> Result<(), Failure> {
        let (heads, latest) = document.read(|doc| (doc.get_heads(), latest(doc, last)))?;
        self.heads = heads;
        if !self.json {
            output::line(format_args!("watching {} (Ctrl-C ends)", document.url()))?;
        }
        latest.iter().try_for_each(|change| self.change(document, change, &[]))
    }

    async fn follow(
        &mut self,
        peer: &Peer,
        document: &Document,
        watcher: &mut Watcher,
    ) -> Result<(), Failure> {
        let mut relay = Relay::of(peer);
        while self.left != Some(0) {
            let event = tokio::select! {
                event = watcher.next() => event,
                (kind, text) = relay.next(), if self.has_relay => {
                    self.note(kind, &text)?;
                    continue;
                }
            };
            match event {
                DocumentEvent::Changed { changes, .. } => {
                    let places = self.advance(document);
                    let Some((last, others)) = changes.split_last() else {
                        continue;
                    };
                    // What a batch did is said with its last change.
                    others.iter().try_for_each(|change| self.change(document, change, &[]))?;
                    self.change(document, last, &places)?;
                    self.left = self.left.map(|left| left.saturating_sub(changes.len()));
                }
                DocumentEvent::Lagged { missed } => {
                    let places = self.advance(document);
                    self.note("missed", &format!("too fast: {missed} events were missed"))?;
                    places.iter().try_for_each(|place| self.note("place", place))?;
                }
                DocumentEvent::Damaged { reason } => {
                    let text = format!("a part of what was stored here is damaged: {reason}");
                    self.note("damaged", &text)?;
                }
                DocumentEvent::Withheld { reason } => {
                    let text = format!("what breaks the document is left out: {reason}");
                    self.note("withheld", &text)?;
                }
                DocumentEvent::Quarantined { reason } | DocumentEvent::Failed { reason } => {
                    return Err(
                        FindError::Broken { document: document.id().clone(), reason }.into()
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What is different from what was shown.
    fn advance(&mut self, document: &Document) -> Vec<String> {
        let read = document.read(|doc| {
            let heads = doc.get_heads();
            let places = summary::between(doc, &self.heads, &heads);
            (heads, places)
        });
        // It is being read anew, and the next event finds it; or that event says that it is not.
        let Ok((heads, places)) = read else { return Vec::new() };
        self.heads = heads;
        places
    }

    fn change(
        &self,
        document: &Document,
        change: &ChangeInfo,
        places: &[String],
    ) -> Result<(), Failure> {
        // While it is read anew, only the writer is known.
        let stamp = document.read(|doc| Stamp::of(doc, &change.hash)).ok().flatten();
        let author = stamp.and_then(|stamp| stamp.author);
        if self.json {
            return output::json(&json!({
                "change": change.hash.to_string(),
                "actor": change.actor.to_string(),
                "author": author,
                "time": change.time,
                "message": change.message,
                "places": places,
            }));
        }
        let author = author.map_or_else(
            || change.actor.to_string().chars().take(8).collect(),
            |author| output::short(&author, 60),
        );
        let time = output::ago(change.time, output::now());
        let message = change.message.as_deref().map(|text| output::short(text, 60));
        let message = message.map(|text| format!("  {text}")).unwrap_or_default();
        let hash: String = change.hash.to_string().chars().take(8).collect();
        output::line(format_args!("{time:<12}  by {author}  change {hash}{message}"))?;
        places.iter().try_for_each(|place| output::line(format_args!("    {place}")))
    }

    fn note(&self, kind: &str, text: &str) -> Result<(), Failure> {
        if self.json {
            return output::json(&json!({ "event": kind, "text": text }));
        }
        output::line(format_args!("    {text}"))
    }
}

/// Where the peer stands with its relay, told when it comes and goes.
struct Relay {
    status: tokio::sync::watch::Receiver<Status>,
    /// What was said last.
    was: Option<Status>,
}

impl Relay {
    fn of(peer: &Peer) -> Self {
        let mut status = peer.status();
        status.mark_changed();
        Self { status, was: None }
    }

    /// The next thing to say: what kind of thing, and in words.
    async fn next(&mut self) -> (&'static str, String) {
        loop {
            if self.status.changed().await.is_err() {
                // The peer is closed, which whoever watches hears of otherwise.
                std::future::pending::<()>().await;
            }
            let now = self.status.borrow_and_update().clone();
            let is_news = match (&self.was, &now) {
                (_, Status::Connecting) => continue,
                (Some(Status::Online { relay: before }), Status::Online { relay }) => {
                    before != relay
                }
                (Some(Status::Offline { .. }), Status::Offline { .. }) => false,
                _ => true,
            };
            if is_news {
                self.was = Some(now.clone());
                return match now {
                    Status::Online { relay } => ("online", format!("online with {relay}")),
                    offline => ("offline", format!("offline: {}", waiting::relay(&offline))),
                };
            }
        }
    }
}

/// The last changes, oldest first.
fn latest(doc: &Automerge, count: usize) -> Vec<ChangeInfo> {
    if count == 0 {
        return Vec::new();
    }
    let changes = doc.get_changes_meta(&[]);
    let from = changes.len().saturating_sub(count);
    changes[from..]
        .iter()
        .map(|change| ChangeInfo {
            hash: concord_protocol::ChangeHash(change.hash.0),
            actor: concord_protocol::ActorId::from(change.actor.to_bytes()),
            time: change.timestamp,
            message: change.message.as_deref().map(str::to_owned),
        })
        .collect()
}
