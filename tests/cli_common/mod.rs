//! The real command in a directory of its own, for tests of what it prints and how it ends.

#![allow(dead_code, reason = "each test program uses its part of this")]
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use concord::{
    relay::{Relay, RelayConfig},
    store,
    worker::{InProcess, WorkerLimits},
};
use serde_json::Value;

/// A relay in this process, and its URL.
pub(crate) async fn relay() -> (Relay, String) {
    relay_under(None).await
}

/// The same, with a schema.
pub(crate) async fn relay_under(schema: Option<&str>) -> (Relay, String) {
    let schema = schema.map(str::to_owned);
    relay_with(|config| config.schema = schema).await
}

/// The same, configured otherwise.
pub(crate) async fn relay_with(configure: impl FnOnce(&mut RelayConfig)) -> (Relay, String) {
    let mut config = RelayConfig { port: 0, admin: None, ..RelayConfig::default() };
    configure(&mut config);
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let relay = Relay::start(config, store::memory().unwrap(), worker).await.unwrap();
    let url = format!("ws://{}", relay.addr());
    (relay, url)
}

pub(crate) fn concord(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_concord"));
    command.env_remove("CONCORD_URL").env_remove("CONCORD_AUTHOR");
    command.env("CONCORD_DIR", directory).stdin(Stdio::null());
    command
}

pub(crate) fn run(directory: &Path, args: &[&str]) -> Output {
    concord(directory).args(args).output().unwrap()
}

/// Standard output of a command that must succeed.
pub(crate) fn ok(directory: &Path, args: &[&str]) -> String {
    let output = run(directory, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

pub(crate) fn json_of(directory: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&ok(directory, args)).unwrap()
}

/// Exit code and standard error of a command that must fail, with one line.
pub(crate) fn fails(directory: &Path, args: &[&str]) -> (i32, String) {
    let output = run(directory, args);
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{args:?}");
    assert_eq!(words.lines().count(), 1, "{args:?}: {words}");
    (output.status.code().unwrap(), words)
}
