//! Asks at a terminal before something is done that cannot be taken back easily.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::{Failure, open::Common};

/// Asks, unless that is settled.
pub(super) fn agree(common: &Common, yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if common.json || !io::stdin().is_terminal() {
        return Err(Failure::usage(format!(
            "nobody is there to be asked whether to {what}: --yes"
        )));
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{what}? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::usage("nothing was done"))
}
