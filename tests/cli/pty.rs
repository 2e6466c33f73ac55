//! A command at a terminal: what it shows, and keys that are pressed.

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

use crate::cli_common::concord;

const SOON: Duration = Duration::from_secs(20);

/// A command at a terminal, and what it wrote so far.
pub(crate) struct Terminal {
    pub(crate) child: Child,
    keys: File,
    shown: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    pub(crate) fn of(directory: &Path, args: &[&str]) -> Self {
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
    pub(crate) fn until(&mut self, wanted: &str) -> String {
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

    /// Waits until it asks, ends it, and waits for its last words.
    pub(crate) fn quit(mut self, prompt: &str, says: &str) {
        self.until(prompt);
        self.press("q");
        self.until(says);
        assert!(self.child.wait().unwrap().success());
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }
}
