//! Which disagreements become conflicts, and how they are decided.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails here says where")]

mod between;
mod detection;
#[path = "../entities_common/mod.rs"]
mod entities_common;
mod hold;
#[path = "../http_common/mod.rs"]
mod http_common;
mod policy;
mod references;
mod roles;
mod rules;
mod triage;
