use crate::leb::Fault;

/// Why a chunk is not acceptable. None of them is the fault of an honest client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// It ended too early.
    #[error("the chunk is cut off")]
    Truncated,
    /// It does not start as every Automerge chunk does.
    #[error("not an Automerge chunk: the first four bytes are not 85 6f 4a 83")]
    Magic,
    /// A type that Automerge does not define.
    #[error("a chunk of unknown type {0}")]
    UnknownKind(u8),
    /// A chunk of one kind where another was expected.
    #[error("a chunk of type {found} where a {expected} was expected")]
    WrongKind {
        /// What it must be here.
        expected: &'static str,
        /// The type byte that it has.
        found: u8,
    },
    /// More bytes than the limit.
    #[error("{what} of {len} bytes; at most {max} are allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How many bytes it has, or declares, or had when reading it was given up.
        len: u64,
        /// How many it may have.
        max: u64,
    },
    /// More of something than the limit.
    #[error("{count} {what} in one change; at most {max} are allowed")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many it declares, or had when counting was given up.
        count: u64,
        /// How many there may be.
        max: u64,
    },
    /// Bytes after the end of the chunk.
    #[error("{0} bytes follow the chunk")]
    TrailingBytes(usize),
    /// The checksum is not that of the content.
    #[error("the checksum does not match: damaged on the way, or forged")]
    Checksum,
    /// What should be deflated is not.
    #[error("the change does not inflate")]
    Deflate,
    /// A number that is overlong or does not fit.
    #[error("a number in the chunk is overlong or does not fit")]
    BadNumber,
    /// A sequence number or operation counter of nought, or so large that editing would end.
    #[error("{what} is {value}; it must be at least 1 and stay below 2^31")]
    Counter {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: u64,
    },
    /// A text that is not UTF-8.
    #[error("{0} is not UTF-8")]
    NotUtf8(&'static str),
    /// Columns in an order or a make-up that Automerge does not write.
    #[error("column {spec:#x} {problem}")]
    Layout {
        /// The column's specification as written.
        spec: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A column whose content is not what its type or the other columns demand.
    #[error("the {column} column {problem}")]
    Column {
        /// Which column.
        column: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An author named in a change that is not its actor's first: automerge 0.12 panics on it.
    #[error("names its author, which only an actor's first change may")]
    AuthorTooLate,
}

impl From<Fault> for GuardError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Truncated => Self::Truncated,
            Fault::Number => Self::BadNumber,
        }
    }
}
