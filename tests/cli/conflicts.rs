//! `concord conflicts`: two who edit offline, meet at a relay, and decide.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::path::Path;

use serde_json::{Value, json};

use crate::cli_common::{json_of, ok, run};

fn conflicts(directory: &Path) -> Vec<Value> {
    json_of(directory, &["conflicts", "ls", "--json"]).as_array().unwrap().clone()
}

fn id(conflict: &Value) -> &str {
    conflict["id"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_who_disagree_see_the_same_and_either_may_decide() {
    let (relay, url) = crate::cli_common::relay().await;
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

#[tokio::test(flavor = "multi_thread")]
async fn who_looks_after_a_conflict_is_seen_by_others() {
    let (relay, url) = crate::cli_common::relay().await;
    let home = tempfile::tempdir().unwrap();
    let (ann, ben) = (&home.path().join("ann"), &home.path().join("ben"));
    let meet = || {
        for who in [ann, ben, ann] {
            ok(who, &["sync", "--url", &url]);
        }
    };
    let doc = &ok(ann, &["doc", "create", r#"{"count":1}"#, "--url", &url]);
    ok(ben, &["doc", "get", doc, "--url", &url]);
    ok(ann, &["edit", doc, "count", "5"]);
    ok(ben, &["edit", doc, "count", "7"]);
    meet();
    let open = conflicts(ann);
    assert_eq!((open.len(), &open[0]["state"]), (1, &json!("open")));
    assert_eq!(conflicts(ben), open);
    let documents = |who: &Path| json_of(who, &["doc", "ls", "--json"]).as_array().unwrap().len();
    assert_eq!((documents(ann), documents(ben)), (1, 1), "whoever looks writes nothing");
    let id = id(&open[0]);
    let act = |directory: &Path, who: &str, args: &[&str]| {
        let [name, rest @ ..] = args else { panic!("an act has a name") };
        let args = [&["conflicts", name, doc, &id[..6]], rest, &["--author", who]].concat();
        ok(directory, &args)
    };

    let (exit, words) = crate::cli_common::fails(ann, &["conflicts", "claim", doc, &id[..6]]);
    assert!(exit == 2 && words.contains("--author"), "{words}");
    let said = act(ann, "ann", &["claim"]);
    assert!(said.contains("is claimed") && said.contains("claimed  by ann"), "{said}");
    act(ann, "ann", &["comment", "which \u{1b}[31mone?"]);
    // Who claims within the same second is first by chance.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    act(ben, "ben", &["claim"]);
    meet();
    // Who has said nothing is told, too.
    let carl = &home.path().join("carl");
    ok(carl, &["sync", doc, "--url", &url]);
    assert!(ok(carl, &["conflicts", "show", doc, id]).contains("claimed  by ann"));
    assert!(ok(carl, &["doc", "ls"]).contains("(notes on conflicts)"));
    let words = ok(ben, &["conflicts", "show", doc, id]);
    assert!(words.contains("claimed  by ann") && words.contains("also     by ben"), "{words}");
    assert!(words.contains("which ·[31mone?"), "{words}");
    let listed = ok(ben, &["conflicts", "ls"]);
    assert!(listed.contains("WHO") && listed.contains("ann (and 1 more)"), "{listed}");
    act(ben, "ben", &["release"]);
    let (exit, words) =
        crate::cli_common::fails(ben, &["conflicts", "claim", doc, id, "--author", "ben"]);
    assert!(exit == 2 && words.contains("ann looks after"), "{words}");
    let taken: Value =
        serde_json::from_str(&act(ben, "ben", &["claim", "--take", "--json"])).unwrap();
    assert_eq!(taken["triage"]["claims"][0]["who"], "ben");

    act(ben, "ben", &["assign", "carl"]);
    let of = |name| json_of(ben, &["conflicts", "ls", "--assignee", name, "--json"]);
    assert_eq!((of("carl").as_array().unwrap().len(), of("dora")), (1, json!([])));
    act(ben, "ben", &["snooze", "3d"]);
    meet();
    let listed = ok(ann, &["conflicts", "ls"]);
    assert!(listed.contains("1 more are put off or dismissed"), "{listed}");
    let snoozed = ok(ann, &["conflicts", "ls", "--state", "snoozed"]);
    assert!(snoozed.contains("snoozed ben"), "{snoozed}");
    assert!(ok(ann, &["conflicts", "show", doc, id]).contains("snoozed  until"));
    act(ann, "ann", &["dismiss", "--why", "a test"]);
    assert_eq!(
        json_of(ann, &["conflicts", "ls", "--dismissed", "--json"])[0]["state"],
        "dismissed"
    );
    assert!(ok(ann, &["conflicts", "show", doc, id]).contains(": a test"));
    act(ann, "ann", &["reopen"]);
    assert_eq!(conflicts(ann)[0]["state"], "claimed");
    ok(ann, &["conflicts", "resolve", doc, id, "--side", "1"]);
    assert_eq!(ok(ann, &["conflicts", "ls", "--state", "all"]), "no such conflicts in 1 document");
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_decided_at_once_and_taken_back() {
    let (relay, url) = crate::cli_common::relay().await;
    let home = tempfile::tempdir().unwrap();
    let (ann, ben) = (&home.path().join("ann"), &home.path().join("ben"));
    let mut docs = Vec::new();
    for _ in 0..5 {
        let doc = ok(ann, &["doc", "create", r#"{"type":"trip","count":1}"#, "--url", &url]);
        ok(ben, &["doc", "get", &doc, "--url", &url]);
        ok(ann, &["edit", &doc, "count", "5", "--author", "ann"]);
        ok(ben, &["edit", &doc, "count", "7", "--author", "ben"]);
        docs.push(doc);
    }
    for who in [ann, ben, ann] {
        ok(who, &["sync", "--url", &url]);
    }
    assert_eq!(conflicts(ann).len(), 5);
    let dismissed = conflicts(ann)[0].clone();
    let doc = dismissed["document"].as_str().unwrap();
    ok(ann, &["conflicts", "dismiss", doc, id(&dismissed), "--author", "ann"]);

    let bulk = ["conflicts", "bulk", "--code", "value", "--field", "count", "--type", "trip"];
    let with = |more: &[&'static str]| [&bulk, more].concat();
    let shown = ok(ann, &with(&["--take", "author=ben", "--dry-run"]));
    assert!(shown.contains("BECOMES") && shown.contains("4 conflicts would be decided"), "{shown}");
    let (exit, words) = crate::cli_common::fails(ann, &with(&["--take", "author=ben", "--json"]));
    assert!(exit == 2 && words.contains("--yes"), "{words}");
    let none = json_of(ann, &with(&["--take", "author=carl", "--dry-run", "--json"]));
    assert_eq!((&none["matching"], &none["decidable"]), (&json!(4), &json!(0)));
    assert!(none["conflicts"][0]["refused"].as_str().unwrap().contains("carl"), "{none}");
    assert_eq!(conflicts(ann).len(), 4, "nothing was decided");

    let done = json_of(ann, &with(&["--take", "author=ben", "--yes", "--json"]));
    assert_eq!(done["decided"].as_array().unwrap().len(), 4, "{done}");
    assert!(conflicts(ann).is_empty());
    let mut decided = Vec::new();
    for doc in &docs {
        if !doc.ends_with(dismissed["document"].as_str().unwrap()) {
            assert_eq!(ok(ann, &["doc", "get", doc, "count"]), "7");
            decided.push(doc);
        }
    }
    let log = json_of(ann, &["conflicts", "log", "--json"]);
    assert_eq!((&log[0]["bulk"], &log[1]["bulk"]), (&done["bulk"], &done["bulk"]));
    // Of the one that is left it is told what became of the others, and nothing is done.
    let words = ok(ann, &["conflicts", "show", doc, id(&dismissed)]);
    assert!(words.contains("was taken in 4 of 4 decisions on trip.count"), "{words}");
    assert_eq!(
        json_of(ann, &["conflicts", "ls", "--dismissed", "--json"])[0]["id"],
        id(&dismissed)
    );
    let back = done["bulk"].as_str().unwrap();
    let (exit, words) = crate::cli_common::fails(ann, &["conflicts", "bulk", "--revert", back]);
    assert!(exit == 2 && words.contains("take back 4 decisions"), "{words}");
    let said = ok(ann, &["conflicts", "bulk", "--revert", back, "--yes"]);
    assert!(said.contains("reverted 4 conflicts"), "{said}");
    let (exit, _) =
        crate::cli_common::fails(ann, &["conflicts", "bulk", "--revert", back, "--yes"]);
    assert_eq!(exit, 3, "it is taken back");
    let (exit, _) = crate::cli_common::fails(ann, &["conflicts", "bulk", "--take", "newest"]);
    assert_eq!(exit, 2);
    relay.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_held_is_in_review_until_it_is_decided() {
    let (relay, url) = crate::cli_common::relay().await;
    let home = tempfile::tempdir().unwrap();
    let (ann, ben) = (&home.path().join("ann"), &home.path().join("ben"));
    let schema = home.path().join("schema.toml");
    let text =
        "[types.trip.fields]\ncount = { kind = \"integer\", hold = true }\ndays = \"integer\"";
    std::fs::write(&schema, text).unwrap();
    let schema = schema.to_str().unwrap();
    let doc = &ok(ann, &["doc", "create", r#"{"type":"trip","count":1,"days":2}"#, "--url", &url]);
    ok(ben, &["doc", "get", doc, "--url", &url]);
    ok(ann, &["edit", doc, "count", "5"]);
    ok(ben, &["edit", doc, "count", "7"]);
    for who in [ann, ben, ann] {
        ok(who, &["sync", "--url", &url]);
    }
    let read = |who: &Path| json_of(who, &["doc", "entity", doc, "--schema", schema, "--json"]);
    let open = conflicts(ann);
    assert_eq!(read(ann)["in_review"], json!({ "count": [id(&open[0])] }));
    assert!(read(ann)["fields"]["count"].is_i64(), "what stands until then can be read");
    let words = ok(ann, &["doc", "entity", doc, "--schema", schema]);
    assert!(words.contains(&format!("in review: {}", &id(&open[0])[..8])), "{words}");

    ok(ann, &["conflicts", "dismiss", doc, id(&open[0]), "--author", "ann"]);
    assert_eq!(read(ann)["in_review"], json!({}), "it needs no decision");
    ok(ann, &["conflicts", "reopen", doc, id(&open[0]), "--author", "ann"]);
    assert_eq!(read(ann)["in_review"].as_object().unwrap().len(), 1);
    ok(ann, &["conflicts", "resolve", doc, id(&open[0]), "--side", "1"]);
    assert_eq!((&read(ann)["in_review"], &read(ann)["type"]), (&json!({}), &json!("trip")));
    let none = ok(ann, &["doc", "create", r#"{"count":1}"#]);
    let (exit, words) =
        crate::cli_common::fails(ann, &["doc", "entity", &none, "--schema", schema]);
    assert!(exit == 2 && words.contains("`type` names none of them"), "{words}");
    relay.shutdown().await.unwrap();
}
