//! Clients of a Tracker, over a whole store of real processes. (docs/wires.md, section 1)
//!
//! `python/tracker.py` speaks as the original's clients do, by stubs that are made of `python/tracker.proto` when it starts.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use common::{Gateway, STEVEDORE, User, Whole, limited, python, run_script, script, start, text, wait_for_dstores};
use kit::{Program, TempFolder, bytes, eventually};

/// A gateway that is a Tracker, whose keepers take free ports.
struct Tracker {
    gateway: Gateway,
    python: PathBuf,
    address: String,
    /// Where its clients are told of their uploads.
    notify: String,
}

impl Tracker {
    fn start(user: &User, python: PathBuf) -> Self {
        let notify = kit::free_port().to_string();
        let options = ["--tracker", "0", "--tracker-keepers", "0", "--tracker-notify", &notify];
        let mut gateway = Gateway::start(user, &options);
        let address = gateway.place("Tracker").split(',').next().expect("an address").to_owned();
        Self { gateway, python, address, notify }
    }

    /// Where the keeper of a Dstore listens.
    fn keeper(&mut self, dstore: usize) -> String {
        let log = self.gateway.program.log_so_far();
        let text = format!("keeper {dstore} listens on ");
        log.iter().find_map(|line| Some(line.split_once(&text)?.1.to_owned())).expect("it was logged")
    }

    fn check(&self, checks: &[&str]) -> String {
        run_script(&self.python, "tracker.py", &[&[&*self.address, &self.notify], checks].concat())
    }
}

/// Runs checks of the script against a gateway over three Dstores.
fn check(checks: &[&str]) {
    let Some(python) = python("grpc_tools") else { return };
    let store = Whole::start(3, "never");
    wait_for_dstores(&store.user, 3);
    Tracker::start(&store.user, python).check(checks);
    // What was stored is whole, on as many Dstores as it should be.
    eventually("all is as it should be", || store.user.run(&["check", "--deep"]).status.success());
}

#[test]
fn every_method_answers_as_clients_of_a_tracker_know_it() {
    check(&["refusals", "told", "reflected"]);
}

#[test]
fn files_of_any_size_go_through_a_tracker() {
    check(&["sizes"]);
}

#[test]
fn fifty_uploads_and_fifty_downloads_at_once_succeed() {
    check(&["crowd"]);
}

#[test]
fn a_thousand_files_one_after_another_use_all_keepers_alike() {
    check(&["thousand"]);
}

#[test]
fn a_large_file_streams_from_all_holders_at_a_time() {
    check(&["streams"]);
}

#[test]
fn the_steps_of_an_upload_are_logged_in_their_order() {
    let Some(python) = python("grpc_tools") else { return };
    let store = Whole::start(2, "never");
    wait_for_dstores(&store.user, 2);
    let mut tracker = Tracker::start(&store.user, python);
    tracker.check(&["told"]);
    let expected = [
        "may upload a file to keeper",
        "has uploaded \"told.txt\"",
        "was told of its upload",
        "gets the answer to its upload",
    ];
    tracker.gateway.program.wait_for_log(expected[3]);
    let log = tracker.gateway.program.log_so_far();
    let steps: Vec<(u64, &str)> = log
        .iter()
        .filter_map(|line| line.split_once("tracker, step ")?.1.split_once(": "))
        .map(|(number, what)| (number.parse().expect("a number"), what))
        .collect();
    assert!(steps.iter().map(|(number, _)| *number).eq(1..=steps.len() as u64), "{steps:?}");
    // Of the first upload; between its steps its client downloads the file.
    let mut rest = steps.iter();
    for step in expected {
        assert!(rest.any(|(_, what)| what.contains(step)), "{step} is not behind the one before: {steps:?}");
    }
    // The store says two copies; a Tracker's file has three, as soon as there is a third Dstore.
    let copies = store.user.json(&["stat", "--copies", "--json", "/told.txt"]);
    assert_eq!(copies["objects"][0]["wanted"].to_string().trim_matches('"'), "3", "{copies}");
}

#[test]
fn the_example_reads_from_all_keepers_in_parallel() {
    let Some(python) = python("grpc_tools") else { return };
    let store = Whole::start(3, "never");
    wait_for_dstores(&store.user, 3);
    let tracker = Tracker::start(&store.user, python);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/tracker.py");
    let run = |words: &[&str]| {
        let mut command = limited(&tracker.python);
        command.arg("-B").arg(&example).args(["--tracker", &tracker.address]).args(words).env("no_proxy", "*");
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).expect("text"))
    };
    let (from, to) = (store.local("from"), store.local("to"));
    for size in [0, 1, 2, 30_000_001] {
        let content = bytes(size as u64, size);
        fs::write(&from, &content).unwrap();
        let (is_done, said) = run(&["upload", text(&from), "file"]);
        assert!(is_done, "{said}");
        let (is_done, said) = run(&["download", "file", text(&to)]);
        assert!(is_done && fs::read(&to).unwrap() == content, "{size}: {said}");
        assert_eq!(said.matches("keeper ").count(), size.min(3), "{said}");
    }
    let (is_done, said) = run(&["table"]);
    assert!(
        is_done && ["keeper 1\talive", "keeper 2\talive", "keeper 3\talive"].iter().all(|row| said.contains(row)),
        "{said}"
    );
    let (is_done, said) = run(&["download", "missing", text(&to)]);
    assert!(!is_done && said == "UNKNOWN: no available nodes or ports to download from\n", "{said}");
}

/// A Dstore in a process of its own, which logs what it is asked.
struct Dstore {
    program: Program,
    words: Vec<String>,
}

impl Dstore {
    fn start(words: Vec<String>) -> Self {
        let mut command = Command::new(STEVEDORE);
        command.args(&words).env_remove("STEVEDORE_CLUSTER").env("RUST_LOG", "debug").stdin(Stdio::null());
        let mut program = Program::spawn(command);
        program.wait_for_log("Dstore of the store");
        Self { program, words }
    }

    fn start_again(&mut self) {
        *self = Self::start(std::mem::take(&mut self.words));
    }

    /// So many objects were read from it so far.
    fn reads(&mut self) -> usize {
        self.program.log_so_far().iter().filter(|line| line.contains(" GET ")).count()
    }
}

#[test]
fn a_keeper_reads_from_its_own_dstore_while_that_lives() {
    let Some(python) = python("grpc_tools") else { return };
    let folder = TempFolder::new();
    let data = folder.path().join("controller");
    let controller = ["controller", "--port", "0", "--sync", "never", "--data", text(&data)];
    let _controller = start(&controller);
    let user = User { cluster: data };
    // One after another, so that their numbers are known.
    let mut dstores: Vec<Dstore> = (1..=3)
        .map(|number: usize| {
            let disk = folder.path().join(number.to_string());
            fs::create_dir(&disk).unwrap();
            fs::copy(user.cluster.join("cluster.toml"), disk.join("cluster.toml")).unwrap();
            let host = number.to_string();
            let words = ["dstore", "--port", "0", "--sync", "never", "--host", &host, "--data", text(&disk)];
            let dstore = Dstore::start(words.map(str::to_owned).into());
            wait_for_dstores(&user, number);
            dstore
        })
        .collect();
    let mut tracker = Tracker::start(&user, python);
    tracker.check(&["keep"]);
    eventually("all have three copies", || user.run(&["check"]).status.success());
    let keepers: Vec<String> = (1..=3).map(|number| tracker.keeper(number)).collect();
    for (number, keeper) in keepers.iter().enumerate() {
        let before: Vec<usize> = dstores.iter_mut().map(Dstore::reads).collect();
        tracker.check(&[&format!("read_from={keeper}")]);
        eventually("its Dstore has logged what was read", || dstores[number].reads() == before[number] + 10);
        let after: Vec<usize> = dstores.iter_mut().map(Dstore::reads).collect();
        let total = |reads: &[usize]| reads.iter().sum::<usize>();
        assert_eq!(total(&after), total(&before) + 10, "keeper {} reads from others: {after:?}", number + 1);
    }
    dstores[1].program.kill();
    // At once, before anyone knows; and when all do.
    tracker.check(&[&format!("read_from={}", keepers[1])]);
    let has_holders = |expected: &str| {
        let words = [&tracker.address, &tracker.notify, &*format!("holders={expected}")];
        script(&tracker.python, "tracker.py", &words).status.success()
    };
    eventually("the keeper of a dead Dstore is named no more", || has_holders("1,3"));
    tracker.check(&["keep", &format!("read_from={}", keepers[1])]);
    dstores[1].start_again();
    eventually("it is named again, and nothing is lost", || has_holders("1,2,3"));
    tracker.check(&[&format!("read_from={}", keepers[1])]);
}

/// The original looked for missing copies each 10 s. Here a Dstore that joins gets them at once.
#[test]
fn a_file_has_three_copies_soon_after_there_are_three_dstores() {
    let Some(python) = python("grpc_tools") else { return };
    let folder = TempFolder::new();
    let data = folder.path().join("controller");
    let _controller = start(&["controller", "--port", "0", "--sync", "never", "--data", text(&data)]);
    let user = User { cluster: data };
    let start_dstore = |number: usize| {
        let disk = folder.path().join(number.to_string());
        fs::create_dir(&disk).unwrap();
        fs::copy(user.cluster.join("cluster.toml"), disk.join("cluster.toml")).unwrap();
        let host = number.to_string();
        let words = ["dstore", "--port", "0", "--sync", "never", "--host", &host, "--data", text(&disk)];
        let dstore = Dstore::start(words.map(str::to_owned).into());
        wait_for_dstores(&user, number);
        dstore
    };
    let _two = [start_dstore(1), start_dstore(2)];
    let tracker = Tracker::start(&user, python);
    tracker.check(&["keep"]);
    let copies = || {
        let of_file = |number: usize| {
            let said = user.json(&["stat", "--copies", "--json", &format!("/kept{number}")]);
            said["objects"][0]["copies"].as_array().expect("copies").len()
        };
        (0..10).map(of_file).min()
    };
    assert_eq!(copies(), Some(2));
    let _third = start_dstore(3);
    let joined = Instant::now();
    eventually("each has three copies", || copies() == Some(3));
    eprintln!("three copies {:?} after the third Dstore had joined", joined.elapsed());
}
