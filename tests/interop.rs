//! Real JavaScript clients against the relay: runs the files of `tests/interop` with Node.

use std::env;
use std::path::PathBuf;
use std::process::Command;

#[test]
fn interop_basics() {
    node_test("basics.test.mjs");
}

#[test]
fn interop_blobs() {
    node_test("blobs.test.mjs");
}

#[test]
fn interop_calls() {
    node_test("calls.test.mjs");
}

#[test]
fn interop_catalogue() {
    node_test("catalogue.test.mjs");
}

#[test]
fn interop_conflicts() {
    node_test("conflicts.test.mjs");
}

#[test]
fn interop_faults() {
    node_test("faults.test.mjs");
}

#[test]
fn interop_heads() {
    node_test("heads.test.mjs");
}

#[test]
fn interop_presence() {
    node_test("presence.test.mjs");
}

#[test]
fn interop_purge() {
    node_test("purge.test.mjs");
}

#[test]
fn interop_restart() {
    node_test("restart.test.mjs");
}

fn node_test(file: &str) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    assert!(
        dir.join("node_modules").is_dir(),
        "the JavaScript clients are not installed: run `cargo xtask test`, or `npm ci` in tests/interop"
    );
    // CONCORD_BIN puts another build in its place.
    let program = env::var_os("CONCORD_BIN").unwrap_or(env!("CARGO_BIN_EXE_concord").into());
    let output = Command::new("node")
        .args(["--test", "--test-force-exit", "--test-reporter=spec", file])
        .current_dir(&dir)
        .env("CONCORD_BIN", program)
        .output()
        .unwrap_or_else(|error| {
            panic!("node did not start ({error}): install Node 20.14 or newer and run `cargo xtask test`")
        });
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "tests/interop/{file} failed: see above");
}
