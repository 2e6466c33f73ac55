//! `concord schema`: what is wrong with a file, what it says, and what a newer one means.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::cli_common::{json_of, ok, relay_under, run};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/example.toml");

fn file(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Exit code, standard output and standard error.
fn failing(directory: &Path, args: &[&str]) -> (i32, String, String) {
    let output = run(directory, args);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_good_file_is_said_to_be_good_and_shown() {
    let home = tempfile::tempdir().unwrap();
    let said = ok(home.path(), &["schema", "check", EXAMPLE]);
    assert!(said.ends_with("is a schema: 3 types, 24 fields, 3 rules"), "{said}");
    let checked = json_of(home.path(), &["schema", "check", EXAMPLE, "--json"]);
    assert_eq!((&checked["valid"], &checked["errors"]), (&json!(true), &json!([])));

    let types = ok(home.path(), &["schema", "show", EXAMPLE]);
    assert_eq!(types.lines().count(), 4, "{types}");
    let task = ok(home.path(), &["schema", "show", EXAMPLE, "task"]);
    for part in [
        "enum todo | doing | done",
        "ladder todo < doing < done",
        "rule     dates: start",
        "purged   90d after it was deleted",
    ] {
        assert!(task.contains(part), "{part}: {task}");
    }
    let task = json_of(home.path(), &["schema", "show", EXAMPLE, "task", "--json"]);
    assert_eq!((&task["version"], &task["purge_deleted_after"]), (&json!(3), &json!("90d")));
    assert_eq!(task["fields"]["summary"]["slot"], "title");
    assert_eq!(task["fields"]["labels"]["kind"]["items"]["kind"], "string");
    let (code, _, words) = failing(home.path(), &["schema", "show", EXAMPLE, "tsk"]);
    assert!(code == 3 && words.contains("it has person, project, task"), "{words}");
    let (code, _, words) = failing(home.path(), &["schema", "check", "nowhere.toml"]);
    assert!(code == 3 && words.contains("there is no file nowhere.toml"), "{words}");
}

#[test]
fn all_errors_are_listed_with_place_and_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let text = "[types.task.fields]\ntitle = \"txet\"\n\
                state = { kind = \"enum\", values = [\"a\", \"b\"], policy = \"ladder\" }\n";
    let path = &file(home.path(), "wrong.toml", text);
    let (code, said, words) = failing(home.path(), &["schema", "check", path]);
    assert_eq!((code, words.trim_end()), (1, &*format!("concord: {path} has 2 errors")));
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(
        lines,
        [
            &*format!(
                "{path}:2:9: field `title` of type `task` has the kind \"txet\", which is not known"
            ),
            "    did you mean `text`?",
            &*format!(
                "{path}:3:56: field `state` of type `task` has policy `ladder` without an order"
            ),
            "    add `ladder = [\"a\", \"b\"]`",
        ]
    );
    let output = run(home.path(), &["schema", "check", path, "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["valid"], &said["errors"][1]["line"]), (&json!(false), &json!(3)));
    let (code, _, words) = failing(home.path(), &["schema", "show", path]);
    assert!(code == 2 && words.contains("line 2: ") && words.contains("1 more"), "{words}");
}

#[test]
fn a_diff_says_when_what_is_deleted_goes_sooner() {
    let home = tempfile::tempdir().unwrap();
    let schema = |name: &str, after: &str| {
        let text = format!("[types.task]\n{after}\n[types.task.fields]\ntitle = \"string\"\n");
        file(home.path(), name, &text)
    };
    let never = schema("never.toml", "");
    let (short, long) = (
        schema("short.toml", "purge_deleted_after = \"24h\""),
        schema("long.toml", "purge_deleted_after = \"90d\""),
    );
    for (old, new, said) in [
        (&never, &long, Some(("lossy", "what is deleted is purged after 90d instead of never"))),
        (&long, &short, Some(("lossy", "what is deleted is purged after 1d instead of 90d"))),
        (&short, &long, Some(("compatible", "what is deleted is purged after 90d instead of 1d"))),
        (&long, &never, Some(("compatible", "what is deleted is not purged any more"))),
        (&long, &long, None),
    ] {
        let rows = json_of(home.path(), &["schema", "diff", old, new, "--json"]);
        let rows = rows.as_array().unwrap();
        let found = rows.first();
        let found =
            found.map(|row| (row["impact"].as_str().unwrap(), row["what"].as_str().unwrap()));
        assert_eq!((rows.len(), found), (usize::from(said.is_some()), said));
    }
}

#[test]
fn a_diff_says_what_is_compatible_lossy_migrated_or_missing() {
    let home = tempfile::tempdir().unwrap();
    let old = &file(
        home.path(),
        "old.toml",
        r#"[types.task.fields]
title = "string"
notes = "text"
size = "integer"
state = { kind = "enum", values = ["a", "b"] }
old = "text"
"#,
    );
    let new = r#"[types.task]
version = 2
[types.task.fields]
name = "string"
notes = { kind = "text", required = true }
size = "number"
state = { kind = "enum", values = ["b", "c"] }
color = "string"
tags = { kind = "set", items = "string" }
"#;
    let missing = &file(home.path(), "missing.toml", new);
    let found = |new: &str| {
        let output = run(home.path(), &["schema", "diff", old, new, "--json"]);
        let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let word = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
                format!("{} {} {}", word("impact"), word("field"), word("what"))
            })
            .collect();
        (output.status.code().unwrap(), rows)
    };
    let (code, rows) = found(missing);
    assert_eq!(code, 1);
    assert_eq!(
        rows,
        [
            "compatible  version 1 became 2",
            "compatible color new field, string",
            "compatible name new field, string",
            "needs_migration notes required now, and documents may lack it",
            "needs_migration size integer became number",
            "lossy state no longer a",
            "compatible state also c",
            "needs_migration tags new field, set of string, that every replica must make alike",
            "needs_migration old the field is gone, text",
            "needs_migration title the field is gone, string",
        ]
    );
    let (_, said, words) = failing(home.path(), &["schema", "diff", old, missing]);
    assert!(said.contains("if it is `color` now, add a migration { version = 2, rename"), "{said}");
    assert_eq!(words, "concord: 5 migrations are missing\n");

    let declared = new.replace("required = true", "required = false")
        + r#"
[[types.task.migrations]]
version = 2
rename = "title"
to = "name"
[[types.task.migrations]]
version = 2
retype = "size"
kind = "integer"
[[types.task.migrations]]
version = 2
add = "tags"
[[types.task.migrations]]
version = 2
remove = "old"
kind = "text"
"#;
    let (code, rows) = found(&file(home.path(), "declared.toml", &declared));
    assert_eq!(code, 0, "{rows:#?}");
    assert_eq!(
        rows,
        [
            "compatible  version 1 became 2",
            "lossy old removed; what was written stays in documents",
            "compatible color new field, string",
            "migrated name renamed from title",
            "migrated size integer became number; version 1 goes on with integer, as far as it can",
            "lossy state no longer a",
            "compatible state also c",
            "migrated tags added, set of string",
        ]
    );
    assert_eq!(ok(home.path(), &["schema", "diff", old, old]), "the schemas declare the same");
}

const FIRST: &str = r#"[types.task.fields]
size = "string"
effort = "integer"
name = "string"
"#;

const SECOND: &str = r#"[types.task]
version = 2
[types.task.fields]
size = "integer"
effort = "string"
first = "string"
last = "string"
[[types.task.migrations]]
version = 2
retype = "size"
kind = "string"
[[types.task.migrations]]
version = 2
retype = "effort"
kind = "integer"
[[types.task.migrations]]
version = 2
split = "name"
into = ["first", "last"]
"#;

#[test]
fn a_diff_says_what_goes_on_in_both_versions() {
    let home = tempfile::tempdir().unwrap();
    let (old, new) = (file(home.path(), "old.toml", FIRST), file(home.path(), "new.toml", SECOND));
    let rows = json_of(home.path(), &["schema", "diff", &old, &new, "--json"]);
    let word = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows: Vec<String> = (rows.as_array().unwrap().iter())
        .map(|row| format!("{} {} {}", word(row, "impact"), word(row, "field"), word(row, "what")))
        .collect();
    assert_eq!(
        rows,
        [
            "compatible  version 1 became 2",
            "migrated name split into first, last; older versions go on with name",
            "migrated effort integer became string; version 1 goes on with integer, as far as it can",
            "migrated first split from name, string",
            "migrated last split from name, string",
            "lossy size string became integer; what does not fit stays in documents; version 1 goes \
             on with string",
        ]
    );
}

#[test]
fn an_entity_of_another_version_is_shown_with_what_is_parked() {
    let home = tempfile::tempdir().unwrap();
    let schema = file(home.path(), "schema.toml", SECOND);
    let content = r#"{"type":"task","size":"many","effort":3,"name":"Ann Lee"}"#;
    let doc = ok(home.path(), &["doc", "create", content]);
    let shown = json_of(home.path(), &["doc", "entity", &doc, "--schema", &schema, "--json"]);
    assert_eq!(shown["fields"], json!({"effort": "3", "first": "Ann", "last": "Lee"}));
    let parked = "field `size` of version 1 is \"many\", which is no whole number";
    assert_eq!(
        shown["parked"],
        json!([{"field": "size", "version": 1, "value": "many", "why": parked}])
    );
    assert_eq!(shown["problems"].as_array().unwrap().len(), 1);
    let said = ok(home.path(), &["doc", "entity", &doc, "--schema", &schema]);
    assert!(said.starts_with("task, version 2\n") && said.ends_with(&format!("parked: {parked}")));
    let other = file(home.path(), "other.toml", &FIRST.replace("task", "note"));
    let (code, _, words) = failing(home.path(), &["doc", "entity", &doc, "--schema", &other]);
    assert!(code == 2 && words.contains("is of no type of"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_of_a_relay_is_shown_from_there_and_from_here() {
    let text = fs::read_to_string(EXAMPLE).unwrap();
    let (relay, url) = relay_under(Some(&text)).await;
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (code, _, words) = failing(home, &["schema", "show"]);
    assert!(code == 3 && words.contains("no relay has told of a schema yet"), "{words}");

    let there = json_of(home, &["schema", "show", "--from-relay", &url, "--json"]);
    assert_eq!(there["types"]["task"]["version"], 3);
    let hash = concord_protocol::SchemaHash::of(&text).to_string();
    assert_eq!(there["hash"], *hash);
    let of_file = json_of(home, &["schema", "show", EXAMPLE, "--json"]);
    assert_eq!((&of_file["types"], &of_file["hash"]), (&there["types"], &Value::Null));
    let (code, _, _) = failing(home, &["schema", "show"]);
    assert_eq!(code, 3, "who only asks keeps nothing");

    // Whoever connects keeps it.
    let created = ok(home, &["doc", "create", r#"{"type":"task","status":"odd"}"#, "--url", &url]);
    assert!(created.starts_with("automerge:"), "{created}");
    // Whoever begins with an entity need not have connected before.
    let new = tempfile::tempdir().unwrap();
    let put = ["put", "person", "ann", "name=Ann", "--url", &url];
    assert!(ok(new.path(), &put).contains("confirmed"), "{put:?}");
    relay.shutdown().await.unwrap();
    let here = json_of(home, &["schema", "show", "--json"]);
    assert_eq!(here, there);
    let said = ok(home, &["schema", "show"]);
    assert!(said.contains(&hash) && said.lines().count() == 5, "{said}");
    let task = ok(home, &["schema", "show", "--type", "task"]);
    assert_eq!(task, ok(home, &["schema", "show", EXAMPLE, "task"]));
    let (code, _, words) = failing(home, &["schema", "show", "--type", "tsk"]);
    assert!(code == 3 && words.contains("it has person, project, task"), "{words}");
    let (code, _, words) = failing(home, &["schema", "show", "--from-relay", &url]);
    assert!(code == 4 && words.contains("cannot be asked"), "{words}");

    // What it says is in force in other commands.
    let open = json_of(home, &["conflicts", "ls", "--json"]);
    assert_eq!(open[0]["code"], "schema", "no such status: {open}");

    let (without, url) = relay_under(None).await;
    let (code, _, words) = failing(home, &["schema", "show", "--from-relay", &url]);
    assert!(code == 3 && words.contains("has no schema"), "{words}");
    let new = tempfile::tempdir().unwrap();
    let (code, _, words) = failing(new.path(), &["get", "person", "ann", "--url", &url]);
    assert!(code == 2 && words.contains("no schema declares any type"), "{words}");
    without.shutdown().await.unwrap();
}

#[test]
fn a_relay_does_not_start_with_a_schema_that_is_too_large() {
    let home = tempfile::tempdir().unwrap();
    let text = format!("[types.a.fields]\nb = \"string\"\n#{}", "x".repeat(1 << 20));
    let path = &file(home.path(), "large.toml", &text);
    let (code, _, words) = failing(home.path(), &["serve", "--schema", path, "--port", "0"]);
    assert!(code == 2 && words.contains("1048576") && words.contains(path.as_str()), "{words}");
}
