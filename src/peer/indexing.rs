//! The index as all of a peer see it: documents tell it that they are different, the core what is
//! written, the indexer keeps it, and queries read it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use concord_protocol::{ChangeHash, DocumentId};
use tokio::sync::{Notify, watch};

use super::{
    held::Held,
    index::{marks::Marks, project::Projector, row, table::Table},
    locked, replace,
};
use crate::{
    digest::heads_number,
    replica::{RowWrite, Ticket},
};

/// How far the index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Progress {
    /// What is kept on disk is here.
    pub(super) is_recalled: bool,
    /// Documents that were never read yet, or by another schema, and how many there are in all.
    pub(super) backlog: usize,
    pub(super) total: usize,
}

/// See the module. Without an index nothing is done and nothing kept.
#[derive(Debug, Default)]
pub(super) struct Indexing {
    is_on: bool,
    marks: Mutex<Marks>,
    pub(super) table: RwLock<Table>,
    pub(super) projector: RwLock<Arc<Projector>>,
    /// There is something to look at.
    pub(super) wake: Notify,
    /// Somebody waits for it.
    pub(super) hurry: Notify,
    /// How much of what was asked for is looked at.
    pub(super) done: watch::Sender<u64>,
    /// Counts up with the table's changes.
    pub(super) changes: watch::Sender<u64>,
    /// Open in all documents that were looked at.
    pub(super) conflicts: watch::Sender<usize>,
    pub(super) progress: watch::Sender<Progress>,
    /// Documents that cannot be read.
    pub(super) unreadable: Mutex<BTreeSet<DocumentId>>,
}

impl Indexing {
    /// One that is kept, or none.
    pub(super) fn new(is_on: bool) -> Self {
        Self { is_on, ..Self::default() }
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    pub(super) fn marks(&self) -> MutexGuard<'_, Marks> {
        locked(&self.marks)
    }

    /// The core has rows of a document written: the mark that is to be written before.
    pub(super) fn writing(
        &self,
        ticket: Ticket,
        document: &DocumentId,
        writes: &[RowWrite],
    ) -> Option<RowWrite> {
        if !self.is_on || !self.marks().writing(ticket, document, writes) {
            return None;
        }
        row::mark(document)
    }

    /// A write is answered.
    pub(super) fn stored(&self, ticket: Ticket, is_open: impl FnOnce(&DocumentId) -> bool) {
        if self.is_on {
            self.marks().stored(ticket, is_open);
            self.wake.notify_one();
        }
    }

    /// A document's content is different.
    pub(super) fn touch(&self, document: &DocumentId) {
        if self.is_on {
            self.marks().look_at(document);
            self.wake.notify_one();
        }
    }

    /// A document may be purged in a moment.
    pub(super) fn goes(&self, document: &DocumentId) {
        if self.is_on {
            self.marks().goes(document);
        }
    }

    /// It was not.
    pub(super) fn stays(&self, document: &DocumentId) {
        if self.is_on && self.marks().stays(document) {
            self.wake.notify_one();
        }
    }

    /// A document is purged.
    pub(super) fn gone(&self, document: &DocumentId) {
        if self.is_on {
            self.marks().has_gone(document);
            self.wake.notify_one();
        }
    }

    /// These heads of a document are on disk, after all answers to writes that were told before.
    pub(super) fn durable(&self, held: &Held, heads: &[ChangeHash]) {
        if !self.is_on {
            return;
        }
        let heads = heads_number(heads.iter().map(|head| head.0));
        let mut marks = self.marks();
        let now = marks.now();
        // While more is on its way, who has seen what is not known.
        held.set_durable(marks.is_quiet(&held.id, now).then_some((now, heads)));
        if marks.settle_marked(&held.id) {
            self.wake.notify_one();
        }
    }

    /// Reads the table. Briefly: whoever edits does not wait for it, but whoever keeps it does.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Table) -> T) -> T {
        look(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the table; whether it did.
    pub(super) fn change(&self, change: impl FnOnce(&mut Table) -> bool) -> bool {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = change(&mut table);
        let conflicts = table.conflicts();
        drop(table);
        if is_other {
            replace(&self.conflicts, conflicts);
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
        is_other
    }

    pub(super) fn projector(&self) -> Arc<Projector> {
        Arc::clone(&self.projector.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_projector(&self, projector: Projector) {
        *self.projector.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(projector);
    }
}
