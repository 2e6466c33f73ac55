//! What the index has of one document, in one piece of memory: 100,000 of them are to cost little
//! more than what they say.

use std::{borrow::Borrow, cmp::Ordering, sync::Arc};

use concord_protocol::DocumentId;

use super::cell::{Cell, TEXT_BYTES_MAX};

/// Bytes of the values of one document that the index has. Strings beyond are cut, to nothing if
/// need be.
const CELLS_BYTES_MAX: usize = 4_096;
/// What comes before the names: three numbers of eight bytes, flags, the lengths of the names, and
/// how many conflicts are open.
const HEADER: usize = 33;
/// Where the number of conflicts is.
const CONFLICTS: usize = 31;
const DELETED: u8 = 1;
const KEYED: u8 = 2;

/// See the module. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entry(Arc<[u8]>);

/// What an entry is made of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parts<'a> {
    pub(crate) id: &'a DocumentId,
    /// What the document says that its type is; nothing if it says none.
    pub(crate) type_name: &'a str,
    pub(crate) key: Option<&'a str>,
    /// By which declaration of the type it was read.
    pub(crate) reading: u64,
    /// Of the heads that it was read at.
    pub(crate) heads: u64,
    /// When its newest change was made, in seconds since 1970.
    pub(crate) changed: i64,
    pub(crate) is_deleted: bool,
    /// Open in it; `u16::MAX` means so many or more.
    pub(crate) conflicts: u16,
    /// Of all fields of the type, in the order of their names.
    pub(crate) cells: Vec<Cell<'a>>,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("id", &self.id())
            .field("type", &self.type_name())
            .field("key", &self.key())
            .field("changed", &self.changed())
            .field("is_deleted", &self.is_deleted())
            .field("conflicts", &self.conflicts())
            .field("cells", &self.cells().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Entry {
    pub(crate) fn new(parts: &Parts<'_>) -> Self {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&parts.reading.to_le_bytes());
        out.extend_from_slice(&parts.heads.to_le_bytes());
        out.extend_from_slice(&parts.changed.to_le_bytes());
        let deleted = if parts.is_deleted { DELETED } else { 0 };
        let keyed = if parts.key.is_some() { KEYED } else { 0 };
        out.push(deleted | keyed);
        // A document id has 256 bytes at most, the name of a type 64 and a key 256.
        let names = [parts.id.as_str(), parts.type_name, parts.key.unwrap_or_default()];
        let names = names.map(|name| name.get(..usize::from(u16::MAX)).unwrap_or(name));
        for name in names {
            out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
        }
        out.extend_from_slice(&parts.conflicts.to_le_bytes());
        for name in names {
            out.extend_from_slice(name.as_bytes());
        }
        let end = out.len() + CELLS_BYTES_MAX;
        for (number, cell) in parts.cells.iter().enumerate() {
            // Whatever comes is at least a byte, and a number nine.
            let reserved = 10 * (parts.cells.len() - number);
            let room = end.saturating_sub(out.len() + reserved);
            cell.cut_to(room.min(TEXT_BYTES_MAX)).pack(&mut out);
        }
        Self(out.into())
    }

    /// An entry that was kept; `None` if the bytes are none.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let entry = Self(bytes.into());
        let lengths = [entry.length(0), entry.length(1), entry.length(2)];
        let end = lengths.iter().try_fold(HEADER, |end, length| end.checked_add(*length))?;
        let mut at = HEADER;
        for length in lengths {
            std::str::from_utf8(bytes.get(at..at + length)?).ok()?;
            at += length;
        }
        let mut cells = bytes.get(end..)?;
        while !cells.is_empty() {
            Cell::unpack(&mut cells)?;
        }
        entry.id().parse::<DocumentId>().ok()?;
        Some(entry)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn word(&self, number: usize) -> u64 {
        let bytes = self.0.get(8 * number..).and_then(|bytes| bytes.first_chunk::<8>());
        bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn flags(&self) -> u8 {
        self.0.get(24).copied().unwrap_or_default()
    }

    fn short(&self, at: usize) -> u16 {
        let bytes = self.0.get(at..).and_then(|bytes| bytes.first_chunk::<2>());
        bytes.map_or(0, |bytes| u16::from_le_bytes(*bytes))
    }

    fn length(&self, name: usize) -> usize {
        usize::from(self.short(25 + 2 * name))
    }

    fn bytes_at(&self, number: usize) -> &[u8] {
        let before: usize = (0..number).map(|before| self.length(before)).sum();
        let from = HEADER + before;
        self.0.get(from..from + self.length(number)).unwrap_or_default()
    }

    fn name_at(&self, number: usize) -> &str {
        // Checked when it was made or parsed.
        std::str::from_utf8(self.bytes_at(number)).unwrap_or_default()
    }

    pub(crate) fn reading(&self) -> u64 {
        self.word(0)
    }

    pub(crate) fn heads(&self) -> u64 {
        self.word(1)
    }

    pub(crate) fn changed(&self) -> i64 {
        self.word(2).cast_signed()
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.flags() & DELETED != 0
    }

    /// How many conflicts are open in it.
    pub(crate) fn conflicts(&self) -> usize {
        usize::from(self.short(CONFLICTS))
    }

    pub(crate) fn id(&self) -> &str {
        self.name_at(0)
    }

    pub(crate) fn type_name(&self) -> &str {
        self.name_at(1)
    }

    pub(crate) fn key(&self) -> Option<&str> {
        (self.flags() & KEYED != 0).then(|| self.name_at(2))
    }

    /// What it is listed by: its key, or else its document's id.
    pub(crate) fn name(&self) -> &str {
        self.key().unwrap_or_else(|| self.id())
    }

    /// Of all fields of the type, in the order of their names.
    pub(crate) fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let names: usize = (0..3).map(|name| self.length(name)).sum();
        let mut rest = self.0.get(HEADER + names..).unwrap_or_default();
        std::iter::from_fn(move || if rest.is_empty() { None } else { Cell::unpack(&mut rest) })
    }

    /// That of a field; no value where it has less.
    pub(crate) fn cell(&self, field: usize) -> Cell<'_> {
        self.cells().nth(field).unwrap_or(Cell::Unset)
    }

    /// The document's id as entries are ordered by it: strings are, by their bytes.
    pub(super) fn id_order(&self) -> &[u8] {
        self.bytes_at(0)
    }

    /// The same of the name, then of the id.
    pub(super) fn name_order(&self) -> (&[u8], &[u8]) {
        let name = if self.flags() & KEYED == 0 { 0 } else { 2 };
        (self.bytes_at(name), self.bytes_at(0))
    }
}

/// An entry by its document's id.
#[derive(Debug, Clone)]
pub(super) struct ById(pub(super) Entry);

impl Borrow<str> for ById {
    fn borrow(&self) -> &str {
        self.0.id()
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ById {}

impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ById {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.id_order().cmp(other.0.id_order())
    }
}

/// An entry by its name, then by its document's id.
#[derive(Debug, Clone)]
pub(super) struct ByName(pub(super) Entry);

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for ByName {}

impl PartialOrd for ByName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name_order().cmp(&other.0.name_order())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_gives_back_what_it_was_made_of_and_is_bounded() {
        let id = DocumentId::from_bytes(&[7; 16]);
        let long = "x".repeat(TEXT_BYTES_MAX);
        let mut cells = vec![Cell::Integer(-5), Cell::Unset, Cell::Text { text: "é", cut: false }];
        cells.extend((0..200).map(|_| Cell::Text { text: &long, cut: false }));
        let parts = Parts {
            id: &id,
            type_name: "task",
            key: Some("42"),
            reading: 1,
            heads: 2,
            changed: -3,
            is_deleted: true,
            conflicts: 515,
            cells,
        };
        let entry = Entry::new(&parts);
        assert_eq!((entry.id(), entry.type_name(), entry.key()), (id.as_str(), "task", Some("42")));
        assert_eq!((entry.reading(), entry.heads(), entry.changed()), (1, 2, -3));
        assert!(entry.is_deleted());
        assert_eq!(entry.conflicts(), 515);
        assert_eq!(entry.cells().count(), parts.cells.len());
        assert_eq!(entry.cell(2), parts.cells[2]);
        let last = entry.cell(202);
        assert!(matches!(last, Cell::Text { text, cut: true } if text.len() < 10), "{last:?}");
        assert_eq!(entry.cell(2_000), Cell::Unset);
        assert!(entry.as_bytes().len() < CELLS_BYTES_MAX + 10_000, "{}", entry.as_bytes().len());
        assert_eq!(Entry::parse(entry.as_bytes()), Some(entry.clone()));
        for end in 0..HEADER + 40 {
            if let Some(cut) = Entry::parse(&entry.as_bytes()[..end]) {
                assert_eq!(cut.cells().count(), 0, "{end} bytes: it ends between two parts");
            }
        }
    }
}
