//! Which documents say something else than the index, by now or after a crash.
//!
//! Before rows of a document are written, its entry on disk gives way to a mark; a mark gives way to
//! an entry that says all that is written, and only that. The store keeps a prefix of its writes, so
//! after a crash each entry that is left is true, and what is marked is read again.
//!
//! An entry says just what is written if nothing of the document is on its way to the disk
//! ([`Marks::is_quiet`]), and if the heads that it was read at are those that were then on disk: what
//! a program edits is seen before it is written, and what a relay brings may be written before it is
//! seen.

use std::collections::{BTreeMap, BTreeSet};

use concord_protocol::DocumentId;

use crate::replica::{Kind, RowWrite, Ticket};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Numbers the writes of all documents.
    writes: u64,
    documents: BTreeMap<DocumentId, Mark>,
    tickets: BTreeMap<Ticket, DocumentId>,
    /// Documents that say something else.
    pending: BTreeSet<DocumentId>,
    /// Documents of which more is on disk: their entries may be ready to be written.
    settling: BTreeSet<DocumentId>,
    /// Documents that have gone.
    gone: BTreeSet<DocumentId>,
    /// Documents that may go at any moment: to open one would be to ask relays for it.
    going: BTreeSet<DocumentId>,
    /// Counts up with whatever is to be looked at.
    asked: u64,
}

/// See [`Marks::settle_marked`].
const LOOKS_MAX: u8 = 4;

#[derive(Debug, Default)]
struct Mark {
    /// The number of its last write.
    last: u64,
    /// Writes that are not known to be on disk.
    under_way: usize,
    /// How often it was looked at since then because of what is on disk.
    looks: u8,
    /// The mark is on disk, or on its way there before the writes.
    is_kept: bool,
}

impl Marks {
    /// Rows of a document are to be written; whether its mark has to be, before them.
    pub(crate) fn writing(
        &mut self,
        ticket: Ticket,
        document: &DocumentId,
        writes: &[RowWrite],
    ) -> bool {
        let says_more = writes.iter().any(|write| match write {
            RowWrite::Put(key, _) => matches!(key.kind, Kind::Change | Kind::Snapshot),
            RowWrite::Clear => true,
            RowWrite::Delete(_) => false,
        });
        if !says_more {
            return false;
        }
        self.writes += 1;
        let mark = self.documents.entry(document.clone()).or_default();
        mark.last = self.writes;
        mark.looks = 0;
        mark.under_way += 1;
        self.tickets.insert(ticket, document.clone());
        !std::mem::replace(&mut mark.is_kept, true)
    }

    /// A write is on disk, or failed. A document that nobody has in memory says something else by
    /// that; of another its content is told.
    pub(crate) fn stored(&mut self, ticket: Ticket, is_open: impl FnOnce(&DocumentId) -> bool) {
        let Some(document) = self.tickets.remove(&ticket) else { return };
        if let Some(mark) = self.documents.get_mut(&document) {
            mark.under_way = mark.under_way.saturating_sub(1);
            if is_open(&document) {
                self.settle(&document);
            } else {
                self.look_at(&document);
            }
        }
    }

    /// What is on disk of a document is told, which is so at every opening, the indexer's own too:
    /// whether it is to be looked at for that. So often after each write, and no more.
    pub(crate) fn settle_marked(&mut self, document: &DocumentId) -> bool {
        let mark = self.documents.get_mut(document).filter(|mark| mark.looks < LOOKS_MAX);
        let Some(mark) = mark else { return false };
        mark.looks += 1;
        self.settling.insert(document.clone());
        true
    }

    /// More of a document is on disk than was.
    pub(crate) fn settle(&mut self, document: &DocumentId) {
        self.settling.insert(document.clone());
    }

    /// A mark could not be written: the next write needs it anew.
    pub(crate) fn not_kept(&mut self, document: &DocumentId) {
        if let Some(mark) = self.documents.get_mut(document) {
            mark.is_kept = false;
        }
    }

    /// The number of the last write of any document, for [`Marks::is_quiet`].
    pub(crate) fn now(&self) -> u64 {
        self.writes
    }

    /// Whether nothing of the document was written since then, and all is on disk.
    pub(crate) fn is_quiet(&self, document: &DocumentId, since: u64) -> bool {
        self.documents.get(document).is_none_or(|mark| mark.under_way == 0 && mark.last <= since)
    }

    /// Whether rows of it were written that its entry on disk does not say.
    pub(crate) fn is_marked(&self, document: &DocumentId) -> bool {
        self.documents.contains_key(document)
    }

    /// Its entry on disk says all that is written.
    pub(crate) fn clean(&mut self, document: &DocumentId) {
        self.documents.remove(document);
    }

    /// A document that says something else than its entry, or may.
    pub(crate) fn look_at(&mut self, document: &DocumentId) {
        self.asked += 1;
        self.pending.insert(document.clone());
    }

    /// A document that is about to go, and that nobody has open.
    pub(crate) fn goes(&mut self, document: &DocumentId) {
        self.going.insert(document.clone());
    }

    /// It did not. Whether it was about to.
    pub(crate) fn stays(&mut self, document: &DocumentId) -> bool {
        let was_going = self.going.remove(document);
        if was_going {
            self.look_at(document);
        }
        was_going
    }

    /// A document that has gone.
    pub(crate) fn has_gone(&mut self, document: &DocumentId) {
        self.going.remove(document);
        self.gone.insert(document.clone());
        self.look_at(document);
    }

    /// Whether it has, which is told once, or is about to. It is told again where the answer to a
    /// write of it is still to come, for which it is looked at again.
    pub(crate) fn is_gone(&mut self, document: &DocumentId) -> bool {
        let has_gone = self.gone.contains(document);
        if has_gone {
            // It may have been noted since it was taken: who looks at it again would open it.
            self.pending.remove(document);
            self.settling.remove(document);
            if self.documents.get(document).is_none_or(|mark| mark.under_way == 0) {
                self.gone.remove(document);
            }
        }
        has_gone || self.is_going(document)
    }

    /// The same, without being told.
    pub(crate) fn is_leaving(&self, document: &DocumentId) -> bool {
        self.gone.contains(document) || self.is_going(document)
    }

    /// Whether it is about to.
    pub(crate) fn is_going(&self, document: &DocumentId) -> bool {
        self.going.contains(document)
    }

    /// How often something was to be looked at.
    pub(crate) fn asked(&self) -> u64 {
        self.asked
    }

    /// How many documents say something else.
    pub(crate) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Takes all that is to be looked at.
    pub(crate) fn take(&mut self) -> BTreeSet<DocumentId> {
        let mut documents = std::mem::take(&mut self.pending);
        documents.append(&mut self.settling);
        documents
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::replica::RowKey;

    #[test]
    fn what_is_about_to_go_is_not_opened_until_it_stays() {
        let id = DocumentId::from_bytes(&[1; 16]);
        let mut marks = Marks::default();
        marks.goes(&id);
        assert!(marks.is_gone(&id) && marks.is_gone(&id));
        assert!(marks.stays(&id) && !marks.is_gone(&id));
        assert_eq!(marks.take().len(), 1, "it is looked at");
        assert!(!marks.stays(&id));
        marks.goes(&id);
        marks.has_gone(&id);
        assert!(marks.is_gone(&id) && !marks.is_gone(&id) && !marks.stays(&id));
        assert!(marks.take().is_empty(), "it is not looked at once more, which would open it");
    }

    #[test]
    fn what_has_gone_is_told_until_its_last_write_is_answered() {
        let id = DocumentId::from_bytes(&[1; 16]);
        let mut marks = Marks::default();
        marks.writing(Ticket(1), &id, &[RowWrite::Clear]);
        marks.has_gone(&id);
        assert!(marks.is_gone(&id), "its look comes before the answer");
        marks.stored(Ticket(1), |_| false);
        assert!(marks.take().contains(&id) && marks.is_gone(&id) && !marks.is_gone(&id));
    }

    #[test]
    fn a_document_is_marked_once_and_quiet_when_all_is_written() {
        let id = DocumentId::from_bytes(&[1; 16]);
        let key = |kind| RowKey { kind, id: [0; 32], part: 0 };
        let change = [RowWrite::Put(key(Kind::Change), Bytes::new())];
        let mut marks = Marks::default();
        assert!(!marks.writing(Ticket(1), &id, &[RowWrite::Put(key(Kind::Meta), Bytes::new())]));
        assert!(!marks.is_marked(&id) && marks.is_quiet(&id, 0));
        assert!(marks.writing(Ticket(2), &id, &change));
        assert!(!marks.writing(Ticket(3), &id, &change), "it is marked already");
        marks.stored(Ticket(2), |_| true);
        assert_eq!(marks.waiting(), 0, "what it says is told by itself");
        assert!(!marks.is_quiet(&id, marks.now()), "one is on its way");
        marks.stored(Ticket(3), |_| false);
        assert_eq!(marks.waiting(), 1);
        assert!(marks.is_quiet(&id, marks.now()));
        assert!(!marks.is_quiet(&id, marks.now() - 1), "since then it was written");
        assert_eq!(marks.take().len(), 1);
        marks.not_kept(&id);
        assert!(marks.writing(Ticket(4), &id, &[RowWrite::Clear]), "once more");
        marks.clean(&id);
        assert!(!marks.is_marked(&id));
        assert!(marks.writing(Ticket(5), &id, &change));
    }
}
