//! Attachments: bytes beside documents, named by what they are, shared by all that name them.
//!
//! An attachment is kept in pieces of 64 KiB, each of which is checked when it comes: the name is the
//! BLAKE3 of the bytes, which is the root of a tree, and the [`Outline`] has the nodes of that tree
//! which stand for a piece each. So the list is held against the name once, and then every piece
//! against the list: nothing wrong is ever kept, whoever it comes from, and what came before it stays.
//! It takes 32 bytes for each piece, a two-thousandth, and the name stays what `b3sum` prints.
//!
//! A transfer begins again behind the last piece that is on disk. Nothing holds an attachment in
//! memory whole.

mod catalogue;
mod coming;
mod outline;
mod reader;
mod shelf;
mod sweep;

pub(crate) use self::{
    catalogue::Entry,
    coming::Coming,
    outline::{Outline, piece_bytes, pieces},
    reader::BlobReader,
    shelf::{Shelf, ShelfError, now_ms},
    sweep::Swept,
};
