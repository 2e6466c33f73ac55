//! `concord dead-letters review` at a terminal: what is shown, and what each key does.

use crate::{
    cli_common::{fails, json_of, ok, relay_with},
    pty::Terminal,
};

const PROMPT: &str = "[?]";

#[tokio::test(flavor = "multi_thread")]
async fn each_refused_change_is_shown_and_one_key_deals_with_it() {
    let (relay, url) = relay_with(|config| config.limits.change_bytes = 2_000).await;
    let home = tempfile::tempdir().unwrap();
    let dir = &home.path().join("ann");
    let url = url.as_str();
    let docs = [(); 3].map(|()| ok(dir, &["doc", "create", r#"{"text":"a"}"#, "--url", url]));
    let (code, words) = fails(dir, &["dead-letters", "review"]);
    assert!(code == 2 && words.contains("at a terminal"), "{words}");
    for doc in &docs {
        ok(dir, &["edit", doc, "text", &"x".repeat(3_000)]);
    }
    let (code, words) = fails(dir, &["sync", "--url", url]);
    assert!(code == 4 && words.contains("at most 2000"), "{words}");
    let refused = || json_of(dir, &["dead-letters", "ls", "--json"]).as_array().unwrap().len();
    assert_eq!(refused(), 3);

    let mut at = Terminal::of(dir, &["dead-letters", "review", "--url", url]);
    let first = at.until(PROMPT);
    assert!(first.contains("1 of 3") && first.contains("at most 2000"), "{first}");
    at.press("?");
    assert!(at.until(PROMPT).contains("send it once more"));
    at.press("r");
    assert!(at.until(PROMPT).contains("refused again"));
    at.press("e");
    at.until("to go back): ");
    at.press("text=short\r");
    at.until("for no more): ");
    at.press("\r");
    at.until("2 of 3");
    at.until(PROMPT);
    at.press("d");
    at.until("discarded");
    at.until("3 of 3");
    at.until(PROMPT);
    let file = home.path().join("change");
    at.press("x");
    at.until("to go back): ");
    at.press(&format!("{}\r", file.display()));
    at.until("written to");
    at.until(PROMPT);
    at.press("s");
    at.until("done with 2, left 1 open");
    assert!(at.child.wait().unwrap().success());
    assert!(std::fs::read(file).unwrap().len() > 100);
    assert_eq!(refused(), 1);
    let texts = docs.map(|doc| json_of(dir, &["doc", "get", &doc])["text"].to_string().len());
    let (short, before, long) = ("\"short\"".len(), "\"a\"".len(), 3_002);
    let mut sorted = texts;
    sorted.sort_unstable();
    assert_eq!(sorted, [before, short, long]);

    // Whoever ends it has done nothing more.
    let at = Terminal::of(dir, &["dead-letters", "review"]);
    at.quit(PROMPT, "done with 0, left 1 open");
    relay.shutdown().await.unwrap();
}
