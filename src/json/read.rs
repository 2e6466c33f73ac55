//! Automerge values to JSON.

use std::fmt::Write as _;

use automerge::{AutomergeError, ObjId, ObjType, ReadDoc, ScalarValue, Value};
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
    nested(doc, value, id, DEPTH_MAX)
}

fn nested(
    doc: &impl ReadDoc,
    value: &Value<'_>,
    id: &ObjId,
    depth: usize,
) -> Result<Json, JsonError> {
    let kind = match value {
        Value::Scalar(scalar) => return Ok(single(scalar)),
        Value::Object(kind) => *kind,
    };
    let below = depth.checked_sub(1).ok_or(JsonError::TooDeep)?;
    match kind {
        ObjType::Text => Ok(Json::String(doc.text(id)?)),
        ObjType::Map | ObjType::Table => {
            let entries = doc.map_range(id, ..).map(|item| {
                let (value, id) = (item.value.clone().into(), item.id());
                Ok((item.key.into_owned(), nested(doc, &value, &id, below)?))
            });
            entries.collect::<Result<_, JsonError>>().map(Json::Object)
        }
        ObjType::List => {
            let items = doc
                .list_range(id, ..)
                .map(|item| nested(doc, &item.value.clone().into(), &item.id(), below));
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
