//! Bytes that kill careless servers, sent by a stranger into worlds that have other troubles too:
//! nobody else may notice.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::{env, fs, path::PathBuf};

use concord_simulations::{
    plan::{Action, Hex, Profile, What, Wrapping},
    quiet,
    random::Rng,
    swarm,
};

/// Files that one world meets.
const FILES: usize = 16;

/// Every file of the collection, in order of its name; what it holds is in the name of its folder.
fn collection() -> Option<Vec<(PathBuf, Vec<u8>)>> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let root = env::var_os("CONCORD_SHARED").map_or_else(beside, PathBuf::from).join("hostile");
    if !root.exists() {
        println!("skipped: no {}; set CONCORD_SHARED to where the test data is", root.display());
        return None;
    }
    let mut files = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end != "md") {
                files.push((path.clone(), fs::read(path).unwrap()));
            }
        }
    }
    files.sort();
    Some(files)
}

#[test]
fn worlds_keep_all_rules_whatever_a_stranger_sends() {
    let Some(files) = collection() else { return };
    assert!(files.len() > 100, "only {} files", files.len());
    let mut broken = Vec::new();
    for (world, some) in files.chunks(FILES).enumerate() {
        let mut plan = swarm::draw(world as u64, Profile::Opaque);
        let mut rng = Rng::new(world as u64);
        for (path, bytes) in some {
            let is_sync = path.extension().is_some_and(|end| end == "syncmsg")
                || path.parent().is_some_and(|folder| folder.ends_with("sync"));
            let likely = if is_sync { Wrapping::Sync } else { Wrapping::Chunk };
            for wrapping in [likely, Wrapping::Frame] {
                plan.actions.push(Action {
                    at_ms: rng.between(1_000, plan.calm_ms - 1),
                    what: What::Bytes {
                        relay: rng.small(0, plan.relays - 1),
                        document: rng.small(0, plan.documents - 1),
                        wrapping,
                        bytes: Hex(bytes.clone().into()),
                    },
                });
            }
        }
        plan.actions.sort_by_key(|action| action.at_ms);
        plan.validate().unwrap();
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<concord_simulations::plan::Plan>(&text).unwrap(), plan);
        let report = quiet::run(&plan, false);
        let met = report.faults.get("hostile bytes").copied().unwrap_or(0);
        assert!(met > 0, "world {world} met none of them");
        if let Some(failure) = report.failure {
            let names: Vec<_> = some.iter().filter_map(|(path, _)| path.file_name()).collect();
            broken.push(format!("world {world}: {failure:?}\n  of {names:?}"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
