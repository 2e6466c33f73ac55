//! `concord conflicts review` at a terminal: what is shown, and what each key does.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use crate::{
    cli_common::{fails, json_of, ok},
    pty::Terminal,
};

const PROMPT: &str = "[?]";

#[tokio::test(flavor = "multi_thread")]
async fn one_key_decides_and_one_takes_it_back() {
    let (relay, url) = crate::cli_common::relay().await;
    let home = tempfile::tempdir().unwrap();
    let (ann, ben) = (&home.path().join("ann"), &home.path().join("ben"));
    let doc = &ok(ann, &["doc", "create", r#"{"m":1,"n":1,"o":1}"#, "--url", &url]);
    ok(ben, &["doc", "get", doc, "--url", &url]);
    for (who, value) in [(ann, "5"), (ben, "7")] {
        for key in ["m", "n", "o"] {
            ok(who, &["edit", doc, key, value]);
        }
    }
    for who in [ann, ben, ann] {
        ok(who, &["sync", "--url", &url]);
    }
    let (code, words) = fails(ann, &["conflicts", "review"]);
    assert!(code == 2 && words.contains("at a terminal"), "{words}");

    let mut at = Terminal::of(ann, &["conflicts", "review"]);
    let first = at.until(PROMPT);
    assert!(first.contains("1 of 3: ") && first.contains(" (value) at "), "{first}");
    assert!(first.contains("before ") && first.contains("│ side 1 "), "{first}");
    at.press("x");
    assert!(at.until(PROMPT).contains("1-9  take what this side wants"));
    at.press("r");
    at.until("why: ");
    at.press("it is lucky\r");
    at.until(PROMPT);
    at.press("1");
    at.until("2 of 3: ");
    at.until(PROMPT);
    at.press("v");
    at.until("to go back): ");
    at.press("6\r");
    at.until("3 of 3: ");
    at.until("[u]ndo");
    at.press("u");
    at.until("what was shown before it is there again");
    at.until(PROMPT);
    at.press("s");
    let end = at.until("open");
    assert!(end.contains("decided 1, took 1 back, left 1"), "{end}");
    assert!(at.child.wait().unwrap().success());
    let log = json_of(ann, &["conflicts", "log", "--json"]);
    let reasons = log.as_array().unwrap().iter().filter(|one| one["reason"] == "it is lucky");
    assert_eq!(reasons.count(), 1, "{log}");
    assert_eq!(json_of(ann, &["conflicts", "ls", "--json"]).as_array().unwrap().len(), 1);

    // Whoever ends it has decided nothing more.
    let at = Terminal::of(ann, &["conflicts", "review"]);
    at.quit(PROMPT, "decided 0, left 1 open");
    relay.shutdown().await.unwrap();
}
