//! Whatever ends `mark`, and whenever, no process and no folder stays; what a batch has found until then is not lost.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A folder for one test's `mark`, also for its temporary files. Gone when dropped.
struct World {
    folder: PathBuf,
    /// An argument by which the test knows the processes that its submission starts.
    tag: String,
}

impl World {
    fn new(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("mark-endings-{name}-{}", std::process::id()));
        fs::create_dir_all(folder.join("tmp")).unwrap();
        let number = name.bytes().fold(std::process::id() as usize, |sum, byte| sum * 31 % 1_000_003 + byte as usize);
        Self { folder, tag: format!("98{number}") }
    }

    fn mark(&self, arguments: &[&str]) -> Command {
        // Shells have what they start in the background ignore SIGINT, and that is inherited.
        let mut mark = Command::new("env");
        mark.args(["--default-signal=INT", env!("CARGO_BIN_EXE_mark")]);
        mark.current_dir(&self.folder).env("TMPDIR", self.folder.join("tmp")).args(arguments);
        mark
    }

    /// A Dstore that never joins, and starts a child that leaves its session, and one that has cleaned its environment, too.
    fn sleepers(&self) -> String {
        let tag = &self.tag;
        format!(
            "sh -c 'setsid sleep {tag} & env -i setsid sleep {tag} & sleep {tag}' {{port}} {{cport}} {{timeout}} {{folder}}"
        )
    }

    /// How many of the submission's processes are alive.
    fn alive(&self) -> usize {
        let is_tagged = |entry: &fs::DirEntry| {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = command.split(|&byte| byte == 0).collect();
            words.contains(&&b"sleep"[..]) && words.contains(&self.tag.as_bytes())
        };
        fs::read_dir("/proc").unwrap().flatten().filter(is_tagged).count()
    }

    fn temporary_files(&self) -> Vec<PathBuf> {
        fs::read_dir(self.folder.join("tmp")).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn expect_nothing_left(&self) {
        kit::eventually("nothing is left", || self.alive() == 0 && self.temporary_files().is_empty());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn send(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(process as i32).unwrap(), signal).unwrap();
}

/// The process that does the work for `mark`.
fn worker_of(mark: &Child) -> u32 {
    let parent = mark.id().to_string();
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.split_whitespace().nth(1) == Some(&parent))
    };
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_child).unwrap()
}

/// Starts `mark` on programs that sleep, ends it once they all do, and looks at what is left.
fn ends(name: &str, end: impl FnOnce(&Child)) {
    let world = World::new(name);
    let mut mark = world.mark(&["--dstore", &world.sleepers(), "--only", "dstore/start/joins-first"]);
    let mut mark = mark.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    kit::eventually("its programs run", || world.alive() == 3);
    assert!(!world.temporary_files().is_empty());
    end(&mark);
    assert!(!mark.wait().unwrap().success());
    world.expect_nothing_left();
}

#[test]
fn sigterm_leaves_nothing() {
    ends("term", |mark| send(mark.id(), Signal::TERM));
}

#[test]
fn sigint_leaves_nothing() {
    ends("int", |mark| send(mark.id(), Signal::INT));
}

#[test]
fn sighup_leaves_nothing() {
    ends("hup", |mark| send(mark.id(), Signal::HUP));
}

#[test]
fn sigkill_leaves_nothing() {
    ends("kill", |mark| send(mark.id(), Signal::KILL));
}

#[test]
fn sigkill_of_the_process_that_works_leaves_nothing() {
    ends("worker", |mark| send(worker_of(mark), Signal::KILL));
}

/// Starts a batch of one submission, ends it while that is marked, and looks at what is left.
fn batch_ends(name: &str, build: impl Fn(&World) -> String, asleep: usize, end: impl FnOnce(&Child)) {
    let world = World::new(name);
    fs::create_dir_all(world.folder.join("class/ann")).unwrap();
    let (dstore, build) = (world.sleepers(), build(&world));
    // With patience enough that it is still marking when the end comes, on however busy a machine.
    let only = ["--only", "dstore/start/joins-first", "--patience", "600"];
    let mut batch = world.mark(&["batch", "class", "--dstore", &dstore]);
    batch.args(only);
    batch.args(["--build", &build]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut batch = batch.spawn().unwrap();
    kit::eventually("its programs run", || world.alive() == asleep);
    end(&batch);
    assert!(!batch.wait().unwrap().success());
    world.expect_nothing_left();
}

#[test]
fn a_batch_killed_while_it_marks_leaves_nothing() {
    batch_ends("batch-kill", |_| "true".into(), 3, |batch| send(batch.id(), Signal::KILL));
}

#[test]
fn a_batch_interrupted_while_it_marks_leaves_nothing() {
    batch_ends("batch-int", |_| "true".into(), 3, |batch| send(batch.id(), Signal::INT));
}

#[test]
fn a_batch_whose_worker_is_killed_leaves_nothing() {
    batch_ends("batch-worker", |_| "true".into(), 3, |batch| send(worker_of(batch), Signal::KILL));
}

#[test]
fn a_batch_terminated_while_it_builds_leaves_nothing() {
    let build = |world: &World| format!("setsid sleep {} & sleep {}", world.tag, world.tag);
    batch_ends("batch-build", build, 2, |batch| send(batch.id(), Signal::TERM));
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat()
}

#[test]
fn an_interrupted_batch_goes_on_where_it_stopped() {
    let world = World::new("go-on");
    for name in ["ann", "bob", "cat"] {
        fs::create_dir_all(world.folder.join("class").join(name)).unwrap();
    }
    fs::write(world.folder.join("class/ann/broken"), "").unwrap();
    fs::write(world.folder.join("class/cat/slow"), "").unwrap();
    // Ann's does not build, Bob's does, and Cat's takes for ever as long as there is no such file.
    let ready = world.folder.join("ready");
    let build = format!("test ! -e broken && (test ! -e slow || test -e {} || sleep {})", ready.display(), world.tag);
    let own = |role: &str, places: &str| format!("{} own-{role} {places}", env!("CARGO_BIN_EXE_mark"));
    let controller = own("controller", "{cport} {r} {timeout} {period}");
    let dstore = own("dstore", "{port} {cport} {timeout} {folder}");
    let arguments = ["batch", "class", "--build", &build, "--controller", &controller, "--dstore", &dstore];
    let batch = || {
        let mut batch = world.mark(&arguments);
        batch.args(["--only", "list/nothing-at-first", "--jobs", "1"]);
        batch
    };
    let mut first = batch().stdout(Stdio::null()).spawn().unwrap();
    kit::eventually("the third is being built", || world.alive() == 1);
    send(first.id(), Signal::KILL);
    first.wait().unwrap();
    world.expect_nothing_left();
    let csv = || fs::read_to_string(world.folder.join("marks/marks.csv")).unwrap();
    assert_eq!(csv().lines().count(), 3, "what was found is written: {}", csv());
    let report = world.folder.join("marks/bob.json");
    let written = fs::metadata(&report).unwrap().modified().unwrap();

    fs::write(&ready, "").unwrap();
    let output = batch().output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("2 of 3 were marked before the interruption"), "{}", said(&output));
    assert_eq!(fs::metadata(&report).unwrap().modified().unwrap(), written, "what was marked is not marked again");
    let rows: Vec<String> = csv().lines().map(str::to_owned).collect();
    assert!(rows[1].starts_with("\"ann\",,") && rows[1].contains("does not build"), "{rows:?}");
    let has_full_marks = |row: &str| {
        let cells: Vec<&str> = row.split(',').collect();
        cells[1].parse::<f64>().unwrap() == cells[3].parse::<f64>().unwrap()
    };
    assert!(has_full_marks(&rows[2]) && has_full_marks(&rows[3]), "{rows:?}");

    // It is complete: the next one begins anew.
    let output = batch().output().unwrap();
    assert!(!said(&output).contains("before the interruption"), "{}", said(&output));
    assert!(fs::metadata(&report).unwrap().modified().unwrap() > written);
}

#[test]
fn over_its_limit_a_run_reports_what_there_is() {
    let world = World::new("limit");
    let report = |path: &Path| serde_json::from_str::<Value>(&fs::read_to_string(path).unwrap()).unwrap();
    let json = world.folder.join("results.json");
    let output = world
        .mark(&["--dstore", &world.sleepers(), "--only", "dstore/list", "--jobs", "1", "--minutes", "0.02"])
        .args(["--html", "page.html", "--json"])
        .arg(&json)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    world.expect_nothing_left();
    let report = report(&json);
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.len() > 2 && checks.iter().all(|check| check["result"] == "not run"), "{report}");
    let page = fs::read_to_string(world.folder.join("page.html")).unwrap();
    assert!(page.contains(&format!("{} checks were not run", checks.len())));
}
