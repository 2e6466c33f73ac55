//! Whether a value without parts is what a kind allows.

use super::{Attachment, Kind, Literal};

impl Kind {
    /// What is wrong with a value, as the end of a sentence that begins with its name; `None` if
    /// nothing is.
    pub(super) fn problem(&self, value: &Literal) -> Option<String> {
        match (self, value) {
            (Self::String { max_length, pattern }, Literal::String(text)) => {
                if let Some(pattern) = pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
                    return Some(format!("does not match {}", pattern.as_str()));
                }
                too_long(text.chars().count(), *max_length, "characters")
            }
            (Self::Text { max_length }, Literal::String(text)) => {
                too_long(text.chars().count(), *max_length, "characters")
            }
            (Self::Enum { values }, Literal::String(text)) => {
                let all = || format!("is {text:?}, which is none of {}", values.join(", "));
                (!values.contains(text)).then(all)
            }
            (
                Self::Integer { min, max } | Self::Timestamp { min, max },
                Literal::Integer(number),
            ) => outside(number, min.as_ref(), max.as_ref()),
            (Self::Number { min, max }, Literal::Number(number)) => {
                outside(number, min.as_ref(), max.as_ref())
            }
            (Self::Boolean, Literal::Boolean(_)) | (Self::Counter, Literal::Integer(_)) => None,
            (Self::Reference { .. }, Literal::String(text)) => {
                let is_one = text.parse::<concord_protocol::AutomergeUrl>().is_ok();
                (!is_one).then(|| "is not the id of a document".to_owned())
            }
            (Self::Attachment { max_length }, Literal::String(text)) => {
                let Ok(attachment) = text.parse::<Attachment>() else {
                    return Some("is not an attachment".to_owned());
                };
                let length = usize::try_from(attachment.length).unwrap_or(usize::MAX);
                too_long(length, *max_length, "bytes")
            }
            (Self::Position, Literal::String(text)) => {
                let is_one = super::write::is_place(text);
                (!is_one).then(|| "is not a place in an order".to_owned())
            }
            (kind, value) => Some(format!("is {value}, and not of kind `{}`", kind.name())),
        }
    }
}

/// That there are more than there may be.
pub(super) fn too_long(length: usize, max: Option<u64>, what: &str) -> Option<String> {
    let max = max.filter(|max| u64::try_from(length).is_ok_and(|length| length > *max))?;
    Some(format!("has {length} {what}, of {max} at most"))
}

fn outside<T: PartialOrd + std::fmt::Display>(
    number: &T,
    min: Option<&T>,
    max: Option<&T>,
) -> Option<String> {
    if let Some(min) = min.filter(|min| number < *min) {
        return Some(format!("is {number}, below {min}"));
    }
    let max = max.filter(|max| number > *max)?;
    Some(format!("is {number}, above {max}"))
}
