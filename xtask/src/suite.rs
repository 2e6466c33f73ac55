//! `cargo xtask test`: steps one after the other, up to the first that fails.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use crate::{programs, root, run};

/// The oldest Node with all that the tests use (`node --test --test-force-exit`).
const NODE_OLDEST: (u32, u32) = (20, 14);

/// The package that the quick suite leaves out: its tests take as long as all others.
const SIMULATIONS: &str = "concord-simulations";

/// How much of the suite to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Full,
    /// What needs no Node and no second build of the documentation.
    Quick,
}

struct Step {
    name: &'static str,
    run: fn(&Path) -> Result<(), String>,
    in_quick: bool,
    advice: &'static str,
}

const STEPS: &[Step] = &[
    Step {
        name: "formatting",
        run: |root| cargo(root, &["fmt", "--all", "--check"]),
        in_quick: true,
        advice: "run `cargo fmt --all`",
    },
    Step {
        name: "tools of the interop tests",
        run: node_is_there,
        in_quick: false,
        advice: "install Node 20.14 or newer with npm, or run `cargo xtask test --quick`",
    },
    Step {
        name: "packages of the interop tests",
        run: npm_ci,
        in_quick: false,
        advice: "npm needs its registry here; `npm ci` in tests/interop shows more",
    },
    Step {
        name: "clippy",
        run: |root| {
            let lints = ["--", "-D", "warnings"];
            let args = ["clippy", "--workspace", "--all-targets", "--all-features", "--locked"];
            cargo(root, &[&args[..], &lints[..]].concat())
        },
        in_quick: true,
        advice: "fix the warnings above; lints are in Cargo.toml",
    },
    Step {
        name: "clippy on what users build",
        run: |root| {
            // Without what simulations add, which the workspace as a whole is built with.
            let args = ["clippy", "--package", "concord", "--lib", "--bins", "--locked"];
            cargo(root, &[&args[..], &["--", "-D", "warnings"]].concat())
        },
        in_quick: true,
        advice: "fix the warnings above; lints are in Cargo.toml",
    },
    Step {
        name: "documentation",
        run: documentation,
        in_quick: false,
        advice: "fix the links above",
    },
    Step {
        name: "tests and simulations",
        // Together: of a part of the workspace, dependencies have other features, and half of all
        // would be built once more.
        run: |root| programs::test(root, &["--workspace", "--all-features", "--locked"], &[]),
        in_quick: false,
        advice: "`cargo test NAME -- --nocapture` runs one alone; simulations/README.md tells how to \
                 replay, shrink and draw a world",
    },
    Step {
        name: "examples in the documentation",
        run: |root| cargo(root, &["test", "--doc", "--workspace", "--all-features", "--locked"]),
        in_quick: true,
        advice: "`cargo test --doc` runs them alone",
    },
    Step {
        name: "advisories, licences, sources",
        run: deny,
        in_quick: false,
        advice: "deny.toml holds the rules and the named exceptions",
    },
];

const QUICK_TESTS: Step = Step {
    name: "tests without Node",
    run: |root| {
        let select = ["--workspace", "--exclude", SIMULATIONS, "--all-features", "--locked"];
        programs::test(root, &select, &["--skip", "interop_"])
    },
    in_quick: true,
    advice: "`cargo test NAME -- --nocapture` runs one alone",
};

/// Runs the suite.
pub(crate) fn test(extent: Extent) -> Result<(), String> {
    let started = Instant::now();
    let steps: Vec<&Step> = match extent {
        Extent::Full => STEPS.iter().collect(),
        Extent::Quick => STEPS.iter().filter(|step| step.in_quick).chain([&QUICK_TESTS]).collect(),
    };
    let root = root();
    for (number, step) in steps.iter().enumerate() {
        eprintln!(
            "\n=== {}/{} {} (at {} s)",
            number + 1,
            steps.len(),
            step.name,
            started.elapsed().as_secs()
        );
        let step_started = Instant::now();
        (step.run)(&root)
            .map_err(|error| format!("\n=== failed: {}\n{error}\n{}", step.name, step.advice))?;
        eprintln!("--- {} s", step_started.elapsed().as_secs());
    }
    let seconds = started.elapsed().as_secs();
    eprintln!("\n=== all {} steps passed in {seconds} s", steps.len());
    Ok(())
}

fn cargo(root: &Path, args: &[&str]) -> Result<(), String> {
    run::run(Command::new(run::cargo()).args(args), root)
}

fn node_is_there(_root: &Path) -> Result<(), String> {
    let node = run::version("node", &["--version"]).ok_or("node was not found")?;
    let npm = run::version("npm", &["--version"]).ok_or("npm was not found")?;
    if parse_version(&node).is_none_or(|found| found < NODE_OLDEST) {
        return Err(format!("node is {node}"));
    }
    eprintln!("node {node}, npm {npm}");
    Ok(())
}

/// The major and minor number of `v20.14.0`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim_start_matches('v').split('.').map(str::parse);
    let major = numbers.next()?.ok()?;
    let minor = numbers.next()?.ok()?;
    Some((major, minor))
}

/// Installs exactly what the lock file names; no package's own script is run.
fn npm_ci(root: &Path) -> Result<(), String> {
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    npm.args(["--loglevel", "error"]);
    run::run(&mut npm, &root.join("tests/interop"))
}

fn documentation(root: &Path) -> Result<(), String> {
    let mut doc = Command::new(run::cargo());
    doc.args(["doc", "--workspace", "--no-deps", "--all-features", "--locked"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run::run(&mut doc, root)
}

fn deny(root: &Path) -> Result<(), String> {
    if run::version("cargo", &["deny", "--version"]).is_none() {
        eprintln!("skipped: cargo-deny is not installed (`cargo install --locked cargo-deny`)");
        return Ok(());
    }
    let check = ["deny", "--all-features", "check"];
    cargo(root, &[&check[..], &["bans", "licenses", "sources"]].concat())?;
    // It is on GitHub, which a machine that builds need not reach.
    if cargo(root, &["deny", "fetch", "db"]).is_err() {
        eprintln!("skipped, in part: advisories, whose database cannot be fetched from here");
        return Ok(());
    }
    cargo(root, &[&check[..], &["advisories"]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_versions_compare_by_number() {
        assert_eq!(parse_version("v20.14.1"), Some((20, 14)));
        assert!(parse_version("v9.99.0") < Some(NODE_OLDEST));
        assert!(parse_version("v22.1.0") > Some(NODE_OLDEST));
        assert_eq!(parse_version("node"), None);
    }
}
