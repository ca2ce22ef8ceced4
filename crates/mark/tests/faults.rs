//! The harness is itself marked: every fault of the faulty fixture must fail a check that docs/marking-faults.md says it
//! fails, and that cites the fault's own section of the spec. A run tries a third of the faults, one with `STEVEDORE_LONG`
//! all of them.
//!
//! `UPDATE=1 cargo test -p mark --test faults` runs every fault through all checks of its role and writes the table anew;
//! `UPDATE=some-fault,other-fault` does so for these only.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use kit::hunt;
use serde_json::Value;

/// How many faults are tried at a time.
const AT_A_TIME: usize = 8;

/// So many checks are named for each fault.
const NAMED: usize = 3;

/// A line of `faulty list`.
struct Fault {
    role: String,
    name: String,
    spec: String,
    description: String,
}

/// A failed check: its id and the clauses that it cites.
type Failed = (String, String);

#[test]
fn every_fault_fails_a_check_that_names_its_section() {
    let faulty = faulty();
    let faults = faults(&faulty);
    assert!(faults.len() >= 40, "{} faults", faults.len());
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/marking-faults.md");
    let update = env::var("UPDATE").ok();
    let is_update = update.is_some();
    let is_new = |name: &str| update.as_ref().is_some_and(|names| names == "1" || names.split(',').any(|n| n == name));
    let mut named = read(&fs::read_to_string(&table).unwrap_or_default());
    named.retain(|name, _| !is_new(name));
    let tried: Vec<&Fault> = match is_update {
        true => faults.iter().collect(),
        false => hunt::share(3).map_while(|number| faults.get(number)).collect(),
    };
    let outcomes = Mutex::new(BTreeMap::new());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(&fault) = tried.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = match named.get(&fault.name) {
                        Some(checks) if is_update => {
                            checks.iter().map(|check| (check.clone(), fault.spec.clone())).collect()
                        }
                        Some(checks) if !checks.is_empty() => find(&faulty, fault, checks),
                        None if is_update => match failed(&faulty, fault, &[format!("{}/", fault.role)]) {
                            none if none.is_empty() => failed(&faulty, fault, &["system/".to_owned()]),
                            some => some,
                        },
                        _ => Vec::new(),
                    };
                    outcomes.lock().unwrap().insert(fault.name.clone(), outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    if is_update {
        fs::write(&table, write(&faults, &outcomes)).unwrap();
    }
    let is_found = |fault: &Fault| outcomes[&fault.name].iter().any(|(_, cited)| cites(cited, &fault.spec));
    let mut complaints = String::new();
    for fault in tried.into_iter().filter(|fault| !is_found(fault)) {
        let _ = writeln!(complaints, "{} fails no check that cites spec {}", fault.name, fault.spec);
    }
    assert!(complaints.is_empty(), "{complaints}");
}

/// Whether one of the cited clauses is this one, or a step of it.
fn cites(cited: &str, clause: &str) -> bool {
    cited.split(", ").any(|cited| cited == clause)
}

/// Builds the fixture, which is another package's program.
fn faulty() -> PathBuf {
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "-p", "faulty"]).status().unwrap();
    assert!(built.success());
    // Beside mark, unless it was built for release.
    let mark = Path::new(env!("CARGO_BIN_EXE_mark"));
    mark.ancestors().nth(2).unwrap().join("debug/faulty")
}

fn faults(faulty: &Path) -> Vec<Fault> {
    let list = Command::new(faulty).arg("list").output().unwrap().stdout;
    let list = String::from_utf8(list).unwrap();
    let fault = |line: &str| {
        let words: Vec<&str> = line.split('\t').collect();
        let [role, name, spec, description] = words[..] else { panic!("{line}") };
        let [role, name, spec, description] = [role, name, spec, description].map(str::to_owned);
        Fault { role, name, spec, description }
    };
    list.lines().map(fault).collect()
}

/// The checks that fail, of those in the table. Some faults are races, lost only now and then: those get three tries.
fn find(faulty: &Path, fault: &Fault, checks: &[String]) -> Vec<Failed> {
    let tries = (0..3).map(|_| failed(faulty, fault, checks));
    tries.into_iter().find(|failed| failed.iter().any(|(_, cited)| cites(cited, &fault.spec))).unwrap_or_default()
}

/// The checks that fail, of those wanted.
fn failed(faulty: &Path, fault: &Fault, only: &[String]) -> Vec<Failed> {
    let (faulty, name) = (faulty.display(), &fault.name);
    let template = match fault.role.as_str() {
        "controller" => format!("{faulty} controller --fault {name} {{cport}} {{r}} {{timeout}} {{period}}"),
        _ => format!("{faulty} dstore --fault {name} {{port}} {{cport}} {{timeout}} {{folder}}"),
    };
    let json = env::temp_dir().join(format!("mark-faults-{}-{name}.json", std::process::id()));
    let mut mark = Command::new(env!("CARGO_BIN_EXE_mark"));
    mark.args([&format!("--{}", fault.role), &template, "--patience", "5", "--jobs", "8", "--seed", "1"]);
    mark.arg("--json").arg(&json);
    mark.args(only.iter().flat_map(|pattern| ["--only", pattern]));
    let output = mark.output().unwrap();
    let report = fs::read_to_string(&json).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let _ = fs::remove_file(&json);
    let report: Value = serde_json::from_str(&report).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let failed = checks.iter().filter(|check| check["passed"] == false);
    failed.map(|check| ["id", "spec"].map(|key| check[key].as_str().unwrap().to_owned()).into()).collect()
}

/// The checks that the table names for each fault.
fn read(table: &str) -> BTreeMap<String, Vec<String>> {
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(" | ").collect();
        Some((quoted(cells.first()?).first()?.clone(), quoted(cells.get(3)?)))
    };
    table.lines().filter(|line| line.starts_with("| `")).filter_map(row).collect()
}

fn write(faults: &[Fault], outcomes: &BTreeMap<String, Vec<Failed>>) -> String {
    let mut text = String::from(
        "# Faults and the checks that find them\n\n\
         The marking harness is itself marked: each of these faults, in a Controller or Dstore that is otherwise without fault\n\
         (`crates/mark/fixtures/faulty`), fails the checks named here. At most three are named, those that cite the fault's\n\
         own section first. Written by `UPDATE=1 cargo test -p mark --test faults`; without `UPDATE` the same test verifies it.\n",
    );
    for (role, title) in [("controller", "Controller"), ("dstore", "Dstore")] {
        let _ = write!(text, "\n## {title}\n\n| fault | spec | what it does | checks that fail |\n|---|---|---|---|\n");
        for fault in faults.iter().filter(|fault| fault.role == role) {
            let mut failed = outcomes[&fault.name].clone();
            failed.sort_by_key(|(_, cited)| !cites(cited, &fault.spec)); // stable: then in the order of the checks
            let named: Vec<String> = failed.iter().take(NAMED).map(|(id, _)| format!("`{id}`")).collect();
            let (name, spec, what) = (&fault.name, &fault.spec, &fault.description);
            let _ = writeln!(text, "| `{name}` | {spec} | {what} | {} |", named.join(", "));
        }
    }
    text
}
