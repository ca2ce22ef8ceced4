//! The built programs, started the way their users start them: by a marking harness with the coursework's positional
//! arguments, by a person, and by a script. (spec 5, 6.6)

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

mod common;
use common::program::Program;
use common::{PATIENCE, TempFolder};

const CONTROLLER: &str = env!("CARGO_BIN_EXE_controller");
const DSTORE: &str = env!("CARGO_BIN_EXE_dstore");
const CLIENT: &str = env!("CARGO_BIN_EXE_client");
const CLUSTER: &str = env!("CARGO_BIN_EXE_cluster");

/// A client that sends what it is told to and nothing else, as the official client's tests do.
struct RawClient {
    stream: BufReader<TcpStream>,
}

impl RawClient {
    fn connect(port: u16) -> Self {
        Self::connect_to(([127, 0, 0, 1], port).into())
    }

    fn connect_to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    fn say(&mut self, line: &str) {
        self.stream.get_mut().write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("an answer");
        line.trim_end_matches('\n').to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    /// What comes within `timeout`, if anything.
    fn hear_within(&mut self, timeout: Duration) -> Option<String> {
        self.stream.get_ref().set_read_timeout(Some(timeout)).unwrap();
        let mut line = String::new();
        let heard = self.stream.read_line(&mut line);
        self.stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        heard.ok().map(|_| line.trim_end_matches('\n').to_owned())
    }

    /// Stores as the official client does: one Dstore after another, a connection each. (spec 6.4)
    fn send_content(&mut self, store_to: &str, name: &str, content: &[u8]) {
        for port in store_to.strip_prefix("STORE_TO ").expect(store_to).split(' ') {
            let mut dstore = Self::connect(port.parse().unwrap());
            assert_eq!(dstore.ask(&format!("STORE {name} {}", content.len())), "ACK");
            dstore.stream.get_mut().write_all(content).unwrap();
        }
    }

    /// Loads as the official client does, and goes on reading to the end of the stream.
    fn load(&mut self, name: &str) -> Vec<u8> {
        let offer = self.ask(&format!("LOAD {name}"));
        let words: Vec<&str> = offer.split(' ').collect();
        let ["LOAD_FROM", port, size] = words[..] else { panic!("{offer}") };
        let mut dstore = Self::connect(port.parse().unwrap());
        dstore.say(&format!("LOAD_DATA {name}"));
        let mut content = Vec::new();
        dstore.stream.read_to_end(&mut content).unwrap();
        assert_eq!(content.len(), size.parse::<usize>().unwrap());
        content
    }
}

/// A Controller and its Dstores, as the official validation starts them: relative folders, made beforehand. (spec 5.3)
struct System {
    dstores: Vec<Program>,
    controller: Program,
    folder: TempFolder,
}

impl System {
    fn start(replicas: usize, dstores: usize, timeout_ms: u64, period_s: u64) -> Self {
        let folder = TempFolder::new();
        let (r, timeout, period) = (replicas.to_string(), timeout_ms.to_string(), period_s.to_string());
        let mut controller = Program::start(CONTROLLER, &["0", &r, &timeout, &period], folder.path());
        let cport = controller.port.to_string();
        let dstores: Vec<_> = (1..=dstores)
            .map(|number| {
                let name = format!("file_folder_{number}");
                fs::create_dir(folder.path().join(&name)).unwrap();
                fs::write(folder.path().join(&name).join("left-over"), "from the run before").unwrap();
                Program::start(DSTORE, &["0", &cport, &timeout, &name], folder.path())
            })
            .collect();
        for dstore in &dstores {
            controller.wait_for_log(&format!("[New Dstore {} ", dstore.port));
        }
        Self { dstores, controller, folder }
    }

    fn file(&self, dstore: usize, name: &str) -> PathBuf {
        self.folder.path().join(format!("file_folder_{}", dstore + 1)).join(name)
    }

    fn client(&self) -> RawClient {
        RawClient::connect(self.controller.port)
    }

    fn run_client(&self, arguments: &[&str], input: &str) -> Output {
        let port = self.controller.port.to_string();
        let arguments = [&[port.as_str(), "30000"], arguments].concat();
        run(CLIENT, &arguments, self.folder.path(), input)
    }
}

fn run(program: &str, arguments: &[&str], folder: &Path, input: &str) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input has closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_official_validation_finds_what_it_looks_for() {
    // spec 1.3, 1.4, 5.1, 5.3, 6.4, 6.5: R 3, timeout 100 ms, period 10000 s, three Dstores back to back
    let system = System::start(3, 3, 100, 10_000);
    let mut client = system.client();
    assert_eq!(client.ask("LIST"), "LIST");
    for (name, size) in [("empty", 0), ("small.txt", 5), ("large.bin", 100_000)] {
        let content: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        // 100 ms are short on a busy machine, where the spec has the Controller say nothing and forget the file.
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{name} is never stored in time");
            let store_to = client.ask(&format!("STORE {name} {size}"));
            client.send_content(&store_to, name, &content);
            match client.hear_within(Duration::from_millis(500)) {
                Some(reply) => {
                    assert_eq!(reply, "STORE_COMPLETE");
                    break;
                }
                None => assert!(!client.ask("LIST").contains(name), "no answer, so no file"),
            }
        }
        for dstore in 0..3 {
            assert_eq!(fs::read(system.file(dstore, name)).unwrap(), content, "{name} on Dstore {dstore}");
        }
        assert_eq!(client.load(name), content);
    }
    assert_eq!(client.ask("LIST"), "LIST empty large.bin small.txt");
    for dstore in 0..3 {
        let folder = fs::read_dir(system.file(dstore, "")).unwrap();
        let mut names: Vec<_> = folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(
            names,
            ["empty", "large.bin", "small.txt"],
            "emptied at the start, and nothing but whole files in it"
        );
    }
}

#[test]
fn the_official_clients_tests_of_a_controller_pass() {
    // spec 6.6, with the other known set-up of 5.3: R = N = 3, timeout 1000 ms
    let system = System::start(3, 3, 1000, 10_000);
    let mut client = system.client();

    // It asks to store and contacts no Dstore.
    for size in [10, 0] {
        let store_to = client.ask(&format!("STORE wrong {size}"));
        assert_eq!(store_to.split(' ').count(), 4, "{store_to}");
        assert_eq!(client.hear_within(Duration::from_millis(1000)), None);
        assert_eq!(client.ask("LIST"), "LIST", "not in the index afterwards, and the connection still usable");
    }

    // It asks to load again and again and contacts no Dstore.
    let store_to = client.ask("STORE right 3");
    client.send_content(&store_to, "right", b"abc");
    assert_eq!(client.hear(), "STORE_COMPLETE");
    let mut offers: Vec<String> =
        vec![client.ask("LOAD right"), client.ask("RELOAD right"), client.ask("RELOAD right")];
    assert_eq!(client.ask("RELOAD right"), "ERROR_LOAD");
    offers.sort();
    let mut expected: Vec<String> =
        system.dstores.iter().map(|dstore| format!("LOAD_FROM {} 3", dstore.port)).collect();
    expected.sort();
    assert_eq!(offers, expected, "R different ports");

    // Stopped half way, its next request is a different one and nothing is owed.
    client.ask("LOAD right");
    client.ask("RELOAD right");
    assert_eq!(client.ask("REMOVE right"), "REMOVE_COMPLETE");
    assert_eq!(client.ask("LIST"), "LIST");
    assert!((0..3).all(|dstore| !system.file(dstore, "right").exists()));
}

#[test]
fn every_message_is_logged_and_content_never() {
    // spec 5.2; and the Controller never sees any content: spec 1.1
    let mut system = System::start(1, 1, 5000, 0);
    let mut client = system.client();
    let store_to = client.ask("STORE f 14");
    client.send_content(&store_to, "f", b"secret content");
    assert_eq!(client.hear(), "STORE_COMPLETE");
    let (cport, port) = (system.controller.port, system.dstores[0].port);
    let local = client.stream.get_ref().local_addr().unwrap().port();
    system.controller.wait_for_log(&format!("[{cport}<-{local}] STORE f 14"));
    system.controller.wait_for_log(&format!("[{cport}->{local}] STORE_TO {port}"));
    system.controller.wait_for_log("STORE_ACK f");
    system.controller.wait_for_log(&format!("[{cport}->{local}] STORE_COMPLETE"));
    let dstore = &mut system.dstores[0];
    dstore.wait_for_log(&format!("->{cport}] JOIN {port}"));
    dstore.wait_for_log("STORE f 14");
    dstore.wait_for_log("ACK");
    dstore.wait_for_log("STORE_ACK f");
    let logs = [system.controller.log_so_far().join("\n"), system.dstores[0].log_so_far().join("\n")];
    assert!(logs.iter().all(|log| !log.contains("secret")));
}

#[test]
fn messages_can_be_switched_off_in_the_log() {
    let folder = TempFolder::new();
    let mut controller = Program::start_with(CONTROLLER, &["0", "1", "1000", "0"], folder.path(), "warn");
    let mut client = RawClient::connect(controller.port);
    client.say("NONSENSE");
    assert_eq!(client.ask("LIST"), "ERROR_NOT_ENOUGH_DSTORES");
    controller.wait_for_log("NONSENSE"); // a warning, which stays
    assert!(controller.log_so_far().iter().all(|line| !line.contains("LIST")));
}

#[test]
fn the_2021_edition_finds_its_period_and_its_log_files() {
    // spec 5.4
    let folder = TempFolder::new();
    let controller =
        Program::start(CONTROLLER, &["0", "1", "5000", "50", "--period-in-ms", "--log-2021"], folder.path());
    let cport = controller.port.to_string();
    let dstore = Program::start(DSTORE, &["0", &cport, "5000", "files", "--log-2021"], folder.path());
    let log_of = |start: &str, end: &str| -> Option<String> {
        let entries = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut logs = entries.filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            let ms = name.strip_prefix(start).and_then(|rest| rest.strip_suffix(end));
            ms.is_some_and(|ms| !ms.is_empty() && ms.bytes().all(|byte| byte.is_ascii_digit()))
        });
        logs.next().map(|path| fs::read_to_string(path).unwrap())
    };
    let wait_for = |start: &str, holds: &dyn Fn(&str) -> bool| -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = log_of(start, ".log").unwrap_or_default();
            if holds(&log) {
                return log;
            }
            assert!(Instant::now() < deadline, "{start}*.log: {log}");
            thread::yield_now();
        }
    };
    // The period is in milliseconds: several rebalances are soon over.
    let log = wait_for("controller_", &|log| log.matches("] LIST\n").count() >= 6);
    let new = log.lines().find(|line| line.starts_with("[New Dstore ")).expect("the join is logged");
    let words: Vec<&str> = new.trim_matches(['[', ']']).split(' ').collect();
    assert_eq!(words[2], dstore.port.to_string());
    assert!(words[3].starts_with(&format!("{cport}<-")), "{new}");
    assert!(log.lines().all(|line| line.starts_with('[') && line.contains(']')), "no time stamps, nothing else: {log}");
    let log = wait_for("dstore_0_", &|log| log.contains("LIST"));
    assert!(log.starts_with('[') && log.contains(&format!("->{cport}] JOIN {}\n", dstore.port)), "{log}");
}

#[test]
fn a_dstore_ends_when_its_controller_goes_and_says_so() {
    // spec 4.1
    let mut system = System::start(1, 1, 1000, 0);
    system.controller.child.kill().unwrap();
    let status = system.dstores[0].wait_for_exit();
    assert_eq!(status.code(), Some(1));
    system.dstores[0].wait_for_log("the Controller has gone");
}

#[test]
fn a_dstore_refuses_a_folder_that_holds_folders_unless_forced() {
    // spec 7.15
    let folder = TempFolder::new();
    let controller = Program::start(CONTROLLER, &["0", "1", "1000", "0"], folder.path());
    let cport = controller.port.to_string();
    fs::create_dir_all(folder.path().join("home/photos")).unwrap();
    fs::write(folder.path().join("home/letter.txt"), "dear").unwrap();
    let refused = run(DSTORE, &["0", &cport, "1000", "home"], folder.path(), "");
    assert_eq!(code(&refused), 1);
    assert!(err(&refused).contains("photos") && err(&refused).contains("--force"), "{}", err(&refused));
    assert!(folder.path().join("home/letter.txt").exists(), "refused means untouched");
    let _dstore = Program::start(DSTORE, &["0", &cport, "1000", "home", "--force"], folder.path());
    assert_eq!(fs::read_dir(folder.path().join("home")).unwrap().count(), 0);
}

#[test]
fn files_that_no_dstore_has_written_are_moved_out_of_its_folder() {
    // spec 7.15: the folder is a person's, and given by a link to it
    let system = System::start(1, 0, 1000, 0);
    let photos = system.folder.path().join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("sea.jpg"), "blue").unwrap();
    std::os::unix::fs::symlink(&photos, system.folder.path().join("files")).unwrap();
    let arguments = ["0", &system.controller.port.to_string(), "1000", "files"];
    let mut dstore = Program::start(DSTORE, &arguments, system.folder.path());
    assert_eq!(fs::read_dir(&photos).unwrap().count(), 0, "it begins with nothing (spec 5.1)");
    let aside = system.folder.path().join("photos.set-aside-1");
    assert_eq!(fs::read(aside.join("sea.jpg")).unwrap(), b"blue");
    dstore.wait_for_log(&format!("moved to {}", aside.display()));
}

#[test]
fn a_dstore_empties_its_old_folder_and_leaves_nothing_beside_it() {
    // spec 5.1, 5.3: a relative folder, made beforehand; the Dstore before was killed, perhaps half way through a store
    let mut system = System::start(1, 0, 1000, 0);
    let files = system.folder.path().join("files");
    fs::create_dir(&files).unwrap();
    let cport = system.controller.port.to_string();
    for run in ["first", "second"] {
        let mut dstore = Program::start(DSTORE, &["0", &cport, "1000", "files"], system.folder.path());
        assert_eq!(fs::read_dir(&files).unwrap().count(), 0, "{run}");
        system.controller.wait_for_log(&format!("[New Dstore {} ", dstore.port));
        let mut client = system.client();
        let store_to = client.ask(&format!("STORE {run} 7"));
        client.send_content(&store_to, run, b"content");
        assert_eq!(client.hear(), "STORE_COMPLETE");
        dstore.child.kill().unwrap();
        dstore.wait_for_exit();
        system.controller.wait_for_log(&format!("Dstore {} has left", dstore.port));
        fs::write(files.join(".incoming 7"), "half of the cont").unwrap();
        assert_eq!(fs::read(files.join(run)).unwrap(), b"content");
    }
    assert_eq!(system.folder.names(), ["files"]);
}

#[test]
fn a_dstore_that_others_cannot_reach_says_so_at_the_start() {
    // spec 1.4: they are told a port of this machine, and look for it at 127.0.0.1
    let system = System::start(1, 0, 1000, 0);
    let arguments = ["0", &system.controller.port.to_string(), "1000", "files", "--bind"];
    for (bind, is_said) in [("127.0.0.2", true), ("127.0.0.1", false), ("0.0.0.0", false)] {
        let mut dstore = Program::start(DSTORE, &[&arguments[..], &[bind]].concat(), system.folder.path());
        dstore.wait_for_log("JOIN "); // said later than what is looked for
        let said = dstore.log_so_far().iter().any(|line| line.contains("others will look for it at 127.0.0.1"));
        assert_eq!(said, is_said, "{bind}");
    }
}

#[test]
fn a_second_dstore_on_the_same_port_or_folder_harms_nothing() {
    let system = System::start(1, 1, 5000, 0);
    let stored = system.run_client(&["store", "left"], "");
    assert_eq!(code(&stored), 1, "there is no such file: {}", err(&stored));
    fs::write(system.folder.path().join("f"), "content").unwrap();
    assert_eq!(code(&system.run_client(&["store", "f"], "")), 0);
    let (port, cport) = (system.dstores[0].port.to_string(), system.controller.port.to_string());
    let second = run(DSTORE, &[&port, &cport, "1000", "file_folder_1"], system.folder.path(), "");
    assert_eq!(code(&second), 1);
    assert!(err(&second).contains(&format!("cannot listen on port {port}")), "{}", err(&second));
    assert!(system.file(0, "f").exists(), "its folder is emptied only by one that can listen");
    let third = run(DSTORE, &["0", &cport, "1000", "file_folder_1"], system.folder.path(), "");
    assert_eq!(code(&third), 1);
    assert!(err(&third).contains("another Dstore's"), "{}", err(&third));
    assert!(system.file(0, "f").exists(), "nor by one on another port");
    let lonely = run(DSTORE, &["0", "1", "1000", "file_folder_1"], system.folder.path(), "");
    assert_eq!(code(&lonely), 1);
    assert!(err(&lonely).contains("cannot reach the Controller"), "{}", err(&lonely));
    assert!(system.file(0, "f").exists(), "nor by one that finds no Controller");
}

#[test]
fn peers_connect_by_any_of_this_machines_addresses() {
    // spec 7.14
    let system = System::start(1, 1, 5000, 0);
    let addresses: [IpAddr; 3] = [[127, 0, 0, 1].into(), [127, 0, 1, 1].into(), [0, 0, 0, 0, 0, 0, 0, 1].into()];
    let has_ipv6 = Path::new("/proc/net/if_inet6").exists();
    for address in addresses.iter().filter(|address| address.is_ipv4() || has_ipv6) {
        let mut client = RawClient::connect_to((*address, system.controller.port).into());
        assert_eq!(client.ask("LIST"), "LIST", "{address}");
    }
    let bound = Program::start(CONTROLLER, &["0", "1", "1000", "0", "--bind", "127.0.0.1"], system.folder.path());
    assert!(TcpStream::connect(("127.0.0.1", bound.port)).is_ok());
    assert!(TcpStream::connect(("127.0.1.1", bound.port)).is_err(), "told otherwise");
}

#[test]
fn arguments_that_make_no_sense_get_one_line_and_exit_code_2() {
    let folder = TempFolder::new();
    let table: &[(&str, &[&str])] = &[
        (CONTROLLER, &[]),
        (CONTROLLER, &["1", "2", "3"]),
        (CONTROLLER, &["1", "2", "3", "4", "5"]),
        (CONTROLLER, &["port", "3", "100", "10"]),
        (CONTROLLER, &["65536", "3", "100", "10"]),
        (CONTROLLER, &["0", "0", "100", "10"]),
        (CONTROLLER, &["0", "-3", "100", "10"]),
        (CONTROLLER, &["0", "3", "0", "10"]),
        (CONTROLLER, &["0", "3", "100", "ten"]),
        (CONTROLLER, &["0", "3", "100", "10", "--bind", "nowhere"]),
        (CONTROLLER, &["0", "3", "100", "10", "--unknown"]),
        (DSTORE, &[]),
        (DSTORE, &["0", "0", "100", "folder"]),
        (DSTORE, &["0", "1", "100"]),
        (DSTORE, &["0", "1", "none", "folder"]),
        (CLIENT, &[]),
        (CLIENT, &["0", "100", "list"]),
        (CLIENT, &["1", "100", "dance"]),
        (CLIENT, &["1", "100", "store"]),
        (CLIENT, &["1", "100", "store", "a", "b", "--as", "c"]),
        (CLIENT, &["1", "100", "load"]),
        (CLIENT, &["1", "100", "remove"]),
        (CLIENT, &["1", "100", "list", "all"]),
        (CLUSTER, &["--demo"]),
        (CLUSTER, &["a-file"]),
        (CLUSTER, &["--demo", "--dstores", "3", "a-file"]),
        (CLUSTER, &["--demo", "--period", "0", "a-file"]),
        (CLUSTER, &["--bind", "192.0.2.1"]),
    ];
    for (program, arguments) in table {
        let output = run(program, arguments, folder.path(), "");
        assert_eq!(code(&output), 2, "{program} {arguments:?}: {}", err(&output));
        assert_eq!(err(&output).lines().count(), 1, "{program} {arguments:?}: {}", err(&output));
        assert_eq!(out(&output), "");
    }
    for program in [CONTROLLER, DSTORE, CLIENT, CLUSTER] {
        let output = run(program, &["--help"], folder.path(), "");
        assert_eq!((code(&output), err(&output).as_str()), (0, ""));
        assert!(out(&output).contains("Examples:") && out(&output).contains("Error codes:"));
    }
}

#[test]
fn the_clients_exit_code_says_what_went_wrong() {
    let system = System::start(1, 1, 5000, 0);
    let folder = system.folder.path();
    fs::write(folder.join("notes.txt"), "some notes").unwrap();
    fs::write(folder.join("two words.txt"), "a name with a space").unwrap();
    fs::create_dir(folder.join("out")).unwrap();
    let runs: &[(&[&str], i32, &str, &str)] = &[
        (&["list"], 0, "", ""),
        (&["load", "notes.txt"], 3, "", "client: notes.txt does not exist\n"),
        (&["remove", "notes.txt"], 3, "", "client: notes.txt does not exist\n"),
        (&["store", "notes.txt"], 0, "stored notes.txt (10 bytes)\n", ""),
        (&["store", "notes.txt"], 4, "", "client: notes.txt already exists; remove it first\n"),
        (&["store", "two words.txt"], 1, "", "client: a file name cannot hold ' '\n"),
        (&["store", "two words.txt", "--as", "two"], 0, "stored two (19 bytes)\n", ""),
        (&["list"], 0, "notes.txt\ntwo\n", ""),
        (&["store", "notes.txt", "--as", "\u{202e}txt"], 0, "stored \u{202e}txt (10 bytes)\n", ""),
        (&["list"], 0, "notes.txt\ntwo\n\u{202e}txt\n", ""),
        (&["load", "notes.txt", "none", "two", "--to", "out"], 3, "", "client: none does not exist\n"),
        (&["load", "../two", "--to", "out"], 1, "", "client: a file name cannot hold '/'\n"),
        (&["store", "out"], 1, "", "client: out is not a file\n"),
        (&["remove", "notes.txt", "two"], 0, "removed notes.txt\nremoved two\n", ""),
    ];
    for (arguments, expected, stdout, stderr) in runs {
        let output = system.run_client(arguments, "");
        assert_eq!((code(&output), err(&output).as_str()), (*expected, *stderr), "{arguments:?}");
        if arguments[0] != "load" {
            assert_eq!(out(&output), *stdout, "{arguments:?}");
        }
    }
    assert_eq!(fs::read(folder.join("out/notes.txt")).unwrap(), b"some notes");
    assert_eq!(fs::read(folder.join("out/two")).unwrap(), b"a name with a space");
    assert_eq!(fs::read_dir(folder.join("out")).unwrap().count(), 2, "and nothing half-written");

    let lonely = Program::start(CONTROLLER, &["0", "1", "1000", "0"], folder);
    let output = run(CLIENT, &[&lonely.port.to_string(), "1000", "list"], folder, "");
    assert_eq!(code(&output), 5, "{}", err(&output));
    let gone = lonely.port.to_string();
    drop(lonely);
    let output = run(CLIENT, &[&gone, "1000", "list"], folder, "");
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains(&format!("the Controller at 127.0.0.1:{gone}: ")), "{}", err(&output));
}

#[test]
fn commands_can_be_piped_into_the_client() {
    let system = System::start(1, 1, 5000, 0);
    fs::write(system.folder.path().join("my notes"), "abc").unwrap();
    let input = "store \"my notes\" notes\n\nlist\nload notes copy-of\nhelp\nquit\nlist\n";
    let output = system.run_client(&[], &input.replace("load notes copy-of", "load notes"));
    assert_eq!(code(&output), 0, "{}", err(&output));
    let text = out(&output);
    assert!(
        text.starts_with("stored notes (3 bytes)\nnotes\nloaded notes (3 bytes) into ./notes\nstore PATH"),
        "{text}"
    );
    assert!(text.ends_with("in double quotes.\n"), "nothing after quit: {text}");
    assert_eq!(fs::read(system.folder.path().join("notes")).unwrap(), b"abc");

    let output = system.run_client(&[], "dance\nload\nload none\nlist\n");
    assert_eq!(code(&output), 3, "the last failure's code");
    assert_eq!(err(&output).lines().count(), 3, "{}", err(&output));
    assert_eq!(out(&output), "notes\n", "a failure does not end the commands");
}

#[test]
fn the_cluster_shows_what_a_lost_dstore_does_not_cost() {
    // spec 4.6
    let folder = TempFolder::new();
    let inputs = folder.path().join("inputs");
    fs::create_dir_all(inputs.join("deep er")).unwrap();
    for number in 0..20_usize {
        fs::write(inputs.join(format!("{number}.txt")), common::bytes(number as u64, number * 1000)).unwrap();
    }
    fs::write(inputs.join("deep er/empty"), "").unwrap();
    fs::write(inputs.join("deep er/large"), common::bytes(99, 3_000_000)).unwrap();
    std::os::unix::fs::symlink(".", inputs.join("link")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(inputs.join("socket")).unwrap());
    let output = run(
        CLUSTER,
        &["--demo", "--period", "1", "inputs", "inputs/1.txt", "inputs/deep er/../1.txt"],
        folder.path(),
        "",
    );
    assert_eq!(code(&output), 0, "{} {}", out(&output), err(&output));
    let text = out(&output);
    assert!(text.contains("inputs/link is left out: a symbolic link\n"), "{text}");
    assert!(text.contains("inputs/socket is left out: neither a file nor a folder\n"), "{text}");
    assert!(text.contains("inputs/deep er/../1.txt is stored as 23~1.txt: another file has its name\n"), "{text}");
    assert!(text.contains("Stored 24 files, 3192000 bytes"), "{text}");
    assert!(text.contains("24 files, R = 3: 72 of 72 copies, 18 to 18 on a Dstore: as it should be"), "{text}");
    assert!(text.contains("24 files, R = 3: 72 of 72 copies, 24 to 24 on a Dstore: as it should be"), "{text}");
    assert!(text.ends_with("All 24 files came back, byte for byte the same. Nothing was lost.\n"), "{text}");

    let input = "status\nkill 1\nkill 1\nkill five\nstatus\njoin\nstatus now\nhelp\n";
    let output = run(CLUSTER, &["--folder", "kept"], folder.path(), input);
    let (text, complaints) = (out(&output), err(&output));
    assert_eq!(code(&output), 2, "{complaints}");
    let expected = "Dstore 1 is dead already\n\"five\" is not the number of a Dstore\n\
        that is not how to say status; try help\n";
    assert_eq!(complaints, expected);
    assert!(text.contains("dead\n") && text.contains("Dstore 5 has been started") && text.contains("kill N"), "{text}");
    assert!(folder.path().join("kept/dstore-5").is_dir(), "a folder that was given stays");
}

#[test]
fn a_cluster_listens_on_loopback_only_unless_told_otherwise() {
    // 127.0.1.1 stands for an address by which other machines reach this one.
    for (arguments, is_reached) in [(&[][..], false), (&["--bind", "0.0.0.0"][..], true)] {
        let folder = TempFolder::new();
        let mut command = Command::new(CLUSTER);
        command.args(arguments).env("TMPDIR", folder.path()).stdin(Stdio::piped());
        let mut cluster = Program::spawn(command);
        cluster.wait_for_log("Say help");
        let line = cluster.log_so_far().iter().find(|line| line.starts_with("Controller on port")).unwrap().clone();
        let ports: Vec<u16> =
            line.split([' ', ',']).filter_map(|word| word.parse().ok()).filter(|&port| port > 100).collect();
        assert_eq!(ports.len(), 5, "{line}");
        for port in ports {
            assert!(TcpStream::connect(("127.0.0.1", port)).is_ok(), "{line}");
            assert_eq!(TcpStream::connect(("127.0.1.1", port)).is_ok(), is_reached, "{arguments:?}: {line}");
        }
    }
}
