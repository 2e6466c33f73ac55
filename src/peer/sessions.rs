//! What the core says of leases and of who is here, and where it puts what it hears.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use concord_protocol::{Message, PeerId, SessionId, SessionInfo, codec};

use super::{
    core::{Action, Core},
    lease,
    presence::Roster,
};
use crate::replica::{ConnectionId, Event};

/// Who we are to others, and who they are to us.
#[derive(Debug)]
pub(super) struct Sessions {
    pub(super) roster: Roster,
    us: PeerId,
    /// Those that are connected.
    pub(super) relays: BTreeMap<ConnectionId, PeerId>,
    /// The numbers of what we say of ourselves go on by themselves: those of programs' own messages
    /// are of another run of numbers.
    run: Option<SessionId>,
    count: u64,
}

impl Sessions {
    /// Of a peer that is this, which has a new name in every run.
    pub(super) fn new(us: PeerId, who: Option<&SessionInfo>) -> Self {
        let run = who.and_then(|_| format!("{us}-presence").parse().ok());
        Self { roster: Roster::default(), us, relays: BTreeMap::new(), run, count: 0 }
    }
}

impl Core {
    /// Says what there is to say, and tells documents what was heard. Whether anything was said.
    pub(super) fn say_who_is_here(&mut self) -> bool {
        let (said, changed) = self.leases.take_said();
        let mut has_said = !said.is_empty();
        for (over, document, request) in said {
            let sender = self.sessions.us.clone();
            if let Some(target) = self.sessions.relays.get(&over).cloned() {
                let message = Message::Lease { document, sender, target, request };
                self.push(Action::Say(over, codec::encode(&message)));
            }
        }
        for document in changed {
            if let Some(held) = self.find(&document) {
                lease::tell(&held, self.leases.other(&document));
            }
        }
        has_said |= self.leases.tell_programs();
        let (said, changed) = self.sessions.roster.take();
        has_said |= !said.is_empty();
        for (document, said) in said {
            let Some(session) = self.sessions.run.clone() else { break };
            self.sessions.count += 1;
            let (count, data) = (self.sessions.count, said.write());
            self.handle(Event::Broadcast { document, count, session, data });
        }
        for document in changed {
            if let Some(held) = self.find(&document) {
                held.present.send_replace(self.sessions.roster.present(&document));
            }
        }
        has_said
    }

    /// When leases or presence want to be told of the time, in `mono_ms`.
    pub(super) fn sessions_wake_at(&self) -> Option<u64> {
        self.leases.wakes_at().into_iter().chain(self.sessions.roster.wakes_at()).min()
    }
}
