//! `concord collection`: what is wanted is fetched, kept, listed and let go.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use serde_json::{Value, json};

use crate::cli_common::{fails, json_of, ok, relay_under};

const SCHEMA: &str = r#"
[types.task.fields]
title = "string"
status = { kind = "enum", values = ["open", "done"], default = "open" }
project = { kind = "reference", to = "project" }

[types.project.fields]
name = "string"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_is_fetched_and_what_is_removed_goes() {
    let (_relay, url) = relay_under(Some(SCHEMA)).await;
    let (ann, ben) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ann, ben) = (ann.path(), ben.path());
    tokio::task::block_in_place(|| {
        let schema = ann.join("schema.toml");
        std::fs::write(&schema, SCHEMA).unwrap();
        let schema = schema.to_str().unwrap();
        let project =
            json_of(ann, &["put", "project", "moon", "name=Moon", "--schema", schema, "--json"]);
        let project = format!("project=automerge:{}", project["document"].as_str().unwrap());
        for (key, field) in [("1", "status=open"), ("2", "status=done"), ("3", &*project)] {
            ok(ann, &["put", "task", key, field, "--schema", schema]);
        }
        ok(ann, &["sync", "--url", &url]);

        // Nothing of it is known here but the relay.
        assert!(ok(ben, &["collection", "ls"]).starts_with("no collections here yet"));
        let (code, words) = fails(ben, &["collection", "add", "task", "colour=red", "--url", &url]);
        assert!(code == 2 && words.contains("colour"), "{words}");
        let one =
            json_of(ben, &["collection", "add", "task", "status=open", "--url", &url, "--json"]);
        assert_eq!((&one["up_to_date"], &one["fetched"]), (&json!(true), &json!(2)), "{one}");
        let rows = json_of(ben, &["ls", "task", "--json"]);
        let keys: Vec<&Value> =
            rows["rows"].as_array().unwrap().iter().map(|row| &row["key"]).collect();
        assert_eq!(keys, ["1", "3"]);
        let deep =
            ok(ben, &["collection", "add", "--entity", "task/3", "--depth", "2", "--url", &url]);
        assert!(deep.contains("task/3 and what it refers to, depth 2: up to date"), "{deep}");
        assert_eq!(json_of(ben, &["ls", "project", "--json"])["rows"].as_array().unwrap().len(), 1);
        let listed = json_of(ben, &["collection", "ls", "--json"]);
        assert_eq!(listed["collections"].as_array().unwrap().len(), 2);

        // What is new comes with the next pass.
        ok(ann, &["put", "task", "4", "title=New", "--schema", schema, "--url", &url]);
        ok(ben, &["sync", "--url", &url]);
        assert!(ok(ben, &["get", "task", "4"]).contains("New"));
        let told = ok(ben, &["collection", "watch", "--once", "--url", &url]);
        assert!(told.contains("up to date"), "{told}");

        let id = one["id"].as_str().unwrap();
        let (code, words) = fails(ben, &["collection", "rm", "zz"]);
        assert!(code == 3 && words.contains("concord collection ls"), "{words}");
        let offline = ok(ben, &["collection", "rm", id]);
        assert!(offline.contains("its documents stay"), "{offline}");
        // Fetched first: else what is missing is fetched before it goes, or not, as it happens.
        let all = json_of(ben, &["collection", "add", "task", "--url", &url, "--json"]);
        let gone =
            ["collection", "rm", all["id"].as_str().unwrap(), "--evict", "--url", &url, "--json"];
        let gone = json_of(ben, &gone);
        assert_eq!((&gone["evicted"], &gone["wanted"]), (&json!(3), &json!(1)), "{gone}");
        assert!(!ok(ben, &["ls", "task"]).contains("New"));
    });
}
