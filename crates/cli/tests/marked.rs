//! What `mark` checks of the coursework from a client's side holds for a depot, too. (docs/wires.md, section 5)
//!
//! `mark` starts a submission by its commands. Here they are `python/depot.py`: the Controller's starts a whole depot with a gateway, and a
//! Dstore's says JOIN and does nothing. So the checks are mark's own; those that look into a Dstore's folder are left out.

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use common::{STEVEDORE, limited, text};
use kit::TempFolder;
use serde_json::Value;

/// The checks that ask as clients ask, and look nowhere else.
const CHECKS: &[&str] = &[
    "system/sequential/a-store",
    "system/sequential/two-clients",
    "system/sequential/the-official",
    "system/sequential/three-of-three",
    "system/sequential/a-whole-life",
    "system/sequential/a-file-of",
    "system/concurrency",
];

#[test]
fn what_mark_checks_from_a_clients_side_holds_for_a_depot() {
    if !kit::has_tools(&["python3"]) {
        return;
    }
    let mark = Path::new(STEVEDORE).with_file_name("mark");
    if !mark.exists() {
        eprintln!("SKIPPED: mark is not built: cargo build -p mark");
        return;
    }
    let folder = TempFolder::new();
    let results = folder.path().join("results.json");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/depot.py");
    let command = |role: &str| format!("python3 -B '{}' '{STEVEDORE}' {role}", text(&script));
    let mut marking = limited(&mark);
    marking.args(["--controller", &command("controller {cport} {r} {timeout} {period}")]);
    marking.args(["--dstore", &command("dstore {port} {cport} {timeout} {folder}")]);
    // A few at a time, and with patience: each starts a whole store.
    marking.args(["--jobs", "2", "--patience", "30", "--json", text(&results)]);
    for check in CHECKS {
        marking.args(["--only", check]);
    }
    let output = marking.stdin(Stdio::null()).env_remove("STEVEDORE_CLUSTER").output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    let results: Value = serde_json::from_str(&fs::read_to_string(&results).expect(&said)).unwrap();
    let checks = results["checks"].as_array().expect("checks");
    assert!(checks.len() >= 21 && checks.iter().all(|check| check["result"] == "passed"), "{said}");
}
