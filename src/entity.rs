//! Entities: documents that are of a declared type.
//!
//! A [`Schema`] is read from a TOML file. It says which types there are, what their fields may
//! hold, and what becomes of values that were written at the same time. Documents without a
//! declared type replicate all the same; a type is recognised by a key at the document's root, so
//! that what plain clients of automerge-repo write becomes an entity without a change to them.
//!
//! Nothing here does I/O, reads a clock or draws a number.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod error;
mod field;
mod fits;
pub mod limits;
mod migration;
mod parse;
mod policy;
pub mod rule;
mod schema;
mod value;
mod words;
pub mod write;

pub use self::{
    error::{SchemaError, SchemaErrors},
    field::{Field, Kind, Literal, OnDelete, Pattern},
    migration::{Migration, Step},
    policy::Policy,
    rule::Rule,
    schema::{EditsOfDeleted, EntityType, Priority, ROOT_KEY, Schema},
    value::Value,
};
