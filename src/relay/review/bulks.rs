//! Decisions that were made together and stand, as the looks at their documents found them: what is
//! to be taken back if somebody takes all of it back.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use concord_protocol::DocumentId;

use crate::review::{ConflictId, bulk::BulkId};

/// Decisions that are remembered; each takes about 100 bytes. Those beyond are taken back one by
/// one.
const DECISIONS_MAX: usize = 250_000;

/// A decision: in which document, on what.
pub(super) type Made = (DocumentId, ConflictId);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bulks {
    of: BTreeMap<BulkId, BTreeSet<Made>>,
    documents: BTreeMap<DocumentId, BTreeSet<(BulkId, ConflictId)>>,
    count: usize,
}

impl Bulks {
    /// These decisions stand in a document, and no others that were made together.
    pub(super) fn update(&mut self, document: &DocumentId, made: Vec<(BulkId, ConflictId)>) {
        for (bulk, id) in self.documents.get(document).cloned().unwrap_or_default() {
            self.forget(document, bulk, id);
        }
        for (bulk, id) in made {
            self.note(document, bulk, id);
        }
    }

    pub(super) fn note(&mut self, document: &DocumentId, bulk: BulkId, id: ConflictId) {
        if self.count >= DECISIONS_MAX {
            return;
        }
        if self.documents.entry(document.clone()).or_default().insert((bulk, id)) {
            self.of.entry(bulk).or_default().insert((document.clone(), id));
            self.count += 1;
        }
    }

    pub(super) fn forget(&mut self, document: &DocumentId, bulk: BulkId, id: ConflictId) {
        let Some(made) = self.documents.get_mut(document) else { return };
        if !made.remove(&(bulk, id)) {
            return;
        }
        self.count -= 1;
        if made.is_empty() {
            self.documents.remove(document);
        }
        if let Some(made) = self.of.get_mut(&bulk) {
            made.remove(&(document.clone(), id));
            if made.is_empty() {
                self.of.remove(&bulk);
            }
        }
    }

    /// The first decisions of a bulk, after one of them; whether there are more.
    pub(super) fn of(
        &self,
        bulk: BulkId,
        after: Option<&Made>,
        limit: usize,
    ) -> Option<(Vec<Made>, bool)> {
        let made = self.of.get(&bulk)?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = made.range((after, Bound::Unbounded));
        let page: Vec<Made> = rest.by_ref().take(limit).cloned().collect();
        Some((page, rest.next().is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_is_known_by_bulk_and_forgotten_with_its_document() {
        let document = |n| DocumentId::from_bytes(&[n; 16]);
        let [one, two]: [BulkId; 2] = [1, 2].map(|n| BulkId::new([n; 8]));
        let id = |n: u32| -> ConflictId { format!("{n:032x}").parse().unwrap() };
        let mut bulks = Bulks::default();
        for n in 1..=5 {
            let made = vec![(one, id(n)), (two, id(n + 10))];
            bulks.update(&document(u8::try_from(n).unwrap()), made);
        }
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let (page, is_more) = bulks.of(one, after.as_ref(), 2).unwrap();
            assert!(page.len() <= 2);
            after = page.last().cloned();
            seen.extend(page);
            if !is_more {
                break;
            }
        }
        assert_eq!(seen.len(), 5);
        assert_eq!(seen.iter().map(|(_, id)| id).collect::<BTreeSet<_>>().len(), 5);
        bulks.update(&document(3), vec![(two, id(13))]);
        bulks.forget(&document(4), one, id(4));
        bulks.forget(&document(4), one, id(4));
        assert_eq!(bulks.of(one, None, 9).unwrap().0.len(), 3);
        assert_eq!((bulks.of(two, None, 9).unwrap().0.len(), bulks.count), (5, 8));
        for n in 1..=5 {
            bulks.update(&document(n), Vec::new());
        }
        assert_eq!((bulks.of(one, None, 9), bulks.count), (None, 0));
        assert!(bulks.documents.is_empty());
    }
}
