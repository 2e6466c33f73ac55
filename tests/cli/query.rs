//! The real command on entities: put, get, ls and query, what they print and how they fail.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::cli_common::{concord, fails, json_of, ok};

const SCHEMA: &str = r#"
[types.task.fields]
title = { kind = "text", required = true }
status = { kind = "enum", values = ["open", "done"], default = "open" }
due = "timestamp"
votes = "integer"
labels = { kind = "set", items = "string" }
owner = { kind = "reference", to = "person" }
scan = "attachment"
[types.person]
version = 2
[types.person.fields]
name = "string"
[[types.person.migrations]]
version = 2
rename = "called"
to = "name"
"#;

/// A directory for documents, and the schema's file in it.
fn home() -> (tempfile::TempDir, PathBuf, String) {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("types.toml");
    std::fs::write(&file, SCHEMA).unwrap();
    let directory = home.path().join("data");
    (home, directory, file.to_str().unwrap().to_owned())
}

/// The same under the schema.
fn under<'a>(schema: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [args, &["--schema", schema]].concat()
}

fn keys(found: &Value) -> Vec<&str> {
    found["rows"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap()).collect()
}

/// The document of a task.
fn got_id(dir: &Path, schema: &str, key: &str) -> String {
    let got = json_of(dir, &under(schema, &["get", "task", key, "--json"]));
    got["document"].as_str().unwrap().to_owned()
}

#[test]
fn entities_are_put_shown_listed_and_found() {
    let (_home, dir, schema) = home();
    let dir: &Path = &dir;
    let said = ok(dir, &under(&schema, &["put", "task", "1", "title=Buy milk", "due=2026-12-01"]));
    assert_eq!(said, "task 1: on this disk");
    ok(dir, &under(&schema, &["put", "task", "2", "title=Write", "votes=3", "labels=a,b"]));
    ok(dir, &under(&schema, &["put", "task", "3", "title=Call", "status=done", "due=2026-11-01"]));
    let again = ok(dir, &under(&schema, &["put", "task", "3", "status=done"]));
    assert_eq!(again, "task 3, as it was: on this disk");

    let shown = ok(dir, &under(&schema, &["get", "task", "1"]));
    assert!(shown.contains("Buy milk") && shown.contains("2026-12-01"), "{shown}");
    assert!(shown.contains("not confirmed"), "{shown}");
    let got = json_of(dir, &under(&schema, &["get", "task", "2", "--json"]));
    assert_eq!(got["fields"]["labels"], json!(["a", "b"]));
    assert!(got["unconfirmed"].as_array().unwrap().contains(&json!("votes")));

    // An entity is a document, and is named as one wherever documents are.
    let log = ok(dir, &["doc", "log", "task/1"]);
    assert_eq!(log, ok(dir, &["doc", "log", got_id(dir, &schema, "1").as_str()]));
    let (code, words) = fails(dir, &["doc", "log", "task/none"]);
    assert!(code == 3 && words.contains("is not stored here"), "{words}");
    let named = ok(dir, &under(&schema, &["get", "task/1"]));
    assert_eq!(named, ok(dir, &under(&schema, &["get", "task", "1"])));
    let named = ok(dir, &under(&schema, &["put", "task/1", "title=Buy milk"]));
    assert_eq!(named, "task 1, as it was: on this disk");

    let types = ok(dir, &under(&schema, &["ls"]));
    assert!(types.starts_with("TYPE  ENTITIES  DELETED\ntask  3         0"), "{types}");
    let listed = ok(dir, &under(&schema, &["ls", "task"]));
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].starts_with("KEY  DUE         LABELS"), "{listed}");
    assert!(lines[1].starts_with("1    2026-12-01"), "{listed}");
    let page = json_of(dir, &under(&schema, &["ls", "task", "--limit", "2", "--json"]));
    assert_eq!(keys(&page), ["1", "2"]);
    let next = page["next"].as_str().unwrap();
    let rest = json_of(dir, &under(&schema, &["ls", "task", "--after", next, "--json"]));
    assert_eq!((keys(&rest), &rest["next"]), (vec!["3"], &Value::Null));
    assert_eq!(rest["behind"]["building"], 0);

    let query = |args: &[&str]| -> Vec<String> {
        let args = [&["query", "task"], args, &["--json"]].concat();
        let found = json_of(dir, &under(&schema, &args));
        keys(&found).into_iter().map(str::to_owned).collect()
    };
    assert_eq!(query(&["status=open"]), ["1", "2"]);
    assert_eq!(query(&["due<2026-12-01"]), ["3"]);
    assert_eq!(query(&["due?", "--sort", "-due"]), ["1", "3"]);
    assert_eq!(query(&["--sort", "status,-votes"]), ["3", "2", "1"]);
    assert_eq!(query(&["labels~b"]), ["2"]);
    assert_eq!(query(&["title^=Bu"]), ["1"]);
    assert_eq!(query(&["status=open|done", "votes!"]), ["1", "3"]);
    let count = under(&schema, &["query", "task", "status=open", "--count"]);
    assert_eq!(ok(dir, &count), "2");
}

#[test]
fn what_is_referred_to_is_shown_by_its_key_and_a_file_by_its_name() {
    let (home, dir, schema) = home();
    let dir: &Path = &dir;
    let line = |entity: &str, field: &str| -> String {
        let shown = ok(dir, &under(&schema, &["get", entity]));
        let line = shown.lines().find(|line| line.starts_with(field)).unwrap();
        line.strip_prefix(field).unwrap().trim().replace("not confirmed", "").trim().to_owned()
    };
    ok(dir, &under(&schema, &["put", "task", "1", "title=x", "owner=ann", "labels=b,a"]));
    assert!(line("task/1", "owner").starts_with("automerge:"), "nobody is called that here");
    ok(dir, &under(&schema, &["put", "person/ann", "name=Ann"]));
    assert_eq!(
        (line("task/1", "owner").as_str(), line("task/1", "labels").as_str()),
        ("ann", "a, b")
    );
    assert!(ok(dir, &under(&schema, &["ls", "task"])).contains("  ann  "));

    let file = home.path().join("plan.txt");
    std::fs::write(&file, "milk").unwrap();
    ok(dir, &under(&schema, &["attach", file.to_str().unwrap(), "--to", "task/1.scan"]));
    assert_eq!(line("task/1", "scan"), "plan.txt (4 B)");

    // What the type keeps under another key is not written beside it.
    let (code, words) = fails(dir, &under(&schema, &["edit", "person/ann", "name", "Anna"]));
    assert!(code == 2 && words.contains("kept as `called`"), "{words}");
    ok(dir, &under(&schema, &["edit", "person/ann", "called", "Anna"]));
    assert_eq!(line("person/ann", "name"), "Anna");
}

#[test]
fn what_is_mistyped_is_said_with_what_there_is() {
    let (_home, dir, schema) = home();
    ok(&dir, &under(&schema, &["put", "task", "1", "title=x"]));
    for (args, code, says) in [
        (&["put", "tsk", "1", "title=x"][..], 2, "did you mean `task`?"),
        (&["put", "document", "1", "title=x"], 2, "the types are `person`, `task`"),
        (&["put", "task", "1", "titel=x"], 2, "did you mean `title`?"),
        (&["put", "task", "1", "subject=x"], 2, "its fields are `due`, `labels`"),
        (&["put", "task"], 2, "concord put task KEY"),
        (&["get", "task"], 2, "task/KEY"),
        (&["put", "task", "1", "votes=many"], 2, "a whole number"),
        (&["put", "task", "2", "votes=1"], 2, "`title` is required"),
        (&["get", "task", "9"], 3, "concord ls task"),
        (&["query", "task", "statsu=open"], 2, "did you mean `status`?"),
        (&["query", "task", "status=opne"], 2, "one of open, done"),
        (&["query", "task", "--sort", "labels"], 2, "no order to sort by"),
        (&["query", "task", "status"], 2, "is no filter"),
        (&["ls", "tsk"], 2, "did you mean `task`?"),
        (&["ls", "task", "--after", "xyz"], 2, "not a cursor"),
    ] {
        let (found, words) = fails(&dir, &under(&schema, args));
        assert!(found == code && words.contains(says), "{args:?}: {found}: {words}");
    }
    let (code, words) = fails(&dir, &["put", "task", "1", "title=x"]);
    assert!(code == 2 && words.contains("--schema"), "{words}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_query_tells_of_what_a_relay_brings() {
    let (_relay, url) = crate::cli_common::relay_under(Some(SCHEMA)).await;
    let (_home, dir, schema) = home();
    let elsewhere = dir.with_file_name("elsewhere");
    let put = |dir: &Path, args: &[&str]| {
        ok(dir, &under(&schema, &[args, &["--url", &url, "--deadline", "30"]].concat()))
    };
    put(&dir, &["put", "task", "1", "title=One"]);
    let mut live = concord(&dir);
    live.args(["query", "task", "status=open", "--live", "--events", "2", "--json"]);
    let mut live = live.args(["--url", &url]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(live.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    // The schema is the relay's: nobody gave another.
    assert_eq!(keys(&next()), ["1"]);
    let confirmed = put(&elsewhere, &["put", "task", "1", "title=Two"]);
    assert!(confirmed.ends_with("confirmed by the relay"), "{confirmed}");
    let changed = next();
    assert_eq!((&changed["event"], &changed["at"]), (&json!("changed"), &json!(0)));
    put(&elsewhere, &["put", "task", "1", "status=done"]);
    assert_eq!(next()["event"], "removed");
    assert!(live.wait().unwrap().success());
}
