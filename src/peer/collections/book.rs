//! What is subscribed, and how far it is: decisions without I/O, and the rows that are kept of it.
//!
//! A cursor moves only when every document of its page is stored here, or is in the list of what
//! is *left*, which is kept with it and tried again. The store keeps a prefix of what it is given,
//! so a cursor that outlives a crash has behind it all that it stands for.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use concord_protocol::{DocumentId, StorageId};
use serde::{Deserialize, Serialize};

use super::{
    CollectionId, CollectionStatus,
    spec::{Collection, Of},
};
use crate::{
    digest::digest,
    record,
    replica::{Kind, RowKey, RowWrite, StoredDocument},
};

/// The format of rows: those of another are passed over.
const VERSION: u32 = 1;
/// Collections of a peer.
pub const COLLECTIONS_MAX: usize = 1_000;
/// Documents of a collection that could not be fetched, and are tried again. While there are more a
/// cursor stays where it is.
pub(super) const LEFT_MAX: usize = 1_000;
/// Relays whose cursors are kept, a collection; without one it is compared anew.
const CURSORS_MAX: usize = 16;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    version: u32,
    /// What it is of.
    of: String,
    /// Stores of relays, and where we are with each.
    cursors: Vec<(String, String)>,
    left: Vec<String>,
}

/// What became of a document that was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was here as it is there.
    Here,
    /// It, or more of it, was fetched.
    Fetched,
    /// It was looked at, and is not asked for.
    NotAsked,
    /// It is deleted or purged there, and not here.
    Gone,
    /// It could not be fetched.
    Left(String),
}

#[derive(Debug)]
struct Subscription {
    of: Collection,
    cursors: BTreeMap<StorageId, String>,
    left: BTreeSet<DocumentId>,
    /// Of an entity: those that belong to it, once that was found out.
    members: Option<BTreeSet<DocumentId>>,
    status: CollectionStatus,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Book {
    subscriptions: BTreeMap<CollectionId, Subscription>,
}

fn key(of: &str) -> RowKey {
    let mut id = [0; 32];
    id[..16].copy_from_slice(&digest(["concord collection row", of]));
    RowKey { kind: Kind::Change, id, part: 0 }
}

impl Subscription {
    fn new(of: Collection) -> Self {
        let status = CollectionStatus::new(of.clone());
        let (cursors, left) = (BTreeMap::new(), BTreeSet::new());
        Self { of, cursors, left, members: None, status }
    }

    fn row(&self) -> Option<RowWrite> {
        let of = self.of.to_text();
        let cursors = self.cursors.iter();
        let row = Row {
            version: VERSION,
            cursors: cursors.map(|(store, at)| (store.as_str().to_owned(), at.clone())).collect(),
            left: self.left.iter().map(|document| document.as_str().to_owned()).collect(),
            of,
        };
        // Bounded far below what a record may have.
        let bytes = record::encode(&row).ok()?;
        Some(RowWrite::Put(key(&row.of), Bytes::from(bytes)))
    }
}

impl Book {
    /// What was kept. Gives how many rows could not be read.
    pub(super) fn recalled(&mut self, stored: StoredDocument) -> usize {
        let mut unread = stored.corrupt.len();
        for (_, bytes) in stored.changes {
            let row = record::decode::<Row>(&bytes).ok().filter(|row| row.version == VERSION);
            let read = row.and_then(|row| Some((Collection::of_text(&row.of)?, row)));
            let Some((of, row)) = read else {
                unread += 1;
                continue;
            };
            let mut subscription = Subscription::new(of);
            let cursor = |(store, at): (String, String)| Some((store.parse().ok()?, at));
            subscription.cursors = row.cursors.into_iter().filter_map(cursor).collect();
            subscription.left = row.left.iter().filter_map(|id| id.parse().ok()).collect();
            subscription.status.left = subscription.left.len();
            self.subscriptions.insert(subscription.of.id(), subscription);
        }
        unread
    }

    /// Takes a collection in. Gives its row, unless it is there already; `Err` if there are too
    /// many.
    pub(super) fn add(&mut self, of: Collection) -> Result<Option<RowWrite>, ()> {
        let id = of.id();
        if self.subscriptions.contains_key(&id) {
            return Ok(None);
        }
        if self.subscriptions.len() >= COLLECTIONS_MAX {
            return Err(());
        }
        let subscription = Subscription::new(of);
        let row = subscription.row();
        self.subscriptions.insert(id, subscription);
        Ok(row)
    }

    /// Takes one out. Gives it, and what becomes of its row.
    pub(super) fn remove(&mut self, id: CollectionId) -> Option<(Removed, RowWrite)> {
        let subscription = self.subscriptions.remove(&id)?;
        let row = RowWrite::Delete(key(&subscription.of.to_text()));
        Some((Removed { of: subscription.of, members: subscription.members }, row))
    }

    pub(super) fn ids(&self) -> Vec<CollectionId> {
        self.subscriptions.keys().copied().collect()
    }

    pub(super) fn get(&self, id: CollectionId) -> Option<&Collection> {
        self.subscriptions.get(&id).map(|subscription| &subscription.of)
    }

    pub(super) fn statuses(&self) -> Vec<CollectionStatus> {
        self.subscriptions.values().map(|subscription| subscription.status.clone()).collect()
    }

    /// The types that are followed.
    pub(super) fn types(&self) -> BTreeSet<&str> {
        self.subscriptions.values().filter_map(|subscription| subscription.of.type_name()).collect()
    }

    /// All collections, with the members of those that are of an entity; `None` where it is not
    /// known yet which those are.
    pub(super) fn wants(
        &self,
    ) -> impl Iterator<Item = (&Collection, Option<&BTreeSet<DocumentId>>)> {
        self.subscriptions.values().map(|one| (&one.of, one.members.as_ref()))
    }

    /// What belongs to the entities that are subscribed to.
    pub(super) fn members(&self) -> BTreeSet<DocumentId> {
        self.subscriptions
            .values()
            .filter_map(|one| one.members.as_ref())
            .flatten()
            .cloned()
            .collect()
    }

    pub(super) fn cursor(&self, id: CollectionId, store: &StorageId) -> Option<String> {
        self.subscriptions.get(&id)?.cursors.get(store).cloned()
    }

    pub(super) fn left(&self, id: CollectionId) -> Vec<DocumentId> {
        let left = self.subscriptions.get(&id).map(|subscription| &subscription.left);
        left.into_iter().flatten().cloned().collect()
    }

    /// A page is being worked on: so many documents are listed, of so many in all.
    pub(super) fn listed(&mut self, id: CollectionId, documents: usize, total: usize, reset: bool) {
        self.change(id, |subscription| {
            let status = &mut subscription.status;
            if reset {
                status.listed = 0;
                status.done = 0;
            }
            status.listed += documents;
            status.total = Some(total);
            status.problem = None;
            if documents > 0 {
                status.up_to_date_since_ms = None;
            }
        });
    }

    /// What became of a document of the page, or of what was left.
    pub(super) fn settled(&mut self, id: CollectionId, document: &DocumentId, outcome: &Outcome) {
        self.change(id, |subscription| {
            let status = &mut subscription.status;
            match outcome {
                Outcome::Here | Outcome::Gone => {}
                Outcome::Fetched => status.fetched += 1,
                Outcome::NotAsked => status.not_asked += 1,
                Outcome::Left(reason) => {
                    subscription.left.insert(document.clone());
                    status.left_reason = Some(reason.clone());
                }
            }
            if !matches!(outcome, Outcome::Left(_)) {
                subscription.left.remove(document);
            }
            status.left = subscription.left.len();
            if status.left == 0 {
                status.left_reason = None;
            }
            status.done = (status.done + 1).min(status.listed);
        });
    }

    /// All of a page is dealt with. Gives the row that says so, which is to be written after what
    /// was fetched; `None` while too much is left.
    pub(super) fn commit(
        &mut self,
        id: CollectionId,
        store: &StorageId,
        cursor: String,
    ) -> Option<RowWrite> {
        let subscription = self.subscriptions.get_mut(&id)?;
        if subscription.left.len() > LEFT_MAX {
            return None;
        }
        if subscription.cursors.len() >= CURSORS_MAX && !subscription.cursors.contains_key(store) {
            // Which of them is of no more use is not known: it is compared anew, should it be.
            subscription.cursors.pop_first();
        }
        subscription.cursors.insert(store.clone(), cursor);
        subscription.row()
    }

    /// What is left was tried again: the row.
    pub(super) fn kept(&self, id: CollectionId) -> Option<RowWrite> {
        self.subscriptions.get(&id)?.row()
    }

    /// A relay says that there is no more, at this time.
    pub(super) fn up_to_date(&mut self, id: CollectionId, now_ms: u64) {
        self.change(id, |subscription| {
            let status = &mut subscription.status;
            status.done = status.listed;
            status.up_to_date_since_ms.get_or_insert(now_ms);
            status.problem = None;
        });
    }

    /// It does not go on, and why.
    pub(super) fn stuck(&mut self, id: CollectionId, problem: Option<String>) {
        self.change(id, |subscription| {
            subscription.status.up_to_date_since_ms = None;
            subscription.status.problem = problem;
        });
    }

    /// What belongs to an entity, and how many of those are here.
    pub(super) fn reached(
        &mut self,
        id: CollectionId,
        members: BTreeSet<DocumentId>,
        here: usize,
        fetched: usize,
    ) {
        self.change(id, |subscription| {
            let status = &mut subscription.status;
            (status.listed, status.done) = (members.len(), here);
            status.total = Some(members.len());
            status.fetched += fetched;
            status.left = members.len().saturating_sub(here);
            subscription.members = Some(members);
        });
    }

    fn change(&mut self, id: CollectionId, change: impl FnOnce(&mut Subscription)) {
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            change(subscription);
        }
    }
}

/// A collection that was taken out.
#[derive(Debug)]
pub(super) struct Removed {
    pub(super) of: Collection,
    pub(super) members: Option<BTreeSet<DocumentId>>,
}

impl Removed {
    /// Whether it was of what an entity refers to.
    pub(super) fn is_of_entity(&self) -> bool {
        matches!(self.of.0, Of::Entity { .. })
    }
}

#[cfg(test)]
mod tests {
    use concord_protocol::ChangeHash;

    use super::*;

    fn id(n: u8) -> DocumentId {
        DocumentId::from_bytes(&[n; 16])
    }

    fn store(name: &str) -> StorageId {
        name.parse().unwrap()
    }

    /// A start with these rows.
    fn again(rows: impl IntoIterator<Item = RowWrite>) -> Book {
        let mut stored = StoredDocument::default();
        for row in rows {
            match row {
                RowWrite::Put(key, bytes) => {
                    stored.changes.retain(|(known, _)| known.0 != key.id);
                    stored.changes.push((ChangeHash(key.id), bytes));
                }
                RowWrite::Delete(key) => stored.changes.retain(|(known, _)| known.0 != key.id),
                RowWrite::Clear => stored.changes.clear(),
            }
        }
        let mut book = Book::default();
        assert_eq!(book.recalled(stored), 0);
        book
    }

    #[test]
    fn a_cursor_is_of_a_relay_and_kept_with_what_is_left() {
        let (mut book, task) = (Book::default(), Collection::of_type("task"));
        let at = task.id();
        let first = book.add(task.clone()).unwrap().unwrap();
        assert_eq!(book.add(task), Ok(None), "it is there");
        book.listed(at, 2, 2, false);
        book.settled(at, &id(1), &Outcome::Fetched);
        book.settled(at, &id(2), &Outcome::Left("nobody has it".to_owned()));
        let row = book.commit(at, &store("one"), "a.2".to_owned()).unwrap();
        book.up_to_date(at, 5);
        let status = &book.statuses()[0];
        assert_eq!((status.listed, status.done, status.fetched, status.left), (2, 2, 1, 1));
        assert!(status.is_up_to_date());

        let mut book = again([first, row]);
        assert_eq!(book.cursor(at, &store("one")).as_deref(), Some("a.2"));
        assert_eq!(book.cursor(at, &store("two")), None, "another relay is compared with");
        assert_eq!(book.left(at), [id(2)]);
        assert!(!book.statuses()[0].is_up_to_date(), "no relay said so yet");
        book.settled(at, &id(2), &Outcome::Here);
        let (removed, gone) = book.remove(at).unwrap();
        assert!(!removed.is_of_entity() && book.ids().is_empty());
        assert!(again([book.add(removed.of).unwrap().unwrap(), gone]).ids().is_empty());
    }

    #[test]
    fn a_cursor_waits_while_too_much_is_left() {
        let (mut book, task) = (Book::default(), Collection::of_type("task"));
        let at = task.id();
        book.add(task).unwrap();
        let left = Outcome::Left("nobody has it".to_owned());
        for n in 0..=u32::try_from(LEFT_MAX).unwrap() {
            book.settled(at, &DocumentId::from_bytes(&n.to_be_bytes()), &left);
        }
        assert_eq!(book.commit(at, &store("one"), "a.1".to_owned()), None);
        book.settled(at, &DocumentId::from_bytes(&0_u32.to_be_bytes()), &Outcome::Fetched);
        assert!(book.commit(at, &store("one"), "a.1".to_owned()).is_some());
        for n in 0..2 * CURSORS_MAX {
            book.commit(at, &store(&format!("relay {n}")), "b.1".to_owned()).unwrap();
        }
        let last = store(&format!("relay {}", 2 * CURSORS_MAX - 1));
        assert!(book.cursor(at, &last).is_some());
    }

    #[test]
    fn there_are_only_so_many_collections() {
        let mut book = Book::default();
        for n in 0..COLLECTIONS_MAX {
            assert!(book.add(Collection::of_type(format!("t{n}"))).is_ok());
        }
        assert_eq!(book.add(Collection::of_type("more")), Err(()));
    }
}
