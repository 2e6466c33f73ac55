//! What an open store costs that nobody uses. A program of its own, because it looks at all of
//! the process.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![cfg(target_os = "linux")]

use std::fs;

use concord::store::{self, Engine, Options};

/// A relay on an idle machine should stay under 10 MB with everything else in it.
const IDLE_KB_MAX: u64 = 4_000;

#[test]
fn an_idle_store_takes_little_memory() {
    for engine in [Engine::Fjall, Engine::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let before = anonymous_kb();
        let store = store::open(dir.path(), engine, &Options::default()).unwrap();
        let taken = anonymous_kb().saturating_sub(before);
        println!("{engine}: {taken} KB");
        assert!(taken < IDLE_KB_MAX, "{engine}: {taken} KB");
        drop(store);
    }
}

/// Memory of this process that is no file's.
fn anonymous_kb() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
