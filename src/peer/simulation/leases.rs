//! Leases of a simulated peer, as programs hold them.

use std::collections::BTreeMap;

use concord_protocol::{DocumentId, LeaseAction};
use tokio::sync::oneshot;

use super::SimulatedPeer;
use crate::{
    peer::{
        LeaseError, LeaseStanding,
        core::Command,
        leases::{Answered, Granted},
    },
    replica::Now,
};

/// What a peer's program holds, and what it has asked for.
#[derive(Debug, Default)]
pub(super) struct Handles {
    held: BTreeMap<DocumentId, Granted>,
    asked: Vec<(DocumentId, oneshot::Receiver<Result<Answered, LeaseError>>)>,
}

impl SimulatedPeer {
    /// As [`crate::peer::Document::lease_with`], which waits for what comes of it:
    /// [`SimulatedPeer::holds`] says whether it was granted.
    pub fn lease(&mut self, now: Now, document: &DocumentId, takes_over: bool, for_ms: u32) {
        self.set(now);
        let action = if takes_over { LeaseAction::TakeOver } else { LeaseAction::Acquire };
        let (done, answered) = oneshot::channel();
        self.core.take(now, Command::Lease(document.clone(), action, for_ms, done));
        self.leases.asked.push((document.clone(), answered));
    }

    /// Drops the [`crate::peer::Lease`] of a document, if there is one.
    pub fn give_back(&mut self, now: Now, document: &DocumentId) {
        self.set(now);
        self.hear_of_leases();
        self.leases.held.remove(document);
    }

    /// Drops all of them, and stops waiting for those that were asked for.
    pub fn give_back_all(&mut self, now: Now) {
        self.set(now);
        self.leases = Handles::default();
    }

    /// The fence of the lease of a document, while [`crate::peer::Lease::is_held`].
    pub fn holds(&mut self, now: Now, document: &DocumentId) -> Option<u64> {
        self.hear_of_leases();
        let Granted { standing, term, .. } = self.leases.held.get(document)?;
        let is_held = *standing.borrow() == LeaseStanding::Held && term.until_ms() > now.mono_ms;
        is_held.then(|| term.fence())
    }

    fn hear_of_leases(&mut self) {
        let Handles { held, asked } = &mut self.leases;
        asked.retain_mut(|(document, answered)| match answered.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) | Ok(Err(_)) => false,
            Ok(Ok(answered)) => {
                held.extend(answered.granted.map(|granted| (document.clone(), granted)));
                false
            }
        });
    }
}
