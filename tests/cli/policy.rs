//! `concord policy simulate`: what policies would have done with what two people decided.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::fs;

use serde_json::{Value, json};

use crate::cli_common::{json_of, ok, run};

const SCHEMA: &str = r#"
[types.task.fields]
n = { kind = "integer", policy = "max" }
status = { kind = "enum", values = ["todo", "doing", "done"] }
title = "text"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_people_decided_is_compared_with_each_policy() {
    let (relay, url) = crate::cli_common::relay().await;
    let home = tempfile::tempdir().unwrap();
    let (ann, ben) = (&home.path().join("ann"), &home.path().join("ben"));
    let schema = home.path().join("schema.toml");
    fs::write(&schema, SCHEMA).unwrap();
    let simulate = |more: &[&str]| -> Vec<Value> {
        let schema = schema.to_str().unwrap();
        let args = ["policy", "simulate", "--json", "--schema", schema];
        json_of(ann, &[&args[..], more].concat()).as_array().unwrap().clone()
    };
    let content = r#"{"type":"task","n":1,"status":"todo","other":1}"#;
    let doc = &ok(ann, &["doc", "create", content, "--url", &url]);
    assert!(simulate(&[]).is_empty());
    ok(ben, &["doc", "get", doc, "--url", &url]);
    // Three times two disagree; the greater is chosen twice, and another once. The last is open.
    for (hers, his, chosen) in
        [("5", "7", Some("7")), ("9", "8", Some("9")), ("3", "4", Some("3")), ("1", "2", None)]
    {
        ok(ann, &["edit", doc, "n", hers]);
        ok(ben, &["edit", doc, "n", his]);
        // What no field is of, no policy is for.
        ok(ann, &["edit", doc, "other", hers]);
        ok(ben, &["edit", doc, "other", his]);
        for who in [ann, ben, ann] {
            ok(who, &["sync", "--url", &url]);
        }
        for conflict in json_of(ann, &["conflicts", "ls", "--json"]).as_array().unwrap() {
            if let Some(chosen) = chosen {
                let id = conflict["id"].as_str().unwrap();
                ok(ann, &["conflicts", "resolve", doc, id, "--value", chosen, "--url", &url]);
            }
        }
        ok(ben, &["sync", "--url", &url]);
    }
    let tried = simulate(&[]);
    let of = |policy: &str| {
        tried.iter().find(|trial| trial["policy"] == policy).unwrap_or_else(|| panic!("{tried:?}"))
    };
    assert!(tried.iter().all(|trial| trial["field"] == "task.n"), "{tried:?}");
    assert_eq!(tried.len(), 4);
    let max = json!({
        "field": "task.n", "policy": "max", "in_force": true,
        "decided": 3, "as_people": 2, "otherwise": 1, "undecided": 0, "open": 1, "closes": 1,
    });
    assert_eq!(of("max"), &max);
    assert_eq!((&of("min")["as_people"], &of("min")["in_force"]), (&json!(1), &json!(false)));
    assert_eq!(simulate(&["--field", "task.status"]), Vec::<Value>::new());
    assert_eq!(simulate(&["--field", "task"]), tried);
    assert_eq!(simulate(&["--since", "1d"]), tried);
    let later = simulate(&["--since", "2999-01-01"]);
    assert!(later.iter().all(|trial| trial["decided"] == 0 && trial["open"] == 1), "{later:?}");

    let schema = schema.to_str().unwrap();
    let table = ok(ann, &["policy", "simulate", "--schema", schema]);
    assert!(table.contains("max (in force)  2 of 3"), "{table}");
    for wrong in [&["--field", "tusk"][..], &["--field", "task.x"], &["--since", "soon"]] {
        let refused = run(ann, &[&["policy", "simulate", "--schema", schema], wrong].concat());
        assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    }
    relay.shutdown().await.unwrap();
}
