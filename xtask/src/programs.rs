//! The test programs of the workspace: built by cargo, and run as many at once as there are
//! processors. cargo itself runs one after the other, and most of them leave processors idle.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use serde_json::Value;

use crate::run;

/// Programs that take longest, the longest first: what begins last should be short.
const LONGEST: &[&str] = &[
    "peer",
    "trace_replay",
    "interop",
    "concord",
    "rare_states",
    "mutants",
    "determinism",
    "peer_hostile",
    "relay_hostile",
    "peer_killed",
    "cli",
    "attachments",
];

/// One test program.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Program {
    name: String,
    executable: PathBuf,
    /// Where its package is: it runs there.
    package: PathBuf,
}

/// Builds the test programs that `select` selects, and runs all of them, each with these arguments.
pub(crate) fn test(root: &Path, select: &[&str], args: &[&str]) -> Result<(), String> {
    let mut build = Command::new(run::cargo());
    build.args(["test", "--no-run", "--message-format", "json-render-diagnostics"]).args(select);
    let started = Instant::now();
    let mut programs = programs(&run::output(&mut build, root)?);
    if programs.is_empty() {
        return Err("cargo built no test program".to_owned());
    }
    eprintln!("{} test programs built in {} s", programs.len(), started.elapsed().as_secs());
    let place = |name: &str| LONGEST.iter().position(|long| *long == name);
    programs.sort_by_key(|program| place(&program.name).unwrap_or(LONGEST.len()));
    run_all(programs, args)
}

/// What cargo said that it built, in its order.
fn programs(messages: &str) -> Vec<Program> {
    messages.lines().filter_map(|line| program(&serde_json::from_str(line).ok()?)).collect()
}

fn program(message: &Value) -> Option<Program> {
    let is_test = message["profile"]["test"].as_bool()?;
    let executable = message["executable"].as_str().filter(|_| is_test)?;
    Some(Program {
        name: message["target"]["name"].as_str()?.to_owned(),
        executable: executable.into(),
        package: Path::new(message["manifest_path"].as_str()?).parent()?.into(),
    })
}

fn run_all(programs: Vec<Program>, args: &[&str]) -> Result<(), String> {
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    let waiting = Mutex::new(VecDeque::from(programs));
    let failed = Mutex::new(Vec::new());
    let work = || {
        loop {
            // Not held while it runs.
            let next = locked(&waiting).pop_front();
            let Some(program) = next else { return };
            if let Err(why) = run_one(&program, args) {
                locked(&failed).push(format!("{} {why}", program.name));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

/// Runs one to its end and then shows what it said: two at once would be hard to read.
fn run_one(program: &Program, args: &[&str]) -> Result<(), String> {
    let mut command = Command::new(&program.executable);
    command.args(args).current_dir(&program.package).stdin(Stdio::null());
    command.env("CARGO_MANIFEST_DIR", &program.package);
    // The others have the other processors.
    command.env("RUST_TEST_THREADS", "1");
    let started = Instant::now();
    let output = command.output().map_err(|error| format!("did not start: {error}"))?;
    let said = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    let seconds = started.elapsed().as_secs();
    if output.status.success() {
        // A line for each test is not asked for while all is well.
        let mut results = said[0].lines().filter(|line| line.starts_with("test result"));
        let result = results.next_back().unwrap_or("no test result").trim_end();
        eprintln!("{:>4} s  {:<24} {result}", seconds, program.name);
        return Ok(());
    }
    eprintln!("\n{} failed after {seconds} s:\n{}{}", program.name, said[0], said[1]);
    Err(format!("failed ({})", output.status))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_says_gives_the_programs_that_are_tests() {
        let message = |name: &str, test: bool, executable: Value| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": "/here/part/Cargo.toml",
                "target": { "name": name },
                "profile": { "test": test },
                "executable": executable,
            })
            .to_string()
        };
        let said = [
            message("a", true, "/here/target/a".into()),
            message("command", false, "/here/target/command".into()),
            message("library", true, Value::Null),
            "{\"reason\":\"build-finished\",\"success\":true}".to_owned(),
            "no message".to_owned(),
        ];
        let program = Program {
            name: "a".to_owned(),
            executable: "/here/target/a".into(),
            package: "/here/part".into(),
        };
        assert_eq!(programs(&said.join("\n")), [program]);
    }

    #[test]
    fn all_are_run_and_those_that_fail_are_named() {
        let program = |name: &str| Program {
            name: name.to_owned(),
            executable: name.into(),
            package: ".".into(),
        };
        let all = vec![program("false"), program("true"), program("there-is-none-of-this-name")];
        let said = run_all(all, &[]).unwrap_err();
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort_unstable();
        assert!(lines.len() == 2 && lines[0].starts_with("false failed"), "{said}");
        assert!(lines[1].contains("did not start"), "{said}");
        assert_eq!(run_all(vec![program("true")], &["--anything"]), Ok(()));
    }
}
