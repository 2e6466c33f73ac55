//! `concord doc log | at | diff | blame | restore | events`: what people see of a history, and programs.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::path::Path;

use serde_json::{Value, json};

use crate::cli_common::{fails, json_of, ok};

/// A document that two people wrote, and the hashes of its changes, the oldest first.
fn written(home: &Path) -> (String, Vec<String>) {
    let by = |author, args: &[&str]| ok(home, &[args, &["--author", author]].concat());
    let content = r#"{"title":"Shopping","items":[{"what":"Milk"}],"count":1}"#;
    let doc = by("ann@example.org", &["doc", "create", content]);
    by("bob@example.org", &["edit", &doc, "title", "Shopping list", "-m", "for all of us"]);
    by("bob@example.org", &["edit", &doc, "items[0].what", "Oat milk"]);
    by("ann@example.org", &["edit", &doc, "count", "--delete"]);
    let log = json_of(home, &["doc", "log", &doc, "--oldest", "--json"]);
    let hashes = log.as_array().unwrap().iter().map(|entry| text(&entry["change"]));
    let hashes = hashes.collect();
    (doc, hashes)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn a_history_is_read_and_restored() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (doc, hashes) = written(home);
    assert_eq!(hashes.len(), 5);

    // Who, when, what for; the newest first, checked.
    let log = ok(home, &["doc", "log", &doc, "--verify"]);
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].starts_with("CHANGE    WHEN              BY"), "{log}");
    assert!(lines[1].starts_with(&hashes[4][..8]) && lines[1].contains("ann@example.org"), "{log}");
    assert!(lines[3].contains("bob@example.org") && lines[3].ends_with("for all of us"), "{log}");
    assert_eq!(lines[6], "every change has the hash that it is named by, and none is missing");
    let some = ok(home, &["doc", "log", &doc, "-n", "2", "--after", &hashes[1][..8]]);
    assert_eq!(some.lines().count(), 4, "{some}");
    assert!(some.ends_with("and older ones: -n shows more"), "{some}");

    // As it was: by a short hash, before a change, by time, at the ends.
    let at = |state: &str| json_of(home, &["doc", "at", &doc, state, "--json"]);
    let first = json!({"title": "Shopping", "items": [{"what": "Milk"}], "count": 1});
    assert_eq!(at(&hashes[1][..8]), first);
    assert_eq!(at(&format!("{}^", &hashes[2][..8])), first);
    assert_eq!(at(&format!("{},{}", &hashes[0], &hashes[1])), first);
    assert_eq!(at("start"), json!({}));
    assert_eq!(at("2020-01-01"), json!({}));
    assert_eq!(at("2999-01-01 12:00"), at("now"));
    assert_eq!(ok(home, &["doc", "at", &doc, &hashes[1], "items[0].what"]), "\"Milk\"");

    // What is different.
    let diff = ok(home, &["doc", "diff", &doc, &hashes[1][..8]]);
    let expected =
        ["count: removed 1", "items[0].what @0: \"M\" -> \"Oat m\"", "title @8: added \" list\""];
    let mut lines: Vec<&str> = diff.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, expected);
    let part = ok(home, &["doc", "diff", &doc, &hashes[1], "now", "--path", "items"]);
    assert_eq!(part, expected[1]);
    assert_eq!(ok(home, &["doc", "diff", &doc, "now"]), "nothing is different");
    // Who wrote it.
    let blame = ok(home, &["doc", "blame", &doc, "title"]);
    let rows: Vec<&str> = blame.lines().collect();
    assert!(rows[1].contains("ann@example.org") && rows[1].ends_with("\"Shopping\""), "{blame}");
    assert!(rows[2].starts_with(&hashes[2][..8]) && rows[2].ends_with("\" list\""), "{blame}");
    // Letters that one person typed in a row are one.
    let typed = ok(home, &["doc", "create", r#"{"note":""}"#, "--author", "ann"]);
    for text in ["M", "Mi", "Milk", "Milk!"] {
        ok(home, &["edit", &typed, "note", text, "--author", "ann"]);
    }
    let notes = ok(home, &["doc", "blame", &typed, "note"]);
    assert!(notes.lines().count() == 2 && notes.ends_with("note @0  \"Milk!\""), "{notes}");
    let blame = json_of(home, &["doc", "blame", &doc, "items[0]", "--json"]);
    assert_eq!(blame[0]["kind"], "map");
    assert_eq!(blame[2]["by"]["author"], "bob@example.org");
    assert_eq!(blame[2]["path"], "items[0].what");

    // What is edited letter by letter is read word by word.
    ok(home, &["edit", &doc, "title", "Shopping for Saturday"]);
    ok(home, &["edit", &doc, "title", "Shopping for Friday"]);
    let last = json_of(home, &["doc", "log", &doc, "-n", "1", "--json"]);
    let before = format!("{}^", text(&last[0]["change"]));
    let words = "title @13: \"Satur\" -> \"Fri\"";
    assert_eq!(ok(home, &["doc", "diff", &doc, &before]), words);
    ok(home, &["doc", "restore", &doc, &hashes[4]]);

    // A part is restored, then all of it; the history stays.
    let cid = ["--author", "cid"];
    let args = ["doc", "restore", &doc, &hashes[1][..8], "title", "-m", "as before"];
    let restored = ok(home, &[&args[..], &cid].concat());
    assert_eq!(restored, "title @8: removed \" list\"\non this disk");
    let args = ["doc", "restore", &doc, &hashes[1][..8], "--json"];
    let restored = json_of(home, &[&args[..], &cid].concat());
    assert_eq!((&restored["durable"], &restored["confirmed"]), (&json!(true), &Value::Null));
    assert_eq!(restored["differences"].as_array().unwrap().len(), 2);
    assert_eq!(at("now"), first);
    let log = json_of(home, &["doc", "log", &doc, "--json"]);
    assert_eq!(log.as_array().unwrap().len(), 10);
    assert_eq!((&log[0]["author"], &log[1]["message"]), (&json!("cid"), &json!("as before")));
    assert_eq!(log[0]["change"], restored["change"]);
    let nothing = ok(home, &["doc", "restore", &doc, &hashes[1]]);
    assert_eq!(nothing, "nothing is different: nothing was written");
}

#[test]
fn events_are_told_from_where_a_call_ended() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let by = |author, args: &[&str]| ok(home, &[args, &["--author", author]].concat());
    let content = r#"{"type":"task","count":1}"#;
    let doc = by("ann@example.org", &["doc", "create", content]);
    let start = json_of(home, &["doc", "events", &doc, "--json"]);
    let names = |told: &Value| -> Vec<String> {
        told["events"].as_array().unwrap().iter().map(|event| text(&event["name"])).collect()
    };
    assert!(names(&start).contains(&"task.count_set".to_owned()), "{start}");
    assert_eq!(start["more"], false);

    by("bob@example.org", &["edit", &doc, "count", "2", "-m", "it is dry"]);
    let cursor = text(&start["cursor"]);
    let said = ok(home, &["doc", "events", &doc, "--since", &cursor]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("EVENT") && lines.len() == 3, "{said}");
    for words in ["task.count_changed", "1 -> 2", "bob@example.org", "it is dry", " 20"] {
        assert!(lines[1].contains(words), "{words}: {said}");
    }
    // Whoever goes on from there is told nothing twice.
    let next = lines[2].strip_prefix("go on with --since ").unwrap();
    let nothing = ok(home, &["doc", "events", &doc, "--since", next]);
    assert_eq!(nothing, format!("nothing happened\ngo on with --since {next}"));

    // A part at a time comes to the same as all at once.
    let all = json_of(home, &["doc", "events", &doc, "--json"]);
    let (mut since, mut found) = ("start".to_owned(), Vec::new());
    loop {
        let part = json_of(home, &["doc", "events", &doc, "-n", "1", "--since", &since, "--json"]);
        found.extend(part["events"].as_array().unwrap().clone());
        since = text(&part["cursor"]);
        if part["more"] == false {
            break;
        }
    }
    assert_eq!((Value::Array(found), since), (all["events"].clone(), text(&all["cursor"])));
    assert_eq!(all["events"].as_array().unwrap().last().unwrap()["cause"]["message"], "it is dry");

    let (code, words) = fails(home, &["doc", "events", &doc, "--since", "00000000"]);
    assert!(code == 3 && words.contains("no change of the document begins with"), "{words}");
}

#[test]
fn errors_say_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let (doc, hashes) = written(home);
    for (args, code, words) in [
        (vec!["at", &doc, "nonsense"], 2, "names no state: give a change's hash, a time like"),
        (vec!["at", &doc, ""], 2, "names no state"),
        (vec!["diff", &doc, "0000000000"], 3, "no change of the document begins with 0000000000"),
        (vec!["at", &doc, &hashes[0], "title"], 3, "title is not in the document as it was then"),
        (vec!["blame", &doc, "nowhere"], 3, "nowhere is not in the document as it is now"),
        (vec!["restore", &doc, &hashes[0], "nowhere"], 3, "nowhere is not in the document"),
        (vec!["log", &doc, "--author", ""], 2, "an author's name is not empty"),
    ] {
        let (exit, said) = fails(home, &[&["doc"], &args[..]].concat());
        assert_eq!(exit, code, "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
    // All hashes begin with one of sixteen digits: of seventeen changes two begin alike.
    for number in 0..17 {
        ok(home, &["edit", &doc, "count", &number.to_string()]);
    }
    let log = json_of(home, &["doc", "log", &doc, "--json"]);
    let firsts: Vec<char> = log
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| text(&entry["change"]).chars().next().unwrap())
        .collect();
    let twice = firsts.iter().find(|first| firsts.iter().filter(|it| it == first).count() > 1);
    let (exit, said) = fails(home, &["doc", "at", &doc, &twice.unwrap().to_string()]);
    assert!(exit == 2 && said.contains("more than one change begins with"), "{said}");
}
