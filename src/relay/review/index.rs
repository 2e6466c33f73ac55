//! The conflicts that are open in all documents, in memory, ready to be listed.

mod listing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use concord_protocol::DocumentId;
use serde::Serialize;

pub(super) use self::listing::{Filter, Matching};
use super::outcomes::Outcomes;
use crate::review::{
    ConflictId, Summary,
    between::{Apart, Group},
    triage::{Standing, State},
};

/// Conflicts that are held at once. Each takes at most about 2 KB.
const ENTRIES_MAX: usize = 250_000;
/// Conflicts of which it is remembered that they were open: whoever decides one too late is told
/// what came after it.
const CLOSED_MAX: usize = 10_000;

/// Where a listing goes on: after this one. Newest first.
pub(super) type Mark = (i64, ConflictId);

/// What became of a conflict.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub(super) enum Change {
    /// It is new.
    Opened {
        /// As it is listed.
        conflict: Summary,
    },
    /// It was decided, or more was written there.
    Closed {
        /// Which.
        id: ConflictId,
        /// In which document.
        document: String,
        /// The one that is open in its place now.
        successor: Option<ConflictId>,
    },
    /// Somebody did something about it, without deciding it.
    Triaged {
        /// Which.
        id: ConflictId,
        /// In which document.
        document: String,
        /// How it stands now.
        state: State,
        /// Who looks after it.
        triage: Option<Standing>,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Index {
    open: BTreeMap<ConflictId, Entry>,
    order: BTreeSet<Mark>,
    documents: BTreeMap<DocumentId, Listed>,
    /// Those between documents, and those that each document has a part in.
    between: BTreeMap<Group, ConflictId>,
    parts: BTreeMap<DocumentId, BTreeSet<ConflictId>>,
    codes: BTreeMap<Box<str>, usize>,
    /// Conflicts that are not in the index: of documents with very many, and over the cap.
    unlisted: usize,
    closed: Closed,
    /// How those that are open no longer ended.
    pub(super) outcomes: Outcomes,
}

#[derive(Debug)]
struct Entry {
    document: DocumentId,
    /// All of them, where it is between several.
    documents: Box<[DocumentId]>,
    code: Box<str>,
    slot: Box<str>,
    time: i64,
    /// As it is listed, as JSON: smaller than what it is made of.
    json: Box<str>,
}

#[derive(Debug, Default)]
struct Listed {
    ids: BTreeSet<ConflictId>,
    unlisted: usize,
    /// Why its conflicts are not known.
    failed: Option<String>,
}

/// Conflicts that were open lately.
#[derive(Debug, Default)]
struct Closed {
    slots: BTreeMap<ConflictId, (DocumentId, Box<str>)>,
    order: VecDeque<ConflictId>,
}

impl Index {
    /// The conflicts of a document are these, and as many more; says what is new.
    pub(super) fn update(
        &mut self,
        document: &DocumentId,
        open: Vec<Summary>,
        more: usize,
    ) -> Vec<Change> {
        let before = self.documents.remove(document).unwrap_or_default();
        self.unlisted -= before.unlisted;
        let mut now = Listed { unlisted: more, ..Listed::default() };
        let slots: BTreeMap<&str, ConflictId> =
            open.iter().map(|summary| (summary.slot.as_str(), summary.id)).collect();
        let ids: BTreeSet<ConflictId> = open.iter().map(|summary| summary.id).collect();
        let mut changes = Vec::new();
        for gone in before.ids.difference(&ids) {
            let successor = self.open.get(gone).and_then(|entry| slots.get(&*entry.slot).copied());
            changes.extend(self.close(gone, successor));
        }
        for summary in open {
            let id = summary.id;
            if before.ids.contains(&id) {
                now.ids.insert(id);
            } else if self.open.len() < ENTRIES_MAX && self.add(document, &[], &summary) {
                now.ids.insert(id);
                changes.push(Change::Opened { conflict: summary });
            } else {
                now.unlisted += 1;
            }
        }
        self.unlisted += now.unlisted;
        if !now.ids.is_empty() || now.unlisted > 0 {
            self.documents.insert(document.clone(), now);
        }
        changes
    }

    /// What is open between documents about one thing; says what is new.
    pub(super) fn between(&mut self, group: &Group, apart: Option<&Apart>) -> Vec<Change> {
        let now = apart.map(|apart| apart.view.id);
        if self.between.get(group).copied() == now {
            return Vec::new();
        }
        let before = self.between.remove(group);
        let mut changes: Vec<Change> =
            before.and_then(|before| self.close(&before, now)).into_iter().collect();
        let Some(apart) = apart else { return changes };
        let [document, ..] = apart.documents.as_slice() else { return changes };
        let summary = apart.summary();
        if self.open.len() < ENTRIES_MAX && self.add(document, &apart.documents, &summary) {
            self.between.insert(group.clone(), summary.id);
            changes.push(Change::Opened { conflict: summary });
        }
        changes
    }

    /// Whether something is open in a document, or between it and others, or may be, but for what
    /// was dismissed.
    pub(super) fn has_undecided(
        &self,
        document: &DocumentId,
        is_dismissed: impl Fn(&ConflictId) -> bool,
    ) -> bool {
        let listed = self.documents.get(document);
        let is_unsure = |listed: &Listed| listed.unlisted > 0 || listed.failed.is_some();
        let ids = listed.into_iter().flat_map(|listed| &listed.ids);
        let mut ids = ids.chain(self.parts.get(document).into_iter().flatten());
        listed.is_some_and(is_unsure) || ids.any(|id| !is_dismissed(id))
    }

    /// Whether a conflict is listed.
    pub(super) fn is_open(&self, id: &ConflictId) -> bool {
        self.open.contains_key(id)
    }

    /// Somebody dismissed a conflict, or took that back; whether that is news.
    pub(super) fn dismissed(&mut self, id: &ConflictId, is_dismissed: bool, is_news: bool) {
        match self.open.get(id) {
            Some(entry) if is_dismissed => self.outcomes.dismissed(*id, &entry.code, is_news),
            _ => self.outcomes.reopened(id),
        }
    }

    /// What the schema says of a conflict was done; its documents will be looked at again.
    pub(super) fn ruled(&mut self, id: ConflictId) {
        if self.is_open(&id) {
            self.outcomes.ruled(id);
        }
    }

    /// The conflicts of a document cannot be found, for this reason. What was known stays.
    pub(super) fn failed(&mut self, document: &DocumentId, reason: String) {
        self.documents.entry(document.clone()).or_default().failed = Some(reason);
    }

    /// A conflict was decided here; its document will be looked at again.
    pub(super) fn decided(&mut self, id: &ConflictId) -> Option<Change> {
        let document = &self.open.get(id)?.document;
        if let Some(listed) = self.documents.get_mut(document) {
            listed.ids.remove(id);
        }
        self.close(id, None)
    }

    fn add(&mut self, document: &DocumentId, documents: &[DocumentId], summary: &Summary) -> bool {
        // What was JSON just now is JSON again.
        let Ok(json) = serde_json::to_string(summary) else { return false };
        let entry = Entry {
            document: document.clone(),
            documents: documents.into(),
            code: summary.code.as_str().into(),
            slot: summary.slot.as_str().into(),
            time: summary.time,
            json: json.into(),
        };
        *self.codes.entry(entry.code.clone()).or_default() += 1;
        self.order.insert((entry.time, summary.id));
        for document in documents {
            self.parts.entry(document.clone()).or_default().insert(summary.id);
        }
        self.open.insert(summary.id, entry);
        true
    }

    fn close(&mut self, id: &ConflictId, successor: Option<ConflictId>) -> Option<Change> {
        let entry = self.open.remove(id)?;
        self.order.remove(&(entry.time, *id));
        for document in &entry.documents {
            if let Some(parts) = self.parts.get_mut(document) {
                parts.remove(id);
                if parts.is_empty() {
                    self.parts.remove(document);
                }
            }
        }
        if let Some(count) = self.codes.get_mut(&entry.code) {
            *count -= 1;
        }
        self.outcomes.closed(id, &entry.code, successor.is_some());
        let document = entry.document.as_str().to_owned();
        self.closed.remember(*id, entry.document, entry.slot);
        Some(Change::Closed { id: *id, document, successor })
    }

    /// The document that a conflict is or was in, and the slot that it is about.
    pub(super) fn find(&self, id: &ConflictId) -> Option<(DocumentId, String)> {
        if let Some(entry) = self.open.get(id) {
            return Some((entry.document.clone(), entry.slot.to_string()));
        }
        let (document, slot) = self.closed.slots.get(id)?;
        Some((document.clone(), slot.to_string()))
    }

    /// How many are open, listed or not.
    pub(super) fn count(&self) -> usize {
        self.open.len() + self.unlisted
    }

    /// How many are open but not listed.
    pub(super) fn unlisted(&self) -> usize {
        self.unlisted
    }

    /// How many are listed, by code.
    pub(super) fn codes(&self) -> &BTreeMap<Box<str>, usize> {
        &self.codes
    }

    /// Documents whose conflicts are not known, and why: the first of them.
    pub(super) fn failures(&self, limit: usize) -> Vec<(&DocumentId, &str)> {
        let failed = self.documents.iter();
        failed
            .filter_map(|(document, listed)| Some((document, listed.failed.as_deref()?)))
            .take(limit)
            .collect()
    }
}

impl Closed {
    fn remember(&mut self, id: ConflictId, document: DocumentId, slot: Box<str>) {
        if self.slots.insert(id, (document, slot)).is_none() {
            self.order.push_back(id);
        }
        if self.order.len() > CLOSED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.slots.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::standings::Standings, listing::Page, *};

    fn document(n: u8) -> DocumentId {
        DocumentId::from_bytes(&[n; 16])
    }

    fn summary(n: u32, document: u8, slot: &str, code: &str) -> Summary {
        Summary {
            id: format!("{n:032x}").parse().unwrap(),
            document: self::document(document).as_str().to_owned(),
            type_name: None,
            code: code.to_owned(),
            path: Some("title".to_owned()),
            problem: None,
            slot: slot.to_owned(),
            time: i64::from(n / 2),
            sides: Vec::new(),
            side_count: 2,
        }
    }

    fn ids(page: &Page) -> Vec<u32> {
        let id = |json: &str| {
            let summary: Summary = serde_json::from_str(json).unwrap();
            u32::from_str_radix(&summary.id.to_string(), 16).unwrap()
        };
        page.conflicts.iter().map(|json| id(json)).collect()
    }

    #[test]
    fn pages_give_each_conflict_once_newest_first() {
        let mut index = Index::default();
        for n in 0..25 {
            let code = if n % 3 == 0 { "twin" } else { "value" };
            let mut open: Vec<Summary> = vec![summary(n, u8::try_from(n).unwrap(), "s", code)];
            open.extend((n == 7).then(|| summary(100, 7, "t", "value")));
            index.update(&document(u8::try_from(n).unwrap()), open, 0);
        }
        let all = |filter: &Filter| {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = index.list(filter, &Standings::default(), after, 4);
                found.extend(ids(&page));
                after = page.next;
                if after.is_none() {
                    return found;
                }
            }
        };
        let every: Vec<u32> = [100].into_iter().chain((0..25).rev()).collect();
        assert_eq!(all(&Filter::default()), every);
        let twins = Filter { code: Some("twin".to_owned()), ..Filter::default() };
        assert_eq!(all(&twins), [24, 21, 18, 15, 12, 9, 6, 3, 0]);
        assert_eq!(index.codes()["twin"], 9);
        let one = Filter { document: Some(document(7)), ..Filter::default() };
        assert_eq!(all(&one), [100, 7]);
        assert_eq!(index.count(), 26);
    }

    #[test]
    fn what_is_gone_is_closed_and_its_successor_named() {
        let mut index = Index::default();
        let (one, two) = (summary(1, 1, "a", "value"), summary(2, 1, "b", "value"));
        let opened = index.update(&document(1), vec![one.clone(), two.clone()], 0);
        assert_eq!(opened.len(), 2);
        let next = summary(3, 1, "a", "value");
        let changes = index.update(&document(1), vec![next.clone(), two.clone()], 5);
        let closed =
            Change::Closed { id: one.id, document: one.document.clone(), successor: Some(next.id) };
        assert_eq!(changes, [closed, Change::Opened { conflict: next.clone() }]);
        assert_eq!((index.count(), index.unlisted()), (7, 5));
        assert_eq!(index.find(&one.id), Some((document(1), "a".to_owned())));
        assert!(index.decided(&two.id).is_some());
        assert_eq!(index.update(&document(1), vec![next], 0), []);
        assert_eq!(index.count(), 1);
        assert_eq!(index.update(&document(1), Vec::new(), 0).len(), 1);
        assert_eq!((index.count(), index.codes()["value"]), (0, 0));
        assert!(
            index.list(&Filter::default(), &Standings::default(), None, 10).conflicts.is_empty()
        );
    }

    #[test]
    fn a_document_that_cannot_be_looked_at_keeps_what_was_known_of_it() {
        let mut index = Index::default();
        index.update(&document(1), vec![summary(1, 1, "a", "value")], 0);
        index.failed(&document(1), "too large".to_owned());
        assert_eq!(index.failures(10), [(&document(1), "too large")]);
        assert_eq!(index.count(), 1);
        index.update(&document(1), vec![summary(1, 1, "a", "value")], 0);
        assert_eq!(index.failures(10), []);
        assert_eq!(index.count(), 1);
    }
}
