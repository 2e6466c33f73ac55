//! Documents that stay open between questions about them: what it costs to look again follows what
//! is new, and not the document.
//!
//! Whoever asks gives all that is stored, as if nothing were kept. Where that is what is open here
//! and some changes more, those are applied; where it is anything else, all is loaded again.

use std::collections::HashSet;

use automerge::{Automerge, ReadDoc as _};
use bytes::Bytes;
use concord_protocol::{ChangeHash, Limits, guard};

use super::document::{self, Fault};
use crate::review::Follower;

/// Operations from which on a document is kept: fewer are loaded in less than a millisecond.
const OPS_MIN: u64 = 1_000;
/// Operations of all documents that are kept. 100,000 take some 30 MiB beside the 20 of a worker that
/// has worked, and one that holds [more than it may](super::limits::RESIDENT_BYTES_MAX) is replaced.
const OPS_MAX: u64 = 120_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Used last comes last.
    open: Vec<Open>,
}

/// A document that is open.
#[derive(Debug)]
pub(super) struct Open {
    name: String,
    pub(super) doc: Automerge,
    pub(super) follower: Follower,
    /// The document chunks that it was loaded of.
    loaded: Vec<Bytes>,
    /// The changes that came on top of them.
    beyond: HashSet<ChangeHash>,
}

impl Kept {
    /// Opens a document of which this is stored.
    pub(super) fn open(
        &mut self,
        name: &str,
        base: &[Bytes],
        limits: &Limits,
    ) -> Result<Open, Fault> {
        let documents = base.partition_point(|run| document::is_document(run));
        let (loaded, runs) = base.split_at(documents);
        let kept = self.open.iter().position(|open| open.name == name);
        if let Some(mut open) = kept.map(|at| self.open.remove(at))
            && open.loaded == loaded
            && open.add(runs, limits)?
        {
            return Ok(open);
        }
        let mut doc = Automerge::new();
        document::add(&mut doc, base, limits)?;
        let (loaded, beyond) = match changes(runs, limits) {
            Some(changes) => (loaded, changes.into_iter().map(|(hash, _)| hash).collect()),
            // Nothing is ever on top of that.
            None => (base, HashSet::new()),
        };
        let (name, loaded) = (name.to_owned(), loaded.to_vec());
        Ok(Open { name, doc, follower: Follower::default(), loaded, beyond })
    }

    /// Whether this document is open.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.open.iter().any(|open| open.name == name)
    }

    /// Keeps a document, if it is worth it, and no more than there is room for.
    pub(super) fn keep(&mut self, open: Open) {
        if open.ops() < OPS_MIN {
            return;
        }
        self.open.push(open);
        let mut ops: u64 = self.open.iter().map(Open::ops).sum();
        while ops > OPS_MAX && !self.open.is_empty() {
            ops -= self.open.remove(0).ops();
        }
    }
}

impl Open {
    /// Adds what is new in the changes that are stored. Not if something is here that is not
    /// stored: what was decided here need not have been.
    fn add(&mut self, runs: &[Bytes], limits: &Limits) -> Result<bool, Fault> {
        let Some(mut stored) = changes(runs, limits) else { return Ok(false) };
        let hashes: HashSet<ChangeHash> = stored.iter().map(|(hash, _)| *hash).collect();
        if !self.beyond.is_subset(&hashes) {
            return Ok(false);
        }
        stored.retain(|(hash, _)| !self.beyond.contains(hash));
        let new: Vec<Bytes> = stored.into_iter().map(|(_, chunk)| chunk).collect();
        document::add(&mut self.doc, &new, limits)?;
        self.beyond = hashes;
        Ok(true)
    }

    /// Notes what was written here since it had these heads.
    pub(super) fn wrote(&mut self, since: &[automerge::ChangeHash]) {
        let wrote = self.doc.get_changes(since).into_iter();
        self.beyond.extend(wrote.map(|change| ChangeHash(change.hash().0)));
    }

    fn ops(&self) -> u64 {
        self.doc.stats().num_ops
    }
}

/// Changes as they are stored, with their names; `None` if there is anything else.
fn changes(runs: &[Bytes], limits: &Limits) -> Option<Vec<(ChangeHash, Bytes)>> {
    let mut changes = Vec::new();
    for run in runs {
        for chunk in guard::split(run, limits).ok()? {
            let header = guard::check_change(&chunk.bytes, limits).ok()?;
            changes.push((header.hash, chunk.bytes));
        }
    }
    Some(changes)
}

#[cfg(test)]
mod tests;
