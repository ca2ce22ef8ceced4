//! A program that does what the coursework asks is not accused: programs with every habit that students have get full marks, one habit
//! at a time and many together. (`faulty habits` lists them; crates/mark/fixtures/faulty/src/habit.rs)
//!
//! By default one combination is marked, drawn by `STEVEDORE_SEED` where CI sets it, and the Java programs with the checks of a
//! few areas.
//! `HONEST=all` marks every habit by itself and a combination for each, and the Java programs with all checks; that takes an hour.
//! `HONEST=nagle,one-lock` marks these habits by themselves; `HONEST_SEED=5` marks one combination again.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

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
const SHARE: u64 = 3;

/// What `HONEST` asks for.
fn wanted() -> String {
    env::var("HONEST").unwrap_or_default()
}

/// Lines of `faulty habits`: role and name.
fn habits(faulty: &Path) -> Vec<[String; 2]> {
    let list = Command::new(faulty).arg("habits").output().unwrap().stdout;
    let list = String::from_utf8(list).unwrap();
    let habit = |line: &str| {
        let cells: Vec<&str> = line.split('\t').collect();
        let [role, name, _] = cells[..] else { panic!("{line}") };
        [role.to_owned(), name.to_owned()]
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

/// Marks two programs; what is wrong with the marks, if anything is.
fn accusations(name: &str, controller: &str, dstore: &str, only: &[&str]) -> Option<String> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let json = env::temp_dir().join(format!("mark-honest-{}-{name}.json", std::process::id()));
    let mut mark = Command::new(env!("CARGO_BIN_EXE_mark"));
    mark.args(["--controller", controller, "--dstore", dstore, "--jobs", "16", "--json"]).arg(&json);
    mark.args(only.iter().flat_map(|pattern| ["--only", pattern]));
    let output = mark.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let report = fs::read_to_string(&json).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let _ = fs::remove_file(&json);
    let report: Value = serde_json::from_str(&report).unwrap();
    let [marks, out_of] = ["marks", "out_of"].map(|key| report[key].as_f64().unwrap());
    println!("{name}: {marks:.1} of {out_of}");
    let is_full = output.status.success() && (marks - out_of).abs() < 1e-6;
    (!is_full).then(|| format!("{name}: {marks} of {out_of}\n{controller}\n{dstore}\n{said}\n"))
}

/// A combination of habits for each role.
fn combination(habits: &[[String; 2]], seed: u64) -> [Vec<&str>; 2] {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    random(2);
    let mut taken: Vec<&str> = Vec::new();
    ["controller", "dstore"].map(|role| {
        let mut chosen: Vec<&str> = Vec::new();
        for [_, name] in habits.iter().filter(|[whose, _]| whose == "both" || whose == role) {
            let clashes = NOT_TOGETHER.iter().filter(|pair| pair.contains(&name.as_str()));
            let is_possible = clashes.flatten().all(|other| other == name || !taken.contains(other));
            if random(SHARE) == 0 && is_possible {
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
fn habits_in_random_combinations_get_full_marks() {
    let faulty = faulty();
    let habits = habits(&faulty);
    let seeds = match (env::var("HONEST_SEED"), wanted().as_str()) {
        (Ok(seed), _) => vec![seed.parse().unwrap()],
        (_, "") => vec![env::var("STEVEDORE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)],
        (_, "all") => (1..=habits.len() as u64).collect(),
        _ => vec![],
    };
    let mut complaints = String::new();
    for seed in seeds {
        let [controller, dstore] = combination(&habits, seed);
        println!(
            "HONEST_SEED={seed}: a Controller with {}; a Dstore with {}",
            controller.join(", "),
            dstore.join(", ")
        );
        let commands = [command(&faulty, "controller", &controller), command(&faulty, "dstore", &dstore)];
        complaints.extend(accusations(&format!("seed-{seed}"), &commands[0], &commands[1], &[]));
    }
    assert!(complaints.is_empty(), "false accusations:\n{complaints}");
}

#[test]
fn every_habit_by_itself_gets_full_marks() {
    let faulty = faulty();
    let (habits, wanted) = (habits(&faulty), wanted());
    let mut complaints = String::new();
    for [role, name] in habits.iter().filter(|[_, name]| wanted == "all" || wanted.split(',').any(|one| one == name)) {
        let its = |whose: &str| if role == "both" || role == whose { vec![name.as_str()] } else { vec![] };
        let command = |whose: &str| command(&faulty, whose, &its(whose));
        complaints.extend(accusations(name, &command("controller"), &command("dstore"), &[]));
    }
    assert!(complaints.is_empty(), "false accusations:\n{complaints}");
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
