//! A very bad submission is marked as fast as a good one: what has failed often enough for one cause is judged by that cause, and
//! says so. (docs/marking.md)

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Marks a Dstore with little patience; returns its checks.
fn mark(name: &str, dstore: &str, arguments: &[&str]) -> Vec<Value> {
    let json = env::temp_dir().join(format!("mark-time-{}-{name}.json", std::process::id()));
    let mut mark = Command::new(env!("CARGO_BIN_EXE_mark"));
    mark.args(["--dstore", dstore, "--patience", "2"]).args(arguments).arg("--json").arg(&json);
    assert_eq!(mark.output().unwrap().status.code(), Some(1));
    let report: Value = serde_json::from_str(&fs::read_to_string(&json).unwrap()).unwrap();
    fs::remove_file(&json).unwrap();
    assert!(report["marks"].as_f64().unwrap() < 1.0, "{}", report["marks"]);
    report["checks"].as_array().unwrap().clone()
}

/// How many checks have a remark with these words.
fn remarked(checks: &[Value], words: &str) -> usize {
    let has = |check: &&Value| {
        check["remarks"]
            .as_array()
            .is_some_and(|remarks| remarks.iter().any(|remark| remark.as_str().unwrap().contains(words)))
    };
    checks.iter().filter(has).count()
}

/// Three that fail, what the other three workers play when the third has failed, and the one that is asked once more. Two of the first
/// checks of a Dstore come on top: they are about the start itself, so that their failure is none of the set-up.
#[track_caller]
fn assert_few_are_played(checks: &[Value]) {
    let played = checks.len() - remarked(checks, "was not played");
    assert!(played <= 3 + 3 + 1 + 2, "{played} of {}", checks.len());
}

#[test]
fn a_program_that_ends_at_once_is_started_a_few_times() {
    let checks = mark("ends", "false {port} {cport} {timeout} {folder}", &["--only", "dstore/", "--jobs", "4"]);
    assert_few_are_played(&checks);
}

#[test]
fn a_program_that_sleeps_for_ever_is_started_a_few_times() {
    let dstore = "sh -c 'exec sleep 10000' {port} {cport} {timeout} {folder}";
    let checks = mark("sleeps", dstore, &["--only", "dstore/", "--jobs", "4"]);
    assert_few_are_played(&checks);
}

#[test]
fn what_never_comes_is_waited_for_a_few_times() {
    let dstore = format!("{} dstore {{port}} {{cport}} {{timeout}} {{folder}}", deaf().display());
    let checks = mark("deaf", &dstore, &["--only", "dstore/store", "--only", "dstore/list", "--jobs", "4"]);
    assert_eq!(remarked(&checks, "was not played"), 0, "it does start");
    let hurried = remarked(&checks, "did not come either");
    assert!(hurried > checks.len() / 2, "{hurried} of {}", checks.len());
}

/// Builds the example, which `cargo test --test time` does not.
fn deaf() -> PathBuf {
    let built =
        Command::new(env!("CARGO")).args(["build", "--quiet", "-p", "mark", "--example", "deaf"]).status().unwrap();
    assert!(built.success());
    let mark = Path::new(env!("CARGO_BIN_EXE_mark"));
    mark.ancestors().nth(2).unwrap().join("debug/examples/deaf")
}
