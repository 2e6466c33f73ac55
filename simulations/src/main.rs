//! The command: worlds by the thousand, one again, one cut down, one drawn.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
