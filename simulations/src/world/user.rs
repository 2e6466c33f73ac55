//! Users: what they see of documents, and what they write.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use concord::replica::{ConnectionId, Counted, Event, Published, Ticket};
use concord_protocol::{ChangeHash, DocumentId, SessionId};

use super::{NodeId, World, node::Operation, short};
use crate::{
    checks::answers::hash_of,
    coverage::State,
    ledger::Invariant,
    opaque::{Hashes, Value, noise, write},
    plan::{Edit, Name, Plan},
    random::fate,
    trace::Kind as Told,
};

/// How far a user's view of a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Loading,
    Ready,
}

/// What a user sees of one document.
#[derive(Debug)]
struct View {
    phase: Phase,
    /// Each change that is shown.
    changes: Hashes,
    /// What the document is shown without, as the production peer does: changes that break it, and
    /// those that build on them.
    left_out: Hashes,
    heads: BTreeSet<ChangeHash>,
    max_op: u32,
    /// New with every loading, as automerge's is.
    actor: [u8; 16],
    seq: u32,
    /// Chunks that came while it was being loaded.
    inbox: Vec<Bytes>,
}

/// The program at a peer, and who sits before it.
#[derive(Debug)]
pub(super) struct User {
    views: BTreeMap<u8, View>,
    calls: BTreeMap<Ticket, (u8, ChangeHash)>,
    next_call: u64,
    next_opening: u64,
    seed: u64,
    session: String,
    next_broadcast: u64,
    /// The last number of each session of somebody's presence, by document.
    seen: BTreeMap<(u8, Vec<u8>), u64>,
}

impl User {
    pub(super) fn new(plan: &Plan, node: NodeId, life: u32) -> Self {
        Self {
            views: BTreeMap::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            next_opening: 0,
            seed: fate(plan.seed, 0x05E4 + node as u64, u64::from(life)),
            session: format!("s{node}-{life}"),
            next_broadcast: 0,
            seen: BTreeMap::new(),
        }
    }

    /// A call returned; what it was. Once each.
    pub(super) fn answered(&mut self, ticket: Ticket) -> Option<(u8, ChangeHash)> {
        self.calls.remove(&ticket)
    }

    /// How many have not returned.
    pub(super) fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Documents that are open.
    pub(super) fn open(&self) -> impl Iterator<Item = u8> {
        self.views.keys().copied()
    }

    /// What is shown of a document, once it was read.
    pub(super) fn shows(&self, document: u8) -> Option<&Hashes> {
        let view = self.views.get(&document)?;
        (view.phase == Phase::Ready).then_some(&view.changes)
    }

    fn actor(&mut self) -> [u8; 16] {
        self.next_opening += 1;
        let mut actor = [0; 16];
        actor[..8].copy_from_slice(&fate(self.seed, 1, self.next_opening).to_le_bytes());
        actor[8..].copy_from_slice(&fate(self.seed, 2, self.next_opening).to_le_bytes());
        actor
    }
}

impl View {
    fn new(actor: [u8; 16]) -> Self {
        Self {
            phase: Phase::Loading,
            changes: Hashes::default(),
            left_out: Hashes::default(),
            heads: BTreeSet::new(),
            max_op: 0,
            actor,
            seq: 0,
            inbox: Vec::new(),
        }
    }
}

/// What is shown of an open document is dropped; it is about to be named anew. Gives whether it
/// is open.
pub(super) fn begin_again(user: &mut User, document: u8) -> bool {
    let actor = user.actor();
    let view = user.views.get_mut(&document);
    let is_open = view.is_some();
    if let Some(view) = view {
        *view = View::new(actor);
    }
    is_open
}

impl World<'_> {
    /// A user opens a document, now or again after a restart.
    pub(super) fn open_document(&mut self, id: NodeId, document: u8) {
        if self.is_author(id) {
            return self.author_open(id, document);
        }
        let Some(process) = &mut self.nodes[id].process else { return };
        let user = &mut process.user;
        if user.views.contains_key(&document) {
            return;
        }
        let actor = user.actor();
        user.views.insert(document, View::new(actor));
        let event = Event::Open(self.documents[usize::from(document)].clone());
        self.tell(id, event);
    }

    pub(super) fn shut_document(&mut self, id: NodeId, document: u8) {
        if self.is_author(id) {
            return self.author_shut(id, document);
        }
        let Some(process) = &mut self.nodes[id].process else { return };
        if process.user.views.remove(&document).is_some() {
            let event = Event::Shut(self.documents[usize::from(document)].clone());
            self.tell(id, event);
        }
    }

    /// A relay answered: it is told of every document that is here, open or not.
    pub(super) fn greet(&mut self, id: NodeId, connection: ConnectionId) {
        if self.is_author(id) {
            // The production peer does that itself.
            return;
        }
        let Some(process) = &self.nodes[id].process else { return };
        let open: Vec<u8> = process.user.open().collect();
        for document in open {
            let document = self.documents[usize::from(document)].clone();
            self.tell(id, Event::SyncWith(connection, document));
        }
        self.operation(id, Operation::ListAll(connection));
    }

    /// A user writes.
    pub(super) fn edit(&mut self, peer: u8, document: u8, edit: Edit) {
        let id = self.node_of(Name::Peer(peer));
        if self.nodes[id].paused_until_us > self.now_us {
            return;
        }
        if self.is_author(id) {
            return self.author_edit(id, document, edit);
        }
        let changes = match edit {
            Edit::Type(count) | Edit::Erase(count) => count,
            _ => 1,
        };
        for _ in 0..changes {
            self.write_one(id, peer, document, edit);
        }
    }

    fn write_one(&mut self, id: NodeId, peer: u8, document: u8, edit: Edit) {
        let now = self.nodes[id].now(self.now_us);
        let Some(process) = &mut self.nodes[id].process else { return };
        let user = &mut process.user;
        let Some(view) = user.views.get_mut(&document) else { return };
        if view.phase != Phase::Ready {
            return;
        }
        view.seq += 1;
        view.max_op += 1;
        let time = i64::try_from(now.wall_ms / 1_000).unwrap_or(0);
        let deps: Vec<ChangeHash> = view.heads.iter().copied().collect();
        let value = fate(user.seed, 3, user.next_call);
        let value = match edit {
            Edit::Paste(kib) => Value::Data(noise(value, usize::from(kib) * 1024)),
            _ => Value::Number(value),
        };
        let chunk = write(&view.actor, view.seq, view.max_op, time, &deps, value);
        let change = match self.library.read(&chunk) {
            Ok(change) => change,
            Err(reason) => return self.broken(Invariant::NoPanic, reason),
        };
        view.heads.clear();
        view.heads.insert(change.hash);
        view.changes.insert(change.hash);
        user.next_call += 1;
        let ticket = Ticket(user.next_call);
        user.calls.insert(ticket, (document, change.hash));
        self.ledger.wrote(change.hash, document, peer);
        self.trace.mix(user.next_call);
        self.trace.note(self.now_us, || Told::Wrote {
            node: id,
            document,
            change: short(&change.hash),
        });
        let document = self.documents[usize::from(document)].clone();
        self.tell(id, Event::LocalChange(ticket, document, chunk));
    }

    pub(super) fn broadcast(&mut self, peer: u8, document: u8) {
        let id = self.node_of(Name::Peer(peer));
        if self.is_author(id) {
            return self.author_broadcast(id, document);
        }
        let Some(process) = &mut self.nodes[id].process else { return };
        let user = &mut process.user;
        user.next_broadcast += 1;
        let Ok(session) = user.session.parse::<SessionId>() else { return };
        let mut data = session.as_str().as_bytes().to_vec();
        data.extend(user.next_broadcast.to_be_bytes());
        let event = Event::Broadcast {
            document: self.documents[usize::from(document)].clone(),
            count: user.next_broadcast,
            session,
            data: data.into(),
        };
        self.tell(id, event);
    }

    /// The engine tells the program.
    pub(super) fn published(&mut self, id: NodeId, document: &DocumentId, published: Published) {
        let number = self.document_number(document);
        match published {
            Published::Opened(chunks) => self.opened(id, number, chunks),
            Published::Changes(chunks) => self.show(id, number, chunks, true),
            Published::Snapshot(chunk) => self.show(id, number, vec![chunk], false),
            Published::Refused { hash, code, reason } => {
                if self.ledger.who(&hash).is_some() && self.ledger.attacked == 0 {
                    let detail = format!(
                        "an honest change {} was refused ({}): {reason}",
                        short(&hash),
                        code.as_str()
                    );
                    self.broken(Invariant::NoSilentLoss, detail);
                }
            }
            Published::Quarantined(reason) => {
                self.withheld(id, number, &reason);
                // What is stored is to be named anew, without what is withheld.
                let Some(process) = &mut self.nodes[id].process else { return };
                if begin_again(&mut process.user, number) {
                    self.tell(id, Event::Open(document.clone()));
                }
            }
            Published::Damaged(reason) => self.damaged(id, number, &reason),
            Published::Unreadable(_) => self.met(State::ToldUnreadable),
            Published::Ephemeral { data, .. } => self.presence(id, number, &data),
            Published::Unavailable => self.met(State::NobodyHasIt),
            Published::Durable(_) | Published::RelayHas { .. } | Published::Confirmed => {}
        }
    }

    pub(super) fn presence(&mut self, id: NodeId, document: u8, data: &Bytes) {
        self.met(State::PresenceShown);
        let Some((session, count)) = data.split_last_chunk::<8>() else { return };
        let count = u64::from_be_bytes(*count);
        let Some(process) = &mut self.nodes[id].process else { return };
        let last = process.user.seen.entry((document, session.to_vec())).or_default();
        if *last >= count {
            let detail = format!("presence {count} was shown after {last}");
            return self.broken(Invariant::AtMostOnce, detail);
        }
        *last = count;
    }

    /// A user is told that a change which breaks a document is withheld.
    pub(super) fn withheld(&mut self, id: NodeId, document: u8, reason: &str) {
        self.did(id, || format!("is told that document {document} goes on without {reason}"));
        self.met(State::ToldOfWithheld);
        let is_hostile = |word: &str| hash_of(word).is_some_and(|hash| self.library.breaks(&hash));
        if !reason.split([' ', ':']).any(is_hostile) {
            let detail = format!("document {document} goes on without an honest {reason}");
            self.broken(Invariant::NoSilentLoss, detail);
        }
    }

    /// The chunks of an opened document are there.
    fn opened(&mut self, id: NodeId, document: u8, mut chunks: Vec<Bytes>) {
        let Some(process) = &mut self.nodes[id].process else { return };
        let Some(view) = process.user.views.get_mut(&document) else { return };
        if view.phase == Phase::Loading {
            view.phase = Phase::Ready;
            chunks.append(&mut view.inbox);
            self.show(id, document, chunks, false);
        }
    }

    /// Changes are shown to the user.
    fn show(&mut self, id: NodeId, document: u8, chunks: Vec<Bytes>, must_be_new: bool) {
        let Some(process) = &mut self.nodes[id].process else { return };
        let must_be_new = must_be_new && !process.has_failed;
        let Some(view) = process.user.views.get_mut(&document) else { return };
        if view.phase == Phase::Loading {
            view.inbox.extend(chunks);
            return;
        }
        let changes = match self.library.read_all(&chunks) {
            Ok(changes) => changes,
            Err(reason) => return self.broken(Invariant::NoPanic, reason),
        };
        for change in changes {
            if self.library.breaks(&change.hash)
                || change.deps.iter().any(|dep| view.left_out.contains(dep))
            {
                view.left_out.insert(change.hash);
                continue;
            }
            if !view.changes.insert(change.hash) {
                if must_be_new {
                    let detail = format!("{} was shown twice", short(&change.hash));
                    return self.broken(Invariant::AtMostOnce, detail);
                }
                continue;
            }
            if let Some(dep) = change.deps.iter().find(|dep| !view.changes.contains(*dep)) {
                let detail = format!(
                    "{} was shown before {} that it builds on",
                    short(&change.hash),
                    short(dep)
                );
                return self.broken(Invariant::AtMostOnce, detail);
            }
            for dep in &change.deps {
                view.heads.remove(dep);
            }
            view.heads.insert(change.hash);
            view.max_op = view.max_op.max(change.start_op + change.ops.saturating_sub(1));
        }
        if self.trace.is_on() {
            let heads = view.heads.iter().map(short).collect();
            self.trace.note(self.now_us, || Told::Heads { node: id, document, heads });
        }
    }

    /// Rare states that the engine itself counts.
    pub(super) fn counted(&mut self, id: NodeId, counted: Counted) {
        match counted {
            Counted::Orphaned => self.met(State::OrphanCame),
            Counted::DocumentEvicted => {
                let has_writes =
                    self.nodes[id].process.as_ref().is_some_and(|p| !p.writes.is_empty());
                self.met(State::Evicted);
                if has_writes {
                    self.met(State::EvictedDuringWrites);
                }
            }
            Counted::Quarantined => self.met(State::Quarantined),
            Counted::Compacted => {
                self.met(State::SnapshotTookPlace);
                let process = self.nodes[id].process.as_ref();
                if process.is_some_and(|p| p.writes.len() > 1) {
                    self.met(State::CompactedDuringWrites);
                }
            }
            Counted::JobPostponed => self.met(State::JobPutOff),
            Counted::CorruptRow => {
                self.met(State::RowDamaged);
                if !self.nodes[id].is_rotten {
                    let who = self.nodes[id].label();
                    let detail =
                        format!("{who} found a row damaged on a disk on which none rotted");
                    self.broken(Invariant::Durability, detail);
                }
            }
            Counted::IndexRebuilt => self.met(State::IndexRebuilt),
            Counted::SnapshotLost => self.met(State::SnapshotLost),
            Counted::EphemeralDropped(_) => self.met(State::PresenceDropped),
            Counted::BadMessage => self.met(State::MessageRefused),
            Counted::ChangeRefused(_) => self.met(State::ChangeRefused),
            _ => {}
        }
    }
}
