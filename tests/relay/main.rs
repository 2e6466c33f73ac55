//! What a relay answers about entities and conflicts, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails here says where")]

mod bulk;
mod catalogue;
mod conflicts;
#[path = "../entities_common/mod.rs"]
mod entities_common;
#[path = "../http_common/mod.rs"]
mod http_common;
mod purge;
mod triage;
