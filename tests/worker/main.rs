//! Work that is done beside the relay, in processes of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails here says where")]

mod hostile;
mod materialise;
mod pool;
mod trace;
#[path = "../worker_common/mod.rs"]
mod worker_common;
