//! What is being replaced, on disk: all that the document is to be, so that the next start can finish
//! what the end of a process interrupted.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use concord_protocol::{DocumentId, Limits, guard};
use serde::{Deserialize, Serialize};

use super::Replacement;
use crate::{
    peer::{index, notes::OUTBOX_ROW, outbox},
    record::{self, RecordError},
    replica::{Kind, RowKey, RowWrite},
    store::{DocumentKey, Store, StoreError, Tenant},
};

/// The row that says what is being replaced.
const JOURNAL_ROW: RowKey = RowKey { kind: Kind::Meta, id: [1; 32], part: 0 };

/// The journal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Journal {
    document: String,
    /// What goes.
    gone: Vec<[u8; 32]>,
    /// All that the document is to be.
    changes: Vec<Vec<u8>>,
}

/// The journal of a replacement.
pub(super) fn begun(replacement: &Replacement) -> Result<RowWrite, RecordError> {
    let journal = Journal {
        document: replacement.held.id.as_str().to_owned(),
        gone: replacement.gone().iter().map(|hash| hash.0).collect(),
        changes: replacement.changes.iter().map(|change| change.to_vec()).collect(),
    };
    Ok(RowWrite::Put(JOURNAL_ROW, record::encode(&journal)?.into()))
}

/// The end of it.
pub(super) fn ended() -> RowWrite {
    RowWrite::Delete(JOURNAL_ROW)
}

/// What was begun is not finished.
#[derive(Debug)]
pub(in crate::peer) struct Unfinished {
    /// Of this document; nothing: that is not known either.
    pub(in crate::peer) document: Option<DocumentId>,
    pub(in crate::peer) error: StoreError,
}

impl From<StoreError> for Unfinished {
    fn from(error: StoreError) -> Self {
        Self { document: None, error }
    }
}

/// Finishes what the end of a process interrupted. To be done before anything else with a store.
///
/// # Errors
/// As those of the store: the document is not to be written to then, for the next start finishes it.
/// A journal that cannot be read is left, and said to be there.
pub(in crate::peer) async fn finish(store: &dyn Store) -> Result<(), Unfinished> {
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
        let redone = redo(store, document.clone(), journal).await;
        redone.map_err(|error| Unfinished { document: Some(document), error })?;
    }
    Ok(store.write(DocumentKey::outbox(None), vec![ended()]).await?)
}

/// Makes a document what its journal says that it is to be.
async fn redo(store: &dyn Store, document: DocumentId, journal: Journal) -> Result<(), StoreError> {
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
    store.write(key.clone(), writes).await?;
    // Relays may have said that they have all that was here, before it was all here.
    let key = DocumentKey::outbox(Some(key.document));
    let row = store.read(key.clone(), vec![OUTBOX_ROW]).await?.into_iter().flatten().next();
    if let Some(row) = row.and_then(|row| outbox::on_its_way(&row)) {
        store.write(key, vec![RowWrite::Put(OUTBOX_ROW, row)]).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use automerge::{ActorId, Automerge, ROOT, ReadDoc as _, transaction::Transactable as _};
    use concord_protocol::ChangeHash;

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
