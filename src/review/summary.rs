//! A conflict in a few words, for lists: of bounded size, whatever is in the document.

use automerge::Automerge;
use concord_protocol::DocumentId;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{By, Conflict, ConflictId, Content, Kept, Place, Side, SideView, look::stamp};
use crate::history::Stamp;

/// Characters of a value, a path or a name that are shown.
const TEXT_MAX: usize = 80;
/// Sides that are shown, and for each so many of those who wanted it.
const SIDES_MAX: usize = 8;
const WHO_MAX: usize = 4;

/// A conflict in a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The name of the conflict: the same on every replica.
    pub id: ConflictId,
    /// The document that it is in.
    pub document: String,
    /// The type that the document says it is of.
    #[serde(default, rename = "type")]
    pub type_name: Option<String>,
    /// What kind it is of.
    pub code: String,
    /// Where in the document it is; `null` if what it is in is gone.
    pub path: Option<String>,
    /// What a schema says that is not so.
    #[serde(default)]
    pub problem: Option<String>,
    /// The slot, by a hash of names that do not change: conflicts that follow each other have the
    /// same.
    pub slot: String,
    /// When the last of its writes was made, in seconds since 1970 by its author's clock.
    pub time: i64,
    /// The first of its sides.
    pub sides: Vec<SideSummary>,
    /// How many sides there are.
    pub side_count: usize,
}

/// One side, in a few words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideSummary {
    /// `written`, `edited` or `deleted`.
    pub kind: String,
    /// What it wants, if that is a single value; of an object what kind it is of.
    pub value: Option<String>,
    /// Who wanted it: the author, else the actor.
    pub by: Vec<String>,
}

impl Summary {
    /// What there is to say of a conflict of this document, which says that it is of this type.
    pub fn of(
        doc: &Automerge,
        document: &DocumentId,
        type_name: Option<&str>,
        conflict: &Conflict,
    ) -> Self {
        let sides = conflict.sides.iter().take(SIDES_MAX);
        Self {
            id: conflict.id,
            document: document.as_str().to_owned(),
            type_name: type_name.map(shortened),
            code: conflict.code.to_string(),
            path: conflict.path_text(doc).map(|path| shortened(&path)),
            problem: conflict.problem.as_deref().map(shortened),
            slot: conflict.place.digest(),
            time: conflict.time_s(doc),
            sides: sides.map(|side| summary(doc, &conflict.place, side)).collect(),
            side_count: conflict.sides.len(),
        }
    }
}

impl From<&SideView> for SideSummary {
    fn from(side: &SideView) -> Self {
        let name = |by: &By| shortened(by.author.as_ref().unwrap_or(&by.actor));
        Self {
            kind: side.kind.clone(),
            value: side.value.as_ref().map(|value| shortened(&value.to_string())),
            by: side.by.iter().take(WHO_MAX).map(name).collect(),
        }
    }
}

fn summary(doc: &Automerge, place: &Place, side: &Side) -> SideSummary {
    let value = match &side.kept {
        Kept::Put(value) => {
            let json = Content::Single(value.clone()).to_json().ok().flatten();
            Some(json.unwrap_or(Json::Null).to_string())
        }
        Kept::Made(kind) | Kept::Edited(Some(kind)) => Some(kind.to_string()),
        Kept::Edited(None) => Some("counter".to_owned()),
        Kept::Fields => {
            let content = side.content(doc, place).ok();
            content.and_then(|content| Some(content.to_json().ok()??.to_string()))
        }
        Kept::Deleted => None,
    };
    let name = |stamp: Stamp| shortened(stamp.name());
    let by = side.changes.iter().take(WHO_MAX).filter_map(|change| stamp(doc, change));
    SideSummary {
        kind: side.kind().to_owned(),
        value: value.map(|value| shortened(&value)),
        by: by.map(name).collect(),
    }
}

/// Cut after so many characters, and said so.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
