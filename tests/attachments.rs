//! Attachments over real sockets and processes: they arrive whole, resume where they were cut, and
//! nothing wrong is taken.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails here says where")]

#[path = "cli_common/mod.rs"]
mod cli;
#[path = "attachments/command.rs"]
mod command;
#[path = "attachments/flow.rs"]
mod flow;
#[path = "attachments/http.rs"]
mod http;
#[path = "attachments/proxy.rs"]
mod proxy;
#[path = "attachments/raw.rs"]
mod raw;
#[path = "attachments/removal.rs"]
mod removal;
#[path = "support/mod.rs"]
mod support;
#[path = "attachments/transfer.rs"]
mod transfer;
#[path = "attachments/world.rs"]
mod world;
