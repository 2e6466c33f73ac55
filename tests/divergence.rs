//! People who write the same documents apart and meet again, over real sockets, with replicas on
//! disk: nothing is lost, nothing that merges is a conflict, and the relay finds what a peer finds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::process::Command;

use serde_json::json;
use support::Relay;

#[test]
fn nothing_is_lost_and_nothing_is_made_up() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(&[], directory.path());
    let scenario = ["--peers", "4", "--documents", "12", "--partitions", "2", "--pairs", "60"];
    let output = Command::new(env!("CARGO_BIN_EXE_concord"))
        .args(["bench", "divergence", "--json", "--url", &relay.url()])
        .args(scenario)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let figures = &report["figures"];
    assert_eq!(
        (&figures["lost_writes"], &figures["false_conflicts"]),
        (&json!(0.0), &json!(0.0)),
        "{report}"
    );
    assert!(figures["conflicts_of_a_peer"].as_f64().unwrap() > 20.0, "{report}");
    assert_eq!(figures["conflicts_of_a_peer"], figures["conflicts_of_the_relay"], "{report}");
}
