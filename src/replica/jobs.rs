//! Work of a document that needs its operations, all of it done elsewhere: opening what clients
//! upload, making snapshots, checking what was passed on, taking changes out of a snapshot.

use std::collections::VecDeque;

use bytes::Bytes;
use concord_protocol::{ChangeHash, RefuseCode, guard::ChangeHeader};

use super::{
    ChunkSource, ConnectionId, Counted, Effect, Job, JobError, JobOutput, Kind, Published, RowKey,
    RowWrite, StorageFailure, Ticket,
    core::{Core, Wake, refused},
    document::{Document, Inbound},
    graph::Graph,
    index::SnapshotIndex,
    uploads::{Changes, Upload},
};

/// Up to this many new changes of an uploaded document are taken in as changes.
pub(super) const EXPLODE_MAX: u32 = 1_000;

/// The same for a document of which nothing is here. More is kept in one piece: a snapshot is
/// four rows, and none of its changes is in memory.
pub(super) const EXPLODE_FIRST_MAX: u32 = 3;

/// Uploads of one document that may wait to be opened.
pub(super) const UPLOADS_MAX: usize = 64;

/// A background job may take one part in this many of a document's time.
const BACKGROUND_SHARE: u64 = 20;

/// Milliseconds that a document rests after a background job at most. A job may have taken long
/// because it waited for a disk that hangs, and whoever was passed something that breaks their
/// document should not find out an hour later than we could have.
const REST_MAX_MS: u64 = 180_000;

/// Milliseconds until work that a document does not allow (too large, damaged) is tried again.
pub(super) const HOPELESS_MS: u64 = 600_000;

/// Milliseconds until work for which there was no worker is tried again.
pub(super) const RETRY_MS: u64 = 5_000;

/// What a job at work is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Somebody's document chunk.
    Upload(Upload),
    /// A snapshot of the snapshot and the tail.
    Compact,
    /// The changes since the last check.
    Check { hashes: Vec<ChangeHash> },
    /// These changes before they are taken in (`strict`).
    Admit { from: Option<ConnectionId>, changes: VecDeque<(ChangeHeader, Bytes)> },
}

/// Changes taken out of the snapshot.
#[derive(Debug)]
pub(super) struct Extract {
    /// Out of which.
    pub(super) snapshot: [u8; 32],
    /// Not tried again before this.
    pub(super) not_before_ms: u64,
    pub(super) hashes: Vec<ChangeHash>,
    pub(super) ticket: Option<Ticket>,
    pub(super) result: Option<Result<Vec<Bytes>, ()>>,
}

/// A snapshot on its way to disk.
#[derive(Debug)]
pub(super) struct Adopting {
    pub(super) id: [u8; 32],
    pub(super) index: SnapshotIndex,
    pub(super) bytes: Bytes,
    /// Whose upload it is of.
    pub(super) from: Option<ConnectionId>,
    /// Changes that came with it.
    pub(super) tail: Changes,
}

/// The jobs of a document.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub(super) running: Option<(Ticket, Purpose, u64)>,
    pub(super) uploads: VecDeque<Upload>,
    /// A snapshot that is being written.
    pub(super) adopting: Option<Box<Adopting>>,
    /// The document was read again since `running` began: its result counts for nothing.
    is_stale: bool,
    /// The read of a snapshot, and of which.
    pub(super) snapshot_read: Option<(Ticket, [u8; 32])>,
    pub(super) snapshot: Option<Bytes>,
    pub(super) extract: Option<Box<Extract>>,
    /// No background job before this.
    pub(super) not_before_ms: u64,
    /// The last one could not be done.
    is_put_off: bool,
    /// Nothing is admitted before this (`strict`): there was no worker.
    pub(super) admit_not_before_ms: u64,
    /// No upload is opened before this: there was no worker, or its base could not be read.
    pub(super) upload_not_before_ms: u64,
    /// It was searched already for the change that keeps the document from being opened.
    pub(super) searched: bool,
}

impl Jobs {
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_none()
            && self.uploads.is_empty()
            && self.adopting.is_none()
            && self.snapshot_read.is_none()
            && self.extract.as_ref().is_none_or(|extract| extract.ticket.is_none())
    }

    pub(super) fn is_uploading(&self) -> bool {
        !self.uploads.is_empty() || matches!(self.running, Some((_, Purpose::Upload(_), _)))
    }

    pub(super) fn snapshot(&self) -> Option<Bytes> {
        self.snapshot.clone()
    }

    pub(super) fn extracted(&self, hashes: &[ChangeHash]) -> Option<Result<&[Bytes], ()>> {
        let extract = self.extract.as_ref().filter(|extract| extract.hashes == hashes)?;
        extract.result.as_ref().map(|result| match result {
            Ok(chunks) => Ok(chunks.as_slice()),
            Err(()) => Err(()),
        })
    }

    pub(super) fn drop_caches(&mut self) {
        self.snapshot = None;
        if self.extract.as_ref().is_some_and(|extract| extract.ticket.is_none()) {
            self.extract = None;
        }
    }

    /// The document is to be read again. Gives whose upload was being written as a snapshot.
    pub(super) fn begin_again(&mut self) -> Option<ConnectionId> {
        self.is_stale = self.running.is_some();
        self.searched = false;
        self.snapshot_read = None;
        self.drop_caches();
        self.adopting.take()?.from
    }

    pub(super) fn cached_bytes(&self) -> usize {
        let extracted =
            self.extract.iter().filter_map(|extract| extract.result.as_ref()?.as_ref().ok());
        self.snapshot.as_ref().map_or(0, Bytes::len)
            + extracted.flatten().map(Bytes::len).sum::<usize>()
            + self.uploads.iter().map(Upload::bytes).sum::<usize>()
    }
}

impl Document {
    pub(super) fn start(&mut self, core: &mut Core, purpose: Purpose, job: Job) {
        let ticket = core.ticket(&self.id);
        self.jobs.is_stale = false;
        self.jobs.is_put_off = false;
        self.jobs.running = Some((ticket, purpose, core.now.mono_ms));
        core.effect(Effect::Work(ticket, self.id.clone(), job));
    }

    /// Starts a snapshot or a check where one is due.
    pub(super) fn consider_background(&mut self, core: &mut Core) {
        let Some(graph) = self.graph() else { return };
        // Whatever is at work calls again when it ends.
        if !self.jobs.is_idle() {
            return;
        }
        // What is withheld stays behind every snapshot: with it, one would be due for ever.
        let (changes, bytes) = graph.served_tail();
        let unchecked = graph.has_unchecked();
        let snapshot_bytes = graph.snapshot.as_ref().map_or(0, |s| s.index.root.snapshot_bytes);
        if core.now.mono_ms < self.jobs.not_before_ms {
            if changes > 0 {
                self.wake_for_check(core, self.jobs.not_before_ms);
            }
            return;
        }
        let long = changes >= core.config.compact_changes;
        let large = bytes as u64 >= (core.config.compact_bytes as u64).max(snapshot_bytes);
        if long || large {
            if !core.take_job_slot(&self.id) {
                return;
            }
            let base = sources(graph, |node| node.durable);
            self.start(
                core,
                Purpose::Compact,
                Job::Build { base, incoming: Vec::new(), explode_max: 0 },
            );
        } else if unchecked {
            self.wake_for_check(core, core.now.mono_ms + core.config.check_ms);
        }
    }

    fn wake_for_check(&mut self, core: &mut Core, at_ms: u64) {
        if !std::mem::replace(&mut self.check_set, true) {
            core.wake_at(at_ms, &self.id, Wake::Check);
        }
    }

    /// The time has come to check what was passed on unchecked.
    pub(super) fn check_due(&mut self, core: &mut Core) {
        self.check_set = false;
        self.check_now(core);
    }

    fn check_now(&mut self, core: &mut Core) {
        let Some(graph) = self.graph() else { return };
        if !self.jobs.is_idle() || core.now.mono_ms < self.jobs.not_before_ms {
            return;
        }
        let unchecked = || graph.tail().iter().filter(|n| !n.withheld && !n.checked);
        if unchecked().next().is_none() || !core.take_job_slot(&self.id) {
            return;
        }
        let hashes = unchecked().map(|node| node.hash).collect();
        let incoming = unchecked().map(|node| ChunkSource::Inline(node.bytes.clone())).collect();
        let base = sources(graph, |node| node.checked);
        self.start(core, Purpose::Check { hashes }, Job::Check { base, incoming });
    }

    /// Whether the document may leave memory; starts what has to be done before it does.
    pub(super) fn check_before_eviction(&mut self, core: &mut Core) -> bool {
        if core.now.mono_ms < self.jobs.not_before_ms {
            // It stays for the sake of a check that is due soon, not for one that cannot be done.
            return self.jobs.is_put_off || !self.is_unchecked();
        }
        self.check_now(core);
        // Where all workers are busy it waits for one: who leaves unchecked may not come back.
        self.jobs.is_idle() && !self.is_unchecked()
    }

    /// A job ended.
    pub(super) fn work_done(
        &mut self,
        core: &mut Core,
        ticket: Ticket,
        result: Result<JobOutput, JobError>,
    ) {
        if self.jobs.extract.as_ref().is_some_and(|extract| extract.ticket == Some(ticket)) {
            return self.extract_done(core, result);
        }
        let Some(result) = self.rebuilt(core, ticket, result) else {
            return;
        };
        let Some((_, purpose, started_ms)) =
            self.jobs.running.take_if(|(running, ..)| *running == ticket)
        else {
            return;
        };
        let took_ms = core.now.mono_ms.saturating_sub(started_ms);
        if mutant!(FailedJobKeepsSlot) && result.is_err() {
            let has_slot = matches!(purpose, Purpose::Compact | Purpose::Check { .. });
            core.jobs += usize::from(has_slot);
        }
        if std::mem::take(&mut self.jobs.is_stale) {
            return self.work_was_stale(core, purpose);
        }
        if let Err(JobError::Storage(StorageFailure::Damaged(reason))) = &result {
            // All of them had the document's snapshot and nothing else from storage.
            self.snapshot_damaged(core, reason);
        }
        match purpose {
            Purpose::Upload(upload) => {
                core.free_upload_slot();
                self.upload_done(core, upload, result);
            }
            Purpose::Compact => {
                core.free_job_slot();
                self.jobs.not_before_ms = core.now.mono_ms + rest_ms(took_ms);
                self.compact_done(core, result);
            }
            Purpose::Check { hashes } => {
                core.free_job_slot();
                let next_ms = core.now.mono_ms + rest_ms(took_ms);
                self.jobs.not_before_ms = self.jobs.not_before_ms.max(next_ms);
                self.check_done(core, &hashes, result);
            }
            Purpose::Admit { from, changes } => self.admit_done(core, from, changes, result),
        }
        self.start_upload(core);
        self.consider_background(core);
        self.drive(core);
    }

    /// The document was read again while a job was at work: what is still wanted is done again.
    fn work_was_stale(&mut self, core: &mut Core, purpose: Purpose) {
        match purpose {
            Purpose::Upload(upload) => {
                core.free_upload_slot();
                self.jobs.uploads.push_front(upload);
            }
            Purpose::Compact | Purpose::Check { .. } => core.free_job_slot(),
            Purpose::Admit { from, changes } => {
                self.put_back(Inbound::Changes { from, changes, checked: false });
            }
        }
        self.start_upload(core);
        self.consider_background(core);
        self.drive(core);
    }

    fn compact_done(&mut self, core: &mut Core, result: Result<JobOutput, JobError>) {
        match result {
            Ok(JobOutput::Built { snapshot, index }) => {
                mark!(DoneAfterPutOff, after PutOff, of (&core.config.us, &self.id));
                core.count(Counted::Compacted);
                self.write_snapshot(core, snapshot, &index, None, &mut Changes::new());
            }
            Err(JobError::Breaks { hash, reason }) => self.quarantine(core, hash, &reason),
            Err(JobError::Base(_)) => self.search(core),
            Err(error) => self.postpone(core, &error),
            Ok(_) => {}
        }
    }

    /// The document cannot be opened: which of its changes is it?
    pub(super) fn search(&mut self, core: &mut Core) {
        let Some(graph) = self.graph() else {
            return;
        };
        let tail = || graph.tail().iter().filter(|node| !node.withheld);
        let hashes = tail().map(|node| node.hash).collect();
        let incoming = tail().map(|node| ChunkSource::Inline(node.bytes.clone())).collect();
        let base = sources(graph, |_| false);
        // Not one of those that wait for a slot: until it is done the document is stuck.
        core.jobs += 1;
        self.jobs.searched = true;
        self.jobs.not_before_ms = core.now.mono_ms + HOPELESS_MS;
        self.start(core, Purpose::Check { hashes }, Job::Check { base, incoming });
    }

    fn check_done(
        &mut self,
        core: &mut Core,
        hashes: &[ChangeHash],
        result: Result<JobOutput, JobError>,
    ) {
        match result {
            Ok(_) => {
                mark!(DoneAfterPutOff, after PutOff, of (&core.config.us, &self.id));
                if let Some(graph) = self.graph_mut() {
                    graph.mark_checked(hashes);
                }
            }
            Err(JobError::Breaks { hash, reason }) => self.quarantine(core, hash, &reason),
            Err(error) => self.postpone(core, &error),
        }
    }

    fn postpone(&mut self, core: &mut Core, error: &JobError) {
        let ms = match error {
            JobError::Storage(_) | JobError::Unavailable(_) => RETRY_MS,
            _ => HOPELESS_MS,
        };
        self.jobs.not_before_ms = core.now.mono_ms + ms;
        self.jobs.is_put_off = true;
        core.count(Counted::JobPostponed);
        mark!(PutOff, of(&core.config.us, &self.id));
    }

    /// Withholds a change that broke the document, and all that builds on it.
    fn quarantine(&mut self, core: &mut Core, hash: ChangeHash, reason: &str) {
        // What builds on it is nothing to give to programs once they were told of it.
        self.publish_news(core);
        let Some(graph) = self.graph_mut() else {
            return;
        };
        let broken = graph.node_by_hash(&hash).map(|node| node.bytes.clone());
        let withheld = graph.withhold(&hash);
        if withheld.is_empty() {
            self.jobs.not_before_ms = core.now.mono_ms + HOPELESS_MS;
            self.jobs.is_put_off = true;
            return;
        }
        let writers: Vec<(ChangeHash, Option<ConnectionId>)> = withheld
            .iter()
            .map(|hash| (*hash, graph.node_by_hash(hash).and_then(|node| node.from)))
            .collect();
        core.count(Counted::Quarantined);
        reason.clone_into(&mut self.meta.reason);
        self.meta.withheld.push(hash.0);
        self.write_meta();
        if let Some(bytes) = broken {
            let row = RowKey { kind: Kind::Quarantine, id: hash.0, part: 0 };
            self.writes.push(RowWrite::Put(row, bytes));
        }
        for (hash, from) in writers {
            if let Some(from) = from {
                let refusal = refused(Some(hash), RefuseCode::Unmaterialisable, reason);
                core.refuse(from, &self.id, refusal, self.durable());
            }
        }
        if self.opened {
            let told = Published::Quarantined(format!("change {hash}: {reason}"));
            core.effect(Effect::Publish(self.id.clone(), told));
        }
        for reader in self.readers.values_mut() {
            reader.dirty = true;
        }
        self.jobs.not_before_ms = 0;
        self.jobs.searched = false;
    }
}

/// Milliseconds without a background job, after one that took so long.
fn rest_ms(took_ms: u64) -> u64 {
    took_ms.saturating_mul(BACKGROUND_SHARE).min(REST_MAX_MS)
}

/// The chunks that make the document: its snapshot, then those of its tail that are served and
/// chosen.
pub(super) fn sources(
    graph: &Graph,
    chosen: impl Fn(&super::graph::Node) -> bool,
) -> Vec<ChunkSource> {
    let snapshot = graph
        .snapshot
        .iter()
        .map(|s| ChunkSource::Stored(RowKey { kind: Kind::Snapshot, id: s.id, part: 0 }));
    let tail = graph.tail().iter().filter(|node| !node.withheld && chosen(node));
    snapshot.chain(tail.map(|node| ChunkSource::Inline(node.bytes.clone()))).collect()
}
