//! `concord doc delete | undelete | purge`, with and without a schema that says what becomes of
//! references.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::fs;

use serde_json::json;

use crate::cli_common::{fails, json_of, ok, relay};

const SCHEMA: &str = r#"
[types.project.fields]
title = "string"

[types.task.fields]
title = "string"
project = { kind = "reference", to = "project", on_delete = "cascade" }
also = { kind = "set", items = { kind = "reference", to = "project", on_delete = "set_null" } }
parent = { kind = "reference", to = "task", on_delete = "restrict", acyclic = true }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_document_is_removed_once_a_relay_has_it_or_by_force() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let (relay, url) = relay().await;
    let doc = ok(dir, &["doc", "create", r#"{"title":"Tiles"}"#]);
    let purge = |more: &[&'static str]| [&["doc", "purge", &doc], more].concat();
    let at_relay = ["--url", &url];

    let (code, words) = fails(dir, &purge(&["--yes", "--force"]));
    assert!(code == 2 && words.contains("is not deleted: concord doc delete"), "{words}");
    ok(dir, &["doc", "delete", &doc]);
    let (code, words) = fails(dir, &purge(&["--yes"]));
    assert!(code == 2 && words.contains("give --url") && words.contains("--force"), "{words}");
    let (code, words) =
        fails(dir, &purge(&["--yes", "--url", "ws://127.0.0.1:1", "--deadline", "1"]));
    assert!(code == 4 && words.contains("--force removes it all the same"), "{words}");
    let (code, words) = fails(dir, &[&purge(&[])[..], &at_relay].concat());
    assert!(code == 2 && words.contains("nobody is there to be asked"), "{words}");
    assert!(ok(dir, &["doc", "ls"]).contains("Tiles"), "it is still here");

    let done = json_of(dir, &[&purge(&["--yes", "--json"])[..], &at_relay].concat());
    let id = doc.trim_start_matches("automerge:");
    assert_eq!(done, json!({ "purged": id, "forced": false }));
    assert_eq!(json_of(dir, &["doc", "ls", "--json"]), json!([]));
    // The relay has it, and gives it back to whoever asks.
    assert!(ok(dir, &["doc", "get", &doc, "--url", &url]).contains("Tiles"));

    let words = ok(dir, &purge(&["--yes", "--force"]));
    assert_eq!(words, format!("removed {doc} from this store"));
    let (code, _) = fails(dir, &["doc", "get", &doc]);
    assert_eq!(code, 3);
    relay.shutdown().await.unwrap();
}

#[test]
fn what_is_deleted_takes_with_it_what_the_schema_says_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let (dir, schema) = (home.path().join("ann"), home.path().join("schema.toml"));
    fs::write(&schema, SCHEMA).unwrap();
    let schema = schema.to_str().unwrap();
    let create = |content: serde_json::Value| ok(&dir, &["doc", "create", &content.to_string()]);
    let id = |url: &str| url.trim_start_matches("automerge:").to_owned();
    let roof = create(json!({"type": "project", "title": "Roof"}));
    let task = create(json!({"type": "task", "title": "Tiles", "project": roof}));
    let part = create(json!({"type": "task", "title": "Nails", "parent": task}));
    let also = create(json!({"type": "task", "title": "Wood", "also": {&*roof: true}}));

    let (code, words) = fails(&dir, &["doc", "delete", &roof, "--schema", schema]);
    assert_eq!(code, 1);
    let needed =
        format!("it is needed: {} is referred to by {} (field `parent`)", id(&task), id(&part));
    assert!(words.contains(&needed), "{words}");
    let listed = ok(&dir, &["doc", "ls"]);
    assert!(!listed.contains("(deleted)"), "nothing was done: {listed}");

    ok(&dir, &["edit", &part, "parent", "--delete"]);
    let done = json_of(&dir, &["doc", "delete", &roof, "--schema", schema, "--json"]);
    assert_eq!((&done["with"], &done["deleted"]), (&json!([id(&task)]), &json!(id(&roof))));
    assert_eq!(done["cleared"], json!([{"document": id(&also), "key": "also", "to": id(&roof)}]));
    assert_eq!(json_of(&dir, &["doc", "get", &also, "--json"])["also"], json!({}));
    let listed = json_of(&dir, &["doc", "ls", "--json"]);
    let deleted = listed.as_array().unwrap().iter().filter(|row| row["deleted"] == true).count();
    assert_eq!(deleted, 2);
    assert!(ok(&dir, &["doc", "log", &task]).contains(&format!("because {}", id(&roof))));

    // Somebody wrote there since.
    ok(&dir, &["edit", &also, "also.x", "true"]);
    let back = json_of(&dir, &["doc", "undelete", &roof, "--schema", schema, "--json"]);
    assert_eq!((&back["restored"], &back["with"]), (&json!(id(&roof)), &json!([id(&task)])));
    assert_eq!(json_of(&dir, &["doc", "get", &also, "--json"])["also"], json!({"x": true}));

    ok(&dir, &["edit", &also, "also", &json!({&*roof: true}).to_string()]);
    ok(&dir, &["doc", "delete", &roof, "--schema", schema]);
    assert_eq!(json_of(&dir, &["doc", "get", &also, "--json"])["also"], json!({}));
    let words = ok(&dir, &["doc", "undelete", &roof, "--schema", schema]);
    assert!(words.contains("is there again") && words.contains(&id(&also)), "{words}");
    assert_eq!(json_of(&dir, &["doc", "get", &also, "--json"])["also"], json!({&*roof: true}));
    assert!(!ok(&dir, &["doc", "ls"]).contains("(deleted)"));
    // Without a schema nobody knows of references.
    ok(&dir, &["doc", "delete", &part]);
    assert!(ok(&dir, &["doc", "ls"]).contains("(deleted) Nails"));
}
