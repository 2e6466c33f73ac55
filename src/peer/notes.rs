//! The outbox's rows: what the core has written and read of them, and when.
//!
//! One row says that an outbox is kept at all. A store without it was written by a version that kept
//! none: there every document is taken for unconfirmed, once.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use bytes::Bytes;
use concord_protocol::DocumentId;

use super::{
    base::Heads,
    core::{Action, Core},
    outbox::Note,
};
use crate::{
    entity::Level,
    replica::{Kind, RowKey, RowWrite, StorageFailure},
    store::{DocumentKey, Store, StoreError, Tenant},
};

/// The row that stands for the outbox's entry of a document.
pub(super) const OUTBOX_ROW: RowKey = RowKey { kind: Kind::Meta, id: [0; 32], part: 0 };

/// What is in the row that says that an outbox is kept.
const MARKER: &[u8] = b"1";

/// Some of the rows.
#[derive(Debug)]
pub(super) struct Notes {
    /// Those of documents, in order; none: there are no more.
    pub(super) page: Vec<(DocumentId, Option<Bytes>)>,
    /// On the first page: an outbox is kept.
    pub(super) has_marker: bool,
}

/// A store with no documents keeps an outbox from the start. Without that, what comes from relays in the
/// first moments could be taken for documents of a version that kept none, and wait to be confirmed.
pub(super) async fn begin(store: &dyn Store) -> Result<(), StoreError> {
    let has_documents = !store.documents(Tenant::default(), None, 1).await?.is_empty();
    let key = || DocumentKey::outbox(None);
    let marker = store.read(key(), vec![OUTBOX_ROW]).await?;
    if has_documents || marker.into_iter().flatten().next().is_some() {
        return Ok(());
    }
    let row = RowWrite::Put(OUTBOX_ROW, Bytes::from_static(MARKER));
    store.write(key(), vec![row]).await
}

impl Core {
    /// Has a row written, or deleted.
    pub(super) fn note(&mut self, note: Option<Note>) {
        let Some(note) = note else { return };
        let (document, write) = self.row_of(note);
        self.ask(Action::Note(Some(document), vec![write]));
    }

    /// What is to be written for a note. It is on its way to the disk by now that an outbox is kept.
    pub(super) fn row_of(&mut self, note: Note) -> (DocumentId, RowWrite) {
        self.mark();
        match note {
            Note::Put(document, row) => (document, RowWrite::Put(OUTBOX_ROW, row)),
            Note::Delete(document) => (document, RowWrite::Delete(OUTBOX_ROW)),
        }
    }

    /// Has rows deleted of what was confirmed, those that are due or all, and written that could not be
    /// before.
    pub(super) fn let_go(&mut self, is_last: bool) {
        for note in self.outbox.due(self.now, is_last) {
            self.note(Some(note));
        }
    }

    /// A page of rows was read.
    pub(super) fn notes(&mut self, notes: Result<Notes, StorageFailure>) {
        self.answered();
        let Notes { page, has_marker } = match notes {
            Ok(notes) => notes,
            Err(error) => {
                tracing::error!(%error, "the outbox cannot be read: all documents are looked at");
                // As if none were kept.
                return self.ask(Action::ListForOutbox(None));
            }
        };
        self.has_marker |= has_marker;
        let Some((last, _)) = page.last() else {
            if self.has_marker {
                return self.outbox_known();
            }
            return self.ask(Action::ListForOutbox(None));
        };
        let last = last.clone();
        for (document, row) in page {
            if let Some(row) = row {
                self.recalled(&document, &row);
            }
        }
        self.ask(Action::ReadNotes(Some(last)));
    }

    /// All that was in the outbox at the start is here: so it is known what relays have of the others.
    fn outbox_known(&mut self) {
        self.outbox.complete(self.now);
        for held in self.held() {
            held.told_base(self.outbox.base(&held.id));
        }
    }

    fn recalled(&mut self, document: &DocumentId, row: &[u8]) {
        self.outbox.recalled(document, row);
        if let Some(level) = self.outbox.level(document) {
            self.schedule.offer(document, level);
        }
    }

    /// A page of documents that may not be in the outbox and should.
    pub(super) fn unnoted(&mut self, page: Result<Vec<DocumentId>, StorageFailure>) {
        self.answered();
        let page = page.unwrap_or_else(|error| {
            tracing::error!(%error, "stored documents cannot be listed");
            Vec::new()
        });
        let Some(last) = page.last().cloned() else {
            return self.outbox_known();
        };
        for document in page {
            let note = self.outbox.edited(self.now, &document, Level::BACKGROUND, Heads::new);
            self.note(note);
            self.schedule.offer(&document, Level::BACKGROUND);
        }
        self.ask(Action::ListForOutbox(Some(last)));
    }

    /// Has it written that an outbox is kept, if it is not.
    fn mark(&mut self) {
        if !std::mem::replace(&mut self.has_marker, true) {
            let row = RowWrite::Put(OUTBOX_ROW, Bytes::from_static(MARKER));
            self.ask(Action::Note(None, vec![row]));
        }
    }
}
