//! How a peer stands as a whole, as one value that can be watched; and how one document does.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use concord_protocol::DocumentId;
use tokio::sync::watch;

use super::{
    AttachmentCounts, Document, FindError, OutboxCounts, OutboxState, Passes, Peer, PeerError,
    RelayState, RelayStatus, Status, listen::Partner, passes::Bytes,
};

/// Seconds by which a change may be older than the entry of the outbox that it made.
const SLACK_S: i64 = 2;

/// How a peer stands: see [`Peer::overview`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overview {
    /// Whether a relay is there, in one line.
    pub status: Status,
    /// Each relay, the preferred first.
    pub relays: Vec<RelayStatus>,
    /// How much waits.
    pub outbox: OutboxCounts,
    /// How long it took before, and when a relay was last in step.
    pub passes: Passes,
    /// Conflicts that are open in documents here, as [`Document::conflicts`] has them. Nothing if
    /// this peer keeps no index of its documents.
    pub conflicts: Option<usize>,
    /// Attachments that no relay has confirmed.
    pub attachments: AttachmentCounts,
    /// Stored documents that a relay was not told of when it was connected, for it takes only so many
    /// of one connection. What is edited in them goes to it all the same; what others write in them
    /// comes when they are opened, and at once to those that a collection has.
    pub left_out: usize,
}

impl Overview {
    /// The relay that speaks for the peer, if one is connected.
    pub fn relay(&self) -> Option<&RelayStatus> {
        let Status::Online { relay } = &self.status else {
            return None;
        };
        self.relays.iter().find(|one| one.url == *relay && one.state == RelayState::Online)
    }

    /// Whether a relay is connected, and has on disk all that was edited and attached here.
    pub fn is_in_step(&self) -> bool {
        let OutboxCounts { refused, failed, is_complete, .. } = self.outbox;
        let is_empty = self.outbox.waiting() + refused + failed == 0;
        let AttachmentCounts { waiting, is_complete: is_counted, .. } = self.attachments;
        self.status.is_online() && is_complete && is_empty && is_counted && waiting == 0
    }
}

/// Tells of how a peer stands: see [`Peer::watch_overview`].
#[derive(Debug, Clone)]
pub struct OverviewWatcher {
    status: watch::Receiver<Status>,
    relays: watch::Receiver<Vec<RelayStatus>>,
    outbox: watch::Receiver<OutboxCounts>,
    passes: watch::Receiver<Passes>,
    conflicts: Option<watch::Receiver<usize>>,
    attachments: watch::Receiver<AttachmentCounts>,
    left_out: watch::Receiver<usize>,
}

impl OverviewWatcher {
    /// How it stands now. What is so now is no news to [`OverviewWatcher::changed`].
    pub fn now(&mut self) -> Overview {
        Overview {
            status: self.status.borrow_and_update().clone(),
            relays: self.relays.borrow_and_update().clone(),
            outbox: *self.outbox.borrow_and_update(),
            passes: self.passes.borrow_and_update().clone(),
            conflicts: self.conflicts.as_mut().map(|open| *open.borrow_and_update()),
            attachments: self.attachments.borrow_and_update().clone(),
            left_out: *self.left_out.borrow_and_update(),
        }
    }

    /// Waits until something is different from what [`OverviewWatcher::now`] said. Can be given up
    /// at any time.
    ///
    /// # Errors
    /// [`PeerError::Closed`] once all handles of the peer are gone.
    pub async fn changed(&mut self) -> Result<(), PeerError> {
        let conflicts = async {
            match &mut self.conflicts {
                Some(open) => open.changed().await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            changed = conflicts => changed,
            changed = self.status.changed() => changed,
            changed = self.relays.changed() => changed,
            changed = self.outbox.changed() => changed,
            changed = self.passes.changed() => changed,
            changed = self.attachments.changed() => changed,
            changed = self.left_out.changed() => changed,
        };
        changed.map_err(|_| PeerError::Closed)
    }
}

impl Peer {
    /// How the peer stands at the moment: relays, outbox, the last passes and conflicts. What was
    /// edited within the last moments may not be among the conflicts yet: [`Peer::indexed`] waits for
    /// it.
    pub fn overview(&self) -> Overview {
        self.watch_overview().now()
    }

    /// The same, now and from now on.
    pub fn watch_overview(&self) -> OverviewWatcher {
        OverviewWatcher {
            status: self.status(),
            relays: self.relays(),
            outbox: self.outbox_counts(),
            passes: self.0.outbox.passes.subscribe(),
            conflicts: self.0.index.is_on().then(|| self.0.index.conflicts.subscribe()),
            attachments: self.attachment_counts(),
            left_out: self.0.outbox.left_out.subscribe(),
        }
    }
}

/// How a document stands with relays: see [`Document::standing`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// All of its changes were made since the first that no relay confirmed: nobody else has it, as
    /// far as is known here.
    LocalOnly {
        /// When the first edit was made that is not confirmed, milliseconds since 1970.
        since_ms: u64,
    },
    /// There are changes here that no relay confirmed.
    Ahead {
        /// When the first edit was made that is not confirmed, milliseconds since 1970.
        since_ms: u64,
    },
    /// A relay has all that is here.
    Confirmed,
    /// A relay has all that is here, and told of changes that are not here yet.
    Behind,
    /// A relay refused changes, or the document cannot be read here: it says which.
    Stuck(OutboxState),
}

/// What a relay means when it says that it has something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Acknowledged {
    /// It has received it. Relays that do not speak `concord.v1` say no more than that.
    Applied,
    /// It has it on its disk: all that one of `concord.v1` names.
    Durable,
}

impl Document {
    /// How the document stands with relays, as far as they said: while none is connected, others
    /// may have changed it.
    ///
    /// # Errors
    /// [`FindError`] if the document cannot be read.
    pub async fn standing(&self) -> Result<Standing, FindError> {
        let outbox = self.peer().outbox().await.map_err(|_| FindError::Closed)?;
        let Some(entry) = outbox.into_iter().find(|entry| entry.document == *self.id()) else {
            let is_behind = self.held().is_behind();
            return Ok(if is_behind { Standing::Behind } else { Standing::Confirmed });
        };
        let since_ms = entry.since_ms;
        if !matches!(entry.state, OutboxState::Pending | OutboxState::Sending) {
            return Ok(Standing::Stuck(entry.state));
        }
        let since_s = i64::try_from(since_ms / 1_000).unwrap_or(i64::MAX);
        let is_old = |time_s: i64| time_s < since_s.saturating_sub(SLACK_S);
        let has_old = self
            .read(|doc| doc.get_changes_meta(&[]).iter().any(|change| is_old(change.timestamp)))?;
        Ok(if has_old || self.held().is_known_to_relays() {
            Standing::Ahead { since_ms }
        } else {
            Standing::LocalOnly { since_ms }
        })
    }
}

/// What the outbox tells programs.
#[derive(Default)]
pub(super) struct Board {
    pub(super) counts: watch::Sender<OutboxCounts>,
    pub(super) passes: watch::Sender<Passes>,
    /// See [`Overview::left_out`].
    pub(super) left_out: watch::Sender<usize>,
    /// Stored documents that relays are told of before others, where they take no more.
    pub(super) preferred: watch::Sender<BTreeSet<DocumentId>>,
    /// The relay that answers calls.
    pub(super) partner: watch::Sender<Option<Partner>>,
    /// Says how many bytes went and came; nobody does in a simulation.
    pub(super) meter: OnceLock<Meter>,
}

/// See [`Board::meter`].
pub(super) type Meter = Arc<dyn Fn() -> Bytes + Send + Sync>;

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Board {
    pub(super) fn bytes(&self) -> Bytes {
        self.meter.get().map(|meter| meter()).unwrap_or_default()
    }
}
