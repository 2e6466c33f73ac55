//! The world that is meant: a seed, or a file with a plan.

use std::path::PathBuf;

use clap::Args;
use concord_simulations::{
    plan::{Plan, Profile},
    regression::Regression,
    swarm,
};

use super::{COMMAND, Error, ProfileArg};

/// Which world.
#[derive(Debug, Clone, Args)]
pub(crate) struct Source {
    /// The world's seed, or a file with its plan
    #[arg(value_name = "SEED|FILE")]
    world: String,
    /// What documents are made of; a file says it itself
    #[arg(long, value_enum, default_value = "opaque")]
    profile: ProfileArg,
}

impl Source {
    pub(crate) fn plan(&self) -> Result<Plan, Error> {
        if let Some(seed) = self.seed() {
            return Ok(swarm::draw(seed, self.profile.into()));
        }
        let read = Regression::read(&self.path());
        let regression = read.map_err(|error| {
            Error::Usage(format!("{} is no seed, and as a file: {error}", self.world))
        })?;
        Ok(regression.plan)
    }

    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(&self.world)
    }

    pub(crate) fn seed(&self) -> Option<u64> {
        parse_seed(&self.world)
    }

    /// The command line of another command on the same world.
    pub(crate) fn command(&self, command: &str) -> String {
        match self.seed() {
            Some(seed) => command_of(command, seed, self.profile.into()),
            None => format!("{COMMAND} {command} {}", self.world),
        }
    }
}

/// The command line of a command on the world of a seed.
pub(crate) fn command_of(command: &str, seed: u64, profile: Profile) -> String {
    match profile {
        Profile::Opaque => format!("{COMMAND} {command} {seed}"),
        Profile::Automerge => format!("{COMMAND} {command} {seed} --profile automerge"),
    }
}

pub(crate) fn parse_seed(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
