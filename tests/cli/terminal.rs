//! What the real command shows: progress to somebody at a terminal, nothing but words elsewhere,
//! and JSON to programs.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use serde_json::Value;

const ABSENT: &str = "automerge:2akvofn6L1o4RMUEMQi7qzwRjKWZ";
/// Refuses connections: a port below 1024 that nothing uses.
const NO_RELAY: &str = "ws://127.0.0.1:1";

fn concord(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_concord"));
    command.env_remove("CONCORD_URL").env("CONCORD_DIR", directory).args(args);
    command.stdin(Stdio::null());
    command
}

fn run(directory: &Path, args: &[&str]) -> Output {
    concord(directory, args).output().unwrap()
}

/// Both ends of a terminal: ours, and that of the command.
fn terminal() -> (File, File) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
    let theirs = OpenOptions::new().read(true).write(true).open(name).unwrap();
    (File::from(ours), theirs)
}

/// All that the command writes to a terminal that is its standard output and error.
fn at_a_terminal(directory: &Path, args: &[&str]) -> String {
    let (ours, theirs) = terminal();
    let mut command = concord(directory, args);
    command.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("CI");
    command.stdout(theirs.try_clone().unwrap()).stderr(theirs);
    let mut child = command.spawn().unwrap();
    // What is left of the other end is the child's.
    drop(command);
    let mut shown = Vec::new();
    // The end of a terminal is an error and not an end.
    let _ = (&ours).read_to_end(&mut shown);
    child.wait().unwrap();
    String::from_utf8_lossy(&shown).into_owned()
}

/// What comes out of a terminal, until its other end is closed.
fn reader(ours: &File) -> mpsc::Receiver<String> {
    let (told, screen) = mpsc::channel();
    let mut ours = ours.try_clone().unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 4_096];
        // The end of a terminal is an error and not an end.
        while let Ok(read @ 1..) = ours.read(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
            if told.send(text).is_err() {
                break;
            }
        }
    });
    screen
}

/// A relay of its own process, on a port of its own.
struct Relay(Child, String);

fn serve(directory: &Path) -> Command {
    let args = ["serve", "--port", "0", "--no-admin", "--store", "memory"];
    let mut command = concord(directory, &args);
    command.current_dir(directory);
    command
}

impl Relay {
    fn start(directory: &Path) -> Self {
        let mut command = serve(directory);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        let url = first.trim_end().rsplit(' ').next().unwrap().to_owned();
        assert!(url.starts_with("ws://127.0.0.1:"), "{first}");
        Self(child, url)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may be gone by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn somebody_at_a_terminal_sees_what_is_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    run(dir, &["doc", "create", "{}"]);
    for args in [&["sync"][..], &["doc", "get", ABSENT], &["watch", ABSENT]] {
        let args = [args, &["--url", NO_RELAY, "--deadline", "3"]].concat();
        let shown = at_a_terminal(dir, &args);
        assert!(shown.contains("nothing listens at ws://127.0.0.1:1"), "{args:?}: {shown:?}");
        assert!(shown.contains("trying again in"), "{args:?}: {shown:?}");
        // The line is taken away again before the outcome is said.
        let outcome = shown.rfind("concord: ").unwrap();
        assert!(shown[..outcome].ends_with("\x1b[2K"), "{args:?}: {shown:?}");
    }
    let shown =
        at_a_terminal(dir, &["bench", "local-edit", "--operations", "1000", "--edits", "100"]);
    assert!(shown.contains("typing") && shown.contains("/100"), "{shown:?}");
}

#[test]
fn what_is_done_at_once_shows_no_progress() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    for args in [&["doc", "create", "{}"][..], &["doc", "ls"], &["doc", "get", ABSENT], &["sync"]] {
        let shown = at_a_terminal(dir, args);
        assert!(!shown.is_empty() && !shown.contains('\x1b'), "{args:?}: {shown:?}");
    }
}

#[test]
fn nothing_but_words_is_written_where_nobody_watches() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let relay = Relay::start(dir);
    run(dir, &["doc", "create", r#"{"title":"x"}"#]);
    for args in [
        &["sync", "--url", NO_RELAY, "--deadline", "2"][..],
        &["doc", "get", ABSENT, "--url", NO_RELAY, "--deadline", "2"],
        &["doc", "ls"],
        &["sync", "--url", &relay.1],
        &["bench", "connect", "--connections", "5", "--url", &relay.1],
        &["bench", "local-edit", "--operations", "1000", "--edits", "20"],
    ] {
        let output = run(dir, args);
        let written = [output.stdout, output.stderr].concat();
        assert!(!written.is_empty(), "{args:?}");
        let acts = written.iter().any(|byte| matches!(byte, 0x1b | b'\r'));
        assert!(!acts, "{args:?}: {:?}", String::from_utf8_lossy(&written));
    }
}

#[test]
fn every_command_speaks_json_when_asked() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let relay = Relay::start(dir);
    let json_of = |args: &[&str]| -> Value {
        let output = run(dir, &[args, &["--json"]].concat());
        let said = if output.status.success() { output.stdout } else { output.stderr };
        let said = String::from_utf8(said).unwrap();
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{args:?}: {error}: {said}"))
    };
    let relayed = ["--url", &relay.1, "--deadline", "60"];
    let doc = json_of(&[&["doc", "create", r#"{"title":"x"}"#], &relayed[..]].concat());
    assert_eq!(doc["confirmed"], true, "{doc}");
    let doc = doc["url"].as_str().unwrap();
    let file = home.path().join("doc.automerge");
    let file = file.to_str().unwrap();
    assert_eq!(json_of(&["doc", "ls"])[0]["preview"], "x");
    assert_eq!(json_of(&["doc", "get", doc])["title"], "x");
    assert_eq!(json_of(&["doc", "export", doc, "-o", file])["file"], file);
    assert!(json_of(&["doc", "import", file])["url"].is_string());
    assert_eq!(json_of(&["edit", doc, "title", "y"])["durable"], true);
    assert_eq!(json_of(&[&["sync"], &relayed[..]].concat())["pending"], 0);
    assert!(json_of(&["watch", doc, "--last", "1", "--count", "0"])["change"].is_string());
    assert_eq!(json_of(&["version"])["name"], "concord");
    let bench = json_of(&["bench", "connect", "--connections", "2", "--url", &relay.1]);
    assert_eq!(bench["undelivered"], 0);
    // What goes wrong, too.
    for args in
        [&["doc", "get", ABSENT][..], &["sync"], &["watch", "x"], &["edit", doc, "a.b", "1"]]
    {
        let error = json_of(args);
        assert!(error["error"].is_string() && error["reason"].is_string(), "{args:?}: {error}");
    }
    let bench = json_of(&["bench", "join", "--operations", "10", "--url", NO_RELAY]);
    assert_eq!(bench["error"], "failed");
}

#[test]
fn a_relay_serves_also_where_nobody_reads_what_it_says() {
    let home = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = serve(home.path()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let serving = log.by_ref().map(Result::unwrap).find(|line| line.contains("serving addr="));
    let serving = serving.unwrap();
    assert!(!serving.contains('\x1b'), "{serving:?}");
    let addr = serving.split("addr=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let _relay = Relay(child, String::new());
    std::net::TcpStream::connect(addr).unwrap();
}

#[test]
fn a_watch_tells_when_its_relay_comes_and_goes() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let relay = Relay::start(dir);
    let made = run(dir, &["doc", "create", "{}"]).stdout;
    let doc = String::from_utf8(made).unwrap();
    let args = ["watch", doc.trim_end(), "--json", "--url", &relay.1];
    let mut watching = concord(dir, &args).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut event = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(event()["event"], "online");
    drop(relay);
    let offline = event();
    assert_eq!(offline["event"], "offline");
    assert!(offline["text"].as_str().unwrap().contains("trying again in"), "{offline}");
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn completions_and_manual_pages_know_the_commands() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(dir, &["completions", shell]);
        assert!(script.status.success(), "{shell}");
        let script = String::from_utf8(script.stdout).unwrap();
        for name in ["dead-letters", "outbox", "--deadline"] {
            // Fish names options without their dashes.
            let name = if shell == "fish" { name.trim_start_matches('-') } else { name };
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
    assert_eq!(run(dir, &["completions", "csh"]).status.code(), Some(2));
    let page = String::from_utf8(run(dir, &["man"]).stdout).unwrap();
    assert!(page.contains(".TH concord") && page.contains("concord\\-outbox(1)"), "{page}");
    let pages = dir.join("share/man1");
    assert!(run(dir, &["man", "--dir", pages.to_str().unwrap()]).status.success());
    for (name, says) in [("concord.1", "outbox"), ("concord-dead-letters-retry.1", "PATH=VALUE")] {
        let page = std::fs::read_to_string(pages.join(name)).unwrap();
        assert!(page.contains(says), "{name}: {page}");
    }
    std::fs::write(dir.join("file"), "").unwrap();
    let failed = run(dir, &["man", "--dir", dir.join("file").to_str().unwrap()]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8(failed.stderr).unwrap().contains("cannot write manual pages"));
}

#[test]
fn the_status_says_what_scripts_and_people_ask() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let status = |args: &[&str]| -> (Option<i32>, String, String) {
        let output = run(dir, &[&["status"], args].concat());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let json = |said: &str| -> Value { serde_json::from_str(said).unwrap() };
    let made = run(dir, &["doc", "create", r#"{"title":"x"}"#]).stdout;
    let doc = String::from_utf8(made).unwrap();
    let doc = doc.trim_end();
    // Without a relay it is a question about this disk.
    let (code, said, _) = status(&[]);
    assert_eq!(code, Some(0));
    assert!(said.contains("none was given") && said.contains("1 pending"), "{said}");
    let (_, said, _) = status(&["--json"]);
    let said = json(&said);
    assert_eq!((&said["outbox"]["pending"], &said["documents"]), (&1.into(), &1.into()), "{said}");
    assert_eq!((&said["online"], &said["in_step"]), (&false.into(), &false.into()), "{said}");
    assert_eq!(json(&status(&[doc, "--json"]).1)["standing"], "local-only");
    // A relay that is not reached is said, and scripts can tell.
    let (code, said, why) = status(&["--url", NO_RELAY, "--deadline", "1"]);
    assert_eq!(code, Some(4), "{why}");
    assert!(said.contains("offline: nothing listens") && said.contains("1 pending"), "{said}");
    assert!(why.starts_with("concord: ") && why.lines().count() == 1, "{why}");
    // One that is there has it when this returns.
    let relay = Relay::start(dir);
    let (code, said, why) = status(&["--url", &relay.1, "--deadline", "60", "--json"]);
    assert_eq!(code, Some(0), "{why}");
    let said = json(&said);
    assert_eq!((&said["online"], &said["in_step"]), (&true.into(), &true.into()), "{said}");
    assert_eq!(said["relay"], Value::from(relay.1.as_str()), "{said}");
    assert_eq!((&said["passes"]["count"], &said["passes"]["documents"]), (&1.into(), &1.into()));
    assert!(said["passes"]["sent_bytes"].as_u64().unwrap() > 50, "{said}");
    assert!(said["synchronised"].is_i64(), "{said}");
    let (_, said, _) = status(&[]);
    assert!(said.contains("outbox     empty"), "{said}");
    assert_eq!(json(&status(&[doc, "--json"]).1)["standing"], "confirmed");
    // What is edited after that is more than the relay has.
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert!(run(dir, &["edit", doc, "title", "y"]).status.success());
    let said = json(&status(&[doc, "--json"]).1);
    assert_eq!((&said["standing"], &said["conflicts"]), (&"ahead".into(), &0.into()), "{said}");
    let (code, said, _) = status(&[doc, "--url", &relay.1, "--deadline", "60"]);
    assert!(code == Some(0) && said.contains("all that is here on its disk"), "{said}");
    assert_eq!(status(&[ABSENT]).0, Some(3));
}

#[test]
fn top_shows_relays_and_what_waits_and_leaves_the_terminal_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let relay = Relay::start(dir);
    let made = run(dir, &["doc", "create", "{}"]).stdout;
    let doc = String::from_utf8(made).unwrap();
    let doc = doc.trim_end().trim_start_matches("automerge:");
    for (url, shows) in [(NO_RELAY, ["offline", doc]), (&relay.1, ["online", "RECEIVED"])] {
        for key in ["q", "\x1b", "\x03"] {
            let (mut ours, theirs) = terminal();
            let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&ours, size).unwrap();
            let mut command = concord(dir, &["top", "--url", url]);
            command.env("TERM", "xterm").stdin(theirs.try_clone().unwrap());
            command.stdout(theirs.try_clone().unwrap()).stderr(theirs);
            let mut child = command.spawn().unwrap();
            drop(command);
            let screen = reader(&ours);
            let mut shown = String::new();
            for round in 0.. {
                if shown.contains(url) && shows.iter().all(|word| shown.contains(word)) {
                    break;
                }
                assert!(round < 120, "{shown:?}");
                match screen.recv_timeout(Duration::from_millis(500)) {
                    Ok(more) => shown.push_str(&more),
                    // Only what is different is drawn, which may be half a word: have it all.
                    Err(RecvTimeoutError::Timeout) => {
                        let ws_col = 100 + round % 2;
                        tcsetwinsize(&ours, Winsize { ws_col, ..size }).unwrap();
                    }
                    Err(RecvTimeoutError::Disconnected) => panic!("it ended: {shown:?}"),
                }
            }
            assert!(shown.contains("\x1b[?1049h"), "{shown:?}");
            ours.write_all(key.as_bytes()).unwrap();
            let ends = Instant::now() + Duration::from_mins(1);
            let mut rest = String::new();
            while let Ok(more) = screen.recv_timeout(ends.saturating_duration_since(Instant::now()))
            {
                rest.push_str(&more);
            }
            assert!(Instant::now() < ends, "{key:?} does not end it");
            assert!(child.wait().unwrap().success(), "{key:?}");
            assert!(rest.contains("\x1b[?1049l") && rest.contains("\x1b[?25h"), "{rest:?}");
        }
    }
    let elsewhere = run(dir, &["top"]);
    assert_eq!(elsewhere.status.code(), Some(2));
    let why = String::from_utf8(elsewhere.stderr).unwrap();
    assert!(why.contains("concord status --json"), "{why}");
}
