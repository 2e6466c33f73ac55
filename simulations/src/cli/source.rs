//! The world that is meant: a seed, or a file with a plan.

use std::path::Path;

use clap::Args;
use concord_simulations::{
    Mutant, Report,
    plan::{Plan, Profile},
    quiet,
    regression::Regression,
    swarm,
};

use super::{COMMAND, Error, ProfileArg};

/// How a world is made besides its seed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Making {
    /// What documents are made of; a file says it itself
    #[arg(long, value_enum, default_value = "opaque")]
    profile: ProfileArg,
    /// A rule of the engine to break on purpose, by its name; see `mutants`
    #[arg(long, value_name = "NAME", value_parser = parse_mutant)]
    pub(crate) mutant: Option<Mutant>,
}

/// Which world.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// The world's seed, or a file with its plan
    #[arg(value_name = "SEED|FILE")]
    world: String,
    #[command(flatten)]
    pub(crate) making: Making,
}

impl Making {
    pub(crate) fn profile(self) -> Profile {
        self.profile.into()
    }

    /// The command line of a command on such a world.
    pub(crate) fn command(self, command: &str, world: &str) -> String {
        let mut line = format!("{COMMAND} {command} {world}");
        if self.profile() == Profile::Automerge {
            line += " --profile automerge";
        }
        if let Some(mutant) = self.mutant {
            line = format!("{line} --mutant {}", mutant.name());
        }
        line
    }
}

impl Source {
    pub(crate) fn plan(&self) -> Result<Plan, Error> {
        if let Some(seed) = parse_seed(&self.world) {
            return Ok(swarm::draw(seed, self.making.profile()));
        }
        let read = Regression::read(Path::new(&self.world));
        let regression = read.map_err(|error| {
            Error::Usage(format!("{} is no seed, and as a file: {error}", self.world))
        })?;
        Ok(regression.plan)
    }

    /// Lives through a plan in the way that was asked for.
    pub(crate) fn run(&self, plan: &Plan, trace: bool) -> Report {
        quiet::run_with(plan, trace, self.making.mutant)
    }

    /// The command line of another command on the same world.
    pub(crate) fn command(&self, command: &str) -> String {
        self.making.command(command, &self.world)
    }
}

fn parse_mutant(name: &str) -> Result<Mutant, String> {
    Mutant::parse(name).ok_or_else(|| format!("no rule is called `{name}`: `mutants` lists them"))
}

pub(crate) fn parse_seed(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
