//! The relay as a process of its own, for black-box tests.

#![allow(dead_code, reason = "each test program uses its part of this")]
#![allow(clippy::expect_used, reason = "a test that cannot run its relay fails")]

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long the relay may take until it listens, on a busy machine.
const START_MAX: Duration = Duration::from_secs(20);
/// How long it may take to stop when asked: it promises 10 s.
const STOP_MAX: Duration = Duration::from_secs(15);

/// A running relay. It is killed when this is dropped.
pub(crate) struct Relay {
    child: Child,
    port: u16,
    args: Vec<String>,
    dir: PathBuf,
}

impl Relay {
    /// Starts a relay on a free port of the loopback interface, with its data in `dir`.
    pub(crate) fn start(args: &[&str], dir: &Path) -> Self {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let (child, port) = spawn(&args, dir, 0);
        Self { child, port, args, dir: dir.to_owned() }
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without warning; nothing is flushed.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().expect("the relay is ours to kill");
        self.child.wait().expect("a killed child can be waited for");
    }

    /// Has it do nothing any more, without its connections ending.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Has it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("process ids are positive");
        let pid = Pid::from_raw(pid).expect("process ids are not zero");
        kill_process(pid, signal).expect("the relay is ours to signal");
    }

    /// Asks it to stop and waits until it did.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP_MAX;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child can be asked") {
                return status;
            }
            assert!(Instant::now() < deadline, "no end {STOP_MAX:?} after SIGTERM");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again, after [`kill9`](Self::kill9) or [`terminate`](Self::terminate) or else
    /// after stopping it, on the same port and directory.
    pub(crate) fn restart(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.terminate();
        }
        let (child, port) = spawn(&self.args, &self.dir, self.port);
        assert_eq!(port, self.port, "a restarted relay keeps its port");
        self.child = child;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Fails only where it has ended already, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(args: &[String], dir: &Path, port: u16) -> (Child, u16) {
    // CONCORD_BIN puts another build in its place, as for the JavaScript tests.
    let program = env::var_os("CONCORD_BIN").unwrap_or(env!("CARGO_BIN_EXE_concord").into());
    let mut child = Command::new(program)
        .args(["serve", "--host", "127.0.0.1", "--no-admin", "--port"])
        .arg(port.to_string())
        .arg("--data-dir")
        .arg(dir)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the relay's program was built with this test");
    let stdout = child.stdout.take().expect("stdout was asked for");
    let (found, listening) = mpsc::channel();
    thread::spawn(move || {
        // Reads on after the port, so that the relay never blocks on a full pipe.
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(port) = listening_port(&line) {
                let _ = found.send(port);
            }
        }
    });
    match listening.recv_timeout(START_MAX) {
        Ok(port) => (child, port),
        Err(error) => {
            let _ = child.kill();
            let status = child.wait();
            panic!("the relay did not say that it listens ({error}); it ended with {status:?}");
        }
    }
}

/// The port in a line with `listening on ws://127.0.0.1:PORT`.
fn listening_port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("listening on ws://127.0.0.1:")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
