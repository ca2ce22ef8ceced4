//! `stevedore demo` as a person runs it: what it says is true, it fails where it should, and nothing of it is left.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{STEVEDORE, text};
use kit::{Program, TempFolder, bytes, eventually};

/// The signal's number.
const SIGTERM: i32 = 15;

/// A demo, what it stores, and the place where it makes its folder.
struct Demo {
    process: Program,
    place: TempFolder,
}

fn command(place: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(STEVEDORE);
    command.arg("demo").args(words).env("TMPDIR", place).env_remove("STEVEDORE_CLUSTER").env_remove("RUST_LOG");
    command.stdin(Stdio::null());
    command
}

impl Demo {
    fn start(words: &[&str]) -> Self {
        let place = TempFolder::new();
        let process = Program::spawn(command(place.path(), words));
        Self { process, place }
    }

    /// Waits until it has killed one of these; the number of the process.
    fn wait_for_kill(&mut self, role: &str) -> u32 {
        let begin = format!("Killed {role} ");
        self.process.wait_for_log(&begin);
        let line = self.process.log_so_far().iter().find(|line| line.starts_with(&begin)).expect("awaited").clone();
        let number = line.split_once("(process ").and_then(|(_, rest)| rest.split_once(')')).expect("it says which").0;
        number.parse().expect("a number")
    }

    /// How many processes use its folder.
    fn servers(&self) -> usize {
        let place = text(self.place.path());
        let words = |process: PathBuf| fs::read(process.join("cmdline")).unwrap_or_default();
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
        processes.filter(|process| String::from_utf8_lossy(&words(process.clone())).contains(place)).count()
    }
}

/// Files of all kinds of sizes, the first of them small.
fn make_files(folder: &Path) {
    fs::create_dir_all(folder.join("deep/er")).unwrap();
    let sizes = [5, 0, 70_000, 1_500_000, 3_000_000, 1, 2_000_000, 4_000_000, 100, 9_000];
    for (number, size) in sizes.into_iter().enumerate() {
        let name = format!("{}{number}", ["", "deep/", "deep/er/"][number % 3]);
        fs::write(folder.join(name), bytes(number as u64, size)).unwrap();
    }
}

#[test]
fn a_demo_kills_a_leader_and_a_dstore_and_loses_nothing() {
    let files = TempFolder::new();
    make_files(files.path());
    let mut demo = Demo::start(&[text(files.path())]);
    let leader = demo.wait_for_kill("Controller");
    assert!(!Path::new(&format!("/proc/{leader}")).exists(), "it runs");
    let dstore = demo.wait_for_kill("Dstore");
    assert!(!Path::new(&format!("/proc/{dstore}")).exists(), "it runs");
    assert_eq!(demo.servers(), 6);
    let ended = demo.process.wait_for_exit();
    let said = demo.process.log_so_far().join("\n");
    assert!(ended.success(), "{said}");
    for claim in ["leads, ", "Stored 10 files", "Loaded 10 files", "every byte is the same", "Healed after", "It held"]
    {
        assert!(said.contains(claim), "it does not say {claim:?}: {said}");
    }
    assert_eq!((demo.servers(), demo.place.names()), (0, vec![]));
}

#[test]
fn a_single_file_without_bytes_is_enough() {
    let files = TempFolder::new();
    let (file, place) = (files.path().join("empty"), TempFolder::new());
    fs::write(&file, "").unwrap();
    let output = command(place.path(), &["--keep", text(&file)]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Killed Controller") && said.contains("Killed Dstore"), "{said}");
    // It is kept, and it says where.
    let [folder] = &place.names()[..] else { panic!("one folder: {:?}", place.names()) };
    assert!(said.contains(&format!("{folder} stays")), "{said}");
    let logs = kit::folder::names(&place.path().join(folder));
    assert_eq!(logs.iter().filter(|name| name.ends_with(".log")).count(), 8, "{logs:?}");
}

#[test]
fn a_file_that_changes_while_the_demo_runs_fails_it() {
    let files = TempFolder::new();
    make_files(files.path());
    let mut demo = Demo::start(&[text(files.path())]);
    demo.wait_for_kill("Dstore");
    // It was read before; what was stored of it is compared later.
    fs::OpenOptions::new().append(true).open(files.path().join("0")).unwrap().write_all(b"more").unwrap();
    let ended = demo.process.wait_for_exit();
    let said = demo.process.log_so_far().join("\n");
    assert_eq!(ended.code(), Some(1), "{said}");
    assert!(said.contains("/0: what came back differs from it, from byte 5 on"), "{said}");
    assert_eq!((demo.servers(), demo.place.names()), (0, vec![]));
}

#[test]
fn a_demo_that_is_ended_leaves_nothing() {
    let files = TempFolder::new();
    make_files(files.path());
    let mut demo = Demo::start(&[text(files.path())]);
    demo.wait_for_kill("Controller");
    demo.process.signal("TERM");
    assert_eq!(demo.process.wait_for_exit().signal(), Some(SIGTERM));
    assert_eq!((demo.servers(), demo.place.names()), (0, vec![]));
    // Killed itself, it can remove nothing; its servers notice.
    let mut demo = Demo::start(&[text(files.path())]);
    demo.wait_for_kill("Controller");
    demo.process.kill();
    eventually("all servers end", || demo.servers() == 0);
}

#[test]
fn what_cannot_be_shown_is_said_before_anything_starts() {
    let (files, place) = (TempFolder::new(), TempFolder::new());
    let huge = files.path().join("huge");
    fs::File::create(&huge).unwrap().set_len(1 << 42).unwrap(); // it takes no room itself
    let empty = files.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let missing = files.path().join("missing");
    let table: [(&[&str], i32, &str); 4] = [
        (&[], 2, "demo of which files?"),
        (&[text(&missing)], 1, "cannot read"),
        (&[text(&empty)], 1, "there is no file to store"),
        (&[text(&huge)], 1, "of room in"),
    ];
    for (words, code, reason) in table {
        let output = command(place.path(), words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        assert!(said.contains(reason), "{words:?}: {said}");
    }
    assert_eq!(place.names(), [""; 0]);
}
