//! The command as people call it: what it prints, what it writes, how it ends.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use concord_simulations::{
    Mutant, coverage,
    plan::{Action, Edit, Plan, Profile, What},
    regression::Regression,
    swarm,
};

fn simulate(arguments: &[&str]) -> Output {
    let command = env!("CARGO_BIN_EXE_concord-simulations");
    Command::new(command).args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A directory for the files of one test, empty.
fn directory(test: &str) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("command_line").join(test);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// A world that cannot keep the rules: its messages take longer than it has to come together.
fn impossible() -> Plan {
    let mut plan = swarm::draw(2, Profile::Opaque);
    let open = |peer, at_ms| Action { at_ms, what: What::Open { peer, document: 0 } };
    let edit = Edit::Type(3);
    plan.relays = 1;
    plan.peers = 2;
    plan.documents = 1;
    plan.settings.latency_us = 4_000_000_000;
    plan.calm_ms = 60_000;
    plan.actions = vec![
        open(0, 10),
        open(1, 20),
        Action { at_ms: 1_000, what: What::Edit { peer: 1, document: 0, edit } },
        Action { at_ms: 2_000, what: What::Edit { peer: 1, document: 0, edit: Edit::Put } },
        Action { at_ms: 3_000, what: What::Edit { peer: 0, document: 0, edit } },
    ];
    plan
}

fn write_impossible(directory: &Path) -> String {
    let path = directory.join("impossible.json");
    let found = "messages take longer than a world has to come together".to_owned();
    let regression = Regression { invariant: "convergence".to_owned(), found, plan: impossible() };
    regression.write(&path).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn run_says_what_was_simulated() {
    let output = simulate(&["run", "--seeds", "0..6", "--jobs", "2", "--check-determinism"]);
    let text = text(&output);
    assert_eq!(code(&output), 0, "{text}");
    assert!(text.starts_with("6 seeds, 0 failed, in "), "{text}");
    assert!(text.contains("with 2 threads, each world twice"), "{text}");
    for line in ["events", "simulated hours", "changes", "messages", "faults", "rare states"] {
        assert!(text.contains(&format!("\n  {line} ")), "no {line}: {text}");
    }
    // Six worlds do not meet everything; what they do not is told.
    let (met, never) = text.split_once("\n  never met\n").unwrap();
    assert!(met.contains("\n  a snapshot was built "), "{met}");
    let never: Vec<&str> = never.lines().map(str::trim).collect();
    assert!(!never.is_empty() && never.iter().all(|state| coverage::STATES.contains(state)));
    assert!(never.iter().all(|state| !met.contains(&format!("\n  {state}  "))), "{text}");
    assert!(output.stderr.is_empty(), "{:?}", output.stderr);
}

#[test]
fn run_prints_json_for_programs() {
    let output = simulate(&["run", "--seeds", "3", "--json"]);
    assert_eq!(code(&output), 0);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["seeds"], &json["failed"]), (&1.into(), &0.into()));
    assert_eq!(json["profile"], "opaque");
    for number in ["events", "messages", "changes", "events_per_second", "simulated_hours"] {
        assert!(json[number].as_f64().unwrap() > 0.0, "{number}: {json}");
    }
    let states = json["states"].as_object().unwrap().len();
    let never = json["states_never_met"].as_array().unwrap().len();
    assert_eq!(states + never, coverage::STATES.len());
    assert!(json["failures"].as_array().unwrap().is_empty());
}

#[test]
fn replay_is_silent_about_what_happened_unless_it_is_asked() {
    let output = simulate(&["replay", "3"]);
    let text = text(&output);
    assert_eq!(code(&output), 0, "{text}");
    assert!(text.starts_with("seed 3, opaque: "), "{text}");
    assert!(text.ends_with("kept every rule\n"), "{text}");
    assert!(text.lines().count() < 12, "{text}");
}

#[test]
fn replay_prints_a_log() {
    let output = simulate(&["replay", "3", "--trace"]);
    assert_eq!(code(&output), 0);
    let text = text(&output);
    for sign in [" --> ", " <-- ", "  +  writes ", "  =  document ", "  !  ", "  .  starts for"] {
        assert!(text.contains(sign), "nothing of {sign}");
    }
    assert_eq!(
        text,
        self::text(&simulate(&["replay", "3", "--trace"])),
        "it is not the same twice"
    );
}

/// The lines of a log, without what stands before and behind.
fn log(arguments: &[&str]) -> Vec<String> {
    let output = simulate(arguments);
    assert_eq!(code(&output), 0);
    let text = text(&output);
    let log = text.split("\n\n").nth(1).unwrap();
    log.lines().map(str::to_owned).collect()
}

#[test]
fn replay_filters_its_log() {
    let all = log(&["replay", "3", "--trace"]);
    let wrote = log(&["replay", "3", "--kind", "wrote"]);
    assert!(!wrote.is_empty() && wrote.iter().all(|line| line.contains("  +  writes ")));
    let both = log(&["replay", "3", "--kind", "sent,arrived"]);
    assert!(both.len() > wrote.len() && both.len() < all.len());
    assert_eq!(log(&["replay", "3", "--trace", "--last", "5"]), all[all.len() - 5..]);
    let of_peer = log(&["replay", "3", "--node", "peer-1"]);
    assert!(!of_peer.is_empty() && of_peer.iter().all(|line| line.contains("peer 1")));
    let some = log(&["replay", "3", "--from", "60000", "--to", "1200000"]);
    let ms = |line: &String| line.trim().split('.').next().unwrap().parse::<u64>().unwrap();
    assert!(!some.is_empty() && some.iter().all(|line| (60_000..=1_200_000).contains(&ms(line))));
    let inner = all.iter().filter(|line| (60_000..=1_200_000).contains(&ms(line)));
    assert_eq!(some.iter().collect::<Vec<_>>(), inner.collect::<Vec<_>>());
    // Of several documents: seed 1 has more than two.
    let of_document = log(&["replay", "1", "--document", "1", "--kind", "wrote,heads"]);
    assert!(!of_document.is_empty());
    assert!(of_document.iter().all(|line| line.contains("document 1")), "{of_document:?}");
}

#[test]
fn a_broken_rule_is_told_with_the_commands_that_follow() {
    let directory = directory("broken");
    let file = write_impossible(&directory);
    let output = simulate(&["replay", &file, "--last", "3"]);
    let text = text(&output);
    assert_eq!(code(&output), 1, "{text}");
    assert!(text.contains("\nFAILED convergence at "), "{text}");
    for command in ["shrink", "explain"] {
        let line = format!("cargo run -p concord-simulations --release -- {command} {file}\n");
        assert!(text.contains(&line), "{text}");
    }
}

#[test]
fn run_tells_of_broken_rules_and_of_the_commands_that_follow() {
    // Worlds in which stores do not flush: one of these loses power soon.
    let mutant = ["--mutant", "skip-flush"];
    let output = simulate(&[&["run", "--seeds", "0..40", "--jobs", "1"], &mutant[..]].concat());
    let text = text(&output);
    assert_eq!(code(&output), 1, "{text}");
    let (_, rest) = text.split_once("FAILED durability seed ").unwrap();
    let seed = rest.split(' ').next().unwrap();
    for command in ["replay", "shrink"] {
        let line = format!(
            "  {command}: cargo run -p concord-simulations --release -- {command} {seed} \
             --mutant skip-flush\n"
        );
        assert!(text.contains(&line), "{text}");
    }
    assert!(text.ends_with(&format!("\n  broken\n  durability: 1, seeds {seed}\n")), "{text}");
    // No world was begun after it.
    let seeds: u64 = seed.parse().unwrap();
    assert!(text.contains(&format!("\n{} seed", seeds + 1)), "{text}");

    assert_eq!(code(&simulate(&[&["replay", seed], &mutant[..]].concat())), 1);
    assert_eq!(code(&simulate(&["replay", seed])), 0);
    // Such a world is no regression, and is not kept among them unasked.
    assert_eq!(code(&simulate(&[&["shrink", seed], &mutant[..]].concat())), 2);

    let arguments = ["run", "--seeds", "0..40", "--jobs", "2", "--keep-going", "--json"];
    let output = simulate(&[&arguments[..], &mutant[..]].concat());
    assert_eq!(code(&output), 1);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["seeds"], 40);
    let failures = json["failures"].as_array().unwrap();
    assert_eq!(json["failed"], failures.len());
    assert!(failures.iter().any(|failure| failure["seed"] == seeds), "{json}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("FAILED durability seed "));
}

#[test]
fn shrink_writes_a_smaller_world_that_fails_in_the_same_way() {
    let directory = directory("shrink");
    let file = write_impossible(&directory);
    let small = directory.join("small.json");
    let small = small.to_str().unwrap();
    let output =
        simulate(&["shrink", &file, "-o", small, "--found", "too slow", "--saying", "lacks"]);
    let text = text(&output);
    assert_eq!(code(&output), 0, "{text}");
    assert!(text.contains(" of 5 actions are left, in "), "{text}");
    let regression = Regression::read(Path::new(small)).unwrap();
    assert_eq!(
        (regression.invariant.as_str(), regression.found.as_str()),
        ("convergence", "too slow")
    );
    // Somebody opens the document and writes; the hub need not.
    assert_eq!(regression.plan.actions.len(), 2, "{:?}", regression.plan.actions);
    assert!(regression.plan.settings.latency_us > 1_000_000);
    assert_eq!(code(&simulate(&["replay", small])), 1);

    let nothing = simulate(&["shrink", "3", "-o", small]);
    assert_eq!(code(&nothing), 1);
    assert!(self::text(&nothing).contains("nothing to cut down"));
}

/// The data of a page.
fn world(page: &str) -> serde_json::Value {
    let (_, rest) = page.split_once(r#"<script type="application/json" id="world">"#).unwrap();
    let (json, _) = rest.split_once("</script>").unwrap();
    serde_json::from_str(json).unwrap()
}

#[test]
fn explain_writes_one_page_that_needs_nothing_else() {
    let directory = directory("explain");
    let path = directory.join("world.html");
    let file = write_impossible(&directory);
    for (source, expected) in [("3", 0), (file.as_str(), 1)] {
        let output = simulate(&["explain", source, "-o", path.to_str().unwrap()]);
        assert_eq!(code(&output), expected, "{}", text(&output));
        let page = fs::read_to_string(&path).unwrap();
        for elsewhere in ["http:", "https:", " src=", "<link", "@import", "url("] {
            assert!(!page.contains(elsewhere), "the page has {elsewhere}");
        }
        for place in ["/*style*/", "/*scripts*/", "/*world*/"] {
            assert!(!page.contains(place), "{place} was not filled");
        }
        let world = world(&page);
        let nodes = world["nodes"].as_array().unwrap().len();
        assert!(nodes >= 3, "{nodes}");
        for list in ["heads", "writes", "notes"] {
            assert!(!world[list].as_array().unwrap().is_empty(), "no {list}");
        }
        assert_eq!(world["failure"].is_null(), expected == 0);
        for message in world["messages"].as_array().unwrap() {
            let (sent, arrived) = (message[0].as_u64().unwrap(), message[1].as_u64());
            assert!(arrived.is_none_or(|arrived| arrived >= sent), "{message}");
            assert!(message[2].as_u64().unwrap() < nodes as u64, "{message}");
        }
    }
    let part = ["explain", "3", "--to", "60000", "-o", path.to_str().unwrap()];
    assert_eq!(code(&simulate(&part)), 0);
    let world = world(&fs::read_to_string(&path).unwrap());
    let notes = world["notes"].as_array().unwrap();
    assert!(!notes.is_empty() && notes.iter().all(|note| note[0].as_u64().unwrap() <= 60_001_000));
}

#[test]
fn states_are_listed() {
    let output = simulate(&["states"]);
    assert_eq!(code(&output), 0);
    let listed: Vec<String> = text(&output).lines().map(str::to_owned).collect();
    assert_eq!(listed, coverage::STATES);
}

#[test]
fn broken_rules_are_listed() {
    let output = simulate(&["mutants"]);
    assert_eq!(code(&output), 0);
    for mutant in Mutant::ALL {
        assert!(text(&output).contains(&format!("{}\n  breaks ", mutant.name())));
    }
}

#[test]
fn wrong_usage_ends_with_two() {
    let directory = directory("usage");
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let empty = write("empty.json", "{}");
    let mut plan = impossible();
    plan.peers = 1;
    let stranger = directory.join("stranger.json");
    let found = "names peer 1".to_owned();
    Regression { invariant: "bounds".to_owned(), found, plan }.write(&stranger).unwrap();
    let calls: [&[&str]; 13] = [
        &[],
        &["run"],
        &["run", "--seeds", "5..5"],
        &["run", "--seeds", "0..3", "--jobs", "0"],
        &["run", "--seeds", "0..3", "--profile", "paper"],
        &["run", "--seeds", "0..3", "--mutant", "of-no-such-name"],
        &["replay", "no-such-file.json"],
        &["replay", &empty],
        &["replay", stranger.to_str().unwrap()],
        &["replay", "3", "--node", "bob"],
        &["replay", "3", "--document", "200"],
        &["replay", "3", "--kind", "smoke"],
        &["explain", "3", "-o", "no/such/directory/world.html"],
    ];
    for call in calls {
        let output = simulate(call);
        assert_eq!(code(&output), 2, "{call:?}");
        assert!(output.stdout.is_empty(), "{call:?}: {}", text(&output));
        assert!(!output.stderr.is_empty(), "{call:?}");
    }
}
