//! The examples do what they say they do. They are built by `cargo test`, or by `cargo build --examples`.

#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod support;

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use automerge::{ROOT, transaction::Transactable as _};
use concord::peer::Peer;
use support::Relay;

const SOON: Duration = Duration::from_secs(30);

fn example(name: &str) -> Command {
    let test = env::current_exe().unwrap();
    let examples = test.parent().and_then(Path::parent).unwrap().join("examples");
    let program = examples.join(name);
    assert!(program.exists(), "{} is not built: cargo build --examples", program.display());
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Somebody at a terminal.
struct Somebody {
    child: Child,
    typed: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Somebody {
    fn at(name: &str, args: &[&str]) -> Self {
        let mut child = example(name).args(args).spawn().unwrap();
        let (told, lines) = mpsc::channel();
        let shown = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in shown.lines().map_while(Result::ok) {
                // Whoever reads may have seen enough.
                let _ = told.send(line);
            }
        });
        let typed = child.stdin.take().unwrap();
        Self { child, typed, lines }
    }

    fn types(&mut self, line: &str) {
        writeln!(self.typed, "{line}").unwrap();
    }

    fn sees(&self, wanted: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(SOON).unwrap();
            if line.contains(wanted) {
                return line;
            }
        }
    }

    fn leaves(mut self) {
        drop(self.typed);
        assert!(self.child.wait().unwrap().success());
    }
}

fn output(mut command: Command, typed: &str) -> Output {
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn two_people_share_a_to_do_list_and_a_note() {
    let homes = [(); 5].map(|()| tempfile::tempdir().unwrap());
    let [relay_home, ann_home, ben_home, cat_home, dan_home] =
        homes.each_ref().map(|home| home.path().to_str().unwrap());
    let relay = Relay::start(&[], Path::new(relay_home));
    let url = relay.url();

    let mut ann = Somebody::at("todo", &[ann_home, &url]);
    let list = ann.sees("automerge:");
    ann.types("Milk");
    ann.sees("1 [ ] Milk");
    let mut ben = Somebody::at("todo", &[ben_home, &url, &list]);
    ben.sees("1 [ ] Milk");
    ben.types("Bread");
    ben.types("x 1");
    ann.sees("1 [x] Milk");
    ann.types("x 9");
    ann.types("Tea");
    ben.sees("3 [ ] Tea");
    ann.leaves();
    ben.leaves();

    let mut cat = Somebody::at("notes", &[cat_home, &url]);
    let note = cat.sees("automerge:");
    // It shows what others write.
    cat.types("remember this");
    let dan = Somebody::at("notes", &[dan_home, &url, &note]);
    dan.sees("remember this");
    cat.leaves();
    dan.leaves();
}

#[test]
fn lines_become_entities_and_the_same_lines_the_same_ones() {
    let homes = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let relay = Relay::start(&[], homes[0].path());
    let lines = "{\"key\":\"1\",\"title\":\"Milk\"}\nnonsense\n\
                 {\"key\":\"2\",\"title\":\"Tea\",\"done\":true}\n";
    for _ in 0..2 {
        let mut importer = example("importer");
        importer.args([homes[1].path().to_str().unwrap(), &relay.url()]);
        let done = output(importer, lines);
        let words = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success());
        assert_eq!(words, "2 imported, 1 open\na relay has them all\n");
        assert!(String::from_utf8(done.stderr).unwrap().starts_with("line 2: "));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reviewer_decides_what_its_rule_is_about() {
    let homes = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let relay = Relay::start(&[], homes[0].path());
    let ann = Peer::builder(homes[1].path()).relay(relay.url()).open().unwrap();
    let theirs = ann.create().await.unwrap();
    let before = theirs.heads().unwrap();
    for value in ["one", "other"] {
        theirs.change_at(&before, |tx| Ok(tx.put(ROOT, "title", value)?)).await.unwrap();
    }
    assert_eq!(theirs.conflicts().unwrap().len(), 1);
    ann.flush(SOON).await.unwrap();
    let mut reviewer = example("reviewer");
    let url = theirs.url().to_string();
    reviewer.args([homes[2].path().to_str().unwrap(), &relay.url(), &url]);
    let done = output(reviewer, "");
    let words = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && words.contains("is decided: side"), "{words}");
    ann.in_step(SOON).await.unwrap();
    assert_eq!(theirs.conflicts().unwrap(), []);
    ann.close().await.unwrap();
}
