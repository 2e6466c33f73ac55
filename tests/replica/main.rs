//! The engine of replication, without sockets and disks.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails here says where")]

mod behaviour;
mod leases;
mod oracle;
mod purge;
#[path = "../replica_common/mod.rs"]
mod replica_common;
mod salvage;
