//! Snapshots: read once for all who need them, taken apart for who needs little, and put in the
//! place of what they cover once they are on disk.

use bytes::Bytes;
use concord_protocol::ChangeHash;
use sha2::{Digest as _, Sha256};

use super::{
    ChunkSource, ConnectionId, Effect, Job, JobError, JobOutput, Kind, Published, RowKey, RowWrite,
    StorageFailure,
    core::{Core, Wake},
    document::{Document, change_row, delete_snapshot},
    graph::Graph,
    index::{PagedIndex, SnapshotIndex},
    jobs::{Adopting, Extract, RETRY_MS},
    loading::Reading,
    uploads::Changes,
};
use std::sync::Arc;

impl Document {
    /// Takes changes out of the snapshot for a reader that is behind.
    pub(super) fn start_extract(&mut self, core: &mut Core, hashes: Vec<ChangeHash>) {
        let busy = self.jobs.extract.as_ref().is_some_and(|extract| extract.ticket.is_some());
        let Some(snapshot) = self.graph().and_then(|graph| graph.snapshot.as_ref()) else {
            return;
        };
        let id = snapshot.id;
        let too_soon = self.jobs.extract.as_ref().is_some_and(|extract| {
            extract.snapshot == id && core.now.mono_ms < extract.not_before_ms
        });
        if busy || too_soon {
            mark!(ExtractWaited, if busy);
            return;
        }
        let snapshot = ChunkSource::Stored(RowKey { kind: Kind::Snapshot, id, part: 0 });
        let ticket = core.ticket(&self.id);
        let job = Job::Extract { snapshot, hashes: hashes.clone() };
        self.jobs.extract = Some(Box::new(Extract {
            snapshot: id,
            not_before_ms: 0,
            hashes,
            ticket: Some(ticket),
            result: None,
        }));
        core.effect(Effect::Work(ticket, self.id.clone(), job));
    }

    /// Changes were taken out of the snapshot, or not.
    pub(super) fn extract_done(&mut self, core: &mut Core, result: Result<JobOutput, JobError>) {
        let current = self.graph().and_then(|graph| graph.snapshot.as_ref()).map(|s| s.id);
        let Some(extract) = &mut self.jobs.extract else {
            return;
        };
        extract.ticket = None;
        match result {
            Ok(JobOutput::Extracted(bytes)) => extract.result = Some(Ok(bytes)),
            // There was no worker, or the snapshot was replaced: ask again, but not at once where
            // it is the same that could not be read.
            Err(JobError::Storage(_) | JobError::Unavailable(_)) => {
                extract.not_before_ms = core.now.mono_ms + RETRY_MS;
                core.wake_at(extract.not_before_ms, &self.id, Wake::Check);
                if let Err(JobError::Storage(StorageFailure::Damaged(reason))) = result
                    && current == Some(extract.snapshot)
                {
                    self.snapshot_damaged(core, &reason);
                }
            }
            _ => extract.result = Some(Err(())),
        }
        core.dirty.insert(self.id.clone());
    }

    /// Has the snapshot's bytes read, if that is not under way.
    pub(super) fn want_snapshot(&mut self, core: &mut Core) {
        let Some(id) = self.graph().and_then(|g| g.snapshot.as_ref()).map(|s| s.id) else {
            return;
        };
        if self.jobs.snapshot_read.is_some() || !self.may_read(core) {
            return;
        }
        mark!(SnapshotRead);
        let ticket = core.ticket(&self.id);
        self.jobs.snapshot_read = Some((ticket, id));
        let row = RowKey { kind: Kind::Snapshot, id, part: 0 };
        core.effect(Effect::Read(ticket, self.id.clone(), vec![row]));
    }

    /// The snapshot's bytes came.
    pub(super) fn snapshot_read(
        &mut self,
        core: &mut Core,
        rows: Result<Vec<Option<Bytes>>, StorageFailure>,
    ) {
        let asked = self.jobs.snapshot_read.take().map(|(_, id)| id);
        let current = self.graph().and_then(|graph| graph.snapshot.as_ref()).map(|s| s.id);
        let gone = || StorageFailure::Damaged("it is not what was written, or gone".to_owned());
        let bytes = rows.and_then(|rows| {
            let bytes = rows.into_iter().next().flatten();
            bytes.filter(|bytes| self.is_snapshot(bytes)).ok_or_else(gone)
        });
        match bytes {
            Ok(bytes) => {
                self.reading = Reading::default();
                self.jobs.snapshot = Some(bytes);
            }
            Err(StorageFailure::Damaged(reason)) if asked == current => {
                return self.snapshot_damaged(core, &reason);
            }
            Err(failure @ StorageFailure::Passing(_)) => self.read_failed(core, &failure),
            // Another took its place meanwhile; whoever waits asks again.
            Err(_) => {
                mark!(SnapshotReplaced);
            }
        }
        self.publish_opened(core);
        core.dirty.insert(self.id.clone());
    }

    pub(super) fn is_snapshot(&self, bytes: &[u8]) -> bool {
        let id: [u8; 32] = Sha256::digest(bytes).into();
        self.graph().and_then(|graph| graph.snapshot.as_ref()).is_some_and(|s| s.id == id)
    }

    /// Writes a snapshot; it takes effect when it is on disk. Gives whether there was anything
    /// to write.
    pub(super) fn write_snapshot(
        &mut self,
        core: &mut Core,
        bytes: Bytes,
        index: &Arc<SnapshotIndex>,
        from: Option<ConnectionId>,
        tail: &mut Changes,
    ) -> bool {
        let mut index = SnapshotIndex::clone(index);
        let Some(graph) = self.graph() else {
            return false;
        };
        index.root.covers = graph.snapshot.iter().map(|snapshot| snapshot.id).collect();
        let id: [u8; 32] = Sha256::digest(&bytes).into();
        if index.root.covers.contains(&id) {
            mark!(SnapshotSame);
            return false;
        }
        if mutant!(DeleteCoveredEarly) {
            self.writes.extend(covered_early(graph, &index));
        }
        if !self.put_snapshot(id, Some(bytes.clone()), &index) {
            return false;
        }
        self.writing.adopt = true;
        self.write(core);
        let tail = std::mem::take(tail);
        self.jobs.adopting = Some(Box::new(Adopting { id, index, bytes, from, tail }));
        true
    }

    /// The snapshot is on disk: it takes the place of what it covers, which goes.
    pub(super) fn adopt_snapshot(&mut self, core: &mut Core) {
        let Some(adopting) = self.jobs.adopting.take() else {
            mark!(SnapshotForgotten);
            return;
        };
        let Adopting { id, index, bytes, from, tail } = *adopting;
        let Some(graph) = self.graph_mut() else {
            return;
        };
        let old = graph.snapshot.take();
        let Ok(covered) = graph.adopt_snapshot(id, &index) else {
            graph.snapshot = old;
            return;
        };
        mark!(TailStayed, if !graph.tail().is_empty());
        mark!(AdoptedUpload, if from.is_some());
        if let Some(old) = old {
            self.writes.extend(delete_snapshot(old.id, &old.index.root));
        }
        let is_removing = !self.covered.is_empty();
        self.covered.extend(covered);
        if !is_removing {
            self.remove_covered(core);
        }
        if from.is_some() && self.opened && !self.opening {
            // Not before: what is made on top of it here has to find it here.
            let published = Published::Snapshot(bytes.clone());
            core.effect(Effect::Publish(self.id.clone(), published));
        }
        self.jobs.snapshot = (!self.readers.is_empty()).then_some(bytes);
        if self.jobs.extract.as_ref().is_some_and(|extract| extract.ticket.is_none()) {
            self.jobs.extract = None;
        }
        if let Some(from) = from {
            self.put_back_tail(from, tail);
        }
        // What waits may build on what came with the snapshot, or be in it.
        self.judge_orphans(|_| true);
        self.publish_opened(core);
        for (connection, reader) in &mut self.readers {
            reader.dirty = true;
            if Some(*connection) == from {
                reader.uploading = false;
                reader.awaits_ack = true;
            }
        }
        self.durable_changed(core);
        self.start_upload(core);
        self.drive(core);
    }

    /// Has some of the rows go that the snapshot covers. Many at once would keep the store's writer
    /// for seconds, and all that others write meanwhile: the next go when these have gone. What a
    /// crash leaves goes when the document is read.
    pub(super) fn remove_covered(&mut self, core: &mut Core) {
        let some = self.covered.len().min(core.config.remove_rows.max(1));
        let deletes = self.covered.drain(..some).map(|hash| RowWrite::Delete(change_row(&hash)));
        self.writes.extend(deletes);
        self.writing.removes = !self.covered.is_empty();
        mark!(RemovedInParts, if self.writing.removes);
        self.write(core);
    }
}

/// For `mutant!(DeleteCoveredEarly)`.
fn covered_early(graph: &Graph, index: &SnapshotIndex) -> Vec<RowWrite> {
    let Ok(whole) = PagedIndex::whole(index) else { return Vec::new() };
    let held = graph.tail().iter().filter(|node| matches!(whole.position(&node.hash), Ok(Some(_))));
    held.map(|node| RowWrite::Delete(change_row(&node.hash))).collect()
}
