//! Peers over real sockets and disks, with relays and without.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails here says where")]

mod call;
#[path = "../cli_common/mod.rs"]
mod cli_common;
mod collections;
mod crowd;
mod entity;
mod faults;
mod full_disk;
mod history;
#[path = "../http_common/mod.rs"]
mod http_common;
mod offline;
mod outbox;
#[path = "../pretender/mod.rs"]
mod pretender;
mod query;
mod relay;
mod relays;
mod schema;
mod sessions;
#[path = "../support/mod.rs"]
mod support;
mod survival;
mod tls;
