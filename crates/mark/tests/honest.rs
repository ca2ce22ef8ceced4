//! A program that does what the coursework asks is not accused: programs with every habit that students have get full marks, one habit
//! at a time and many together. (`faulty habits` lists them; crates/mark/fixtures/faulty/src/habit.rs)
//!
//! By default one combination is marked, drawn by `STEVEDORE_SEED` where CI sets it, and the Java programs with the checks of a
//! few areas.
//! `HONEST=all` marks every habit by itself, and combinations until each habit has been marked [`RUNS`] times, several submissions at a
//! time, and the Java programs with all checks; that takes half an hour. With `UPDATE=1` it writes docs/marking-honest.md.
//! `HONEST=nagle,one-lock` marks these habits by themselves; `HONEST_SEED=5` marks one combination again.
//! The report of an accused submission stays in target/tmp, for `mark replay`.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use kit::Rng;
use serde_json::Value;

/// Habits that do not go together, in one program or in the two: one is the opposite of the other, or both would take longer to
/// rebalance than the timeout allows, or a line feed that comes after its carriage return would meet a client that has
/// closed already, which resets the connection. (spec 6.4)
const NOT_TOGETHER: [[&str; 2]; 7] = [
    ["slow-answers", "one-sender"],
    ["slow-answers", "asks-one-by-one"],
    ["carriage-returns", "byte-by-byte"],
    ["by-host-name", "over-ipv6"],
    ["waits-for-a-gap", "queues-early"],
    ["asks-one-by-one", "full-waits"],
    ["rebalances-for-each-join", "full-waits"],
];

/// One of three is switched on in a combination.
const SHARE: usize = 3;

/// How often each habit is marked where all are.
const RUNS: usize = 20;

/// How many submissions are marked at a time where all are, and with how many checks each: a busy machine.
const AT_A_TIME: usize = 5;
const JOBS: &str = "4";

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/marking-honest.md");

/// What `HONEST` asks for.
fn wanted() -> String {
    env::var("HONEST").unwrap_or_default()
}

/// A line of `faulty habits`.
struct Habit {
    role: String,
    name: String,
    description: String,
}

impl Habit {
    fn is_of(&self, role: &str) -> bool {
        self.role == "both" || self.role == role
    }
}

fn habits(faulty: &Path) -> Vec<Habit> {
    let list = Command::new(faulty).arg("habits").output().unwrap().stdout;
    let list = String::from_utf8(list).unwrap();
    let habit = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [role, name, description] = cells[..] else { panic!("{line}") };
        let [role, name, description] = [role, name, description].map(str::to_owned);
        Habit { role, name, description }
    };
    list.lines().map(habit).collect()
}

/// Builds the fixture, which is another package's program.
fn faulty() -> PathBuf {
    let built = Command::new(env!("CARGO")).args(["build", "--quiet", "-p", "faulty"]).status().unwrap();
    assert!(built.success());
    // Beside mark, unless it was built for release.
    Path::new(env!("CARGO_BIN_EXE_mark")).ancestors().nth(2).unwrap().join("debug/faulty")
}

/// The command of the fixture in a role with these habits.
fn command(faulty: &Path, role: &str, habits: &[&str]) -> String {
    let places =
        if role == "controller" { "{cport} {r} {timeout} {period}" } else { "{port} {cport} {timeout} {folder}" };
    let habits = if habits.is_empty() { String::new() } else { format!("--habits {} ", habits.join(",")) };
    format!("{} {role} {habits}{places}", faulty.display())
}

/// One submission at a time, as a lecturer marks them: each check of it times programs that share the machine already.
static TURN: Mutex<()> = Mutex::new(());

/// What two programs were given.
struct Given {
    marks: f64,
    out_of: f64,
    /// All that was said of them, if they did not get full marks.
    accusations: Option<String>,
}

/// Marks two programs, also while others are marked.
fn mark(name: &str, controller: &str, dstore: &str, only: &[&str], jobs: &str) -> Given {
    let json = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("honest-{name}.json"));
    let mut mark = Command::new(env!("CARGO_BIN_EXE_mark"));
    mark.args(["--controller", controller, "--dstore", dstore, "--jobs", jobs, "--json"]).arg(&json);
    mark.args(only.iter().flat_map(|pattern| ["--only", pattern]));
    let output = mark.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let report = fs::read_to_string(&json).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let report: Value = serde_json::from_str(&report).unwrap();
    let [marks, out_of] = ["marks", "out_of"].map(|key| report[key].as_f64().unwrap());
    println!("{name}: {marks:.1} of {out_of}");
    if output.status.success() && (marks - out_of).abs() < 1e-6 {
        let _ = fs::remove_file(&json);
        return Given { marks, out_of, accusations: None };
    }
    let accusations = format!("{name}: {marks} of {out_of}\n{controller}\n{dstore}\n{said}\nsee {}\n", json.display());
    Given { marks, out_of, accusations: Some(accusations) }
}

/// Marks two programs when it is their turn; what is wrong with the marks, if anything is.
fn accusations(name: &str, controller: &str, dstore: &str, only: &[&str]) -> Option<String> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    mark(name, controller, dstore, only, "16").accusations
}

/// A combination of habits for each role.
fn combination(habits: &[Habit], seed: u64) -> [Vec<&str>; 2] {
    let mut rng = Rng(seed);
    let mut taken: Vec<&str> = Vec::new();
    ["controller", "dstore"].map(|role| {
        let mut chosen: Vec<&str> = Vec::new();
        for name in habits.iter().filter(|habit| habit.is_of(role)).map(|habit| habit.name.as_str()) {
            let clashes = NOT_TOGETHER.iter().filter(|pair| pair.contains(&name));
            let is_possible = clashes.flatten().all(|other| *other == name || !taken.contains(other));
            if rng.below(SHARE) == 0 && is_possible {
                taken.push(name);
                chosen.push(name);
            }
        }
        chosen
    })
}

#[test]
fn the_faultless_fixture_gets_full_marks() {
    let faulty = faulty();
    let complaint =
        accusations("faultless", &command(&faulty, "controller", &[]), &command(&faulty, "dstore", &[]), &[]);
    assert!(complaint.is_none(), "false accusations:\n{}", complaint.unwrap_or_default());
}

#[test]
fn habits_in_a_random_combination_get_full_marks() {
    if !wanted().is_empty() && env::var("HONEST_SEED").is_err() {
        return;
    }
    let faulty = faulty();
    let habits = habits(&faulty);
    let seed = ["HONEST_SEED", "STEVEDORE_SEED"].iter().find_map(|name| env::var(name).ok()?.parse().ok());
    let [controller, dstore] = combination(&habits, seed.unwrap_or(1));
    println!("HONEST_SEED={seed:?}: a Controller with {}; a Dstore with {}", controller.join(", "), dstore.join(", "));
    let commands = [command(&faulty, "controller", &controller), command(&faulty, "dstore", &dstore)];
    let complaint = accusations("combination", &commands[0], &commands[1], &[]);
    assert!(complaint.is_none(), "false accusations:\n{}", complaint.unwrap_or_default());
}

/// A submission: what it is called, and its Controller's and its Dstores' habits.
type Submission<'a> = (String, [Vec<&'a str>; 2]);

#[test]
fn every_habit_gets_full_marks_again_and_again() {
    let faulty = faulty();
    let (habits, wanted) = (habits(&faulty), wanted());
    let mut submissions: Vec<Submission> = Vec::new();
    for habit in habits.iter().filter(|habit| wanted == "all" || wanted.split(',').any(|name| name == habit.name)) {
        let its = |role| if habit.is_of(role) { vec![habit.name.as_str()] } else { vec![] };
        submissions.push((habit.name.clone(), ["controller", "dstore"].map(its)));
    }
    if wanted == "all" {
        let runs = |habit: &Habit, submissions: &[Submission]| {
            submissions.iter().filter(|(_, roles)| roles.iter().flatten().any(|name| *name == habit.name)).count()
        };
        let mut seeds = 1..;
        // Each combination has the habit that has been marked least.
        while let Some(rare) = habits.iter().min_by_key(|habit| runs(habit, &submissions))
            && runs(rare, &submissions) < RUNS
        {
            let (seed, roles) = seeds
                .by_ref()
                .map(|seed| (seed, combination(&habits, seed)))
                .find(|(_, roles)| roles.iter().flatten().any(|name| *name == rare.name))
                .expect("there is always another seed");
            submissions.push((format!("combination {seed}"), roles));
        }
    }
    let mut table: BTreeMap<&str, (usize, f64)> = BTreeMap::new();
    let mut complaints = String::new();
    let (given, load) = mark_all(&faulty, &submissions);
    for ((_, roles), given) in submissions.iter().zip(&given) {
        let taken: BTreeSet<&str> = roles.iter().flatten().copied().collect();
        for habit in taken {
            let (runs, lowest) = table.entry(habit).or_insert((0, given.out_of));
            *runs += 1;
            *lowest = lowest.min(given.marks);
        }
        complaints.extend(given.accusations.clone());
    }
    if wanted == "all" && env::var("UPDATE").is_ok() {
        fs::write(TABLE, page(&habits, &table, submissions.len(), load)).unwrap();
    }
    assert!(complaints.is_empty(), "false accusations:\n{complaints}");
}

/// Marks them several at a time; also returns the machine's mean load meanwhile.
fn mark_all(faulty: &Path, submissions: &[Submission]) -> (Vec<Given>, f64) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (next, loads) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let given: Vec<Mutex<Option<Given>>> = submissions.iter().map(|_| Mutex::default()).collect();
    thread::scope(|scope| {
        for _ in 0..AT_A_TIME.min(submissions.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some((name, [controller, dstore])) = submissions.get(at) else { return };
                    let commands = [command(faulty, "controller", controller), command(faulty, "dstore", dstore)];
                    *given[at].lock().unwrap() =
                        Some(mark(&name.replace(' ', "-"), &commands[0], &commands[1], &[], JOBS));
                    loads.lock().unwrap().push(load());
                }
            });
        }
    });
    let loads = loads.into_inner().unwrap();
    let mean = loads.iter().sum::<f64>() / loads.len().max(1) as f64;
    (given.into_iter().map(|given| given.into_inner().unwrap().unwrap()).collect(), mean)
}

/// How many threads want to run on this machine, over the last minute.
fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// The table of habits, as docs/marking-honest.md has it.
fn page(habits: &[Habit], table: &BTreeMap<&str, (usize, f64)>, submissions: usize, load: f64) -> String {
    let mut page = format!(
        "# Honest habits\n\n\
         What students do and no edition of the coursework forbids. A Controller and a Dstore that are right by the text\n\
         (`crates/mark/fixtures/faulty`) have been marked with each of these habits: once by itself, and in random combinations with\n\
         others, a third of the habits at a time. *Lowest* is the fewest marks that any of these runs got, of 100.\n\n\
         {submissions} submissions were marked, {AT_A_TIME} at a time with {JOBS} checks each, on a machine with 2 processors whose load was {load:.0} on\n\
         the average. Written by `HONEST=all UPDATE=1 cargo test -p mark --test honest`.\n\n\
         | habit | of | what it does | runs | lowest |\n|---|---|---|---|---|\n"
    );
    for Habit { role, name, description } in habits {
        let (runs, lowest) = table.get(name.as_str()).copied().unwrap_or_default();
        let _ = writeln!(page, "| `{name}` | {role} | {description} | {runs} | {lowest:.1} |");
    }
    page
}

#[test]
fn java_programs_with_habits_get_full_marks() {
    let has = |program| Command::new(program).arg("-version").output().is_ok_and(|output| output.status.success());
    if !has("java") || !has("javac") {
        eprintln!("skipped: java and javac are not installed");
        return;
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/java");
    let classes = env::temp_dir().join(format!("mark-honest-classes-{}", std::process::id()));
    let mut compiler = Command::new("javac");
    compiler.arg("-d").arg(&classes);
    compiler.args(["Controller", "Dstore", "Plan", "habits/Wire"].map(|name| sources.join(format!("{name}.java"))));
    assert!(compiler.status().unwrap().success());
    let java = |class: &str, places: &str| format!("java -cp {} {class} {places}", classes.display());
    let (controller, dstore) =
        (java("Controller", "{cport} {r} {timeout} {period}"), java("Dstore", "{port} {cport} {timeout} {folder}"));
    let only: &[&str] = if wanted() == "all" { &[] } else { &["dstore/rebalance", "system/spread"] };
    let complaint = accusations("java", &controller, &dstore, only);
    let _ = fs::remove_dir_all(&classes);
    assert!(complaint.is_none(), "false accusations:\n{}", complaint.unwrap_or_default());
}
