//! `concord completions` and `concord man`: both are made from the arguments as they are.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Failure, output};

/// Where shells look for completions.
pub(super) const COMPLETIONS_HELP: &str = "\
Examples:
  concord completions bash > ~/.local/share/bash-completion/completions/concord
  concord completions zsh > \"${fpath[1]}/_concord\"
  concord completions fish > ~/.config/fish/completions/concord.fish";

/// Where `man` looks for pages.
pub(super) const MAN_HELP: &str = "\
Examples:
  concord man | man -l -
  concord man --dir ~/.local/share/man/man1";

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write a page for every command into this directory, which is made if it is not there, instead
    /// of one page on standard output
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> Result<(), Failure> {
    // Not straight to standard output: the generator panics where nobody reads.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "concord", &mut script);
    output::raw(&script)
}

pub(super) fn man(args: &ManArgs, command: Command) -> Result<(), Failure> {
    if let Some(directory) = &args.dir {
        return pages(directory, command);
    }
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    output::raw(&page)
}

fn pages(directory: &Path, command: Command) -> Result<(), Failure> {
    let cannot = |error| {
        Failure::failed(format!("cannot write manual pages to {}: {error}", directory.display()))
    };
    std::fs::create_dir_all(directory).map_err(cannot)?;
    clap_mangen::generate_to(command, directory).map_err(cannot)
}
