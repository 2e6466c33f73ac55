//! What is on the disks of nodes, as the checks of a world see it.

use concord::{
    replica::{Kind, RowKey},
    store::StoreError,
};
use concord_protocol::ChangeHash;
use futures_util::FutureExt as _;

use super::{NodeId, World, storage::key};
use crate::opaque::Hashes;

/// Changes of a document on a disk.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Those that everybody is to have.
    pub(super) sound: Hashes,
    /// Those that break it, and what builds on them.
    pub(super) spoiled: Hashes,
}

impl World<'_> {
    /// Whether a node's disk keeps a change as one that breaks its document.
    pub(super) fn is_quarantined(&self, id: NodeId, document: u8, hash: &ChangeHash) -> bool {
        let Some(process) = &self.nodes[id].process else { return false };
        let row = RowKey { kind: Kind::Quarantine, id: hash.0, part: 0 };
        let document = key(self.documents[usize::from(document)].clone());
        let read = process.store.read(document, vec![row]).now_or_never();
        matches!(read, Some(Ok(rows)) if rows.iter().any(Option::is_some))
    }

    /// A row of a document that is not what was written, as the store says.
    pub(super) fn half_row(&self, id: NodeId, document: u8) -> Option<String> {
        let process = self.nodes[id].process.as_ref()?;
        let key = key(self.documents[usize::from(document)].clone());
        let stored = process.store.load(key).now_or_never()?.ok()?;
        stored.corrupt.first().map(|row| format!("{row:?}"))
    }

    /// Snapshots and changes of a document on a node's disk.
    fn chunks_on_disk(&self, id: NodeId, document: u8) -> Result<Vec<bytes::Bytes>, String> {
        let unreadable = |error: &dyn std::fmt::Display| error.to_string();
        let Some(process) = &self.nodes[id].process else {
            return Err("the node is down".to_owned());
        };
        let document = key(self.documents[usize::from(document)].clone());
        let loading = process.store.load(document.clone()).now_or_never();
        let stored = loading.ok_or("busy")?.map_err(|error| unreadable(&error))?;
        let mut chunks: Vec<bytes::Bytes> = Vec::new();
        for (snapshot, _) in &stored.roots {
            let row = RowKey { kind: Kind::Snapshot, id: *snapshot, part: 0 };
            let read = process.store.read(document.clone(), vec![row]).now_or_never();
            match read.ok_or("busy")? {
                Ok(read) => chunks.extend(read.into_iter().flatten()),
                // It stays for whoever can do more with it.
                Err(StoreError::Corrupt { .. }) if self.nodes[id].is_rotten => {}
                Err(error) => return Err(unreadable(&error)),
            }
        }
        chunks.extend(stored.changes.into_iter().map(|(_, bytes)| bytes));
        Ok(chunks)
    }

    /// Changes of a document on a node's disk.
    pub(super) fn stored(&self, id: NodeId, document: u8) -> Result<Hashes, String> {
        let Kept { mut sound, spoiled } = self.kept(id, document)?;
        sound.extend(spoiled);
        Ok(sound)
    }

    /// Changes of a document on a node's disk, those apart that break it.
    pub(super) fn kept(&self, id: NodeId, document: u8) -> Result<Kept, String> {
        let chunks = self.chunks_on_disk(id, document)?;
        let members = chunks.iter().map(|chunk| self.library.members(chunk, self.plan.profile));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        // What builds on something that is not there is not there either.
        let mut kept = Kept::default();
        let mut waiting: Vec<_> = members.iter().flat_map(|members| &members.changes).collect();
        loop {
            let before = waiting.len();
            waiting.retain(|(hash, deps)| {
                let is_spoiled = |hash| kept.spoiled.contains(hash);
                let ready = deps.iter().all(|dep| kept.sound.contains(dep) || is_spoiled(dep));
                if ready && (self.library.breaks(hash) || deps.iter().any(is_spoiled)) {
                    kept.spoiled.insert(*hash);
                } else if ready {
                    kept.sound.insert(*hash);
                }
                !ready
            });
            if waiting.len() == before {
                break;
            }
        }
        Ok(kept)
    }

    /// A document as automerge makes it of what a node has on its disk.
    pub(super) fn assembled(
        &self,
        id: NodeId,
        document: u8,
    ) -> Result<automerge::Automerge, String> {
        let mut doc = automerge::Automerge::new();
        let spoiled = self.kept(id, document)?.spoiled;
        for chunk in self.chunks_on_disk(id, document)? {
            let members = self.library.members(&chunk, self.plan.profile)?;
            if members.changes.iter().any(|(hash, _)| spoiled.contains(hash)) {
                continue;
            }
            doc.load_incremental(&chunk).map_err(|error| error.to_string())?;
        }
        Ok(doc)
    }
}
