//! `concord undo | redo`: one of two people takes back what they did, and nothing of the other.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use serde_json::json;

use crate::cli_common::{fails, json_of, ok};

#[test]
fn an_author_undoes_and_redoes_over_many_runs_of_the_command() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let by = |author, args: &[&str]| ok(home, &[args, &["--author", author]].concat());
    let doc = by("ann@example.org", &["doc", "create", r#"{"title":"Shopping","items":["Milk"]}"#]);
    by("ann@example.org", &["edit", &doc, "items[1]", "Bread"]);
    by("bob@example.org", &["edit", &doc, "items[2]", "Tea"]);
    by("ann@example.org", &["edit", &doc, "title", "Groceries"]);
    by("bob@example.org", &["edit", &doc, "note", "soon"]);
    let now = || json_of(home, &["doc", "get", &doc, "--json"]);

    let said = by("ann@example.org", &["undo", &doc]);
    assert_eq!(said, "undone; 2 more can be undone and 1 redone; on this disk");
    let items = json!(["Milk", "Bread", "Tea"]);
    assert_eq!(now(), json!({"title": "Shopping", "items": items, "note": "soon"}));
    by("ann@example.org", &["undo", &doc]);
    let items = json!(["Milk", "Tea"]);
    assert_eq!(now(), json!({"title": "Shopping", "items": items, "note": "soon"}));
    by("ann@example.org", &["redo", &doc]);
    by("ann@example.org", &["redo", &doc]);
    let items = json!(["Milk", "Bread", "Tea"]);
    let all = json!({"title": "Groceries", "items": items, "note": "soon"});
    assert_eq!(now(), all);
    let (code, words) = fails(home, &["redo", &doc, "--author", "ann@example.org"]);
    assert_eq!((code, words.contains("nothing is left to redo")), (3, true), "{words}");

    // Bob's, where Ann wrote over it since: hers stays.
    by("bob@example.org", &["edit", &doc, "people", "2"]);
    by("ann@example.org", &["edit", &doc, "people", "3"]);
    let undone = json_of(home, &["undo", &doc, "--author", "bob@example.org", "--json"]);
    assert_eq!(undone["left"], json!({"undo": 2, "redo": 1}));
    assert_eq!(now()["people"], 3);
    assert_eq!(json_of(home, &["conflicts", "ls", &doc, "--json"]), json!([]));

    let (code, words) = fails(home, &["undo", &doc]);
    assert_eq!((code, words.contains("--author NAME")), (2, true), "{words}");
}
