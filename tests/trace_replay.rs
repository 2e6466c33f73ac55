//! The main job on real input: recorded editing histories, typed again by two live peers that
//! meet through a relay over real sockets. Both texts must end as the history ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use support::Relay;

fn traces() -> PathBuf {
    let shared = env::var_os("CONCORD_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    shared.join("traces")
}

/// Replays a trace, or one that is made up, and gives the report.
fn replay(arguments: &[&str]) -> serde_json::Value {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(&[], directory.path());
    let output = Command::new(env!("CARGO_BIN_EXE_concord"))
        .args(["bench", "trace", "--json", "--timeout", "400", "--url", &relay.url()])
        .args(arguments)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn recorded(name: &str) {
    let path = traces().join(name);
    let report = if path.exists() {
        replay(&["--trace", path.to_str().unwrap()])
    } else {
        println!("skipped: {} is not there; a trace of its shape instead", path.display());
        replay(&["--transactions", "5000"])
    };
    println!("{name}: {report}");
}

#[test]
fn one_author_of_a_program() {
    recorded("sveltecomponent.json.gz");
}

#[test]
fn two_authors_at_once() {
    recorded("concurrent/friendsforever.json.gz");
}

#[test]
fn a_made_up_history() {
    replay(&["--transactions", "3000"]);
}
