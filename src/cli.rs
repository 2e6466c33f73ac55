//! The `concord` command: what the arguments are, and which module does what.

mod agree;
mod attach;
mod collection;
mod config;
mod conflicts;
mod deletion;
mod doc;
mod edit;
mod entities;
mod entity;
mod failure;
mod keys;
mod lease;
mod manual;
mod open;
mod outbox;
mod output;
mod past;
mod path;
mod policy;
mod presence;
mod schema;
mod serve;
mod status;
mod summary;
mod sync;
mod top;
mod undo;
mod waiting;
mod watch;
mod write;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::failure::Failure;

/// Exit codes, as `--help` says them.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage or configuration, or another process has the directory
  3  not found or not available
  4  offline, or not confirmed by a relay by the deadline; what you wrote is safe on this disk";

/// Local-first documents: edit them here, offline too, and keep them in step with relays.
#[derive(Debug, Parser)]
#[command(name = "concord", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a relay
    Serve(Box<serve::ServeArgs>),
    /// List, show, create, export and import documents, and look into their history
    #[command(after_help = EXIT_CODES)]
    Doc(doc::DocArgs),
    /// Write fields of an entity, which begins where there is none; on disk when this returns
    #[command(after_help = EXIT_CODES)]
    Put(entities::PutArgs),
    /// Show an entity, and which of its fields no relay has yet
    #[command(after_help = EXIT_CODES)]
    Get(entities::GetArgs),
    /// List the entities of a type, or the types
    #[command(after_help = EXIT_CODES)]
    Ls(entities::LsArgs),
    /// Find entities by what their fields say, sorted, in pages, once or live
    #[command(after_help = EXIT_CODES)]
    Query(Box<entities::QueryArgs>),
    /// Keep files beside documents, name them in a field, and get them back
    #[command(after_help = EXIT_CODES)]
    Attach(attach::AttachArgs),
    /// Set a value in a document; it is on disk when this returns
    #[command(after_help = EXIT_CODES)]
    Edit(edit::EditArgs),
    /// Take back what an author changed last in a document, and nothing of others
    #[command(after_help = EXIT_CODES)]
    Undo(undo::UndoArgs),
    /// Do again what was undone last
    #[command(after_help = EXIT_CODES)]
    Redo(undo::UndoArgs),
    /// List the documents of which no relay has confirmed all that was edited here
    #[command(after_help = EXIT_CODES)]
    Outbox(outbox::OutboxArgs),
    /// Say how this replica stands with its relays, or one document does
    #[command(after_help = status::STATUS_HELP)]
    Status(status::StatusArgs),
    /// Show relays, outbox and passes on the whole terminal, until q is pressed
    #[command(after_help = EXIT_CODES)]
    Top(top::TopArgs),
    /// List, show, retry, discard and export changes that a relay refused
    #[command(after_help = EXIT_CODES)]
    DeadLetters(outbox::LettersArgs),
    /// List, show and decide what could not be merged without losing somebody's intent
    #[command(after_help = EXIT_CODES)]
    Conflicts(conflicts::ConflictsArgs),
    /// Say what the policies of a schema would have done with what people decided
    #[command(after_help = EXIT_CODES)]
    Policy(policy::PolicyArgs),
    /// Check, show and compare schema files: the types of entities, their fields and rules
    #[command(after_help = EXIT_CODES)]
    Schema(schema::SchemaArgs),
    /// Have all entities of a type here, those that filters ask for, or one and what it refers to
    #[command(after_help = EXIT_CODES)]
    Collection(collection::CollectionArgs),
    /// Print each change of a document as it happens
    #[command(after_help = EXIT_CODES)]
    Watch(watch::WatchArgs),
    /// Say who is in a document and where, and be there
    #[command(after_help = EXIT_CODES)]
    Presence(presence::PresenceArgs),
    /// Edit a document alone: hold its lease, take it over, say who holds it
    #[command(after_help = EXIT_CODES)]
    Lease(lease::LeaseArgs),
    /// Bring documents and the relay in step, once
    #[command(after_help = EXIT_CODES)]
    Sync(sync::SyncArgs),
    /// Measure a server that speaks automerge-repo version 1, this one or another
    #[command(after_help = EXIT_CODES)]
    Bench(concord::bench::BenchArgs),
    /// Print the completions of a shell
    #[command(after_help = manual::COMPLETIONS_HELP)]
    Completions(manual::CompletionsArgs),
    /// Print the manual page, or write a page for every command
    #[command(after_help = manual::MAN_HELP)]
    Man(manual::ManArgs),
    /// Print the version
    Version {
        /// Print JSON, for programs
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command of this process's arguments.
pub(crate) fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done about a terminal that is gone.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let (json, result) = match cli.command {
        Command::Serve(args) => return serve(*args),
        Command::Completions(args) => (false, manual::completions(&args, Cli::command())),
        Command::Man(args) => (false, manual::man(&args, Cli::command())),
        Command::Version { json } => (json, output::version(json)),
        Command::Schema(args) => (args.json, asynchronously(schema::run(args))),
        Command::Doc(args) => (args.common.json, asynchronously(doc::run(args))),
        Command::Put(args) => (args.common.json, asynchronously(entities::put(args))),
        Command::Get(args) => (args.common.json, asynchronously(entities::get(args))),
        Command::Ls(args) => (args.common.json, asynchronously(entities::ls(args))),
        Command::Query(args) => (args.common.json, asynchronously(entities::query(*args))),
        Command::Edit(args) => (args.common.json, asynchronously(edit::run(args))),
        Command::Attach(args) => (args.common.json, asynchronously(attach::run(args))),
        Command::Undo(args) => (args.common.json, asynchronously(undo::run(args, undo::Way::Undo))),
        Command::Redo(args) => (args.common.json, asynchronously(undo::run(args, undo::Way::Redo))),
        Command::Outbox(args) => (args.common.json, asynchronously(outbox::outbox(args))),
        Command::Status(args) => (args.common.json, asynchronously(status::run(args))),
        Command::Top(args) => (args.common.json, on_threads(top::run(args))),
        Command::DeadLetters(args) => (args.common.json, asynchronously(outbox::letters(args))),
        Command::Conflicts(args) => (args.common.json, asynchronously(conflicts::run(args))),
        Command::Policy(args) => (args.common.json, asynchronously(policy::run(args))),
        Command::Collection(args) => (args.common.json, asynchronously(collection::run(args))),
        Command::Watch(args) => (args.common.json, asynchronously(watch::run(args))),
        Command::Presence(args) => (args.common.json, asynchronously(presence::run(args))),
        Command::Lease(args) => (args.common.json, asynchronously(lease::run(args))),
        Command::Sync(args) => (args.common.json, asynchronously(sync::run(args))),
        Command::Bench(args) => (args.json, asynchronously(bench(args))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

async fn bench(args: concord::bench::BenchArgs) -> Result<(), Failure> {
    let json = args.json;
    let measured = concord::bench::measure(args).await;
    let report = measured.map_err(|error| Failure::failed(error.to_string()))?;
    if json { output::line(report.to_json()) } else { output::raw(report.to_string().as_bytes()) }
}

fn serve(args: serve::ServeArgs) -> ExitCode {
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(serve::run(args)),
        Err(error) => Failure::failed(format!("no threads to run on: {error}")).report(false),
    }
}

fn asynchronously(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    log_to_stderr();
    on_threads(work)
}

/// The same without a log, which would be written over what is drawn.
fn on_threads(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no threads to run on: {error}")))?;
    let result = runtime.block_on(work);
    // A name lookup that hangs must not keep the command.
    runtime.shutdown_background();
    result
}

/// Errors go to standard error; `CONCORD_LOG=debug` shows more.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::ERROR.into())
        .with_env_var("CONCORD_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(output::is_coloured())
        .with_writer(std::io::stderr)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}
