//! Puts another document in the place of one: what it is without a change that a relay refused.
//!
//! That is more than one write, so what is to be written is put down first: the change that goes, the
//! word on why, and then, in a row that there is one of, all that the document is to be. If the
//! process ends in between, the next start finishes it before anybody can open the document. What
//! came from others in the meantime stays.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use concord_protocol::{ChangeHash, DocumentId, Limits, guard};
use serde::{Deserialize, Serialize};

use super::{
    core::{Action, Core},
    held::Held,
    index,
    outbox::RowRefused,
};
use crate::{
    record,
    replica::{Event, Kind, Leaving, LocalError, RowKey, RowWrite, Ticket},
    store::{DocumentKey, Store, StoreError, Tenant},
};

/// The row that says what is being replaced.
const JOURNAL_ROW: RowKey = RowKey { kind: Kind::Meta, id: [1; 32], part: 0 };

/// The row in which a change is kept that was taken out of a document.
pub(super) fn letter_row(change: &ChangeHash) -> RowKey {
    RowKey { kind: Kind::Change, id: change.0, part: 0 }
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Replacement {
    pub(super) held: Arc<Held>,
    /// The heads that the document had.
    pub(super) heads: Vec<ChangeHash>,
    /// The change that goes, and its bytes.
    pub(super) change: ChangeHash,
    pub(super) payload: Bytes,
    /// What was written again and goes too, under the names that it had.
    pub(super) gone: BTreeSet<ChangeHash>,
    /// All that the document is to be, in causal order.
    pub(super) changes: Vec<Bytes>,
    /// Who asks for it.
    pub(super) who: String,
    /// Answered when it is all on disk, with what was said of the change.
    pub(super) done: tokio::sync::oneshot::Sender<Result<RowRefused, LocalError>>,
}

/// What is being done.
pub(super) struct Replacing {
    replacement: Replacement,
    refused: RowRefused,
    /// The purge of what was there.
    purge: Option<Ticket>,
    /// The changes that are on their way to the disk.
    writing: BTreeSet<Ticket>,
    failed: Option<LocalError>,
}

/// The journal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    document: String,
    /// What goes.
    gone: Vec<[u8; 32]>,
    /// All that the document is to be.
    changes: Vec<Vec<u8>>,
}

impl Core {
    pub(super) fn replace(&mut self, replacement: Replacement) {
        let document = replacement.held.id.clone();
        let Replacement { change, gone, who, .. } = &replacement;
        let refuse = |why: &str, replacement: Replacement| {
            // Who asked may have stopped waiting.
            let _ = replacement.done.send(Err(LocalError::NotPurged(why.to_owned())));
        };
        if self.replacing.is_some() {
            return refuse("another is being replaced", replacement);
        }
        let journal = Journal {
            document: document.as_str().to_owned(),
            gone: gone.iter().chain([change]).map(|hash| hash.0).collect(),
            changes: replacement.changes.iter().map(|change| change.to_vec()).collect(),
        };
        let Ok(journal) = record::encode(&journal) else {
            return refuse("it is too large", replacement);
        };
        let discarded = self.outbox.discarded(self.now, &document, *change, gone, who);
        let Some((note, refused)) = discarded else {
            return refuse("no relay has refused this change", replacement);
        };
        let payload = RowWrite::Put(letter_row(change), replacement.payload.clone());
        self.ask(Action::Note(Some(document.clone()), vec![payload]));
        self.note(Some(note));
        let journal = RowWrite::Put(JOURNAL_ROW, journal.into());
        self.ask(Action::Note(None, vec![journal]));
        let ticket = self.ticket();
        let (heads, leaving) = (replacement.heads.clone(), Leaving::Nothing);
        self.replacing = Some(Replacing {
            replacement,
            refused,
            purge: Some(ticket),
            writing: BTreeSet::new(),
            failed: None,
        });
        self.handle(Event::Purge { ticket, document, heads, leaving });
    }

    /// Takes what was answered of a replacement; gives back what is of something else.
    pub(super) fn replaced(
        &mut self,
        ticket: Ticket,
        result: Result<(), LocalError>,
    ) -> Option<Result<(), LocalError>> {
        let Some(replacing) = &mut self.replacing else { return Some(result) };
        if replacing.purge == Some(ticket) {
            replacing.purge = None;
            match result {
                Ok(()) => self.write_replacement(),
                Err(error) => self.not_replaced(error),
            }
        } else if replacing.writing.remove(&ticket) {
            if let Err(error) = result {
                replacing.failed.get_or_insert(error);
            }
            if replacing.writing.is_empty() {
                self.replacement_written();
            }
        } else {
            return Some(result);
        }
        None
    }

    /// What was there is gone.
    fn write_replacement(&mut self) {
        let Some(replacing) = &self.replacing else { return };
        let document = replacing.replacement.held.id.clone();
        let changes = replacing.replacement.changes.clone();
        let tickets: Vec<Ticket> = changes.iter().map(|_| self.ticket()).collect();
        if let Some(replacing) = &mut self.replacing {
            replacing.writing = tickets.iter().copied().collect();
        }
        for (ticket, change) in tickets.into_iter().zip(changes) {
            self.handle(Event::LocalChange(ticket, document.clone(), change));
        }
    }

    /// All of it was written, or was not.
    fn replacement_written(&mut self) {
        let Some(replacing) = self.replacing.take() else { return };
        let Replacement { held, done, .. } = replacing.replacement;
        let result = match replacing.failed {
            None => {
                self.end_journal();
                Ok(replacing.refused)
            }
            // The journal stays: the next start has it finished.
            Some(error) => {
                held.fail(&format!("it could not be written anew ({error}): start again"));
                Err(error)
            }
        };
        held.reset();
        self.open(held.id.clone());
        // What relays said in between was not heard.
        self.handle(Event::Resend(held.id.clone()));
        // Who asked may have stopped waiting.
        let _ = done.send(result);
    }

    /// Nothing was done.
    fn not_replaced(&mut self, error: LocalError) {
        let Some(replacing) = self.replacing.take() else { return };
        let Replacement { held, change, done, .. } = replacing.replacement;
        self.end_journal();
        let note = self.outbox.not_discarded(&held.id, change);
        self.note(note);
        held.reset();
        self.open(held.id.clone());
        // Who asked may have stopped waiting.
        let _ = done.send(Err(error));
    }

    fn end_journal(&mut self) {
        self.ask(Action::Note(None, vec![RowWrite::Delete(JOURNAL_ROW)]));
    }
}

/// Finishes what the end of a process interrupted. To be done before anything else with a store.
///
/// # Errors
/// As those of the store; a journal that cannot be read is left, and said to be there.
pub(super) async fn finish(store: &dyn Store) -> Result<(), StoreError> {
    let rows = store.read(DocumentKey::outbox(None), vec![JOURNAL_ROW]).await?;
    let Some(row) = rows.into_iter().flatten().next() else { return Ok(()) };
    let journal: Journal = match record::decode(&row) {
        Ok(journal) => journal,
        Err(error) => {
            tracing::error!(%error, "a change that was being taken out of a document may be back");
            return Ok(());
        }
    };
    if let Ok(document) = journal.document.parse::<DocumentId>() {
        // Whatever the index says of it is from before.
        if let Some(mark) = index::row::mark(&document) {
            store.write(DocumentKey::index(), vec![mark]).await?;
        }
        let key = DocumentKey { tenant: Tenant::default(), document };
        let stored = store.load(key.clone()).await?;
        let gone: BTreeSet<[u8; 32]> = journal.gone.into_iter().collect();
        let mut rows: BTreeMap<[u8; 32], Bytes> = BTreeMap::new();
        for change in journal.changes.into_iter().map(Bytes::from) {
            match guard::check_change(&change, &Limits::default()) {
                Ok(header) => _ = rows.insert(header.hash.0, change),
                Err(error) => tracing::error!(%error, "a change of a journal is not one"),
            }
        }
        // What others wrote meanwhile.
        let others = stored.changes.into_iter().filter(|(hash, _)| !gone.contains(&hash.0));
        rows.extend(others.map(|(hash, change)| (hash.0, change)));
        let put = rows
            .into_iter()
            .map(|(id, change)| RowWrite::Put(RowKey { kind: Kind::Change, id, part: 0 }, change));
        let meta = RowKey { kind: Kind::Meta, id: [0; 32], part: 0 };
        let writes = [RowWrite::Clear, RowWrite::Delete(meta)].into_iter().chain(put).collect();
        store.write(key, writes).await?;
    }
    store.write(DocumentKey::outbox(None), vec![RowWrite::Delete(JOURNAL_ROW)]).await
}

#[cfg(test)]
mod tests {
    use automerge::{ActorId, Automerge, ROOT, ReadDoc as _, transaction::Transactable as _};

    use super::*;
    use crate::{history, store};

    fn put(doc: &mut Automerge, key: &str) -> automerge::ChangeHash {
        doc.transact(|tx| tx.put(ROOT, key, 1)).unwrap().hash.unwrap()
    }

    /// Whatever of the replacement was written before the end, the next start makes the whole of it,
    /// and keeps what others wrote.
    #[tokio::test]
    async fn a_start_finishes_what_an_end_interrupted() {
        let mut doc = Automerge::new().with_actor(ActorId::from([1]));
        put(&mut doc, "kept");
        let gone = put(&mut doc, "refused");
        let mut other = doc
            .fork_at(
                &doc.get_changes(&[])[..1].iter().map(automerge::Change::hash).collect::<Vec<_>>(),
            )
            .unwrap();
        put(&mut doc, "after");
        let rebased = history::without(&doc, ChangeHash(gone.0), || ActorId::from([2])).unwrap();
        let theirs = put(&mut other, "theirs");
        let theirs = other.get_change_by_hash(&theirs).unwrap();
        let bytes = |change: &automerge::Change| change.raw_bytes().to_vec();
        let journal = Journal {
            document: DocumentId::from_bytes(&[7; 16]).as_str().to_owned(),
            gone: [gone].iter().chain(&doc.get_heads()).map(|hash| hash.0).collect(),
            changes: rebased.changes().map(bytes).collect(),
        };
        let row = |change: &automerge::Change| {
            let key = RowKey { kind: Kind::Change, id: change.hash().0, part: 0 };
            RowWrite::Put(key, bytes(change).into())
        };
        let was: Vec<RowWrite> = doc.get_changes(&[]).iter().map(row).collect();
        let now: Vec<RowWrite> = rebased.changes().map(row).collect();
        for (cleared, written) in [(false, 0), (true, 0), (true, 1), (true, 2)] {
            let store = store::memory().unwrap();
            let document = DocumentId::from_bytes(&[7; 16]);
            let key = DocumentKey { tenant: Tenant::default(), document };
            store.write(key.clone(), was.clone()).await.unwrap();
            let journal = RowWrite::Put(JOURNAL_ROW, record::encode(&journal).unwrap().into());
            store.write(DocumentKey::outbox(None), vec![journal]).await.unwrap();
            if cleared {
                store.write(key.clone(), vec![RowWrite::Clear]).await.unwrap();
            }
            store.write(key.clone(), now[..written].to_vec()).await.unwrap();
            store.write(key.clone(), vec![row(&theirs)]).await.unwrap();
            for _ in 0..2 {
                finish(&*store).await.unwrap();
                let stored = store.load(key.clone()).await.unwrap();
                let mut made = Automerge::new();
                let changes = stored.changes.iter();
                let changes = changes
                    .map(|(_, change)| automerge::Change::from_bytes(change.to_vec()).unwrap());
                made.apply_changes(changes.collect::<Vec<_>>()).unwrap();
                let keys: Vec<String> = made.keys(ROOT).collect();
                assert_eq!(keys, ["after", "kept", "theirs"], "{cleared} {written}");
                assert!(made.get_missing_deps(&[]).is_empty());
                let mark = index::row::mark(&key.document);
                let Some(RowWrite::Put(row, _)) = mark else { panic!("a mark is a row") };
                let marked = store.read(DocumentKey::index(), vec![row]).await.unwrap();
                assert!(marked[0].is_some(), "the index is told");
            }
        }
    }
}
