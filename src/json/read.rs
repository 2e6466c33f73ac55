//! Automerge values to JSON.

use std::fmt::Write as _;

use automerge::{AutomergeError, ChangeHash, ObjId, ObjType, ReadDoc, ScalarValue, Value};
use serde_json::{Value as Json, json};

/// Levels of nesting that are shown: a stranger's document may have any number.
pub const DEPTH_MAX: usize = 128;

/// A value cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// It has more levels than [`DEPTH_MAX`].
    #[error("the document is nested more than {DEPTH_MAX} levels deep: give a PATH into it")]
    TooDeep,
    /// It is not in the document, or cannot be read.
    #[error(transparent)]
    Unreadable(#[from] AutomergeError),
}

/// The value, with all that is in it; `id` is that of the value, if it is an object.
///
/// # Errors
/// [`JsonError`].
pub fn to_json(doc: &impl ReadDoc, value: &Value<'_>, id: &ObjId) -> Result<Json, JsonError> {
    nested(doc, value, id, None, DEPTH_MAX)
}

/// As [`to_json`], of the document as it was at these heads, all of which must be in it: automerge
/// reads as if others were not named.
///
/// # Errors
/// [`JsonError`].
pub fn to_json_at(
    doc: &impl ReadDoc,
    value: &Value<'_>,
    id: &ObjId,
    heads: &[ChangeHash],
) -> Result<Json, JsonError> {
    nested(doc, value, id, Some(heads), DEPTH_MAX)
}

fn nested(
    doc: &impl ReadDoc,
    value: &Value<'_>,
    id: &ObjId,
    heads: Option<&[ChangeHash]>,
    depth: usize,
) -> Result<Json, JsonError> {
    let kind = match value {
        Value::Scalar(scalar) => return Ok(single(scalar)),
        Value::Object(kind) => *kind,
    };
    let below = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
    match kind {
        ObjType::Text => Ok(Json::String(match heads {
            None => doc.text(id)?,
            Some(heads) => doc.text_at(id, heads)?,
        })),
        ObjType::Map | ObjType::Table => {
            let entries = match heads {
                None => doc.map_range(id, ..),
                Some(heads) => doc.map_range_at(id, .., heads),
            };
            let entries = entries.map(|item| {
                let (value, id) = (item.value.clone().into(), item.id());
                Ok((item.key.into_owned(), nested(doc, &value, &id, heads, below)?))
            });
            entries.collect::<Result<_, JsonError>>().map(Json::Object)
        }
        ObjType::List => {
            let items = match heads {
                None => doc.list_range(id, ..),
                Some(heads) => doc.list_range_at(id, .., heads),
            };
            let items =
                items.map(|item| nested(doc, &item.value.clone().into(), &item.id(), heads, below));
            items.collect::<Result<_, JsonError>>().map(Json::Array)
        }
    }
}

/// A value that JSON has no form for is a text or number that people can read.
fn single(scalar: &ScalarValue) -> Json {
    match scalar {
        ScalarValue::Bytes(bytes) => {
            let mut hex = String::with_capacity(bytes.len() * 2);
            for byte in bytes {
                // Writing to a String does not fail.
                let _ = write!(hex, "{byte:02x}");
            }
            Json::String(hex)
        }
        ScalarValue::Str(text) => json!(text.as_str()),
        ScalarValue::Int(number) | ScalarValue::Timestamp(number) => json!(number),
        ScalarValue::Uint(number) => json!(number),
        ScalarValue::F64(number) => json!(number),
        ScalarValue::Counter(counter) => json!(i64::from(counter)),
        ScalarValue::Boolean(yes) => json!(yes),
        ScalarValue::Unknown { .. } | ScalarValue::Null => Json::Null,
    }
}
