//! What engines ask of disks and materialisers: how long it takes, and what comes of it.

use concord::{
    peer::simulation::{Failover, PeerInput, read_notes},
    replica::{
        Event, Job, JobError, JobOutput, Kind, RowKey, RowWrite, StorageFailure, Ticket,
        simulation::in_first_format,
    },
    store::{DocumentKey, Store, StoreError, Tenant},
    worker::{WorkerJob, WorkerLimits, materialise, resolve},
};
use concord_protocol::{ChangeHash, DocumentId};
use futures_util::FutureExt as _;

use super::{
    Happening, NodeId, World,
    brain::News,
    node::{Operation, Writing},
};
use crate::{
    coverage::State,
    ledger::Invariant,
    plan::Profile,
    random::{delay, fate},
};

/// Bytes from which on a store may write a row in several batches.
const LARGE_BYTES: usize = 32 * 1024;

/// Documents listed at once, as the peer does.
const DOCUMENTS_PAGE: usize = 500;

/// A row as an earlier version of the program wrote it.
fn as_an_earlier_version(row: &mut RowWrite) {
    if let RowWrite::Put(RowKey { kind: Kind::Meta, .. }, bytes) = row
        && let Some(earlier) = in_first_format(bytes)
    {
        *bytes = earlier.into();
    }
}

pub(super) fn key(document: DocumentId) -> DocumentKey {
    DocumentKey { tenant: Tenant::default(), document }
}

impl World<'_> {
    /// Gives a write to the store, whose writer takes it with the next group.
    pub(super) fn write(
        &mut self,
        id: NodeId,
        ticket: Ticket,
        document: DocumentId,
        mut rows: Vec<RowWrite>,
    ) {
        if self.is_earlier_version(id) {
            rows.iter_mut().for_each(as_an_earlier_version);
        }
        let mut carried: Vec<ChangeHash> = Vec::new();
        let mut wrote_snapshot = false;
        for row in &rows {
            match row {
                RowWrite::Put(RowKey { kind: Kind::Change, id, .. }, bytes) => {
                    if bytes.len() > LARGE_BYTES {
                        self.coverage.met(State::LargeRow);
                    }
                    carried.push(ChangeHash(*id));
                }
                RowWrite::Put(RowKey { kind: Kind::Snapshot, .. }, bytes) => {
                    wrote_snapshot = true;
                    match self.library.members(bytes, self.plan.profile) {
                        Ok(members) => {
                            carried.extend(members.changes.iter().map(|(hash, _)| *hash));
                        }
                        Err(reason) => return self.broken(Invariant::NoPanic, reason),
                    }
                }
                _ => {}
            }
        }
        let deletes = rows.iter().any(|row| matches!(row, RowWrite::Delete(_)));
        let Some(process) = &mut self.nodes[id].process else { return };
        let is_busy = process.is_flushing;
        let future = process.store.write(key(document), rows);
        process.writes.push_back((Writing::Rows(ticket), future));
        process.carried.insert(ticket, carried);
        if wrote_snapshot && process.writes.len() > 1 {
            self.met(State::SnapshotBehindWrites);
        }
        if deletes && is_busy {
            self.met(State::DeletedDuringFlush);
        }
        self.flush(id);
    }

    pub(super) fn flush(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        let life = node.life;
        let hangs_until_us = node.disk_hangs_until_us;
        let flushes = node.disk.flushes();
        let Some(process) = &mut node.process else { return };
        if process.is_flushing || process.writes.is_empty() {
            return;
        }
        process.is_flushing = true;
        let number = (u64::from(life) << 32) | flushes;
        let takes_us = delay(
            u64::from(self.plan.settings.flush_us),
            fate(self.plan.seed, 0xF105 + id as u64, number),
        );
        let at_us = (self.now_us + takes_us).max(hangs_until_us);
        self.schedule(at_us, Happening::Flushed(id, life));
    }

    pub(super) fn flushed(&mut self, id: NodeId, life: u32) {
        let node = &mut self.nodes[id];
        if node.life != life || !node.is_up() {
            return;
        }
        if node.disk_hangs_until_us > self.now_us {
            let at_us = node.disk_hangs_until_us;
            self.schedule(at_us, Happening::Flushed(id, life));
            return;
        }
        let Some(process) = &mut node.process else { return };
        if !process.is_flushing {
            return;
        }
        process.is_flushing = false;
        process.committer.commit(self.plan.settings.group_writes.max(1) as usize);
        let mut answered = Vec::new();
        while let Some((writing, future)) = process.writes.front_mut()
            && let Some(result) = future.now_or_never()
        {
            answered.push((writing.clone(), result));
            process.writes.pop_front();
        }
        let is_half_a_journal =
            matches!(process.writes.front(), Some((Writing::Journal, _))) && answered.is_empty();
        if is_half_a_journal {
            // The second of its two writes is in the next group.
            return self.flush(id);
        }
        if answered.is_empty() {
            return self.broken(Invariant::Progress, "a write was not answered".to_owned());
        }
        if answered.len() > 8 {
            self.coverage.met(State::LargeFlush);
        }
        self.trace.mix(answered.len() as u64);
        for (writing, result) in answered {
            let Some(process) = &mut self.nodes[id].process else { return };
            let carried = match &writing {
                Writing::Rows(ticket) => process.carried.remove(ticket).unwrap_or_default(),
                Writing::Note(_) | Writing::Journal => Vec::new(),
            };
            let result = match result {
                Ok(()) => {
                    process.on_disk.extend(carried);
                    Ok(())
                }
                Err(error) => {
                    process.has_failed = true;
                    let told = StorageFailure::from(error.clone());
                    // As a relay does: a full disk is waited for, any other failure is the end.
                    if matches!(error, StoreError::Busy { .. } | StoreError::Full { .. }) {
                        self.met(State::WriteWithoutRoom);
                    } else {
                        self.store_failed(id, &told);
                    }
                    Err(told)
                }
            };
            match writing {
                Writing::Rows(ticket) => self.tell(id, Event::Stored(ticket, result)),
                Writing::Journal => {
                    self.tell_news(id, News::Peer(PeerInput::Journalled(result)));
                }
                Writing::Note(document) => {
                    self.tell_news(id, News::Peer(PeerInput::Noted(document, result)));
                }
            }
        }
        let late = match &mut self.nodes[id].process {
            Some(process) => std::mem::take(&mut process.late),
            None => return,
        };
        for operation in late {
            self.done(id, life, operation);
        }
        self.flush(id);
    }

    /// Something that takes its time.
    pub(super) fn operation(&mut self, id: NodeId, operation: Operation) {
        let settings = &self.plan.settings;
        let scale_us = match &operation {
            Operation::Job(..) => settings.job_us,
            _ => settings.read_us,
        };
        let node = &mut self.nodes[id];
        let life = node.life;
        let Some(process) = &mut node.process else { return };
        process.next_operation += 1;
        let number = process.next_operation;
        process.operations.insert(number, operation);
        let stream = 0x0B5 + (id as u64) * 0x1_0000 + u64::from(life);
        let takes_us = delay(u64::from(scale_us), fate(self.plan.seed, stream, number));
        self.schedule(self.now_us + takes_us, Happening::Done(id, life, number));
    }

    pub(super) fn done(&mut self, id: NodeId, life: u32, number: u64) {
        let node = &mut self.nodes[id];
        if node.life != life {
            return;
        }
        let Some(process) = &mut node.process else { return };
        let Some(operation) = process.operations.remove(&number) else { return };
        self.trace.mix(number);
        match operation {
            Operation::Load(ticket, mut future) => match (&mut future).now_or_never() {
                Some(loaded) => {
                    let loaded = loaded.map_err(StorageFailure::from);
                    self.tell(id, Event::Loaded(ticket, loaded));
                }
                None => self.wait(id, number, Operation::Load(ticket, future)),
            },
            Operation::Read(ticket, mut future) => match (&mut future).now_or_never() {
                Some(read) => {
                    let read = read.map_err(StorageFailure::from);
                    self.tell(id, Event::Read(ticket, read));
                }
                None => self.wait(id, number, Operation::Read(ticket, future)),
            },
            Operation::Job(ticket, document, job) => self.job(id, number, ticket, document, job),
            Operation::ListAll(connection) => {
                let store = process.store.clone();
                self.list(id, connection, &*store);
            }
            Operation::List(connection, after) => {
                let page = process.store.documents(Tenant::default(), after, DOCUMENTS_PAGE);
                let page = match page.now_or_never() {
                    Some(page) => page.map_err(StorageFailure::from),
                    None => Err(StorageFailure::Passing("busy".to_owned())),
                };
                self.tell_news(id, News::Peer(PeerInput::Listed(connection, page)));
            }
            Operation::Notes(after) => {
                let notes = read_notes(&*process.store, after.clone()).now_or_never();
                match notes {
                    Some(notes) => {
                        let notes = notes.map_err(StorageFailure::from);
                        self.tell_news(id, News::Peer(PeerInput::Notes(notes)));
                    }
                    None => self.wait(id, number, Operation::Notes(after)),
                }
            }
            Operation::ListForOutbox(after) => {
                let page = process.store.documents(Tenant::default(), after, DOCUMENTS_PAGE);
                let page = match page.now_or_never() {
                    Some(page) => page.map_err(StorageFailure::from),
                    None => Err(StorageFailure::Passing("busy".to_owned())),
                };
                self.tell_news(id, News::Peer(PeerInput::ListedForOutbox(page)));
            }
            Operation::Apply => {
                let now = self.nodes[id].now(self.now_us);
                let Some(process) = &mut self.nodes[id].process else { return };
                if let Some(apply) = process.applying.pop_front()
                    && let Some(peer) = process.brain.as_peer()
                {
                    peer.apply(now, apply);
                    self.carry_out(id);
                }
            }
        }
    }

    fn wait(&mut self, id: NodeId, number: u64, operation: Operation) {
        self.met(State::ReadWaited);
        if let Some(process) = &mut self.nodes[id].process {
            process.operations.insert(number, operation);
            process.late.push(number);
        }
    }

    fn list(&mut self, id: NodeId, connection: concord::replica::ConnectionId, store: &dyn Store) {
        let mut after = None;
        loop {
            let page = store.documents(Tenant::default(), after, DOCUMENTS_PAGE).now_or_never();
            let Some(Ok(page)) = page else { return };
            let Some(last) = page.last().cloned() else { return };
            after = Some(last);
            for document in page {
                self.tell(id, Event::SyncWith(connection, document));
            }
        }
    }

    /// Does a job of the engine with the profile's materialiser.
    fn job(&mut self, id: NodeId, number: u64, ticket: Ticket, document: DocumentId, job: Job) {
        let failures = u64::from(self.plan.settings.job_failures);
        let stream = 0x10B + id as u64;
        if !self.is_calm && fate(self.plan.seed, stream, number) % 1000 < failures {
            // What users wrote has to be taken; what else is too large can be done without.
            let may_be_large = match &job {
                Job::Build { incoming, .. } => incoming.is_empty(),
                Job::Extract { .. } => true,
                Job::Check { .. } => false,
            };
            let is_large = may_be_large && fate(self.plan.seed, stream, !number).is_multiple_of(3);
            let error = if is_large {
                self.met(State::JobTooLarge);
                JobError::OverLimit("it needs too much memory".to_owned())
            } else {
                self.met(State::JobWithoutWorker);
                JobError::Unavailable("all are busy".to_owned())
            };
            return self.worked(id, ticket, Err(error));
        }
        let Some(process) = &mut self.nodes[id].process else { return };
        let store = std::sync::Arc::clone(&process.store);
        let resolving = resolve::resolve(&*store, key(document.clone()), job.clone());
        match resolving.now_or_never() {
            Some(Ok(work)) => {
                let kind = match &work {
                    WorkerJob::Build { incoming, .. } if incoming.is_empty() => "compaction",
                    WorkerJob::Build { .. } => "upload",
                    WorkerJob::Extract { .. } => "extraction",
                    WorkerJob::Check { .. } => "check",
                    WorkerJob::Review { .. } => "review",
                };
                self.did(id, || format!("does a {kind} of {document:.6}"));
                let done =
                    self.library.once(&work, self.plan.profile, |work| match self.plan.profile {
                        Profile::Opaque => self.library.run(work),
                        Profile::Automerge => materialise::run(work, &WorkerLimits::default()),
                    });
                self.worked(id, ticket, done);
            }
            Some(Err(error)) => self.worked(id, ticket, Err(error)),
            None => {
                // Rows that it needs are being written.
                self.wait(id, number, Operation::Job(ticket, document, job));
            }
        }
    }

    fn worked(&mut self, id: NodeId, ticket: Ticket, done: Result<JobOutput, JobError>) {
        // Who is at work is not still.
        self.last_message_us = self.now_us;
        match &done {
            Ok(JobOutput::Built { .. }) => self.met(State::SnapshotBuilt),
            Ok(JobOutput::Changes(_)) => self.met(State::UploadTaken),
            Ok(JobOutput::Extracted(_)) => self.met(State::Extracted),
            Ok(JobOutput::Checked) => self.met(State::ChangesChecked),
            Ok(JobOutput::Reviewed(_)) => {}
            Err(JobError::Storage(_)) => self.met(State::JobWithoutRow),
            Err(error) => {
                let error = error.clone();
                self.did(id, || format!("a job failed: {error}"));
            }
        }
        self.tell(id, Event::WorkDone(ticket, done));
    }

    /// Jobs that were asked for and whose end a node has not heard of.
    pub(super) fn jobs_under_way(&self, id: NodeId) -> usize {
        let node = &self.nodes[id];
        let Some(process) = &node.process else { return 0 };
        let asked = process.operations.values().filter(|what| matches!(what, Operation::Job(..)));
        let ended = |news: &&News| matches!(news, News::Event(Event::WorkDone(..)));
        asked.count() + node.inbox.iter().filter(ended).count()
    }

    /// Whether nothing of a node is on its way to or from its disk.
    pub(super) fn is_at_rest(&self, id: NodeId) -> bool {
        self.nodes[id]
            .process
            .as_ref()
            .is_none_or(|process| process.writes.is_empty() && process.operations.is_empty())
            // Whoever is not with the relay that it prefers is about to be.
            && self.nodes[id].failover.as_ref().is_none_or(Failover::is_settled)
    }
}
