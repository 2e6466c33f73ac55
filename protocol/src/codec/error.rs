use crate::IdError;

/// Why bytes are not an acceptable message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It ended too early.
    #[error("the message is cut off")]
    Truncated,
    /// Not CBOR, or CBOR of a form that no client writes.
    #[error("not the CBOR of a message: {0}")]
    Malformed(&'static str),
    /// Bytes after the message.
    #[error("{0} bytes follow the message")]
    TrailingBytes(usize),
    /// A field that its type of message must have.
    #[error("the message has no {0}")]
    Missing(&'static str),
    /// A field whose content is not what it must be.
    #[error("the message's {field} is not {expected}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A peer, storage or session id that is not acceptable.
    #[error("the message's {field}: {source}")]
    Id {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        source: IdError,
    },
    /// More bytes than the limit.
    #[error("{what} of {len} bytes; at most {max} are allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How many bytes it has.
        len: usize,
        /// How many it may have.
        max: usize,
    },
    /// More of something than the limit.
    #[error("{count} {what} in one frame; at most {max} are allowed")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many it declares, or had when counting was given up.
        count: usize,
        /// How many there may be.
        max: usize,
    },
}
