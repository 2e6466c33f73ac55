//! Worlds that once broke a rule, cut down to what that needed. Each must keep every rule now.
//! `shrink` writes these files; see the README.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{fs, path::PathBuf};

use concord_simulations::{quiet, regression::Regression};

#[test]
fn worlds_that_broke_a_rule_keep_all_now() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("regressions");
    // There is none before the first one is kept.
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut broken = Vec::new();
    for path in &files {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(path.extension().is_some_and(|end| end == "json"), "{name} is no plan");
        let regression = match Regression::read(path) {
            Ok(regression) => regression,
            Err(error) => {
                broken.push(format!("{name}: {error}"));
                continue;
            }
        };
        assert!(name.starts_with(&regression.invariant), "{name} is of {}", regression.invariant);
        assert!(!regression.found.is_empty(), "{name} does not say what was found");
        if let Some(failure) = quiet::run(&regression.plan, false).failure {
            broken.push(format!("{name}: {failure:?}\n  found at first: {}", regression.found));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
