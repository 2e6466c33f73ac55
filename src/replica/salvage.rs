//! What is done about damaged rows, so that a document comes back by itself and no other one
//! notices.
//!
//! - A damaged index: the snapshot beside it may be whole. A materialiser builds the index anew,
//!   it is written in the place of the damaged one, and the document is read again. What comes
//!   for the document meanwhile waits in its inbox.
//! - A damaged snapshot: the document is read again without it, and says of itself no more than
//!   what is left. Its rows stay where they are, and the meta row names them. What it held comes
//!   back from the peers, and makes the next snapshot.
//! - A damaged change: it is not there, and those that build on it wait for it as they would for
//!   any other. It is written again when somebody brings it.

use std::sync::Arc;

use bytes::Bytes;
use concord_protocol::ChangeHash;
use sha2::{Digest as _, Sha256};

use super::{
    ChunkSource, Counted, Effect, Job, JobError, JobOutput, Kind, Published, RowKey, RowWrite,
    StorageFailure, Ticket,
    core::{Core, Wake},
    document::{Document, State, delete_snapshot, meta_row},
    graph::Graph,
    index::{IndexRoot, Missing, PagedIndex, SnapshotIndex},
    jobs::{HOPELESS_MS, RETRY_MS},
    meta::Meta,
};
use crate::record;

/// Rebuilds of one index, one after another, before the snapshot is taken to be what cannot be
/// opened.
const REBUILDS_MAX: u32 = 3;

/// What a document knows of its damage.
#[derive(Debug, Default)]
pub(super) struct Salvage {
    /// The index of this snapshot could not be used.
    suspect: Option<[u8; 32]>,
    /// The index that the document waits for ([`State::Salvaging`]).
    wanted: Option<Wanted>,
    /// The job that builds it, and of which snapshot.
    running: Option<(Ticket, [u8; 32])>,
    /// Rebuilds that were begun, and when the last one was.
    rebuilds: u32,
    last_ms: u64,
    /// Changes whose rows are damaged.
    pub(super) changes: Vec<ChangeHash>,
    /// Snapshots that were given up and whose roots can be read.
    given_up: Vec<([u8; 32], IndexRoot)>,
    /// The damage that the program in this process was told of.
    pub(super) told: Damage,
}

/// What is missing of a document because its rows are damaged.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    snapshots: Vec<[u8; 32]>,
    changes: Vec<ChangeHash>,
}

/// An index to be built anew.
#[derive(Debug)]
struct Wanted {
    snapshot: [u8; 32],
    /// Other snapshots that are there, and their heads.
    others: Vec<([u8; 32], Vec<ChangeHash>)>,
    not_before_ms: u64,
}

/// The snapshots of a document, by what their roots say.
#[derive(Debug, Default)]
pub(super) struct Roots {
    /// Those that can be read.
    readable: Vec<([u8; 32], IndexRoot)>,
    /// Those that cannot.
    damaged: Vec<[u8; 32]>,
    /// Those that were given up earlier and can be read.
    given_up: Vec<([u8; 32], IndexRoot)>,
}

impl Salvage {
    /// A change was taken in, and is written again if its row was damaged.
    pub(super) fn healed(&mut self, hash: &ChangeHash) {
        self.changes.retain(|damaged| damaged != hash);
        self.told.changes.retain(|damaged| damaged != hash);
    }

    /// Whether a job of it is at work.
    pub(super) fn is_at_work(&self) -> bool {
        self.running.is_some()
    }
}

impl Roots {
    /// Tells the roots of a document apart.
    pub(super) fn new(rows: Vec<([u8; 32], Bytes)>, corrupt: &[RowKey], meta: &Meta) -> Self {
        let mut this = Self::default();
        for (id, bytes) in rows {
            match record::decode::<IndexRoot>(&bytes) {
                Ok(root) if meta.damaged.contains(&id) => this.given_up.push((id, root)),
                Ok(root) => this.readable.push((id, root)),
                Err(_) => this.damaged.push(id),
            }
        }
        let corrupt = corrupt.iter().filter(|row| row.kind == Kind::IndexRoot).map(|row| row.id);
        this.damaged.extend(corrupt);
        this.damaged.retain(|id| !meta.damaged.contains(id));
        this
    }

    /// The snapshot to go by: no other one covers it, and it has the most changes.
    fn newest(&self) -> Option<usize> {
        let covered =
            |id: &[u8; 32]| self.readable.iter().any(|(_, root)| root.covers.contains(id));
        let order = |at: &usize| {
            let (id, root) = &self.readable[*at];
            (!covered(id), root.changes, *id)
        };
        (0..self.readable.len()).max_by_key(order)
    }
}

impl Document {
    /// Index pages of this snapshot are damaged or missing.
    pub(super) fn index_damaged(&mut self, core: &mut Core, snapshot: [u8; 32]) {
        core.count(Counted::CorruptRow);
        self.salvage.suspect = Some(snapshot);
        self.reread(core);
    }

    /// The stored snapshot is damaged or missing.
    pub(super) fn snapshot_damaged(&mut self, core: &mut Core, reason: &str) {
        let (State::Ready(graph) | State::Sorting(graph, _)) = &self.state else {
            return;
        };
        let Some(id) = graph.snapshot.as_ref().map(|snapshot| snapshot.id) else {
            return;
        };
        core.count(Counted::CorruptRow);
        if let Some(bytes) = self.jobs.snapshot() {
            // It is at hand by chance.
            self.writes.push(RowWrite::Put(RowKey { kind: Kind::Snapshot, id, part: 0 }, bytes));
            core.dirty.insert(self.id.clone());
            return;
        }
        self.give_up(core, id, reason);
    }

    /// Goes on without a snapshot.
    fn give_up(&mut self, core: &mut Core, snapshot: [u8; 32], reason: &str) {
        core.count(Counted::SnapshotLost);
        self.salvage.suspect = None;
        self.meta.damaged.push(snapshot);
        self.write_meta();
        let told = Published::Damaged(format!("a snapshot cannot be read any more: {reason}"));
        core.effect(Effect::Publish(self.id.clone(), told));
        self.salvage.told = self.damage();
        self.opening = self.opened;
        self.reread(core);
    }

    /// Reads the document from its rows once more. All who are here stay where they are.
    fn reread(&mut self, core: &mut Core) {
        // The load waits for what is written before it.
        self.write(core);
        self.publish_news(core);
        // What waits for others is judged again. What was read is read again.
        self.judge_orphans(|orphan| orphan.from.is_some());
        let adopting = self.leave_memory();
        if let Some(reader) = adopting.and_then(|from| self.readers.get_mut(&from)) {
            reader.uploading = false;
            reader.awaits_ack = true;
        }
        for reader in self.readers.values_mut() {
            reader.dirty = true;
        }
        self.ensure_loading(core);
        core.dirty.insert(self.id.clone());
    }

    /// Chooses the snapshot to go by. `None`: an index has to be built first.
    pub(super) fn choose_snapshot(&mut self, core: &mut Core, mut roots: Roots) -> Option<Graph> {
        self.salvage.given_up = std::mem::take(&mut roots.given_up);
        let newest = roots.newest().map(|at| roots.readable.swap_remove(at));
        if let Some((id, root)) = &newest {
            // A crash came between writing this snapshot and deleting what it covers.
            for (old, old_root) in &roots.readable {
                if root.covers.contains(old) {
                    mark!(TwoSnapshotsAtStart);
                    self.writes.extend(delete_snapshot(*old, old_root));
                }
            }
            // Its own pages are not known any more; they are no more than those of this one.
            for old in roots.damaged.extract_if(.., |old| root.covers.contains(old)) {
                self.writes.extend(delete_snapshot(old, root));
            }
            if self.salvage.suspect == Some(*id) {
                roots.damaged.push(*id);
            }
        }
        self.salvage.suspect = None;
        let Some(snapshot) = roots.damaged.first().copied() else {
            return Some(
                newest.map_or_else(Graph::default, |(id, root)| Graph::with_snapshot(id, root)),
            );
        };
        let heads = |root: &IndexRoot| root.heads.iter().map(|head| ChangeHash(*head)).collect();
        let others = newest.iter().chain(&roots.readable).map(|(id, root)| (*id, heads(root)));
        let others = others.filter(|(id, _)| *id != snapshot).collect();
        let salvage = &mut self.salvage;
        if core.now.mono_ms.saturating_sub(salvage.last_ms) > 2 * HOPELESS_MS {
            salvage.rebuilds = 0;
        }
        // Where one was built just now, the disk does not keep what it is given.
        let wait_ms = match salvage.rebuilds {
            0 => 0,
            many => RETRY_MS.saturating_mul(1 << many.min(16)).min(HOPELESS_MS),
        };
        let not_before_ms = core.now.mono_ms + wait_ms;
        salvage.wanted = Some(Wanted { snapshot, others, not_before_ms });
        self.state = State::Salvaging;
        self.rebuild(core);
        None
    }

    /// Starts building the index that the document waits for, if it is time.
    pub(super) fn rebuild(&mut self, core: &mut Core) {
        if !matches!(self.state, State::Salvaging) || self.salvage.is_at_work() {
            return;
        }
        let Some(Wanted { snapshot, not_before_ms, .. }) = self.salvage.wanted else {
            return;
        };
        if core.now.mono_ms < not_before_ms {
            core.wake_at(not_before_ms, &self.id, Wake::Check);
            return;
        }
        if !core.take_job_slot(&self.id) {
            return;
        }
        let ticket = core.ticket(&self.id);
        self.salvage.running = Some((ticket, snapshot));
        self.salvage.rebuilds += 1;
        self.salvage.last_ms = core.now.mono_ms;
        let row = RowKey { kind: Kind::Snapshot, id: snapshot, part: 0 };
        let base = vec![ChunkSource::Stored(row)];
        let job = Job::Build { base, incoming: Vec::new(), explode_max: 0 };
        core.effect(Effect::Work(ticket, self.id.clone(), job));
    }

    /// Takes the result of a rebuild, if it is one; gives it back if not.
    pub(super) fn rebuilt(
        &mut self,
        core: &mut Core,
        ticket: Ticket,
        result: Result<JobOutput, JobError>,
    ) -> Option<Result<JobOutput, JobError>> {
        let Some((_, built)) = self.salvage.running.take_if(|(running, _)| *running == ticket)
        else {
            return Some(result);
        };
        core.free_job_slot();
        if !matches!(self.state, State::Salvaging) {
            return None;
        }
        let Some(wanted) = self.salvage.wanted.take_if(|wanted| wanted.snapshot == built) else {
            self.rebuild(core);
            return None;
        };
        let again = match &result {
            Err(JobError::Unavailable(_) | JobError::Storage(StorageFailure::Passing(_))) => true,
            // It was within the limits once: the machine may be busy.
            Err(JobError::OverLimit(_)) => self.salvage.rebuilds < REBUILDS_MAX,
            _ => false,
        };
        match result {
            Ok(JobOutput::Built { snapshot, index })
                if self.write_index(&wanted, &snapshot, &index) =>
            {
                core.count(Counted::IndexRebuilt);
                self.reread(core);
            }
            Err(_) if again => {
                core.count(Counted::JobPostponed);
                let not_before_ms = core.now.mono_ms + RETRY_MS;
                self.salvage.wanted = Some(Wanted { not_before_ms, ..wanted });
                self.rebuild(core);
            }
            Err(error) => self.give_up(core, built, &error.to_string()),
            Ok(_) => self.give_up(core, built, "its index cannot be built"),
        }
        None
    }

    /// Writes an index that was built anew, and the snapshot where it is not the very same.
    fn write_index(&mut self, wanted: &Wanted, bytes: &Bytes, index: &Arc<SnapshotIndex>) -> bool {
        let id: [u8; 32] = Sha256::digest(bytes).into();
        let Ok(whole) = PagedIndex::whole(index) else {
            return false;
        };
        let holds = |head: &ChangeHash| matches!(whole.position(head), Ok(Some(_)));
        let mut index = SnapshotIndex::clone(index);
        let held = wanted.others.iter().filter(|(_, heads)| heads.iter().all(holds));
        let others = held.map(|(other, _)| *other);
        index.root.covers =
            others.chain([wanted.snapshot]).filter(|covered| *covered != id).collect();
        let snapshot = (id != wanted.snapshot).then(|| bytes.clone());
        self.put_snapshot(id, snapshot, &index)
    }

    /// Puts the rows of a snapshot among what is to be written, its root last: where that is, all
    /// of the snapshot is. Without bytes only its index.
    pub(super) fn put_snapshot(
        &mut self,
        id: [u8; 32],
        bytes: Option<Bytes>,
        index: &SnapshotIndex,
    ) -> bool {
        let Ok(root) = record::encode(&index.root) else {
            return false;
        };
        let row = |kind, part| RowKey { kind, id, part };
        if mutant!(RootFirst) {
            self.writes.push(RowWrite::Put(row(Kind::IndexRoot, 0), root.clone().into()));
        }
        let snapshot = bytes.map(|bytes| (row(Kind::Snapshot, 0), bytes));
        let pages = index
            .pages
            .iter()
            .map(|(part, page)| (row(Kind::IndexPage, *part), Bytes::copy_from_slice(page)));
        let rows =
            snapshot.into_iter().chain(pages).chain([(row(Kind::IndexRoot, 0), root.into())]);
        self.writes.extend(rows.map(|(key, bytes)| RowWrite::Put(key, bytes)));
        if self.meta.damaged.contains(&id) {
            // It came back the very same, and is written anew.
            self.meta.damaged.retain(|damaged| *damaged != id);
            self.write_meta();
        }
        true
    }

    /// Puts the meta row among what is to be written.
    pub(super) fn write_meta(&mut self) {
        if let Ok(meta) = self.meta.write() {
            self.writes.push(RowWrite::Put(meta_row(), meta.into()));
        }
    }

    /// Once what was read is in order: deletes damaged rows of which everything is here again.
    pub(super) fn clear_away(&mut self) -> Result<(), Missing> {
        let State::Sorting(graph, _) = &self.state else {
            return Ok(());
        };
        let mut back = Vec::new();
        for (at, (_, root)) in self.salvage.given_up.iter().enumerate() {
            if holds_all(graph, root.heads.iter().map(|head| ChangeHash(*head)))? {
                back.push(at);
            }
        }
        let mut healed = Vec::new();
        for hash in &self.salvage.changes {
            if graph.node_by_hash(hash).is_none() && graph.position(hash)?.is_some() {
                healed.push(*hash);
            }
        }
        for at in back.into_iter().rev() {
            let (id, root) = self.salvage.given_up.swap_remove(at);
            self.writes.extend(delete_snapshot(id, &root));
            self.meta.damaged.retain(|damaged| *damaged != id);
            self.write_meta();
        }
        for hash in healed {
            self.salvage.changes.retain(|damaged| *damaged != hash);
            self.writes.push(RowWrite::Delete(super::document::change_row(&hash)));
        }
        Ok(())
    }

    fn damage(&self) -> Damage {
        let is_here = |hash: &ChangeHash| {
            self.graph().is_some_and(|graph| matches!(graph.position(hash), Ok(Some(_))))
        };
        Damage {
            snapshots: self.meta.damaged.clone(),
            changes: self.salvage.changes.iter().filter(|hash| !is_here(hash)).copied().collect(),
        }
    }

    /// Tells a program that has the document open, or is about to, of damage that it does not know
    /// of. What it is given then is all that there is.
    pub(super) fn tell_damage(&mut self, core: &mut Core) {
        let damage = self.damage();
        if !self.opened || damage == self.salvage.told {
            return;
        }
        let (snapshots, changes) = (damage.snapshots.len(), damage.changes.len());
        let is_damaged = damage != Damage::default();
        self.salvage.told = damage;
        if is_damaged {
            let what =
                format!("{snapshots} snapshots and {changes} changes are damaged and missing");
            core.effect(Effect::Publish(self.id.clone(), Published::Damaged(what)));
            self.opening = true;
        }
    }
}

fn holds_all(graph: &Graph, hashes: impl Iterator<Item = ChangeHash>) -> Result<bool, Missing> {
    for hash in hashes {
        if graph.position(&hash)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
