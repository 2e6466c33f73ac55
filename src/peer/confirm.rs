//! Waiting until relays have what is here.

use std::{collections::BTreeMap, time::Duration};

use concord_protocol::{DocumentId, RefuseCode};
use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};

use super::{
    AttachmentCounts, ConfirmError, Document, FindError, OutboxEntry, OutboxState, Peer, Refusal,
    RelayState, RelayStatus, Status, held::Held, replace, standing,
};

/// Documents waited for at once: each is in memory meanwhile.
const AT_ONCE: usize = 32;

/// How often the outbox is looked into for what is refused.
const LOOK: Duration = Duration::from_millis(200);

/// Waits for one document.
pub(super) async fn one(peer: &Peer, held: &Held, deadline: Instant) -> Result<(), ConfirmError> {
    // What was refused before this is not refused again.
    let refused = watch::Sender::new(BTreeMap::new());
    let waited = tokio::select! {
        waited = unless_refused(peer, held, deadline, refused.subscribe()) => waited,
        () = look_for_refusals(peer, &refused) => Err(ConfirmError::Closed),
    };
    match waited {
        Err(error @ ConfirmError::TimedOut { .. }) => {
            Err(stuck(peer, Some(&held.id)).await.unwrap_or(error))
        }
        waited => waited,
    }
}

/// Waits until a document is confirmed, or the relay refuses something of it.
async fn unless_refused(
    peer: &Peer,
    held: &Held,
    deadline: Instant,
    mut refused: watch::Receiver<Refusals>,
) -> Result<(), ConfirmError> {
    let mut confirmations = held.confirmations();
    loop {
        confirmations.borrow_and_update();
        let refusal = refused.borrow_and_update().get(&held.id).cloned().or_else(|| {
            let Refusal { code, reason } = held.refusal()?;
            Some((code, reason))
        });
        if let Some(error) = broken(held) {
            return Err(error);
        }
        if held.confirmed() {
            return Ok(());
        }
        if let Some((code, reason)) = refusal {
            return Err(ConfirmError::Refused { document: held.id.clone(), code, reason });
        }
        let news = async {
            tokio::select! {
                changed = confirmations.changed() => changed.is_ok(),
                changed = refused.changed() => changed.is_ok(),
                () = peer.0.engine.closed() => false,
            }
        };
        match timeout_at(deadline, news).await {
            Ok(true) => {}
            Ok(false) => return Err(ConfirmError::Closed),
            Err(_) => return Err(timed_out(peer, 1, 1)),
        }
    }
}

fn is_one_online(peer: &Peer) -> bool {
    let is_online = |relay: &&RelayStatus| relay.state == RelayState::Online;
    peer.relays().borrow().iter().filter(is_online).count() == 1
}

/// Waits until the outbox is empty.
pub(super) async fn outbox(peer: &Peer, deadline: Instant) -> Result<(), ConfirmError> {
    peer.sync_now();
    let known = timeout_at(deadline, peer.outbox_is_known()).await;
    let list = match known {
        // What was edited before this call is taken in before this question.
        Ok(Ok(())) => peer.list_outbox().await.map_err(|_| ConfirmError::Closed)?,
        Ok(Err(_)) => return Err(ConfirmError::Closed),
        Err(_) => return Err(timed_out(peer, 0, 0)),
    };
    let total = list.len();
    let mut counts = peer.outbox_counts();
    let waited = async {
        tokio::select! {
            waited = counts.wait_for(|counts| counts.waiting() == 0) => waited.is_ok(),
            () = peer.0.engine.closed() => false,
        }
    };
    match timeout_at(deadline, waited).await {
        Ok(true) => {}
        Ok(false) => return Err(ConfirmError::Closed),
        Err(_) => {
            let waiting = peer.outbox_counts().borrow().waiting();
            return Err(timed_out(peer, waiting, total.max(waiting)));
        }
    }
    // What is there besides was edited since.
    stuck(peer, None).await.map_or(Ok(()), Err)
}

/// Waits until a relay has all attachments.
pub(super) async fn attachments(peer: &Peer, deadline: Instant) -> Result<(), ConfirmError> {
    let mut counts = peer.attachment_counts();
    let over = |counts: &AttachmentCounts| counts.is_complete && counts.waiting == counts.refused;
    let waited = async {
        tokio::select! {
            waited = counts.wait_for(over) => waited.is_ok(),
            () = peer.0.engine.closed() => false,
        }
    };
    let waited = timeout_at(deadline, waited).await;
    let now = peer.attachment_counts().borrow().clone();
    match waited {
        Ok(false) => Err(ConfirmError::Closed),
        Ok(true) if now.waiting == 0 => Ok(()),
        _ => {
            let reason = now.reason.unwrap_or_else(|| {
                let (is_online, reason) = standing(&peer.status().borrow());
                let is_spoken_of = peer.0.attachments.lines.current().is_some();
                if is_online && !is_spoken_of {
                    format!("{reason}, which keeps no attachments")
                } else {
                    reason
                }
            });
            Err(ConfirmError::Attachments { pending: now.waiting, reason })
        }
    }
}

/// Waits for all that are stored.
pub(super) async fn all(
    peer: &Peer,
    deadline: Instant,
    mut progress: impl FnMut(usize, usize),
) -> Result<(), ConfirmError> {
    let documents = peer.documents().await.map_err(|_| ConfirmError::Closed)?;
    peer.sync_now();
    let total = documents.len();
    progress(0, total);
    let mut status = peer.status();
    // Not what is waited for, which would keep the status from being told of.
    let online = async { status.wait_for(Status::is_online).await.is_ok() };
    let is_online = timeout_at(deadline, online).await == Ok(true);
    if total > 0 && !is_online {
        // What is open and cannot be used may have edits that are on no disk.
        let broken = peer.0.registry.all().iter().find_map(|held| broken(held));
        return Err(broken.unwrap_or_else(|| timed_out(peer, total, total)));
    }
    // What was refused before its turn came is not refused again.
    let refused = watch::Sender::new(BTreeMap::new());
    let waits = async {
        let mut waits = stream::iter(documents)
            .map(|document| confirmed(peer, document, deadline, refused.subscribe()))
            .buffer_unordered(AT_ONCE);
        let (mut done, mut pending, mut broken) = (0, 0, None);
        while let Some(outcome) = waits.next().await {
            match outcome {
                Ok(()) => done += 1,
                Err(ConfirmError::TimedOut { .. }) => pending += 1,
                Err(ConfirmError::Closed) => return Err(ConfirmError::Closed),
                // The others go on; what is broken is said at the end.
                Err(error) => broken = Some(error),
            }
            progress(done, total);
        }
        match broken {
            Some(error) => Err(error),
            None if pending == 0 => Ok(()),
            None => Err(stuck(peer, None).await.unwrap_or_else(|| timed_out(peer, pending, total))),
        }
    };
    tokio::select! {
        waited = waits => waited,
        () = look_for_refusals(peer, &refused) => Err(ConfirmError::Closed),
    }
}

/// Documents of which the relay that is connected refuses something, with what to say of each.
type Refusals = BTreeMap<DocumentId, (RefuseCode, String)>;

/// Looks for them now and then, until the peer is closed. Where there are several relays, another may
/// take what one refuses; and one that went may take it when it comes back.
async fn look_for_refusals(peer: &Peer, refused: &watch::Sender<Refusals>) {
    let counts = peer.outbox_counts();
    loop {
        sleep(LOOK).await;
        let may_be_some = counts.borrow().refused > 0 && is_one_online(peer);
        let list = if may_be_some { peer.list_outbox().await } else { Ok(Vec::new()) };
        let Ok(list) = list else { return };
        let now: Refusals = list
            .into_iter()
            .filter_map(|OutboxEntry { document, state, .. }| match state {
                OutboxState::Refused { code, reason, is_current: true, .. } => {
                    Some((document, (code, reason)))
                }
                _ => None,
            })
            .collect();
        replace(refused, now);
    }
}

/// What the outbox says of a document that is not going to be confirmed, or of the first such.
async fn stuck(peer: &Peer, of: Option<&DocumentId>) -> Option<ConfirmError> {
    let list = peer.list_outbox().await.ok()?;
    let mut list = list.into_iter().filter(|entry| of.is_none_or(|of| *of == entry.document));
    list.find_map(|OutboxEntry { document, state, .. }| match state {
        OutboxState::Refused { code, reason, .. } => {
            Some(ConfirmError::Refused { document, code, reason })
        }
        OutboxState::Failed { reason } => Some(ConfirmError::Broken { document, reason }),
        OutboxState::Pending | OutboxState::Sending => None,
    })
}

async fn confirmed(
    peer: &Peer,
    id: DocumentId,
    deadline: Instant,
    refused: watch::Receiver<Refusals>,
) -> Result<(), ConfirmError> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let document: Document = match peer.find_within(id.as_str(), left).await {
        Ok(document) => document,
        Err(FindError::Broken { document, reason }) => {
            return Err(ConfirmError::Broken { document, reason });
        }
        Err(FindError::Closed) => return Err(ConfirmError::Closed),
        Err(_) => return Err(timed_out(peer, 1, 1)),
    };
    unless_refused(peer, document.held(), deadline, refused).await
}

/// What to say of a document that cannot be used.
fn broken(held: &Held) -> Option<ConfirmError> {
    let reason = held.phase().borrow().reason()?.to_owned();
    Some(ConfirmError::Broken { document: held.id.clone(), reason })
}

fn timed_out(peer: &Peer, pending: usize, total: usize) -> ConfirmError {
    let (_, reason) = standing(&peer.status().borrow());
    ConfirmError::TimedOut { pending, total, reason }
}
