//! What is asked of the index: filters, an order, and a page.

use std::{cmp::Ordering, collections::BTreeMap};

use concord_protocol::DocumentId;
use serde::{Deserialize, Serialize};

use super::{
    ReadError,
    cell::{Cell, OwnCell},
    entry::Entry,
    filter::{Filter, Prepared, field_number},
};
use crate::{
    entity::{EntityType, Kind, Value},
    record,
};

/// Entities of a page, if a query does not say how many.
pub const PAGE: usize = 100;
/// Entities of a page at most: a page is in memory as a whole.
pub const PAGE_MAX: usize = 10_000;
/// Filters, and fields to sort by, of a query at most.
const PARTS_MAX: usize = 64;

/// What to look for among the entities of a type.
///
/// ```
/// use concord::{entity::Value, peer::{Query, Test}};
///
/// let open = Query::of("task")
///     .filter("status", Test::Is(Value::String("open".to_owned())))
///     .descending("due")
///     .limit(50);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    pub(in crate::peer) of: String,
    pub(super) filters: Vec<Filter>,
    pub(super) sort: Vec<Sort>,
    pub(in crate::peer) limit: usize,
    pub(in crate::peer) after: Option<Cursor>,
    pub(super) with_deleted: bool,
}

/// A field to sort by. What has no value in it comes last either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    /// The name of a field that the type declares; not one with parts.
    pub field: String,
    /// The greatest first.
    pub descending: bool,
}

impl Query {
    /// All entities of a type, by their keys.
    pub fn of(type_name: impl Into<String>) -> Self {
        let (filters, sort) = (Vec::new(), Vec::new());
        Self { of: type_name.into(), filters, sort, limit: PAGE, after: None, with_deleted: false }
    }

    /// Only those of which this holds, too.
    #[must_use]
    pub fn filter(mut self, field: impl Into<String>, test: super::Test) -> Self {
        self.filters.push(Filter::new(field, test));
        self
    }

    /// Sorted by a field, the least first; where that is the same, as said before or after this.
    #[must_use]
    pub fn ascending(mut self, field: impl Into<String>) -> Self {
        self.sort.push(Sort { field: field.into(), descending: false });
        self
    }

    /// The same, the greatest first.
    #[must_use]
    pub fn descending(mut self, field: impl Into<String>) -> Self {
        self.sort.push(Sort { field: field.into(), descending: true });
        self
    }

    /// So many at most; from 1 to [`PAGE_MAX`], and [`PAGE`] where this is not called.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = limit.clamp(1, PAGE_MAX);
        self
    }

    /// Those after a page: see [`Page::next`](super::super::Page::next).
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// Those that are deleted, too.
    #[must_use]
    pub fn with_deleted(mut self) -> Self {
        self.with_deleted = true;
        self
    }

    /// The name of the type.
    pub fn type_name(&self) -> &str {
        &self.of
    }

    /// What must hold of each.
    pub(crate) fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// Those that are deleted are asked for, too.
    pub(crate) fn asks_for_deleted(&self) -> bool {
        self.with_deleted
    }

    /// The same without an order, a limit and a beginning.
    pub(crate) fn bare(self) -> Self {
        let Self { of, filters, with_deleted, .. } = self;
        Self { filters, with_deleted, ..Self::of(of) }
    }

    /// Nothing is asked about a field.
    pub(crate) fn is_plain(&self) -> bool {
        self.filters.is_empty() && self.sort.is_empty()
    }

    /// The same for the index, if the type is as it is asked. A type that no schema declares has no
    /// fields to ask about, and is listed.
    pub(crate) fn prepare(&self, of: Option<&EntityType>) -> Result<Plan, ReadError> {
        if self.filters.len() > PARTS_MAX || self.sort.len() > PARTS_MAX {
            return Err(ReadError::TooMuch { max: PARTS_MAX });
        }
        let none = || ReadError::NoType { type_name: self.of.clone(), known: Vec::new() };
        let prepare = |filter: &Filter| filter.prepare(of.ok_or_else(none)?);
        let filters: Vec<Prepared> = self.filters.iter().map(prepare).collect::<Result<_, _>>()?;
        let mut sort = Vec::with_capacity(self.sort.len());
        for Sort { field, descending } in &self.sort {
            let of = of.ok_or_else(none)?;
            let number = field_number(of, field)?;
            let kind = &of.fields[field].kind;
            if kind.object().is_some_and(|_| !matches!(kind, Kind::Text { .. }))
                || matches!(kind, Kind::Json | Kind::Blob { .. })
            {
                return Err(ReadError::Sort { field: field.clone(), kind: kind.name() });
            }
            sort.push((number, *descending));
        }
        let after = self.after.as_ref().map(|cursor| cursor.0.clone());
        if after.as_ref().is_some_and(|after| after.sort.len() != sort.len()) {
            return Err(ReadError::OtherCursor);
        }
        Ok(Plan { of: self.of.clone(), filters, sort, after, with_deleted: self.with_deleted })
    }
}

/// Where a page ended: the next begins behind it, also if that entity is gone or moved since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub(super) Position);

/// A place in the order of a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    pub(super) sort: Vec<OwnCell>,
    pub(super) name: String,
    pub(super) id: String,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What is bounded as entries are is no more than a record may be.
        let bytes = record::encode(&self.0).unwrap_or_default();
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::str::FromStr for Cursor {
    type Err = ReadError;

    fn from_str(text: &str) -> Result<Self, ReadError> {
        /// Characters of one that was made here, at most: of all fields that are sorted by.
        const MAX: usize = 64 * 1024;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let byte = |pair: &[u8]| match pair {
            [high, low] => u8::try_from(16 * digit(*high)? + digit(*low)?).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> =
            if text.len() > MAX { None } else { text.as_bytes().chunks(2).map(byte).collect() };
        let position = bytes.and_then(|bytes| record::decode(&bytes).ok());
        position.map(Self).ok_or(ReadError::NoCursor)
    }
}

/// A query that fits its type.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(super) of: String,
    pub(super) filters: Vec<Prepared>,
    sort: Vec<(usize, bool)>,
    pub(super) after: Option<Position>,
    with_deleted: bool,
}

impl Plan {
    /// Whether an entry is wanted; `None` if only its document says.
    pub(crate) fn decide(&self, entry: &Entry) -> Option<bool> {
        if entry.is_deleted() && !self.with_deleted {
            return Some(false);
        }
        let mut decided = Some(true);
        for filter in &self.filters {
            match filter.decide(entry.cell(filter.number())) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => decided = None,
            }
        }
        decided
    }

    /// Whether an entity is wanted, by the values of the fields that are asked about.
    pub(crate) fn holds(&self, values: &BTreeMap<String, Value>) -> bool {
        self.filters.iter().all(|filter| filter.holds(values.get(&filter.field)))
    }

    /// Whether a field is asked about.
    pub(crate) fn asks_about(&self, field: &str) -> bool {
        self.filters.iter().any(|filter| filter.field == field)
    }

    /// Entries come in the order of their names.
    pub(super) fn is_by_name(&self) -> bool {
        self.sort.is_empty()
    }

    pub(super) fn order(&self, one: &Entry, other: &Entry) -> Ordering {
        let by_fields = self
            .sort
            .iter()
            .map(|(field, descending)| one.cell(*field).order(other.cell(*field), *descending));
        let by_name = || (one.name(), one.id()).cmp(&(other.name(), other.id()));
        by_fields.fold(Ordering::Equal, Ordering::then).then_with(by_name)
    }

    /// How an entry stands to a place.
    pub(super) fn order_to(&self, entry: &Entry, place: &Position) -> Ordering {
        let by_fields = self.sort.iter().zip(&place.sort).map(|((field, descending), cell)| {
            let cell: Cell<'_> = cell.cell();
            entry.cell(*field).order(cell, *descending)
        });
        let by_name = || (entry.name(), entry.id()).cmp(&(&place.name, &place.id));
        by_fields.fold(Ordering::Equal, Ordering::then).then_with(by_name)
    }

    /// The place of an entry.
    pub(crate) fn position(&self, entry: &Entry) -> Position {
        let sort = self.sort.iter().map(|(field, _)| entry.cell(*field).to_own()).collect();
        Position { sort, name: entry.name().to_owned(), id: entry.id().to_owned() }
    }

    /// Those after this place.
    pub(crate) fn go_on_after(&mut self, place: Position) {
        self.after = Some(place);
    }
}

impl Cursor {
    pub(crate) fn new(position: Position) -> Self {
        Self(position)
    }
}

/// An entity as the index has it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Row {
    /// Its document.
    pub document: DocumentId,
    /// What its document says that its type is; nothing if it says none.
    pub type_name: String,
    /// Its key, if its document says it: [`Peer::put`](super::super::Peer::put) writes it.
    pub key: Option<String>,
    /// It is deleted, and still there.
    pub is_deleted: bool,
    /// When its newest change was made, in seconds since 1970, by the clock of whoever made it.
    pub changed: i64,
    /// The values of its fields that are no containers; strings from 128 bytes on are cut.
    pub values: BTreeMap<String, Value>,
    /// Fields that have a value of which `values` has not all: open the document for that.
    pub partial: Vec<String>,
}

impl Row {
    /// An entry with the names of its fields.
    pub(crate) fn new(entry: &Entry, of: Option<&EntityType>) -> Option<Self> {
        let (mut values, mut partial) = (BTreeMap::new(), Vec::new());
        for (name, cell) in of.iter().flat_map(|of| of.fields.keys()).zip(entry.cells()) {
            if !cell.is_whole() {
                partial.push(name.clone());
            }
            values.extend(cell.to_value().map(|value| (name.clone(), value)));
        }
        Some(Self {
            document: entry.id().parse().ok()?,
            type_name: entry.type_name().to_owned(),
            key: entry.key().map(str::to_owned),
            is_deleted: entry.is_deleted(),
            changed: entry.changed(),
            values,
            partial,
        })
    }

    /// What it is listed by: its key, or else its document's id.
    pub fn name(&self) -> &str {
        self.key.as_deref().unwrap_or(self.document.as_str())
    }
}
