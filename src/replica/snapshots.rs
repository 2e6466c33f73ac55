//! Snapshots: read once for all who need them, taken apart for who needs little, and put in the
//! place of what they cover once they are on disk.

use bytes::Bytes;
use concord_protocol::ChangeHash;
use sha2::{Digest as _, Sha256};

use super::{
    ChunkSource, ConnectionId, Effect, Job, Kind, RowKey, RowWrite, StorageFailure,
    core::Core,
    document::{Document, Inbound, change_row, delete_snapshot},
    graph::Graph,
    index::{PagedIndex, SnapshotIndex},
    jobs::{Adopting, Extract},
};
use crate::record;
use std::{collections::VecDeque, sync::Arc};

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

    /// The snapshot's bytes came.
    pub(super) fn snapshot_read(
        &mut self,
        core: &mut Core,
        rows: Result<Vec<Option<Bytes>>, StorageFailure>,
    ) {
        let asked = self.jobs.snapshot_read.take().map(|(_, id)| id);
        match rows.map(|rows| rows.into_iter().next().flatten()) {
            Ok(bytes) => {
                self.jobs.snapshot = bytes.filter(|bytes| self.is_snapshot(bytes));
                let current = self.graph().and_then(|graph| graph.snapshot.as_ref()).map(|s| s.id);
                if self.jobs.snapshot.is_none() && asked == current {
                    let failure = StorageFailure("the snapshot is not in storage".to_owned());
                    return self.fail(core, &failure);
                }
                mark!(SnapshotReplaced, if self.jobs.snapshot.is_none());
                // Otherwise another took its place meanwhile; the readers ask again.
            }
            Err(failure) => self.fail(core, &failure),
        }
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
        let Ok(root) = record::encode(&index.root) else {
            return false;
        };
        let row = |kind, part| RowKey { kind, id, part };
        let put = |key, bytes: Bytes| RowWrite::Put(key, bytes);
        if mutant!(DeleteCoveredEarly) {
            self.writes.extend(covered_early(graph, &index));
        }
        if mutant!(RootFirst) {
            self.writes.push(put(row(Kind::IndexRoot, 0), root.clone().into()));
        }
        self.writes.push(put(row(Kind::Snapshot, 0), bytes.clone()));
        for (part, page) in &index.pages {
            let page = Bytes::copy_from_slice(page);
            self.writes.push(put(row(Kind::IndexPage, *part), page));
        }
        // The root last: where it is, all of the snapshot is.
        self.writes.push(put(row(Kind::IndexRoot, 0), root.into()));
        self.writing.adopt = true;
        self.write(core);
        self.jobs.adopting = Some(Box::new(Adopting { id, index, bytes, from }));
        true
    }

    /// The snapshot is on disk: it takes the place of what it covers, which goes.
    pub(super) fn adopt_snapshot(&mut self, core: &mut Core) {
        let Some(adopting) = self.jobs.adopting.take() else {
            mark!(SnapshotForgotten);
            return;
        };
        let Adopting { id, index, bytes, from } = *adopting;
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
        let deletes = covered.iter().map(|hash| RowWrite::Delete(change_row(hash)));
        self.writes.extend(deletes);
        if let Some(old) = old {
            self.writes.extend(delete_snapshot(old.id, &old.index.root));
        }
        self.jobs.snapshot = (!self.readers.is_empty()).then_some(bytes);
        if self.jobs.extract.as_ref().is_some_and(|extract| extract.ticket.is_none()) {
            self.jobs.extract = None;
        }
        for (connection, reader) in &mut self.readers {
            reader.dirty = true;
            if Some(*connection) == from {
                reader.uploading = false;
                reader.awaits_ack = true;
            }
        }
        self.durable_changed(core);
        // What waits may build on what came with the snapshot.
        for orphan in self.orphans.take_all().into_iter().rev() {
            let changes = VecDeque::from([(orphan.header, orphan.bytes)]);
            self.put_back(Inbound::Changes { from: orphan.from, changes, checked: false });
        }
        self.start_upload(core);
        self.drive(core);
    }
}

/// For `mutant!(DeleteCoveredEarly)`.
fn covered_early(graph: &Graph, index: &SnapshotIndex) -> Vec<RowWrite> {
    let Ok(whole) = PagedIndex::whole(index) else { return Vec::new() };
    let held = graph.tail().iter().filter(|node| matches!(whole.position(&node.hash), Ok(Some(_))));
    held.map(|node| RowWrite::Delete(change_row(&node.hash))).collect()
}
