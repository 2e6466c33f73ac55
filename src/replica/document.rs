//! One document: where it is in its life, what waits to be taken in, and what is being written.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use concord_protocol::{
    ChangeHash, CloseCode, DocumentId, RefuseCode, StorageId, guard::ChangeHeader,
    sync::SyncMessage,
};

use super::{
    ConnectionId, Counted, Effect, Kind, Leaving, LocalError, Published, RowKey, RowWrite,
    StorageFailure, Ticket,
    admission::{Verdict, judge},
    core::{Core, Wake, refused},
    graph::Graph,
    index::{IndexRoot, Missing},
    jobs::Jobs,
    loading::Reading,
    meta::Meta,
    orphans::{Orphan, Orphans},
    reader::Reader,
    readers::Readers,
    refused::Refused,
    salvage::{Damage, Salvage},
    silence::Unsaid,
};

/// Bytes that may wait to be taken in while a document is read from storage.
const INBOX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Milliseconds without use after which what can be read again is dropped.
const TRIM_MS: u64 = 5_000;

/// Where a document is in its life.
#[derive(Debug)]
pub(super) enum State {
    /// Not in memory.
    Absent,
    /// Being read.
    Loading(Ticket),
    /// Read; the index of its snapshot is damaged and is being built anew.
    Salvaging,
    /// Read; index pages are missing to put its changes in order.
    Sorting(Graph, VecDeque<(ChangeHeader, Bytes)>),
    /// In memory.
    Ready(Graph),
}

/// What waits to be taken in.
#[derive(Debug)]
pub(super) enum Inbound {
    /// A sync message, its changes taken out.
    Said(ConnectionId, Box<SyncMessage>),
    /// An ack: what its sender has on disk. In order with what it said otherwise.
    Acked(ConnectionId, Vec<ChangeHash>),
    /// Changes that passed the guard, in the order that they came.
    Changes {
        from: Option<ConnectionId>,
        changes: VecDeque<(ChangeHeader, Bytes)>,
        /// A materialiser has applied them (`strict`).
        checked: bool,
    },
    /// A change of a program in this process.
    Local(Ticket, Box<ChangeHeader>, Bytes),
    /// All of it is to go, if these are its heads.
    Purge(Ticket, Vec<ChangeHash>, Leaving),
    /// A program in this process opened the document.
    Open,
}

/// What a write was for.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// It is on disk; writes before it have not been heard of yet.
    pub(super) done: bool,
    pub(super) changes: Vec<ChangeHash>,
    pub(super) locals: Vec<Ticket>,
    /// A snapshot that takes effect once it is on disk.
    pub(super) adopt: bool,
    /// Some of the rows that a snapshot covers, which go; more go after it.
    pub(super) removes: bool,
}

/// Index pages on their way from storage.
#[derive(Debug)]
pub(super) struct PagesRead {
    /// `None`: it failed, and is tried again.
    pub(super) ticket: Option<Ticket>,
    /// Of which snapshot: another may take its place meanwhile.
    pub(super) snapshot: [u8; 32],
    pub(super) parts: Vec<u32>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) id: DocumentId,
    pub(super) state: State,
    pub(super) readers: Readers,
    /// A program in this process has it open.
    pub(super) opened: bool,
    /// It waits to be given what there is.
    pub(super) opening: bool,
    /// No relay that we dialled is known to have all of it; see `confirmed`.
    pub(super) unconfirmed: bool,
    pub(super) inbox: VecDeque<Inbound>,
    pub(super) inbox_bytes: usize,
    pub(super) orphans: Orphans,
    pub(super) refused: Refused,
    pub(super) meta: Meta,
    pub(super) writes: Vec<RowWrite>,
    /// Changes that the snapshot covers, whose rows are yet to go.
    pub(super) covered: VecDeque<ChangeHash>,
    pub(super) writing: Written,
    pub(super) written: BTreeMap<Ticket, Written>,
    pub(super) pages: Option<PagesRead>,
    pub(super) jobs: Jobs,
    /// Who sent what was not checked yet when the document left memory: to be told if it breaks it.
    pub(super) unchecked: BTreeMap<ChangeHash, ConnectionId>,
    /// Changes to be published with the next flush.
    pub(super) news: Vec<Bytes>,
    pub(super) accepted: u64,
    /// Rows were found damaged when it was read last.
    pub(super) damaged: bool,
    pub(super) salvage: Salvage,
    pub(super) reading: Reading,
    /// Heads of the document in other stores, with the reporter's time.
    pub(super) remote_heads: BTreeMap<StorageId, (Vec<ChangeHash>, f64)>,
    pub(super) confirm_set: bool,
    pub(super) arrival_set: bool,
    pub(super) check_set: bool,
    /// What is on disk and a server has not said that it has: it is looked at again.
    pub(super) unsaid: Option<Unsaid>,
    pub(super) idle_set: bool,
    pub(super) used_ms: u64,
}

impl Document {
    pub(super) fn new(id: DocumentId) -> Self {
        Self {
            id,
            state: State::Absent,
            readers: Readers::default(),
            opened: false,
            opening: false,
            unconfirmed: true,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            orphans: Orphans::default(),
            refused: Refused::default(),
            meta: Meta::default(),
            writes: Vec::new(),
            covered: VecDeque::new(),
            writing: Written::default(),
            written: BTreeMap::new(),
            pages: None,
            jobs: Jobs::default(),
            unchecked: BTreeMap::new(),
            news: Vec::new(),
            accepted: 0,
            damaged: false,
            salvage: Salvage::default(),
            reading: Reading::default(),
            remote_heads: BTreeMap::new(),
            confirm_set: false,
            arrival_set: false,
            check_set: false,
            unsaid: None,
            idle_set: false,
            used_ms: 0,
        }
    }

    pub(super) fn graph(&self) -> Option<&Graph> {
        match &self.state {
            State::Ready(graph) => Some(graph),
            _ => None,
        }
    }

    pub(super) fn graph_mut(&mut self) -> Option<&mut Graph> {
        match &mut self.state {
            State::Ready(graph) => Some(graph),
            _ => None,
        }
    }

    /// Whether it is in memory or on its way there.
    pub(super) fn is_resident(&self) -> bool {
        !matches!(self.state, State::Absent)
    }

    /// Whether a change of it was passed on that no worker has checked yet.
    pub(super) fn is_unchecked(&self) -> bool {
        self.graph().is_some_and(Graph::has_unchecked)
    }

    /// Takes something in, now or when the document is there.
    pub(super) fn push(&mut self, core: &mut Core, inbound: Inbound) {
        self.used(core);
        let size = inbound.size();
        if self.inbox_bytes + size > INBOX_BYTES_MAX
            && let Some(from) = inbound.from()
        {
            core.close(from, CloseCode::Backpressure, "sends faster than the document can be read");
            return;
        }
        self.inbox_bytes += size;
        self.inbox.push_back(inbound);
        self.drive(core);
    }

    /// A program in this process no longer has it open.
    pub(super) fn shut(&mut self) {
        self.opened = false;
        self.opening = false;
        self.salvage.told = Damage::default();
    }

    /// Puts something back to be taken in next.
    pub(super) fn put_back(&mut self, inbound: Inbound) {
        self.inbox_bytes += inbound.size();
        self.inbox.push_front(inbound);
    }

    pub(super) fn used(&mut self, core: &mut Core) {
        self.used_ms = core.now.mono_ms;
        if !self.idle_set {
            self.idle_set = true;
            core.wake_at(core.now.mono_ms + TRIM_MS.min(core.config.idle_ms), &self.id, Wake::Idle);
        }
    }

    /// Goes on with whatever can be gone on with.
    pub(super) fn drive(&mut self, core: &mut Core) {
        self.ensure_loading(core);
        while self.pages.is_none() {
            let step = match &mut self.state {
                State::Absent | State::Loading(_) | State::Salvaging => {
                    mark!(WaitedForLoad, if !self.inbox.is_empty());
                    return;
                }
                State::Sorting(..) => self.sort(core),
                State::Ready(_) => match self.inbox.pop_front() {
                    None => {
                        free_if_empty(&mut self.inbox);
                        break;
                    }
                    Some(inbound) => {
                        self.inbox_bytes -= inbound.size();
                        self.take_in(core, inbound)
                    }
                },
            };
            match step {
                Ok(true) => {}
                Ok(false) => break,
                Err(missing) => {
                    mark!(PagesForChange, if matches!(self.state, State::Ready(_)));
                    self.read_pages(core, missing);
                }
            }
        }
        core.dirty.insert(self.id.clone());
    }

    fn take_in(&mut self, core: &mut Core, inbound: Inbound) -> Result<bool, Missing> {
        if self.is_purged() {
            self.take_in_purged(core, inbound);
            return Ok(true);
        }
        match inbound {
            Inbound::Purge(ticket, heads, leaving) => {
                return self.purge(core, ticket, heads, leaving);
            }
            Inbound::Open => {
                self.opened = true;
                self.opening = true;
                self.publish_opened(core);
            }
            Inbound::Said(connection, message) => {
                if let Some(reader) = self.readers.get_mut(&connection) {
                    reader.hears(*message);
                    self.heard(core, connection);
                }
            }
            Inbound::Acked(connection, durable) => {
                if let Some(reader) = self.readers.get_mut(&connection) {
                    reader.has(durable);
                    self.heard(core, connection);
                }
            }
            Inbound::Local(ticket, header, bytes) => match self.judge(&header) {
                Err(missing) => {
                    self.put_back(Inbound::Local(ticket, header, bytes));
                    return Err(missing);
                }
                Ok(Verdict::Known) => core.effect(Effect::LocalDone(ticket, Ok(()))),
                Ok(Verdict::Accept(deps)) => {
                    self.accept(core, *header, deps, bytes, None);
                    if mutant!(ReturnBeforeWrite) {
                        core.effect(Effect::LocalDone(ticket, Ok(())));
                    } else {
                        self.writing.locals.push(ticket);
                    }
                }
                Ok(Verdict::Orphan(_)) => {
                    let reason = "it builds on changes that are not in this store".to_owned();
                    let error = LocalError::Refused { code: RefuseCode::OutOfSequence, reason };
                    core.effect(Effect::LocalDone(ticket, Err(error)));
                }
                Ok(Verdict::Refuse(refusal, reason)) => {
                    core.effect(Effect::LocalDone(
                        ticket,
                        Err(LocalError::Refused { code: refusal, reason }),
                    ));
                }
            },
            Inbound::Changes { from, changes, checked: false } if core.config.strict => {
                return self.check_first(core, from, changes);
            }
            Inbound::Changes { from, mut changes, checked } => {
                while let Some((header, bytes)) = changes.pop_front() {
                    let verdict = match self.judge_of(core, from, &header) {
                        Ok(verdict) => verdict,
                        Err(missing) => {
                            changes.push_front((header, bytes));
                            self.put_back(Inbound::Changes { from, changes, checked });
                            return Err(missing);
                        }
                    };
                    match verdict {
                        Verdict::Known => {
                            mark!(Duplicate);
                            mark!(KnownFromUpload, if checked && !core.config.strict);
                        }
                        Verdict::Accept(deps) => {
                            let is_served = self.accept(core, header, deps, bytes.clone(), from);
                            // A program has nothing that it could put the others on.
                            if self.opened && !self.opening && is_served {
                                if mutant!(PublishTwice) {
                                    self.news.push(bytes.clone());
                                }
                                self.news.push(bytes);
                            }
                        }
                        Verdict::Orphan(missing) => {
                            core.count(Counted::Orphaned);
                            self.wait_for_deps(core, header, bytes, from, missing);
                        }
                        Verdict::Refuse(RefuseCode::Leased, reason) => {
                            self.refuse_leased(core, from, header.hash, reason);
                        }
                        Verdict::Refuse(code, reason) => {
                            self.refuse(core, from, header.hash, code, &reason);
                        }
                    }
                }
            }
        }
        Ok(true)
    }

    pub(super) fn judge(&self, header: &ChangeHeader) -> Result<Verdict, Missing> {
        match &self.state {
            State::Ready(graph) => judge(graph, header),
            _ => Err(Missing::default()),
        }
    }

    /// Gives whether it is served: not if it builds on a change that is withheld.
    fn accept(
        &mut self,
        core: &mut Core,
        header: ChangeHeader,
        deps: Vec<u32>,
        bytes: Bytes,
        from: Option<ConnectionId>,
    ) -> bool {
        let hash = header.hash;
        self.accepted += 1;
        self.unconfirmed |= from.is_none();
        self.salvage.healed(&hash);
        mark!(ResentAfterFailure, after FailedClosed, of (&core.config.us, &self.id));
        self.writes.push(RowWrite::Put(change_row(&hash), bytes.clone()));
        self.writing.changes.push(hash);
        let Some(graph) = self.graph_mut() else {
            return false;
        };
        graph.insert(header, deps, bytes, false, from);
        let withheld = graph.node_by_hash(&hash).is_some_and(|node| node.withheld);
        for (connection, reader) in &mut self.readers {
            if Some(*connection) == from {
                reader.awaits_ack = true;
            } else {
                reader.dirty = true;
            }
        }
        mark!(OnWithheld, if withheld);
        if withheld && let Some(from) = from {
            let reason =
                format!("it builds on a change that broke the document: {}", self.meta.reason);
            core.refuse(
                from,
                &self.id,
                refused(Some(hash), RefuseCode::Unmaterialisable, reason),
                self.durable(),
            );
        }
        // Those of one sender together: with `strict` each batch is a job.
        let mut batches: Vec<Inbound> = Vec::new();
        for orphan in self.orphans.arrived(&hash) {
            mark!(OrphanAdopted);
            mark!(OrphanFromOther, if orphan.from != from);
            match batches.last_mut() {
                Some(Inbound::Changes { from, changes, .. }) if *from == orphan.from => {
                    changes.push_back((orphan.header, orphan.bytes));
                }
                _ => batches.push(orphan.into()),
            }
        }
        for batch in batches.into_iter().rev() {
            self.put_back(batch);
        }
        !withheld
    }

    /// Has those that wait for others judged anew, and forgets the rest of them.
    pub(super) fn judge_orphans(&mut self, chosen: impl Fn(&Orphan) -> bool) {
        for orphan in self.orphans.take_all().into_iter().rev().filter(chosen) {
            self.put_back(orphan.into());
        }
    }

    pub(super) fn wait_for_deps(
        &mut self,
        core: &mut Core,
        header: ChangeHeader,
        bytes: Bytes,
        from: Option<ConnectionId>,
        missing: Vec<ChangeHash>,
    ) {
        if let Some(dep) = missing.iter().find(|dep| self.refused.contains(dep)) {
            mark!(OrphanOfRefused);
            let reason = format!("it builds on {dep}, which was refused");
            self.refuse(core, from, header.hash, RefuseCode::OutOfSequence, &reason);
            return;
        }
        // What its writer could not bring, others may: it is refused to its writer alone.
        if let Some(writer) = from
            && let Some(reader) = self.readers.get_mut(&writer)
            && let Some(dep) = missing.iter().find(|dep| reader.has_failed_at(dep))
        {
            mark!(OrphanOfRefused);
            let reason = format!("it builds on {dep}, which was refused");
            reader.refuse([header.hash]);
            let refusal = refused(Some(header.hash), RefuseCode::OutOfSequence, reason);
            return core.refuse(writer, &self.id, refusal, self.durable());
        }
        // Not refused: whoever brought them has not heard that they are here.
        for connection in self.orphans.insert(header, bytes, from, missing, &core.config.limits) {
            mark!(OrphanCap);
            if let Some(reader) = self.readers.get_mut(&connection) {
                reader.forgotten = true;
            }
        }
    }

    /// Says no to a change, and to those that wait for it.
    pub(super) fn refuse(
        &mut self,
        core: &mut Core,
        from: Option<ConnectionId>,
        hash: ChangeHash,
        code: RefuseCode,
        reason: &str,
    ) {
        let waiting = self.orphans.refuse(&hash);
        mark!(RefusedWithWaiting, if !waiting.is_empty());
        let all =
            std::iter::once((from, hash)).chain(waiting.iter().map(|o| (o.from, o.header.hash)));
        for (from, hash) in all {
            self.refused.insert(hash);
            if let Some(from) = from {
                if let Some(reader) = self.readers.get_mut(&from) {
                    reader.refuse([hash]);
                }
                core.refuse(from, &self.id, refused(Some(hash), code, reason), self.durable());
            }
            if self.opened {
                let reason = reason.to_owned();
                core.effect(Effect::Publish(
                    self.id.clone(),
                    Published::Refused { hash, code, reason },
                ));
            }
        }
    }

    /// The heads that are on disk.
    pub(super) fn durable(&self) -> Vec<ChangeHash> {
        self.graph()
            .map(|graph| graph.durable_heads().iter().copied().collect())
            .unwrap_or_default()
    }

    /// Writes what has gathered.
    pub(super) fn write(&mut self, core: &mut Core) {
        if self.writes.is_empty() {
            return;
        }
        let ticket = core.ticket(&self.id);
        self.written.insert(ticket, std::mem::take(&mut self.writing));
        core.effect(Effect::Write(ticket, self.id.clone(), std::mem::take(&mut self.writes)));
    }

    /// A write is on disk, or failed. Word of writes may come in another order than the writes,
    /// which are durable in theirs: they take effect in that order, so that a change never counts
    /// as durable before what it builds on.
    pub(super) fn stored(
        &mut self,
        core: &mut Core,
        ticket: Ticket,
        result: Result<(), StorageFailure>,
    ) {
        if let Err(failure) = result {
            // What was written after it may be on disk, but not what it builds on.
            for written in self.written.range_mut(ticket..).map(|(_, written)| written) {
                not_stored(core, std::mem::take(&mut written.locals), &failure);
            }
            self.written.remove(&ticket);
            return self.fail(core, &failure);
        }
        if let Some(written) = self.written.get_mut(&ticket) {
            written.done = true;
        }
        while let Some(first) = self.written.first_entry()
            && first.get().done
        {
            let written = first.remove();
            self.durably(core, written);
        }
        self.consider_background(core);
        core.dirty.insert(self.id.clone());
    }

    /// A write takes effect.
    fn durably(&mut self, core: &mut Core, written: Written) {
        for ticket in written.locals {
            if mutant!(WaitForNetwork) && core.connections.is_empty() {
                self.writing.locals.push(ticket);
                continue;
            }
            core.effect(Effect::LocalDone(ticket, Ok(())));
            if mutant!(AnswerTwice) {
                core.effect(Effect::LocalDone(ticket, Ok(())));
            }
        }
        if let Some(graph) = self.graph_mut() {
            let before = graph.durable_heads().clone();
            for hash in &written.changes {
                graph.mark_durable(hash);
            }
            if before != *graph.durable_heads() {
                for reader in self.readers.values_mut() {
                    reader.dirty = true;
                }
                self.durable_changed(core);
            }
        }
        if written.adopt {
            self.adopt_snapshot(core);
        }
        if written.removes {
            self.remove_covered(core);
        }
    }

    /// A write failed: nothing can be said of this document until it is read again.
    fn fail(&mut self, core: &mut Core, failure: &StorageFailure) {
        self.fail_locals(core, failure);
        self.inbox.clear();
        self.inbox_bytes = 0;
        not_stored(core, std::mem::take(&mut self.writing).locals, failure);
        self.writes.clear();
        self.news.clear();
        self.leave_memory();
        let readers: Vec<ConnectionId> = self.readers.keys().copied().collect();
        for connection in readers {
            mark!(FailedClosed, of(&core.config.us, &self.id));
            core.close(connection, CloseCode::StorageFailed, &failure.to_string());
        }
    }

    /// Tells programs in this process that changes of theirs that wait are not stored.
    pub(super) fn fail_locals(&mut self, core: &mut Core, failure: &StorageFailure) {
        for inbound in std::mem::take(&mut self.inbox) {
            match inbound {
                Inbound::Local(ticket, _, bytes) => {
                    mark!(FailedWithCalls);
                    self.inbox_bytes -= bytes.len();
                    not_stored(core, vec![ticket], failure);
                }
                Inbound::Purge(ticket, ..) => not_stored(core, vec![ticket], failure),
                other => self.inbox.push_back(other),
            }
        }
    }

    /// Drops all that is read from rows; it is to be read again. Gives whose upload was being
    /// written as a snapshot.
    pub(super) fn leave_memory(&mut self) -> Option<ConnectionId> {
        self.pages = None;
        self.orphans = Orphans::default();
        // They go when it is read again, unless there is no such snapshot by then.
        self.covered.clear();
        self.forget_graph();
        self.jobs.begin_again()
    }

    fn forget_graph(&mut self) {
        if let Some(graph) = self.graph() {
            self.unchecked = graph.unchecked_senders();
        }
        self.state = State::Absent;
    }

    /// Drops what can be read again, and the whole document when it was not used for long.
    pub(super) fn idle(&mut self, core: &mut Core) {
        self.idle_set = false;
        let idle_ms = core.now.mono_ms.saturating_sub(self.used_ms);
        if idle_ms >= TRIM_MS && self.pages.is_none() {
            self.jobs.drop_caches();
            if let Some(snapshot) = self.graph_mut().and_then(|graph| graph.snapshot.as_mut()) {
                snapshot.index.drop_pages();
            }
        }
        if mutant!(KeepTalking) {
            self.readers.values_mut().for_each(Reader::repeat);
        }
        if mutant!(LoseAtEviction) && idle_ms >= core.config.idle_ms {
            self.written.clear();
        }
        if idle_ms >= core.config.idle_ms && self.check_before_eviction(core) && self.is_quiet() {
            self.forget_graph();
            self.refused.clear();
            core.count(Counted::DocumentEvicted);
            mark!(EvictedWithReaders, if !self.readers.is_empty());
            return;
        }
        mark!(EvictionPutOff, if idle_ms >= core.config.idle_ms && self.is_resident());
        mark!(EvictionWithWrite, if idle_ms >= core.config.idle_ms && !self.written.is_empty());
        if self.is_resident() {
            self.idle_set = true;
            let again = TRIM_MS.min(core.config.idle_ms).max(1);
            core.wake_at(core.now.mono_ms + again, &self.id, Wake::Idle);
        }
    }

    fn is_quiet(&self) -> bool {
        matches!(self.state, State::Ready(_))
            && self.inbox.is_empty()
            && self.writes.is_empty()
            && self.written.is_empty()
            && self.covered.is_empty()
            && self.pages.is_none()
            && self.jobs.is_idle()
            && self.orphans.len() == 0
            && self.readers.values().all(|reader| !reader.dirty && !reader.asks)
    }

    /// Whether nothing is left that would have to be remembered.
    pub(super) fn is_forgotten(&self) -> bool {
        matches!(self.state, State::Absent)
            && self.readers.is_empty()
            && !self.opened
            && self.inbox.is_empty()
            && self.written.is_empty()
            // They hold slots that others wait for.
            && self.jobs.running.is_none()
            && !self.salvage.is_at_work()
    }

    /// Bytes of chunks in memory.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.graph().map_or(0, Graph::tail_bytes) + self.inbox_bytes + self.jobs.cached_bytes()
    }
}

impl From<Orphan> for Inbound {
    fn from(orphan: Orphan) -> Self {
        let changes = VecDeque::from([(orphan.header, orphan.bytes)]);
        // What is stored was checked before it was.
        Self::Changes { from: orphan.from, changes, checked: orphan.from.is_none() }
    }
}

impl Inbound {
    fn size(&self) -> usize {
        match self {
            Self::Said(..) => 64,
            Self::Acked(_, durable) => size_of_val(&**durable),
            Self::Changes { changes, .. } => changes.iter().map(|(_, bytes)| bytes.len()).sum(),
            Self::Local(_, _, bytes) => bytes.len(),
            Self::Purge(..) | Self::Open => 0,
        }
    }

    fn from(&self) -> Option<ConnectionId> {
        match self {
            Self::Said(from, _) | Self::Acked(from, _) => Some(*from),
            Self::Changes { from, .. } => *from,
            Self::Local(..) | Self::Purge(..) | Self::Open => None,
        }
    }
}

/// Gives back the room of a queue: of the documents in memory nearly all are quiet.
pub(super) fn free_if_empty<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
}

fn not_stored(core: &mut Core, locals: Vec<Ticket>, failure: &StorageFailure) {
    for ticket in locals {
        core.effect(Effect::LocalDone(ticket, Err(LocalError::Storage(failure.clone()))));
    }
}

/// The row of what is true of the document as a whole.
pub(super) fn meta_row() -> RowKey {
    RowKey { kind: Kind::Meta, id: [0; 32], part: 0 }
}

/// The row of a change.
pub(super) fn change_row(hash: &ChangeHash) -> RowKey {
    RowKey { kind: Kind::Change, id: hash.0, part: 0 }
}

/// Deletes a snapshot; its root last, so that a crash leaves it known and deletable.
pub(super) fn delete_snapshot(id: [u8; 32], root: &IndexRoot) -> Vec<RowWrite> {
    let snapshot = RowKey { kind: Kind::Snapshot, id, part: 0 };
    let pages = root.parts().map(|part| RowKey { kind: Kind::IndexPage, id, part });
    let root = RowKey { kind: Kind::IndexRoot, id, part: 0 };
    std::iter::once(snapshot).chain(pages).chain([root]).map(RowWrite::Delete).collect()
}
