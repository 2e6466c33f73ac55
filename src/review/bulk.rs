//! Many conflicts at once: which of them, and the name that decisions made together have in common,
//! by which they can be taken back together.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{ConflictId, Summary, summary::shortened};

/// Conflicts that are decided, or shown as they would be, in one go; for more there is a
/// continuation.
pub const BULK_MAX: usize = 200;

/// The name that decisions which were made together have in common: 16 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BulkId([u8; 8]);

impl BulkId {
    /// A name of bytes that were drawn for it.
    pub fn new(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for BulkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for BulkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BulkId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = text.len() == 16 && text.bytes().all(|c| c.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_name);
        number.map(|number| Self(number.to_be_bytes())).ok_or_else(|| {
            format!("{text:?} is not the id of a bulk of decisions: 16 hexadecimal digits")
        })
    }
}

impl Serialize for BulkId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BulkId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// Which conflicts; what is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Only these.
    pub ids: Option<BTreeSet<ConflictId>>,
    /// Of this kind.
    pub code: Option<String>,
    /// In this document, by its id.
    pub document: Option<String>,
    /// In documents that say they are of this type.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    /// At this field, or in it: `title`, `address.street`, `lines.amount` (of any line).
    pub field: Option<String>,
    /// Of which this author, or writer without an author, has a side.
    pub author: Option<String>,
    /// Whose last side was written at least so many seconds ago.
    pub older_than_s: Option<i64>,
}

impl Filter {
    /// Whether a conflict is one of those, at this time, in seconds since 1970.
    pub fn takes(&self, conflict: &Summary, now_s: i64) -> bool {
        fn is(wanted: Option<&String>, found: Option<&String>) -> bool {
            wanted.is_none_or(|wanted| Some(wanted) == found)
        }
        let has_side = |author: &String| {
            let author = shortened(author);
            conflict.sides.iter().flat_map(|side| &side.by).any(|by| *by == author)
        };
        self.ids.as_ref().is_none_or(|ids| ids.contains(&conflict.id))
            && is(self.code.as_ref(), Some(&conflict.code))
            && is(self.document.as_ref(), Some(&conflict.document))
            && is(self.type_name.as_ref(), conflict.type_name.as_ref())
            && self
                .field
                .as_ref()
                .is_none_or(|field| conflict.path.as_ref().is_some_and(|path| is_at(field, path)))
            && self.author.as_ref().is_none_or(has_side)
            && self.older_than_s.is_none_or(|age| conflict.time <= now_s.saturating_sub(age))
    }
}

/// Whether a path is that of a field, or of something in it. Elements of lists count for the list.
fn is_at(field: &str, path: &str) -> bool {
    let rest = |path: &str| {
        let rest = path.strip_prefix(field)?;
        Some(rest.is_empty() || rest.starts_with(['.', '[']))
    };
    rest(path) == Some(true) || rest(&without_indexes(path)) == Some(true)
}

/// A path without the places in lists: `lines[2].amount` is `lines.amount`.
pub(super) fn without_indexes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('[') {
        out.push_str(before);
        match after.split_once(']') {
            Some((index, after)) if index.bytes().all(|c| c.is_ascii_digit()) => rest = after,
            _ => {
                out.push('[');
                rest = after;
            }
        }
    }
    out + rest
}

/// What would become of a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// Which.
    pub id: ConflictId,
    /// In which document.
    pub document: String,
    /// Where in it.
    pub path: Option<String>,
    /// What would be there, as JSON in at most a few words; `null` for nothing.
    pub becomes: Option<String>,
    /// Why it cannot be decided so.
    pub refused: Option<String>,
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    #[test]
    fn a_field_is_found_where_it_is_and_below() {
        for (field, path, found) in [
            ("title", "title", true),
            ("title", "titles", false),
            ("title", "sub.title", false),
            ("address", "address.street", true),
            ("lines", "lines[3]", true),
            ("lines.amount", "lines[3].amount", true),
            ("lines[3].amount", "lines[3].amount", true),
            ("lines[2].amount", "lines[3].amount", false),
            ("a", "a[\"x\"]", true),
        ] {
            assert_eq!(is_at(field, path), found, "{field} {path}");
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let id = BulkId::new([0, 1, 2, 3, 4, 5, 6, 255]);
        assert_eq!(id.to_string(), "00010203040506ff");
        assert_eq!("00010203040506ff".parse(), Ok(id));
        for wrong in ["", "+0010203040506ff", "00010203040506f", "00010203040506fff", "ü"] {
            assert!(wrong.parse::<BulkId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_message_of_a_decision_names_what_it_was_made_together_with() {
        use crate::review::Decided;
        let id = "12".repeat(16);
        let read =
            |words: &str| Decided::read(&format!("concord:resolve {id} side-1{words}")).unwrap();
        let bulk = BulkId::new([9; 8]);
        let decided = read(" bulk-0909090909090909\nboth lines\nof it");
        assert_eq!((decided.bulk, decided.choice.as_str()), (Some(bulk), "side-1"));
        assert_eq!(decided.reason.as_deref(), Some("both lines\nof it"));
        for other in [
            "",
            " ",
            " bulk-",
            " bulk-09",
            " later bulk-0909090909090909",
            "\nbulk-0909090909090909",
        ] {
            assert_eq!(read(other).bulk, None, "{other:?}");
        }
    }

    quickcheck! {
        fn any_path_can_be_looked_at(path: String) -> bool {
            without_indexes(&path).len() <= path.len() && is_at(&path, &path)
        }
    }
}
