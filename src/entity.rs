//! Entities: documents that are of a declared type.
//!
//! A [`Schema`] is read from a TOML file. It says which types there are, what their fields may
//! hold, and what becomes of values that were written at the same time. Documents without a
//! declared type replicate all the same; a type is recognised by a key at the document's root, so
//! that what plain clients of automerge-repo write becomes an entity without a change to them.
//!
//! Nothing here does I/O, reads a clock or draws a number.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod attachment;
mod diff;
mod error;
mod expiry;
mod field;
mod fits;
mod genesis;
mod identity;
mod lens;
pub mod limits;
mod migration;
mod parse;
mod policy;
mod priority;
mod read;
mod role;
pub mod rule;
mod schema;
mod tombstone;
mod typed;
mod validate;
mod value;
mod words;
pub mod write;

pub(crate) use self::identity::TENANT;
pub use self::{
    attachment::{Attachment, NotAnAttachment},
    diff::{Difference, Impact},
    error::{SchemaError, SchemaErrors},
    expiry::Expiry,
    field::{Field, Kind, Literal, OnDelete, Pattern},
    identity::{KEY_BYTES_MAX, KEY_KEY, document_id, entity_id, generated_key, key_of, note_key},
    lens::{Parked, Why},
    migration::{Migration, Step},
    policy::Policy,
    priority::{Level, Priorities, Priority},
    read::{Entity, Misfit, type_of},
    role::Role,
    rule::Rule,
    schema::{EditsOfDeleted, EntityType, LeaseRule, ROOT_KEY, Schema},
    tombstone::{DELETED_KEY, delete, deleted_ms, is_deleted, restore},
    typed::TypedError,
    validate::{Invalid, Problem},
    value::Value,
    words::nearest,
};
pub(crate) use self::{
    lens::{Brought, Chain, Meant, Standings, is_mark},
    read::type_name,
};
