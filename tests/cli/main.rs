//! The command, as it is built: what it prints, what it does, and how it fails.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails here says where")]

#[path = "../cli_common/mod.rs"]
mod cli_common;
mod collection;
mod conflicts;
mod deletion;
mod documents;
mod history;
mod letters;
mod policy;
mod pty;
mod query;
mod review;
mod schema;
mod sessions;
mod terminal;
mod undo;
