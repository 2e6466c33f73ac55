//! What the arguments are, and which module does what.

mod explain;
mod log;
mod message;
mod replay;
mod run;
mod shrink;
mod source;
mod summary;
mod text;

use std::{
    io::{self, Write},
    process::ExitCode,
    thread,
};

use clap::{Parser, Subcommand, ValueEnum};
use concord_simulations::{Mutant, coverage, plan::Profile};

/// Exit codes, as `--help` says them.
const EXIT_CODES: &str = "\
Exit codes:
  0  every world kept every rule
  1  a rule was broken
  2  wrong usage, or a file that cannot be read or written";

/// Of `shrink`.
const SHRINK_CODES: &str = "\
Exit codes:
  0  the smaller world was written
  1  the world keeps every rule: there is nothing to cut down
  2  wrong usage, or a file that cannot be read or written";

/// How this program is called from the root of the repository.
const COMMAND: &str = "cargo run -p concord-simulations --release --";

/// Whole worlds of relays and peers, from a seed, in virtual time.
#[derive(Debug, Parser)]
#[command(name = "concord-simulations", after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Live through many worlds
    #[command(after_help = EXIT_CODES)]
    Run(run::RunArgs),
    /// Live through one world again and say what happened in it
    #[command(after_help = EXIT_CODES)]
    Replay(replay::ReplayArgs),
    /// Cut a world that breaks a rule down to what that needs
    #[command(after_help = SHRINK_CODES)]
    Shrink(shrink::ShrinkArgs),
    /// Draw a world as a page for a browser
    #[command(after_help = EXIT_CODES)]
    Explain(explain::ExplainArgs),
    /// List the rare states that worlds should meet
    States,
    /// List the rules of the engine that can be broken on purpose
    Mutants,
}

/// What documents are made of, as an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ProfileArg {
    /// Change chunks whose operations nobody looks at: fast
    Opaque,
    /// Real Automerge documents: slower, and looks at what is in them
    Automerge,
}

impl From<ProfileArg> for Profile {
    fn from(profile: ProfileArg) -> Self {
        match profile {
            ProfileArg::Opaque => Self::Opaque,
            ProfileArg::Automerge => Self::Automerge,
        }
    }
}

/// What a command came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Kept,
    Broken,
}

/// Why a command could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Output(#[from] io::Error),
}

pub(crate) fn run() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Shrink(args) => shrink::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::States => states(),
        Command::Mutants => mutants(),
    };
    match result {
        Ok(Outcome::Kept) => ExitCode::SUCCESS,
        Ok(Outcome::Broken) => ExitCode::from(1),
        // Whoever reads has read enough.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell of it if this fails too.
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(2)
        }
    }
}

/// `states`: a state is called by what it means.
fn states() -> Result<Outcome, Error> {
    let mut out = io::stdout().lock();
    for state in coverage::STATES {
        writeln!(out, "{state}")?;
    }
    Ok(Outcome::Kept)
}

/// `mutants`: each with what it breaks, and how.
fn mutants() -> Result<Outcome, Error> {
    let mut out = io::stdout().lock();
    for mutant in Mutant::ALL {
        let breaks = mutant.what_it_breaks();
        let rules = breaks.invariants.join(" or ");
        writeln!(out, "{}\n  breaks {rules}: {}", mutant.name(), breaks.how)?;
    }
    Ok(Outcome::Kept)
}

/// Threads that this machine runs at a time.
fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
