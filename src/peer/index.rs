//! The local index of entities: of each document its type, key and the values of its declared
//! fields, so that lists and queries open no document.
//!
//! What is here is pure: [`cell`] and [`entry`] are what is known of a document, [`project`] how
//! that is read from it, [`table`] all entries in their orders, [`query`] and [`filter`] what is
//! asked of them, [`row`] how they are kept on disk, and [`marks`] which documents say something
//! else by now. The task that keeps it is `indexer`, and what programs call is in `reads`.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(super) mod cell;
pub(super) mod entry;
mod filter;
pub(super) mod marks;
pub(super) mod project;
pub(super) mod query;
pub(super) mod row;
pub(super) mod table;
#[cfg(test)]
mod tests;

pub use self::{
    filter::{Filter, Test},
    query::{Cursor, PAGE, PAGE_MAX, Query, Row, Sort},
    table::TypeCount,
};
use crate::entity::nearest;

/// Something cannot be read as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// No schema declares this type.
    #[error(
        "no type `{type_name}` is declared{}",
        names(type_name, known, "types", "give a schema")
    )]
    NoType {
        /// Which.
        type_name: String,
        /// Those that are.
        known: Vec<String>,
    },
    /// The type has no such field.
    #[error(
        "type `{type_name}` has no field `{field}`{}",
        names(field, known, "fields", "it has none")
    )]
    NoField {
        /// Which type.
        type_name: String,
        /// Which field.
        field: String,
        /// Those that it has.
        known: Vec<String>,
    },
    /// The field is of a kind that this cannot be asked of.
    #[error("field `{field}` is of kind `{kind}`, of which `{test}` cannot be asked")]
    Test {
        /// Which field.
        field: String,
        /// Its kind.
        kind: &'static str,
        /// What was asked.
        test: String,
    },
    /// The field has no order.
    #[error("field `{field}` is of kind `{kind}`, which has no order to sort by")]
    Sort {
        /// Which field.
        field: String,
        /// Its kind.
        kind: &'static str,
    },
    /// More than any query is of.
    #[error("a query has at most {max} filters, and {max} fields to sort by")]
    TooMuch {
        /// How many it may have.
        max: usize,
    },
    /// Nothing that was given as a cursor.
    #[error("not a cursor: give the one that came with a page")]
    NoCursor,
    /// A cursor of a query with another order.
    #[error("the cursor is of a query that sorts by other fields: begin without one")]
    OtherCursor,
    /// The peer was opened without an index.
    #[error("this peer keeps no index: open it without `index(false)`")]
    NoIndex,
    /// A document that must be looked into cannot be.
    #[error(transparent)]
    Find(#[from] super::FindError),
    /// The peer was closed.
    #[error("the peer is closed")]
    Closed,
}

fn names(name: &str, known: &[String], what: &str, none: &str) -> String {
    if known.is_empty() {
        return format!(": {none}");
    }
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    if let Some(nearest) = nearest(name, &names) {
        return format!(": did you mean `{nearest}`?");
    }
    let quoted: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
    format!(": its {what} are {}", quoted.join(", ")).replace("its types", "the types")
}
