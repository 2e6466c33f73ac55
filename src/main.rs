//! The `concord` command.

use std::process::ExitCode;

use concord::worker;

fn main() -> ExitCode {
    // Before anything else: a worker must not start threads, or read arguments and environment.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == worker::process::SUBCOMMAND)
    {
        return worker::process::main();
    }
    ExitCode::SUCCESS
}
