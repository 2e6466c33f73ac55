//! What of the index is wanted: pages for people, and what is decided in one go.

use concord_protocol::DocumentId;

use super::{
    super::standings::{Standings, Wanted},
    Entry, Index, Mark,
};
use crate::review::{ConflictId, Summary, bulk::Filter as BulkFilter};

/// Conflicts that are looked at for one call that decides many: a fraction of a second.
const LOOKED_AT_MAX: usize = 20_000;

/// Which conflicts are wanted.
#[derive(Debug, Default)]
pub(in super::super) struct Filter {
    pub(in super::super) code: Option<String>,
    pub(in super::super) document: Option<DocumentId>,
    pub(in super::super) state: Wanted,
    pub(in super::super) assignee: Option<String>,
    /// The time at which it is asked, in seconds since 1970.
    pub(in super::super) now_s: i64,
}

/// A part of a listing.
#[derive(Debug, Default, PartialEq)]
pub(in super::super) struct Page {
    /// JSON objects.
    pub(in super::super) conflicts: Vec<String>,
    /// Where the next page begins, if there is one.
    pub(in super::super) next: Option<Mark>,
}

/// What is decided in one go.
#[derive(Debug, Default)]
pub(in super::super) struct Matching {
    pub(in super::super) conflicts: Vec<(ConflictId, DocumentId)>,
    /// Where to go on, if that was not all.
    pub(in super::super) next: Option<Mark>,
}

impl Index {
    /// A page of what is open, newest first.
    pub(in super::super) fn list(
        &self,
        filter: &Filter,
        standings: &Standings,
        after: Option<Mark>,
        limit: usize,
    ) -> Page {
        let mut page = Page::default();
        let now_s = filter.now_s;
        let mut take = |mark: Mark, entry: &Entry| {
            if filter.code.as_deref().is_some_and(|code| *code != *entry.code) {
                return true;
            }
            let assignee = standings.of(&mark.1).and_then(|of| of.assignee.as_ref());
            if filter.assignee.as_ref().is_some_and(|wanted| Some(wanted) != assignee)
                || !filter.state.takes(standings.state(&mark.1, now_s))
            {
                return true;
            }
            if page.conflicts.len() < limit {
                page.conflicts.push(standings.with(&mark.1, &entry.json, now_s));
                page.next = Some(mark);
                return true;
            }
            false
        };
        let is_cut = if let Some(document) = &filter.document {
            let listed = self.documents.get(document);
            let ids = listed.into_iter().flat_map(|listed| &listed.ids);
            let ids = ids.chain(self.parts.get(document).into_iter().flatten());
            let mut marks: Vec<(Mark, &Entry)> = ids
                .filter_map(|id| self.open.get(id).map(|entry| ((entry.time, *id), entry)))
                .filter(|(mark, _)| after.is_none_or(|after| *mark < after))
                .collect();
            marks.sort_unstable_by_key(|(mark, _)| std::cmp::Reverse(*mark));
            !marks.into_iter().all(|(mark, entry)| take(mark, entry))
        } else {
            let marks = match after {
                Some(after) => self.order.range(..after),
                None => self.order.range::<Mark, _>(..),
            };
            let mut marks = marks.rev();
            !marks.all(|mark| self.open.get(&mark.1).is_none_or(|entry| take(*mark, entry)))
        };
        page.next = page.next.filter(|_| is_cut);
        page
    }

    /// Conflicts that a filter takes and somebody has yet to decide, newest first; of one document
    /// each, for those between several are decided one by one. Looks at so many at most.
    pub(in super::super) fn matching(
        &self,
        filter: &BulkFilter,
        standings: &Standings,
        now_s: i64,
        (after, limit): (Option<Mark>, usize),
    ) -> Matching {
        let marks = match after {
            Some(after) => self.order.range(..after),
            None => self.order.range::<Mark, _>(..),
        };
        let mut found = Matching::default();
        for (looked_at, mark) in (0..).zip(marks.rev()) {
            if looked_at == LOOKED_AT_MAX || found.conflicts.len() == limit {
                return found;
            }
            found.next = Some(*mark);
            let Some(entry) = self.open.get(&mark.1) else { continue };
            let is_other = filter.code.as_deref().is_some_and(|code| *code != *entry.code)
                || filter.document.as_deref().is_some_and(|id| id != entry.document.as_str())
                || !standings.state(&mark.1, now_s).is_pending()
                || !entry.documents.is_empty();
            // What is listed was made of such a summary.
            if !is_other
                && let Ok(summary) = serde_json::from_str::<Summary>(&entry.json)
                && filter.takes(&summary, now_s)
            {
                found.conflicts.push((mark.1, entry.document.clone()));
            }
        }
        // That was all.
        found.next = None;
        found
    }
}
