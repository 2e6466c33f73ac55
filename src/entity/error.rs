//! What is wrong with a schema file, all of it at once.

use std::fmt;

use super::words;

/// One thing that is wrong with a schema file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("line {line}: {problem}: {fix}")]
pub struct SchemaError {
    /// In which line, from 1.
    pub line: usize,
    /// At which character of it, from 1.
    pub column: usize,
    /// What is wrong, and with what.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

/// All that is wrong with a schema file, from the first line to the last. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct SchemaErrors(Vec<SchemaError>);

impl SchemaErrors {
    /// The first [`ERRORS_MAX`](super::limits::ERRORS_MAX) errors, by line.
    pub(super) fn new(mut errors: Vec<SchemaError>) -> Self {
        errors.sort();
        errors.dedup();
        errors.truncate(super::limits::ERRORS_MAX);
        Self(errors)
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &SchemaError> {
        self.0.iter()
    }
}

impl fmt::Display for SchemaErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        words::list(f, &self.0, "\n")
    }
}
