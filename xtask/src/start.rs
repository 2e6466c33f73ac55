//! `cargo xtask start`.

use std::process::Command;

use crate::{root, run};

/// Builds the relay as it ships and serves with what it does by default. It prints its address.
pub(crate) fn start(args: &[String]) -> Result<(), String> {
    let args = args.strip_prefix(&["--".to_owned()]).unwrap_or(args);
    eprintln!("building the relay (a first build takes a few minutes) ...");
    let mut serve = Command::new(run::cargo());
    serve.args(["run", "--release", "--package", "concord", "--", "serve"]).args(args);
    run::run(&mut serve, &root())
}
