//! The guard: what is known of an Automerge chunk before automerge sees it.
//!
//! Automerge 0.12 believes what it reads: a change of a hundred bytes makes it allocate
//! gigabytes, a wrong index makes it panic, and [`automerge::Change::from_bytes`] does not compare
//! the checksum. So everything is held against [`crate::Limits`] here first, in one pass over the
//! inflated bytes, with the columns summed run by run and never expanded.
//!
//! What honest clients write always passes: every automerge from 1.0.1 (JavaScript) to 3 and
//! 0.12 (Rust), unknown columns and unknown extra bytes included.
//!
//! Source of the format: automerge 0.12, `rust/src/storage` and `rust/src/columnar/encoding`.
//!
//! [`automerge::Change::from_bytes`]: https://docs.rs/automerge/0.12.0/automerge/struct.Change.html

mod change;
mod chunk;
mod columns;
mod error;
mod runs;
mod values;

pub use change::{ChangeHeader, check_change};
pub use chunk::{Chunk, ChunkKind, check_document, name_of_change, split};
pub use error::GuardError;
