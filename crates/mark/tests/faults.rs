//! The harness is itself marked: every fault of the faulty fixture must fail a check that docs/marking-faults.md says it fails, and
//! cost marks in one category at most.
//!
//! `UPDATE=1 cargo test -p mark --test faults` runs every fault through all marked checks of its role and of a whole system, and writes
//! the table anew; `UPDATE=some-fault,other-fault` does so for these only. Without `UPDATE` only the checks that the table names are run,
//! for a third of the faults; with `STEVEDORE_LONG` for all of them.

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

/// How many faults are tried at a time, and with how many checks each.
const AT_A_TIME: usize = 6;
const JOBS: &str = "6";

/// So many checks are named for each fault.
const NAMED: usize = 3;

/// By the newest edition, which asks for the most.
const EDITION: [&str; 2] = ["--edition", "2025"];

/// A line of `faulty list`.
struct Fault {
    role: String,
    name: String,
    spec: String,
    description: String,
}

/// A check that fails, or is not judged.
struct Wrong {
    id: String,
    spec: String,
    category: String,
    costs_marks: bool,
    has_failed: bool,
}

/// What a fault does, as a row of the table.
#[derive(Clone, Default, PartialEq)]
struct Row {
    checks: Vec<String>,
    lost: BTreeMap<String, f64>,
    open: f64,
    is_measured: bool,
}

/// Where the checks are known to fail, but not what all of them cost.
const UNMEASURED: &str = "not measured";

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/marking-faults.md");

#[test]
fn every_fault_fails_a_check_that_the_table_names() {
    let faulty = faulty();
    let faults = faults(&faulty);
    assert!(faults.len() >= 140, "{} faults", faults.len());
    let table = read(&fs::read_to_string(TABLE).unwrap_or_default());
    let complaints = match env::var("UPDATE") {
        Ok(names) => {
            let marked = Marked::read();
            let is_new = |fault: &&Fault| names == "1" || names.split(',').any(|name| name == fault.name);
            let new: Vec<&Fault> = faults.iter().filter(is_new).collect();
            // Written after each, so that what is known is kept when a long run is stopped.
            let table = Mutex::new(table);
            for_each(&new, |fault| {
                let row = row(&faulty, fault, &marked);
                let mut table = table.lock().unwrap();
                table.insert(fault.name.clone(), row);
                fs::write(TABLE, write(&faults, &table)).unwrap();
            });
            Vec::new()
        }
        Err(_) => {
            let tried: Vec<&Fault> = hunt::share(3).map_while(|number| faults.get(number)).collect();
            let unfound = for_each(&tried, |fault| !is_found(&faulty, fault, &table));
            unfound.into_iter().filter(|(_, is_unfound)| *is_unfound).map(|(name, _)| name).collect()
        }
    };
    assert!(complaints.is_empty(), "these fail none of the checks that the table names: {complaints:?}");
}

#[test]
fn every_fault_is_in_the_table_with_one_category_at_most() {
    let table = read(&fs::read_to_string(TABLE).unwrap());
    for fault in faults(&faulty()) {
        let row = table.get(&fault.name).unwrap_or_else(|| panic!("{} is not in the table", fault.name));
        assert!(!row.checks.is_empty(), "{} fails no check", fault.name);
        assert!(row.lost.len() <= 1, "{} costs marks in {:?}", fault.name, row.lost);
        assert!(row.lost.iter().all(|(category, lost)| *lost <= worth(category)), "{}: {:?}", fault.name, row.lost);
    }
}

/// Does something for several faults at a time.
fn for_each<T: Send>(faults: &[&Fault], act: impl Fn(&Fault) -> T + Sync) -> BTreeMap<String, T> {
    let results = Mutex::new(BTreeMap::new());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = act(fault);
                    results.lock().unwrap().insert(fault.name.clone(), result);
                }
            });
        }
    });
    results.into_inner().unwrap()
}

/// Whether one of the checks fails that the table names. Some faults are races, lost only now and then: those get three tries.
fn is_found(faulty: &Path, fault: &Fault, table: &BTreeMap<String, Row>) -> bool {
    let Some(row) = table.get(&fault.name).filter(|row| !row.checks.is_empty()) else { return false };
    (0..3).any(|_| wrong(faulty, fault, &row.checks).iter().any(|wrong| wrong.has_failed))
}

/// All checks that are marked, of both roles and of the system, with their categories.
struct Marked(BTreeMap<String, String>);

impl Marked {
    fn read() -> Self {
        let list = Command::new(env!("CARGO_BIN_EXE_mark")).arg("--list").args(EDITION).output().unwrap().stdout;
        let list = String::from_utf8(list).unwrap();
        let lines: Vec<&str> = list.lines().collect();
        let check = |pair: &[&str]| {
            let category = pair[1].strip_suffix(')')?.rsplit_once("; ")?.1;
            (category != "robustness").then(|| (pair[0].to_owned(), category.to_owned()))
        };
        Self(lines.windows(2).filter(|pair| !pair[0].starts_with(' ')).filter_map(check).collect())
    }

    /// What one check is worth.
    fn share(&self, category: &str) -> f64 {
        worth(category) / self.0.values().filter(|other| *other == category).count() as f64
    }
}

fn worth(category: &str) -> f64 {
    if category == "sequential" { 50.0 } else { 10.0 }
}

/// What the fault does to the marked checks of its role and of a whole system. If it does nothing there, it is robustness.
fn row(faulty: &Path, fault: &Fault, marked: &Marked) -> Row {
    let is_its = |id: &&String| id.starts_with(&fault.role) || id.starts_with("system/");
    let checks: Vec<String> = marked.0.keys().filter(is_its).cloned().collect();
    let mut all = wrong(faulty, fault, &checks);
    if !all.iter().any(|wrong| wrong.has_failed) {
        all.extend(wrong(faulty, fault, &[format!("{}/", fault.role)]));
        all.retain(|wrong| wrong.category == "robustness");
    }
    let mut row = Row { is_measured: true, ..Row::default() };
    for wrong in all.iter().filter(|wrong| wrong.category != "robustness") {
        let share = marked.share(&wrong.category);
        match wrong.costs_marks {
            true => *row.lost.entry(wrong.category.clone()).or_default() += share,
            false => row.open += share,
        }
    }
    // Those that cite the fault's own section first.
    all.retain(|wrong| wrong.has_failed);
    all.sort_by_key(|wrong| !wrong.spec.split(", ").any(|cited| cited == fault.spec));
    row.checks = all.into_iter().take(NAMED).map(|wrong| wrong.id).collect();
    row
}

/// The checks that fail or are not judged, of those wanted.
fn wrong(faulty: &Path, fault: &Fault, only: &[String]) -> Vec<Wrong> {
    let (faulty, name) = (faulty.display(), &fault.name);
    let template = match fault.role.as_str() {
        "controller" => format!("{faulty} controller --fault {name} {{cport}} {{r}} {{timeout}} {{period}}"),
        _ => format!("{faulty} dstore --fault {name} {{port}} {{cport}} {{timeout}} {{folder}}"),
    };
    let json = env::temp_dir().join(format!("mark-faults-{}-{name}.json", std::process::id()));
    let mut mark = Command::new(env!("CARGO_BIN_EXE_mark"));
    mark.args([&format!("--{}", fault.role), &template, "--patience", "7", "--jobs", JOBS, "--seed", "1"]);
    mark.args(EDITION).arg("--json").arg(&json);
    mark.args(only.iter().flat_map(|pattern| ["--only", pattern]));
    let output = mark.output().unwrap();
    let report = fs::read_to_string(&json).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let _ = fs::remove_file(&json);
    let report: Value = serde_json::from_str(&report).unwrap();
    let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["passed"] == false);
    let wrong = |check: &Value| {
        let [id, spec, category] = ["id", "spec", "category"].map(|key| check[key].as_str().unwrap().to_owned());
        let costs_marks = check["costs"].as_f64().unwrap() > 0.0;
        Wrong { id, spec, category, costs_marks, has_failed: check["result"] == "failed" }
    };
    checks.map(wrong).collect()
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

/// The rows of the table, by fault.
fn read(table: &str) -> BTreeMap<String, Row> {
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let lost = |cell: &str| {
        let lost = |loss: &str| {
            let (marks, category) = loss.trim().split_once(' ')?;
            Some((category.to_owned(), marks.parse().ok()?))
        };
        cell.split(',').filter_map(lost).collect()
    };
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches(['|', ' ']).split(" | ").collect();
        let [name, _, _, lost_marks, open, checks] = cells[..] else { return None };
        let open = open.parse().unwrap_or(0.0);
        Some((
            quoted(name).first()?.clone(),
            Row { checks: quoted(checks), lost: lost(lost_marks), open, is_measured: lost_marks != UNMEASURED },
        ))
    };
    table.lines().filter(|line| line.starts_with("| `")).filter_map(row).collect()
}

fn write(faults: &[Fault], table: &BTreeMap<String, Row>) -> String {
    let mut text = String::from(
        "# Faults, the checks that find them, and what they cost\n\n\
         The marking harness is itself marked: each of these faults, in a Controller or Dstore that is otherwise without fault\n\
         (`crates/mark/fixtures/faulty`), fails the checks named here. At most three are named, those that cite the fault's\n\
         own section first. *Marks lost* is what the fault costs of 100, by the 2025 edition, and in which category: one at most.\n\
         *Robustness* is a fault that no edition's text asks to avoid, or that the official client cannot bring about: it is reported,\n\
         and costs nothing. *Not judged* are the marks of checks whose situation the fault prevents in other categories.\n\n\
         Written by `UPDATE=1 cargo test -p mark --test faults`; without `UPDATE` the same test verifies it.\n",
    );
    for (role, title) in [("controller", "Controller"), ("dstore", "Dstore")] {
        let head =
            "| fault | spec | what it does | marks lost | not judged | checks that fail |\n|---|---|---|---|---|---|";
        let _ = write!(text, "\n## {title}\n\n{head}\n");
        for fault in faults.iter().filter(|fault| fault.role == role) {
            let row = table.get(&fault.name).cloned().unwrap_or_default();
            let named: Vec<String> = row.checks.iter().map(|id| format!("`{id}`")).collect();
            let lost: Vec<String> = row.lost.iter().map(|(category, lost)| format!("{lost:.1} {category}")).collect();
            let lost = match lost[..] {
                [] if !row.is_measured => UNMEASURED.into(),
                [] => "robustness".into(),
                _ => lost.join(", "),
            };
            let open = if row.open > 0.0 { format!("{:.1}", row.open) } else { "–".into() };
            let (name, spec, what) = (&fault.name, &fault.spec, &fault.description);
            let _ = writeln!(text, "| `{name}` | {spec} | {what} | {lost} | {open} | {} |", named.join(", "));
        }
    }
    text
}
