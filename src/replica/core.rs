//! What all documents of a replica share: connections, timers, tickets, and the way out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use concord_protocol::{
    CloseCode, DocumentId, Message, PeerId, RefuseCode, SessionId, StorageId, codec,
};

use super::{
    Config, ConnectionId, Counted, Effect, Now, PRESENT_MS, PeerInfo, Ticket, leases::Leases,
    presence::Heard,
};

/// The part of the bytes that may be queued for a connection at which no more document messages
/// are made for it. What is not made stays to be made: it collapses into one message later.
const QUEUE_SOFT_PART: usize = 8;

/// Bytes of presence that may be queued for a connection beyond the documents: four messages of the
/// largest size.
const PRESENCE_BYTES: usize = 256 * 1024;

/// Uploads that a replica has opened at once; each may hold a whole document in memory.
const UPLOADS_AT_ONCE: usize = 16;

/// Sessions whose last ephemeral count is remembered, a connection.
const SESSIONS_MAX: usize = 64;

/// Documents in which a connection is remembered to have shown itself.
const PRESENT_MAX: usize = 64;

/// One connection, as this replica sees it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) info: PeerInfo,
    /// Documents it is subscribed to.
    pub(super) documents: BTreeSet<DocumentId>,
    /// Documents with something to say that found no room.
    pub(super) held_back: BTreeSet<DocumentId>,
    /// Stores of whose heads it wants to hear.
    pub(super) remotes: BTreeSet<StorageId>,
    /// The last count of each session of ephemeral messages that came over it.
    sessions: VecDeque<(SessionId, u64)>,
    /// Where it showed itself, and when last, in `mono_ms`.
    present: Vec<(DocumentId, u64)>,
    /// Bytes sent and not yet drained.
    pub(super) queued_bytes: usize,
    /// Bytes of those that were sent when there was no room any more.
    behind_bytes: usize,
    pub(super) closing: bool,
}

/// Why a document wants to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wake {
    /// To name new durable heads to readers.
    Confirm,
    /// To tell askers that what they wait for has not arrived.
    Arrival,
    /// To have the changes since the last check materialised.
    Check,
    /// To ask servers that do not say what they have.
    Silence,
    /// To leave memory.
    Idle,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) now: Now,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    /// Those that have no room, and since when they have made none. Few of many thousands, which
    /// are not looked at for every event.
    full_since_ms: BTreeMap<ConnectionId, u64>,
    pub(super) draining: bool,
    /// Documents of which nothing is said for now.
    pub(super) held: BTreeSet<DocumentId>,
    /// Background jobs at work.
    pub(super) jobs: usize,
    /// Documents that could not start a background job for want of room.
    job_queue: BTreeSet<DocumentId>,
    /// Uploads being opened.
    uploads: usize,
    /// Documents with uploads that wait to be opened.
    upload_queue: VecDeque<DocumentId>,
    /// Documents with messages to make.
    pub(super) dirty: BTreeSet<DocumentId>,
    out: VecDeque<Effect>,
    tickets: BTreeMap<Ticket, DocumentId>,
    next_ticket: u64,
    timers: BTreeSet<(u64, DocumentId, Wake)>,
    timer_set_ms: Option<u64>,
    pub(super) leases: Leases,
    pub(super) heard: Heard,
}

impl Core {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            now: Now::default(),
            connections: BTreeMap::new(),
            full_since_ms: BTreeMap::new(),
            draining: false,
            held: BTreeSet::new(),
            jobs: 0,
            job_queue: BTreeSet::new(),
            uploads: 0,
            upload_queue: VecDeque::new(),
            dirty: BTreeSet::new(),
            out: VecDeque::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            timers: BTreeSet::new(),
            timer_set_ms: None,
            leases: Leases::default(),
            heard: Heard::default(),
        }
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.out.push_back(effect);
    }

    pub(super) fn next_effect(&mut self) -> Option<Effect> {
        self.out.pop_front()
    }

    pub(super) fn count(&mut self, counted: Counted) {
        self.out.push_back(Effect::Count(counted));
    }

    /// A ticket whose answer goes to this document.
    pub(super) fn ticket(&mut self, document: &DocumentId) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert(ticket, document.clone());
        ticket
    }

    /// Whose ticket it is; a ticket is answered once.
    pub(super) fn redeem(&mut self, ticket: Ticket) -> Option<DocumentId> {
        self.tickets.remove(&ticket)
    }

    /// Whether a background job may start; the document is woken later if not.
    pub(super) fn take_job_slot(&mut self, document: &DocumentId) -> bool {
        let free = self.jobs < self.config.jobs;
        if free {
            self.jobs += 1;
        } else {
            mark!(SlotAwaited);
            self.job_queue.insert(document.clone());
        }
        free
    }

    pub(super) fn free_job_slot(&mut self) {
        if mutant!(LeakJobSlot, every 10) {
            return;
        }
        self.jobs = self.jobs.saturating_sub(1);
        if let Some(next) = self.job_queue.pop_first() {
            self.wake_at(self.now.mono_ms, &next, Wake::Check);
        }
    }

    /// Whoever was woken for a slot may not have wanted it any more: the next one is woken.
    pub(super) fn pass_on(&mut self) {
        if self.jobs < self.config.jobs
            && let Some(next) = self.job_queue.pop_first()
        {
            self.wake_at(self.now.mono_ms, &next, Wake::Check);
        }
        if self.uploads < UPLOADS_AT_ONCE
            && let Some(next) = self.upload_queue.pop_front()
        {
            self.wake_at(self.now.mono_ms, &next, Wake::Check);
        }
    }

    /// Whether an upload may be opened now; the document is woken later if not.
    pub(super) fn take_upload_slot(&mut self, document: &DocumentId) -> bool {
        let free = self.uploads < UPLOADS_AT_ONCE;
        if free {
            self.uploads += 1;
        } else {
            self.upload_queue.push_back(document.clone());
        }
        free
    }

    pub(super) fn free_upload_slot(&mut self) {
        self.uploads = self.uploads.saturating_sub(1);
        if let Some(next) = self.upload_queue.pop_front() {
            self.wake_at(self.now.mono_ms, &next, Wake::Check);
        }
    }

    pub(super) fn wake_at(&mut self, at_ms: u64, document: &DocumentId, wake: Wake) {
        self.timers.insert((at_ms, document.clone(), wake));
    }

    /// The next timer that is due.
    pub(super) fn due(&mut self) -> Option<(DocumentId, Wake)> {
        let (at_ms, _, _) = self.timers.first()?;
        if *at_ms > self.now.mono_ms {
            return None;
        }
        self.timers.pop_first().map(|(_, document, wake)| (document, wake))
    }

    /// Asks to be woken for what is due first, if that was not asked already.
    pub(super) fn arm(&mut self) -> Option<Effect> {
        let wake = self.timers.first().map(|(at_ms, _, _)| *at_ms);
        let stalled = self.full_since_ms.values().map(|since_ms| self.stalled_at(*since_ms)).min();
        let at_ms = wake.into_iter().chain(stalled).chain(self.leases.next_ms()).min()?;
        if self.timer_set_ms.is_some_and(|set| set <= at_ms && set > self.now.mono_ms) {
            return None;
        }
        self.timer_set_ms = Some(at_ms);
        Some(Effect::SetTimer(at_ms))
    }

    pub(super) fn timer_fired(&mut self) {
        self.timer_set_ms = None;
    }

    pub(super) fn connect(&mut self, connection: ConnectionId, info: PeerInfo) {
        self.connections.insert(
            connection,
            Connection {
                info,
                documents: BTreeSet::new(),
                held_back: BTreeSet::new(),
                remotes: BTreeSet::new(),
                sessions: VecDeque::new(),
                present: Vec::new(),
                queued_bytes: 0,
                behind_bytes: 0,
                closing: false,
            },
        );
    }

    /// Forgets a connection that is gone; gives what was known of it.
    pub(super) fn disconnect(&mut self, connection: ConnectionId) -> Option<Connection> {
        self.full_since_ms.remove(&connection);
        self.leases.disconnected(self.now.mono_ms, connection);
        self.connections.remove(&connection)
    }

    /// The peer at the other end, while it is there and we still speak to it.
    pub(super) fn peer(&self, connection: ConnectionId) -> Option<&PeerId> {
        let connection = self.connections.get(&connection)?;
        (!connection.closing).then_some(&connection.info.peer)
    }

    /// Whether a document message may be made for it now.
    pub(super) fn has_room(&self, connection: ConnectionId) -> bool {
        !self.draining
            && self.connections.get(&connection).is_some_and(|connection| {
                !connection.closing && connection.queued_bytes < self.queue_soft_bytes()
            })
    }

    /// Whether an ephemeral message may be made for it now. It passes the documents that wait, so it
    /// has room of its own behind theirs.
    pub(super) fn has_room_for_presence(&self, connection: ConnectionId) -> bool {
        !self.draining
            && self.connections.get(&connection).is_some_and(|connection| {
                let most = self.queue_soft_bytes() + PRESENCE_BYTES;
                !connection.closing && connection.queued_bytes < most
            })
    }

    fn queue_soft_bytes(&self) -> usize {
        self.config.limits.queue_bytes / QUEUE_SOFT_PART
    }

    /// Bytes sent and not yet drained, all connections.
    pub(super) fn queued_bytes(&self) -> usize {
        self.connections.values().map(|connection| connection.queued_bytes).sum()
    }

    pub(super) fn send(&mut self, connection: ConnectionId, frame: Bytes) {
        let soft_bytes = self.queue_soft_bytes();
        let Some(state) = self.connections.get_mut(&connection) else {
            return;
        };
        if state.closing || mutant!(LoseMessage, every 50) {
            return;
        }
        // One message may be larger than the queue, and what is said behind it has its own room:
        // a reader on a slow line could never take a large document otherwise.
        if state.queued_bytes >= soft_bytes {
            state.behind_bytes += frame.len();
        }
        let over = state.behind_bytes > self.config.limits.queue_bytes - soft_bytes;
        state.queued_bytes += frame.len();
        if state.queued_bytes >= soft_bytes {
            self.full_since_ms.entry(connection).or_insert(self.now.mono_ms);
        }
        self.out.push_back(Effect::Send(connection, frame));
        if over {
            mark!(FullClosed);
            self.close(connection, CloseCode::Backpressure, "does not read what it subscribed to");
        }
    }

    pub(super) fn send_message(&mut self, connection: ConnectionId, message: &Message) {
        self.send(connection, codec::encode(message));
    }

    pub(super) fn close(&mut self, connection: ConnectionId, code: CloseCode, reason: &str) {
        if let Some(state) = self.connections.get_mut(&connection)
            && !state.closing
        {
            state.closing = true;
            self.full_since_ms.remove(&connection);
            self.out.push_back(Effect::Close(connection, code, reason.to_owned()));
        }
    }

    /// Takes note that bytes have left; gives the documents that may go on now.
    pub(super) fn drained(
        &mut self,
        connection: ConnectionId,
        bytes: usize,
    ) -> BTreeSet<DocumentId> {
        let soft_bytes = self.queue_soft_bytes();
        let Some(state) = self.connections.get_mut(&connection) else {
            return BTreeSet::new();
        };
        state.queued_bytes = state.queued_bytes.saturating_sub(bytes);
        if state.queued_bytes < soft_bytes {
            state.behind_bytes = 0;
            self.full_since_ms.remove(&connection);
            mark!(Resumed, if !state.held_back.is_empty());
            return std::mem::take(&mut state.held_back);
        }
        // Some progress: the reader is slow, not gone.
        if let Some(since_ms) = self.full_since_ms.get_mut(&connection) {
            *since_ms = self.now.mono_ms;
        }
        BTreeSet::new()
    }

    /// Closes connections that have had no room, and made none, for too long.
    pub(super) fn close_stalled(&mut self) {
        let stalled: Vec<ConnectionId> = self
            .full_since_ms
            .iter()
            .filter(|(_, since_ms)| self.stalled_at(**since_ms) <= self.now.mono_ms)
            .map(|(connection, _)| *connection)
            .collect();
        for connection in stalled {
            mark!(StalledClosed);
            self.close(
                connection,
                CloseCode::Backpressure,
                "stopped reading what it subscribed to",
            );
        }
    }

    /// When a connection is cut off that has had no room since then; never at once.
    fn stalled_at(&self, since_ms: u64) -> u64 {
        since_ms.saturating_add(self.config.stalled_ms.max(1))
    }

    /// Whether an ephemeral message is newer than all before it of its session.
    pub(super) fn fresh_ephemeral(
        &mut self,
        connection: ConnectionId,
        session: &SessionId,
        count: u64,
    ) -> bool {
        let Some(state) = self.connections.get_mut(&connection) else {
            return false;
        };
        if let Some((_, last)) = state.sessions.iter_mut().find(|(known, _)| known == session) {
            let fresh = count > *last || mutant!(RepeatPresence);
            *last = count.max(*last);
            return fresh;
        }
        if state.sessions.len() >= SESSIONS_MAX {
            state.sessions.pop_front();
        }
        state.sessions.push_back((session.clone(), count));
        true
    }

    /// A connection showed itself in a document.
    pub(super) fn showed_itself(&mut self, connection: ConnectionId, document: &DocumentId) {
        let now_ms = self.now.mono_ms;
        let Some(state) = self.connections.get_mut(&connection) else {
            return;
        };
        if let Some((_, at_ms)) = state.present.iter_mut().find(|(there, _)| there == document) {
            *at_ms = now_ms;
            return;
        }
        if state.present.len() >= PRESENT_MAX {
            state.present.remove(0);
        }
        state.present.push((document.clone(), now_ms));
    }

    /// In how many documents a connection is.
    pub(super) fn present(&self, state: &Connection) -> usize {
        let is_there = |at_ms: u64| at_ms.saturating_add(PRESENT_MS) > self.now.mono_ms;
        state.present.iter().filter(|(_, at_ms)| is_there(*at_ms)).count()
    }

    /// Tells a writer that something of it was not taken.
    pub(super) fn refuse(
        &mut self,
        connection: ConnectionId,
        document: &DocumentId,
        refused: concord_protocol::Refused,
        durable: Vec<concord_protocol::ChangeHash>,
    ) {
        if self.connections.get(&connection).is_some_and(|state| state.info.concord) {
            return self.refuse_all(connection, document, vec![refused], durable);
        }
        self.count(Counted::ChangeRefused(refused.code));
        let Some(state) = self.connections.get(&connection) else {
            return;
        };
        if mutant!(RefuseSilently) {
            return;
        }
        let peer = &state.info.peer;
        // Each of these costs whoever sends it nothing: too many for a log by default.
        tracing::debug!(%document, %peer, code = refused.code.as_str(), refused.reason, "refused");
        let (sender, target) = (self.config.us.clone(), state.info.peer.clone());
        let what = refused.hash.map_or_else(|| "what you sent".to_owned(), |hash| hash.to_string());
        let (code, reason) = (refused.code.as_str(), refused.reason);
        let message = format!("automerge:{document}: {what} was refused ({code}): {reason}");
        self.send_message(connection, &Message::Error { sender, target, message });
    }

    /// The same in one message, to a writer that speaks `concord.v1`.
    pub(super) fn refuse_all(
        &mut self,
        connection: ConnectionId,
        document: &DocumentId,
        refused: Vec<concord_protocol::Refused>,
        durable: Vec<concord_protocol::ChangeHash>,
    ) {
        for refused in &refused {
            self.count(Counted::ChangeRefused(refused.code));
        }
        let Some(state) = self.connections.get(&connection) else {
            return;
        };
        if refused.is_empty() || mutant!(RefuseSilently) {
            return;
        }
        let (sender, target) = (self.config.us.clone(), state.info.peer.clone());
        for concord_protocol::Refused { code, reason, .. } in &refused {
            tracing::debug!(%document, peer = %target, code = code.as_str(), reason, "refused");
        }
        let document = document.clone();
        let ack = concord_protocol::Ack { applied: durable.clone(), durable, refused };
        self.send_message(connection, &Message::Ack { document, sender, target, ack });
    }

    /// Closes a connection that broke the protocol.
    pub(super) fn bad_message(&mut self, connection: ConnectionId, reason: &str) {
        self.count(Counted::BadMessage);
        self.close(connection, CloseCode::Protocol, reason);
    }
}

/// A refusal of one change.
pub(super) fn refused(
    hash: Option<concord_protocol::ChangeHash>,
    code: RefuseCode,
    reason: impl Into<String>,
) -> concord_protocol::Refused {
    concord_protocol::Refused { hash, code, reason: reason.into() }
}
