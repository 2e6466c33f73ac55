//! The project's chores, so that two commands do everything on a machine with Rust and Node:
//! `cargo xtask start` serves, `cargo xtask test` checks all there is to check.

mod programs;
mod run;
mod start;
mod suite;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <command>

  start [-- ARGS]    build the relay and serve; ARGS go to `concord serve`
  test [--quick]     everything that CI runs; --quick leaves out the real JavaScript clients,
                     the documentation and the licence checks";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((command, rest)) if command == "start" => start::start(rest),
        Some((command, rest)) if command == "test" => match rest {
            [] => suite::test(suite::Extent::Full),
            [flag] if flag == "--quick" => suite::test(suite::Extent::Quick),
            _ => Err(format!("test takes --quick or nothing\n\n{USAGE}")),
        },
        _ => Err(USAGE.to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace: this crate's parent directory.
fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}
