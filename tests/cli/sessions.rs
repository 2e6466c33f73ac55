//! `concord lease` and `concord presence`, as processes against a relay.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cli_common::{concord, fails, json_of, ok};

const SOON: Duration = Duration::from_secs(20);

/// A command that goes on, and the JSON that it prints, a line each.
struct Running {
    child: Child,
    lines: mpsc::Receiver<Value>,
}

impl Running {
    fn start(directory: &Path, args: &[&str]) -> Self {
        let mut command = concord(directory);
        command.args(args).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(serde_json::from_str(&line).unwrap()).is_err() {
                    break;
                }
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> Value {
        self.lines.recv_timeout(SOON).unwrap()
    }

    fn until(&self, so: impl Fn(&Value) -> bool) -> Value {
        loop {
            let line = self.next();
            if so(&line) {
                return line;
            }
        }
    }

    fn interrupt(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
    }

    /// Its exit code and what it said on standard error.
    fn end(self) -> (Option<i32>, String) {
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_of_one_user_take_over_from_one_another() {
    let (_relay, url) = crate::cli_common::relay().await;
    let home = tempfile::tempdir().unwrap();
    let (desk, phone) = (&home.path().join("desk"), &home.path().join("phone"));
    let doc = &ok(desk, &["doc", "create", r#"{"n":1}"#, "--url", &url]);
    ok(phone, &["doc", "get", doc, "--url", &url]);
    let ann = ["--url", &url, "--author", "ann"];
    let with = |args: &[&'static str]| -> Vec<String> {
        let args =
            args.iter().map(|arg| if *arg == "DOC" { doc.clone() } else { (*arg).to_owned() });
        args.chain(ann.map(str::to_owned)).collect()
    };
    let args = |args: &[&'static str]| with(args);
    let strs = |args: &[String]| -> Vec<String> { args.to_vec() };
    let run = |directory: &Path, list: &[&'static str]| {
        let list = strs(&args(list));
        Running::start(directory, &list.iter().map(String::as_str).collect::<Vec<_>>())
    };

    let first = run(desk, &["lease", "acquire", "DOC"]);
    let held = first.next();
    assert_eq!(held["held"], true);
    let shown = json_of(phone, &["lease", "show", doc, "--url", &url, "--json"]);
    assert_eq!(
        (&shown["holder"]["user"], &shown["holder"]["fence"]),
        (&"ann".into(), &held["fence"])
    );
    let (code, words) = fails(phone, &["lease", "acquire", doc, "--url", &url]);
    assert!(code == 1 && words.contains("ann on ") && words.contains("take it over"), "{words}");

    let mut fence = held["fence"].as_u64().unwrap();
    let mut holder = first;
    for directory in [phone, desk, phone] {
        let next = run(directory, &["lease", "take-over", "DOC"]);
        let now = next.next()["fence"].as_u64().unwrap();
        assert!(now > fence);
        let (code, words) = holder.end();
        assert!(code == Some(1) && words.contains("has taken the lease over"), "{words}");
        (holder, fence) = (next, now);
    }
    holder.interrupt();
    assert_eq!(holder.end().0, Some(0));
    let shown = json_of(desk, &["lease", "show", doc, "--url", &url, "--json"]);
    assert_eq!(shown["holder"], Value::Null, "it was given back");

    // A command under the lease; its end is ours.
    let args = ["lease", "hold", doc, "--url", &url, "--", "sh", "-c", "echo $CONCORD_LEASE"];
    let number: u64 = ok(desk, &args).parse().unwrap();
    assert!(number > fence);
    let failing = ["lease", "hold", doc, "--url", &url, "--", "sh", "-c", "exit 7"];
    let (code, words) = fails(desk, &failing);
    assert!(code == 1 && words.contains('7'), "{words}");

    // A session that goes on over several commands.
    let with =
        |name: &'static str| ["lease", name, doc, "--session", "mine", "--url", &url, "--json"];
    let first = json_of(desk, &with("acquire"));
    let again = json_of(desk, &with("renew"));
    assert_eq!((&first["fence"], &again["session"]), (&again["fence"], &"mine".into()));
    let (_, words) = fails(phone, &["lease", "acquire", doc, "--url", &url]);
    assert!(words.contains("holds the lease"), "{words}");
    assert_eq!(json_of(desk, &with("release"))["holder"], Value::Null);

    let (code, words) = fails(desk, &["lease", "show", doc]);
    assert!(code == 2 && words.contains("--url"), "{words}");
    let (code, _) = fails(desk, &["lease", "renew", doc, "--url", &url]);
    assert_eq!(code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_under_a_lease_ends_when_another_may_hold_it() {
    let (relay, url) = crate::cli_common::relay().await;
    let home = tempfile::tempdir().unwrap();
    let (desk, phone) = (&home.path().join("desk"), &home.path().join("phone"));
    let doc = &ok(desk, &["doc", "create", r#"{"n":1}"#, "--url", &url]);
    let other = &ok(phone, &["doc", "create", r#"{"n":1}"#, "--url", &url]);
    let told = Running::start(phone, &["lease", "acquire", other, "--url", &url]);
    assert_eq!(told.next()["held"], true);
    let mut command = concord(desk);
    command.args(["lease", "hold", doc, "--url", &url, "--"]);
    // Not a word of it is heard after the 15 s that a relay waits.
    command.args(["sh", "-c", "echo began; exec sleep 600"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut began = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut began).unwrap();
    relay.shutdown().await.unwrap();

    let ended = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
    let output = tokio::time::timeout(2 * SOON, ended).await.unwrap().unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        words.contains("no relay has answered for 15 s") && words.contains("sh was ended"),
        "{words}"
    );
    // Who only waits is told, and goes on waiting for a relay.
    assert_eq!(told.next()["held"], false);
    told.interrupt();
    told.end();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_a_document_is_said_by_those_who_are() {
    let (_relay, url) = crate::cli_common::relay().await;
    let home = tempfile::tempdir().unwrap();
    let (ann, ben) = (&home.path().join("ann"), &home.path().join("ben"));
    let doc = &ok(ann, &["doc", "create", r#"{"n":1}"#, "--url", &url]);
    assert_eq!(ok(ben, &["presence", doc, "--url", &url]), "nobody else is here");

    let set = ["--set", "field=title", "--set", r#"cursor={"from":3}"#];
    let args = [&["presence", doc, "--author", "ann", "--url", &url][..], &set].concat();
    let here = Running::start(ann, &args);
    here.next();
    // Half a second is what others have to answer: on a busy machine not the first time, perhaps.
    let ask = || json_of(ben, &["presence", doc, "--url", &url, "--json"]);
    let seen = (0..20).map(|_| ask()).find(|seen| seen["present"][0].is_object()).unwrap();
    let present = &seen["present"][0];
    assert_eq!((&present["user"], &present["field"]), (&"ann".into(), &"title".into()));
    assert_eq!(present["cursor"]["from"], 3);
    let shown = (0..20).map(|_| ok(ben, &["presence", doc, "--url", &url]));
    assert!(shown.into_iter().any(|shown| shown.contains("ann")));

    let watching = Running::start(ben, &["presence", doc, "--watch", "--url", &url]);
    watching.until(|line| line["present"].as_array().is_some_and(|present| present.len() == 1));
    here.interrupt();
    watching.until(|line| line["present"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(here.end().0, Some(0));
    watching.interrupt();
    assert_eq!(watching.end().0, Some(0));

    let (code, words) = fails(ann, &["presence", doc, "--set", "colour=red", "--url", &url]);
    assert!(code == 2 && words.contains("field=PATH"), "{words}");
    assert_eq!(fails(ann, &["presence", doc]).0, 2);
}
