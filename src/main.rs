//! The `concord` command.

mod cli;

use std::process::ExitCode;

use concord::worker;

fn main() -> ExitCode {
    // Before anything starts a thread: a worker confines itself first.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == worker::process::SUBCOMMAND) {
        return worker::process::main();
    }
    cli::run()
}
