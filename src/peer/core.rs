//! What a peer does, without a socket, a disk, a thread or a clock: what programs, relays and
//! the disk say goes in, what is to be done comes out. The engine does it in a program, a
//! simulation does it in virtual time.
//!
//! As with the replica: any number of [`Core::take`], then [`Core::poll`] until `None`.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use concord_protocol::{
    Call, ChangeHash, CloseCode, DocumentId, LeaseAction, Message, RefuseCode, codec,
};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::{
    applier::Task,
    call::{CallDone, CallError, Calls},
    content::Incoming,
    crowd::Crowd,
    event::DocumentEvent,
    held::Held,
    home::Home,
    leases::{Asked, Leases},
    listen::{Partners, Streams},
    listing::Listing,
    notes::Notes,
    outbox::{Outbox, OutboxEntry, Row},
    overview::{Acknowledged, Board},
    presence::Said,
    purge::Refusal,
    registry::Registry,
    replace,
    replacing::{Replacement, Replacing, letter_row},
    schedule::{Debounce, Schedule},
    schema::{Judged, Keeper, Schemas, Unread},
    sessions::Sessions,
};
use crate::{
    entity::Level,
    replica::{
        Config, ConnectionId, Counted, Effect, Event, Job, Leaving, LocalError, Now, Published,
        Replica, RowKey, RowWrite, StorageFailure, Ticket,
    },
};

/// Milliseconds that closing waits for writes under way and for relays to say goodbye.
const CLOSE_MS: u64 = 5_000;

/// Refusals that are kept until it is known what was in the outbox. Beyond that they come again with
/// the next connection.
const EARLY_REFUSED_MAX: usize = 10_000;

/// Told when a local change is on disk, or is not going to be.
pub(super) type LocalDone = oneshot::Sender<Result<(), LocalError>>;

/// What the core is told.
#[derive(Debug)]
pub(super) enum Command {
    /// For the replica.
    Event(Event),
    /// A change made here.
    Local(Arc<Held>, Bytes, Level, LocalDone),
    /// The document with these heads is to go from the store.
    Purge(Arc<Held>, Vec<ChangeHash>, LocalDone),
    /// The same of one that is not deleted, unless something of it waits in the outbox. Whoever opens
    /// it from now on has another handle of it.
    Evict(Arc<Held>, Vec<ChangeHash>, LocalDone),
    /// The document is wanted here. Read it from the store, again if it was open.
    Open(DocumentId),
    /// Nobody has a handle of it any more, perhaps.
    Shut(DocumentId),
    /// Answers [`Action::List`]: documents in order; none: there are no more.
    Listed(ConnectionId, Result<Vec<DocumentId>, StorageFailure>),
    /// Ask a relay.
    Call(Call, CallDone),
    /// Ask the relay at the other end of this connection.
    CallOn(ConnectionId, Call, CallDone),
    /// Have it tell of events.
    Listen(ConnectionId, Call, mpsc::Sender<String>),
    /// Nobody waits for the answer to this call any more.
    HangUp(u32),
    /// Answers [`Action::Recall`]: the row that was kept last, if there is one.
    Recalled(Result<Option<Bytes>, StorageFailure>),
    /// Answers [`Action::Keep`].
    Kept(Result<(), StorageFailure>),
    /// The applier has looked at a schema.
    Judged(Judged),
    /// Answers [`Action::Note`].
    Noted(Option<DocumentId>, Result<(), StorageFailure>),
    /// Answers [`Action::Journal`].
    Journalled(Result<(), StorageFailure>),
    /// Answers [`Action::ReadNotes`].
    Notes(Result<Notes, StorageFailure>),
    /// Answers [`Action::ListForOutbox`]: documents in order; none: there are no more.
    Unnoted(Result<Vec<DocumentId>, StorageFailure>),
    /// A document is to be replaced by what it is without a change.
    Replace(Box<Replacement>),
    /// What relays refused of a document is to be sent once more.
    Retry(DocumentId),
    /// A change that was taken out of this document need not be kept any more.
    Forget(DocumentId, ChangeHash),
    /// What was refused?
    Letters(oneshot::Sender<Vec<(DocumentId, Row)>>),
    /// What is in the outbox?
    Outbox(oneshot::Sender<Vec<OutboxEntry>>),
    /// Ask a relay something about a lease; for how many milliseconds, if it is to be held.
    Lease(DocumentId, LeaseAction, u32, Asked),
    /// A handle of a lease is dropped.
    Unlease(DocumentId, u64),
    /// A lease is neither renewed nor given back any more.
    Leave(DocumentId),
    /// Who is in a document?
    Look(DocumentId),
    /// Show others this of us in a document.
    Show(DocumentId, Map<String, Value>),
    /// We are not in it any more.
    Hide(DocumentId),
    /// Give relays what they have not confirmed, without waiting for anything.
    SyncNow,
    /// End, and answer when all is on disk.
    Close(oneshot::Sender<()>),
}

/// What is to be done for the core.
#[derive(Debug)]
pub(super) enum Action {
    /// See [`Effect::Send`]. The connection may be gone.
    Send(ConnectionId, Bytes),
    /// See [`Effect::Close`]. The connection may be gone.
    Close(ConnectionId, CloseCode, String),
    /// End the connection and make another. It may be gone.
    Renew(ConnectionId),
    /// See [`Effect::Load`].
    Load(Ticket, DocumentId),
    /// See [`Effect::Read`].
    Read(Ticket, DocumentId, Vec<RowKey>),
    /// See [`Effect::Write`].
    Write(Ticket, DocumentId, Vec<RowWrite>),
    /// See [`Effect::Work`].
    Work(Ticket, DocumentId, Job),
    /// See [`Effect::SetTimer`].
    SetTimer(u64),
    /// See [`Effect::Count`].
    Count(Counted),
    /// List a page of the stored documents, those after this one, for this connection.
    List(ConnectionId, Option<DocumentId>),
    /// Send these bytes as one message. They are no document's, and are not reported as drained.
    Say(ConnectionId, Bytes),
    /// Read the row that [`Action::Keep`] wrote last.
    Recall,
    /// Write this row in place of the one before.
    Keep(Bytes),
    /// Write these of the outbox's rows, of a document or of all, before what is asked for after.
    Note(Option<DocumentId>, Vec<RowWrite>),
    /// Write these of the outbox's rows of a document, if any, and then this of those of all; answer
    /// when both are on disk.
    Journal(Option<(DocumentId, Vec<RowWrite>)>, RowWrite),
    /// Read a page of the outbox's rows, those of the documents after this one.
    ReadNotes(Option<DocumentId>),
    /// List a page of the stored documents, those after this one.
    ListForOutbox(Option<DocumentId>),
    /// Run this on the applier, after all that was given to it before.
    Apply(Task),
    /// Write this row of the index: the document says something else from now on.
    Mark(DocumentId, RowWrite),
}

/// See the module.
pub(super) struct Core {
    pub(super) replica: Replica,
    /// Of those that are on disk, how many relays are told of that nobody has open.
    pub(super) stored_max: usize,
    registry: Arc<Registry>,
    pub(super) now: Now,
    actions: VecDeque<Action>,
    /// Those that are there, and whether Concord's own messages are understood.
    pub(super) connections: BTreeMap<ConnectionId, bool>,
    calls: Calls,
    pub(super) leases: Leases,
    pub(super) sessions: Sessions,
    streams: Streams,
    partners: Partners,
    pub(super) board: Arc<Board>,
    keeper: Keeper,
    pub(super) outbox: Outbox,
    pub(super) schedule: Schedule,
    pub(super) crowd: Crowd,
    /// Those to whom the documents that are not in the outbox are still to be told of.
    pub(super) untold: BTreeSet<ConnectionId>,
    /// When documents that relays do not answer for are given once more, in `mono_ms`.
    pub(super) passes_at_ms: Option<u64>,
    /// It is on disk, or on its way there, that an outbox is kept.
    pub(super) has_marker: bool,
    /// What programs asked for, and relays refused, before it was known what was in the outbox: it
    /// changes rows that have to be read first.
    early: Vec<Command>,
    /// Documents with edits among those.
    early_edits: BTreeSet<DocumentId>,
    early_refused: Vec<(DocumentId, ChangeHash, RefuseCode, String)>,
    /// When the replica wants to be woken, and when somebody will be, in `mono_ms`.
    timer_ms: Option<u64>,
    armed_ms: Option<u64>,
    open: BTreeSet<DocumentId>,
    local: BTreeMap<Ticket, (Arc<Held>, LocalDone)>,
    /// Those of them that are documents which are to go.
    purging: BTreeSet<Ticket>,
    /// A document that is being replaced.
    pub(super) replacing: Option<Replacing>,
    /// A document that an earlier run began to replace: nothing is to be written to it.
    pub(super) unfinished: Option<DocumentId>,
    /// Documents that are gone, of which somebody still has a handle.
    purged: BTreeSet<DocumentId>,
    pub(super) listing: Listing,
    next_ticket: u64,
    /// Requests of the replica whose answers are still to come.
    under_way: usize,
    closing: Option<Closing>,
}

struct Closing {
    done: oneshot::Sender<()>,
    until_ms: u64,
}

impl Core {
    /// A core with nothing in memory. The documents of the registry tell it of themselves.
    pub(super) fn new(
        config: Config,
        registry: Arc<Registry>,
        schemas: Arc<Schemas>,
        board: Arc<Board>,
        debounce: Debounce,
    ) -> Self {
        let (us, who) = (config.us.clone(), config.metadata.session.clone());
        Self {
            sessions: Sessions::new(us, who.as_ref()),
            leases: Leases::new(who, registry.home().clone()),
            stored_max: Crowd::of_stored(config.limits.documents_per_connection),
            replica: Replica::new(config),
            registry,
            now: Now::default(),
            actions: VecDeque::new(),
            connections: BTreeMap::new(),
            calls: Calls::default(),
            streams: Streams::default(),
            partners: Partners::default(),
            keeper: Keeper::new(schemas),
            schedule: Schedule::new(debounce),
            crowd: Crowd::default(),
            untold: BTreeSet::new(),
            passes_at_ms: None,
            outbox: Outbox::new(Arc::clone(&board)),
            board,
            has_marker: false,
            early: Vec::new(),
            early_edits: BTreeSet::new(),
            early_refused: Vec::new(),
            timer_ms: None,
            armed_ms: None,
            open: BTreeSet::new(),
            local: BTreeMap::new(),
            purging: BTreeSet::new(),
            replacing: None,
            unfinished: None,
            purged: BTreeSet::new(),
            listing: Listing::default(),
            next_ticket: 0,
            under_way: 0,
            closing: None,
        }
    }

    /// The peer as its documents see it.
    pub(super) fn home(&self) -> &Home {
        self.registry.home()
    }

    /// Asks for what was kept: the schema, and the outbox.
    pub(super) fn recall(&mut self) {
        self.ask(Action::Recall);
        self.ask(Action::ReadNotes(None));
    }

    /// Takes in one command.
    #[allow(clippy::too_many_lines, reason = "an arm for each command, most of a line or two")]
    pub(super) fn take(&mut self, now: Now, command: Command) {
        self.now = now;
        match command {
            early @ (Command::Local(..) | Command::Purge(..) | Command::Evict(..))
                if !self.outbox.is_complete() =>
            {
                if let Command::Local(held, ..) = &early {
                    self.early_edits.insert(held.id.clone());
                }
                self.early.push(early);
            }
            // What is stored is read after what is about to be.
            Command::Open(document) if self.early_edits.contains(&document) => {
                self.early.push(Command::Open(document));
            }
            Command::Event(event) => self.event(event),
            Command::Local(held, _, _, done) if self.is_replacing(&held.id) => {
                Self::refuse_while_replacing(done);
            }
            Command::Local(held, change, level, done) => {
                let document = held.id.clone();
                let base = || held.relays_had();
                let note = self.outbox.edited(now, &document, level, base);
                self.note(note);
                self.rest(&document, level);
                let ticket = self.local_ticket(held, done);
                self.handle(Event::LocalChange(ticket, document, change));
            }
            Command::Evict(held, _, done) if self.outbox.has(&held.id) => {
                let reason = "something of it waits in the outbox".to_owned();
                // Who asked may have stopped waiting.
                let _ = done.send(Err(LocalError::NotPurged(reason)));
            }
            Command::Purge(held, heads, done) | Command::Evict(held, heads, done) => {
                let document = held.id.clone();
                let ticket = self.local_ticket(held, done);
                self.purging.insert(ticket);
                let leaving = Leaving::Nothing;
                self.handle(Event::Purge { ticket, document, heads, leaving });
            }
            Command::Open(document) => self.open(&document),
            Command::Shut(document) => {
                self.registry.forget(&document);
                if self.registry.find(&document).is_none() {
                    self.purged.remove(&document);
                    self.sessions.roster.shut(&document);
                    if !self.outbox.has(&document) {
                        self.crowd.freed();
                    }
                    if self.open.remove(&document) {
                        self.handle(Event::Shut(document.clone()));
                    }
                    self.let_be(&document);
                }
            }
            Command::Listed(connection, page) => self.listed(connection, page),
            Command::Call(call, done) => {
                let asked = self.partners.last().map(|partner| partner.connection);
                self.call(asked, call, done);
            }
            Command::CallOn(asked, call, done) => self.call(Some(asked), call, done),
            Command::Listen(asked, call, heard) => {
                // Where nobody can be asked, nothing is heard.
                if self.can_ask(asked) {
                    self.streams.began(call.id, asked, heard);
                    self.actions.push_back(Action::Say(asked, codec::encode(&Message::Call(call))));
                }
            }
            Command::HangUp(id) => {
                let asked = self.calls.given_up(id).or_else(|| self.streams.given_up(id));
                if let Some(asked) = asked {
                    let goodbye = codec::encode(&Message::HangUp { id });
                    self.actions.push_back(Action::Say(asked, goodbye));
                }
            }
            Command::Recalled(row) => {
                self.answered();
                let unread = self.keeper.recalled(row);
                self.look_at(unread);
            }
            Command::Kept(kept) => {
                self.answered();
                if let Err(error) = kept {
                    tracing::warn!(%error, "a schema is in force and not on disk");
                }
            }
            Command::Judged(judged) => {
                self.answered();
                let (row, next) = self.keeper.judged(judged);
                if let Some(row) = row {
                    self.ask(Action::Keep(row));
                }
                self.look_at(next);
            }
            Command::Noted(document, noted) => {
                self.answered();
                if let Err(error) = noted {
                    tracing::warn!(%error, "the outbox is not on disk");
                    match document {
                        Some(document) => self.outbox.not_noted(now, &document),
                        None => self.has_marker = false,
                    }
                }
            }
            Command::Journalled(result) => {
                self.answered();
                self.journalled(result);
            }
            Command::Notes(page) => {
                self.notes(page);
                self.take_early();
            }
            Command::Unnoted(page) => {
                self.unnoted(page);
                self.take_early();
            }
            // Who asked may have stopped waiting.
            Command::Letters(asked) => _ = asked.send(self.outbox.letters()),
            Command::Replace(replacement) => self.replace(*replacement),
            Command::Retry(document) => {
                let note = self.outbox.retried(&document);
                self.note(note);
                self.handle(Event::Resend(document));
            }
            Command::Forget(document, change) => {
                if let Some(note) = self.outbox.forgotten(&document, change) {
                    self.note(Some(note));
                    let row = RowWrite::Delete(letter_row(&change));
                    self.ask(Action::Note(Some(document), vec![row]));
                }
            }
            Command::Outbox(asked) => _ = asked.send(self.outbox.list()),
            Command::Lease(document, action, for_ms, done) => {
                self.leases.ask(now.mono_ms, document, action, for_ms, done);
            }
            Command::Unlease(document, holding) => {
                self.leases.dropped(now.mono_ms, &document, holding);
            }
            Command::Leave(document) => self.leases.left(&document),
            Command::Look(document) => self.sessions.roster.look(&document),
            Command::Show(document, shown) => {
                self.sessions.roster.show(now.mono_ms, &document, shown);
            }
            Command::Hide(document) => self.sessions.roster.hide(&document),
            Command::SyncNow => self.sync_now(),
            Command::Close(done) => self.close(done),
        }
    }

    /// Does what could not be done before it was known what was in the outbox.
    fn take_early(&mut self) {
        if !self.outbox.is_complete() {
            return;
        }
        for (document, hash, code, reason) in std::mem::take(&mut self.early_refused) {
            let note = self.outbox.refused(self.now, &document, (hash, code, &reason));
            self.note(note);
        }
        self.early_edits.clear();
        for command in std::mem::take(&mut self.early) {
            self.take(self.now, command);
        }
    }

    /// The next thing to do, in order.
    pub(super) fn poll(&mut self) -> Option<Action> {
        loop {
            if let Some(action) = self.actions.pop_front() {
                return Some(action);
            }
            if let Some(effect) = self.replica.poll_effect() {
                self.carry_out(effect);
                continue;
            }
            // What was just confirmed makes room for what waits.
            if self.say_who_is_here() || self.give() {
                continue;
            }
            let ours = [self.outbox.wakes_at(), self.gives_at(), self.sessions_wake_at()];
            let wakes_at = self.timer_ms.into_iter().chain(ours.into_iter().flatten()).min();
            if wakes_at == self.armed_ms {
                return None;
            }
            self.armed_ms = wakes_at;
            if let Some(at_ms) = wakes_at {
                return Some(Action::SetTimer(at_ms));
            }
        }
    }

    /// What is in memory.
    #[cfg(feature = "simulation")]
    pub(super) fn stats(&self) -> crate::replica::Stats {
        self.replica.stats()
    }

    /// When closing is over, whether or not all is done, in `mono_ms`.
    pub(super) fn closes_at(&self) -> Option<u64> {
        self.closing.as_ref().map(|closing| closing.until_ms)
    }

    /// Whether it was told to close, and has.
    pub(super) fn is_closed(&self, now: Now) -> bool {
        let idle = self.under_way == 0 && self.connections.is_empty();
        self.closes_at().is_some_and(|until_ms| idle || until_ms <= now.mono_ms)
    }

    /// Who is to be told that it has closed.
    pub(super) fn into_closer(self) -> Option<oneshot::Sender<()>> {
        self.closing.map(|closing| closing.done)
    }

    /// Whether all that was to be sent has left.
    pub(super) fn is_sent(&self) -> bool {
        self.replica.stats().queued_bytes == 0
    }

    pub(super) fn handle(&mut self, event: Event) {
        self.replica.handle(self.now, event);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connected(id, info) => {
                self.connections.insert(id, info.concord);
                if self.closing.is_some() {
                    self.part(id);
                    return;
                }
                self.keeper.connected(id, info.metadata.storage_id.clone());
                self.leases.connected(self.now.mono_ms, id, &info);
                self.sessions.relays.insert(id, info.peer.clone());
                if info.concord {
                    self.partners.came(id, info.metadata.storage_id.clone());
                }
                self.handle(Event::Connected(id, info));
                self.tell_partner();
                self.outbox.came(self.now);
                self.came(id);
                for held in self.registry.all() {
                    if self.purged.contains(&held.id) || self.is_leaving(&held.id) {
                        continue;
                    }
                    held.ask_again();
                    // What waits for its turn is told of then.
                    if !self.schedule.knows(&held.id) {
                        self.sync_with(id, &held.id);
                    }
                }
                self.sessions.roster.connected(self.now.mono_ms);
                return;
            }
            Event::Disconnected(id) => {
                self.connections.remove(&id);
                self.listing.end(id);
                self.went(id);
                self.outbox.went(self.now, self.connections.is_empty());
                self.keeper.disconnected(id);
                self.calls.lost(id);
                self.leases.disconnected(self.now.mono_ms, id);
                self.sessions.relays.remove(&id);
                self.streams.lost(id);
                self.partners.went(id);
                self.tell_partner();
            }
            Event::Received(id, message) => {
                if let Some(message) = self.received(id, message) {
                    self.handle(Event::Received(id, message));
                }
                return;
            }
            Event::Stored(ticket, _) => {
                self.answered();
                // What was told of before this is not after it.
                self.carry_out_all();
                let is_open = |id: &DocumentId| self.registry.find(id).is_some();
                self.registry.home().index().stored(ticket, is_open);
            }
            Event::Loaded(..) | Event::Read(..) | Event::WorkDone(..) => self.answered(),
            Event::TimerFired => {
                (self.timer_ms, self.armed_ms) = (None, None);
                self.let_go(false);
                self.leases.time(self.now.mono_ms);
                self.sessions.roster.time(self.now.mono_ms);
            }
            _ => {}
        }
        self.handle(event);
    }

    /// Takes what is between us and a relay, and is of no document; gives back the rest.
    fn received(&mut self, id: ConnectionId, message: Message) -> Option<Message> {
        if let Message::Ack { document, .. } | Message::Sync { document, .. } = &message {
            self.schedule.heard(document);
        }
        match message {
            _ if self.connections.get(&id) != Some(&true) => return Some(message),
            Message::Schema { hash, text } => {
                let unread = self.keeper.told(id, hash, text);
                self.look_at(unread);
            }
            Message::Answer(answer) => {
                if !self.streams.answered(id, &answer) {
                    self.calls.answered(id, answer);
                }
            }
            Message::LeaseState { document, state, .. } => {
                self.leases.told(self.now.mono_ms, id, &document, state);
                // What was written before this was heard goes before it is said to be known.
                self.rest(&document, Level::CRITICAL);
            }
            Message::HangUp { id: call } => self.streams.ended(id, call),
            Message::Event { id: call, data, .. } => {
                if self.streams.told(id, call, data) {
                    return None;
                }
                // Nobody listens.
                let goodbye = codec::encode(&Message::HangUp { id: call });
                self.actions.push_back(Action::Say(id, goodbye));
            }
            message => return Some(message),
        }
        None
    }

    /// Has the applier look at a schema.
    fn look_at(&mut self, unread: Option<Unread>) {
        let Some(unread) = unread else { return };
        self.under_way += 1;
        let home = self.registry.home().clone();
        let look = move || {
            // A peer that is gone needs none.
            home.tell(Command::Judged(unread.judge()));
        };
        self.actions.push_back(Action::Apply(Task::Call(Box::new(look))));
    }

    fn can_ask(&self, relay: ConnectionId) -> bool {
        self.closing.is_none() && self.connections.get(&relay) == Some(&true)
    }

    fn tell_partner(&self) {
        let partner = self.partners.last();
        replace(&self.board.partner, partner);
    }

    fn call(&mut self, asked: Option<ConnectionId>, call: Call, done: CallDone) {
        let Some(asked) = asked.filter(|asked| self.can_ask(*asked)) else {
            // Who asked may have stopped waiting.
            let _ = done.send(Err(CallError::Offline));
            return;
        };
        self.calls.made(call.id, asked, done);
        self.actions.push_back(Action::Say(asked, codec::encode(&Message::Call(call))));
    }

    /// A ticket for something that is asked of the replica as a program does.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn local_ticket(&mut self, held: Arc<Held>, done: LocalDone) -> Ticket {
        let ticket = self.ticket();
        self.local.insert(ticket, (held, done));
        ticket
    }

    /// A document, if somebody has a handle of it.
    pub(super) fn find(&self, document: &DocumentId) -> Option<Arc<Held>> {
        self.registry.find(document)
    }

    /// All documents of which somebody has a handle.
    pub(super) fn held(&self) -> Vec<Arc<Held>> {
        self.registry.all()
    }

    /// Has something done that is not answered.
    pub(super) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn answered(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    pub(super) fn ask(&mut self, action: Action) {
        self.under_way += 1;
        self.actions.push_back(action);
    }

    pub(super) fn open(&mut self, document: &DocumentId) {
        self.listing.came(document);
        if !self.open.insert(document.clone()) {
            self.handle(Event::Shut(document.clone()));
        }
        self.handle(Event::Open(document.clone()));
        self.find_room(document);
    }

    /// Whether a document is being purged.
    pub(super) fn is_leaving(&self, document: &DocumentId) -> bool {
        let mut leaving = self.purging.iter().filter_map(|ticket| self.local.get(ticket));
        leaving.any(|(held, _)| held.id == *document)
    }

    fn close(&mut self, done: oneshot::Sender<()>) {
        if self.closing.is_some() {
            return;
        }
        self.let_go(true);
        self.leases.close(self.now.mono_ms);
        self.sessions.roster.close();
        self.say_who_is_here();
        self.schedule.hurry();
        self.give();
        self.carry_out_all();
        let until_ms = self.now.mono_ms.saturating_add(CLOSE_MS);
        self.closing = Some(Closing { done, until_ms });
        let connections: Vec<_> = self.connections.keys().copied().collect();
        for id in connections {
            self.part(id);
        }
    }

    fn part(&mut self, from: ConnectionId) {
        self.actions.push_back(Action::Close(from, CloseCode::Normal, "closing".into()));
    }

    fn carry_out_all(&mut self) {
        while let Some(effect) = self.replica.poll_effect() {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Send(id, bytes) => self.actions.push_back(Action::Send(id, bytes)),
            Effect::Close(id, code, reason) => {
                self.actions.push_back(Action::Close(id, code, reason));
            }
            Effect::Load(ticket, document) => self.ask(Action::Load(ticket, document)),
            Effect::Read(ticket, document, rows) => self.ask(Action::Read(ticket, document, rows)),
            Effect::Write(ticket, document, writes) => {
                let mark = self.registry.home().index().writing(ticket, &document, &writes);
                self.actions.extend(mark.map(|row| Action::Mark(document.clone(), row)));
                self.ask(Action::Write(ticket, document, writes));
            }
            Effect::Work(ticket, document, job) => self.ask(Action::Work(ticket, document, job)),
            Effect::SetTimer(at_ms) => self.timer_ms = Some(at_ms),
            Effect::Count(counted) => self.actions.push_back(Action::Count(counted)),
            Effect::LocalDone(ticket, result) => self.local_done(ticket, result),
            Effect::Publish(document, published) => self.publish(&document, published),
        }
    }

    fn local_done(&mut self, ticket: Ticket, result: Result<(), LocalError>) {
        let Some(result) = self.replaced(ticket, result) else {
            return;
        };
        let Some((held, done)) = self.local.remove(&ticket) else {
            return;
        };
        let is_purge = self.purging.remove(&ticket);
        match &result {
            Ok(()) if is_purge => {
                held.fail("it was purged from this store");
                self.registry.home().index().gone(&held.id);
                self.listing.went(&held.id);
                let other = self.registry.find(&held.id);
                if other.is_some_and(|other| !Arc::ptr_eq(&other, &held)) {
                    // Somebody opened it meanwhile: it is asked for anew.
                    self.open(&held.id);
                    // Whoever made the change may have stopped waiting.
                    let _ = done.send(result);
                    return;
                }
                self.purged.insert(held.id.clone());
                self.open.remove(&held.id);
                self.give_up(&held.id);
                self.handle(Event::Shut(held.id.clone()));
                let note = self.outbox.forget(&held.id);
                self.note(note);
            }
            // Relays that came meanwhile were not told of it.
            Err(LocalError::NotPurged(_)) => {
                let was_told = |id: &ConnectionId| self.replica.follows(*id, &held.id);
                let untold: Vec<ConnectionId> =
                    self.connections.keys().copied().filter(|id| !was_told(id)).collect();
                for id in untold {
                    self.sync_with(id, &held.id);
                }
            }
            Ok(()) => {}
            Err(LocalError::Storage(reason)) => {
                self.outbox.failed(&held.id, Some(&reason.to_string()));
                held.fail(&reason.to_string());
                held.tell(|| DocumentEvent::Failed { reason: reason.to_string() });
            }
            Err(LocalError::Refused { .. }) => {
                // The content holds a change that nothing else has: back to what is stored.
                held.reset();
                self.open(&held.id);
                // The document is in the outbox for it: relays are asked whether for it alone.
                self.sync_again(&held.id);
            }
        }
        // Whoever made the change may have stopped waiting; it is on disk all the same.
        let _ = done.send(result);
    }

    fn publish(&mut self, document: &DocumentId, published: Published) {
        match &published {
            // It is read when that is over, and relays are asked again.
            Published::Opened(_) | Published::Confirmed if self.is_replacing(document) => return,
            Published::Confirmed => {
                if self.registry.find(document).is_none() {
                    self.crowd.freed();
                }
                self.schedule.done(document);
                let note = self.outbox.confirmed(self.now, document);
                self.note(note);
                self.let_be(document);
            }
            // What was taken back meanwhile is nobody's concern.
            Published::Refused { hash, .. }
                if self.is_going(document, hash)
                    || self.replica.holds(document, hash) == Some(false) =>
            {
                return;
            }
            // Those beyond are refused again at the next connection.
            Published::Refused { .. }
                if !self.outbox.is_complete() && self.early_refused.len() >= EARLY_REFUSED_MAX => {}
            Published::Refused { hash, code, reason } if !self.outbox.is_complete() => {
                let refused = (document.clone(), *hash, *code, reason.clone());
                self.early_refused.push(refused);
            }
            Published::Refused { hash, code, reason } => {
                self.schedule.done(document);
                let note = self.outbox.refused(self.now, document, (*hash, *code, reason));
                self.note(note);
            }
            Published::Unreadable(reason) => {
                self.schedule.done(document);
                self.outbox.failed(document, Some(reason));
            }
            Published::Opened(_) => self.outbox.failed(document, None),
            _ => {}
        }
        if let Published::Ephemeral { sender, data } = &published
            && let Some(said) = Said::read(data)
        {
            self.sessions.roster.heard(self.now.mono_ms, document, sender, said);
        }
        let Some(held) = self.registry.find(document) else {
            return;
        };
        match published {
            Published::Opened(_) if self.is_unfinished(document) => {
                held.fail("a change is half taken out of it, and the disk failed: start again");
            }
            Published::Opened(chunks) => {
                if self.outbox.is_complete() {
                    held.told_base(self.outbox.base(document));
                }
                if held.name(chunks.into_iter().map(Incoming::from).collect()) {
                    self.actions.push_back(Action::Apply(Task::Load(held)));
                }
            }
            Published::Changes(changes) => {
                self.put_in(held, changes.into_iter().map(Incoming::Change));
            }
            Published::Snapshot(chunk) => self.put_in(held, [Incoming::Snapshot(chunk)]),
            Published::Durable(heads) => {
                self.registry.home().index().durable(&held, &heads);
                held.tell(|| DocumentEvent::Durable { heads });
            }
            Published::RelayHas { connection, ack } => {
                let is_ours = self.connections.get(&connection) == Some(&true);
                let means = if is_ours { Acknowledged::Durable } else { Acknowledged::Applied };
                held.relay_has(connection, means, ack.durable);
            }
            Published::Confirmed => {}
            Published::Unavailable => {
                if !self.connections.is_empty() {
                    held.unavailable();
                }
            }
            Published::Refused { hash, code, reason } => {
                if code == RefuseCode::Deleted {
                    held.refused(Refusal { code, reason: reason.clone() });
                }
                held.tell(|| DocumentEvent::Refused { hash, code, reason });
            }
            Published::Quarantined(reason) => {
                // What is stored is named anew, without the change that is withheld.
                held.revive();
                self.open(document);
                held.tell(|| DocumentEvent::Withheld { reason });
            }
            Published::Damaged(reason) => {
                tracing::error!(%document, reason, "a part of a document is damaged");
                // What is shown may be more than is stored: back to what is left, which follows.
                held.reset();
                held.tell(|| DocumentEvent::Damaged { reason });
            }
            Published::Unreadable(reason) => {
                // It is tried again, and named when it can be read.
                held.give_up(&reason);
                held.tell(|| DocumentEvent::Failed { reason });
            }
            Published::Ephemeral { sender, data } => {
                held.tell(|| DocumentEvent::Ephemeral { sender, data });
            }
        }
    }

    /// Tells every relay of a document once more.
    pub(super) fn sync_again(&mut self, document: &DocumentId) {
        let connections: Vec<_> = self.connections.keys().copied().collect();
        for id in connections {
            self.sync_with(id, document);
        }
    }

    /// Tells a relay of a document that is open, or in the outbox.
    pub(super) fn sync_with(&mut self, id: ConnectionId, document: &DocumentId) {
        self.handle(Event::SyncWith(id, document.clone()));
        self.find_room(document);
    }

    fn put_in(&mut self, held: Arc<Held>, chunks: impl IntoIterator<Item = Incoming>) {
        if held.put_in(chunks) {
            self.actions.push_back(Action::Apply(Task::TakeIn(held)));
        }
    }
}

#[cfg(test)]
mod tests {
    use concord_protocol::PeerMetadata;
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        peer::home::{Home, System},
        replica::PeerInfo,
    };

    #[test]
    fn a_relay_that_comes_while_a_peer_closes_is_told_so_and_not_waited_for() {
        let (commands, _told) = mpsc::unbounded_channel();
        let registry = Arc::new(Registry::new(Home::new(&commands, Arc::new(System))));
        let config = Config::new("us".parse().unwrap(), PeerMetadata::default());
        let mut core = Core::new(
            config,
            registry,
            Arc::new(Schemas::new(None)),
            Arc::default(),
            Debounce::DEFAULT,
        );
        let (now, id) = (Now::default(), ConnectionId(1));
        core.take(now, Command::Close(oneshot::channel().0));
        let peer = "relay".parse().unwrap();
        let metadata = PeerMetadata::default();
        let info = PeerInfo { peer, metadata, concord: true, dialled: true };
        core.take(now, Command::Event(Event::Connected(id, info)));
        assert!(matches!(core.poll(), Some(Action::Close(to, ..)) if to == id));
        assert!(core.poll().is_none() && !core.is_closed(now));
        core.take(now, Command::Event(Event::Disconnected(id)));
        assert!(core.is_closed(now));
    }
}
