//! Which number each document has, and which rows say so: decisions without I/O.
//!
//! A document gets the next number whenever more of it is on disk, so whoever has seen all up to a
//! number has missed nothing that changed before. Numbers are in memory; on disk a row of the
//! document says that it is about to change (a *mark*), and is written before its changes are: once,
//! until a checkpoint puts the number in the mark's place. The store keeps a prefix of what it is
//! given, so after a crash a row that is no mark is true, and what is marked gets a new number.
//!
//! Numbers begin anew above all that an earlier run of the relay may have given. A cursor names the
//! run that gave it: one of a run that is not known here, or beyond what that run gave as far as is
//! known, is of a directory that is gone, or was restored from a backup, and whoever has it begins
//! anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use concord_protocol::DocumentId;

use super::{
    row::{Recalled, Root, Row, Run},
    table::{Entry, Standing, Table, TypeId},
};
use crate::replica::RowWrite;

/// Numbers that may be given before it is written that more are.
const CEILING_STEP: u64 = 1 << 20;
/// Runs of the relay whose cursors are good, the last ones: 16 bytes each, in one row.
const RUNS_MAX: usize = 1_000;

/// Where somebody is who follows the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cursor {
    run: u64,
    number: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}.{}", self.run, self.number)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (run, number) = text.split_once('.').ok_or(())?;
        let is_hex = run.len() == 16 && run.bytes().all(|byte| byte.is_ascii_hexdigit());
        let run = u64::from_str_radix(run, 16).ok().filter(|_| is_hex).ok_or(())?;
        let is_decimal = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number.parse().ok().filter(|_| is_decimal).ok_or(())?;
        Ok(Self { run, number })
    }
}

/// What is new about a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct News {
    /// A number for the heads on disk; 0 where they are not known.
    pub(super) heads: u64,
    /// Its type, where that was found out.
    pub(super) type_name: Option<String>,
    /// How it is with it, where that was found out.
    pub(super) standing: Option<Standing>,
}

/// A document whose row is not what is known of it.
#[derive(Debug, Default)]
struct Active {
    /// Writes of it that are not known to be on disk.
    under_way: usize,
    /// Its mark is on disk, or on its way there before those writes.
    is_marked: bool,
    /// Its type, where that was found before it had a number.
    type_name: Option<String>,
}

/// A page of the catalogue.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) documents: Vec<Listed>,
    pub(super) cursor: Cursor,
    pub(super) has_more: bool,
    /// The cursor that was given is of another time: this is the beginning.
    pub(super) reset: bool,
    /// How many there are that are not purged.
    pub(super) total: usize,
    /// All that was here before the catalogue is in it.
    pub(super) is_complete: bool,
}

/// A document of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) document: DocumentId,
    /// Nothing for none.
    pub(super) type_name: String,
    pub(super) heads: u64,
    pub(super) standing: Standing,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Feed {
    table: Table,
    active: BTreeMap<DocumentId, Active>,
    /// What came before it was known what is on disk.
    early: Option<BTreeMap<DocumentId, News>>,
    run: u64,
    next: u64,
    runs: Vec<Run>,
    is_complete: bool,
}

impl Feed {
    /// Of a run with a name that no other has, before it is known what is on disk.
    pub(super) fn new(run: u64) -> Self {
        Self {
            table: Table::default(),
            active: BTreeMap::new(),
            early: Some(BTreeMap::new()),
            run,
            next: 1,
            runs: Vec::new(),
            is_complete: false,
        }
    }

    /// What is on disk. Gives the row to be written before anything is told.
    pub(super) fn recalled(&mut self, recalled: Recalled) -> Option<RowWrite> {
        let Recalled { rows, runs, is_complete } = recalled;
        let given = runs.iter().map(|run| run.ceiling).chain(rows.iter().map(|row| row.number));
        self.next = given.max().unwrap_or(0).saturating_add(1);
        self.is_complete = is_complete;
        self.runs = runs;
        let surplus = (self.runs.len() + 1).saturating_sub(RUNS_MAX);
        self.runs.drain(..surplus);
        self.runs.push(Run { id: self.run, ceiling: self.next.saturating_add(CEILING_STEP) });
        let mut seen = BTreeSet::new();
        for row in rows {
            let Ok(document) = row.document.parse::<DocumentId>() else {
                self.is_complete = false;
                continue;
            };
            let of = self.table.type_id(&row.type_name);
            let standing = Standing::of_byte(row.standing).unwrap_or_default();
            let is_true = !row.is_mark && row.number > 0 && seen.insert(row.number);
            let (number, heads) = if is_true { (row.number, row.heads) } else { (self.give(), 0) };
            self.table.put(&document, Entry { number, heads, of, standing });
            if !is_true {
                self.active.entry(document).or_default().is_marked |= row.is_mark;
            }
        }
        for (document, news) in self.early.take().into_iter().flatten() {
            self.number(&document, news);
        }
        self.root().write()
    }

    /// Whether it is known what is on disk.
    pub(super) fn is_ready(&self) -> bool {
        self.early.is_none()
    }

    fn give(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    fn root(&self) -> Root {
        Root::new(self.is_complete, self.runs.clone())
    }

    /// The row to be written when the numbers that may be given come to their end.
    pub(super) fn raised(&mut self) -> Option<RowWrite> {
        let next = self.next;
        let ours = self.runs.last_mut()?;
        if next.saturating_add(CEILING_STEP / 2) <= ours.ceiling {
            return None;
        }
        // Should it not be written in time, cursors beyond it are unknown after a crash.
        ours.ceiling = next.saturating_add(CEILING_STEP);
        self.root().write()
    }

    /// More of a document is to be written, by which its type may be known. Gives its mark, to be
    /// written before, if it has none.
    pub(super) fn writing(&mut self, document: &DocumentId, of: Option<&str>) -> Option<RowWrite> {
        let active = self.active.entry(document.clone()).or_default();
        active.under_way += 1;
        if let Some(of) = of {
            active.type_name = Some(of.to_owned());
        }
        if std::mem::replace(&mut active.is_marked, true) {
            return None;
        }
        let known = self.table.get(document).copied();
        let before = known.map(|entry| self.table.type_name(entry.of));
        let type_name = active.type_name.as_deref().or(before).unwrap_or_default();
        let standing = known.map_or(0, |entry| entry.standing.to_byte());
        Row { standing, ..Row::new(document, type_name) }.write()
    }

    /// Nothing of what was to be written of a document is on disk, and its mark may not be either: it
    /// keeps its number.
    pub(super) fn not_written(&mut self, document: &DocumentId) {
        if let Some(active) = self.active.get_mut(document) {
            active.under_way = active.under_way.saturating_sub(1);
            active.is_marked = false;
        }
    }

    /// The mark of a document is not on disk.
    pub(super) fn not_marked(&mut self, document: &DocumentId) {
        if let Some(active) = self.active.get_mut(document) {
            active.is_marked = false;
        }
    }

    /// A mark, once more.
    pub(super) fn mark_again(&mut self, document: &DocumentId) -> Option<RowWrite> {
        let row = self.writing(document, None);
        if let Some(active) = self.active.get_mut(document) {
            active.under_way = active.under_way.saturating_sub(1);
        }
        row
    }

    /// What was to be written of a document is on disk, or may be.
    pub(super) fn written(&mut self, document: &DocumentId, mut news: News) {
        let active = self.active.entry(document.clone()).or_default();
        active.under_way = active.under_way.saturating_sub(1);
        if news.type_name.is_none() {
            news.type_name = active.type_name.take();
        }
        self.learn(document, news);
    }

    /// Somebody looked into a document. Gives its mark if that is news, to be on disk before
    /// [`Feed::looked_at`]: whoever follows passes by its number once it has another, which must not
    /// be its number again after a crash.
    pub(super) fn looking(
        &mut self,
        document: &DocumentId,
        of: &str,
        is_deleted: bool,
    ) -> Option<RowWrite> {
        let standing = if is_deleted { Standing::Deleted } else { Standing::Live };
        let is_so = |entry: &Entry| {
            let is_same = self.table.type_name(entry.of) == of && entry.standing == standing;
            is_same || entry.standing == Standing::Purged
        };
        if self.table.get(document).is_some_and(is_so) {
            return None;
        }
        // One that was asked for before may still be on its way.
        self.not_marked(document);
        self.writing(document, Some(of))
    }

    /// The mark for that is on disk.
    pub(super) fn looked_at(&mut self, document: &DocumentId, of: &str, is_deleted: bool) {
        let standing = if is_deleted { Standing::Deleted } else { Standing::Live };
        let known = self.table.get(document);
        let is_purged = known.is_some_and(|entry| entry.standing == Standing::Purged);
        let standing = Some(if is_purged { Standing::Purged } else { standing });
        let heads = known.map_or(0, |entry| entry.heads);
        self.written(document, News { heads, type_name: Some(of.to_owned()), standing });
    }

    /// Whether the type of a document is not known.
    pub(super) fn is_untyped(&self, document: &DocumentId) -> bool {
        self.table.get(document).is_none_or(|entry| entry.of == TypeId::default())
    }

    fn learn(&mut self, document: &DocumentId, news: News) {
        let Some(early) = &mut self.early else { return self.number(document, news) };
        let known = early.entry(document.clone()).or_default();
        known.heads = news.heads;
        known.type_name = news.type_name.or(known.type_name.take());
        known.standing = news.standing.or(known.standing);
    }

    /// Gives a document the next number.
    fn number(&mut self, document: &DocumentId, news: News) {
        let known = self.table.get(document).copied();
        let of = match news.type_name {
            Some(name) => self.table.type_id(&name),
            None => known.map_or_else(TypeId::default, |entry| entry.of),
        };
        // Whoever is deleted and written again is looked at soon.
        let standing = news.standing.or(known.map(|entry| entry.standing)).unwrap_or_default();
        let number = self.give();
        self.table.put(document, Entry { number, heads: news.heads, of, standing });
        self.active.entry(document.clone()).or_default();
    }

    /// Stored documents, some of which may not be in the catalogue. How many were not.
    pub(super) fn stored(&mut self, documents: &[DocumentId]) -> usize {
        let missing: Vec<_> =
            documents.iter().filter(|id| self.table.get(id).is_none()).cloned().collect();
        for document in &missing {
            self.number(document, News::default());
        }
        missing.len()
    }

    /// All that is stored is in it. Gives the row to be written behind theirs.
    pub(super) fn complete(&mut self) -> Option<RowWrite> {
        self.is_complete = true;
        self.root().write()
    }

    /// Whether all that is stored was in it at the start.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Documents whose rows are not what is known of them.
    pub(super) fn unkept(&self) -> usize {
        self.active.len()
    }

    /// Rows of so many documents at most of which all is on disk, with their numbers: to be written
    /// before any mark that is given later.
    pub(super) fn checkpoint(&mut self, max: usize) -> Vec<(DocumentId, RowWrite)> {
        if !self.is_ready() {
            return Vec::new();
        }
        let quiet = self.active.iter().filter(|(_, active)| active.under_way == 0);
        let quiet: Vec<_> = quiet.take(max).map(|(document, _)| document.clone()).collect();
        let mut rows = Vec::with_capacity(quiet.len());
        for document in quiet {
            self.active.remove(&document);
            let Some(Entry { number, heads, of, standing }) = self.table.get(&document).copied()
            else {
                continue;
            };
            let row = Row::new(&document, self.table.type_name(of));
            let standing = standing.to_byte();
            let row = Row { standing, number, heads, is_mark: false, ..row };
            rows.extend(row.write().map(|row| (document, row)));
        }
        rows
    }

    /// These rows were not written.
    pub(super) fn not_kept(&mut self, documents: Vec<DocumentId>) {
        for document in documents {
            // A mark that was there is there.
            self.active.entry(document).or_default();
        }
    }

    /// A page, after a cursor or from the beginning: of a type, of those that have none (""), or of
    /// all.
    pub(super) fn list(&self, of: Option<&str>, after: Option<Cursor>, limit: usize) -> Listing {
        let reset = after.is_some_and(|after| !self.knows(after));
        let from = after.filter(|_| !reset).map_or(0, |after| after.number);
        let end = self.next.saturating_sub(1);
        let type_id = of.map(|of| self.table.known_type(of));
        let part = match type_id {
            // There never was one.
            Some(None) => super::table::Part::default(),
            None => self.table.after(from, None, limit),
            Some(Some(of)) => self.table.after(from, Some(of), limit),
        };
        let total = match type_id {
            Some(None) => 0,
            None => self.table.total(None),
            Some(of) => self.table.total(of),
        };
        let listed = |(document, entry): (DocumentId, Entry)| Listed {
            document,
            type_name: self.table.type_name(entry.of).to_owned(),
            heads: entry.heads,
            standing: entry.standing,
        };
        let number = if part.has_more { part.up_to } else { end };
        Listing {
            documents: part.documents.into_iter().map(listed).collect(),
            cursor: Cursor { run: self.run, number },
            has_more: part.has_more,
            reset,
            total,
            is_complete: self.is_complete,
        }
    }

    /// Where it ends now.
    pub(super) fn end(&self) -> Cursor {
        Cursor { run: self.run, number: self.next.saturating_sub(1) }
    }

    fn knows(&self, cursor: Cursor) -> bool {
        if cursor.run == self.run {
            return cursor.number < self.next;
        }
        self.runs.iter().any(|run| run.id == cursor.run && cursor.number <= run.ceiling)
    }

    /// How many documents there are of each type.
    pub(super) fn types(&self) -> Vec<(String, usize)> {
        self.table.types().map(|(name, count)| (name.to_owned(), count)).collect()
    }

    /// How many documents are known.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests;
