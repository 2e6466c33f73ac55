//! The `concord` command.

mod cli;

use std::process::ExitCode;

use concord::worker;

/// Gives memory back when documents leave it; glibc's keeps what bursts once needed.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything starts a thread: a worker confines itself first.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == worker::process::SUBCOMMAND)
    {
        return worker::process::main();
    }
    cli::run()
}
