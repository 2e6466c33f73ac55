//! `concord conflicts review` at a terminal: what is shown, and what each key does.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    path::Path,
    process::Child,
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::cli_common::{concord, fails, json_of, ok};

const SOON: Duration = Duration::from_secs(20);

/// A command at a terminal, and what it wrote so far.
struct Terminal {
    child: Child,
    keys: File,
    shown: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn of(directory: &Path, args: &[&str]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let size = Winsize { ws_row: 50, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).unwrap();
        let theirs = OpenOptions::new().read(true).write(true).open(name).unwrap();
        let mut command = concord(directory);
        command.args(args).env("TERM", "xterm").env("NO_COLOR", "1").env_remove("CI");
        command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap());
        let child = command.stderr(theirs).spawn().unwrap();
        drop(command);
        let keys = File::from(ours);
        let mut reads = keys.try_clone().unwrap();
        let (send, shown) = mpsc::channel();
        thread::spawn(move || {
            let mut some = [0; 4096];
            // The end of a terminal is an error and not an end.
            while let Ok(count) = reads.read(&mut some) {
                if count == 0 || send.send(some[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keys, shown, seen: String::new() }
    }

    /// Waits until all of this was shown since the last time. Gives what was.
    fn until(&mut self, wanted: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(wanted) {
                let rest = self.seen.split_off(at + wanted.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let some = self.shown.recv_timeout(SOON);
            let some = some.unwrap_or_else(|_| panic!("no {wanted:?} in {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&some));
        }
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }
}

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
    let mut at = Terminal::of(ann, &["conflicts", "review"]);
    at.until(PROMPT);
    at.press("q");
    at.until("decided 0, left 1 open");
    assert!(at.child.wait().unwrap().success());
    relay.shutdown().await.unwrap();
}
