//! `concord conflicts`: two who edit offline, meet at a relay, and decide.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod cli;

use std::{path::Path, sync::Arc};

use concord::{
    relay::{Relay, RelayConfig},
    store,
    worker::{InProcess, WorkerLimits},
};
use serde_json::{Value, json};

use self::cli::{json_of, ok, run};

fn conflicts(directory: &Path) -> Vec<Value> {
    json_of(directory, &["conflicts", "ls", "--json"]).as_array().unwrap().clone()
}

fn id(conflict: &Value) -> &str {
    conflict["id"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_disagree_see_the_same_and_either_may_decide() {
    let config = RelayConfig { port: 0, admin: None, ..RelayConfig::default() };
    let worker = Arc::new(InProcess::start(WorkerLimits::default()).unwrap());
    let relay = Relay::start(config, store::memory().unwrap(), worker).await.unwrap();
    let url = format!("ws://{}", relay.addr());
    let home = tempfile::tempdir().unwrap();
    let (ann, ben) = (&home.path().join("ann"), &home.path().join("ben"));
    let meet = || {
        for who in [ann, ben, ann] {
            ok(who, &["sync", "--url", &url]);
        }
    };

    let content = r#"{"title":"Trip","count":1,"list":[1,2],"info":{"city":"Rome","days":3}}"#;
    let doc = &ok(ann, &["doc", "create", content, "--url", &url]);
    ok(ben, &["doc", "get", doc, "--url", &url]);
    assert!(conflicts(ann).is_empty());
    assert_eq!(ok(ann, &["conflicts", "ls"]), "no open conflicts in 1 document");

    ok(ann, &["edit", doc, "count", "5", "-m", "more people"]);
    ok(ann, &["edit", doc, "info", "--delete"]);
    ok(ann, &["edit", doc, "list[0]", "--delete"]);
    ok(ben, &["edit", doc, "count", "7"]);
    ok(ben, &["edit", doc, "info.city", "Paris"]);
    ok(ben, &["edit", doc, "list[0]", "9"]);
    // These merge.
    ok(ann, &["edit", doc, "title", "Trip to Rome"]);
    ok(ben, &["edit", doc, "title", "Our Trip"]);
    meet();

    let (here, there) = (conflicts(ann), conflicts(ben));
    assert_eq!(here, there, "the same on both");
    let seen: Vec<(&Value, &Value)> =
        here.iter().map(|conflict| (&conflict["path"], &conflict["code"])).collect();
    assert_eq!(
        seen,
        [
            (&json!("list[0]"), &json!("edit_delete")),
            (&json!("count"), &json!("value")),
            (&json!("info"), &json!("edit_delete")),
        ]
    );
    assert_eq!(here[1]["before"], 1);
    assert_eq!(here[2]["sides"][0]["value"], json!({ "city": "Paris", "days": 3 }));
    let words = ok(ann, &["conflicts", "show", doc, id(&here[1])]);
    assert!(words.contains("more people") && words.contains("before   1"), "{words}");

    // Each decides something, without a relay.
    ok(ben, &["conflicts", "resolve", doc, &id(&here[2])[..6], "--side", "1", "--reason", "we go"]);
    ok(ann, &["conflicts", "resolve", doc, id(&here[1]), "--value", "6"]);
    ok(ann, &["conflicts", "resolve", doc, id(&here[0]), "--delete"]);
    meet();
    for who in [ann, ben] {
        assert!(conflicts(who).is_empty());
        assert_eq!(
            json_of(who, &["doc", "get", doc, "--json"]),
            json!({
                "count": 6,
                "info": { "city": "Paris", "days": 3 },
                "list": [2],
                "title": "Our Trip to Rome",
            })
        );
    }
    let again = run(ann, &["conflicts", "resolve", doc, id(&here[1]), "--side", "1"]);
    assert_eq!(again.status.code(), Some(3), "it was decided");
    relay.shutdown().await.unwrap();
}

#[test]
fn under_a_schema_broken_rules_and_names_taken_twice_are_shown_and_decided() {
    let home = tempfile::tempdir().unwrap();
    let (ann, schema) = (&home.path().join("ann"), home.path().join("schema.toml"));
    let text = r#"
        [types.person]
        unique = ["email"]
        invariants = { grown_up = "age >= 18" }
        fields = { email = "string", age = "integer" }
    "#;
    std::fs::write(&schema, text).unwrap();
    let schema = schema.to_str().unwrap();
    let create = |content: &str| ok(ann, &["doc", "create", content]);
    let one = create(r#"{"type":"person","email":"a@x.org","age":12}"#);
    let other = create(r#"{"type":"person","email":"a@x.org","age":30}"#);
    assert!(conflicts(ann).is_empty(), "nothing is wrong without the schema");

    let list = || {
        json_of(ann, &["conflicts", "ls", "--schema", schema, "--json"]).as_array().unwrap().clone()
    };
    let of = |code: &str| list().into_iter().find(|conflict| conflict["code"] == code).unwrap();
    assert_eq!(list().len(), 2);
    let words = ok(ann, &["conflicts", "show", &one, id(&of("invariant")), "--schema", schema]);
    assert!(words.contains("problem  rule `grown_up` does not hold"), "{words}");
    let young = of("invariant");
    ok(ann, &["conflicts", "resolve", &one, id(&young), "--value", "21", "--schema", schema]);
    assert_eq!(ok(ann, &["doc", "get", &one, "age"]), "21");

    let twice = of("unique");
    let words = ok(ann, &["conflicts", "show", &other, id(&twice), "--schema", schema]);
    assert!(words.contains(&one) && words.contains(&other), "{words}");
    let refused =
        run(ann, &["conflicts", "resolve", &other, id(&twice), "--delete", "--schema", schema]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let sides = twice["sides"].as_array().unwrap();
    let keeps = sides.iter().position(|side| other.ends_with(side["document"].as_str().unwrap()));
    let keeps = (keeps.unwrap() + 1).to_string();
    ok(ann, &["conflicts", "resolve", &one, id(&twice), "--side", &keeps, "--schema", schema]);
    assert!(list().is_empty());
    assert_eq!(json_of(ann, &["doc", "get", &one, "--json"])["email"], Value::Null);
    assert_eq!(json_of(ann, &["doc", "get", &other, "--json"])["email"], "a@x.org");
}
