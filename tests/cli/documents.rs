//! The real command on documents: outputs, exit codes, and nothing lost under kill -9.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{process::Stdio, time::Duration};

use serde_json::{Value, json};

use crate::cli_common::{concord, fails, json_of, ok, run};

const ABSENT: &str = "automerge:2akvofn6L1o4RMUEMQi7qzwRjKWZ";
/// Refuses connections: a port below 1024 that nothing uses.
const NO_RELAY: &str = "ws://127.0.0.1:1";

#[test]
fn a_document_is_made_shown_edited_and_listed() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let doc = ok(dir, &["doc", "create", r#"{"title":"Shopping","items":[1],"done":false}"#]);
    assert!(doc.starts_with("automerge:"));
    assert_eq!(
        json_of(dir, &["doc", "get", &doc, "--json"]),
        json!({ "title": "Shopping", "items": [1], "done": false })
    );
    ok(dir, &["edit", &doc, "title", "Shopping list", "-m", "rename"]);
    ok(dir, &["edit", &doc, "items[1]", r#"{"name":"bread"}"#]);
    ok(dir, &["edit", &doc, "done", "--delete"]);
    let edited = json_of(dir, &["edit", &doc, "items[0]", "2", "--json"]);
    assert_eq!(
        (&edited["before"], &edited["after"], &edited["durable"], &edited["confirmed"]),
        (&json!(1), &json!(2), &json!(true), &Value::Null)
    );
    assert_eq!(
        json_of(dir, &["doc", "get", &doc, "--json"]),
        json!({ "title": "Shopping list", "items": [2, { "name": "bread" }] })
    );
    assert_eq!(ok(dir, &["doc", "get", &doc, "items[1].name"]), "\"bread\"");
    let listed = ok(dir, &["doc", "ls"]);
    assert!(listed.contains("Shopping list") && listed.contains("just now"), "{listed}");
    let watched = ok(dir, &["watch", &doc, "--last", "4", "--count", "0"]);
    assert!(watched.contains("rename"), "{watched}");
    ok(dir, &["edit", &doc, "by", "ann", "--author", "ann@example.org"]);
    let watched = ok(dir, &["watch", &doc, "--last", "1", "--count", "0"]);
    assert!(watched.contains("  by ann@example.org  change "), "{watched}");
    let same = ok(dir, &["edit", &doc, "items[0]", "2"]);
    assert!(same.contains("as it was"), "{same}");
}

#[test]
fn documents_go_out_and_come_in_whole() {
    let home = tempfile::tempdir().unwrap();
    let dir = &home.path().join("data");
    let doc = ok(dir, &["doc", "create", r#"{"title":"Shopping","n":[1,2.5,null,true]}"#]);
    ok(dir, &["edit", &doc, "title", "Shops"]);
    for file in ["copy.automerge", "copy.json"] {
        let file = home.path().join(file);
        let file = file.to_str().unwrap();
        ok(dir, &["doc", "export", &doc, "-o", file]);
        let other = &home.path().join("other");
        let copy = ok(other, &["doc", "import", file]);
        assert_eq!(
            json_of(other, &["doc", "get", &copy, "--json"]),
            json_of(dir, &["doc", "get", &doc, "--json"])
        );
    }
    // A text of more operations than one change may have goes in over several.
    let large = home.path().join("large.json");
    std::fs::write(&large, json!({ "text": "é".repeat(120_000) }).to_string()).unwrap();
    let doc = ok(dir, &["doc", "import", large.to_str().unwrap()]);
    let text = json_of(dir, &["doc", "get", &doc, "text", "--json"]);
    assert_eq!(text.as_str().unwrap().chars().count(), 120_000);
}

#[test]
fn failures_have_their_own_exit_codes() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let doc = ok(dir, &["doc", "create", r#"{"title":"x","list":[]}"#]);
    for (code, args) in [
        (2, vec!["doc", "get", "nonsense"]),
        (2, vec!["doc", "create", "not json"]),
        (2, vec!["doc", "create", "[1]"]),
        (2, vec!["sync"]),
        (2, vec!["sync", "--url", "http://x"]),
        (2, vec!["edit", &doc, "title.x", "1"]),
        (2, vec!["edit", &doc, "list.x", "1"]),
        (3, vec!["doc", "get", ABSENT]),
        (3, vec!["doc", "get", &doc, "absent"]),
        (3, vec!["edit", &doc, "absent.x", "1"]),
        (3, vec!["edit", &doc, "list[7]", "1"]),
        (3, vec!["edit", &doc, "absent", "--delete"]),
        (4, vec!["sync", "--url", NO_RELAY, "--deadline", "1"]),
        (4, vec!["edit", &doc, "title", "y", "--url", NO_RELAY, "--deadline", "1"]),
        (1, vec!["doc", "import", "/nowhere/at/all.json"]),
    ] {
        let (found, words) = fails(dir, &args);
        assert_eq!(found, code, "{args:?}: {words}");
        assert!(words.starts_with("concord: "), "{words}");
    }
    assert_eq!(run(dir, &["edit"]).status.code(), Some(2));
    // What was not confirmed is here.
    assert_eq!(ok(dir, &["doc", "get", &doc, "title"]), "\"y\"");
    let (code, words) = fails(dir, &["doc", "get", ABSENT, "--json"]);
    let error: Value = serde_json::from_str(&words).unwrap();
    assert_eq!((code, &error["error"]), (3, &json!("not-found")));
}

#[test]
fn a_directory_in_use_and_a_reader_that_leaves_are_no_panic() {
    use std::io::{BufRead as _, BufReader};
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let doc = ok(dir, &["doc", "create", r#"{"title":"x"}"#]);
    let mut watching = concord(dir).args(["watch", &doc]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(watching.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("watching automerge:"), "{first}");
    let (code, words) = fails(dir, &["doc", "ls"]);
    assert!(code == 2 && words.contains("another process"), "{code}: {words}");
    watching.kill().unwrap();
    watching.wait().unwrap();

    let mut getting = concord(dir)
        .args(["doc", "get", &doc])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(getting.stdout.take());
    let output = getting.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert!(output.status.success());
}

#[test]
fn killed_between_edits_nothing_that_returned_is_lost() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let doc = ok(dir, &["doc", "create", r#"{"n":-1}"#]);
    let mut returned = -1;
    let mut killed = 0;
    for n in 0..30_i64 {
        let value = n.to_string();
        let mut editing = concord(dir)
            .args(["edit", &doc, "n", &value, "--json"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if n % 2 == 1 {
            // A different moment of the edit each time.
            std::thread::sleep(Duration::from_millis(u64::try_from(n).unwrap() * 2));
            editing.kill().unwrap();
        }
        if editing.wait().unwrap().success() {
            returned = n;
        } else {
            killed += 1;
        }
        let found: i64 = ok(dir, &["doc", "get", &doc, "n"]).parse().unwrap();
        assert!(found >= returned, "{returned} returned, {found} is there");
    }
    assert!(killed > 0, "no edit was killed in the middle");
}
