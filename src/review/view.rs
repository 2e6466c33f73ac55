//! A conflict with all that is shown of it, as JSON.

use std::borrow::Cow;

use automerge::{
    Automerge, ObjType, Prop, ROOT, ReadDoc as _, ScalarValue, Value,
    transaction::Transactable as _,
};
use concord_protocol::DocumentId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{Choice, Conflict, ConflictId, Content, Kept, Side};
use crate::{
    history::Stamp,
    json::{self, JsonError},
};

/// A conflict as people and programs are shown it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The name of the conflict: the same on every replica.
    pub id: ConflictId,
    /// The document that it is in.
    pub document: String,
    /// What kind it is of.
    pub code: String,
    /// Where in the document it is; `null` if what it is in is gone.
    pub path: Option<String>,
    /// What a schema says that is not so, in words.
    #[serde(default)]
    pub problem: Option<String>,
    /// What was there before; `null` for nothing.
    pub before: Option<Json>,
    /// What is there until it is decided; `null` for nothing.
    pub now: Option<Json>,
    /// The intents that cannot all be kept.
    pub sides: Vec<SideView>,
}

/// One side of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SideView {
    /// `written`, `edited` or `deleted`.
    pub kind: String,
    /// What it wants there; `null` for nothing.
    pub value: Option<Json>,
    /// In which document, where the conflict is between several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// Who wanted it: one for each of its changes.
    pub by: Vec<By>,
}

/// Who made a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// Its hash.
    pub change: String,
    /// The device or program.
    pub actor: String,
    /// The person, if the change says so.
    pub author: Option<String>,
    /// When, in seconds since 1970 by the author's clock; 0 if the change does not say.
    pub time: i64,
    /// What the change says of itself.
    pub message: Option<String>,
}

impl View {
    /// Whether it is between documents: each side then says in which it is.
    pub fn is_between(&self) -> bool {
        self.sides.iter().any(|side| side.document.is_some())
    }

    /// What there is to show of a conflict of this document.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn of(
        doc: &Automerge,
        document: &DocumentId,
        conflict: &Conflict,
    ) -> Result<Self, JsonError> {
        let sides = conflict.sides.iter().map(|side| {
            let value = side.content(doc, &conflict.place)?.to_json()?;
            let by = side.who(doc).into_iter().map(By::from).collect();
            Ok(SideView { kind: side.kind().to_owned(), value, document: None, by })
        });
        Ok(Self {
            id: conflict.id,
            document: document.as_str().to_owned(),
            code: conflict.code.to_string(),
            path: conflict.path_text(doc),
            problem: conflict.problem.clone(),
            before: conflict.base(doc)?.to_json()?,
            now: conflict.provisional(doc)?.to_json()?,
            sides: sides.collect::<Result<_, JsonError>>()?,
        })
    }
}

impl Side {
    pub(super) fn kind(&self) -> &'static str {
        match self.kept {
            Kept::Deleted => "deleted",
            Kept::Edited(_) => "edited",
            Kept::Put(_) | Kept::Made(_) | Kept::Fields => "written",
        }
    }
}

impl From<Stamp> for By {
    fn from(stamp: Stamp) -> Self {
        let Stamp { change, actor, author, time_s, message, .. } = stamp;
        Self { change: change.to_string(), actor, author, time: time_s, message }
    }
}

impl Content {
    /// What is to be at these keys; where there is no value, nothing. Strings are single strings.
    pub(super) fn fields<'a>(
        values: impl IntoIterator<Item = (&'a String, &'a Json)>,
        keys: Vec<String>,
    ) -> Result<Self, JsonError> {
        let mut doc = Automerge::new();
        let mut tx = doc.transaction();
        for (key, value) in values {
            match value {
                Json::String(text) => tx.put(ROOT, key, text.as_str())?,
                value => {
                    json::put(&mut tx, &ROOT, Prop::Map(key.clone()), value.clone(), false)?;
                }
            }
        }
        tx.commit();
        Ok(Self::Fields { doc: Box::new(doc), keys })
    }

    /// As JSON; `None` for nothing.
    ///
    /// # Errors
    /// [`JsonError`].
    pub fn to_json(&self) -> Result<Option<Json>, JsonError> {
        Ok(match self {
            Self::Nothing => None,
            Self::Single(scalar) => {
                let (doc, value) = (Automerge::new(), Value::from(scalar.clone()));
                Some(json::to_json(&doc, &value, &ROOT)?)
            }
            Self::Object { doc, object, kind } => {
                Some(json::to_json(&**doc, &Value::Object(*kind), object)?)
            }
            Self::Fields { doc, keys } => {
                let mut fields = Map::new();
                for key in keys {
                    if let Some((value, id)) = doc.get(ROOT, key)? {
                        fields.insert(key.clone(), json::to_json(&**doc, &value, &id)?);
                    }
                }
                Some(Json::Object(fields))
            }
        })
    }
}

impl Choice {
    /// A value of one's own for the place of a conflict. Where there was text that people edit
    /// together, text becomes that; elsewhere it is a single string. Where it is about the fields
    /// of a rule, it is an object of those that are to be written.
    ///
    /// # Errors
    /// [`JsonError`], which does not come of JSON of at most [`json::DEPTH_MAX`] levels.
    pub fn value(value: Json, conflict: &Conflict) -> Result<Self, JsonError> {
        if let Some(keys) = conflict.place.key.keys() {
            return fields(value, &keys);
        }
        let is_text = |side: &Side| {
            matches!(side.kept, Kept::Made(ObjType::Text) | Kept::Edited(Some(ObjType::Text)))
        };
        if let Json::String(text) = &value
            && !conflict.sides.iter().any(is_text)
        {
            let single = ScalarValue::Str(text.as_str().into());
            return Ok(Self::Other(Content::Single(single)));
        }
        let mut doc = Automerge::new();
        let mut tx = doc.transaction();
        json::put(&mut tx, &ROOT, Prop::Map("value".to_owned()), value, false)?;
        tx.commit();
        Ok(Self::Other(Content::of(Cow::Owned(doc), &ROOT, "value")?))
    }
}

/// Values for fields that a rule is about: an object of them, as they are shown; what is no object
/// is the value of the only one.
fn fields(value: Json, keys: &[String]) -> Result<Choice, JsonError> {
    let fields = match (value, keys) {
        (Json::Object(fields), _) => fields,
        (value, [key]) => Map::from_iter([(key.clone(), value)]),
        // It names none of them, which the decision is refused for.
        (_, _) => Map::new(),
    };
    let keys = fields.keys().cloned().collect();
    Ok(Choice::Other(Content::fields(&fields, keys)?))
}
