//! The task that brings attachments to relays, one after another, and removes what no document names.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use concord_protocol::BlobHash;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    AttachmentCounts,
    line::Lines,
    sweep::Sweeper,
    transfer::{self, TransferError},
};
use crate::{
    blobs::Shelf,
    peer::{locked, replace},
    replica::ConnectionId,
};

/// How long before a relay that could not take something is asked again.
const RETRY: Duration = Duration::from_secs(5);
/// How long before what could not be fetched ahead is tried again: who attached it may be offline.
const AHEAD_AGAIN: Duration = Duration::from_secs(30);
/// How often it is looked what may be removed, at least and at most.
const SWEEP_MIN: Duration = Duration::from_millis(200);
const SWEEP_MAX: Duration = Duration::from_hours(24);

/// What a peer has for its attachments.
#[derive(Debug)]
pub(in crate::peer) struct Desk {
    pub(in crate::peer) shelf: Arc<Shelf>,
    pub(in crate::peer) lines: Arc<Lines>,
    pub(in crate::peer) counts: watch::Sender<AttachmentCounts>,
    pub(in crate::peer) sweeper: Sweeper,
    /// What could not be brought over the line that is there.
    troubles: Mutex<BTreeMap<BlobHash, Trouble>>,
    counting: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Trouble {
    /// It will be no different if it is tried again there.
    is_final: bool,
    reason: String,
}

/// See the module.
pub(in crate::peer) struct Courier {
    desk: Arc<Desk>,
    /// For how long what no document names is kept.
    grace: Duration,
    /// The line that troubles are of.
    over: Option<ConnectionId>,
}

impl Courier {
    pub(in crate::peer) fn new(
        shelf: Shelf,
        lines: Arc<Lines>,
        sweeper: Sweeper,
        grace: Duration,
    ) -> (Arc<Desk>, Self) {
        let shelf = Arc::new(shelf);
        let desk = Arc::new(Desk {
            shelf,
            lines,
            counts: watch::Sender::default(),
            sweeper,
            troubles: Mutex::default(),
            counting: tokio::sync::Mutex::default(),
        });
        let courier = Self { desk: Arc::clone(&desk), grace, over: None };
        (desk, courier)
    }

    /// Runs until the peer is closed.
    pub(in crate::peer) async fn run(mut self) {
        let mut news = self.desk.lines.subscribe();
        let sweep_every = self.grace.clamp(SWEEP_MIN, SWEEP_MAX);
        let mut sweep_at = Instant::now() + sweep_every;
        let lines = Arc::clone(&self.desk.lines);
        if lines.is_ahead() {
            let mut closing = lines.subscribe();
            // What is changed from now on is told by the index.
            tokio::select! {
                named = self.desk.sweeper.named() => match named {
                    Ok(named) => lines.named(named),
                    Err(reason) => tracing::warn!(reason, "what to fetch ahead is not known"),
                },
                _ = closing.wait_for(|_| lines.is_closed()) => return,
            }
        }
        loop {
            news.borrow_and_update();
            if lines.is_closed() {
                return;
            }
            let again_at = {
                // Closing does not wait for what is under way: it goes on at the next start.
                let mut closing = lines.subscribe();
                tokio::select! {
                    again_at = self.bring_and_fetch() => again_at,
                    _ = closing.wait_for(|_| lines.is_closed()) => return,
                }
            };
            let until = again_at.map_or(sweep_at, |again_at| again_at.min(sweep_at));
            tokio::select! {
                changed = news.changed() => if changed.is_err() { return },
                () = sleep_until(until) => {}
            }
            if sweep_at <= Instant::now() {
                sweep_at = Instant::now() + sweep_every;
                let sweeping = self.desk.sweep(self.grace, false);
                let mut closing = lines.subscribe();
                tokio::select! {
                    swept = sweeping => if let Err(error) = swept {
                        tracing::warn!(%error, "attachments cannot be looked through");
                    },
                    _ = closing.wait_for(|_| lines.is_closed()) => return,
                }
            }
        }
    }

    /// Says when to try again what could not be done.
    async fn bring_and_fetch(&mut self) -> Option<Instant> {
        let again_at = self.bring().await;
        again_at.into_iter().chain(self.fetch_ahead().await).min()
    }

    /// Fetches what documents name, if that is wanted.
    async fn fetch_ahead(&self) -> Option<Instant> {
        let Desk { shelf, lines, .. } = &*self.desk;
        let mut is_missing = false;
        for hash in lines.wanted() {
            let is_whole = shelf.find(&hash).await.is_ok_and(|it| it.is_some_and(|it| it.is_whole));
            if !is_whole {
                let over = lines.current()?;
                let _turn = lines.turn(hash).await;
                if let Err(error) = transfer::fetch(lines, shelf, over, hash, |_, _| ()).await {
                    tracing::debug!(%hash, %error, "an attachment is fetched later");
                    is_missing = true;
                    continue;
                }
            }
            lines.is_here(&hash);
        }
        is_missing.then(|| Instant::now() + AHEAD_AGAIN)
    }

    /// Brings all that waits, if somebody takes it; says when to try again.
    async fn bring(&mut self) -> Option<Instant> {
        let desk = Arc::clone(&self.desk);
        let Desk { shelf, lines, counts, .. } = &*desk;
        desk.troubles().retain(|_, trouble| trouble.is_final);
        loop {
            let over = lines.current();
            if over != self.over {
                // Another relay may think otherwise.
                self.over = over;
                desk.troubles().clear();
            }
            let Some((hash, over)) = desk.count().await.zip(over) else {
                let is_for_later = desk.troubles().values().any(|trouble| !trouble.is_final);
                return is_for_later.then(|| Instant::now() + RETRY);
            };
            let progress = |bytes: u64| {
                counts.send_modify(|counts| counts.sent_bytes = bytes.min(counts.waiting_bytes));
            };
            let sent = match transfer::send(lines, shelf, over, hash, progress).await {
                Ok(()) => shelf.sent(&hash).await.map_err(TransferError::from),
                Err(error) => Err(error),
            };
            let Err(error) = sent else { continue };
            let is_final = error.is_final();
            if is_final {
                tracing::warn!(%hash, %error, "a relay refused an attachment");
            } else {
                tracing::debug!(%hash, %error, "an attachment is brought later");
            }
            // One that is too large for the room that is left keeps no other waiting.
            desk.troubles().insert(hash, Trouble { is_final, reason: error.to_string() });
        }
    }
}

impl Desk {
    /// Counts what waits, and gives the first that is not in trouble.
    pub(in crate::peer) async fn count(&self) -> Option<BlobHash> {
        // Whoever counts later has seen more.
        let _turn = self.counting.lock().await;
        let all = match self.shelf.list().await {
            Ok(all) => all,
            Err(error) => {
                tracing::error!(%error, "attachments cannot be listed");
                let reason = Some(error.to_string());
                self.counts.send_modify(|counts| counts.reason = reason);
                return None;
            }
        };
        let waiting = all.into_iter().filter(|(_, entry)| entry.is_whole && !entry.is_sent);
        let mut counts = AttachmentCounts { is_complete: true, ..AttachmentCounts::default() };
        let mut first = None;
        let troubles = self.troubles();
        for (hash, entry) in waiting {
            counts.waiting += 1;
            counts.waiting_bytes += entry.length;
            match troubles.get(&hash) {
                Some(trouble) => {
                    counts.refused += usize::from(trouble.is_final);
                    counts.reason = Some(trouble.reason.clone());
                }
                None => _ = first.get_or_insert(hash),
            }
        }
        drop(troubles);
        replace(&self.counts, counts);
        first
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeMap<BlobHash, Trouble>> {
        locked(&self.troubles)
    }
}
