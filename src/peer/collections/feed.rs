//! The pages of a relay's catalogue, as they come: whatever stands there is read or refused.

use std::fmt::Write as _;

use concord_protocol::DocumentId;
use serde::Deserialize;

/// Bytes of a cursor that is kept: a relay of ours makes them of less than 40.
const CURSOR_BYTES_MAX: usize = 256;
/// Documents of a page, which is in memory as a whole.
pub(super) const PAGE: usize = 500;

/// A page of a catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) documents: Vec<Listed>,
    pub(super) cursor: String,
    pub(super) has_more: bool,
    pub(super) reset: bool,
    /// How many documents of the type the relay has.
    pub(super) total: usize,
    /// Whether the relay can know which documents are of the type.
    pub(super) is_declared: bool,
}

/// A document of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) document: DocumentId,
    /// A number for its heads, as [`heads_number`](crate::digest::heads_number) makes it.
    pub(super) version: Option<u64>,
    pub(super) is_deleted: bool,
    pub(super) is_purged: bool,
}

#[derive(Debug, Deserialize)]
struct RawPage {
    documents: Vec<RawListed>,
    cursor: String,
    has_more: bool,
    #[serde(default)]
    reset: bool,
    #[serde(default)]
    total: usize,
    declared: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct RawListed {
    document: String,
    #[serde(rename = "type")]
    of: Option<String>,
    version: Option<String>,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    purged: bool,
}

impl Page {
    /// Reads an answer.
    pub(super) fn read(body: &str) -> Result<Self, String> {
        let raw: RawPage = serde_json::from_str(body).map_err(|error| error.to_string())?;
        if raw.cursor.len() > CURSOR_BYTES_MAX {
            return Err("its cursor is longer than any".to_owned());
        }
        if raw.documents.len() > PAGE {
            return Err("its page is of more documents than were asked for".to_owned());
        }
        let listed = |raw: RawListed| {
            let version = raw.version.and_then(|text| u64::from_str_radix(&text, 16).ok());
            Ok(Listed {
                document: raw
                    .document
                    .parse()
                    .map_err(|error: concord_protocol::IdError| error.to_string())?,
                version,
                is_deleted: raw.deleted,
                is_purged: raw.purged,
            })
        };
        Ok(Self {
            documents: raw.documents.into_iter().map(listed).collect::<Result<_, String>>()?,
            cursor: raw.cursor,
            has_more: raw.has_more,
            reset: raw.reset,
            total: raw.total,
            // One that does not say so answers for what it has.
            is_declared: raw.declared.unwrap_or(true),
        })
    }
}

/// The types of the documents of a page that was told; nothing for none.
pub(super) fn types_told(body: &str) -> Vec<String> {
    let raw = serde_json::from_str::<RawPage>(body);
    let documents = raw.map(|raw| raw.documents).unwrap_or_default();
    documents.into_iter().map(|listed| listed.of.unwrap_or_default()).collect()
}

/// Where a page is asked for.
pub(super) fn path(type_name: &str, after: Option<&str>) -> String {
    let mut path = format!("/v1/catalogue?type={}&limit={PAGE}", escaped(type_name));
    if let Some(after) = after {
        path.push_str("&after=");
        path.push_str(&escaped(after));
    }
    path
}

/// Where changes are told of: those of a type, or of all.
pub(super) fn events_path(type_name: Option<&str>) -> String {
    match type_name {
        Some(type_name) => format!("/v1/catalogue/events?type={}", escaped(type_name)),
        None => "/v1/catalogue/events".to_owned(),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // A string takes whatever is written.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    #[test]
    fn a_page_is_read_and_what_is_none_refused() {
        let id = DocumentId::from_bytes(&[1; 16]);
        let body = format!(
            r#"{{"documents":[{{"document":"{id}","type":"task","version":"00000000000000ff"}},
                {{"document":"{id}","type":null,"purged":true}}],
                "cursor":"a.1","has_more":true,"total":7,"more":1}}"#
        );
        let page = Page::read(&body).unwrap();
        assert_eq!(
            (page.cursor.as_str(), page.has_more, page.reset, page.total),
            ("a.1", true, false, 7)
        );
        assert_eq!(page.documents[0].version, Some(255));
        assert!(page.is_declared, "nobody said that it is not");
        let unknown = body.replace("\"more\":1", "\"declared\":false");
        assert!(!Page::read(&unknown).unwrap().is_declared);
        assert!(page.documents[1].is_purged && page.documents[1].version.is_none());
        assert_eq!(types_told(&body), ["task", ""]);
        let long = format!(r#"{{"documents":[],"cursor":"{}","has_more":false}}"#, "x".repeat(300));
        for wrong in ["", "{}", "[]", &body.replace(id.as_str(), "nobody"), &long] {
            assert!(Page::read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(path("a b&c", Some("é")), "/v1/catalogue?type=a%20b%26c&limit=500&after=%C3%A9");
    }

    quickcheck! {
        fn whatever_a_relay_answers_is_read_or_refused(text: String) -> bool {
            Page::read(&text).is_err() && types_told(&text).is_empty()
        }
    }
}
